//! The tables of a database, as its catalogue describes them.

use serde::Deserialize;

use crate::source::SourceError;
use crate::source::postgres::client::{ClientError, Connection, quote_identifier};

/// A table with rows of its own, or with partitions that have them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of the catalogue")]
pub(super) struct Table {
    pub(super) schema: String,
    pub(super) name: String,
    /// `r` for a table, `p` for one with partitions, `f` for one of another server.
    pub(super) kind: String,
    /// Whether a crash, and so a restore of a base backup, leaves it empty.
    pub(super) unlogged: bool,
    /// Whether the role may do what its owner may.
    pub(super) is_owner: bool,
    /// Whether the role sees and changes a part of its rows only.
    pub(super) is_row_secured: bool,
    pub(super) has_rules: bool,
    /// Whether it has children or parents that are no partitions.
    pub(super) inherits: bool,
    /// Whether the role may read it, and change all of it.
    pub(super) may_read: bool,
    pub(super) may_write: bool,
    /// The parts that have its rows, if it has parts.
    pub(super) leaves: Vec<Leaf>,
    /// Constraints that are checked by triggers of the database's own, at the end of a transaction.
    pub(super) deferrable: Vec<Deferrable>,
    pub(super) columns: Vec<Column>,
    /// The columns that tell its rows apart; empty if none do.
    pub(super) key: Vec<KeyColumn>,
    /// Triggers that users made, of its partitions too.
    pub(super) triggers: Vec<Trigger>,
    /// Sequences that its columns take their values from.
    pub(super) sequences: Vec<Sequence>,
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Column {
    pub(super) name: String,
    /// As SQL writes it.
    #[serde(rename = "type")]
    pub(super) sql_type: String,
    pub(super) not_null: bool,
    /// Whether its values are computed from those of others.
    pub(super) generated: bool,
    /// Whether the server refuses to change its values.
    pub(super) always_identity: bool,
}

/// A part of a table that has rows of its own.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Leaf {
    /// SCHEMA.TABLE.
    pub(super) name: String,
    /// As SQL writes it.
    pub(super) relation: String,
    pub(super) unlogged: bool,
    /// Whether its rows are on another server.
    pub(super) is_foreign: bool,
}

/// A constraint that values are unique, which may be checked late.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Deferrable {
    pub(super) name: String,
    /// Whether rows may not overlap, instead of being equal.
    pub(super) excludes: bool,
    /// Whether nulls are equal to each other.
    pub(super) nulls_equal: bool,
    pub(super) columns: Vec<String>,
}

/// A column of a key, and how its values are compared.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct KeyColumn {
    pub(super) name: String,
    pub(super) operator: Operator,
}

/// An operator that tells whether two values are equal.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Operator {
    schema: String,
    symbol: String,
}

/// A trigger that a user made.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Trigger {
    /// The table or partition, as SQL writes it.
    pub(super) relation: String,
    pub(super) name: String,
    /// When it fires: `O` but for replicas, `A` always, `R` on replicas, `D` never.
    pub(super) enabled: String,
}

/// A sequence.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Sequence {
    /// As SQL writes it.
    pub(super) name: String,
    /// Its last value; `None` if it has given none.
    pub(super) last: Option<i64>,
    pub(super) increment: i64,
    pub(super) cache: i64,
}

/// A foreign key.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of the catalogue")]
pub(super) struct ForeignKey {
    pub(super) name: String,
    /// The table that refers, or the one that it is a part of, as SCHEMA.TABLE; as for the other one.
    pub(super) child: String,
    pub(super) parent: String,
    /// The relation that refers itself, as SQL writes it; as for the other one.
    pub(super) child_relation: String,
    pub(super) parent_relation: String,
    pub(super) columns: Vec<Reference>,
    /// Whether all columns are null or none is.
    pub(super) matches_full: bool,
    /// Whether the database sees to it, for all rows.
    pub(super) is_checked: bool,
    /// Whether it is about periods, and not about equal values.
    pub(super) of_periods: bool,
    /// Whether it is that of a partition alone.
    pub(super) of_partition: bool,
    /// What a deletion does to rows that refer: `a` and `r` nothing, `c`, `n` and `d` change them. As for updates.
    pub(super) on_delete: String,
    pub(super) on_update: String,
}

