//! The schema of a database: its tables, and the statements that recreate it.
//!
//! The statements come from DuckDB's own catalog functions. What these leave out is put in: the
//! foreign keys of a table to itself, the definitions of types, the default arguments of macros.
//! Then all statements are tried in an empty database, and what does not come out of that is named:
//! nothing is lost silently.

use std::collections::{BTreeSet, HashMap};

use crate::source::duckdb::engine::{CATALOG, MACROS, Session, TextRow};
use crate::source::duckdb::export::index::{Column, Content, RowNumbers, SqlObject, TableEntry};

mod database_schema;
mod definitions;
pub(crate) mod schema_check;
pub(crate) mod sql;
pub(crate) mod table_filter;

use self::definitions::renamed;
pub(crate) use crate::source::duckdb::schema::database_schema::{
    DatabaseSchema, field, number, quoted, text,
};
use crate::source::duckdb::schema::database_schema::{SEPARATOR, list};

/// Rows by schema and table, which come first.
pub(crate) fn by_table(rows: Vec<TextRow>) -> HashMap<(String, String), Vec<TextRow>> {
    let mut found: HashMap<_, Vec<TextRow>> = HashMap::new();
    for row in rows {
        found.entry((text(&row, 0), text(&row, 1))).or_default().push(row);
    }
    found
}

/// The columns of a table with this definition, but for those that are computed.
pub(crate) fn stored_columns(definition: &str, rows: Option<&Vec<TextRow>>) -> Vec<Column> {
    let rows = rows.map(Vec::as_slice).unwrap_or_default();
    let generated = sql::generated(definition, rows.len());
    let stored = rows.iter().zip(generated.into_iter().chain(std::iter::repeat(false)));
    let stored = stored.filter(|(_, computed)| !computed);
    stored.map(|(row, _)| Column { name: text(row, 2), data_type: text(row, 3) }).collect()
}

/// Reads the schema of an open database, which the session has left, as far as it is `wanted`; what its statements recreate is not known
/// before a [`Rehearsal`](schema_check::Rehearsal).
///
/// # Errors
/// What the engine says, and as [`DatabaseSchema::narrow`].
pub(crate) fn read(
    session: &Session,
    wanted: &dyn Fn(&TableEntry) -> bool,
) -> anyhow::Result<DatabaseSchema> {
    let mut shape = DatabaseSchema {
        statements: Vec::new(),
        tables: Vec::new(),
        lost: Vec::new(),
        left_out: Vec::new(),
        without: Vec::new(),
        depending: Vec::new(),
    };
    shape.simple(session)?;
    shape.macros(session)?;
    shape.tables(session)?;
    shape.comments(session)?;
    shape.triggers(session)?;
    shape.statements.sort_by_key(|statement| statement.makes);
    shape.narrow(wanted)?;
    Ok(shape)
}

/// A reference as bkp writes it, to a table of the same schema.
fn reference(schema: &str, row: &TextRow, to: &str) -> String {
    let (own, theirs) = (sql::names(&list(row, 3)), sql::names(&list(row, 5)));
    format!("FOREIGN KEY ({own}) REFERENCES {}({theirs})", quoted(schema, to))
}

/// The definition of a table with the names of the tables in quotes that it refers to by these `rows`: DuckDB
/// 1.5 leaves the quotes out, whatever the names are. A name that needs none is left as it is told.
fn requoted(
    mut definition: String,
    schema: &str,
    rows: &[TextRow],
    reserved: &ReservedWords,
) -> String {
    let references = rows.iter().filter(|row| text(row, 2) == "FOREIGN KEY");
    let odd =
        references.filter(|row| !reserved.is_plain(&text(row, 4)) || !reserved.is_plain(schema));
    let mut odd: Vec<(&TextRow, String)> = odd.map(|row| (row, text(row, 6))).collect();
    // A name may contain what another reference is told as.
    odd.sort_by_key(|(_, told)| std::cmp::Reverse(told.len()));
    for (row, told) in odd.into_iter().filter(|(_, told)| !told.is_empty()) {
        // A default may be a text that looks like one: references come behind the columns. Whatever is hit that is
        // no reference is found when the definition is tried.
        if let Some(at) = definition.rfind(&told) {
            let reference = reference(schema, row, &text(row, 4));
            definition.replace_range(at..at + told.len(), &reference);
        }
    }
    definition
}

/// The words that a name must not be to stand without quotes.
struct ReservedWords(BTreeSet<String>);

impl ReservedWords {
    fn read(session: &Session) -> anyhow::Result<ReservedWords> {
        let reserved = "SELECT lower(keyword_name) FROM system.main.duckdb_keywords() WHERE keyword_category <> 'unreserved'";
        let rows = session.rows(reserved)?;
        Ok(ReservedWords(rows.iter().map(|row| text(row, 0)).collect()))
    }

