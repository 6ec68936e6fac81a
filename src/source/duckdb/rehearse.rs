//! Trying in an empty database whether statements make a schema again.
//!
//! The database is in memory and confined: a view over files or over a network would otherwise make
//! bkp, which may run as another user, open them. What fails is kept with the reason, and tried
//! again by a restore.

use super::engine::Session;
use super::index::{Makes, Statement, TableEntry};
use super::shape::{MACROS, Shape, note_macros, quoted, text};
use crate::error::Kind;
use crate::source::SourceError;

impl Shape {
    /// Keeps only the tables that are wanted, and what can be made without the others.
    ///
    /// # Errors
    /// [`SourceError::Unsupported`] if one that is wanted refers to one that is not.
    pub(super) fn narrow(&mut self, wanted: &dyn Fn(&TableEntry) -> bool) -> anyhow::Result<()> {
        let (kept, left_out): (Vec<_>, Vec<_>) = self.tables.drain(..).partition(|t| wanted(t));
        self.tables = kept;
        let names: Vec<String> = left_out.iter().map(TableEntry::quoted).collect();
        for table in &self.tables {
            if let Some(parent) = table.parents.iter().find(|parent| names.contains(parent)) {
                let what = format!("the table {}", table.quoted());
                let reason =
                    format!("it refers to {parent}, which `tables` and `exclude` leave out");
                return Err(SourceError::Unsupported { what, reason }.into());
            }
        }
        let is_left_out = |statement: &Statement| {
            statement.makes == Makes::Table && names.contains(&statement.name)
                || statement.table.as_ref().is_some_and(|table| names.contains(table))
        };
        let (left_out, kept) = self.statements.drain(..).partition(is_left_out);
        self.statements = kept;
        self.without = left_out;
        Ok(())
    }

    /// Makes the schema in an empty database, and compares. What needs a table that is left out is
    /// left out, and named.
    pub(super) fn rehearse(&mut self, session: &Session) -> anyhow::Result<()> {
        let empty = Session::confined(Kind::Source)?;
        let mut failed = owned(run(&empty, self.statements.iter()));
        if !failed.is_empty() && !self.without.is_empty() {
            // What can be made as soon as the others are there too depends on them.
            let _failed = run(&empty, self.without.iter());
            let still = owned(run(&empty, failed.iter().map(|(statement, _)| statement)));
            let is_still = |statement: &Statement| still.iter().any(|(left, _)| left == statement);
            for (statement, _) in failed.iter().filter(|(statement, _)| !is_still(statement)) {
                self.statements.retain(|kept| kept != statement);
                if statement.makes != Makes::Comment {
                    let word = statement.makes.word();
                    self.depending.push(format!("the {word} {}", statement.name));
                }
            }
            failed = still;
        }
        for statement in &mut self.statements {
            let found = failed.iter().find(|(left, _)| left == statement);
            statement.tried = found.map(|(_, why)| first_line(why));
        }
        self.compare(session, &empty)
    }

    /// Names what came out of the statements in another form than it has.
    fn compare(&mut self, session: &Session, empty: &Session) -> anyhow::Result<()> {
        const COMPARED: &str = "SELECT 'table', schema_name, table_name, sql FROM duckdb_tables() WHERE NOT internal AND NOT temporary AND database_name = current_database() UNION ALL SELECT 'view', schema_name, view_name, sql FROM duckdb_views() WHERE NOT internal AND NOT temporary AND database_name = current_database() UNION ALL SELECT 'index', schema_name, index_name, sql FROM duckdb_indexes() WHERE database_name = current_database() UNION ALL SELECT 'sequence', schema_name, sequence_name, sql FROM duckdb_sequences() WHERE NOT temporary AND database_name = current_database() UNION ALL SELECT 'type', schema_name, type_name, array_to_string(labels, ', ') FROM duckdb_types() WHERE NOT internal AND database_name = current_database()";
        let mut compared = vec![COMPARED.to_owned()];
        if self.statements.iter().any(|statement| statement.makes == Makes::Macro) {
            note_macros(empty)?;
            compared.push(format!("SELECT 'macro', schema_name, function_name, array_to_string(parameters, ', ') || ' ' || macro_definition FROM {MACROS}"));
        }
        let compared = compared.join(" UNION ALL ");
        let made = empty.rows(&compared)?;
        for row in session.rows(&compared)? {
            let (word, name) = (text(&row, 0), quoted(&text(&row, 1), &text(&row, 2)));
            let is_tried = |statement: &Statement| {
                statement.makes.word() == word
                    && statement.name == name
                    && statement.tried.is_none()
            };
            if self.statements.iter().any(is_tried) && !made.contains(&row) {
                self.lost.push(format!("a part of the definition of the {word} {name}"));
            }
        }
        Ok(())
    }
}

/// What the engine says, without the details below its first line.
pub(super) fn first_line(why: &str) -> String {
    why.lines().next().unwrap_or_default().to_owned()
}

fn owned(failed: Vec<(&Statement, String)>) -> Vec<(Statement, String)> {
    failed.into_iter().map(|(statement, why)| (statement.clone(), why)).collect()
}

/// Runs statements until none that is left can be run: what one needs another may make later.
/// Returns those that are left, each with the reason.
pub(super) fn run<'s>(
    session: &Session,
    statements: impl Iterator<Item = &'s Statement>,
) -> Vec<(&'s Statement, String)> {
    let mut left: Vec<&Statement> = statements.collect();
    loop {
        let before = left.len();
        let mut failed = Vec::new();
        for statement in left {
            if let Err(why) = session.attempt(&statement.sql) {
                failed.push((statement, why));
            }
        }
        if failed.is_empty() || failed.len() == before {
            return failed;
        }
        left = failed.into_iter().map(|(statement, _)| statement).collect();
    }
}
