//! What a tenant restore works with: the map, held against the tables that a database has.

use std::collections::BTreeMap;

use super::map::{Role, Rule, TenantMap};
use super::schema::{ForeignKey, KeyColumn, Operator, Schema, Sequence, Table, Trigger};
use super::statements::{Belongs, TenantTable};
use crate::error::{Fault, Kind};
use crate::source::postgres::client::quote_identifier;
use crate::source::postgres::dump::selection::{bounded, plain};

/// Which tables are replaced in part, which are compared only, and which references there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) root: Root,
    /// The tables whose rows belong to tenants.
    pub(super) tables: Vec<TenantTable>,
    /// The tables that belong to all and refer to one of those: a foreign key could change them.
    pub(super) shared: Vec<TenantTable>,
    /// References from or to a table whose rows belong to tenants.
    pub(super) keys: Vec<ForeignKey>,
    pub(super) triggers: Vec<Trigger>,
    pub(super) sequences: Vec<Sequence>,
    pub(super) notes: Vec<String>,
}

/// The table with a row for each tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Root {
    pub(super) relation: String,
    /// Its columns, as SQL writes them.
    pub(super) key: String,
    pub(super) name: String,
    /// How keys are compared.
    pub(super) operator: Operator,
    /// The type of the key.
    pub(super) key_type: String,
}

impl Plan {
    /// Holds the map against the tables of a database.
    ///
    /// # Errors
    /// [`Kind::Refused`] with everything that does not fit.
    pub(super) fn make(map: &TenantMap, schema: &Schema, database: &str) -> Result<Plan, Fault> {
        let problems = problems(map, schema);
        if !problems.is_empty() {
            let shown = bounded(problems.iter().map(String::as_str));
            let database = plain(database);
            let message = format!("the map of tenants does not fit database {database}: {shown}");
            return Err(Fault::new(Kind::Refused, message).hint(format!(
                "nothing was changed; correct [{}], which `bkp config tenants` checks",
                map.place
            )));
        }
        // Nothing of this fails where there are no problems.
        let unfit = || Fault::new(Kind::Refused, "the map of tenants does not fit the database");
        let root = root(map, schema).map_err(|_problem| unfit())?;
        let mut plan = Plan {
            root,
            tables: Vec::new(),
            shared: Vec::new(),
            keys: Vec::new(),
            triggers: Vec::new(),
            sequences: Vec::new(),
            notes: Vec::new(),
        };
        for table in &schema.tables {
            match map.role(&table.full_name()) {
                Role::Root | Role::Ruled(_) => {
                    let belongs = belongs(map, schema, &table.full_name(), 0);
                    let belongs = belongs.map_err(|_problem| unfit())?;
                    let number = plan.tables.len();
                    plan.tables.push(tenant_table(table, number, belongs));
                    plan.triggers.extend(table.triggers.iter().cloned());
                    plan.sequences.extend(table.sequences.iter().cloned());
                }
                // Nothing but a foreign key can change its rows.
                Role::Shared if refers(map, schema, &table.full_name()) => {
                    plan.shared.push(tenant_table(table, 0, Belongs::Nobody));
                }
                Role::Shared | Role::Excluded | Role::Unknown => {}
            }
        }
        let is_ours = |name: &str| plan.tables.iter().any(|table| table.name == name);
        let keys = schema.keys.iter().filter(|key| is_ours(&key.child) || is_ours(&key.parent));
        plan.keys = keys.cloned().collect();
        plan.sequences.sort_by(|a, b| a.name.cmp(&b.name));
        plan.sequences.dedup();
        let objects = schema.tables.iter().filter(|table| plan.has(&table.full_name()));
        let objects = objects.flat_map(|table| {
            let of_objects = table.columns.iter().filter(|column| {
                let name = column.sql_type.rsplit('.').next().unwrap_or_default();
                ["oid", "lo"].contains(&name)
            });
            of_objects.map(|column| format!("{}.{}", table.full_name(), column.name))
        });
        let objects: Vec<String> = objects.collect();
        if !objects.is_empty() {
            let names = bounded(objects.iter().map(String::as_str));
            plan.notes.push(format!("large objects are not restored, only their numbers: {names}"));
        }
        if !schema.materialized_views.is_empty() {
            let names = bounded(schema.materialized_views.iter().map(String::as_str));
            plan.notes.push(format!("materialized views are not refreshed: {names}"));
        }
        Ok(plan)
    }

    /// Whether the rows of a table belong to tenants.
    pub(super) fn has(&self, name: &str) -> bool {
        self.table(name).is_some()
    }

    /// A table whose rows belong to tenants.
    pub(super) fn table(&self, name: &str) -> Option<&TenantTable> {
        self.tables.iter().find(|table| table.name == name)
    }
}

