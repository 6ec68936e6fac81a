//! What rows are read from, by which groups of them are known again without reading them.
//!
//! To find out what changed, all rows of a table would have to be hashed. But of a group of rows of which
//! nothing in the file is other than at the last export, the hashes are not other either. So an index has
//! of every group a digest of all that the engine makes its rows of, and what it has no digest of, or another
//! one, is read.
//!
//! That this is all:
//!
//! - DuckDB stores a table as row groups, each of them as columns, those as segments, and tells of every
//!   segment, also of what marks NULLs and of the parts of nested values, how it is compressed, how many rows it
//!   has, and where it is in the file: in a block, and further blocks of long texts (`pragma_storage_info`).
//!   A segment is decoded from these. The digest has whatever is told of it, with a keyed SHA-256 of each
//!   of these blocks in place of its number: one that was given to other content does not look the same.
//! - Nothing shows whether the list of further blocks is whole: texts that may have some are read.
//! - A segment without a block has one value throughout, which is what is told as its minimum. That is exact
//!   for some types; with any other type, or compression, the group is read.
//! - What the log has, and the file does not, is in memory: segments that are not persistent, or have updates.
//!   Their groups are read.
//! - Which rows are deleted is not told. Those that are there are counted, of each group, and where they are
//!   fewer than are stored, their numbers are hashed under the keys of the export, which gives the set of them.
//! - A group is by numbers, and a row group may begin anywhere. Up to DuckDB 1.5 each begins where the one in
//!   front of it ends, whatever the file says. Later ones leave gaps: with those all is read.
//! - Columns and their types, which are spelled out, whatever they are called, and so tell what the numbers
//!   of an ENUM stand for, the keys of the hashes and the version of the engine are in the digest, too.
//!
//! And one of the groups that are known again, by chance, is read all the same: if it is not what it was, all are.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::blockfile::listing::Hex;
use crate::blockfile::map::Checksum;
use crate::ctx::Ctx;
use crate::source::duckdb::data_file::format::{BLOCKS_AT, Headers};
use crate::source::duckdb::engine::groups::{GROUP_ROWS, GROUPS_MAX, Groups, ranges};
use crate::source::duckdb::engine::{Session, plain};
use crate::source::duckdb::export::delta;
use crate::source::duckdb::export::index::{RowGroup, TableEntry};
use crate::source::duckdb::export::segments;
use crate::source::duckdb::export::segments::{Parts, StoredRows, StoredTable};
use crate::source::duckdb::schema::number;
use crate::source::duckdb::schema::sql::ROW;

/// Versions of the engine whose row groups have no gaps between them.
const WITHOUT_GAPS: &str = "1.5.";

/// Types whose values may be stored in another way than by columns and segments.
const SHREDDED: [&str; 4] = ["VARIANT", "GEOMETRY", "UNION(", "AGGREGATE_STATE"];

/// The groups of a table, each with its rows and what they are read from; nothing of that if it is not known.
#[derive(Debug, Default)]
pub(crate) struct StoredGroups(BTreeMap<u64, StoredGroup>);

/// A group.
#[derive(Debug)]
pub(crate) struct StoredGroup {
    /// Rows that are there.
    pub(crate) rows: u64,
    /// What they are read from.
    pub(crate) digest: Option<Hex>,
}

/// Where a table is stored, and what it is there.
pub(crate) struct Storage<'a> {
    pub(crate) session: &'a Session,
    /// The file that the session has open.
    pub(crate) file: &'a Path,
    /// The keys of hashes.
    pub(crate) row_keys: &'a str,
    pub(crate) ctx: &'a Ctx,
}

impl StoredGroups {
    /// The groups by their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &StoredGroup)> {
        self.0.iter().map(|(number, group)| (*number, group))
    }

    /// Notes in what an index has of `groups` what they are read from.
    pub(crate) fn mark(&self, groups: &Groups, recorded: &mut [RowGroup]) {
        for ((number, content), recorded) in groups.iter().zip(recorded) {
            let stored = self.0.get(&number).filter(|stored| stored.rows == content.rows);
            recorded.stored = stored.and_then(|stored| stored.digest);
        }
    }
}

