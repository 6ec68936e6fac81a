//! The SQL of a tenant restore. Names come from the catalogue and are quoted; the tenant's key is a setting of the
//! session, and stands in no statement.

use super::schema::{Deferrable, ForeignKey, KeyColumn, Operator, Reference};
use crate::source::postgres::client::quote_identifier;

/// The setting with the key of the tenant.
pub(super) const TENANT: &str = "bkp.tenant";

/// A table, and which of its rows belong to a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TenantTable {
    /// SCHEMA.TABLE.
    pub(super) name: String,
    /// As SQL writes it.
    pub(super) relation: String,
    /// The temporary table with the tenant's earlier rows.
    pub(super) state: String,
    /// Its columns that are not computed, as SQL writes them.
    pub(super) columns: Vec<String>,
    /// The columns that tell whether two rows are the same one; empty where only all values do.
    pub(super) matched: Vec<KeyColumn>,
    /// The columns that the server refuses to change.
    pub(super) fixed: Vec<String>,
    pub(super) deferrable: Vec<Deferrable>,
    /// The parts that have its rows, as names and as SQL writes them.
    pub(super) leaves: Vec<(String, String)>,
    pub(super) belongs: Belongs,
}

/// Which rows belong to the tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Belongs {
    /// None.
    Nobody,
    /// Those with the key in a column.
    Column { column: String, operator: Operator, key_type: String },
    /// Those that refer to such rows.
    Via { parent: String, columns: Vec<Reference>, belongs: Box<Belongs> },
    /// Those that the operator describes.
    Condition { condition: String, key_type: String },
}

/// How rows are put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PutBack {
    /// Those that differ are changed.
    InPlace,
    /// All are deleted, and then inserted: values that rows have exchanged would collide otherwise.
    Anew,
}

impl Belongs {
    /// The condition on a row that the statement calls `alias`. Null is as good as false.
    pub(super) fn sql(&self, alias: &str) -> String {
        let tenant = |key_type: &str| format!("(current_setting('{TENANT}')::{key_type})");
        match self {
            Belongs::Nobody => "false".to_owned(),
            Belongs::Column { column, operator, key_type } => {
                format!("{alias}.{column} {} {}", operator.sql(), tenant(key_type))
            }
            Belongs::Condition { condition, key_type } => {
                let condition = condition.replace("$tenant", &tenant(key_type));
                // So that the condition can name columns as they are called.
                format!("(select ({condition}) from (select {alias}.*) as \"row\")")
            }
            Belongs::Via { parent, columns, belongs } => {
                let inner = format!("{alias}p");
                format!(
                    "exists (select from {parent} as {inner} where {} and {})",
                    equal(columns, &inner, alias),
                    belongs.sql(&inner)
                )
            }
        }
    }
}

impl TenantTable {
    /// The values of a row as one text, which is the same if and only if the row is.
    fn text(&self, alias: &str) -> String {
        format!("(row({})::text collate pg_catalog.\"C\")", self.list(&format!("{alias}.")))
    }

    fn list(&self, prefix: &str) -> String {
        let names: Vec<String> =
            self.columns.iter().map(|column| format!("{prefix}{column}")).collect();
        names.join(", ")
    }

    /// Gives the tenant's rows, in the state.
    pub(super) fn copy_out(&self) -> String {
        let (columns, belongs) = (self.list("t."), self.belongs.sql("t"));
        format!("copy (select {columns} from {} as t where {belongs}) to stdout", self.relation)
    }

    /// Makes the place for them.
    pub(super) fn make_state(&self) -> String {
        let Self { state, relation, .. } = self;
        format!(
            "create temporary table {} as select {} from {relation} as t with no data",
            state.trim_start_matches("pg_temp."),
            self.list("t."),
        )
    }

    /// Takes them.
    pub(super) fn copy_in(&self) -> String {
        format!("copy {} ({}) from stdin", self.state, self.list(""))
    }

    /// Today's rows of the tenant and the earlier ones, each numbered among its equals where nothing but all values
    /// tells them apart, and whether two of them are the same row.
    fn sides(&self) -> (String, String, String) {
        let Self { relation, state, belongs, matched, .. } = self;
        let belongs = belongs.sql("t");
        if matched.is_empty() {
            let side = |from: &str, own: &str| {
                let text = self.text("t");
                let place = if own.is_empty() {
                    ""
                } else {
                    "t.tableoid as bkp_relation, t.ctid as bkp_place, "
                };
                format!(
                    "(select {place}{}, {text} as bkp_text, row_number() over (partition by {text}) as bkp_number from {from} as t{own})",
                    self.list("t.")
                )
            };
            let same = "o.bkp_text = n.bkp_text and o.bkp_number = n.bkp_number".to_owned();
            return (side(relation, &format!(" where {belongs}")), side(state, ""), same);
        }
        let columns = self.list("t.");
        let old = format!("(select {columns} from {relation} as t where {belongs})");
        (old, state.clone(), self.same("o", "n"))
    }