fn tenant_table(table: &Table, number: usize, belongs: Belongs) -> TenantTable {
    let stored = || table.columns.iter().filter(|column| !column.generated);
    let mut matched = table.key.clone();
    // The server refuses to change these, so a row where one differs is another row.
    let fixed = stored().filter(|column| column.always_identity);
    for column in fixed {
        if !matched.is_empty() && !matched.iter().any(|known| known.name == column.name) {
            matched.push(KeyColumn { name: column.name.clone(), operator: Operator::equals() });
        }
    }
    TenantTable {
        name: table.full_name(),
        relation: table.relation(),
        state: format!("pg_temp.bkp_state_{number}"),
        columns: stored().map(|column| quote_identifier(&column.name)).collect(),
        matched,
        fixed: stored()
            .filter(|column| column.always_identity)
            .map(|column| quote_identifier(&column.name))
            .collect(),
        deferrable: table.deferrable.clone(),
        leaves: table
            .leaves
            .iter()
            .map(|leaf| (leaf.name.clone(), leaf.relation.clone()))
            .collect(),
        belongs,
    }
}

/// Whether a table refers to one whose rows belong to tenants.
fn refers(map: &TenantMap, schema: &Schema, name: &str) -> bool {
    let is_ours = |name: &str| matches!(map.role(name), Role::Root | Role::Ruled(_));
    schema.keys.iter().any(|key| key.child == name && is_ours(&key.parent))
}

/// The table of the tenants, or what is wrong with it.
fn root(map: &TenantMap, schema: &Schema) -> Result<Root, String> {
    let table = schema.table(&map.root).ok_or("there is no root table")?;
    let shown = plain(&map.root);
    let key = match (&map.key, table.key.as_slice()) {
        (Some(key), _) => key.clone(),
        (None, [only]) => only.name.clone(),
        (None, _) => return Err(format!("{shown} has no key of one column: name one in `key`")),
    };
    let column = |name: &str| {
        table.column(name).ok_or_else(|| format!("{shown} has no column {}", plain(name)))
    };
    let key_type = column(&key)?.sql_type.clone();
    let operator = table.key.iter().find(|known| known.name == key);
    let operator = operator.map_or_else(Operator::equals, |known| known.operator.clone());
    let name = map.name.clone().unwrap_or_else(|| key.clone());
    column(&name)?;
    let (key, name) = (quote_identifier(&key), quote_identifier(&name));
    Ok(Root { relation: table.relation(), key, name, operator, key_type })
}

/// How many foreign keys lead to a column with the tenant's key, at most.
const DEPTH_MAX: usize = 32;

/// How the rows of a table belong to a tenant, or why that cannot be said.
fn belongs(map: &TenantMap, schema: &Schema, name: &str, depth: usize) -> Result<Belongs, String> {
    let shown = plain(name);
    let root = root(map, schema)?;
    let table = schema.table(name).ok_or_else(|| format!("there is no table {shown}"))?;
    if depth > DEPTH_MAX {
        return Err(format!("the rules of {shown} lead in a circle"));
    }
    match map.role(name) {
        Role::Root => Ok(of_column(root.key.clone(), root)),
        Role::Ruled(Rule::Column(column)) => {
            let known = table.column(column);
            known.ok_or_else(|| format!("{shown} has no column {}", plain(column)))?;
            Ok(of_column(quote_identifier(column), root))
        }
        Role::Ruled(Rule::Condition(condition)) => {
            Ok(Belongs::Condition { condition: condition.clone(), key_type: root.key_type })
        }
        Role::Ruled(Rule::Via(key)) => {
            let of_it = |known: &&ForeignKey| {
                known.child == name && known.name == *key && !known.of_partition
            };
            let found = schema.keys.iter().find(of_it);
            let found =
                found.ok_or_else(|| format!("{shown} has no foreign key {}", plain(key)))?;
            if found.of_periods {
                return Err(format!("the foreign key {} of {shown} is about periods", plain(key)));
            }
            let parent = belongs(map, schema, &found.parent, depth + 1)?;
            let relation = schema.table(&found.parent).map(Table::relation).unwrap_or_default();
            let columns = found.columns.clone();
            Ok(Belongs::Via { parent: relation, columns, belongs: Box::new(parent) })
        }
        Role::Shared | Role::Excluded | Role::Unknown => {
            Err(format!("a rule leads to {shown}, whose rows belong to no tenant"))
        }
    }
}

fn of_column(column: String, root: Root) -> Belongs {
    Belongs::Column { column, operator: root.operator, key_type: root.key_type }
}

