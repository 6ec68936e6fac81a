//! Which groups of rows a table has in its file, and which of them are as they were.
//!
//! DuckDB stores the rows of a table in groups of up to 122 880, each column of a group in segments, which
//! stand in blocks; `pragma_storage_info` names them. A group whose segments are the same, in blocks with the
//! same digests, has the same rows: nothing of it needs to be read. That holds for groups of which no row
//! is deleted, and nothing stands in the log or in memory; of the others nothing is said.
//!
//! Rows of a group have consecutive numbers (`rowid`), and groups follow each other without a gap. That is so
//! in DuckDB 1; where the linked engine is another one, no group is known.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use super::engine::{Session, TextRow};
use super::format::digest;
use super::index::{RowGroup, TableEntry};
use super::private::Blocks;
use super::rowhash::FUNCTIONS;
use super::{shape, sql};
use crate::blockfile::listing::Hex;
use crate::blockfile::map::Checksum;

/// Segments of a table that are looked at: beyond that what they are takes longer than their rows.
const SEGMENTS_MAX: u64 = 200_000;

/// Rows of a vector, by which is told what is deleted.
const VECTOR_ROWS: u64 = 2048;

/// Groups whose rows are counted by themselves, since a vector of theirs with deleted rows is also another's.
const ASKED_MAX: usize = 8;

/// Parts of a table, or of its keys and hashes, that are read by themselves: more are read as one.
const PARTS_MAX: usize = 32;

/// A group of rows as the file has it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    /// Rows, with those that are deleted.
    stored: u64,
    /// Rows that are not.
    rows: u64,
    digest: Option<Checksum>,
}

impl Group {
    /// These rows of it are deleted.
    fn lose(&mut self, deleted: &[[u64; 3]]) {
        if deleted.is_empty() {
            return;
        }
        self.rows = self.stored.saturating_sub(deleted.iter().map(|[_, missing, _]| missing).sum());
        self.digest = self.digest.map(|Checksum(known)| {
            let words = deleted.as_flattened().iter().flat_map(|word| word.to_le_bytes());
            digest(&known.to_le_bytes().into_iter().chain(words).collect::<Vec<_>>())
        });
    }
}

/// The groups of a table, in their order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Groups(Vec<Group>);

/// What of a table, and of its keys and hashes, has to be read to find what changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Region {
    /// Rows of the keys and hashes of the last full export.
    pub(super) base: Vec<Range<u64>>,
    /// Rows of the table, by their `rowid`.
    pub(super) now: Vec<Range<u64>>,
    /// Rows that are not read, for they are as they were.
    pub(super) alike: u64,
}

impl Groups {
    /// Those of a table in the private copy at `file`, of which `blocks` are the blocks; none if they cannot
    /// be told.
    pub(super) fn read(
        session: &Session,
        table: &TableEntry,
        blocks: &Blocks,
        file: &Path,
    ) -> Groups {
        let is_numbered = crate::version::duckdb().starts_with("1.") && !table.has_column("rowid");
        let groups = is_numbered.then(|| told(session, table, blocks)).flatten();
        // The engine may have put its log into the file meanwhile.
        groups.filter(|_| blocks.are_those_of(file)).unwrap_or_default()
    }

    /// As the index has them, in a full export.
    pub(super) fn recorded(&self) -> Vec<RowGroup> {
        let mut at = 0;
        let recorded = self.0.iter().map(|group| {
            let base_at = group.digest.map(|_| at);
            at += group.rows;
            RowGroup { rows: group.rows, digest: group.digest.map(Hex), base_at }
        });
        recorded.collect()
    }

    /// As the index has them, in an increment: those that are in the last export still are where they were.
    pub(super) fn recorded_after(&self, last: &[RowGroup]) -> Vec<RowGroup> {
        let mut places = places(last);
        let mut recorded = self.recorded();
        for group in &mut recorded {
            group.base_at = group.digest.and_then(|Hex(digest)| places.get_mut(&digest)?.pop());
        }
        recorded
    }

