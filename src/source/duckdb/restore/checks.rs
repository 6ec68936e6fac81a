//! Whether the rows of a chain satisfy the CHECK constraints of their table, without loading them: some rows at a time
//! are put into the empty table, and taken back.
//!
//! A check that asks for the time, or that another version of DuckDB reads in another way, may refuse what it once
//! took. Keys and references are another matter: they are about all rows at a time, which a restore holds an index of.

use std::path::Path;

use crate::ctx::Ctx;
use crate::source::duckdb::engine::{CATALOG, Session};
use crate::source::duckdb::export::index::TableEntry;
use crate::source::duckdb::export::unchanged;
use crate::source::duckdb::restore::table_loader::{BATCH_ROWS, columns};
use crate::source::duckdb::schema::number;
use crate::source::duckdb::schema::sql;
use crate::source::duckdb::schema::sql::ROW;

/// A table with CHECK constraints, which is empty.
pub(super) struct CheckTrial<'a> {
    session: &'a Session,
    table: &'a TableEntry,
    /// Whether the session is outside of the database: see [`Session::leave_user_schema`].
    outside: bool,
    ctx: &'a Ctx,
}

impl<'a> CheckTrial<'a> {
    /// Nothing for a table without such constraints, or whose rows cannot be tried some at a time: they need other
    /// rows, or threads of DuckDB 1.5 would lose some (see
    /// [`crate::source::duckdb::engine::limits::EngineLimits::inserting`]).
    pub(super) fn of(
        session: &'a Session,
        table: &'a TableEntry,
        outside: bool,
        ctx: &'a Ctx,
    ) -> anyhow::Result<Option<CheckTrial<'a>>> {
        let is_alone = table.parents.is_empty() && table.own.is_empty();
        if !is_alone || table.has_struct() || table.has_column("file_row_number") {
            return Ok(None);
        }
        let trial = CheckTrial { session, table, outside, ctx };
        let (schema, name) = (sql::text(&table.schema), sql::text(&table.name));
        let query = format!(
            "SELECT count(*) FROM system.main.duckdb_constraints() WHERE database_name = '{CATALOG}' AND schema_name = {schema} AND table_name = {name} AND constraint_type = 'CHECK'"
        );
        // It reads the checks, whose macros are found from within only.
        let counted = trial.within(|| session.rows(&query))?;
        let count: Option<u64> = counted.first().and_then(|row| number(row, 0));
        Ok((count.unwrap_or_default() > 0).then_some(trial))
    }

    /// Why the engine refuses rows of the Parquet file at `path`, but for those that `later` links change; nothing if
    /// it takes them all.
    ///
    /// # Errors
    /// What the engine says of anything else.
    pub(super) fn refusal(&self, path: &Path, later: &[String]) -> anyhow::Result<Option<String>> {
        let file = sql::text(&self.session.path(path));
        let count = format!("SELECT num_rows FROM parquet_file_metadata({file})");
        let count = self.session.rows(&count)?;
        let end: u64 = count.first().and_then(|row| number(row, 0)).unwrap_or_default();
        let rows = unchanged::rows(self.table, &file, later);
        for start in (0..end).step_by(usize::try_from(BATCH_ROWS).unwrap_or(usize::MAX)) {
            self.ctx.cancel.check()?;
            let last = start + BATCH_ROWS - 1;
            let some = format!("{rows} WHERE {ROW}.file_row_number BETWEEN {start} AND {last}");
            if let Some(why) = self.batch(&some)? {
                return Ok(Some(why));
            }
        }
        Ok(None)
    }

    fn batch(&self, rows: &str) -> anyhow::Result<Option<String>> {
        let (session, here, columns) = (self.session, self.table.here(), columns(self.table));
        session.run(&format!(
            "CREATE OR REPLACE TEMP TABLE bkp_trial AS SELECT {columns} FROM {here} LIMIT 0"
        ))?;
        session.run(&format!("INSERT INTO temp.main.bkp_trial ({columns}) {rows}"))?;
        let refused = self.within(|| {
            session.run("BEGIN TRANSACTION")?;
            let inserted = session.run(&format!(
                "INSERT INTO {here} ({columns}) SELECT {columns} FROM temp.main.bkp_trial AS {ROW}"
            ));
            let refused = inserted.err().map(|error| session.refusal_of_rows().ok_or(error));
            session.run("ROLLBACK")?;
            refused.transpose()
        })?;
        session.run("DROP TABLE temp.main.bkp_trial")?;
        Ok(refused)
    }

    /// Does it from within the database if the session is outside. What is done must not call anything by a name that
    /// the database may have.
    fn within<T>(&self, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        if self.outside {
            self.session.enter_user_schema()?;
        }
        let done = work()?;
        if self.outside {
            self.session.leave_user_schema_again()?;
        }
        Ok(done)
    }
}
