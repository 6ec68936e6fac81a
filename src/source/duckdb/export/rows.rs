//! Which rows of a table an export holds: all of them, or those that changed since the chain before, told
//! by keys and hashes.

use std::cell::Cell;
use std::path::{Path, PathBuf};

use super::super::engine::{CATALOGUE, plain};
use super::super::groups::{Groups, Region, are_same};
use super::super::index::{Content, Index, TableEntry};
use super::super::protocol::{Compare, Tally};
use super::super::{delta, shape, sql};
use super::{Exporting, content_from};
use crate::ctx::Ctx;
use crate::source::Chain;

/// One row may wait for another one, be found, or have changed earlier, for so many bytes of what the
/// engine may take: several times what it takes itself, beside what the engine does.
const WAITING_BYTES: u64 = 512;

/// The table of the session with what changed in one of the exported.
const CHANGES: &str = "temp.main.bkp_changes";

/// The chain that an increment adds to: its indexes, base first, and where its keys and hashes are.
pub(super) struct Before<'a> {
    chain: &'a Chain<'a>,
    indexes: Vec<Index>,
    folders: Vec<PathBuf>,
    /// Whether keys and hashes are in their folders: nobody needs them where nothing changed.
    unpacked: Cell<bool>,
    /// What the linked engine makes of [`super::super::hashed::PROBE`].
    probe: String,
    /// The keys of its hashes.
    pub(super) row_keys: String,
}

impl Before<'_> {
    /// The table as it was, if its rows have the same form.
    pub(super) fn last(&self, table: &TableEntry) -> Option<&TableEntry> {
        let index = self.indexes.last().filter(|index| index.probe == self.probe)?;
        index
            .table(&table.schema, &table.name)
            .filter(|last| last.is_alike(table) && last.native.is_none())
    }
}

/// The keys and hashes of a table, from its last full export on.
struct State {
    files: Vec<String>,
    /// Rows of the full export.
    base_rows: u64,
}