    /// What has to be read, where `recorded` says which groups are as they were in the full export, of so many
    /// rows, and ever since.
    pub(super) fn region(&self, recorded: &[RowGroup], base_rows: u64) -> Option<Region> {
        let mut region = Region { base: Vec::new(), now: Vec::new(), alike: 0 };
        let mut alike = Vec::new();
        let mut number = 0;
        for (group, recorded) in self.0.iter().zip(recorded) {
            let rows = number..number + group.stored;
            number = rows.end;
            match recorded.base_at {
                Some(at) => {
                    region.alike += recorded.rows;
                    alike.push(at..at + recorded.rows);
                }
                None => add(&mut region.now, rows),
            }
        }
        alike.sort_unstable_by_key(|rows| rows.start);
        let mut end = 0;
        for rows in alike {
            // Two groups cannot be the same rows.
            let gap = rows.start.checked_sub(end)?;
            if gap > 0 {
                add(&mut region.base, end..rows.start);
            }
            end = rows.end;
        }
        if base_rows > end {
            add(&mut region.base, end..base_rows);
        }
        let is_useful = region.alike > 0
            && end <= base_rows
            && region.base.len().max(region.now.len()) <= PARTS_MAX;
        is_useful.then_some(region)
    }
}

/// Whether a table has the same rows as before, which is known only if all of its groups are.
pub(super) fn are_same(before: &[RowGroup], now: &[RowGroup]) -> bool {
    let digests = |groups: &[RowGroup]| {
        let digests = groups.iter().map(|group| Some(group.digest?.0.0));
        let mut digests = digests.collect::<Option<Vec<_>>>()?;
        digests.sort_unstable();
        Some(digests)
    };
    !now.is_empty() && digests(now).is_some_and(|now| digests(before) == Some(now))
}

/// Where the groups are that have not changed since the full export.
fn places(groups: &[RowGroup]) -> HashMap<Checksum, Vec<u64>> {
    let mut places: HashMap<Checksum, Vec<u64>> = HashMap::new();
    for group in groups {
        if let (Some(Hex(digest)), Some(at)) = (group.digest, group.base_at) {
            places.entry(digest).or_default().push(at);
        }
    }
    places
}

/// Adds rows that follow those that are there.
fn add(ranges: &mut Vec<Range<u64>>, rows: Range<u64>) {
    match ranges.last_mut().filter(|last| last.end == rows.start) {
        Some(last) => last.end = rows.end,
        None => ranges.push(rows),
    }
}

/// What the engine says of a table's groups; nothing if it does not say it.
fn told(session: &Session, table: &TableEntry, blocks: &Blocks) -> Option<Groups> {
    let here = table.here();
    let info = format!("system.main.pragma_storage_info({})", sql::text(&here));
    let count = number(session, &format!("SELECT count(*) FROM {info}"))?;
    if count > SEGMENTS_MAX {
        return None;
    }
    let query = format!(
        "SELECT row_group_id, column_id, column_path, segment_type, start, count, compression, stats, block_offset, has_updates, persistent, block_id, additional_block_ids FROM {info} ORDER BY row_group_id, column_id, column_path, segment_id"
    );
    let rows = session.rows(&query).ok()?;
    let mut groups: Vec<Building> = Vec::new();
    for row in &rows {
        let field = |at: usize| shape::text(row, at);
        let id: usize = field(0).parse().ok()?;
        if id == groups.len() {
            groups.push(Building::new(&field(1)));
        }
        // They are counted from 0, and the segments of each stand together.
        let is_last = id + 1 == groups.len();
        groups.last_mut().filter(|_| is_last)?.add(&field, blocks)?;
    }
    let mut groups = groups.into_iter().map(Building::finish).collect::<Vec<_>>();
    let stored = groups.iter().map(|group| group.stored).sum::<u64>();
    let rows = number(session, &format!("SELECT count(*) FROM {here}"))?;
    if rows != stored {
        find_deleted(session, &here, &mut groups)?;
    }
    (groups.iter().map(|group| group.rows).sum::<u64>() == rows).then_some(Groups(groups))
}

/// What is left of a vector: how many rows, and the exclusive or of keyed hashes of their places in it.
type Left = (u64, u64);

