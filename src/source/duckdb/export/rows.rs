//! Which rows of a table an export holds: all of them, or those that changed since the chain before, told
//! by keys and hashes.

use std::path::{Path, PathBuf};

use super::super::engine::{Session, plain};
use super::super::index::{Content, Index, TableEntry};
use super::super::protocol::{Compare, Sum};
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
pub(super) struct Before {
    indexes: Vec<Index>,
    folders: Vec<PathBuf>,
    /// What the linked engine makes of [`hashed::PROBE`].
    probe: String,
    /// The keys of its hashes.
    pub(super) row_keys: String,
}

impl Before {
    /// The table as it was, if its rows have the same form.
    pub(super) fn last(&self, table: &TableEntry) -> Option<&TableEntry> {
        let index = self.indexes.last().filter(|index| index.probe == self.probe)?;
        index
            .table(&table.schema, &table.name)
            .filter(|last| last.is_alike(table) && last.native.is_none())
    }
}

impl Exporting<'_> {
    /// What the chain has, if it was made by an engine that hashes as this one.
    pub(super) fn before(&self, chain: &Chain<'_>, probe: &str) -> anyhow::Result<Option<Before>> {
        let (indexes, folders) = (Vec::new(), Vec::new());
        let mut before =
            Before { indexes, folders, probe: probe.to_owned(), row_keys: String::new() };
        for (order, reader) in chain.iter().enumerate() {
            before.indexes.push(reader.map(self.ctx, &mut |input| Index::read(input))?);
            before.folders.push(self.scratch.join(format!("chain-{order}")));
        }
        let Some(last) = before.indexes.last() else { return Ok(None) };
        let Some(row_keys) = last.row_keys.clone().filter(|_| last.probe == probe) else {
            self.ctx.monitor.warn("the last export was made by a bkp or a DuckDB that hashes rows in another way: every table is exported in full");
            return Ok(None);
        };
        before.row_keys = row_keys;
        for (reader, folder) in chain.iter().zip(&before.folders) {
            unpack(reader, folder, self.ctx)?;
        }
        Ok(Some(before))
    }

    /// Writes keys and hashes of all rows; returns the query for the rows. They are hashed once: what
    /// stands for the table is made of the hashes.
    pub(super) fn all(&self, table: &mut TableEntry, path: &Path) -> anyhow::Result<String> {
        let from = table.here();
        self.session.save(&delta::state(table, &from), path)?;
        let state = format!("read_parquet({})", sql::text(&self.session.path(path)));
        table.content = content_from(&self.session, &delta::content_of_state(table, &state))?;
        table.full = true;
        Ok(delta::rows(table, &from))
    }

    /// Writes keys and hashes of what changed since the state in `files`; returns the query for the rows
    /// that are new or changed. Of the others nothing is written down.
    pub(super) fn changes(
        &self,
        table: &mut TableEntry,
        last: &Content,
        files: &[String],
        path: &Path,
    ) -> anyhow::Result<String> {
        let from = table.here();
        table.full = false;
        if let Some(counts) = self.differences(table, last, files)?
            && let Some(query) = delta::changes_found(table, files, &from)
        {
            self.note(&query)?;
            if self.noted()? == Some(counts) {
                self.session.save(&delta::bent_changes(table, CHANGES), path)?;
                return Ok(delta::upserts_found(table, &from));
            }
            self.say_joined(table, "not every row that was found came back");
        }
        self.note(&delta::changes(table, &delta::state_of(table, files), &from))?;
        self.session.save(&delta::bent_changes(table, CHANGES), path)?;
        Ok(delta::upserts(table, CHANGES, &from))
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
    /// into the tables [`delta::FOUND_ROWS`] and [`delta::FOUND_GONE`]; returns how many rows are in each.
    /// Nothing if that cannot be told so: then a join has to.
    fn differences(
        &self,
        table: &TableEntry,
        last: &Content,
        files: &[String],
    ) -> anyhow::Result<Option<[u64; 2]>> {
        let sequences = delta::sequences(table, files, &table.here()).unwrap_or_default();
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
        // That what was compared is the export before and the table, the sums show.
        let is_of =
            |content: &Content, sum: &Sum| content.rows == sum.rows && content.sum == sum.sum;
        if !is_of(last, &found.before) || !is_of(&table.content, &found.now) {
            self.say_joined(table, "the sums of its hashes do not match");
            return Ok(None);
        }
        Ok(Some([found.rows, found.gone]))
    }
}

/// The files with keys and hashes of a table, from its last full export on; `None` if a link of the
/// chain does not have them.
pub(super) fn state_files(
    session: &Session,
    before: &Before,
    table: &TableEntry,
) -> Option<Vec<String>> {
    let mut files = Vec::new();
    for (index, folder) in before.indexes.iter().zip(&before.folders).rev() {
        let index = Some(index).filter(|index| index.probe == before.probe)?;
        let entry = index.table(&table.schema, &table.name)?;
        if entry.native.is_some() {
            return None;
        }
        if let Some(member) = &entry.rows_member {
            files.push(session.path(&folder.join(member)));
        }
        if entry.full {
            files.reverse();
            return Some(files);
        }
    }
    None
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
