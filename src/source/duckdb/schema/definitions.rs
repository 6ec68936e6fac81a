//! Statements taken from the catalog, with small corrections: schemas, types, sequences, views, indexes
//! and macros.

use crate::source::duckdb::engine::{CATALOG, MACROS, Session, TextRow};
use crate::source::duckdb::export::index::SqlObject;
use crate::source::duckdb::schema::database_schema::{
    DatabaseSchema, SEPARATOR, list, quoted, text,
};
use crate::source::duckdb::schema::sql;

/// What a type is made of in the end.
fn meaning(session: &Session, row: &TextRow, name: &str) -> anyhow::Result<String> {
    if row.get(3).cloned().flatten().is_some() {
        let oid = text(row, 2);
        let labels = format!(
            "SELECT unnest(labels) FROM duckdb_types() WHERE database_name = '{CATALOG}' AND type_oid = {oid}"
        );
        let labels = session.rows(&labels)?;
        let labels: Vec<String> = labels.iter().map(|row| sql::text(&text(row, 0))).collect();
        return Ok(format!("ENUM ({})", labels.join(", ")));
    }
    type_text(session, name)
}

/// How the engine tells a type of the database.
fn type_text(session: &Session, name: &str) -> anyhow::Result<String> {
    let found = session.rows(&format!("SELECT typeof(CAST(NULL AS {CATALOG}.{name}))"))?;
    Ok(found.first().map(|row| text(row, 0)).unwrap_or_default())
}

/// The parameters of each body of a macro, with types and defaults, in parentheses: DuckDB tells them of a
/// call that fits none. Nothing if what it tells is not understood.
fn signatures(
    session: &Session,
    row: &TextRow,
    parameters: &[Vec<String>],
) -> anyhow::Result<Option<Vec<String>>> {
    let name = format!("{CATALOG}.{}", quoted(&text(row, 0), &text(row, 1)));
    let most = parameters.iter().map(Vec::len).max().unwrap_or_default();
    let arguments = vec!["NULL"; most + 1].join(", ");
    let call = if text(row, 2) == "table_macro" { "FROM" } else { "SELECT" };
    let told = session.refusal(&format!("{call} {name}({arguments})"))?;
    Ok(told.and_then(|told| sql::signatures(&told, &text(row, 1), parameters)))
}

/// A definition as the engine tells it, with its names, and those of its table, in our quotes.
pub(crate) fn renamed(
    makes: SqlObject,
    told: &str,
    name: &str,
    table: Option<&str>,
) -> Option<String> {
    let begin = makes.begins().iter().find(|begin| told.starts_with(**begin))?;
    let rest = sql::after_name(told.strip_prefix(begin)?);
    if makes == SqlObject::Sequence {
        // It has the bare name there, in no schema and in no quotes.
        let (_, rest) = told.rsplit_once(" INCREMENT BY ")?;
        return Some(format!("{begin}{name} INCREMENT BY {rest}"));
    }
    let Some(table) = table else { return Some(format!("{begin}{name}{rest}")) };
    let rest = sql::after_name(rest.strip_prefix(" ON ")?);
    let own = sql::identifiers(name).pop().unwrap_or_default();
    Some(format!("{begin}{} ON {table}{rest}", sql::name(&own)))
}

impl DatabaseSchema {
    /// What the catalog has a statement for, or nearly.
    pub(crate) fn simple(&mut self, session: &Session) -> anyhow::Result<()> {
        let schemas_query = format!(
            "SELECT schema_name FROM duckdb_schemas() WHERE NOT internal AND database_name = '{CATALOG}' AND schema_name <> 'main' ORDER BY oid"
        );
        let types_query = format!(
            "SELECT schema_name, type_name, type_oid, len(labels) FROM duckdb_types() WHERE NOT internal AND database_name = '{CATALOG}' ORDER BY labels IS NULL, type_oid"
        );
        for row in session.rows(&schemas_query)? {
            let name = sql::name(&text(&row, 0));
            self.add(
                SqlObject::Schema,
                name.clone(),
                format!("CREATE SCHEMA IF NOT EXISTS {name};"),
            );
        }
        // How a type is told that has labels, and its name.
        let mut labelled: Vec<(String, String)> = Vec::new();
        for row in session.rows(&types_query)? {
            let name = quoted(&text(&row, 0), &text(&row, 1));
            let mut meaning = meaning(session, &row, &name)?;
            if row.get(3).cloned().flatten().is_some() {
                labelled.push((type_text(session, &name)?, name.clone()));
            } else if let Some((rest, of)) = labelled
                .iter()
                .find_map(|(told, of)| Some((meaning.strip_prefix(told.as_str())?, of)))
                .filter(|(rest, _)| rest.starts_with('['))
            {
                // A list of labels is one only by the name of its type.
                meaning = format!("{of}{rest}");
            }
            self.add(SqlObject::Type, name.clone(), format!("CREATE TYPE {name} AS {meaning};"));
        }
        for (makes, query) in [
            (
                SqlObject::Sequence,
                format!(
                    "SELECT schema_name, sequence_name, sql, NULL FROM duckdb_sequences() WHERE NOT temporary AND database_name = '{CATALOG}' ORDER BY sequence_oid"
                ),
            ),
            (
                SqlObject::View,
                format!(
                    "SELECT schema_name, view_name, sql, NULL FROM duckdb_views() WHERE NOT internal AND NOT temporary AND database_name = '{CATALOG}' ORDER BY view_oid"
                ),
            ),
            (
                SqlObject::Index,
                format!(
                    "SELECT schema_name, index_name, sql, table_name FROM duckdb_indexes() WHERE database_name = '{CATALOG}' AND sql IS NOT NULL ORDER BY index_oid"
                ),
            ),
        ] {
            for row in session.rows(&query)? {
                let table = row.get(3).cloned().flatten();
                let table = table.map(|table| quoted(&text(&row, 0), &table));
                let name = quoted(&text(&row, 0), &text(&row, 1));
                if makes == SqlObject::Sequence && self.exhausted(session, &row)? {
                    continue;
                }
                let told = text(&row, 2);
                let Some(sql) = renamed(makes, &told, &name, table.as_deref()) else {
                    let word = makes.word();
                    self.lost
                        .push(format!("the {word} {name}: DuckDB reports no definition for it"));
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
            "SELECT increment_by, min_value, max_value, CASE WHEN increment_by > 0 THEN max_value ELSE min_value END FROM duckdb_sequences() WHERE database_name = '{CATALOG}' AND schema_name = {} AND sequence_name = {} AND NOT cycle AND start_value NOT BETWEEN min_value AND max_value",
            sql::text(&schema),
            sql::text(&sequence)
        );
        let found = session.rows(&query)?;
        let Some(row) = found.first() else { return Ok(false) };
        let name = quoted(&schema, &sequence);
        let (step, least, most, end) = (text(row, 0), text(row, 1), text(row, 2), text(row, 3));
        self.add(
            SqlObject::Sequence,
            name.clone(),
            format!(
                "CREATE SEQUENCE {name} INCREMENT BY {step} MINVALUE {least} MAXVALUE {most} START {end} NO CYCLE;"
            ),
        );
        self.add(SqlObject::Sequence, name.clone(), sql::next_value(&name));
        Ok(true)
    }

    /// Macros: their parameters with types and defaults are told where a call fits none of them.
    pub(crate) fn macros(&mut self, session: &Session) -> anyhow::Result<()> {
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
            self.add(SqlObject::Macro, name.clone(), format!("CREATE MACRO {name}{bodies};"));
        }
        Ok(())
    }
}
