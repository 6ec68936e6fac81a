//! A schema while it is being read, and the rows it is read from.

use std::str::FromStr;

use crate::source::duckdb::engine::TextRow;
use crate::source::duckdb::export::index::{SqlObject, Statement, TableEntry};
use crate::source::duckdb::schema::sql;

/// Separates names in lists that are read as text.
pub(crate) const SEPARATOR: char = '\u{1f}';

/// A schema.
#[derive(Debug)]
pub(crate) struct DatabaseSchema {
    pub(crate) statements: Vec<Statement>,
    /// The tables, without content.
    pub(crate) tables: Vec<TableEntry>,
    /// What cannot be made again, in words.
    pub(crate) lost: Vec<String>,
    /// The tables that are left out.
    pub(crate) left_out: Vec<String>,
    /// The statements of these tables, and of what belongs to them.
    pub(crate) without: Vec<Statement>,
    /// What else is left out because it needs one of these, in words.
    pub(crate) depending: Vec<String>,
}

/// The `index`th value of a row; empty where there is none.
pub(crate) fn field(row: &TextRow, index: usize) -> &str {
    row.get(index).and_then(Option::as_deref).unwrap_or_default()
}

/// The same for keeping.
pub(crate) fn text(row: &TextRow, index: usize) -> String {
    field(row, index).to_owned()
}

/// The `index`th value of a row as a number; nothing where there is none.
pub(crate) fn number<T: FromStr>(row: &TextRow, index: usize) -> Option<T> {
    field(row, index).parse().ok()
}

pub(crate) fn list(row: &TextRow, index: usize) -> Vec<String> {
    let text = text(row, index);
    text.split(SEPARATOR).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

pub(crate) fn quoted(schema: &str, name: &str) -> String {
    format!("{}.{}", sql::name(schema), sql::name(name))
}

impl DatabaseSchema {
    pub(crate) fn add(&mut self, makes: SqlObject, name: String, sql: String) {
        self.add_for(makes, name, sql, None);
    }

    pub(crate) fn add_for(
        &mut self,
        makes: SqlObject,
        name: String,
        sql: String,
        table: Option<String>,
    ) {
        self.statements.push(Statement { makes, name, sql, table, tried: None, carried: false });
    }
}
