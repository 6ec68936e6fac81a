//! The schema of a database: its tables, and the statements that make all of it again.
//!
//! The statements come from DuckDB's own catalogue functions. What these leave out is put in: the
//! foreign keys of a table to itself, the definitions of types, the default arguments of macros.
//! Then all statements are tried in an empty database, and what does not come out of that is named:
//! nothing is lost silently.

use std::collections::HashMap;
use std::path::Path;

use super::engine::{CATALOGUE, Session, TextRow};
use super::index::{Column, Content, Makes, Statement, TableEntry};
use super::sql;
use crate::source::SourceError;

/// Separates names in lists that are read as text.
const SEPARATOR: char = '\u{1f}';

/// A schema.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) statements: Vec<Statement>,
    /// The tables, without content.
    pub(super) tables: Vec<TableEntry>,
    /// What cannot be made again, in words.
    pub(super) lost: Vec<String>,
    /// The tables that are left out.
    pub(super) left_out: Vec<String>,
    /// The statements of these tables, and of what belongs to them.
    pub(super) without: Vec<Statement>,
    /// What else is left out because it needs one of these, in words.
    pub(super) depending: Vec<String>,
}

/// The table of a session with its database's macros: see [`note_macros`].
pub(super) const MACROS: &str = "temp.main.bkp_macros";

/// Puts what the engine says of the database's macros into [`MACROS`]: it goes through thousands of its
/// own functions each time it is asked.
pub(super) fn note_macros(session: &Session) -> anyhow::Result<()> {
    session.run(&format!("CREATE OR REPLACE TEMP TABLE bkp_macros AS SELECT database_name, schema_name, function_name, function_type, function_oid, parameters, macro_definition, comment FROM duckdb_functions() WHERE NOT internal AND database_name = '{CATALOGUE}' AND function_type IN ('macro', 'table_macro')"))
}

/// The `index`th value of a row; empty where there is none.
pub(super) fn text(row: &TextRow, index: usize) -> String {
    row.get(index).cloned().flatten().unwrap_or_default()
}