/// A column that refers to another one.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Reference {
    pub(super) child: String,
    pub(super) parent: String,
    /// With the parent's value on its left side.
    pub(super) operator: Operator,
    /// How text of the parent's is compared, as SQL writes it; none for what is no text.
    pub(super) collation: Option<String>,
}

/// The tables of a database, and how they refer to each other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Schema {
    pub(super) tables: Vec<Table>,
    pub(super) keys: Vec<ForeignKey>,
    /// Materialized views: they are as old as their last refresh.
    pub(super) materialized_views: Vec<String>,
}

/// Tables of users. Partitions are parts of their tables, and what belongs to an extension is the extension's.
const TABLES: &str = "
select json_build_object(
    'schema', n.nspname, 'name', c.relname, 'kind', c.relkind, 'unlogged', c.relpersistence = 'u',
    'is_owner', pg_has_role(c.relowner, 'usage'),
    'is_row_secured', row_security_active(c.oid),
    'has_rules', exists (select from pg_rewrite w where w.ev_class = c.oid),
    'inherits', exists (select from pg_inherits i join pg_class k on k.oid = i.inhrelid
        where c.oid in (i.inhrelid, i.inhparent) and not k.relispartition),
    'may_read', has_table_privilege(c.oid, 'select'),
    'may_write', has_table_privilege(c.oid, 'select') and has_table_privilege(c.oid, 'insert')
        and has_table_privilege(c.oid, 'update') and has_table_privilege(c.oid, 'delete'),
    'leaves', (select coalesce(json_agg(json_build_object(
            'name', ln.nspname || '.' || l.relname, 'relation', l.oid::regclass::text,
            'unlogged', l.relpersistence = 'u', 'is_foreign', l.relkind = 'f') order by ln.nspname, l.relname), '[]')
        from pg_partition_tree(c.oid) t join pg_class l on l.oid = t.relid join pg_namespace ln on ln.oid = l.relnamespace
        where t.isleaf and t.relid <> c.oid),
    'deferrable', (select coalesce(json_agg(json_build_object('name', k.conname, 'excludes', k.contype = 'x',
            'nulls_equal', coalesce((to_jsonb(i) ->> 'indnullsnotdistinct')::bool, false),
            'columns', (select coalesce(json_agg(a.attname), '[]') from pg_attribute a
                where a.attrelid = c.oid and a.attnum = any (k.conkey))) order by k.conname), '[]')
        from pg_constraint k join pg_index i on i.indexrelid = k.conindid
        where k.conrelid = c.oid and k.condeferrable and k.contype in ('p', 'u', 'x')),
    'columns', (select coalesce(json_agg(json_build_object(
            'name', a.attname, 'type', format_type(a.atttypid, a.atttypmod), 'not_null', a.attnotnull,
            'generated', a.attgenerated <> '', 'always_identity', a.attidentity = 'a') order by a.attnum), '[]')
        from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped),
    'key', (select coalesce(json_agg(json_build_object('name', a.attname, 'operator', (
                select json_build_object('schema', s.nspname, 'symbol', o.oprname)
                from pg_opclass f
                join pg_amop p on p.amopfamily = f.opcfamily and p.amopstrategy = 3
                    and p.amoplefttype = f.opcintype and p.amoprighttype = f.opcintype
                join pg_operator o on o.oid = p.amopopr
                join pg_namespace s on s.oid = o.oprnamespace
                where f.oid = x.opclass)) order by x.place), '[]')
        from (select i.* from pg_index i join pg_class k on k.oid = i.indexrelid join pg_am m on m.oid = k.relam
            where i.indrelid = c.oid and i.indisunique and i.indisvalid and i.indimmediate and m.amname = 'btree'
            and i.indpred is null and i.indexprs is null
            and not exists (select from pg_attribute a where a.attrelid = c.oid and not a.attnotnull
                and a.attnum = any ((i.indkey::int2[])[0:i.indnkeyatts - 1]))
            and not exists (select from pg_attribute a where a.attrelid = c.oid and a.attgenerated <> ''
                and a.attnum = any (i.indkey::int2[]))
            order by i.indisprimary desc, i.indnkeyatts, i.indexrelid limit 1) i
        cross join lateral unnest(i.indkey::int2[], i.indclass::oid[]) with ordinality x (attnum, opclass, place)
        join pg_attribute a on a.attrelid = c.oid and a.attnum = x.attnum
        where x.place <= i.indnkeyatts),
    'triggers', (select coalesce(json_agg(json_build_object(
            'relation', t.tgrelid::regclass::text, 'name', t.tgname, 'enabled', t.tgenabled)
            order by t.tgrelid::regclass::text, t.tgname), '[]')
        from pg_trigger t where not t.tgisinternal
        and (t.tgrelid = c.oid or t.tgrelid in (select relid from pg_partition_tree(c.oid)))),
    'sequences', (select coalesce(json_agg(json_build_object(
            'name', q.seqrelid::regclass::text, 'last', pg_sequence_last_value(q.seqrelid::regclass),
            'increment', q.seqincrement, 'cache', q.seqcache) order by q.seqrelid::regclass::text), '[]')
        from pg_sequence q where has_sequence_privilege(q.seqrelid, 'usage, select') and q.seqrelid in (
            select d.objid from pg_depend d where d.classid = 'pg_class'::regclass and d.deptype in ('a', 'i')
                and d.refclassid = 'pg_class'::regclass and d.refobjid = c.oid
            union select d.refobjid from pg_attrdef e join pg_depend d on d.objid = e.oid
                where d.classid = 'pg_attrdef'::regclass and d.refclassid = 'pg_class'::regclass and e.adrelid = c.oid))
)::text
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p', 'f') and not c.relispartition and c.relpersistence <> 't'
    and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
    and not exists (select from pg_depend d
        where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
order by n.nspname, c.relname";

/// Foreign keys, but for those that partitions have from their table. Two columns came with version 18.
const KEYS: &str = "
select json_build_object(
    'name', k.conname,
    'child', rn.nspname || '.' || r.relname, 'parent', pn.nspname || '.' || p.relname,
    'child_relation', k.conrelid::regclass::text, 'parent_relation', k.confrelid::regclass::text,
    'columns', (select json_agg(json_build_object('child', ca.attname, 'parent', pa.attname, 'operator',
            json_build_object('schema', s.nspname, 'symbol', o.oprname),
            'collation', case when pa.attcollation <> 0 then pa.attcollation::regcollation::text end) order by x.place)
        from unnest(k.conkey, k.confkey, k.conpfeqop) with ordinality x (child, parent, operator, place)
        join pg_attribute ca on ca.attrelid = k.conrelid and ca.attnum = x.child
        join pg_attribute pa on pa.attrelid = k.confrelid and pa.attnum = x.parent
        join pg_operator o on o.oid = x.operator join pg_namespace s on s.oid = o.oprnamespace),
    'matches_full', k.confmatchtype = 'f',
    'is_checked', k.convalidated and coalesce((to_jsonb(k) ->> 'conenforced')::bool, true),
    'of_periods', coalesce((to_jsonb(k) ->> 'conperiod')::bool, false),
    'of_partition', r.oid <> k.conrelid,
    'on_delete', k.confdeltype, 'on_update', k.confupdtype
)::text
from pg_constraint k
join pg_class r on r.oid = coalesce(pg_partition_root(k.conrelid), k.conrelid)
join pg_namespace rn on rn.oid = r.relnamespace
join pg_class p on p.oid = coalesce(pg_partition_root(k.confrelid), k.confrelid)
join pg_namespace pn on pn.oid = p.relnamespace
where k.contype = 'f' and k.conparentid = 0
order by 1";

const MATERIALIZED_VIEWS: &str = "
select n.nspname || '.' || c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind = 'm' order by 1";

/// What makes the values of both sides read the same, and the session see everything or fail.
const SESSION: &str = "
SET search_path = ''; SET row_security = off; SET client_encoding = 'UTF8'; SET DateStyle = 'ISO, YMD';
SET IntervalStyle = 'postgres'; SET TimeZone = 'UTC'; SET extra_float_digits = 3; SET bytea_output = 'hex';
SET lc_monetary = 'C'; SET xmloption = 'content'; SET standard_conforming_strings = on; SET quote_all_identifiers = off;
SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; SET idle_session_timeout = 0;
SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'transaction_timeout'; SET synchronous_commit = on; SET default_transaction_read_only = off;
SET default_transaction_deferrable = off";

impl Schema {
    /// Asks a database what it has.
    ///
    /// # Errors
    /// What the server fails with; [`SourceError::Unsupported`] for an answer that is none.
    pub(super) fn read(sql: &mut Connection) -> anyhow::Result<Schema> {
        Ok(Schema {
            tables: each(sql, TABLES)?,
            keys: each(sql, KEYS)?,
            materialized_views: first_column(sql, MATERIALIZED_VIEWS)?,
        })
    }

    /// A table by its name, SCHEMA.TABLE.
    pub(super) fn table(&self, name: &str) -> Option<&Table> {
        self.tables.iter().find(|table| table.full_name() == name)
    }
}

impl Table {
    /// SCHEMA.TABLE, as configurations and reports name it.
    pub(super) fn full_name(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    /// As SQL writes it.
    pub(super) fn relation(&self) -> String {
        format!("{}.{}", quote_identifier(&self.schema), quote_identifier(&self.name))
    }

    pub(super) fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }
}

impl Operator {
    /// That of numbers, and of all types that PostgreSQL brings.
    pub(super) fn equals() -> Operator {
        Operator { schema: "pg_catalog".to_owned(), symbol: "=".to_owned() }
    }

    /// As SQL writes it between two values, whatever the search path is.
    pub(super) fn sql(&self) -> String {
        format!("OPERATOR({}.{})", quote_identifier(&self.schema), self.symbol)
    }
}

impl ForeignKey {
    /// Whether it changes rows that refer to others when those change or go.
    pub(super) fn acts(&self) -> bool {
        let acts = |action: &str| !["a", "r"].contains(&action);
        acts(&self.on_delete) || acts(&self.on_update)
    }
}

/// Sets a session up.
///
/// # Errors
/// What the server fails with.
pub(super) fn begin_session(sql: &mut Connection) -> Result<(), ClientError> {
    sql.query(SESSION)?;
    // Setting it takes a right, even to what it is.
    if sql.query_value("SHOW session_replication_role")? != "origin" {
        sql.query("SET session_replication_role = origin")?;
    }
    Ok(())
}

fn first_column(sql: &mut Connection, query: &str) -> Result<Vec<String>, ClientError> {
    let rows = sql.query(query)?;
    Ok(rows.iter().filter_map(|row| row.get(0)).map(str::to_owned).collect())
}

fn each<T: serde::de::DeserializeOwned>(
    sql: &mut Connection,
    query: &str,
) -> anyhow::Result<Vec<T>> {
    let texts = first_column(sql, query)?;
    let read = |text: &String| {
        serde_json::from_str(text).map_err(|error| {
            let reason = format!("describes its tables in an unknown way: {error}");
            SourceError::Unsupported { what: sql.host().to_owned(), reason }.into()
        })
    };
    texts.iter().map(read).collect()
}
