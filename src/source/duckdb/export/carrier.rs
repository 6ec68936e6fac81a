//! Views, macros and types that their statements do not make again just as they are: those over files, which
//! are not opened, over tables that are gone, and those that DuckDB tells otherwise than it has them. They
//! travel in a small database with nothing else in it, from which they are copied as they are: nothing is
//! parsed, bound or opened.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::ctx::Ctx;
use crate::pipeline::BackupReader;
use crate::source::duckdb::engine::{CATALOG, DatabaseTarget, Session, SessionOptions};
use crate::source::duckdb::export::index::{Index, SqlObject, Statement};
use crate::source::duckdb::schema::sql;
use crate::source::duckdb::schema::{quoted, text};

/// The member of an export's archive.
pub(crate) const MEMBER: &str = "carrier.duckdb";

/// What it is called beside the database.
pub(crate) const NAME: &str = "bkp_6f3a90c1_carrier";

/// A view, a macro or a type: what it is, and its name in quotes.
pub(crate) type Entry = (SqlObject, String);

pub(crate) fn entry(statement: &Statement) -> Entry {
    (statement.makes, statement.name.clone())
}

/// Puts what of `index` could not be made again from its statement into a carrier in the folder of
/// `options`, and marks that. `file` is a copy of the database, of which not much is left then.
///
/// # Errors
/// What the system says. What the engine refuses stays unmarked.
pub(crate) fn make(
    index: &mut Index,
    file: &Path,
    options: &SessionOptions<'_>,
    ctx: &Ctx,
) -> anyhow::Result<Option<PathBuf>> {
    let is_meant = |statement: &&Statement| {
        matches!(statement.makes, SqlObject::View | SqlObject::Macro | SqlObject::Type)
            && statement.tried.is_some()
    };
    let wanted: BTreeSet<Entry> = index.statements.iter().filter(is_meant).map(entry).collect();
    if wanted.is_empty() {
        return Ok(None);
    }
    let path = file.with_file_name(MEMBER);
    let storage_version = Some(index.storage_version.as_str());
    let beside: &[(&str, &Path)] = &[(NAME, &path)];
    let place = DatabaseTarget {
        file: Some(file),
        write: true,
        storage_version,
        beside,
        ..DatabaseTarget::default()
    };
    let packed = Session::opened(place, options).and_then(|session| {
        session.leave_user_schema()?;
        keep_only(&session, CATALOG, &wanted)?;
        session.run(&format!("COPY FROM DATABASE {CATALOG} TO {NAME} (SCHEMA)"))?;
        let packed = entries(&session, NAME)?;
        session.run(&format!("CHECKPOINT {NAME}"))?;
        Ok(packed)
    });
    ctx.cancel.check()?;
    let packed = match packed {
        Ok(packed) => packed,
        Err(error) => {
            ctx.monitor
                .detail(&format!("views and macros are exported as statements only: {error:#}"));
            return Ok(None);
        }
    };
    let is_packed = |name: &str| packed.iter().any(|(_, packed)| packed == name);
    for statement in &mut index.statements {
        statement.carried |= match statement.makes {
            SqlObject::View | SqlObject::Macro | SqlObject::Type => {
                let entry = entry(statement);
                wanted.contains(&entry) && packed.contains(&entry)
            }
            // It came with what it is on.
            SqlObject::Comment if statement.tried.is_some() => {
                let on = statement.table.as_deref().unwrap_or(&statement.name);
                is_packed(on)
            }
            SqlObject::Schema
            | SqlObject::Sequence
            | SqlObject::Table
            | SqlObject::Index
            | SqlObject::Comment => false,
        };
    }
    Ok(Some(path))
}

/// Puts a database file that travels with an export, if it has one of this name, into a folder.
///
/// # Errors
/// What chain and system say.
pub(crate) fn unpack(
    reader: &BackupReader<'_>,
    member: &str,
    folder: &Path,
    ctx: &Ctx,
) -> anyhow::Result<Option<PathBuf>> {
    let path = folder.join(member);
    reader.entries(ctx, &mut |name, _size, body| {
        if name == member {
            let mut file = std::fs::File::create_new(&path)?;
            std::io::copy(body, &mut file)?;
        }
        Ok(())
    })?;
    Ok(path.is_file().then_some(path))
}

/// Copies what the carrier has of these statements into the database, which has nothing yet, with what they
/// depend on. Returns what came.
///
/// # Errors
/// What the engine says.
pub(crate) fn take(
    session: &Session,
    statements: &BTreeSet<Entry>,
) -> anyhow::Result<BTreeSet<Entry>> {
    session.leave_user_schema()?;
    keep_only(session, NAME, statements)?;
    session.run(&format!("COPY FROM DATABASE {NAME} TO {CATALOG} (SCHEMA)"))?;
    session.run(&format!("DETACH {NAME}"))?;
    let there = entries(session, CATALOG)?;
    session.enter_user_schema()?;
    Ok(there)
}

/// Views, macros and types of a database.
fn entries(session: &Session, database: &str) -> anyhow::Result<BTreeSet<Entry>> {
    let rows = session.rows(&listing(database))?;
    let makes = |word: &str| match word {
        "VIEW" => Some(SqlObject::View),
        "MACRO" | "MACRO TABLE" => Some(SqlObject::Macro),
        "TYPE" => Some(SqlObject::Type),
        _ => None,
    };
    let entry = |row: &Vec<Option<String>>| {
        Some((makes(&text(row, 0))?, quoted(&text(row, 1), &text(row, 2))))
    };
    Ok(rows.iter().filter_map(entry).collect())
}

/// Everything in a database, by the word that drops it.
fn listing(database: &str) -> String {
    let of = format!("database_name = {}", sql::text(database));
    [
        format!("SELECT 'INDEX', schema_name, index_name FROM duckdb_indexes() WHERE {of}"),
        format!("SELECT 'VIEW', schema_name, view_name FROM duckdb_views() WHERE NOT internal AND {of}"),
        format!("SELECT 'TABLE', schema_name, table_name FROM duckdb_tables() WHERE NOT internal AND {of}"),
        format!("SELECT DISTINCT CASE function_type WHEN 'macro' THEN 'MACRO' ELSE 'MACRO TABLE' END, schema_name, function_name FROM duckdb_functions() WHERE NOT internal AND function_type IN ('macro', 'table_macro') AND {of}"),
        format!("SELECT 'SEQUENCE', schema_name, sequence_name FROM duckdb_sequences() WHERE {of}"),
        format!("SELECT 'TYPE', schema_name, type_name FROM duckdb_types() WHERE NOT internal AND {of}"),
    ]
    .join(" UNION ALL ")
}

/// Drops everything else of a database.
fn keep_only(session: &Session, database: &str, kept: &BTreeSet<Entry>) -> anyhow::Result<()> {
    let rows = session.rows(&listing(database))?;
    let mut left: Vec<(String, String)> = rows
        .iter()
        .map(|row| (text(row, 0), quoted(&text(row, 1), &text(row, 2))))
        .filter(|(word, name)| match word.as_str() {
            "VIEW" => !kept.contains(&(SqlObject::View, name.clone())),
            "MACRO" | "MACRO TABLE" => !kept.contains(&(SqlObject::Macro, name.clone())),
            "TYPE" => !kept.contains(&(SqlObject::Type, name.clone())),
            _ => true,
        })
        .collect();
    // What another one needs goes after that.
    loop {
        let before = left.len();
        left.retain(|(word, name)| {
            session.attempt(&format!("DROP {word} IF EXISTS {database}.{name}")).is_err()
        });
        if left.is_empty() || left.len() == before {
            return Ok(());
        }
    }
}
