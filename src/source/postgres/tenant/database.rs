//! The database whose rows are replaced.

use std::path::PathBuf;
use std::time::Duration;

use super::map::TenantMap;
use super::plan::{Plan, Root};
use super::schema::{Schema, Trigger, begin_session};
use super::statements::TENANT;
use crate::ctx::{Ctx, user};
use crate::error::{Fault, Kind};
use crate::process;
use crate::source::SourceError;
use crate::source::postgres::client::{
    ClientError, Connection, Conninfo, Purpose, Row, Surroundings, quote_literal,
};
use crate::source::postgres::dump::selection::plain;
use crate::source::tenants::{TableChange, TenantMode, TenantRequest};

/// How long the server may say nothing to a question: a table may have many rows.
const SILENCE: Duration = Duration::from_hours(6);

/// A session of the database, with the temporary tables that have the tenant's earlier rows.
pub(super) struct Target {
    pub(super) sql: Connection,
    pub(super) map: TenantMap,
    pub(super) schema: Schema,
    pub(super) plan: Plan,
    pub(super) database: String,
    /// How many earlier rows there are of each table of the plan, once they are here.
    earlier_rows: Vec<u64>,
}

impl Target {
    /// Connects, and holds the map against the tables.
    ///
    /// # Errors
    /// [`Kind::Usage`] for an address with a password; [`Kind::Refused`] if the map does not fit; what the server
    /// fails with.
    pub(super) fn open(
        into: &str,
        (map, lock_timeout): (&TenantMap, Duration),
        ctx: &Ctx,
    ) -> anyhow::Result<Target> {
        let surroundings = Surroundings {
            variable: &process::variable,
            home: process::variable("HOME").map(PathBuf::from),
            user: user(),
        };
        let conninfo = Conninfo::parse(into, &surroundings)?;
        if conninfo.has_password_in_text() {
            let hint = "every user can read it there: put it into PGPASSWORD or ~/.pgpass";
            return Err(Fault::new(Kind::Usage, "--into has a password in it").hint(hint).into());
        }
        let purpose = Purpose { replication: false, database: None, silence: SILENCE };
        let mut sql = Connection::connect(&conninfo, &purpose, ctx)?;
        begin_session(&mut sql)?;
        sql.query(&format!("SET lock_timeout = {}", lock_timeout.as_millis()))?;
        let schema = Schema::read(&mut sql)?;
        let database = conninfo.database.clone();
        let plan = Plan::make(map, &schema, &database)?;
        check_rules(&mut sql, &plan, &map.place)?;
        let (map, earlier_rows) = (map.clone(), Vec::new());
        Ok(Target { sql, map, schema, plan, database, earlier_rows })
    }

    /// The database, as a person is told of it.
    pub(super) fn shown(&self) -> String {
        format!("{} of {}", plain(&self.database), self.sql.host())
    }

    /// Brings the rows that the tenant has in the state into temporary tables; the tenant's key.
    ///
    /// # Errors
    /// [`Kind::NotFound`] for a tenant that the state does not have; [`Kind::Refused`] if the database has another one
    /// of the name; what either server fails with.
    pub(super) fn take_state(
        &mut self,
        (state, then): (&mut Connection, &Schema),
        request: &TenantRequest<'_>,
        ctx: &Ctx,
    ) -> anyhow::Result<String> {
        let (tenant, shown) = (request.tenant, plain(request.tenant));
        let found = keys(&state.query(&self.key_query(tenant))?);
        let [key] = found.as_slice() else {
            let many = if found.is_empty() { "no" } else { "more than one" };
            let message = format!("the backup has {many} tenant {shown}");
            return Err(Fault::new(Kind::NotFound, message)
                .hint(format!(
                    "--tenant is a value of {} in {}",
                    self.plan.root.name, self.map.root
                ))
                .into());
        };
        let query = self.key_query(tenant);
        let now = keys(&self.sql.query(&query)?);
        if let Some(other) = now.iter().find(|other| *other != key) {
            let (was, is) = (plain(key), plain(other));
            let message = format!(
                "the name {shown} belongs to a different tenant now: in the backup its key was {was}, today it is {is}"
            );
            return Err(Fault::new(Kind::Refused, message)
                .hint("nothing was changed; rename the tenant of today, or restore the database beside this one")
                .into());
        }
        let set = format!("select set_config('{TENANT}', {}, false)", quote_literal(key));
        self.sql.query(&set)?;
        state.query(&set)?;
        self.check_name(request, key)?;
        self.check_leaves(then)?;
        state.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")?;
        for table in &self.plan.tables {
            ctx.cancel.check()?;
            self.sql.query(&table.make_state())?;
            let rows = state.copy_rows(&table.copy_out(), &mut self.sql, &table.copy_in())?;
            self.earlier_rows.push(rows);
            self.sql.query(&format!("ANALYZE {}", table.state))?;
        }
        state.query("COMMIT")?;
        Ok(key.clone())
    }

