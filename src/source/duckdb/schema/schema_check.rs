//! Checks in an empty database whether statements recreate a schema.
//!
//! The database is a file of ours, and confined: a view over files or over a network would otherwise make
//! bkp, which may run as another user, open them. What fails is kept with the reason, and tried
//! again by a restore.

use std::path::Path;

use crate::blockfile::listing::Hex;
use crate::error::{Fault, Kind};
use crate::source::ResourceLimits;
use crate::source::duckdb::data_file::database::beside;
use crate::source::duckdb::data_file::format::digest;
use crate::source::duckdb::engine::limits::{EngineLimits, OUT_OF_MEMORY};
use crate::source::duckdb::engine::{
    CATALOG, DatabaseTarget, ENDED, MACROS, Session, SessionOptions, TextRow, plain,
};
use crate::source::duckdb::export::index::{SqlObject, Statement, TableEntry};
use crate::source::duckdb::schema::sql;
use crate::source::duckdb::schema::{DatabaseSchema, quoted, text};

/// Statements that were not made, each with the reason.
type FailedStatements = Vec<(Statement, String)>;

/// Over how many statements engines may end; each takes its time.
const FATAL_MAX: usize = 3;

/// What a recreated definition is told as that came out in another form.
const DIFFERS: &str = "its recreated definition differs";

/// What the catalog notes of a view's columns, in a row of [`DatabaseSchema::listing`].
const COLUMNS: &str = "columns";

/// What is said of a statement that comes after one over which the engine ended.
const NOT_TRIED: &str = "it was not tried";

/// A view that is written as it was and gives other columns than the database has noted for it: those are of the
/// day when it was made, and its tables may have got more of them.
pub(crate) struct StaleView {
    name: String,
    /// What the recreated view gives.
    columns: String,
}

/// What a schema is compared with that was made anew from its statements.
pub(crate) struct Rehearsal<'a> {
    /// What the database tells of its own.
    listed: Vec<TextRow>,
    storage_version: &'a str,
    /// A folder for temporary files.
    scratch: &'a Path,
}

impl<'a> Rehearsal<'a> {
    /// Asks a database of this storage version what it tells of `schema`, which is its own.
    ///
    /// # Errors
    /// What the engine says.
    pub(crate) fn of(
        schema: &DatabaseSchema,
        session: &Session,
        storage_version: &'a str,
        scratch: &'a Path,
    ) -> anyhow::Result<Rehearsal<'a>> {
        Ok(Rehearsal { listed: session.rows(&schema.listing())?, storage_version, scratch })
    }

    /// A digest of all that the result depends on: the statements, what the database tells, and the versions of
    /// both programs that have a say in it. A rehearsal with the same one need not be held again.
    ///
    /// # Errors
    /// That what the database tells is no JSON, which any text is.
    pub(crate) fn fingerprint(&self, schema: &DatabaseSchema) -> anyhow::Result<Hex> {
        let versions = (env!("CARGO_PKG_VERSION"), crate::version::duckdb(), self.storage_version);
        let told = (versions, &schema.statements, &schema.without, &self.listed);
        Ok(Hex(digest(&serde_json::to_vec(&told)?)))
    }
}

impl DatabaseSchema {
    /// Keeps only the tables that are wanted, and what can be made without the others.
    ///
    /// # Errors
    /// [`Kind::Config`] if one that is wanted refers to one that is not.
    pub(crate) fn narrow(&mut self, wanted: &dyn Fn(&TableEntry) -> bool) -> anyhow::Result<()> {
        let (kept, left_out): (Vec<_>, Vec<_>) = self.tables.drain(..).partition(|t| wanted(t));
        self.tables = kept;
        self.left_out = left_out.iter().map(TableEntry::plain).collect();
        let names: Vec<String> = left_out.iter().map(TableEntry::quoted).collect();
        for table in &self.tables {
            if let Some(parent) = table.parents.iter().find(|parent| names.contains(parent)) {
                let message = format!(
                    "the table {} refers to {parent}, which `tables` and `exclude` leave out",
                    table.quoted()
                );
                let message = plain(&message);
                let hint = "take both or leave out both: correct the source's table";
                return Err(Fault::new(Kind::Config, message).hint(hint).into());
            }
        }
        let is_left_out = |statement: &Statement| {
            statement.makes == SqlObject::Table && names.contains(&statement.name)
                || statement.table.as_ref().is_some_and(|table| names.contains(table))
        };
        let (left_out, kept) = self.statements.drain(..).partition(is_left_out);
        self.statements = kept;
        self.without = left_out;
        Ok(())
    }