/// Everything in which the map and the database do not fit each other.
pub(super) fn problems(map: &TenantMap, schema: &Schema) -> Vec<String> {
    let names: Vec<String> = schema.tables.iter().map(Table::full_name).collect();
    let missing = map.missing(&names).into_iter();
    let mut found: Vec<String> =
        missing.map(|name| format!("there is no table {}", plain(name))).collect();
    if schema.table(&map.root).is_some() {
        found.extend(root(map, schema).err());
    }
    for (table, name) in schema.tables.iter().zip(&names) {
        let shown = plain(name);
        match map.role(name) {
            Role::Unknown if table.kind != "f" => {
                found.push(format!("{shown} is neither mapped nor shared nor excluded"));
            }
            Role::Root | Role::Ruled(_) => {
                if schema.table(&map.root).is_some() {
                    found.extend(belongs(map, schema, name, 0).err());
                }
                found.extend(unfit(table).map(|why| format!("{shown} {why}")));
            }
            Role::Shared if table.is_row_secured => {
                found.push(format!("row security hides rows of {shown} from this role"));
            }
            Role::Shared if !table.may_read => {
                found.push(format!("this role may not read {shown}"));
            }
            Role::Shared if table.kind == "f" => {
                found.push(format!("{shown} is on another server: exclude it"));
            }
            Role::Shared | Role::Excluded | Role::Unknown => {}
        }
    }
    found.dedup();
    found
}

/// Why rows of a table cannot be replaced.
fn unfit(table: &Table) -> Option<String> {
    let fires = table.triggers.iter().find(|trigger| trigger.enabled != "D");
    let trigger = fires.filter(|_| !table.is_owner);
    let why = match () {
        () if table.kind == "f" => "is on another server",
        () if table.is_row_secured => "has rows that row security hides from this role",
        () if table.has_rules => "has rewrite rules",
        () if !table.may_write => "cannot be read and changed by this role",
        () if table.leaves.iter().any(|leaf| leaf.is_foreign) => "has partitions on another server",
        () if table.inherits => "has tables that inherit from it, or inherits from one",
        () if table.columns.iter().all(|column| column.generated) => "has no columns",
        () => {
            let name = plain(&trigger?.name);
            return Some(format!(
                "has the trigger {name}, which only its owner can keep from firing"
            ));
        }
    };
    Some(why.to_owned())
}

/// In what the state differs from the database that it is to be brought back to, of the tables that the map names.
pub(super) fn differences(
    map: &TenantMap,
    target: &Schema,
    (state, is_recovered): (&Schema, bool),
) -> Vec<String> {
    let is_named = |table: &&Table| {
        matches!(map.role(&table.full_name()), Role::Root | Role::Ruled(_) | Role::Shared)
    };
    let named = |schema: &'_ Schema| -> BTreeMap<String, Table> {
        let tables = schema.tables.iter().filter(is_named);
        tables.map(|table| (table.full_name(), table.clone())).collect()
    };
    let (now, then) = (named(target), named(state));
    let mut found = Vec::new();
    for (name, table) in &now {
        let shown = plain(name);
        match then.get(name) {
            None => found.push(format!("{shown} is not in the backup")),
            Some(then)
                if is_recovered
                    && (then.unlogged || then.leaves.iter().any(|leaf| leaf.unlogged)) =>
            {
                found.push(format!("{shown} is unlogged: a restored server has none of its rows"));
            }
            Some(then) => {
                let differs = columns_differ(table, then);
                found.extend(differs.map(|how| format!("{shown}: {how}")));
            }
        }
    }
    let unknown = state
        .tables
        .iter()
        .filter(|table| map.role(&table.full_name()) == Role::Unknown && table.kind != "f");
    found.extend(unknown.map(|table| {
        let shown = plain(&table.full_name());
        format!("{shown}, which is in the backup, is neither mapped nor shared nor excluded")
    }));
    found
}

fn columns_differ(now: &Table, then: &Table) -> Option<String> {
    let stored = |table: &Table| -> BTreeMap<String, String> {
        let columns = table.columns.iter().filter(|column| !column.generated);
        columns.map(|column| (column.name.clone(), column.sql_type.clone())).collect()
    };
    let (now, then) = (stored(now), stored(then));
    if let Some((name, _)) = now.iter().find(|(name, _)| !then.contains_key(*name)) {
        return Some(format!("column {} is not in the backup", plain(name)));
    }
    if let Some((name, _)) = then.iter().find(|(name, _)| !now.contains_key(*name)) {
        return Some(format!("column {} is in the backup only", plain(name)));
    }
    let (name, was) = then.iter().find(|(name, was)| now.get(*name) != Some(*was))?;
    let is = now.get(name).map(String::as_str).unwrap_or_default();
    Some(format!("column {} was {}, and is {}", plain(name), plain(was), plain(is)))
}