/// Finds out which rows of groups are deleted; nothing if that would take many questions.
fn find_deleted(session: &Session, here: &str, groups: &mut [Group]) -> Option<()> {
    let [hash, _] = FUNCTIONS;
    let query = format!(
        "SELECT rowid // {VECTOR_ROWS}, count(*), bit_xor(system.main.{hash}(rowid % {VECTOR_ROWS})) FROM {here} GROUP BY ALL"
    );
    let left = session.rows(&query).ok()?;
    let parsed = |row: &TextRow, at: usize| shape::text(row, at).parse::<u64>().ok();
    let left = left.iter().map(|row| Some((parsed(row, 0)?, (parsed(row, 1)?, parsed(row, 2)?))));
    let left = left.collect::<Option<HashMap<_, _>>>()?;
    let all = groups.iter().map(|group| group.stored).sum::<u64>();
    let mut asked = 0;
    let mut end = 0;
    for group in groups {
        let start = end;
        end += group.stored;
        if let Some(deleted) = deleted(&left, start..end, all) {
            group.lose(&deleted);
            continue;
        }
        asked += 1;
        let count = format!(
            "SELECT count(*) FROM {here} AS bkp_row WHERE bkp_row.rowid >= {start} AND bkp_row.rowid < {end}"
        );
        group.rows = (asked <= ASKED_MAX).then(|| number(session, &count)).flatten()?;
        group.digest = None;
    }
    Some(())
}

/// The vectors of a group, which has these rows of `all`, in which rows are deleted: their number in the group,
/// how many rows are missing, and what is left of them. Nothing if such a vector is only partly the group's.
fn deleted(left: &HashMap<u64, Left>, rows: Range<u64>, all: u64) -> Option<Vec<[u64; 3]>> {
    let mut deleted = Vec::new();
    for vector in rows.start / VECTOR_ROWS..rows.end.div_ceil(VECTOR_ROWS) {
        let start = vector * VECTOR_ROWS;
        let end = (start + VECTOR_ROWS).min(all);
        let (count, places) = left.get(&vector).copied().unwrap_or_default();
        let missing = (end - start).checked_sub(count)?;
        if missing == 0 {
            continue;
        }
        // Only of a group that begins with a vector is the place in that also the one in the group.
        if !rows.start.is_multiple_of(VECTOR_ROWS) || end > rows.end {
            return None;
        }
        deleted.push([(start - rows.start) / VECTOR_ROWS, missing, places]);
    }
    Some(deleted)
}

fn number(session: &Session, query: &str) -> Option<u64> {
    let rows = session.rows(query).ok()?;
    shape::text(rows.first()?, 0).parse().ok()
}

/// A group whose segments are looked at.
struct Building {
    /// Where the first column says which of its values are NULL: of as many rows as the group has.
    validity: String,
    stored: u64,
    /// What its digest is made of; none if something of it does not stand in the file.
    content: Option<Vec<u8>>,
}

impl Building {
    fn new(first_column: &str) -> Building {
        let validity = format!("[{first_column}, 0]");
        Building { validity, stored: 0, content: Some(Vec::new()) }
    }

    /// Adds a segment; nothing if what the engine says of it is not understood.
    fn add(&mut self, field: &dyn Fn(usize) -> String, blocks: &Blocks) -> Option<()> {
        if field(2) == self.validity && field(3) == "VALIDITY" {
            self.stored += field(5).parse::<u64>().ok()?;
        }
        let is_in_file = (field(9), field(10)) == ("false".into(), "true".into());
        let digests = is_in_file.then(|| digests(field, blocks)).flatten();
        let Some((content, digests)) = self.content.as_mut().zip(digests) else {
            self.content = None;
            return Some(());
        };
        for at in 1..=8 {
            let text = field(at);
            content.extend((text.len() as u64).to_le_bytes());
            content.extend(text.bytes());
        }
        content.extend((digests.len() as u64).to_le_bytes());
        content.extend(digests.iter().flat_map(|digest| digest.0.to_le_bytes()));
        Some(())
    }

    fn finish(self) -> Group {
        let digest = self.content.map(|content| digest(&content));
        Group { stored: self.stored, rows: self.stored, digest }
    }
}

