//! The row groups of a table as the engine tells of them, and the blocks of the file that they are decoded from.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use crate::blockfile::map::Checksum;
use crate::concurrent::each_of_few;
use crate::ctx::Ctx;
use crate::source::duckdb::data_file::format::{Headers, digest};
use crate::source::duckdb::engine::{Session, TextRow};
use crate::source::duckdb::export::index::TableEntry;
use crate::source::duckdb::schema::sql;

/// Types whose values the engine tells exactly. `VALIDITY` is what marks NULLs.
const EXACT: [&str; 22] = [
    "VALIDITY",
    "BOOLEAN",
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "HUGEINT",
    "UTINYINT",
    "USMALLINT",
    "UINTEGER",
    "UBIGINT",
    "UHUGEINT",
    "FLOAT",
    "DOUBLE",
    "DATE",
    "TIME",
    "TIMESTAMP",
    "TIMESTAMP_S",
    "TIMESTAMP_MS",
    "TIMESTAMP_NS",
    "TIMESTAMP WITH TIME ZONE",
    "UUID",
];

/// The compression of a segment of one value.
const CONSTANT: &str = "Constant";

/// Segments that are asked for at a time, about.
const PAGE_SEGMENTS: u64 = 20_000;

/// Blocks whose digests are kept: small segments of neighbours share one.
const BLOCKS_KEPT: usize = 1 << 16;

/// Blocks that are read at a time.
const READERS: usize = 4;

/// The table of the session with what the engine tells of one of the exported.
const SEGMENTS: &str = "temp.main.bkp_segments";

/// What is told of a segment, in this order, before [`WHOLE`].
const TOLD: [&str; 7] = [
    "row_group_id",
    "column_id",
    "count",
    "segment_type",
    "compression",
    "block_id",
    "additional_block_ids",
];

/// The rest of what is told of it.
const REST: &str = "column_path, segment_id, column_name, start, block_offset, stats, segment_info";

/// Whether a segment is in the file as it is.
const WHOLE: &str = "persistent IS TRUE AND has_updates IS FALSE";

/// A row group of the engine.
#[derive(Debug)]
pub(super) struct StoredRows {
    /// Rows, also those that were deleted.
    pub(super) rows: u64,
    /// What all of them are decoded from, if that is known.
    pub(super) digest: Option<Checksum>,
}

/// The parts of what is hashed, each with its length in front.
#[derive(Clone, Default)]
pub(super) struct Parts(Vec<u8>);

impl Parts {
    pub(super) fn add(&mut self, part: &[u8]) {
        self.0.extend_from_slice(&(part.len() as u64).to_le_bytes());
        self.0.extend_from_slice(part);
    }

    pub(super) fn number(&mut self, number: u64) {
        self.add(&number.to_le_bytes());
    }

    pub(super) fn digest(&self) -> Checksum {
        digest(&self.0)
    }
}

/// The row groups of a table in their order; nothing if that cannot be told. The session has this file open.
///
/// # Errors
/// What the engine or the system says.
pub(super) fn row_groups(
    session: &Session,
    table: &TableEntry,
    (file, headers): (&File, &Headers),
    ctx: &Ctx,
) -> anyhow::Result<Option<Vec<StoredRows>>> {
    let told = format!(
        "CREATE OR REPLACE TEMP TABLE bkp_segments AS SELECT {}, {WHOLE} AS whole, {REST} FROM pragma_storage_info({})",
        TOLD.join(", "),
        sql::text(&table.here())
    );
    if session.attempt(&told).is_err() {
        return Ok(None);
    }
    let counts = format!("SELECT count(*), coalesce(max(row_group_id) + 1, 0) FROM {SEGMENTS}");
    let counts = session.rows(&counts)?;
    let count = |at| counts.first().and_then(|row| number(row, at)).unwrap_or_default();
    let (segments, row_groups) = (count(0), count(1));
    let page = (PAGE_SEGMENTS * row_groups / segments.max(1)).max(1);
    let mut blocks = BlockDigests { file, headers, known: HashMap::new() };
    let mut found = Vec::new();
    for first in (0..row_groups).step_by(usize::try_from(page).unwrap_or(usize::MAX)) {
        let last = row_groups.min(first.saturating_add(page));
        let rows = session.rows(&format!(
            "FROM {SEGMENTS} WHERE row_group_id >= {first} AND row_group_id < {last} ORDER BY row_group_id, column_path, segment_id"
        ))?;
        blocks.read(&rows, ctx)?;
        let row_groups = rows.chunk_by(|one, other| text(one, 0) == text(other, 0));
        let stored = row_groups.zip(first..last).map(|(segments, expected)| {
            let number = segments.first().and_then(|row| number(row, 0));
            let stored = row_group(segments, table.columns.len(), &blocks.known);
            stored.filter(|_| number == Some(expected))
        });
        let Some(stored) = stored.collect::<Option<Vec<_>>>() else { return Ok(None) };
        found.extend(stored);
        if found.len() as u64 != last {
            return Ok(None);
        }
    }
    session.run(&format!("DROP TABLE {SEGMENTS}"))?;
    Ok(Some(found))
}

