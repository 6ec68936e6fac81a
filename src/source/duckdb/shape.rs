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
    shape.macros(session)?;
    shape.tables(session)?;
    shape.comments(session)?;
    shape.triggers(session)?;
    shape.statements.sort_by_key(|statement| statement.makes);
    shape.narrow(wanted)?;
    shape.rehearse(session, storage_version, scratch)?;
    Ok(shape)
}

/// Notes key and references of a table, which these `rows` tell; returns the references to itself of which
/// there is no text, in the order of the constraints. `tables` are all there are.
///
/// # Errors
/// That it refers to what is not there, in words.
fn references(
    table: &mut TableEntry,
    rows: &[TextRow],
    tables: &[TextRow],
) -> Result<Vec<String>, String> {
    let (schema, name) = (table.schema.clone(), table.name.clone());
    // References do not leave a schema, and name a table in any case.
    let true_name = |referenced: &str| {
        let same = |row: &&TextRow| {
            text(row, 0) == schema && text(row, 1).eq_ignore_ascii_case(referenced)
        };
        let found = tables.iter().find(same).map(|row| text(row, 1));
        found.ok_or_else(|| format!("it refers to `{referenced}`, which is not there"))
    };
    let mut missing = Vec::new();
    for row in rows {
        let (own, theirs) = (list(row, 3), list(row, 5));
        if text(row, 2) == "PRIMARY KEY" {
            table.key = Some(own.iter().map(|name| table.true_column(name)).collect());
            continue;
        }
        // Only of a reference of a table to itself there is no text, and its name may be an old one.
        let (told, is_own) = (text(row, 4), text(row, 6).is_empty());
        let referenced = if is_own { name.clone() } else { true_name(&told)? };
        if referenced != name {
            table.parents.push(quoted(&schema, &referenced));
            continue;
        }
        if is_own {
            let told = if told.eq_ignore_ascii_case(&name) { &told } else { &name };
            missing.push(format!(
                "FOREIGN KEY ({}) REFERENCES {}({})",
                sql::names(&own),
                quoted(&schema, told),
                sql::names(&theirs)
            ));
        }
        table.own.push((own, theirs));
    }
    Ok(missing)
}

/// What a type is made of in the end.
fn meaning(session: &Session, row: &TextRow, name: &str) -> anyhow::Result<String> {
    if row.get(3).cloned().flatten().is_some() {
        let oid = text(row, 2);
        let labels = format!(
            "SELECT unnest(labels) FROM duckdb_types() WHERE database_name = '{CATALOGUE}' AND type_oid = {oid}"
        );
        let labels = session.rows(&labels)?;
        let labels: Vec<String> = labels.iter().map(|row| sql::text(&text(row, 0))).collect();
        return Ok(format!("ENUM ({})", labels.join(", ")));
    }
    told_type(session, name)
}

/// How the engine tells a type of the database.
fn told_type(session: &Session, name: &str) -> anyhow::Result<String> {
    let found = session.rows(&format!("SELECT typeof(CAST(NULL AS {CATALOGUE}.{name}))"))?;
    Ok(found.first().map(|row| text(row, 0)).unwrap_or_default())
}

/// The parameters of each body of a macro, with types and defaults, in parentheses: DuckDB tells them of a
/// call that fits none. Nothing if what it tells is not understood.
fn signatures(
    session: &Session,
    row: &TextRow,
    parameters: &[Vec<String>],
) -> anyhow::Result<Option<Vec<String>>> {
    let name = format!("{CATALOGUE}.{}", quoted(&text(row, 0), &text(row, 1)));
    let most = parameters.iter().map(Vec::len).max().unwrap_or_default();
    let arguments = vec!["NULL"; most + 1].join(", ");
    let call = if text(row, 2) == "table_macro" { "FROM" } else { "SELECT" };
    let told = session.refusal(&format!("{call} {name}({arguments})"))?;
    Ok(told.and_then(|told| sql::signatures(&told, &text(row, 1), parameters)))
}

/// A definition as the engine tells it, with its names, and those of its table, in our quotes.
fn renamed(makes: Makes, told: &str, name: &str, table: Option<&str>) -> Option<String> {
    let begin = makes.begins().iter().find(|begin| told.starts_with(**begin))?;
    let rest = sql::after_name(told.strip_prefix(begin)?);
    if makes == Makes::Sequence {
        // It has the bare name there, in no schema and in no quotes.
        let (_, rest) = told.rsplit_once(" INCREMENT BY ")?;
        return Some(format!("{begin}{name} INCREMENT BY {rest}"));
    }
    let Some(table) = table else { return Some(format!("{begin}{name}{rest}")) };
    let rest = sql::after_name(rest.strip_prefix(" ON ")?);
    let own = sql::identifiers(name).pop().unwrap_or_default();
    Some(format!("{begin}{} ON {table}{rest}", sql::name(&own)))
}

impl Shape {
    fn add(&mut self, makes: Makes, name: String, sql: String) {
        self.add_for(makes, name, sql, None);
    }

    fn add_for(&mut self, makes: Makes, name: String, sql: String, table: Option<String>) {
        self.statements.push(Statement { makes, name, sql, table, tried: None, carried: false });
    }

