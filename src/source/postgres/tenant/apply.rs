//! The transaction that puts a tenant's earlier rows back.

use std::collections::BTreeSet;

use super::database::{Target, fires, number};
use super::plan::Plan;
use super::proof::Fingerprint;
use super::schema::{Schema, Sequence, Trigger};
use super::statements::{PutBack, delete_all, dependents, duplicates, insert_all, put_back};
use crate::error::{Fault, Kind, diagnose};
use crate::source::postgres::client::{
    ClientError, Connection, Row, quote_identifier, quote_literal,
};
use crate::source::postgres::dump::selection::{bounded, plain};
use crate::source::tenants::{TableChange, TenantMode};

/// What a transaction did.
#[derive(Debug)]
pub(super) struct Applied {
    pub(super) tables: Vec<TableChange>,
    /// Rows of others, which are what they were.
    pub(super) unchanged_rows: u64,
    /// Sequences that were advanced.
    pub(super) sequences: Vec<String>,
}

/// Puts the rows in the temporary tables into the place of those that the tenant has. All of it is one transaction.
///
/// # Errors
/// [`Kind::Refused`] if others would be touched; [`Kind::Failed`] if the database does not take it. It has what it had
/// before then, unless the connection breaks at the very end, which the error says.
pub(super) fn apply(
    target: &mut Target,
    mode: TenantMode,
    then: &Schema,
) -> anyhow::Result<Applied> {
    target.sql.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ WRITE")?;
    let applied = match inside(target, mode, then) {
        Ok(applied) => applied,
        Err(error) => {
            // It ends by itself where this does not arrive.
            let _rolled_back = target.sql.query("ROLLBACK");
            return Err(not_taken(error));
        }
    };
    target.sql.query("COMMIT").map_err(|error| match error {
        ClientError::Server(_) => not_taken(error.into()),
        ClientError::Unreachable { .. }
        | ClientError::Lost { .. }
        | ClientError::Silent { .. }
        | ClientError::Protocol { .. }
        | ClientError::Refused { .. }
        | ClientError::Input { .. }
        | ClientError::Stopped(_) => {
            let message = "the connection broke while the database committed: the tenant has either all earlier rows or all it had";
            anyhow::Error::from(error).context(
                Fault::new(Kind::Failed, message).hint("see which with --dry-run: it shows no changes if all came back, apart from what was written since"),
            )
        }
    })?;
    Ok(applied)
}

fn inside(target: &mut Target, mode: TenantMode, then: &Schema) -> anyhow::Result<Applied> {
    lock(target, mode)?;
    let Target { sql, plan, .. } = target;
    let plan: &Plan = plan;
    let quiet: Vec<Trigger> =
        plan.triggers.iter().filter(|trigger| fires(trigger, mode)).cloned().collect();
    for trigger in &quiet {
        switch(sql, trigger, "DISABLE")?;
    }
    if mode == TenantMode::Replica {
        sql.query("SET LOCAL session_replication_role = replica")?;
    }
    check_dependents(sql, plan, PutBack::InPlace)?;
    let how = (seeds()?, mode == TenantMode::Replica);
    let before = Fingerprint::take(sql, plan, how)?;
    let tables = put_all_back(target)?;
    let Target { sql, plan, .. } = target;
    let plan: &Plan = plan;
    sql.query("SET CONSTRAINTS ALL IMMEDIATE")?;
    let after = Fingerprint::take(sql, plan, how)?;
    before.compare(&after, sql, plan)?;
    if mode == TenantMode::Replica {
        check_unique(sql, plan)?;
    }
    for trigger in &quiet {
        let how = match trigger.enabled.as_str() {
            "A" => "ENABLE ALWAYS",
            "R" => "ENABLE REPLICA",
            _ => "ENABLE",
        };
        switch(sql, trigger, how)?;
    }
    let sequences = advance(sql, plan, then)?;
    Ok(Applied { tables, unchanged_rows: after.rows_of_others(), sequences })
}

/// What PostgreSQL calls a value that is there already, and one that overlaps another.
const COLLISIONS: [&str; 2] = ["23505", "23P01"];

/// Puts the rows back. Where those that differ cannot be changed in any order, because they have exchanged values that
/// must be unique, all are deleted and inserted.
fn put_all_back(target: &mut Target) -> anyhow::Result<Vec<TableChange>> {
    target.sql.query("SAVEPOINT put_back")?;
    let error = match put_back_until_done(target) {
        Err(error) if is_collision(&error) => error,
        done => return done,
    };
    target.sql.query("ROLLBACK TO SAVEPOINT put_back")?;
    let changes = target.changes()?;
    let Target { sql, plan, .. } = target;
    check_dependents(sql, plan, PutBack::Anew)?;
    sql.query(&delete_all(&plan.tables))?;
    match sql.query(&insert_all(&plan.tables)) {
        // The other one says better what is in the way.
        Err(again) if COLLISIONS.map(Some).contains(&again.sqlstate()) => Err(error),
        done => {
            done?;
            Ok(changes)
        }
    }
}