fn list(row: &TextRow, index: usize) -> Vec<String> {
    let text = text(row, index);
    text.split(SEPARATOR).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// Rows by schema and table, which come first.
fn by_table(rows: Vec<TextRow>) -> HashMap<(String, String), Vec<TextRow>> {
    let mut found: HashMap<_, Vec<TextRow>> = HashMap::new();
    for row in rows {
        found.entry((text(&row, 0), text(&row, 1))).or_default().push(row);
    }
    found
}

/// The columns of a table with this definition, but for those that are computed.
fn stored_columns(definition: &str, rows: Option<&Vec<TextRow>>) -> Vec<Column> {
    let rows = rows.map(Vec::as_slice).unwrap_or_default();
    let generated = sql::generated(definition, rows.len());
    let stored = rows.iter().zip(generated.into_iter().chain(std::iter::repeat(false)));
    let stored = stored.filter(|(_, computed)| !computed);
    stored.map(|(row, _)| Column { name: text(row, 2), data_type: text(row, 3) }).collect()
}

pub(super) fn quoted(schema: &str, name: &str) -> String {
    format!("{}.{}", sql::name(schema), sql::name(name))
}

/// Reads the schema of an open database of this storage version, as far as it is `wanted`; `scratch` is a
/// folder for temporary files.
///
/// # Errors
/// What the engine says, and as [`Shape::narrow`].
pub(super) fn read(
    session: &Session,
    wanted: &dyn Fn(&TableEntry) -> bool,
    storage_version: &str,
    scratch: &Path,
) -> anyhow::Result<Shape> {
    let mut shape = Shape {
        statements: Vec::new(),
        tables: Vec::new(),
        lost: Vec::new(),
        left_out: Vec::new(),
        without: Vec::new(),
        depending: Vec::new(),
    };
    note_macros(session)?;
    shape.simple(session)?;
    shape.macros(session, scratch)?;
    shape.tables(session)?;
    shape.comments(session)?;
    shape.triggers(session)?;
    shape.statements.sort_by_key(|statement| statement.makes);
    shape.narrow(wanted)?;
    shape.rehearse(session, storage_version, scratch)?;
    Ok(shape)
}

impl Shape {
    fn add(&mut self, makes: Makes, name: String, sql: String) {
        self.add_for(makes, name, sql, None);
    }

    fn add_for(&mut self, makes: Makes, name: String, sql: String, table: Option<String>) {
        self.statements.push(Statement { makes, name, sql, table, tried: None });
    }

    /// What the catalogue has a statement for, or nearly.
    fn simple(&mut self, session: &Session) -> anyhow::Result<()> {
        let schemas_query = format!(
            "SELECT schema_name FROM duckdb_schemas() WHERE NOT internal AND database_name = '{CATALOGUE}' AND schema_name <> 'main' ORDER BY oid"
        );
        let types_query = format!(
            "SELECT schema_name, type_name FROM duckdb_types() WHERE NOT internal AND database_name = '{CATALOGUE}' ORDER BY type_oid"
        );
        for row in session.rows(&schemas_query)? {
            let name = sql::name(&text(&row, 0));
            self.add(Makes::Schema, name.clone(), format!("CREATE SCHEMA IF NOT EXISTS {name};"));
        }
        for row in session.rows(&types_query)? {
            let name = quoted(&text(&row, 0), &text(&row, 1));
            // A type that was made of others shows what it is made of in the end.
            let found =
                session.rows(&format!("SELECT typeof(CAST(NULL AS {CATALOGUE}.{name}))"))?;
            let meaning = found.first().map(|row| text(row, 0)).unwrap_or_default();
            self.add(Makes::Type, name.clone(), format!("CREATE TYPE {name} AS {meaning};"));
        }
        for (makes, query) in [
            (
                Makes::Sequence,
                format!(
                    "SELECT schema_name, sequence_name, sql, NULL FROM duckdb_sequences() WHERE NOT temporary AND database_name = '{CATALOGUE}' ORDER BY sequence_oid"
                ),
            ),
            (
                Makes::View,
                format!(
                    "SELECT schema_name, view_name, sql, NULL FROM duckdb_views() WHERE NOT internal AND NOT temporary AND database_name = '{CATALOGUE}' ORDER BY view_oid"
                ),
            ),
            (
                Makes::Index,
                format!(
                    "SELECT schema_name, index_name, sql, table_name FROM duckdb_indexes() WHERE database_name = '{CATALOGUE}' AND sql IS NOT NULL ORDER BY index_oid"
                ),
            ),
        ] {
            for row in session.rows(&query)? {
                let table = row.get(3).cloned().flatten();
                let table = table.map(|table| quoted(&text(&row, 0), &table));
                let name = quoted(&text(&row, 0), &text(&row, 1));
                let mut sql = text(&row, 2);
                // It has the bare name there, in no schema and in no quotes.
                if let Some((_, rest)) = sql.rsplit_once(" INCREMENT BY ")
                    && makes == Makes::Sequence
                {
                    sql = format!("CREATE SEQUENCE {name} INCREMENT BY {rest}");
                }
                self.add_for(makes, name, sql, table);
            }
        }
        Ok(())
    }

    /// Macros, whose default arguments only DuckDB's own export writes: it is run on a copy of the
    /// schema that has nothing else in it.
    fn macros(&mut self, session: &Session, scratch: &Path) -> anyhow::Result<()> {
        const MACRO: &str = "CREATE MACRO ";
        const RELATIONS: &str = "SELECT 'VIEW', schema_name, view_name FROM duckdb_views() WHERE NOT internal AND database_name = 'bkp_shape' UNION ALL SELECT 'TABLE', schema_name, table_name FROM duckdb_tables() WHERE NOT internal AND database_name = 'bkp_shape'";
        let mut macros = session.rows(&format!("SELECT schema_name, function_name, function_type, array_to_string(parameters, ', '), macro_definition FROM {MACROS} ORDER BY function_oid"))?;
        // Several bodies of one name are one macro.
        let count = {
            let mut names: Vec<_> =
                macros.iter().map(|row| (text(row, 0), text(row, 1), text(row, 2))).collect();
            names.dedup();
            names.len()
        };
        if count == 0 {
            return Ok(());
        }
        session.run("ATTACH ':memory:' AS bkp_shape (READ_WRITE)")?;
        let folder = scratch.join("macros");
        let copy = format!("COPY FROM DATABASE {CATALOGUE} TO bkp_shape (SCHEMA)");
        let mut exported = session.attempt(&copy);
        if exported.is_ok() {
            for row in session.rows(RELATIONS)? {
                let name = quoted(&text(&row, 1), &text(&row, 2));
                // What is gone already went with another one.
                let _gone = session
                    .attempt(&format!("DROP {} IF EXISTS bkp_shape.{name} CASCADE", text(&row, 0)));
            }
            let path = sql::text(&folder.display().to_string());
            session.run("USE bkp_shape")?;
            exported = session.attempt(&format!("EXPORT DATABASE {path}"));
            session.step_out()?;
        }
        session.run("DETACH bkp_shape")?;
        let script =
            exported.ok().and_then(|()| std::fs::read_to_string(folder.join("schema.sql")).ok());
        let script = script.unwrap_or_default();
        // DuckDB 1 does not double the quotes in the values of types, which come before.
        let begin =
            if script.starts_with(MACRO) { Some(0) } else { script.find(&format!("\n{MACRO}")) };
        let mut found =
            sql::statements(script.get(begin.unwrap_or(script.len())..).unwrap_or_default());
        found.retain(|statement| statement.starts_with(MACRO));
        if found.len() == count {
            for statement in found {
                let name = sql::identifiers(statement.trim_start_matches(MACRO));
                let name = match name.as_slice() {
                    [.., schema, name] => quoted(schema, name),
                    [name] => quoted("main", name),
                    [] => String::new(),
                };
                self.add(Makes::Macro, name, format!("{statement};"));
            }
            return Ok(());
        }
        for row in macros.drain(..) {
            let name = quoted(&text(&row, 0), &text(&row, 1));
            let table = if text(&row, 2) == "table_macro" { "TABLE " } else { "" };
            let (parameters, body) = (text(&row, 3), text(&row, 4));
            self.lost.push(format!("default arguments of the macro {name}, if it has any"));
            self.add(
                Makes::Macro,
                name.clone(),
                format!("CREATE MACRO {name}({parameters}) AS {table}{body};"),
            );
        }
        Ok(())
    }

    fn tables(&mut self, session: &Session) -> anyhow::Result<()> {
        let tables_query = format!(
            "SELECT schema_name, table_name, sql FROM duckdb_tables() WHERE NOT internal AND NOT temporary AND database_name = '{CATALOGUE}' ORDER BY table_oid"
        );
        let columns_query = format!(
            "SELECT schema_name, table_name, column_name, data_type FROM duckdb_columns() WHERE NOT internal AND database_name = '{CATALOGUE}' ORDER BY table_oid, column_index"
        );
        let constraints = format!(
            "SELECT schema_name, table_name, constraint_type, array_to_string(constraint_column_names, '{SEPARATOR}'), referenced_table, array_to_string(referenced_column_names, '{SEPARATOR}'), constraint_text FROM duckdb_constraints() WHERE database_name = '{CATALOGUE}' AND constraint_type IN ('PRIMARY KEY', 'FOREIGN KEY') ORDER BY table_oid, constraint_index"
        );
        let columns = by_table(session.rows(&columns_query)?);
        let constraints = by_table(session.rows(&constraints)?);
        let tables = session.rows(&tables_query)?;
        for row in &tables {
            let (schema, name, mut definition) = (text(row, 0), text(row, 1), text(row, 2));
            let of_it = (schema.clone(), name.clone());
            let mut table = TableEntry {
                columns: stored_columns(&definition, columns.get(&of_it)),
                key: None,
                parents: Vec::new(),
                own: Vec::new(),
                content: Content { rows: 0, sum: String::new(), xor: String::new() },
                data: None,
                full: true,
                rows_member: None,
                schema: schema.clone(),
                name: name.clone(),
            };
            // References do not leave a schema, and name a table in any case.
            let true_name = |referenced: &str| {
                let same = |row: &&TextRow| {
                    text(row, 0) == schema && text(row, 1).eq_ignore_ascii_case(referenced)
                };
                tables.iter().find(same).map(|row| text(row, 1)).ok_or_else(|| {
                    let what = format!("the table {}", quoted(&schema, &name));
                    let reason = format!("it refers to `{referenced}`, which is not there");
                    SourceError::Unsupported { what, reason }
                })
            };
            let mut missing = Vec::new();
            for row in constraints.get(&of_it).into_iter().flatten() {
                let (own, theirs) = (list(row, 3), list(row, 5));
                if text(row, 2) == "PRIMARY KEY" {
                    table.key = Some(own.iter().map(|name| table.true_column(name)).collect());
                    continue;
                }
                let referenced = true_name(&text(row, 4))?;
                if referenced == name {
                    if text(row, 6).is_empty() {
                        missing.push(format!(
                            "FOREIGN KEY ({}) REFERENCES {}({})",
                            sql::names(&own),
                            quoted(&schema, &text(row, 4)),
                            sql::names(&theirs)
                        ));
                    }
                    table.own.push((own, theirs));
                } else {
                    table.parents.push(quoted(&schema, &referenced));
                }
            }
            if !missing.is_empty() {
                definition = sql::filled(&definition, &missing).unwrap_or(definition);
            }
            self.add(Makes::Table, table.quoted(), definition);
            self.tables.push(table);
        }
        Ok(())
    }

    fn comments(&mut self, session: &Session) -> anyhow::Result<()> {
        const OF: &str = "comment, NULL FROM";
        const ON: &str = "comment, table_name FROM";
        let and = format!("WHERE comment IS NOT NULL AND database_name = '{CATALOGUE}'");
        for (what, query) in [
            ("TABLE", format!("SELECT schema_name, table_name, NULL, {ON} duckdb_tables() {and}")),
            ("VIEW", format!("SELECT schema_name, view_name, NULL, {OF} duckdb_views() {and}")),
            ("INDEX", format!("SELECT schema_name, index_name, NULL, {ON} duckdb_indexes() {and}")),
            (
                "SEQUENCE",
                format!("SELECT schema_name, sequence_name, NULL, {OF} duckdb_sequences() {and}"),
            ),
            ("TYPE", format!("SELECT schema_name, type_name, NULL, {OF} duckdb_types() {and}")),
            (
                "MACRO",
                format!(
                    "SELECT DISTINCT schema_name, function_name, NULL, {OF} {MACROS} {and} AND function_type = 'macro'"
                ),
            ),
            (
                "MACRO TABLE",
                format!(
                    "SELECT DISTINCT schema_name, function_name, NULL, {OF} {MACROS} {and} AND function_type = 'table_macro'"
                ),
            ),
            (
                "COLUMN",
                format!("SELECT schema_name, table_name, column_name, {ON} duckdb_columns() {and}"),
            ),
        ] {
            for row in session.rows(&query)? {
                let column =
                    row.get(2).cloned().flatten().map(|name| format!(".{}", sql::name(&name)));
                let name = quoted(&text(&row, 0), &text(&row, 1)) + &column.unwrap_or_default();
                let comment = sql::text(&text(&row, 3));
                let table = row.get(4).cloned().flatten();
                self.add_for(
                    Makes::Comment,
                    name.clone(),
                    format!("COMMENT ON {what} {name} IS {comment};"),
                    table.map(|table| quoted(&text(&row, 0), &table)),
                );
            }
        }
        Ok(())
    }

    /// Triggers exist since 2.0, and nothing tells how they were made.
    fn triggers(&mut self, session: &Session) -> anyhow::Result<()> {
        let known = session.attempt("FROM duckdb_triggers() LIMIT 0");
        if known.is_err_and(|why| why.starts_with("Catalog Error")) {
            return Ok(());
        }
        for row in session.rows("SELECT trigger_name FROM duckdb_triggers()")? {
            self.lost.push(format!("the trigger {}", sql::name(&text(&row, 0))));
        }
        Ok(())
    }
}

impl Makes {
    /// What it makes, as people say it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Makes::Schema => "schema",
            Makes::Type => "type",
            Makes::Sequence => "sequence",
            Makes::Macro => "macro",
            Makes::Table => "table",
            Makes::View => "view",
            Makes::Index => "index",
            Makes::Comment => "comment on",
        }
    }
}