impl Exporting<'_> {
    /// What the chain has, if it was made by an engine that hashes as this one.
    pub(super) fn before<'c>(
        &self,
        chain: &'c Chain<'c>,
        probe: &str,
    ) -> anyhow::Result<Option<Before<'c>>> {
        let (mut indexes, mut folders) = (Vec::new(), Vec::new());
        for (order, reader) in chain.iter().enumerate() {
            indexes.push(reader.map(self.ctx, &mut |input| Index::read(input))?);
            folders.push(self.scratch.join(format!("chain-{order}")));
        }
        let Some(last) = indexes.last() else { return Ok(None) };
        let Some(row_keys) = last.row_keys.clone().filter(|_| last.probe == probe) else {
            self.ctx.monitor.warn("the last export was made by a bkp or a DuckDB that hashes rows in another way: every table is exported in full");
            return Ok(None);
        };
        let (unpacked, probe) = (Cell::new(false), probe.to_owned());
        Ok(Some(Before { chain, indexes, folders, unpacked, probe, row_keys }))
    }

    /// Finds out what changed in a table since the last export; returns the query for the rows that are new
    /// or changed, or for all of them if that cannot be told. Nothing if the table is as it was.
    pub(super) fn since(
        &self,
        table: &mut TableEntry,
        before: &Before<'_>,
        last: &TableEntry,
        path: &Path,
    ) -> anyhow::Result<Option<String>> {
        let groups = self.groups(table);
        table.groups = groups.recorded_after(&last.groups);
        if are_same(&last.groups, &table.groups) {
            table.content = last.content.clone();
            return Ok(None);
        }
        let state = self.state(before, table)?.filter(|_| delta::is_divisible(table));
        let region = state.as_ref().and_then(|state| groups.region(&table.groups, state.base_rows));
        if let Some(region) = &region {
            let (alike, all) = (region.alike, last.content.rows);
            let name = plain(&table.plain());
            self.ctx.monitor.detail(&format!("{name}: {alike} of {all} rows are in blocks that have not changed, and are not read"));
        }
        if let Some(state) = &state
            && let Some([rows, gone]) =
                self.differences(table, last, &state.files, region.as_ref())?
        {
            if table.content == last.content {
                return Ok(None);
            }
            table.full = false;
            let (files, from) = (&state.files, table.here());
            if let Some(query) = delta::changes_found(table, files, &from, region.as_ref()) {
                self.note(&query)?;
                if self.noted()? == Some([rows, gone]) {
                    self.session.save(&delta::bent_changes(table, CHANGES), path)?;
                    return Ok(Some(delta::upserts_found(table, &from)));
                }
                self.say_joined(table, "not every row that was found came back");
            }
        }
        table.content = super::content(&self.session, table, &table.here())?;
        if table.content == last.content {
            return Ok(None);
        }
        let Some(State { files, .. }) = state else { return self.all(table, path).map(Some) };
        let from = table.here();
        table.full = false;
        self.note(&delta::changes(table, &delta::state_of(table, &files), &from))?;
        self.session.save(&delta::bent_changes(table, CHANGES), path)?;
        Ok(Some(delta::upserts(table, CHANGES, &from)))
    }

    /// The groups of rows of a table of the private copy.
    fn groups(&self, table: &TableEntry) -> Groups {
        let file = self.scratch.join(format!("{CATALOGUE}.duckdb"));
        Groups::read(&self.session, table, &self.blocks, &file)
    }

    /// Writes keys and hashes of all rows; returns the query for the rows. They are hashed once: what
    /// stands for the table is made of the hashes.
    pub(super) fn all(&self, table: &mut TableEntry, path: &Path) -> anyhow::Result<String> {
        let from = table.here();
        table.groups = self.groups(table).recorded();
        self.session.save(&delta::state(table, &from), path)?;
        let state = format!("read_parquet({})", sql::text(&self.session.path(path)));
        table.content = content_from(&self.session, &delta::content_of_state(table, &state))?;
        table.full = true;
        Ok(delta::rows(table, &from))
    }

    /// Puts the changes that a query gives into the table [`CHANGES`].
    fn note(&self, query: &str) -> anyhow::Result<()> {
        self.session.run(&format!("CREATE OR REPLACE TEMP TABLE bkp_changes AS {query}"))
    }

    /// How many rows are in [`CHANGES`], and how many are gone: of a table with a key.
    fn noted(&self) -> anyhow::Result<Option<[u64; 2]>> {
        let counts = format!(
            "SELECT count(*) FILTER (bkp_live), count(*) FILTER (NOT bkp_live) FROM {CHANGES}"
        );
        let counted = self.session.rows(&counts)?;
        let number = |at| counted.first().and_then(|row| shape::text(row, at).parse().ok());
        Ok(number(0).zip(number(1)).map(|(rows, gone)| [rows, gone]))
    }

    fn say_joined(&self, table: &TableEntry, why: &str) {
        let table = plain(&table.plain());
        self.ctx.monitor.detail(&format!("{table}: {why}: it is compared by a join"));
    }

    /// Looks for what changed in one pass over the state in `files` and the table as it is, and puts that
    /// into the tables [`delta::FOUND_ROWS`] and [`delta::FOUND_GONE`]; returns how many rows are in each, and
    /// gives the table its content. Nothing if that cannot be told so: then a join has to.
    fn differences(
        &self,
        table: &mut TableEntry,
        last: &TableEntry,
        files: &[String],
        region: Option<&Region>,
    ) -> anyhow::Result<Option<[u64; 2]>> {
        let here = table.here();
        let sequences = delta::sequences(table, files, &here, region).unwrap_or_default();
        let [base, later @ .., now] = sequences.as_slice() else { return Ok(None) };
        let found = self.session.compare(Compare {
            base: base.clone(),
            later: later.to_vec(),
            now: now.clone(),
            most: self.session.memory_bytes() / WAITING_BYTES,
            rows: delta::FOUND_ROWS.to_owned(),
            gone: delta::FOUND_GONE.to_owned(),
        })?;
        let Some(found) = found else {
            self.say_joined(table, "too much of it differs, or is in another order");
            return Ok(None);
        };
        let alike = region.map_or(0, |region| region.alike);
        let Some(content) = replaced(&last.content, &found.before, &found.now, alike) else {
            // Then it is not the last export that was compared.
            self.say_joined(table, "the sums of its hashes do not match");
            return Ok(None);
        };
        table.content = content;
        Ok(Some([found.rows, found.gone]))
    }

    /// The files with keys and hashes of a table; none if a link of the chain does not have them.
    fn state(&self, before: &Before<'_>, table: &TableEntry) -> anyhow::Result<Option<State>> {
        if !before.unpacked.replace(true) {
            for (reader, folder) in before.chain.iter().zip(&before.folders) {
                unpack(reader, folder, self.ctx)?;
            }
        }
        let mut files = Vec::new();
        for (index, folder) in before.indexes.iter().zip(&before.folders).rev() {
            let index = Some(index).filter(|index| index.probe == before.probe);
            let entry = index.and_then(|index| index.table(&table.schema, &table.name));
            let Some(entry) = entry.filter(|entry| entry.native.is_none()) else { return Ok(None) };
            if let Some(member) = &entry.rows_member {
                files.push(self.session.path(&folder.join(member)));
            }
            if entry.full {
                files.reverse();
                return Ok(Some(State { files, base_rows: entry.content.rows }));
            }
        }
        Ok(None)
    }
}

/// The content of a table of which some rows were replaced by others, and so many are as they were.
fn replaced(last: &Content, before: &Tally, now: &Tally, alike: u64) -> Option<Content> {
    let number = |text: &str| text.parse::<u128>().ok();
    if before.rows.checked_add(alike)? != last.rows {
        return None;
    }
    let rest = number(&last.sum)?.checked_sub(number(&before.sum)?)?;
    let rest_xor = last.xor.parse::<u64>().ok()? ^ before.xor;
    if alike == 0 && (rest, rest_xor) != (0, 0) {
        return None;
    }
    Some(Content {
        rows: alike.checked_add(now.rows)?,
        sum: rest.checked_add(number(&now.sum)?)?.to_string(),
        xor: (rest_xor ^ now.xor).to_string(),
    })
}

/// Puts the files with keys and hashes of an export into a folder.
pub(in crate::source::duckdb) fn unpack(
    reader: &crate::pipeline::BackupReader<'_>,
    folder: &Path,
    ctx: &Ctx,
) -> anyhow::Result<()> {
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
