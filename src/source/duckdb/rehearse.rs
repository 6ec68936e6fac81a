//! Trying in an empty database whether statements make a schema again.

use std::path::Path;

use super::engine::Session;
use super::index::{Makes, Statement, TableEntry};
use super::shape::{Shape, quoted, text};
use crate::error::Kind;
use crate::source::SourceError;

impl Shape {
    /// Makes the schema in an empty database, and compares.
    pub(super) fn rehearse(&mut self, session: &Session, scratch: &Path) -> anyhow::Result<()> {
        const COMPARED: &str = "SELECT 'table', schema_name, table_name, sql FROM duckdb_tables() WHERE NOT internal AND NOT temporary AND database_name = current_database() UNION ALL SELECT 'view', schema_name, view_name, sql FROM duckdb_views() WHERE NOT internal AND NOT temporary AND database_name = current_database()";
        let empty = Session::open(None, true, scratch, Kind::Source)?;
        let failed = run(&empty, self.statements.iter());
        for (statement, why) in &failed {
            let why = why.lines().next().unwrap_or_default();
            self.lost.push(format!("the {} {}: {why}", statement.makes.word(), statement.name));
        }
        let failed: Vec<Statement> =
            failed.into_iter().map(|(statement, _)| statement.clone()).collect();
        let made = empty.rows(COMPARED)?;
        for row in session.rows(COMPARED)? {
            let name = quoted(&text(&row, 1), &text(&row, 2));
            let is_failed = failed.iter().any(|statement| statement.name == name);
            if !is_failed && !made.contains(&row) {
                self.lost.push(format!("a part of the definition of the {} {name}", text(&row, 0)));
            }
        }
        // A statement that cannot be run would only fail again.
        self.statements.retain(|statement| !failed.contains(statement));
        Ok(())
    }

    /// Keeps only the tables that are wanted, and what can be made without the others.
    ///
    /// # Errors
    /// [`SourceError::Unsupported`] if one that is wanted refers to one that is not.
    pub(super) fn narrow(
        &mut self,
        wanted: &dyn Fn(&TableEntry) -> bool,
        scratch: &Path,
    ) -> anyhow::Result<()> {
        let (kept, left_out): (Vec<_>, Vec<_>) = self.tables.drain(..).partition(|t| wanted(t));
        self.tables = kept;
        let names: Vec<String> = left_out.iter().map(TableEntry::quoted).collect();
        if names.is_empty() {
            return Ok(());
        }
        for table in &self.tables {
            if let Some(parent) = table.parents.iter().find(|parent| names.contains(parent)) {
                let what = format!("the table {}", table.quoted());
                let reason =
                    format!("it refers to {parent}, which `tables` and `exclude` leave out");
                return Err(SourceError::Unsupported { what, reason }.into());
            }
        }
        self.statements.retain(|statement| {
            statement.makes != Makes::Table || !names.contains(&statement.name)
        });
        let empty = Session::open(None, true, scratch, Kind::Source)?;
        let depending = run(&empty, self.statements.iter());
        let depending: Vec<Statement> =
            depending.into_iter().map(|(statement, _)| statement.clone()).collect();
        self.statements.retain(|statement| !depending.contains(statement));
        Ok(())
    }
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
