//! Loads the tables of a new file from a chain of exports.

use std::path::Path;

use crate::ctx::Ctx;
use crate::error::{Fault, Kind};
use crate::source::Chain;
use crate::source::duckdb::engine::{CATALOG, Session};
use crate::source::duckdb::export::delta;
use crate::source::duckdb::export::index::{Index, TableEntry};
use crate::source::duckdb::export::links;
use crate::source::duckdb::export::links::broken;
use crate::source::duckdb::export::native;
use crate::source::duckdb::export::unchanged;
use crate::source::duckdb::schema::sql;
use crate::source::duckdb::schema::sql::ROW;

/// Rows that go into a table at once: eight groups of rows as DuckDB stores them. The index of a key
/// is held twice for those that are on their way.
pub(super) const BATCH_ROWS: u64 = 8 * 122_880;

/// A file that is being built.
pub(crate) struct TableLoader<'a> {
    pub(crate) chain: &'a Chain<'a>,
    pub(crate) indexes: Vec<Index>,
    pub(crate) session: Session,
    /// A folder of ours.
    pub(crate) folder: &'a Path,
    /// Whether the linked engine hashes as the one did that made the export.
    pub(crate) comparable: bool,
    /// Whether the session is outside of the database: see [`Session::leave_user_schema`].
    pub(crate) outside: bool,
    pub(crate) ctx: &'a Ctx,
}

/// Where the tables are put together that cannot be loaded at once.
pub(crate) fn stage() -> String {
    format!("{CATALOG}_stage")
}

