//! Which tables are exported.

use crate::error::{Fault, Kind};
use crate::source::duckdb::export::index::TableEntry;
use crate::source::duckdb::schema::sql;

/// Patterns of tables; see [`sql::qualified`].
#[derive(Debug, Clone, Default)]
pub(crate) struct TableFilter {
    /// Patterns of which one must fit; everything if there is none.
    tables: Vec<String>,
    /// Patterns of which none may fit.
    exclude: Vec<String>,
}

impl TableFilter {
    pub(crate) fn new(tables: &[String], exclude: &[String]) -> TableFilter {
        let qualified = |patterns: &[String]| patterns.iter().map(|p| sql::qualified(p)).collect();
        TableFilter { tables: qualified(tables), exclude: qualified(exclude) }
    }

    pub(crate) fn has(&self, table: &TableEntry) -> bool {
        let name = table.plain();
        let fits = |pattern: &String| sql::fits(pattern, &name);
        (self.tables.is_empty() || self.tables.iter().any(fits)) && !self.exclude.iter().any(fits)
    }

    /// The patterns of `exclude` that fit none of the tables that are left out.
    pub(crate) fn unused_patterns<'a>(
        &'a self,
        left_out: &'a [String],
    ) -> impl Iterator<Item = &'a str> {
        let fits_none = |pattern: &&String| !left_out.iter().any(|name| sql::fits(pattern, name));
        self.exclude.iter().filter(fits_none).map(String::as_str)
    }

    /// What was asked for and is not among the tables that were found, in words.
    ///
    /// # Errors
    /// [`Kind::Config`] if nothing of a database with tables would be exported.
    pub(crate) fn missing(
        &self,
        found: &[TableEntry],
        left_out: usize,
    ) -> Result<Vec<String>, Fault> {
        if found.is_empty() && left_out > 0 {
            let message = format!("none of the {left_out} tables of the database is selected");
            let hint = "correct `tables` and `exclude` in the source's table: they are patterns of SCHEMA.TABLE";
            return Err(Fault::new(Kind::Config, message).hint(hint));
        }
        let is_there =
            |pattern: &&String| found.iter().any(|table| sql::fits(pattern, &table.plain()));
        let missing = self.tables.iter().filter(|pattern| !is_there(pattern));
        Ok(missing.map(|pattern| format!("a table matching `{pattern}` in `tables`")).collect())
    }
}