fn is_collision(error: &anyhow::Error) -> bool {
    let code = error.downcast_ref::<ClientError>().and_then(ClientError::sqlstate);
    COLLISIONS.map(Some).contains(&code)
}

/// How often the statement is run at most: what it deletes takes rows along that refer to it, where a foreign key says
/// so, and those come back with the next time.
const PASSES_MAX: usize = 4;

fn put_back_until_done(target: &mut Target) -> anyhow::Result<Vec<TableChange>> {
    let statement = put_back(&target.plan.tables);
    let mut first = None;
    for _ in 0..PASSES_MAX {
        let rows = target.sql.query(&statement)?;
        let changes = changes(target, &rows)?;
        let is_done = changes.iter().all(|table| table.added + table.changed + table.removed == 0);
        first.get_or_insert(changes);
        if is_done {
            break;
        }
    }
    Ok(first.unwrap_or_default())
}

/// What the statement says that it did. Its rows name the table by its place in the plan.
fn changes(target: &Target, rows: &[Row]) -> anyhow::Result<Vec<TableChange>> {
    let mut tables = Vec::new();
    for place in 0..target.plan.tables.len() {
        let name = place.to_string();
        let row = rows.iter().find(|row| row.get(0) == Some(name.as_str()));
        tables.extend(target.change(place, row, 1)?);
    }
    Ok(tables)
}

/// Refuses values that occur twice: constraints that can be deferred are triggers of the database's own, which do not
/// fire in a session that works as a replica.
fn check_unique(sql: &mut Connection, plan: &Plan) -> anyhow::Result<()> {
    for table in &plan.tables {
        for constraint in &table.deferrable {
            let rows = sql.query(&duplicates(table, constraint))?;
            if number(sql, rows.first(), 0)? > 0 {
                let (constraint, table) = (plain(&constraint.name), plain(&table.name));
                let message = format!("values of {table} would occur twice ({constraint})");
                return Err(Fault::new(Kind::Refused, message).hint("nothing was changed; another row has taken the value: change it there, or restore the database beside this one").into());
            }
        }
    }
    Ok(())
}

/// Refuses a mode that the role or a table does not permit, before anything is done.
///
/// # Errors
/// [`Kind::Refused`] with the reason.
pub(super) fn check_mode(target: &mut Target, mode: TenantMode) -> anyhow::Result<()> {
    let refuse = |message: String, hint: &str| {
        Err(Fault::new(Kind::Refused, message).hint(format!("nothing was changed; {hint}")).into())
    };
    let temporary = "select has_database_privilege(current_database(), 'temp')";
    if target.sql.query_value(temporary)? != "t" {
        let message = format!("role {} may not create temporary tables", target.sql.user());
        return refuse(message, "GRANT TEMPORARY ON DATABASE to it");
    }
    if mode == TenantMode::Fk {
        return Ok(());
    }
    let set = "select has_parameter_privilege('session_replication_role', 'set')";
    if target.sql.query_value(set)? != "t" {
        let message = format!("role {} may not set session_replication_role", target.sql.user());
        return refuse(
            message,
            "use --mode fk, or as a superuser: GRANT SET ON PARAMETER session_replication_role to it",
        );
    }
    let plan = &target.plan;
    if let Some(key) = plan.keys.iter().find(|key| key.of_periods) {
        let message = format!(
            "mode replica cannot check the foreign key {}, which is about periods",
            plain(&key.name)
        );
        return refuse(message, "use --mode fk");
    }
    let mut constraints = plan.tables.iter().flat_map(|table| &table.deferrable);
    if let Some(constraint) = constraints.find(|constraint| constraint.excludes) {
        let message = format!(
            "mode replica cannot check the exclusion constraint {}",
            plain(&constraint.name)
        );
        return refuse(message, "use --mode fk");
    }
    Ok(())
}

/// Keeps others from writing to the tables, and makes sure that they are still what the plan was made for. Reading goes
/// on.
fn lock(target: &mut Target, mode: TenantMode) -> anyhow::Result<()> {
    let relations: Vec<&str> =
        target.plan.tables.iter().map(|table| table.relation.as_str()).collect();
    target
        .sql
        .query(&format!("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE", relations.join(", ")))?;
    if mode == TenantMode::Replica {
        // The database checks no references then, so nobody may write to the other ends of them.
        let plan = &target.plan;
        let outside = plan.keys.iter().flat_map(|key| {
            let child = (&key.child, &key.child_relation);
            [child, (&key.parent, &key.parent_relation)]
        });
        let outside = outside.filter(|(name, _)| !plan.has(name)).map(|(_, relation)| relation);
        let outside: BTreeSet<&str> = outside.map(String::as_str).collect();
        if !outside.is_empty() {
            let outside: Vec<&str> = outside.into_iter().collect();
            target.sql.query(&format!("LOCK TABLE {} IN SHARE MODE", outside.join(", ")))?;
        }
    }
    let schema = Schema::read(&mut target.sql)?;
    let mut now = Plan::make(&target.map, &schema, &target.database)?;
    now.sequences.clone_from(&target.plan.sequences);
    now.notes.clone_from(&target.plan.notes);
    if now == target.plan {
        return Ok(());
    }
    let message = "somebody changed the tables while the backup was read";
    Err(Fault::new(Kind::Refused, message)
        .hint("nothing was changed; run the command again")
        .into())
}