/// Whether a table may be known again, and is large enough for that to be worth while.
pub(crate) fn is_knowable(table: &TableEntry, rows: u64) -> bool {
    let is_shredded = |data_type: &str| SHREDDED.iter().any(|name| data_type.contains(name));
    rows > GROUP_ROWS
        && table.has_rowid()
        && crate::version::duckdb().starts_with(WITHOUT_GAPS)
        && !table.columns.iter().any(|column| is_shredded(&column.data_type))
        && segments::is_listable(table, rows)
}

impl Storage<'_> {
    /// What the groups of a table are read from; `counted` are those that have been read already. Nothing if
    /// that cannot be told, for whatever reason: then all of it is read.
    ///
    /// # Errors
    /// A cancellation.
    pub(crate) fn groups(
        &self,
        table: &TableEntry,
        counted: Option<&Groups>,
    ) -> anyhow::Result<StoredGroups> {
        self.known_groups(table, counted).or_else(|error| {
            self.ctx.cancel.check()?;
            let what = "what its rows are read from is not known";
            let (table, error) = (plain(&table.plain()), plain(&format!("{error:#}")));
            self.ctx.monitor.detail(&format!("{table}: {what}: {error}"));
            Ok(StoredGroups::default())
        })
    }

    fn known_groups(
        &self,
        table: &TableEntry,
        counted: Option<&Groups>,
    ) -> anyhow::Result<StoredGroups> {
        let file = File::open(self.file)?;
        let headers = headers(&file)?;
        let Storage { session, row_keys, ctx, .. } = *self;
        let stored =
            StoredTable { session, table, file: &file, headers: &headers, key: row_keys, ctx };
        let Some(row_groups) = stored.row_groups()? else { return Ok(StoredGroups::default()) };
        let mut sizes = row_groups.iter().map(|row_group| row_group.rows);
        let all = sizes.try_fold(0_u64, u64::checked_add);
        let Some(all) = all.filter(|rows| rows.div_ceil(GROUP_ROWS) <= GROUPS_MAX as u64) else {
            return Ok(StoredGroups::default());
        };
        let extents = extents(&row_groups);
        let stored_rows = |number: u64| {
            extents.get(&number).map_or(0, |parts| parts.iter().map(|part| part.rows).sum())
        };
        let there: BTreeMap<u64, u64> = match counted {
            Some(counted) => {
                counted.iter().map(|(number, content)| (number, content.rows)).collect()
            }
            None if self.rows(table)? == Some(all) => {
                extents.keys().map(|number| (*number, stored_rows(*number))).collect()
            }
            None => self.counted(table)?,
        };
        if there.iter().any(|(number, rows)| *rows > stored_rows(*number)) {
            return Ok(StoredGroups::default());
        }
        let thinned = there.iter().filter(|(number, rows)| **rows < stored_rows(**number));
        let thinned = self.numbers(table, thinned.map(|(number, _)| *number))?;
        let thinned: HashMap<u64, _> = thinned.iter().collect();
        let head = self.head(table);
        let group = |(number, rows): (u64, u64)| {
            let mut parts = head.clone();
            parts.number(rows);
            if let Some(numbers) = thinned.get(&number) {
                parts.add(&numbers.sum.to_le_bytes());
                parts.number(numbers.xor);
            }
            let known =
                extents.get(&number).into_iter().flatten().all(|extent| extent.add(&mut parts));
            (number, StoredGroup { rows, digest: known.then(|| Hex(parts.digest())) })
        };
        let groups = there.into_iter().map(group).collect();
        // A checkpoint meanwhile, which there is no reason for, would have moved blocks.
        let is_still = self::headers(&file)? == headers;
        Ok(if is_still { StoredGroups(groups) } else { StoredGroups::default() })
    }

    /// What every digest begins with.
    fn head(&self, table: &TableEntry) -> Parts {
        let mut parts = Parts::default();
        parts.add(b"bkp.duckdb.group/1");
        parts.add(crate::version::duckdb().as_bytes());
        parts.add(self.row_keys.as_bytes());
        parts.add(&[u8::from(table.keyed_hashes), u8::from(delta::is_keyed(table))]);
        parts.number(table.columns.len() as u64);
        for column in &table.columns {
            parts.add(column.name.as_bytes());
            parts.add(column.data_type.as_bytes());
        }
        parts
    }

    /// How many rows there are.
    fn rows(&self, table: &TableEntry) -> anyhow::Result<Option<u64>> {
        let rows = self.session.rows(&format!("SELECT count(*) FROM {}", table.here()))?;
        Ok(rows.first().and_then(|row| number(row, 0)))
    }

    /// How many rows there are of each group.
    fn counted(&self, table: &TableEntry) -> anyhow::Result<BTreeMap<u64, u64>> {
        let (group, here) = (delta::group(table), table.here());
        let query = format!("SELECT {group}, count(*) FROM {here} AS {ROW} GROUP BY 1");
        let rows = self.session.rows(&query)?;
        let counted = rows.iter().map(|row| Some((number(row, 0)?, number(row, 1)?)));
        counted
            .collect::<Option<_>>()
            .ok_or_else(|| anyhow::anyhow!("DuckDB numbers rows in an unknown way"))
    }

    /// What the numbers of the rows in some groups add up to.
    fn numbers(
        &self,
        table: &TableEntry,
        groups: impl Iterator<Item = u64>,
    ) -> anyhow::Result<Groups> {
        let wanted: BTreeSet<u64> = groups.collect();
        if wanted.is_empty() {
            return Ok(Groups::default());
        }
        self.session.count_tallied(&delta::tallied_numbers(table, &ranges(&wanted)))
    }
}