    fn is_plain(&self, name: &str) -> bool {
        let mut characters = name.chars();
        characters.next().is_some_and(|first| first.is_ascii_lowercase() || first == '_')
            && characters.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
            && !self.0.contains(name)
    }
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
        found.ok_or_else(|| format!("it refers to `{referenced}`, which does not exist"))
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
            missing.push(reference(&schema, row, told));
        }
        table.own.push((own, theirs));
    }
    Ok(missing)
}

impl DatabaseSchema {
    fn tables(&mut self, session: &Session) -> anyhow::Result<()> {
        let tables_query = format!(
            "SELECT schema_name, table_name, sql FROM duckdb_tables() WHERE NOT internal AND NOT temporary AND database_name = '{CATALOG}' ORDER BY table_oid"
        );
        let columns_query = format!(
            "SELECT schema_name, table_name, column_name, data_type FROM duckdb_columns() WHERE NOT internal AND database_name = '{CATALOG}' ORDER BY table_oid, column_index"
        );
        let constraints = format!(
            "SELECT schema_name, table_name, constraint_type, system.main.array_to_string(constraint_column_names, '{SEPARATOR}'), referenced_table, system.main.array_to_string(referenced_column_names, '{SEPARATOR}'), constraint_text FROM system.main.duckdb_constraints() WHERE database_name = '{CATALOG}' AND constraint_type IN ('PRIMARY KEY', 'FOREIGN KEY') ORDER BY table_oid, constraint_index"
        );
        let columns = by_table(session.rows(&columns_query)?);
        // It reads the checks, whose macros are found from within only; what it is told with is named in full.
        session.enter_user_schema()?;
        let constraints = by_table(session.rows(&constraints)?);
        session.leave_user_schema_again()?;
        let tables = session.rows(&tables_query)?;
        let reserved = ReservedWords::read(session)?;
        for row in &tables {
            let (schema, name, mut definition) = (text(row, 0), text(row, 1), text(row, 2));
            let of_it = (schema.clone(), name.clone());
            let rows = constraints.get(&of_it).map(Vec::as_slice).unwrap_or_default();
            definition = requoted(definition, &schema, rows, &reserved);
            let is_rowid = |row: &TextRow| text(row, 2).eq_ignore_ascii_case("rowid");
            let mut table = TableEntry {
                columns: stored_columns(&definition, columns.get(&of_it)),
                row_numbers: match columns.get(&of_it) {
                    Some(rows) if rows.iter().any(is_rowid) => RowNumbers::Hidden,
                    _ => RowNumbers::Known,
                },
                key: None,
                parents: Vec::new(),
                own: Vec::new(),
                content: Content::default(),
                data: None,
                full: true,
                rows_member: None,
                native: None,
                keyed_hashes: true,
                groups: Vec::new(),
                whole: false,
                schema: schema.clone(),
                name: name.clone(),
            };
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
            let Some(definition) = renamed(SqlObject::Table, &definition, &table.quoted(), None)
            else {
                let name = table.quoted();
                self.lost.push(format!("the table {name}: DuckDB reports no definition for it"));
                continue;
            };
            self.add(SqlObject::Table, table.quoted(), definition);
            self.tables.push(table);
        }
        Ok(())
    }

    fn comments(&mut self, session: &Session) -> anyhow::Result<()> {
        const OF: &str = "comment, NULL FROM";
        const ON: &str = "comment, table_name FROM";
        let and = format!("WHERE comment IS NOT NULL AND database_name = '{CATALOG}'");
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
                    SqlObject::Comment,
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

impl SqlObject {
    /// How a statement that makes it begins.
    pub(crate) fn begins(self) -> &'static [&'static str] {
        match self {
            SqlObject::Schema => &["CREATE SCHEMA "],
            SqlObject::Type => &["CREATE TYPE "],
            SqlObject::Sequence => &["CREATE SEQUENCE "],
            SqlObject::Macro => &["CREATE MACRO "],
            SqlObject::Table => &["CREATE TABLE "],
            SqlObject::View => &["CREATE VIEW "],
            SqlObject::Index => &["CREATE INDEX ", "CREATE UNIQUE INDEX "],
            SqlObject::Comment => &["COMMENT ON "],
        }
    }

    /// What it makes, as people say it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            SqlObject::Schema => "schema",
            SqlObject::Type => "type",
            SqlObject::Sequence => "sequence",
            SqlObject::Macro => "macro",
            SqlObject::Table => "table",
            SqlObject::View => "view",
            SqlObject::Index => "index",
            SqlObject::Comment => "comment on",
        }
    }
}