    /// What the catalogue has a statement for, or nearly.
    fn simple(&mut self, session: &Session) -> anyhow::Result<()> {
        let schemas_query = format!(
            "SELECT schema_name FROM duckdb_schemas() WHERE NOT internal AND database_name = '{CATALOGUE}' AND schema_name <> 'main' ORDER BY oid"
        );
        let types_query = format!(
            "SELECT schema_name, type_name, type_oid, len(labels) FROM duckdb_types() WHERE NOT internal AND database_name = '{CATALOGUE}' ORDER BY labels IS NULL, type_oid"
        );
        for row in session.rows(&schemas_query)? {
            let name = sql::name(&text(&row, 0));
            self.add(Makes::Schema, name.clone(), format!("CREATE SCHEMA IF NOT EXISTS {name};"));
        }
        // How a type is told that has labels, and its name.
        let mut labelled: Vec<(String, String)> = Vec::new();
        for row in session.rows(&types_query)? {
            let name = quoted(&text(&row, 0), &text(&row, 1));
            let mut meaning = meaning(session, &row, &name)?;
            if row.get(3).cloned().flatten().is_some() {
                labelled.push((told_type(session, &name)?, name.clone()));
            } else if let Some((rest, of)) = labelled
                .iter()
                .find_map(|(told, of)| Some((meaning.strip_prefix(told.as_str())?, of)))
                .filter(|(rest, _)| rest.starts_with('['))
            {
                // A list of labels is one only by the name of its type.
                meaning = format!("{of}{rest}");
            }
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
                if makes == Makes::Sequence && self.exhausted(session, &row)? {
                    continue;
                }
                let told = text(&row, 2);
                let Some(sql) = renamed(makes, &told, &name, table.as_deref()) else {
                    let word = makes.word();
                    self.lost.push(format!("the {word} {name}: DuckDB tells no definition of it"));
                    continue;
                };
                self.add_for(makes, name, sql, table);
            }
        }
        Ok(())
    }

    /// A sequence that is at its end is told with a start behind that, which none can have. It is made at its
    /// last value, and that is taken. Whether it is one.
    fn exhausted(&mut self, session: &Session, row: &TextRow) -> anyhow::Result<bool> {
        let (schema, sequence) = (text(row, 0), text(row, 1));
        let query = format!(
            "SELECT increment_by, min_value, max_value, CASE WHEN increment_by > 0 THEN max_value ELSE min_value END FROM duckdb_sequences() WHERE database_name = '{CATALOGUE}' AND schema_name = {} AND sequence_name = {} AND NOT cycle AND start_value NOT BETWEEN min_value AND max_value",
            sql::text(&schema),
            sql::text(&sequence)
        );
        let found = session.rows(&query)?;
        let Some(row) = found.first() else { return Ok(false) };
        let name = quoted(&schema, &sequence);
        let (step, least, most, end) = (text(row, 0), text(row, 1), text(row, 2), text(row, 3));
        self.add(
            Makes::Sequence,
            name.clone(),
            format!(
                "CREATE SEQUENCE {name} INCREMENT BY {step} MINVALUE {least} MAXVALUE {most} START {end} NO CYCLE;"
            ),
        );
        self.add(Makes::Sequence, name.clone(), sql::next_value(&name));
        Ok(true)
    }

    /// Macros: their parameters with types and defaults are told where a call fits none of them.
    fn macros(&mut self, session: &Session) -> anyhow::Result<()> {
        let of_macros = format!(
            "SELECT schema_name, function_name, function_type, macro_definition, array_to_string(parameters, '{SEPARATOR}') FROM {MACROS} ORDER BY function_oid"
        );
        let rows = session.rows(&of_macros)?;
        // Several bodies of one name are one macro.
        let of_one = |one: &TextRow, other: &TextRow| one.get(..3) == other.get(..3);
        for bodies in rows.chunk_by(of_one) {
            let Some(first) = bodies.first() else { continue };
            let name = quoted(&text(first, 0), &text(first, 1));
            let table = if text(first, 2) == "table_macro" { "TABLE " } else { "" };
            let parameters: Vec<_> = bodies.iter().map(|body| list(body, 4)).collect();
            let told = signatures(session, first, &parameters)?;
            if told.is_none() {
                self.lost.push(format!("default arguments of the macro {name}, if it has any"));
            }
            let told = told.unwrap_or_else(|| {
                let bare = parameters.iter().map(|names| format!("({})", sql::names(names)));
                bare.collect()
            });
            let bodies = told.iter().zip(bodies);
            let bodies = bodies.map(|(told, body)| format!("{told} AS {table}{}", text(body, 3)));
            let bodies = bodies.collect::<Vec<_>>().join(", ");
            self.add(Makes::Macro, name.clone(), format!("CREATE MACRO {name}{bodies};"));
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
                native: None,
                signs: false,
                schema: schema.clone(),
                name: name.clone(),
            };
            let rows = constraints.get(&of_it).map(Vec::as_slice).unwrap_or_default();
            let missing = match references(&mut table, rows, &tables) {
                Ok(missing) => missing,
                Err(why) => {
                    self.lost.push(format!("the table {}: {why}", table.quoted()));
                    continue;
                }
            };
            if !missing.is_empty() {
                definition = sql::filled(&definition, &missing).unwrap_or(definition);
            }
            let Some(definition) = renamed(Makes::Table, &definition, &table.quoted(), None) else {
                let name = table.quoted();
                self.lost.push(format!("the table {name}: DuckDB tells no definition of it"));
                continue;
            };
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
    /// How a statement that makes it begins.
    pub(super) fn begins(self) -> &'static [&'static str] {
        match self {
            Makes::Schema => &["CREATE SCHEMA "],
            Makes::Type => &["CREATE TYPE "],
            Makes::Sequence => &["CREATE SEQUENCE "],
            Makes::Macro => &["CREATE MACRO "],
            Makes::Table => &["CREATE TABLE "],
            Makes::View => &["CREATE VIEW "],
            Makes::Index => &["CREATE INDEX ", "CREATE UNIQUE INDEX "],
            Makes::Comment => &["COMMENT ON "],
        }
    }

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