pub(super) fn text(row: &TextRow, at: usize) -> &str {
    row.get(at).and_then(Option::as_deref).unwrap_or_default()
}

pub(super) fn number(row: &TextRow, at: usize) -> Option<u64> {
    text(row, at).parse().ok()
}

/// The blocks that a segment is in; nothing if they are not all named.
fn blocks_of(row: &TextRow) -> Option<Vec<u64>> {
    let (own, further) = (text(row, 5), text(row, 6));
    let own = if own == "-1" { None } else { Some(own.parse().ok()?) };
    let further = further.trim_start_matches('[').trim_end_matches(']').split(", ");
    let further = further.filter(|id| !id.is_empty()).map(|id| id.parse().ok());
    own.map(Some).into_iter().chain(further).collect()
}

/// What the segments of a row group say; nothing if not even how many rows it has.
fn row_group(
    segments: &[TextRow],
    columns: usize,
    blocks: &HashMap<u64, Checksum>,
) -> Option<StoredRows> {
    let mut parts = Parts::default();
    let mut known = true;
    // What marks the NULLs of a column has as many rows as the column, whatever its type is.
    let mut rows_of: BTreeMap<u64, u64> = BTreeMap::new();
    for row in segments {
        let column = number(row, 1)?;
        if text(row, 8) == format!("[{column}, 0]") {
            *rows_of.entry(column).or_default() += number(row, 2)?;
        }
        known &= segment(row, blocks, &mut parts);
    }
    let rows = *rows_of.values().next()?;
    let is_whole = rows_of.len() == columns && rows_of.values().all(|other| *other == rows);
    is_whole.then(|| StoredRows { rows, digest: known.then(|| parts.digest()) })
}

/// Adds what a segment is decoded from; false if that is not known.
fn segment(row: &TextRow, blocks: &HashMap<u64, Checksum>, parts: &mut Parts) -> bool {
    let (data_type, compression, whole) = (text(row, 3), text(row, 4), text(row, 7));
    let Some(ids) = blocks_of(row).filter(|_| whole == "true") else { return false };
    let is_exact = EXACT.contains(&data_type) || data_type.starts_with("DECIMAL(");
    if text(row, 5) == "-1" && (compression != CONSTANT || !is_exact) {
        return false;
    }
    // The number of the row group says nothing, that of its own block neither: others are named by their numbers.
    for (at, told) in row.iter().enumerate().filter(|(at, _)| ![0, 5, 7].contains(at)) {
        parts.number(at as u64);
        parts.add(told.as_deref().unwrap_or_default().as_bytes());
        parts.number(u64::from(told.is_none()));
    }
    parts.number(ids.len() as u64);
    ids.iter().all(|id| {
        let found = blocks.get(id);
        found.inspect(|Checksum(found)| parts.add(&found.to_le_bytes())).is_some()
    })
}

/// Digests of the blocks of a file, by their numbers.
struct BlockDigests<'a> {
    file: &'a File,
    headers: &'a Headers,
    known: HashMap<u64, Checksum>,
}