fn switch(sql: &mut Connection, trigger: &Trigger, how: &str) -> Result<(), ClientError> {
    let (relation, name) = (&trigger.relation, quote_identifier(&trigger.name));
    sql.query(&format!("ALTER TABLE ONLY {relation} {how} TRIGGER {name}")).map(drop)
}

/// Refuses where a foreign key would have the database change rows of a table outside.
///
/// # Errors
/// [`Kind::Refused`] with how many rows of which tables.
pub(super) fn check_dependents(
    sql: &mut Connection,
    plan: &Plan,
    way: PutBack,
) -> anyhow::Result<()> {
    let mut found = Vec::new();
    for key in plan.keys.iter().filter(|key| key.acts() && !plan.has(&key.child)) {
        let Some(parent) = plan.table(&key.parent) else { continue };
        let rows = sql.query(&dependents(key, parent, way))?;
        let count = number(sql, rows.first(), 0)?;
        if count > 0 {
            let (child, parent) = (plain(&key.child), plain(&key.parent));
            found.push(format!("{count} row(s) of {child} refer to rows of {parent} that would be deleted, and the foreign key {} would change them", plain(&key.name)));
        }
    }
    if found.is_empty() {
        return Ok(());
    }
    let message = bounded(found.iter().map(String::as_str));
    Err(Fault::new(Kind::Refused, message)
        .hint("nothing was changed; give the table a rule in the map, or move or delete those rows")
        .into())
}

/// Two seeds that whoever wrote the rows could not know.
fn seeds() -> anyhow::Result<[i64; 2]> {
    let mut bytes = [[0_u8; 8]; 2];
    for one in &mut bytes {
        getrandom::fill(one).map_err(|error| {
            Fault::new(Kind::Failed, format!("the system gives no random numbers: {error}"))
        })?;
    }
    Ok(bytes.map(i64::from_ne_bytes))
}

/// Advances sequences that have not come as far as they had in the state; never back. Nobody takes a value of one that
/// is altered, so that none can come between.
fn advance(sql: &mut Connection, plan: &Plan, then: &Schema) -> anyhow::Result<Vec<String>> {
    let mut advanced = Vec::new();
    for sequence in &plan.sequences {
        let mut earlier = then.tables.iter().flat_map(|table| &table.sequences);
        let earlier = earlier.find(|earlier| earlier.name == sequence.name);
        let Some(wanted) = earlier.and_then(|earlier| earlier.last) else { continue };
        if !is_behind(sequence, last(sql, sequence)?, wanted) {
            continue;
        }
        sql.query(&format!("ALTER SEQUENCE {} CACHE {}", sequence.name, sequence.cache))?;
        if is_behind(sequence, last(sql, sequence)?, wanted) {
            let name = quote_literal(&sequence.name);
            sql.query(&format!("select setval({name}, {wanted}, true)"))?;
            advanced.push(sequence.name.clone());
        }
    }
    Ok(advanced)
}

fn last(sql: &mut Connection, sequence: &Sequence) -> Result<Option<i64>, ClientError> {
    let name = quote_literal(&sequence.name);
    let rows = sql.query(&format!("select pg_sequence_last_value({name}::regclass)"))?;
    Ok(rows.first().and_then(|row| row.get(0)?.parse().ok()))
}

fn is_behind(sequence: &Sequence, last: Option<i64>, wanted: i64) -> bool {
    match last {
        None => true,
        Some(last) if sequence.increment < 0 => last > wanted,
        Some(last) => last < wanted,
    }
}

/// Says of a failure that it changed nothing, and what may help.
fn not_taken(error: anyhow::Error) -> anyhow::Error {
    let kind = diagnose(&error).kind;
    if matches!(kind, Kind::Interrupted | Kind::Terminated | Kind::Refused) {
        return error;
    }
    let code = error.downcast_ref::<ClientError>().and_then(ClientError::sqlstate);
    let hint = match code {
        Some("55P03") => {
            "another session holds a table: run the command again, or set lock_timeout of the source higher"
        }
        Some("40001" | "40P01") => "another session was in the way: run the command again",
        Some("42501") => {
            "see LEAST RIGHTS in bkp-postgres(7): connect as the owner of the tables; --mode replica takes a superuser, or GRANT SET ON PARAMETER session_replication_role"
        }
        Some("23505" | "23P01") => {
            "another row has a value that must be unique: change it there, or restore the database beside this one"
        }
        Some("23503") => {
            "a row outside the tenant refers to one that would be deleted, or a shared row is missing: see the cause"
        }
        _ => "see the cause; correct it at the server, and run the same command again",
    };
    let message = "the database rejected the tenant's rows; nothing was changed";
    error.context(Fault::new(Kind::Failed, message).hint(hint))
}
