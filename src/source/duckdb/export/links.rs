//! The links of a chain of exports, oldest first: which of them hold a table, and their files in a folder of ours.

use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::ctx::Ctx;
use crate::domain::text::plain;
use crate::error::{Fault, Kind};
use crate::pipeline::BackupReader;
use crate::source::Chain;
use crate::source::duckdb::engine::Session;
use crate::source::duckdb::export::delta;
use crate::source::duckdb::export::delta::ExportedRows;
use crate::source::duckdb::export::index::{Index, TableEntry};
use crate::source::duckdb::export::row_groups;

/// A chain that does not have what it says it has.
pub(crate) fn broken(what: &str) -> anyhow::Error {
    Fault::new(Kind::Integrity, format!("the export is incomplete: {}", plain(what))).into()
}

pub(crate) fn indexes(chain: &Chain<'_>, ctx: &Ctx) -> anyhow::Result<Vec<Index>> {
    chain.iter().map(|reader| reader.map(ctx, &mut |input| Index::read(input))).collect()
}

/// The links of the chain that hold a table, oldest first: from its last full export on.
pub(crate) fn of<'i>(
    indexes: &'i [Index],
    table: &TableEntry,
) -> anyhow::Result<Vec<(usize, &'i TableEntry)>> {
    let mut links = Vec::new();
    for (order, index) in indexes.iter().enumerate().rev() {
        let entry = index.table(&table.schema, &table.name);
        let entry = entry.filter(|entry| entry.is_alike(table));
        let missing = || broken(&format!("table {} is incomplete in it", table.quoted()));
        let entry = entry.ok_or_else(missing)?;
        if entry.data.is_some() {
            links.push((order, entry));
        }
        if entry.full {
            links.reverse();
            return Ok(links);
        }
    }
    Err(broken(&format!("table {} was never complete in it", table.quoted())))
}

/// What a table was at the end of a chain: files in a folder of ours.
pub(crate) struct LinkedTable {
    /// The rows of its last full export.
    pub(crate) base: PathBuf,
    /// Keys and hashes of what changed since, oldest first.
    later: Vec<PathBuf>,
}

impl LinkedTable {
    /// As the engine reads it; of the base the rows in these places only, if some are named.
    pub(crate) fn state(
        &self,
        session: &Session,
        table: &TableEntry,
        places: Option<&[Range<u64>]>,
    ) -> ExportedRows {
        ExportedRows {
            base: delta::rows_again(table, &session.path(&self.base), places),
            later: self.later.iter().map(|path| session.path(path)).collect(),
        }
    }
}

/// The files of `links`, as [`of`] returns them.
pub(crate) fn files(
    chain: &Chain<'_>,
    links: &[(usize, &TableEntry)],
    folder: &Path,
    ctx: &Ctx,
) -> anyhow::Result<LinkedTable> {
    let Some((first, full)) = links.first() else { return Err(broken("a link is missing")) };
    let base = rows(chain, *first, full, folder, ctx)?;
    Ok(LinkedTable { base, later: later(chain, links, folder, ctx)? })
}

/// The same with as much of the base as has the rows in these places; nothing if that is not worth it, or not
/// possible.
pub(crate) fn files_of_some(
    (chain, links): (&Chain<'_>, &[(usize, &TableEntry)]),
    places: &[Range<u64>],
    session: &Session,
    folder: &Path,
    ctx: &Ctx,
) -> anyhow::Result<Option<LinkedTable>> {
    let Some((first, full)) = links.first() else { return Err(broken("a link is missing")) };
    let name = full.data.as_deref().unwrap_or_default();
    let Some(parts) = link(chain, *first)?.parts(name, ctx)? else { return Ok(None) };
    let path = folder.join(format!("part-{first}-{name}"));
    if !row_groups::fetch(&parts, places, session, &path)? {
        return Ok(None);
    }
    Ok(Some(LinkedTable { base: path, later: later(chain, links, folder, ctx)? }))
}

/// The files with keys and hashes of what changed since the first link.
fn later(
    chain: &Chain<'_>,
    links: &[(usize, &TableEntry)],
    folder: &Path,
    ctx: &Ctx,
) -> anyhow::Result<Vec<PathBuf>> {
    let later = links.iter().skip(1);
    let members = later.filter_map(|(order, entry)| Some((order, entry.rows_member.as_deref()?)));
    members.map(|(order, member)| changes(chain, *order, member, folder, ctx)).collect()
}

/// The rows of a link as a file in a folder of ours: Parquet is read from its end. Its digest is compared before
/// anything is made of it.
pub(crate) fn rows(
    chain: &Chain<'_>,
    order: usize,
    entry: &TableEntry,
    folder: &Path,
    ctx: &Ctx,
) -> anyhow::Result<PathBuf> {
    let name = entry.data.as_deref().unwrap_or_default();
    // A name of its own for every file: DuckDB keeps what it has read of one, and tells two
    // files under one name apart by size and time only.
    let path = folder.join(format!("fetched-{order}-{name}"));
    link(chain, order)?.named(name, ctx, &mut |body| {
        let written = std::fs::File::create(&path)
            .and_then(|mut file| std::io::copy(body, &mut file).map(|_bytes| ()));
        let is_full = |error: &std::io::Error| {
            matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
        };
        written.map_err(|error| {
            if !is_full(&error) {
                // Also what the chain fails with comes this way.
                return error.into();
            }
            let message = format!("cannot write {}: {error}", path.display());
            let hint = "free space there, or choose another path (--to, --scratch, `state_dir`)";
            Fault::new(Kind::Failed, message).hint(hint).into()
        })
    })?;
    Ok(path)
}

/// The keys and hashes of what changed in a link, as a file in a folder of ours.
pub(crate) fn changes(
    chain: &Chain<'_>,
    order: usize,
    member: &str,
    folder: &Path,
    ctx: &Ctx,
) -> anyhow::Result<PathBuf> {
    let folder = folder.join(format!("chain-{order}"));
    // Those of every table are taken out at once.
    if !folder.is_dir() {
        unpack(link(chain, order)?, &folder, ctx)?;
    }
    Ok(folder.join(member))
}

fn link<'c, 'r>(chain: &'c Chain<'r>, order: usize) -> anyhow::Result<&'c BackupReader<'r>> {
    chain.get(order).ok_or_else(|| broken("a link is missing"))
}

/// Puts the files with keys and hashes of an export into a folder.
fn unpack(reader: &BackupReader<'_>, folder: &Path, ctx: &Ctx) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder.join("rows"))?;
    reader.entries(ctx, &mut |name, _size, body| {
        // Names of members never lead out of a folder; only those that an export writes are wanted.
        if name.starts_with("rows/") && name.matches('/').count() == 1 {
            let mut file = std::fs::File::create_new(folder.join(name))?;
            std::io::copy(body, &mut file)?;
        }
        Ok(())
    })
}