    /// Makes the schema in an empty database, and compares. What needs a table that is left out is
    /// left out, and named. Returns views of which only the database itself can tell whether they came out
    /// right: see [`confirm`](DatabaseSchema::confirm).
    ///
    /// # Errors
    /// What system and engine say.
    pub(crate) fn rehearse(&mut self, rehearsal: &Rehearsal<'_>) -> anyhow::Result<Vec<StaleView>> {
        let scratch = rehearsal.scratch;
        let limits = EngineLimits::modest(ResourceLimits::default());
        let options =
            SessionOptions { folder: Some(scratch), kind: Kind::Source, limits, ctx: None };
        let path = scratch.join("rehearsal.duckdb");
        let storage_version = Some(rehearsal.storage_version);
        let file = Some(path.as_path());
        let place =
            DatabaseTarget { file, write: true, storage_version, ..DatabaseTarget::default() };
        let (empty, mut failed, fatal) = self.attempted(place, &options)?;
        if !failed.is_empty() && !self.without.is_empty() {
            // What can be made as soon as the others are there too depends on them.
            let _failed = run(&empty, self.without.iter());
            let still = owned(run(&empty, failed.iter().map(|(statement, _)| statement)));
            let is_still = |statement: &Statement| still.iter().any(|(left, _)| left == statement);
            for (statement, _) in failed.iter().filter(|(statement, _)| !is_still(statement)) {
                self.statements.retain(|kept| kept != statement);
                if statement.makes != SqlObject::Comment {
                    let word = statement.makes.word();
                    self.depending.push(format!("the {word} {}", statement.name));
                }
            }
            failed = still;
        }
        failed.extend(fatal);
        for statement in &mut self.statements {
            let found = failed.iter().find(|(left, _)| left == statement);
            statement.tried = found.map(|(_, why)| first_line(why));
        }
        // How a definition reads depends on the version of the file that it was in.
        empty.run(&format!("CHECKPOINT {CATALOG}"))?;
        let made = empty.reopen(DatabaseTarget { file, ..DatabaseTarget::default() })?;
        if self.has(SqlObject::Macro) || self.has(SqlObject::Type) {
            made.leave_user_schema()?;
        }
        Ok(self.compare(&rehearsal.listed, &made.rows(&self.listing())?))
    }

    /// Whether all of it can be made from its statements, as far as a rehearsal has told.
    pub(crate) fn is_whole(&self) -> bool {
        self.statements.iter().all(|statement| statement.tried.is_none())
            && self.lost.is_empty()
            && self.depending.is_empty()
    }

    /// Asks the database that the schema is of which columns these views give today. One that gives others than
    /// when it was recreated came out in another form.
    pub(crate) fn confirm(&mut self, session: &Session, stale: &[StaleView]) {
        for view in stale {
            // It was bound with the same tables before, so it is none over which an engine ends.
            let today = session.rows(&format!(
                "SELECT column_name || ' ' || column_type FROM (DESCRIBE SELECT * FROM {})",
                view.name
            ));
            let columns: Vec<String> =
                today.unwrap_or_default().iter().map(|row| text(row, 0)).collect();
            if columns.join(", ") == view.columns {
                continue;
            }
            let is_it = |statement: &&mut Statement| {
                statement.makes == SqlObject::View && statement.name == view.name
            };
            if let Some(found) = self.statements.iter_mut().find(is_it) {
                found.tried = Some(DIFFERS.to_owned());
            }
        }
    }

    /// Makes the schema in an empty database, without the statements over which an engine ends, runs out of
    /// memory or takes longer than any should, the third result: a few macros of macros make a view that is
    /// larger than any memory. The second is what failed otherwise.
    fn attempted(
        &self,
        place: DatabaseTarget<'_>,
        options: &SessionOptions<'_>,
    ) -> anyhow::Result<(Session, FailedStatements, FailedStatements)> {
        let mut fatal: FailedStatements = Vec::new();
        loop {
            let empty = Session::opened(place, options)?;
            let harmless = |statement: &&Statement| fatal.iter().all(|(one, _)| one != *statement);
            let statements = self.statements.iter().filter(harmless);
            let mut failed = owned(run_until(&empty, statements, is_spent));
            let ended = failed.iter().position(|(_, why)| is_spent(why));
            match ended {
                None => return Ok((empty, failed, fatal)),
                Some(at) if fatal.len() < FATAL_MAX => fatal.push(failed.swap_remove(at)),
                // Each takes its time: what comes after the last one is not tried at all.
                Some(_) => fatal.extend(
                    failed.into_iter().filter(|(_, why)| is_spent(why) || why == NOT_TRIED),
                ),
            }
            drop(empty);
            for path in
                place.file.into_iter().flat_map(|path| [path.to_owned(), beside(path, ".wal")])
            {
                // It may have no log.
                let _gone = std::fs::remove_file(path);
            }
        }
    }