    /// Whether two rows are the same one.
    fn same(&self, one: &str, other: &str) -> String {
        let equal = self.matched.iter().map(|column| {
            let name = quote_identifier(&column.name);
            format!("{one}.{name} {} {other}.{name}", column.operator.sql())
        });
        equal.collect::<Vec<_>>().join(" and ")
    }

    /// The columns that can be changed in a row.
    fn values(&self) -> Vec<&String> {
        self.columns.iter().filter(|column| !self.fixed.contains(column)).collect()
    }

    /// How many rows are added, changed and removed.
    pub(super) fn count_changes(&self) -> String {
        let (old, new, same) = self.sides();
        let changed = if self.matched.is_empty() {
            "0".to_owned()
        } else {
            let (was, is) = (self.text("n"), self.text("o"));
            format!(
                "(select count(*) from {old} as o join {new} as n on {same} where {was} <> {is})"
            )
        };
        format!(
            "select (select count(*) from {new} as n where not exists (select from {old} as o where {same})), \
             {changed}, (select count(*) from {old} as o where not exists (select from {new} as n where {same}))"
        )
    }

    /// The three parts of the one statement that puts the earlier rows back, as common table expressions `dN`, `uN`
    /// and `iN`. What goes is gone before what comes is written, because both may have the value of a unique index.
    fn parts(&self, number: usize) -> String {
        let (old, new, same) = self.sides();
        let Self { relation, .. } = self;
        let gone = if self.matched.is_empty() {
            format!(
                "delete from {relation} as t using {old} as o where t.ctid = o.bkp_place and t.tableoid = o.bkp_relation \
                 and not exists (select from {new} as n where {same})"
            )
        } else {
            let (belongs, same) = (self.belongs.sql("t"), self.same("t", "n"));
            format!(
                "delete from {relation} as t where {belongs} and not exists (select from {new} as n where {same})"
            )
        };
        let changed = self.changed(number);
        let (columns, values) = (self.list(""), self.list("n."));
        format!(
            "d{number} as ({gone} returning 1), u{number} as ({changed}), \
             i{number} as (insert into {relation} ({columns}) overriding system value select {values} from {new} as n \
             where not exists (select from {old} as o where {same}) \
             and (select count(*) from d{number}) + (select count(*) from u{number}) >= 0 returning 1)"
        )
    }

    /// The part that changes rows that are there and differ.
    fn changed(&self, number: usize) -> String {
        let values = self.values();
        if self.matched.is_empty() || values.is_empty() {
            return "select 1 where false".to_owned();
        }
        let Self { relation, state, .. } = self;
        let set = values.iter().map(|column| format!("{column} = n.{column}"));
        let (set, was, is) = (set.collect::<Vec<_>>().join(", "), self.text("n"), self.text("t"));
        let (same, belongs) = (self.same("t", "n"), self.belongs.sql("t"));
        format!(
            "update {relation} as t set {set} from {state} as n where {same} and {belongs} and {was} <> {is} \
             and (select count(*) from d{number}) >= 0 returning 1"
        )
    }

    /// Whether a part of it has rows of the tenant.
    pub(super) fn is_in(&self, leaf: &str) -> String {
        format!("select exists (select from {leaf} as t where {})", self.belongs.sql("t"))
    }

    /// Has the server read the condition, without running it.
    pub(super) fn check(&self) -> String {
        let (relation, belongs) = (&self.relation, self.belongs.sql("t"));
        format!("prepare bkp_check as select 1 from {relation} as t where {belongs}")
    }

    /// How many rows the tenant and others have, and two sums over the hashes of each.
    pub(super) fn hashes(&self, [one, two]: [i64; 2]) -> String {
        let (belongs, text) = (self.belongs.sql("t"), self.text("t"));
        let sums = |of: &str| {
            format!(
                "count(*) filter (where {of}), coalesce(sum(a) filter (where {of}), 0), coalesce(sum(b) filter (where {of}), 0)"
            )
        };
        format!(
            "select {}, {} from (select ({belongs}) is true as own, hashtextextended({text}, {one})::numeric as a, \
             hashtextextended({text}, {two})::numeric as b from {} as t) as found",
            sums("own"),
            sums("not own"),
            self.relation
        )
    }

    /// The same over the earlier rows.
    pub(super) fn state_hashes(&self, [one, two]: [i64; 2]) -> String {
        let text = self.text("t");
        format!(
            "select count(*), coalesce(sum(hashtextextended({text}, {one})::numeric), 0), \
             coalesce(sum(hashtextextended({text}, {two})::numeric), 0) from {} as t",
            self.state
        )
    }
}