/// One of these groups, whichever; nothing if there is none.
pub(crate) fn any_of<T>(groups: &BTreeMap<u64, T>) -> Option<u64> {
    // The lower half of it is random.
    let chance = uuid::Uuid::now_v7().as_u128() & u128::from(u32::MAX);
    let at = usize::try_from(chance).ok()?.checked_rem(groups.len())?;
    groups.keys().nth(at).copied()
}

fn headers(file: &File) -> anyhow::Result<Headers> {
    let mut raw = vec![0; usize::try_from(BLOCKS_AT)?];
    file.read_exact_at(&mut raw, 0)?;
    Headers::parse(&raw).map_err(|wrong| anyhow::anyhow!("the copy has no headers: {wrong:?}"))
}

/// A part of a group: rows of a row group.
#[derive(Debug)]
struct Extent {
    /// Where they are in the group, and in the row group.
    at: u64,
    from: u64,
    rows: u64,
    row_group_rows: u64,
    digest: Option<Checksum>,
}

impl Extent {
    /// Adds what the rows are read from; false if that is not known.
    fn add(&self, parts: &mut Parts) -> bool {
        for number in [self.at, self.from, self.rows, self.row_group_rows] {
            parts.number(number);
        }
        self.digest.inspect(|Checksum(digest)| parts.add(&digest.to_le_bytes())).is_some()
    }
}

/// What groups are made of, by their numbers: each row group begins where the one in front of it ends.
fn extents(row_groups: &[StoredRows]) -> BTreeMap<u64, Vec<Extent>> {
    let mut found: BTreeMap<u64, Vec<Extent>> = BTreeMap::new();
    let mut start = 0;
    for row_group in row_groups {
        let end = start + row_group.rows;
        let all: Range<u64> = start..end;
        for number in all.start / GROUP_ROWS..all.end.div_ceil(GROUP_ROWS) {
            let group = number * GROUP_ROWS..(number + 1) * GROUP_ROWS;
            let (first, last) = (group.start.max(all.start), group.end.min(all.end));
            if first < last {
                found.entry(number).or_default().push(Extent {
                    at: first - group.start,
                    from: first - all.start,
                    rows: last - first,
                    row_group_rows: row_group.rows,
                    digest: row_group.digest,
                });
            }
        }
        start = end;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_made_of_row_groups_wherever_these_begin() {
        let rows = |rows, digest| StoredRows { rows, digest };
        let known = Some(Checksum(1));
        let found = extents(&[
            rows(GROUP_ROWS, known),
            rows(10, known),
            rows(0, known),
            rows(GROUP_ROWS + 5, None),
        ]);
        let places = |number: u64| {
            let parts = found[&number].iter();
            parts
                .map(|part| (part.at, part.from, part.rows, part.digest.is_some()))
                .collect::<Vec<_>>()
        };
        assert_eq!(found.len(), 3);
        assert_eq!(places(0), [(0, 0, GROUP_ROWS, true)]);
        assert_eq!(places(1), [(0, 0, 10, true), (10, 0, GROUP_ROWS - 10, false)]);
        assert_eq!(places(2), [(0, GROUP_ROWS - 10, 15, false)]);
    }
}
