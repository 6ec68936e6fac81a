//! Reads an export without restoring it: every dump is complete, and has the rows that were counted.

use super::custom_format::Contents;
use super::index::{Database, GLOBALS, Index, Table, export};
use super::selection::plain;
use crate::ctx::Ctx;
use crate::error::{Fault, Kind};
use crate::source::{Chain, DecodeTools};

/// Decodes an export.
///
/// # Errors
/// [`Kind::Integrity`] if a dump in it is not what was recorded.
pub(in crate::source::postgres) fn decode(
    chain: &Chain<'_>,
    _tools: &DecodeTools<'_>,
    ctx: &Ctx,
) -> anyhow::Result<()> {
    let link = export(chain)?;
    let index = Index::of(link, ctx)?;
    link.named(GLOBALS, ctx, &mut |input| {
        let mut chunk = vec![0; 64 << 10];
        while input.read(&mut chunk)? > 0 {}
        Ok(())
    })?;
    for database in &index.databases {
        ctx.cancel.check()?;
        link.named(&database.object, ctx, &mut |input| {
            check(
                &Contents::read(input).map_err(|flaw| broken(database, &flaw.to_string()))?,
                database,
            )
        })?;
    }
    Ok(())
}

/// Makes sure that a dump has what was recorded of it.
///
/// # Errors
/// [`Kind::Integrity`] if not.
pub(super) fn check(contents: &Contents, database: &Database) -> anyhow::Result<()> {
    let found = contents.tables().map(|(schema, name, rows)| Table {
        schema: schema.to_owned(),
        name: name.to_owned(),
        rows,
    });
    let is_same = found.eq(database.tables.iter().cloned())
        && contents.large_objects == database.large_objects;
    if is_same { Ok(()) } else { Err(broken(database, "it has other rows than were counted")) }
}

fn broken(database: &Database, what: &str) -> anyhow::Error {
    let message = format!("the dump of database {} is not complete: {what}", plain(&database.name));
    Fault::new(Kind::Integrity, message).into()
}