/// The statement that puts the rows of all tables back. One for all of them: the database checks references at the end
/// of a statement, so that their order and their circles do not matter.
pub(super) fn put_back(tables: &[TenantTable]) -> String {
    let parts: Vec<String> =
        tables.iter().enumerate().map(|(number, table)| table.parts(number)).collect();
    let counts = (0..tables.len()).map(|number| {
        format!(
            "select {number}, (select count(*) from i{number}), (select count(*) from u{number}), (select count(*) from d{number})"
        )
    });
    let counts: Vec<String> = counts.collect();
    format!("with {} {}", parts.join(", "), counts.join(" union all "))
}

/// The statement that deletes all rows of the tenant.
pub(super) fn delete_all(tables: &[TenantTable]) -> String {
    together(tables, |table| {
        let (relation, belongs) = (&table.relation, table.belongs.sql("t"));
        format!("delete from {relation} as t where {belongs}")
    })
}

/// The statement that inserts all earlier rows, where the tenant has none.
pub(super) fn insert_all(tables: &[TenantTable]) -> String {
    together(tables, |table| {
        let TenantTable { relation, state, .. } = table;
        let (columns, values) = (table.list(""), table.list("n."));
        format!(
            "insert into {relation} ({columns}) overriding system value select {values} from {state} as n"
        )
    })
}

/// What is done to each table, as one statement.
fn together(tables: &[TenantTable], each: impl Fn(&TenantTable) -> String) -> String {
    let parts = tables.iter().enumerate();
    let parts = parts.map(|(number, table)| format!("p{number} as ({} returning 1)", each(table)));
    format!("with {} select 1", parts.collect::<Vec<_>>().join(", "))
}

/// Of the rows that refer to a row that is not there: how many are the tenant's, how many are not, and two sums over
/// the hashes of those.
pub(super) fn orphans(
    key: &ForeignKey,
    child: Option<&TenantTable>,
    [one, two]: [i64; 2],
) -> String {
    let columns = &key.columns;
    let own: Vec<String> =
        columns.iter().map(|column| format!("c.{}", quote_identifier(&column.child))).collect();
    let refers = if key.matches_full {
        format!("num_nonnulls({}) > 0", own.join(", "))
    } else {
        format!("num_nulls({}) = 0", own.join(", "))
    };
    let belongs = child.map_or_else(|| "false".to_owned(), |child| child.belongs.sql("c"));
    let hash = |seed: i64| {
        format!("coalesce(sum(hashtextextended(text, {seed})::numeric) filter (where not own), 0)")
    };
    format!(
        "select count(*) filter (where own), count(*) filter (where not own), {}, {} from \
         (select ({belongs}) is true as own, row({})::text collate pg_catalog.\"C\" as text from {} as c \
         where {refers} and not exists (select from {} as p where {})) as found",
        hash(one),
        hash(two),
        own.join(", "),
        key.child_relation,
        key.parent_relation,
        equal(columns, "p", "c")
    )
}

/// Counts rows of a table outside that refer to a row of the tenant that is deleted, or whose values change that they
/// refer to.
pub(super) fn dependents(key: &ForeignKey, parent: &TenantTable, way: PutBack) -> String {
    let names: Vec<String> =
        key.columns.iter().map(|column| quote_identifier(&column.parent)).collect();
    let is_stored = names.iter().all(|name| parent.columns.contains(name));
    let mut stays = Vec::new();
    if parent.matched.is_empty() || !is_stored {
        stays.push(format!("{} = {}", parent.text("p"), parent.text("n")));
    } else {
        stays.push(parent.same("p", "n"));
        stays.extend(names.iter().map(|name| format!("p.{name}::text = n.{name}::text")));
    }
    let unless = match way {
        PutBack::Anew => String::new(),
        PutBack::InPlace => {
            let (state, stays) = (&parent.state, stays.join(" and "));
            format!(" and not exists (select from {state} as n where {stays})")
        }
    };
    format!(
        "select count(*) from {} as c join {} as p on {} where {}{unless}",
        key.child_relation,
        parent.relation,
        equal(&key.columns, "p", "c"),
        parent.belongs.sql("p"),
    )
}

/// Counts values that occur more than once although they must be unique.
pub(super) fn duplicates(table: &TenantTable, constraint: &Deferrable) -> String {
    let columns: Vec<String> =
        constraint.columns.iter().map(|column| quote_identifier(column)).collect();
    let columns = columns.join(", ");
    let filter = if constraint.nulls_equal {
        String::new()
    } else {
        format!("where num_nulls({columns}) = 0")
    };
    format!(
        "select count(*) from (select from {} {filter} group by {columns} having count(*) > 1) as found",
        table.relation
    )
}

/// Whether a row refers to another one.
fn equal(columns: &[Reference], parent: &str, child: &str) -> String {
    let equal = columns.iter().map(|column| {
        let (theirs, own) = (quote_identifier(&column.parent), quote_identifier(&column.child));
        let collation = column.collation.as_ref().map(|name| format!(" collate {name}"));
        let collation = collation.unwrap_or_default();
        format!("{parent}.{theirs}{collation} {} {child}.{own}", column.operator.sql())
    });
    equal.collect::<Vec<_>>().join(" and ")
}