impl BlockDigests<'_> {
    /// Reads the blocks that segments are in.
    fn read(&mut self, segments: &[TextRow], ctx: &Ctx) -> anyhow::Result<()> {
        if self.known.len() > BLOCKS_KEPT {
            self.known.clear();
        }
        let wanted: BTreeSet<u64> = segments.iter().filter_map(blocks_of).flatten().collect();
        let wanted: Vec<u64> =
            wanted.into_iter().filter(|block| !self.known.contains_key(block)).collect();
        let bytes = usize::try_from(self.headers.block_bytes())?;
        let piece = wanted.len().div_ceil(READERS).clamp(1, 64);
        let pieces: Vec<&[u64]> = wanted.chunks(piece).collect();
        let read = each_of_few(&pieces, READERS, &ctx.cancel, |piece| {
            let mut buffer = vec![0; bytes];
            let mut found = Vec::new();
            for block in *piece {
                self.file.read_exact_at(&mut buffer, self.headers.block_offset(*block))?;
                found.push((*block, digest(&buffer)));
            }
            Ok(found)
        })?;
        self.known.extend(read.into_iter().flatten());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A segment of a column: type, compression, block, statistics.
    fn segment_of(column: u64, path: &str, told: [&str; 4]) -> TextRow {
        let [data_type, compression, block, stats] = told;
        let column = column.to_string();
        let row = [
            "0",
            &column,
            "10",
            data_type,
            compression,
            block,
            "[]",
            "true",
            path,
            "0",
            "c",
            "0",
            "0",
            stats,
            "",
        ];
        row.map(|text| Some(text.to_owned())).to_vec()
    }

    /// Two columns, one of them with one value.
    fn segments() -> Vec<TextRow> {
        const VALIDITY: [&str; 4] = ["VALIDITY", "Constant", "-1", "[Has Null: false]"];
        vec![
            segment_of(0, "[0]", ["VARCHAR", "FSST", "3", "[Min: a, Max: b]"]),
            segment_of(0, "[0, 0]", VALIDITY),
            segment_of(1, "[1]", ["INTEGER", "Constant", "-1", "[Min: 5, Max: 5]"]),
            segment_of(1, "[1, 0]", VALIDITY),
        ]
    }

    fn told(segments: &[TextRow], block: u128) -> Option<StoredRows> {
        row_group(segments, 2, &HashMap::from([(3, Checksum(block)), (4, Checksum(9))]))
    }

    fn changed(at: usize, field: usize, text: &str) -> Option<StoredRows> {
        let mut segments = segments();
        segments[at][field] = Some(text.to_owned());
        told(&segments, 7)
    }

    #[test]
    fn whatever_is_told_of_a_segment_counts_but_where_its_block_is() {
        let same = told(&segments(), 7).expect("rows");
        assert_eq!(same.rows, 10);
        assert!(same.digest.is_some());
        assert_ne!(told(&segments(), 8).expect("rows").digest, same.digest);
        let other_place = row_group(
            &{
                let mut segments = segments();
                segments[0][5] = Some("4".into());
                segments
            },
            2,
            &HashMap::from([(4, Checksum(7))]),
        );
        assert_eq!(other_place.expect("rows").digest, same.digest);
        for (at, field, text) in [
            (2, 13, "[Min: 6, Max: 6]"),
            (0, 4, "DICT_FSST"),
            (0, 6, "[4]"),
            (0, 12, "8"),
            (1, 13, "[Has Null: true]"),
        ] {
            let other = changed(at, field, text).expect("rows");
            assert!(other.digest.is_some() && other.digest != same.digest, "{at} {field} {text}");
        }
    }

    #[test]
    fn what_is_not_all_told_has_no_digest() {
        for (at, field, text) in [
            // Not in the file as it is.
            (0, 7, "false"),
            // A block that was not read, and one that has no number.
            (0, 5, "5"),
            (0, 6, "[3, 6]"),
            (0, 6, "[3, x]"),
            (0, 5, ""),
            // One value of a type that is not told exactly, or in another way.
            (0, 5, "-1"),
            (2, 3, "VARCHAR"),
            (2, 3, "INTEGER[]"),
            (2, 4, "Uncompressed"),
        ] {
            assert!(
                changed(at, field, text).expect("rows").digest.is_none(),
                "{at} {field} {text}"
            );
        }
        // Not even how many rows there are.
        assert!(changed(1, 2, "11").is_none());
        assert!(told(&segments()[..2], 7).is_none());
    }
}