    /// What a database tells of the objects that are compared.
    fn listing(&self) -> String {
        let mut compared = vec![format!(
            "SELECT 'table', schema_name, table_name, sql FROM duckdb_tables() WHERE NOT internal AND NOT temporary AND database_name = '{CATALOG}' UNION ALL SELECT 'view', schema_name, view_name, sql FROM duckdb_views() WHERE NOT internal AND NOT temporary AND database_name = '{CATALOG}' UNION ALL SELECT 'index', schema_name, index_name, sql FROM duckdb_indexes() WHERE database_name = '{CATALOG}' UNION ALL SELECT 'sequence', schema_name, sequence_name, sql FROM duckdb_sequences() WHERE NOT temporary AND database_name = '{CATALOG}' UNION ALL SELECT 'type', schema_name, type_name, array_to_string(labels, ', ') FROM duckdb_types() WHERE NOT internal AND database_name = '{CATALOG}'"
        )];
        if self.has(SqlObject::View) {
            // Those of a view are as they were when it was made, whatever became of its tables.
            compared.push(format!("SELECT '{COLUMNS}', schema_name, table_name, string_agg(column_name || ' ' || data_type, ', ' ORDER BY column_index) FROM duckdb_columns() WHERE NOT internal AND database_name = '{CATALOG}' AND (schema_name, table_name) IN (SELECT (schema_name, view_name) FROM duckdb_views() WHERE NOT internal AND NOT temporary AND database_name = '{CATALOG}') GROUP BY ALL"));
        }
        if self.has(SqlObject::Macro) {
            compared.push(format!("SELECT 'macro', schema_name, function_name, array_to_string(parameters, ', ') || ' ' || macro_definition FROM {MACROS}"));
        }
        compared.join(" UNION ALL ")
    }

    fn has(&self, makes: SqlObject) -> bool {
        self.statements.iter().any(|statement| statement.makes == makes)
    }

    /// Names what came out of the statements in another form than it has, and returns the views that may have.
    fn compare(&mut self, listed: &[TextRow], made: &[TextRow]) -> Vec<StaleView> {
        let mut stale = Vec::new();
        for row in listed.iter().filter(|row| !made.contains(row)) {
            let (kind, name) = (text(row, 0), quoted(&text(row, 1), &text(row, 2)));
            let is_columns = kind == COLUMNS;
            let word = if is_columns { SqlObject::View.word() } else { kind.as_str() };
            let is_tried = |statement: &&mut Statement| {
                statement.makes.word() == word
                    && statement.name == name
                    && statement.tried.is_none()
            };
            let Some(found) = self.statements.iter_mut().find(is_tried) else { continue };
            let recreated = made.iter().find(|other| is_columns && other.get(..3) == row.get(..3));
            if let Some(recreated) = recreated {
                stale.push(StaleView { name, columns: text(recreated, 3) });
            } else if matches!(found.makes, SqlObject::View | SqlObject::Macro) {
                found.tried = Some(DIFFERS.to_owned());
            } else {
                self.lost.push(format!("a part of the definition of the {word} {name}"));
            }
        }
        stale
    }
}

/// What the engine says, without the details below its first line.
pub(crate) fn first_line(why: &str) -> String {
    why.lines().next().unwrap_or_default().to_owned()
}

fn owned(failed: Vec<(&Statement, String)>) -> FailedStatements {
    failed.into_iter().map(|(statement, why)| (statement.clone(), why)).collect()
}

/// Runs a statement of a schema, which came from a database: as data, not as one of ours.
fn define(session: &Session, statement: &Statement) -> Result<(), String> {
    if statement.makes == SqlObject::Sequence && statement.sql == sql::next_value(&statement.name) {
        return session.attempt(&statement.sql);
    }
    let is_long = statement.makes == SqlObject::Index;
    session.define(statement.makes.begins(), &statement.sql, is_long)
}

/// Whether an engine that gave this reason can be asked nothing more.
fn is_ended(why: &str) -> bool {
    why.starts_with(ENDED)
}

/// The same of an engine that only makes definitions, which take next to no memory: what the C library keeps
/// of the memory that one of them took is missing to the next, which then fails, too.
fn is_spent(why: &str) -> bool {
    is_ended(why) || why.contains(OUT_OF_MEMORY)
}

/// Runs statements until none that is left can be run: what one needs another may make later.
/// Returns those that are left, each with the reason. If the engine ends over one, that one has that
/// reason, and those after it were not tried.
pub(crate) fn run<'s>(
    session: &Session,
    statements: impl Iterator<Item = &'s Statement>,
) -> Vec<(&'s Statement, String)> {
    run_until(session, statements, is_ended)
}

/// The same; a reason with which the engine is done is one for which `is_end` holds.
fn run_until<'s>(
    session: &Session,
    statements: impl Iterator<Item = &'s Statement>,
    is_end: fn(&str) -> bool,
) -> Vec<(&'s Statement, String)> {
    let mut left: Vec<&Statement> = statements.collect();
    let mut ended = false;
    loop {
        let before = left.len();
        let mut failed = Vec::new();
        for statement in left {
            match if ended { Err(NOT_TRIED.to_owned()) } else { define(session, statement) } {
                Ok(()) => {}
                Err(why) => {
                    ended |= is_end(&why);
                    failed.push((statement, why));
                }
            }
        }
        if ended {
            return failed;
        }
        if failed.is_empty() || failed.len() == before {
            return failed;
        }
        left = failed.into_iter().map(|(statement, _)| statement).collect();
    }
}