    /// Refuses a key that has another name today, unless that is known: it may be another tenant's.
    fn check_name(&mut self, request: &TenantRequest<'_>, key: &str) -> anyhow::Result<()> {
        let Root { relation, key: column, name, operator, key_type } = &self.plan.root;
        let query = format!(
            "select t.{name}::text from {relation} as t where t.{column} {} current_setting('{TENANT}')::{key_type}",
            operator.sql()
        );
        let rows = self.sql.query(&query)?;
        let today = rows.first().and_then(|row| row.get(0));
        match today.filter(|today| *today != request.tenant && !request.renamed) {
            None => Ok(()),
            Some(today) => {
                let (tenant, today) = (plain(request.tenant), plain(today));
                let key = plain(key);
                let message = format!("the key {key} of tenant {tenant} belongs to {today} today");
                Err(Fault::new(Kind::Refused, message)
                    .hint("nothing was changed; if it is the same tenant, which was renamed, add --renamed")
                    .into())
            }
        }
    }

    /// Refuses where a partition has rows of the tenant that the backup has not: it would lose them.
    fn check_leaves(&mut self, then: &Schema) -> anyhow::Result<()> {
        for table in &self.plan.tables {
            let earlier = then.table(&table.name);
            let is_known = |name: &str| {
                earlier.is_some_and(|table| table.leaves.iter().any(|leaf| leaf.name == name))
            };
            for (name, relation) in table.leaves.iter().filter(|(name, _)| !is_known(name)) {
                if self.sql.query_value(&table.is_in(relation))? == "t" {
                    let shown = plain(name);
                    let message = format!(
                        "partition {shown} has rows of the tenant, and the backup has no such partition"
                    );
                    return Err(Fault::new(Kind::Refused, message)
                        .hint("nothing was changed; move those rows away if they came since, or choose a backup that has the partition")
                        .into());
                }
            }
        }
        Ok(())
    }

    fn key_query(&self, tenant: &str) -> String {
        let root = &self.plan.root;
        format!(
            "select t.{}::text from {} as t where t.{}::text = {} order by 1 limit 2",
            root.key,
            root.relation,
            root.name,
            quote_literal(tenant)
        )
    }

    /// What would change, as of now. Nobody waits for this.
    ///
    /// # Errors
    /// What the server fails with.
    pub(super) fn preview(&mut self) -> anyhow::Result<Vec<TableChange>> {
        self.sql.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")?;
        let found = self.changes()?;
        self.sql.query("COMMIT")?;
        Ok(found)
    }

    /// What would change, as the transaction sees it.
    ///
    /// # Errors
    /// What the server fails with.
    pub(super) fn changes(&mut self) -> anyhow::Result<Vec<TableChange>> {
        let mut found = Vec::new();
        for place in 0..self.plan.tables.len() {
            let Some(table) = self.plan.tables.get(place) else { break };
            let rows = self.sql.query(&table.count_changes())?;
            found.extend(self.change(place, rows.first(), 0)?);
        }
        Ok(found)
    }

    /// What the numbers in an answer, from this column on, say of a table: rows added, changed and removed.
    ///
    /// # Errors
    /// [`SourceError::Unsupported`] if they are none.
    pub(super) fn change(
        &self,
        place: usize,
        row: Option<&Row>,
        from: usize,
    ) -> anyhow::Result<Option<TableChange>> {
        let count = |column| number(&self.sql, row, from + column);
        let (added, changed, removed) = (count(0)?, count(1)?, count(2)?);
        let known = self.plan.tables.get(place).zip(self.earlier_rows.get(place));
        Ok(known.map(|(table, rows)| TableChange {
            table: table.name.clone(),
            added,
            changed,
            removed,
            rows: *rows,
        }))
    }

    /// The triggers that would fire if they were let, in words.
    pub(super) fn quiet_triggers(&self, mode: TenantMode) -> Vec<String> {
        let fire = self.plan.triggers.iter().filter(|trigger| fires(trigger, mode));
        fire.map(|trigger| format!("{} on {}", trigger.name, trigger.relation)).collect()
    }
}

/// Has the server read the rule of each table, without running it.
///
/// # Errors
/// [`Kind::Refused`] with the rule that is none.
pub(super) fn check_rules(sql: &mut Connection, plan: &Plan, place: &str) -> anyhow::Result<()> {
    for table in &plan.tables {
        let checked = sql.query(&table.check()).and_then(|_| sql.query("deallocate bkp_check"));
        if let Err(ClientError::Server(error)) = checked {
            let message = format!("the rule of {}: {}", plain(&table.name), error.message);
            return Err(Fault::new(Kind::Refused, message)
                .hint(format!("nothing was changed; correct [{place}.tables]; the names of other tables need their schema"))
                .into());
        }
        checked?;
    }
    Ok(())
}

/// Whether a trigger fires in a session of this mode.
pub(super) fn fires(trigger: &Trigger, mode: TenantMode) -> bool {
    match mode {
        TenantMode::Fk => ["O", "A"].contains(&trigger.enabled.as_str()),
        TenantMode::Replica => ["R", "A"].contains(&trigger.enabled.as_str()),
    }
}

fn keys(rows: &[Row]) -> Vec<String> {
    rows.iter().filter_map(|row| row.get(0)).map(str::to_owned).collect()
}

/// A number in an answer.
///
/// # Errors
/// [`SourceError::Unsupported`] if there is none.
pub(super) fn number(sql: &Connection, row: Option<&Row>, column: usize) -> anyhow::Result<u64> {
    let value = row.and_then(|row| row.get(column)).and_then(|text| text.parse().ok());
    value.ok_or_else(|| {
        let reason = "did not say how many rows there are".to_owned();
        SourceError::Unsupported { what: sql.host().to_owned(), reason }.into()
    })
}
