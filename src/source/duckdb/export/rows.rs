//! Which rows of a table an export contains: all of them, or those that changed since the parent, by
//! keys and hashes.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use super::super::engine::plain;
use super::export_context::ExportContext;
use crate::blockfile::listing::Hex;
use crate::ctx::Ctx;
use crate::source::Chain;
use crate::source::duckdb::engine::groups::{GROUPS_MAX, Groups, Region, ranges};
use crate::source::duckdb::engine::protocol::{Compare, RowSum};
use crate::source::duckdb::export::delta;
use crate::source::duckdb::export::delta::ExportedRows;
use crate::source::duckdb::export::index::{Content, Index, RowGroup, TableEntry};
use crate::source::duckdb::export::links;
use crate::source::duckdb::export::links::LinkedTable;
use crate::source::duckdb::export::stored;
use crate::source::duckdb::export::stored::{Storage, StoredGroup, StoredGroups};
use crate::source::duckdb::schema;

/// One row may wait for another one, be found, or have changed earlier, for so many bytes of what the
/// engine may take: several times what it takes itself, beside what the engine does.
const WAITING_BYTES: u64 = 512;

/// The table of the session with what changed in one of the exported.
const CHANGES: &str = "temp.main.bkp_changes";

/// Which rows of a table an export has.
pub(super) enum Selection {
    /// None: the table is as it was.
    Nothing,
    /// Those that are new or changed, which the query gives.
    Changed(String),
    /// All of them.
    All,
}

/// The chain that an increment adds to: its indexes, base first, and where what is needed of it is put.
pub(super) struct PreviousExport<'a> {
    chain: &'a Chain<'a>,
    indexes: Vec<Index>,
    folder: &'a Path,
    /// What the linked engine makes of [`crate::source::duckdb::export::hashed::PROBE`].
    probe: String,
    /// The keys of its hashes.
    pub(super) row_keys: String,
}

impl<'a> PreviousExport<'a> {
    /// What the chain has, if it was made by an engine that hashes as this one; `folder` is one of ours.
    pub(super) fn read(
        chain: &'a Chain<'a>,
        probe: &str,
        folder: &'a Path,
        ctx: &Ctx,
    ) -> anyhow::Result<Option<PreviousExport<'a>>> {
        let indexes = chain.iter().map(|reader| reader.map(ctx, &mut |input| Index::read(input)));
        let indexes = indexes.collect::<anyhow::Result<Vec<_>>>()?;
        let Some(last) = indexes.last() else { return Ok(None) };
        let Some(row_keys) = last.row_keys.clone().filter(|_| last.probe == probe) else {
            ctx.monitor.warn("the last export was made by a bkp or DuckDB that hashes rows differently: every table is exported in full");
            return Ok(None);
        };
        Ok(Some(PreviousExport { chain, indexes, folder, probe: probe.to_owned(), row_keys }))
    }

    /// The rehearsal of the last schema, if that found nothing wrong with it.
    pub(super) fn rehearsed(&self) -> Option<Hex> {
        self.indexes.last()?.rehearsed
    }

    /// The table as it was, if its rows have the same form.
    pub(super) fn last(&self, table: &TableEntry) -> Option<&TableEntry> {
        let index = self.indexes.last().filter(|index| index.probe == self.probe)?;
        index
            .table(&table.schema, &table.name)
            .filter(|last| last.is_alike(table) && last.native.is_none())
    }

    /// The links that a table has been exported in since its last full export; none if a link of the chain does not
    /// have it, or not so that it can be compared.
    fn links(&self, table: &TableEntry) -> Option<Vec<(usize, &TableEntry)>> {
        // What is not whole here is exported in full.
        let links = links::of(&self.indexes, table).ok()?;
        let is_hashed = |(order, entry): &(usize, &TableEntry)| {
            let index = self.indexes.get(*order).filter(|index| index.probe == self.probe);
            index.is_some() && !entry.whole
        };
        let is_comparable = !links.is_empty() && links.iter().all(is_hashed);
        is_comparable.then_some(links)
    }
}