impl TableLoader<'_> {
    /// Brings the rows of one table into the new file, or says why that cannot be done here, or that the
    /// engine refuses them: then the table has none, and the others have theirs.
    ///
    /// # Errors
    /// What chain and store say; that memory or disk was too small.
    pub(crate) fn fill_or_say(&mut self, table: &TableEntry) -> anyhow::Result<Option<String>> {
        let error = match self.fill(table) {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        self.ctx.cancel.check()?;
        let Some(why) = self.session.refusal_of_rows() else { return Err(error) };
        if self.outside {
            // It was refused within.
            self.session.leave_user_schema_again()?;
        }
        let emptied = self.session.attempt(&format!("DELETE FROM {}", table.here()));
        Ok(Some(match emptied {
            Ok(()) => why,
            Err(_) => format!("{why}; some of them were loaded"),
        }))
    }

    /// Brings the rows of one table into the new file, or says why that cannot be done here.
    ///
    /// # Errors
    /// What engine, chain and store say.
    fn fill(&mut self, table: &TableEntry) -> anyhow::Result<Option<String>> {
        if let Some(native) = &table.native {
            self.load(table, &native::relation(native))?;
            return Ok(None);
        }
        let links: Vec<(usize, TableEntry)> = links::of(&self.indexes, table)?
            .into_iter()
            .map(|(order, entry)| (order, entry.clone()))
            .collect();
        let by_hash = !delta::is_keyed(table) && links.len() > 1;
        if by_hash && !self.comparable {
            return Ok(Some(
                "it has no primary key, and its changes since the last full export can only be applied by an engine with the same hashes".into(),
            ));
        }
        let target = table.here();
        let is_staged = by_hash || !table.own.is_empty() || self.outside;
        let stage = if is_staged { format!("{}.main.rows", stage()) } else { target.clone() };
        if is_staged {
            self.session.run(&format!(
                "CREATE OR REPLACE TABLE {stage} AS SELECT {} FROM {target} LIMIT 0",
                columns(table)
            ))?;
        }
        let mut changes = Vec::new();
        for (order, entry) in links.iter().filter(|(_, entry)| !entry.full) {
            changes.push(self.changes(*order, entry)?);
        }
        for (number, (order, entry)) in links.iter().enumerate() {
            // The first link is a full one: the changes of the second are the first.
            let mut later = changes.get(number..).unwrap_or_default();
            if by_hash {
                if let Some(change) = number.checked_sub(1).and_then(|before| changes.get(before)) {
                    self.session.run(&delta::removal(table, change, &stage))?;
                }
                later = &[];
            }
            let path = links::rows(self.chain, *order, entry, self.folder, self.ctx)?;
            self.insert(table, &stage, &path, later)?;
            std::fs::remove_file(&path)?;
        }
        if is_staged {
            self.load(table, &stage)?;
        }
        Ok(None)
    }

    /// The rows of a file into a table, some at a time, but for those that `later` links change.
    fn insert(
        &self,
        table: &TableEntry,
        into: &str,
        path: &Path,
        later: &[String],
    ) -> anyhow::Result<()> {
        let file = sql::text(&self.session.path(path));
        let count = format!("SELECT num_rows FROM parquet_file_metadata({file})");
        let end = self.number(&count)?;
        if later.is_empty() || table.has_column("file_row_number") {
            let rows = unchanged::rows(table, &file, later);
            let insert = format!("INSERT INTO {into} ({}) {rows}", columns(table));
            return self.batched(table, "file_row_number", end, &insert);
        }
        // Rows that come from a join the engine inserts one after the other, and holds more of them.
        let batch = usize::try_from(BATCH_ROWS).unwrap_or(usize::MAX);
        for start in (0..end).step_by(batch) {
            self.ctx.cancel.check()?;
            let part = start..start + BATCH_ROWS;
            self.session.run(&unchanged::note_changed(table, &file, later, &part))?;
            let rows = unchanged::rows_not_noted(&file, &part);
            self.session.run(&format!("INSERT INTO {into} ({}) {rows}", columns(table)))?;
        }
        Ok(())
    }

    /// Runs `insert` for the rows whose `number` is below `end`, some at a time.
    fn batched(
        &self,
        table: &TableEntry,
        number: &str,
        end: u64,
        insert: &str,
    ) -> anyhow::Result<()> {
        if table.has_column(number) || end <= BATCH_ROWS {
            // A column of that name hides the number of the row.
            return self.session.run(insert);
        }
        let batch = usize::try_from(BATCH_ROWS).unwrap_or(usize::MAX);
        for start in (0..end).step_by(batch) {
            self.ctx.cancel.check()?;
            let last = start + BATCH_ROWS - 1;
            self.session
                .run(&format!("{insert} WHERE {ROW}.{number} BETWEEN {start} AND {last}"))?;
        }
        Ok(())
    }

    /// Does it from within the database if the session is outside: macros in checks are found there only. What
    /// is done must not call anything by a name that the database may have.
    fn within(&self, work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
        if !self.outside {
            return work();
        }
        self.session.enter_user_schema()?;
        work()?;
        self.session.leave_user_schema_again()
    }

    fn number(&self, query: &str) -> anyhow::Result<u64> {
        let rows = self.session.rows(query)?;
        let text = rows.into_iter().flatten().next().flatten().unwrap_or_default();
        Ok(text.parse().unwrap_or_default())
    }

    /// From the stage into the table with its constraints.
    fn load(&self, table: &TableEntry, stage: &str) -> anyhow::Result<()> {
        let (target, columns) = (table.here(), columns(table));
        let insert = |from: &str| {
            format!("INSERT INTO {target} ({columns}) SELECT {columns} FROM {from} AS {ROW}")
        };
        let Some(rule) = delta::loadable(table, &target) else {
            let end = if table.has_column("rowid") {
                0
            } else {
                self.number(&format!("SELECT coalesce(max(rowid) + 1, 0) FROM {stage}"))?
            };
            return self.within(|| self.batched(table, "rowid", end, &insert(stage)));
        };
        let mut number = "bkp_r".to_owned();
        while table.has_column(&number) {
            number.push('_');
        }
        let left = format!("SELECT count(*) FROM {stage}");
        let mut before = self.number(&left)?;
        while before != 0 {
            self.ctx.cancel.check()?;
            self.session.run(&format!(
                "CREATE OR REPLACE TEMP TABLE bkp_next AS SELECT {ROW}.rowid AS {number}, {columns} FROM {stage} AS {ROW} WHERE {rule}"
            ))?;
            self.within(|| self.session.run(&insert("temp.main.bkp_next")))?;
            self.session.run(&format!(
                "DELETE FROM {stage} WHERE rowid IN (SELECT {number} FROM temp.main.bkp_next)"
            ))?;
            let now = self.number(&left)?;
            if now == before {
                return Err(broken(&format!(
                    "{now} rows of {} refer to each other in a circle",
                    table.quoted()
                )));
            }
            before = now;
        }
        self.session.run("DROP TABLE IF EXISTS temp.main.bkp_next")
    }

    /// What changed in a link, as a relation.
    fn changes(&self, order: usize, entry: &TableEntry) -> anyhow::Result<String> {
        let member = entry.rows_member.as_deref().unwrap_or_default();
        let path = links::changes(self.chain, order, member, self.folder, self.ctx)?;
        Ok(format!("read_parquet({})", sql::text(&self.session.path(&path))))
    }
}

/// The columns of a table, quoted, with commas between them.
pub(super) fn columns(table: &TableEntry) -> String {
    let columns: Vec<String> = table.columns.iter().map(|column| column.name.clone()).collect();
    sql::names(&columns)
}

/// A table with no more than its columns, for one whose statement fails here.
pub(crate) fn columns_only_sql(table: &TableEntry) -> String {
    let columns = table.columns.iter();
    let columns = columns.map(|column| format!("{} {}", sql::name(&column.name), column.data_type));
    format!("CREATE TABLE {} ({})", table.here(), columns.collect::<Vec<_>>().join(", "))
}

/// A table with the columns of its rows as they travelled: some types cannot be written.
pub(crate) fn as_travelled_sql(table: &TableEntry) -> String {
    let native = table.native.as_deref().unwrap_or_default();
    let (columns, rows) = (columns(table), native::relation(native));
    format!("CREATE TABLE {} AS SELECT {columns} FROM {rows} LIMIT 0", table.here())
}

/// The failure of a chain whose tables cannot be put into an order.
pub(crate) fn circular_references() -> Fault {
    Fault::new(
        Kind::Integrity,
        "the export is incomplete: its tables refer to each other in a circle",
    )
}