/// The digests of the blocks that a segment stands in; nothing if that cannot be told.
fn digests(field: &dyn Fn(usize) -> String, blocks: &Blocks) -> Option<Vec<Checksum>> {
    let first = match field(11).parse::<i64>().ok()? {
        // What it has stands in its statistics.
        -1 if ["Constant", "Empty Validity"].contains(&field(6).as_str()) => None,
        block => Some(blocks.digest(u64::try_from(block).ok()?)?),
    };
    let more = field(12);
    let more = more.trim_start_matches('[').trim_end_matches(']').split(", ");
    let more = more.filter(|block| !block.is_empty());
    let more = more.map(|block| blocks.digest(block.parse().ok()?)).collect::<Option<Vec<_>>>()?;
    Some(first.into_iter().chain(more).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(digests: &[(u64, Option<u128>)]) -> Groups {
        let group = |(rows, digest): &(u64, Option<u128>)| Group {
            stored: 10,
            rows: *rows,
            digest: digest.map(Checksum),
        };
        Groups(digests.iter().map(group).collect())
    }

    #[test]
    #[expect(clippy::single_range_in_vec_init, reason = "one range is what is expected")]
    fn only_what_changed_is_read() {
        let full = groups(&[(10, Some(1)), (10, Some(2)), (7, None), (10, Some(4)), (10, Some(5))]);
        let last = full.recorded();
        assert_eq!(last[3].base_at, Some(27));
        let now = groups(&[(10, Some(1)), (10, Some(6)), (7, None), (10, Some(4)), (9, None)]);
        let recorded = now.recorded_after(&last);
        let region = now.region(&recorded, 47).expect("two are alike");
        assert_eq!(
            region,
            Region { base: vec![10..27, 37..47], now: vec![10..30, 40..50], alike: 20 }
        );
        assert!(!are_same(&last, &recorded));
        // The second group is what it was in the full export, but was another one in between.
        let back = full.recorded_after(&recorded);
        assert_eq!(back[1].base_at, None);
        // The first one is gone, and the others moved.
        let fewer = groups(&[(10, Some(4)), (10, Some(5))]);
        let recorded = fewer.recorded_after(&last);
        let region = fewer.region(&recorded, 47).expect("two are alike");
        assert_eq!(region, Region { base: vec![0..27], now: vec![], alike: 20 });
        assert_eq!(fewer.region(&fewer.recorded_after(&[]), 47), None);
        assert_eq!(fewer.region(&recorded, 40), None, "a group is beyond the end");
    }

    #[test]
    fn deleted_rows_are_those_of_their_group() {
        let left = HashMap::from([(0, (2048, 1)), (1, (2000, 2)), (2, (2048, 3)), (3, (5, 4))]);
        let all = 3 * VECTOR_ROWS + 10;
        assert_eq!(deleted(&left, 0..4096, all), Some(vec![[1, 48, 2]]));
        assert_eq!(deleted(&left, 2048..4096, all), Some(vec![[0, 48, 2]]));
        assert_eq!(deleted(&left, 0..3000, all), None, "its last vector is also another's");
        assert_eq!(deleted(&left, 4096..5000, all), Some(vec![]));
        assert_eq!(deleted(&left, 4096..all, all), Some(vec![[1, 5, 4]]));
        assert_eq!(deleted(&left, 5000..all, all), None, "it begins within a vector");
        assert_eq!(deleted(&HashMap::new(), 0..all, all).map(|gone| gone.len()), Some(4));
        let whole = Group { stored: 4096, rows: 4096, digest: Some(Checksum(7)) };
        let without = |deleted: &[[u64; 3]]| {
            let mut group = whole.clone();
            group.lose(deleted);
            (group.rows, group.digest)
        };
        assert_eq!(without(&[]), (4096, Some(Checksum(7))));
        assert_eq!(without(&[[1, 48, 2]]).0, 4048);
        let digests =
            [without(&[[1, 48, 2]]).1, without(&[[0, 48, 2]]).1, without(&[[1, 48, 3]]).1];
        assert!(digests[0] != digests[1] && digests[1] != digests[2] && digests[2] != digests[0]);
        let unknown = Group { digest: None, ..whole.clone() };
        assert_eq!(
            {
                let mut group = unknown;
                group.lose(&[[1, 48, 2]]);
                group.digest
            },
            None
        );
    }

    #[test]
    fn a_table_is_the_same_only_if_all_of_it_is_known() {
        let known = groups(&[(10, Some(1)), (10, Some(2))]).recorded();
        let moved = groups(&[(10, Some(2)), (10, Some(1))]).recorded();
        let twice = groups(&[(10, Some(1)), (10, Some(1))]).recorded();
        let part = groups(&[(10, Some(1)), (10, None)]).recorded();
        assert!(are_same(&known, &known) && are_same(&known, &moved));
        assert!(!are_same(&known, &twice) && !are_same(&twice, &known));
        assert!(!are_same(&part, &part) && !are_same(&[], &[]) && !are_same(&[], &known));
    }
}