impl ExportContext<'_> {
    /// Finds out what changed in a table since the last export, and writes keys and hashes of that.
    pub(super) fn since(
        &mut self,
        table: &mut TableEntry,
        before: &PreviousExport<'_>,
        last: &TableEntry,
        path: &Path,
    ) -> anyhow::Result<Selection> {
        let is_knowable = stored::is_knowable(table, last.content.rows);
        let stored = is_knowable.then(|| self.storage().groups(table, None));
        let stored = stored.transpose()?.unwrap_or_default();
        let groups = if let Some(groups) = self.known(table, last, &stored)? {
            groups
        } else {
            let count = delta::tallied_count(table, &table.here());
            self.session.count_tallied(&count)?
        };
        table.content = groups.content();
        let mut recorded = groups.recorded_after(&last.groups);
        stored.mark(&groups, &mut recorded);
        if table.content == last.content {
            self.record(table, recorded);
            return Ok(Selection::Nothing);
        }
        let links = if delta::is_divisible(table) { before.links(table) } else { None };
        let Some(links) = links else { return Ok(Selection::All) };
        let base_rows = links.first().map_or(0, |(_, full)| full.content.rows);
        let region = groups.region(&recorded, base_rows);
        if let Some(Region { alike, .. }) = &region {
            let all = last.content.rows;
            self.say(
                table,
                &format!("{} of {all} rows are in groups that have not changed", alike.rows),
            );
        }
        let found = match &region {
            Some(region) => self.changes_within(table, &last.content, (before, &links), region)?,
            None => None,
        };
        let found = if found.is_some() {
            found
        } else {
            // What was recorded of groups may be wrong, and then all of it is compared.
            let files = links::files(before.chain, &links, before.folder, self.ctx)?;
            let found = self.changes(table, &last.content, &files, None)?;
            std::fs::remove_file(&files.base)?;
            found
        };
        let Some(query) = found else {
            self.say(table, "its changes are inconsistent: it is exported in full");
            return Ok(Selection::All);
        };
        self.record(table, recorded);
        self.session.save(&delta::parquet_changes(table, CHANGES), path)?;
        Ok(Selection::Changed(query))
    }

    /// Where the tables are.
    pub(super) fn storage(&self) -> Storage<'_> {
        let (session, ctx) = (&self.session, self.ctx);
        Storage { session, file: &self.file, row_keys: &self.row_keys, ctx }
    }

    /// What the groups of a table add up to, of which some are known again by what they are read from, and only
    /// the others are read; nothing if none is, or one turns out not to be what it was.
    fn known(
        &self,
        table: &TableEntry,
        last: &TableEntry,
        stored: &StoredGroups,
    ) -> anyhow::Result<Option<Groups>> {
        let before =
            last.groups.iter().filter_map(|group| Some((group.stored?.0.0, group.content)));
        let before: HashMap<u128, Content> = before.collect();
        let same = |(number, group): (u64, &StoredGroup)| {
            let content = before.get(&group.digest?.0.0)?;
            (content.rows == group.rows).then_some((number, *content))
        };
        let mut known: BTreeMap<u64, Content> = stored.iter().filter_map(same).collect();
        let Some(tried) = stored::any_of(&known) else { return Ok(None) };
        let is_read = |number: &u64| *number == tried || !known.contains_key(number);
        let read = stored.iter().map(|(number, _)| number).filter(is_read).collect();
        let from = delta::part(table, Some(&ranges(&read)));
        let counted = self.session.count_tallied(&delta::tallied_count(table, &from))?;
        let counted: BTreeMap<u64, Content> = counted
            .iter()
            .filter(|(number, _)| read.contains(number))
            .map(|(number, content)| (number, *content))
            .collect();
        if counted.get(&tried) != known.get(&tried) {
            let name = plain(&table.plain());
            self.ctx.monitor.warn(&format!("{name}: rows have changed although nothing in the file says so: all of them are read; please report this"));
            return Ok(None);
        }
        let skipped = known.len() - 1;
        known.extend(counted);
        let is_all = known.len() == stored.iter().count()
            && stored.iter().all(|(number, group)| {
                known.get(&number).is_some_and(|content| content.rows == group.rows)
            });
        self.say(
            table,
            &format!("{skipped} of {} groups of rows are where they were", known.len()),
        );
        Ok(is_all.then(|| Groups::new(known.into_iter().collect())))
    }

    /// Notes what groups of a table's rows add up to, if there is a place for it.
    pub(super) fn record(&mut self, table: &mut TableEntry, groups: Vec<RowGroup>) {
        let left = GROUPS_MAX.saturating_sub(self.groups_recorded);
        // A column of this name hides the places of rows in Parquet.
        let has_places = table.has_rowid() && !table.has_column("file_row_number");
        if has_places && groups.len() <= left {
            self.groups_recorded += groups.len();
            table.groups = groups;
        }
    }

    /// As [`ExportContext::changes`], where only a `region` is compared. Of the last full export no more is fetched
    /// than that, if that is little.
    fn changes_within(
        &self,
        table: &TableEntry,
        last: &Content,
        (before, links): (&PreviousExport<'_>, &[(usize, &TableEntry)]),
        region: &Region,
    ) -> anyhow::Result<Option<String>> {
        let (chain, folder, session, ctx) = (before.chain, before.folder, &self.session, self.ctx);
        let some = links::files_of_some((chain, links), &region.base, session, folder, ctx)?;
        if let Some(files) = some {
            let found = self.changes(table, last, &files, Some(region));
            std::fs::remove_file(&files.base)?;
            ctx.cancel.check()?;
            return found.or_else(|error| {
                self.say(table, &format!("all of it is compared: {error:#}"));
                Ok(None)
            });
        }
        let files = links::files(chain, links, folder, ctx)?;
        let found = self.changes(table, last, &files, Some(region));
        std::fs::remove_file(&files.base)?;
        found
    }

    /// Puts what changed in a table into [`CHANGES`]; returns the query for the rows that are new or changed.
    /// Of the others nothing is noted. Nothing if it does not add up to the table.
    fn changes(
        &self,
        table: &TableEntry,
        last: &Content,
        files: &LinkedTable,
        region: Option<&Region>,
    ) -> anyhow::Result<Option<String>> {
        let places = region.map(|region| region.base.as_slice());
        let state = files.state(&self.session, table, places);
        let from = delta::part(table, region.map(|region| region.now.as_slice()));
        if let Some(counts) = self.differences(table, last, &state, &from, region)?
            && let Some(query) = delta::changes_found(table, &state, &from)
        {
            self.note(&query)?;
            if self.noted()? == Some(counts) {
                return Ok(Some(delta::upserts_found(table, &from)));
            }
            self.say(table, "not every matching row was found again: it is compared by a join");
        }
        if delta::is_keyed(table) && region.is_some() {
            // Nothing would show that a row is gone of which the region does not know.
            return Ok(None);
        }
        self.note(&delta::changes(table, &delta::state_of(table, &state), &from))?;
        if !delta::is_keyed(table) && !self.adds_up(table, last)? {
            return Ok(None);
        }
        Ok(Some(delta::upserts(table, CHANGES, &from)))
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
        let number = |at| counted.first().and_then(|row| schema::number(row, at));
        Ok(number(0).zip(number(1)).map(|(rows, gone)| [rows, gone]))
    }

    /// Whether [`CHANGES`] leads from the last content of a table without a key to its content.
    fn adds_up(&self, table: &TableEntry, last: &Content) -> anyhow::Result<bool> {
        let sums = self.session.rows(&delta::sums_of_changes(CHANGES))?;
        let number = |at| sums.first().and_then(|row| schema::number::<i128>(row, at));
        let (rows, sum) = (i128::from(table.content.rows), i128::try_from(table.content.sum));
        let (last_rows, last_sum) = (i128::from(last.rows), i128::try_from(last.sum));
        let more = sum.ok().zip(last_sum.ok()).map(|(sum, last)| sum - last);
        Ok(number(0) == Some(rows - last_rows) && number(1).is_some() && number(1) == more)
    }

    fn say(&self, table: &TableEntry, what: &str) {
        let table = plain(&table.plain());
        self.ctx.monitor.detail(&format!("{table}: {what}"));
    }

    /// Looks for what changed in one pass over a state and the rows of a table as they are, and puts that
    /// into the tables [`delta::FOUND_ROWS`] and [`delta::FOUND_GONE`]; returns how many rows are in each.
    /// Nothing if that cannot be told so: then a join has to.
    fn differences(
        &self,
        table: &TableEntry,
        last: &Content,
        state: &ExportedRows,
        from: &str,
        region: Option<&Region>,
    ) -> anyhow::Result<Option<[u64; 2]>> {
        let sequences = delta::sequences(table, state, from).unwrap_or_default();
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
            self.say(table, "too much of it differs or is reordered: it is compared by a join");
            return Ok(None);
        };
        // That what was compared is the export before and the table, the sums show.
        let alike = region.map(|region| region.alike).unwrap_or_default();
        let is_of = |content: &Content, sum: &RowSum| {
            content.rows == sum.rows + alike.rows
                && sum.sum.parse::<u128>().ok().map(|sum| sum + alike.sum) == Some(content.sum)
        };
        if !is_of(last, &found.before) || !is_of(&table.content, &found.now) {
            self.say(table, "the sums of its hashes do not match: it is compared by a join");
            return Ok(None);
        }
        Ok(Some([found.rows, found.gone]))
    }
}
