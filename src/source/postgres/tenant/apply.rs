//! The transaction that puts a tenant's earlier rows back.

use super::database::{Target, fires, number};
use super::plan::Plan;
use super::proof::Fingerprint;
use super::schema::{Schema, Sequence, Trigger};
use super::statements::{dependents, put_back};
use crate::error::{Fault, Kind, diagnose};
use crate::source::postgres::client::{ClientError, Connection, quote_identifier, quote_literal};
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
                Fault::new(Kind::Failed, message).hint("see which with --dry-run: it shows no changes if all came back"),
            )
        }
    })?;
    Ok(applied)
}

fn inside(target: &mut Target, mode: TenantMode, then: &Schema) -> anyhow::Result<Applied> {
    lock(target, mode)?;
    let Target { sql, plan, .. } = target;
    let plan: &Plan = plan;
    let quiet: Vec<&Trigger> =
        plan.triggers.iter().filter(|trigger| fires(trigger, mode)).collect();
    for trigger in &quiet {
        switch(sql, trigger, "DISABLE")?;
    }
    if mode == TenantMode::Replica {
        sql.query("SET LOCAL session_replication_role = replica")?;
    }
    check_dependents(sql, plan)?;
    let how = (seeds()?, mode == TenantMode::Replica);
    let before = Fingerprint::take(sql, plan, how)?;
    let rows = sql.query(&put_back(&plan.tables))?;
    sql.query("SET CONSTRAINTS ALL IMMEDIATE")?;
    let after = Fingerprint::take(sql, plan, how)?;
    before.compare(&after, sql, plan)?;
    let mut tables = Vec::new();
    for (table, row) in plan.tables.iter().zip(&rows) {
        let count = |column| number(sql, Some(row), column);
        let (added, changed, removed) = (count(1)?, count(2)?, count(3)?);
        let held = sql.query(&format!("select count(*) from {}", table.state))?;
        let rows = number(sql, held.first(), 0)?;
        tables.push(TableChange { table: table.name.clone(), added, changed, removed, rows });
    }
    for trigger in &quiet {
        let how = if trigger.enabled == "A" {
            "ENABLE ALWAYS"
        } else if trigger.enabled == "R" {
            "ENABLE REPLICA"
        } else {
            "ENABLE"
        };
        switch(sql, trigger, how)?;
    }
    let sequences = advance(sql, plan, then)?;
    Ok(Applied { tables, unchanged_rows: after.rows_of_others(), sequences })
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
        // The database checks no references then, so nobody may take a shared row away.
        for table in &target.plan.shared {
            let is_parent = target.plan.keys.iter().any(|key| key.parent == table.name);
            if is_parent {
                target.sql.query(&format!("LOCK TABLE {} IN SHARE MODE", table.relation))?;
            }
        }
    }
    let schema = Schema::read(&mut target.sql)?;
    let mut now = Plan::make(&target.map, &schema)?;
    now.sequences.clone_from(&target.plan.sequences);
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
fn check_dependents(sql: &mut Connection, plan: &Plan) -> anyhow::Result<()> {
    let mut found = Vec::new();
    for key in plan.keys.iter().filter(|key| key.acts() && !plan.has(&key.child)) {
        let Some(parent) = plan.table(&key.parent) else { continue };
        let rows = sql.query(&dependents(key, parent))?;
        let count = number(sql, rows.first(), 0)?;
        if count > 0 {
            let (child, parent) = (plain(&key.child), plain(&key.parent));
            found.push(format!("{count} row(s) of {child} refer to rows of {parent} that go, and would be changed by the foreign key {}", plain(&key.name)));
        }
    }
    if found.is_empty() {
        return Ok(());
    }
    let message = bounded(found.iter().map(String::as_str));
    Err(Fault::new(Kind::Refused, message)
        .hint("nothing was changed; give the table a rule in the map, or take those rows out of the way")
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
            "a row of another tenant, or one that the map gives to nobody, has taken a value that must be unique: change it there, or restore the database beside this one"
        }
        _ => "see the cause; correct it at the server, and run the same command again",
    };
    let message = "the database did not take the tenant's rows; it has what it had before";
    error.context(Fault::new(Kind::Failed, message).hint(hint))
}
