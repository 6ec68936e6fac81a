//! Which tables are restored, and their recreation: by their statements, or else from their columns.

use std::collections::BTreeSet;

use crate::error::{Fault, Kind};
use crate::source::duckdb::engine::Session;
use crate::source::duckdb::export::carrier;
use crate::source::duckdb::export::index::{Index, SqlObject, Statement, TableEntry};
use crate::source::duckdb::restore::table_loader;
use crate::source::duckdb::schema::schema_check;

/// The tables to bring back, each after those that it refers to.
pub(crate) fn chosen(index: &Index, only: Option<&str>) -> anyhow::Result<Vec<TableEntry>> {
    let mut wanted: BTreeSet<String> = match only {
        None => index.tables.iter().map(TableEntry::quoted).collect(),
        Some(name) => {
            let is_it = |table: &&TableEntry| {
                table.plain() == name || table.schema == "main" && table.name == name
            };
            let found = index.tables.iter().find(is_it).ok_or_else(|| {
                let message = format!("the export has no table `{name}`");
                Fault::new(Kind::NotFound, message).hint(
                    "use SCHEMA.TABLE; `bkp list --long --json` lists the tables of an export",
                )
            })?;
            [found.quoted()].into()
        }
    };
    loop {
        let needed: BTreeSet<String> = index
            .tables
            .iter()
            .filter(|table| wanted.contains(&table.quoted()))
            .flat_map(|table| table.parents.iter().cloned())
            .filter(|parent| !wanted.contains(parent))
            .collect();
        if needed.is_empty() {
            break;
        }
        wanted.extend(needed);
    }
    let mut left: Vec<&TableEntry> =
        index.tables.iter().filter(|table| wanted.contains(&table.quoted())).collect();
    let mut ordered: Vec<TableEntry> = Vec::new();
    while !left.is_empty() {
        let names: BTreeSet<String> = left.iter().map(|table| table.quoted()).collect();
        let (ready, rest): (Vec<_>, Vec<_>) =
            left.iter().partition(|table| !table.parents.iter().any(|p| names.contains(p)));
        if ready.is_empty() {
            return Err(table_loader::circular_references().into());
        }
        ordered.extend(ready.into_iter().cloned());
        left = rest;
    }
    Ok(ordered)
}

/// What the carrier has; views are not needed where not everything is wanted.
pub(crate) fn carried(newest: &Index, all: bool) -> BTreeSet<carrier::Entry> {
    let is_carried = |statement: &&Statement| {
        statement.carried
            && (matches!(statement.makes, SqlObject::Macro | SqlObject::Type)
                || all && statement.makes == SqlObject::View)
    };
    newest.statements.iter().filter(is_carried).map(carrier::entry).collect()
}

/// Whether the carrier brought what this statement makes: comments come with what they are on.
pub(crate) fn is_copied(statement: &Statement, copied: &BTreeSet<carrier::Entry>) -> bool {
    if statement.makes != SqlObject::Comment {
        return copied.contains(&carrier::entry(statement));
    }
    let on = statement.table.as_ref().unwrap_or(&statement.name);
    statement.carried && copied.iter().any(|(_, name)| name == on)
}

/// What could not be made, and why.
pub(crate) fn in_words((statement, why): &(&Statement, String)) -> String {
    let (word, name) = (statement.makes.word(), &statement.name);
    format!("the {word} {name}: {}", schema_check::first_line(why))
}

/// Whether a statement comments one of these tables or a column of one. It is run before the table's file is
/// closed: DuckDB 1.5 cannot open a file again in which a table that another one refers to, and whose definition
/// calls a macro, got its comment later.
pub(super) fn is_with_table(statement: &Statement, tables: &BTreeSet<String>) -> bool {
    let on = ["COMMENT ON TABLE ", "COMMENT ON COLUMN "];
    statement.makes == SqlObject::Comment
        && statement.table.as_ref().is_some_and(|table| tables.contains(table))
        && on.iter().any(|on| statement.sql.starts_with(on))
}

/// Makes what tables need, and the tables, in their order. One whose statement fails is made of its
/// columns; one for which that fails too is left out. Returns those that are there.
pub(crate) fn make_tables(
    session: &Session,
    newest: &Index,
    tables: Vec<TableEntry>,
    all: bool,
    lost: &mut Vec<String>,
) -> Vec<TableEntry> {
    let names: BTreeSet<String> = tables.iter().map(TableEntry::quoted).collect();
    let is_wanted = |statement: &&Statement| {
        statement.makes <= SqlObject::Macro
            || statement.makes == SqlObject::Table && names.contains(&statement.name)
            || is_with_table(statement, &names)
    };
    let mut left: Vec<&Statement> = newest.statements.iter().filter(is_wanted).collect();
    loop {
        let failed = schema_check::run(session, left.iter().copied());
        let first = failed.iter().find(|(statement, _)| statement.makes == SqlObject::Table);
        let Some((statement, why)) = first else {
            // What no table needs is missed only where everything is wanted.
            lost.extend(failed.iter().filter(|_| all).map(in_words));
            break;
        };
        // Others may refer to it: they are tried again when it is there.
        let table = tables.iter().find(|table| table.quoted() == statement.name);
        let make = |table: &TableEntry| {
            session
                .attempt(&table_loader::columns_only_sql(table))
                .or_else(|_| session.attempt(&table_loader::as_travelled_sql(table)))
        };
        let name = &statement.name;
        let why = schema_check::first_line(why);
        match table.map(make) {
            Some(Ok(())) if statement.carried => {}
            Some(Ok(())) => {
                lost.push(format!("the definition of table {name} beyond its columns: {why}"));
            }
            Some(Err(_)) | None => lost.push(format!("the table {name}: {why}")),
        }
        let done: &Statement = statement;
        left = failed.iter().map(|(one, _)| *one).filter(|one| *one != done).collect();
    }
    let mut there = tables;
    there.retain(|table| is_made(session, table, lost));
    there
}

/// Whether a table is there. One that came with rows was not made by a statement that only makes it, and is
/// made of its columns.
fn is_made(session: &Session, table: &TableEntry, lost: &mut Vec<String>) -> bool {
    let here = table.here();
    match session.rows(&format!("SELECT 1 FROM {here} LIMIT 1")) {
        Ok(rows) if rows.is_empty() => return true,
        Ok(_) => {}
        Err(_) => return false,
    }
    let what = format!("the definition of table {} beyond its columns", table.quoted());
    lost.push(format!("{what}: its statement brought rows"));
    let dropped = session.attempt(&format!("DROP TABLE {here} CASCADE"));
    dropped.and_then(|()| session.attempt(&table_loader::columns_only_sql(table))).is_ok()
}
