//! That a transaction changed the rows of one tenant and no others.

use super::database::number;
use super::plan::Plan;
use super::statements::{TenantTable, orphans};
use crate::error::{Fault, Kind};
use crate::source::postgres::client::{Connection, Row};
use crate::source::postgres::dump::selection::{bounded, plain};

/// What the rows of one side sum up to: how many there are, and the sums of two hashes of each.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sums {
    rows: u64,
    hashes: [String; 2],
}

/// What all rows of the tables were at a moment of the transaction.
#[derive(Debug)]
pub(super) struct Fingerprint {
    seeds: [i64; 2],
    /// Of each table of the plan, the shared ones last: the rows of others.
    others: Vec<Sums>,
    /// Of each table with rows of tenants: those of the tenant.
    own: Vec<Sums>,
    /// Of each foreign key, the rows that refer to nothing: how many are the tenant's, and those of others. Empty where
    /// the database sees to that.
    orphans: Vec<(u64, Sums)>,
}

impl Fingerprint {
    /// Reads all rows.
    ///
    /// # Errors
    /// What the server fails with.
    pub(super) fn take(
        sql: &mut Connection,
        plan: &Plan,
        (seeds, with_orphans): ([i64; 2], bool),
    ) -> anyhow::Result<Fingerprint> {
        let mut taken =
            Fingerprint { seeds, others: Vec::new(), own: Vec::new(), orphans: Vec::new() };
        for (table, is_shared) in all(plan) {
            let rows = sql.query(&table.hashes(seeds))?;
            let row = rows.first();
            if !is_shared {
                taken.own.push(sums(sql, row, 0)?);
            }
            taken.others.push(sums(sql, row, 3)?);
        }
        if with_orphans {
            for key in &plan.keys {
                let rows = sql.query(&orphans(key, plan.table(&key.child), seeds))?;
                let row = rows.first();
                taken.orphans.push((number(sql, row, 0)?, sums(sql, row, 1)?));
            }
        }
        Ok(taken)
    }

    /// How many rows belong to others.
    pub(super) fn rows_of_others(&self) -> u64 {
        self.others.iter().map(|sums| sums.rows).sum()
    }

    /// Makes sure that nothing but the tenant's rows is different afterwards, and that those are the earlier ones.
    ///
    /// # Errors
    /// [`Kind::Refused`] with the tables where it is not so.
    pub(super) fn compare(
        &self,
        after: &Fingerprint,
        sql: &mut Connection,
        plan: &Plan,
    ) -> anyhow::Result<()> {
        let mut found = Vec::new();
        for (((table, _), before), after) in all(plan).zip(&self.others).zip(&after.others) {
            if before != after {
                let name = plain(&table.name);
                found.push(format!("rows of others in {name} would change"));
            }
        }
        for (table, own) in plan.tables.iter().zip(&after.own) {
            let rows = sql.query(&table.state_hashes(self.seeds))?;
            if sums(sql, rows.first(), 0)? != *own {
                let name = plain(&table.name);
                found.push(format!("the tenant's rows in {name} would differ from the backup"));
            }
        }
        for ((key, before), after) in plan.keys.iter().zip(&self.orphans).zip(&after.orphans) {
            let (name, child) = (plain(&key.name), plain(&key.child));
            if after.0 > 0 && key.is_checked {
                let count = after.0;
                found.push(format!(
                    "{count} row(s) of {child} would refer to nothing (foreign key {name})"
                ));
            }
            if before.1 != after.1 {
                found.push(format!(
                    "other rows of {child} would lose or gain the rows that they refer to (foreign key {name})"
                ));
            }
        }
        if found.is_empty() {
            return Ok(());
        }
        let message = bounded(found.iter().map(String::as_str));
        Err(Fault::new(Kind::Refused, message).hint(
            "nothing was changed; see that the map assigns every row to the right tenant, and that no shared row is missing",
        )
        .into())
    }
}

/// All tables that are looked at, and whether they are shared.
fn all(plan: &Plan) -> impl Iterator<Item = (&TenantTable, bool)> {
    let tables = plan.tables.iter().map(|table| (table, false));
    tables.chain(plan.shared.iter().map(|table| (table, true)))
}

fn sums(sql: &Connection, row: Option<&Row>, from: usize) -> anyhow::Result<Sums> {
    let text = |column| row.and_then(|row| row.get(column)).unwrap_or_default().to_owned();
    Ok(Sums { rows: number(sql, row, from)?, hashes: [text(from + 1), text(from + 2)] })
}
