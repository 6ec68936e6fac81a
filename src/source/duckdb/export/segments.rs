//! The row groups of a table as the engine tells of them, and the blocks of the file that they are decoded from.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use crate::blockfile::map::Checksum;
use crate::concurrent::each_of_few;
use crate::ctx::Ctx;
use crate::source::duckdb::data_file::format::{Headers, digest};
use crate::source::duckdb::engine::{Session, TextRow};
use crate::source::duckdb::export::index::{Column, TableEntry};
use crate::source::duckdb::schema::{field, number, sql};

/// Types whose values the engine tells exactly, whatever they are. `VALIDITY` is what marks NULLs.
const EXACT: [&str; 21] = [
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
    "TIMESTAMP",
    "TIMESTAMP_S",
    "TIMESTAMP_MS",
    "TIMESTAMP_NS",
    "TIMESTAMP WITH TIME ZONE",
    "UUID",
];

/// Compressions of any type that keep nothing but in the segment's own block: others put long texts into
/// further ones, which are listed, but no checksum tells whether the list is whole.
const IN_ONE_BLOCK: [&str; 5] = ["BitPacking", "RLE", "Dictionary", "FSST", "DICT_FSST"];

/// The compression of a segment of one value.
const CONSTANT: &str = "Constant";

/// The compression of what marks NULLs where the values themselves do.
const NO_MARKS: &str = "Empty Validity";

/// Segments that are asked for at a time, about.
const PAGE_SEGMENTS: u64 = 20_000;

/// Blocks whose digests are kept: small segments of neighbours share one.
const BLOCKS_KEPT: usize = 1 << 16;

/// Blocks that are read at a time.
const READERS: usize = 4;

/// The table of the session with what the engine tells of one of the exported.
const SEGMENTS: &str = "temp.main.bkp_segments";

/// What is told of a segment, in this order, by the engine: see [`Segment`]. Texts that may be long are hashed
/// by it, for there may be as many of them as there are segments.
const TOLD: &str = "row_group_id, column_id, column_path, count, compression, block_id, additional_block_ids, persistent IS TRUE AND has_updates IS FALSE, segment_type IN ({exact}) OR starts_with(segment_type, 'DECIMAL('), segment_type IN ('TIME', 'TIME WITH TIME ZONE', 'INTERVAL') OR starts_with(segment_type, 'ENUM(') OR starts_with(segment_type, 'MAP(') OR ends_with(segment_type, '[]'), segment_id, start, block_offset, sha256(column_name), sha256(segment_type), sha256(stats), sha256(segment_info)";

/// How many fields [`TOLD`] has.
const TOLD_FIELDS: usize = 17;

/// The places of those of them that a digest has: neither the number of the row group, nor that of the own block, says
/// anything, others are named by their numbers.
const DIGESTED: [usize; 12] = [1, 2, 3, 4, 6, 10, 11, 12, 13, 14, 15, 16];

/// Bytes that the engine may take outside of its limit to list segments.
const LISTING_BYTES_MAX: u64 = 1 << 30;

/// Bytes of a segment in such a list, beside its texts.
const SEGMENT_BYTES: u64 = 400;

/// Rows of the smallest row groups that a database can be told to have.
const ROW_GROUP_ROWS_MIN: u64 = 2048;

/// Bytes of the name of a column and of its type: the engine spells out both for each segment.
const TEXT_BYTES_MAX: usize = 4096;

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

/// Whether the engine can list the segments of a table of so many rows, and in how much memory.
pub(super) fn is_listable(table: &TableEntry, rows: u64) -> bool {
    // It does not find names with a quotation mark, or finds another table.
    let is_found = ![&table.schema, &table.name].into_iter().any(|name| name.contains('"'));
    let texts = |column: &Column| column.name.len() + column.data_type.len();
    let is_short = table.columns.iter().all(|column| texts(column) <= TEXT_BYTES_MAX);
    // Values, and what marks NULLs, of a column and of each part of a nested one.
    let segments = |column: &Column| 2 * (1 + column.data_type.matches(',').count()) as u64;
    let bytes = |column: &Column| segments(column) * (SEGMENT_BYTES + texts(column) as u64);
    let row_group: u64 = table.columns.iter().map(bytes).sum();
    let listing = rows.div_ceil(ROW_GROUP_ROWS_MIN).saturating_mul(row_group);
    is_found && is_short && listing <= LISTING_BYTES_MAX
}

/// Where a table is stored.
pub(super) struct StoredTable<'a> {
    pub(super) session: &'a Session,
    pub(super) table: &'a TableEntry,
    /// The file that the session has open.
    pub(super) file: &'a File,
    pub(super) headers: &'a Headers,
    /// Stands in front of all that is hashed: whoever writes the database does not know it, and cannot look for
    /// blocks that have one digest.
    pub(super) key: &'a str,
    pub(super) ctx: &'a Ctx,
}

impl StoredTable<'_> {
    /// The row groups in their order; nothing if that cannot be told.
    ///
    /// # Errors
    /// What the engine or the system says.
    pub(super) fn row_groups(&self) -> anyhow::Result<Option<Vec<StoredRows>>> {
        let exact = EXACT.map(sql::text).join(", ");
        let told = TOLD.replace("{exact}", &exact);
        let here = sql::text(&self.table.here());
        let created = self.session.attempt(&format!(
            "CREATE OR REPLACE TEMP TABLE bkp_segments AS SELECT {told} FROM pragma_storage_info({here})"
        ));
        let created = created.map_err(|why| anyhow::anyhow!("the engine does not tell: {why}"));
        let found = created.and_then(|()| self.listed());
        // The engine drops it at the end in any case.
        let _dropped = self.session.attempt(&format!("DROP TABLE IF EXISTS {SEGMENTS}"));
        found
    }

    fn listed(&self) -> anyhow::Result<Option<Vec<StoredRows>>> {
        let (session, table) = (self.session, self.table);
        let counts = format!("SELECT count(*), coalesce(max(row_group_id) + 1, 0) FROM {SEGMENTS}");
        let counts = session.rows(&counts)?;
        let count = |at| counts.first().and_then(|row| number(row, at)).unwrap_or_default();
        let (segments, row_groups) = (count(0), count(1));
        let page = (PAGE_SEGMENTS.saturating_mul(row_groups) / segments.max(1)).max(1);
        let mut blocks = BlockDigests::new(self)?;
        let mut found = Vec::new();
        for first in (0..row_groups).step_by(usize::try_from(page).unwrap_or(usize::MAX)) {
            let last = row_groups.min(first.saturating_add(page));
            let rows = session.rows(&format!(
                "FROM {SEGMENTS} WHERE row_group_id >= {first} AND row_group_id < {last} ORDER BY row_group_id, column_path, segment_id"
            ))?;
            let Some(segments) = rows.iter().map(Segment::parse).collect::<Option<Vec<_>>>() else {
                return Ok(None);
            };
            blocks.read(&segments)?;
            let row_groups = segments.chunk_by(|one, other| one.row_group == other.row_group);
            let stored = row_groups.zip(first..last).map(|(segments, expected)| {
                let number = segments.first().map(|segment| segment.row_group);
                let stored = row_group(segments, table.columns.len(), &blocks.known, self.key);
                stored.filter(|_| number == Some(expected))
            });
            let Some(stored) = stored.collect::<Option<Vec<_>>>() else { return Ok(None) };
            found.extend(stored);
            if found.len() as u64 != last {
                return Ok(None);
            }
        }
        Ok(Some(found))
    }
}

/// What the engine tells of a segment.
struct Segment<'a> {
    row_group: u64,
    column: u64,
    /// Which part of the column it is a segment of.
    path: &'a str,
    rows: u64,
    compression: &'a str,
    /// Its own block.
    block: Option<u64>,
    /// Those of long texts.
    further_blocks: Vec<u64>,
    /// Whether it is in the file as it is.
    is_whole: bool,
    /// Whether its type is one of [`EXACT`].
    is_exact: bool,
    /// Whether its values are otherwise as many bytes each: the segment of a list has only where each ends.
    is_fixed: bool,
    told: &'a TextRow,
}

impl Segment<'_> {
    fn parse(told: &TextRow) -> Option<Segment<'_>> {
        let block = field(told, 5);
        let further = field(told, 6).trim_start_matches('[').trim_end_matches(']').split(", ");
        let further = further.filter(|id| !id.is_empty()).map(|id| id.parse().ok());
        Some(Segment {
            row_group: number(told, 0)?,
            column: number(told, 1)?,
            path: field(told, 2),
            rows: number(told, 3)?,
            compression: field(told, 4),
            // One in memory has none either.
            block: if ["-1", ""].contains(&block) { None } else { Some(block.parse().ok()?) },
            further_blocks: further.collect::<Option<_>>()?,
            is_whole: field(told, 7) == "true",
            is_exact: field(told, 8) == "true",
            is_fixed: field(told, 9) == "true",
            told,
        })
        .filter(|_| told.len() == TOLD_FIELDS)
    }

    fn blocks(&self) -> impl Iterator<Item = u64> {
        self.block.into_iter().chain(self.further_blocks.iter().copied())
    }

    /// Whether all that it is decoded from is told, or in the blocks that are named.
    fn is_told(&self) -> bool {
        let is_constant = self.block.is_none() || self.compression == CONSTANT;
        let is_in_one_block = IN_ONE_BLOCK.contains(&self.compression);
        let is_in_metadata = self.is_exact && [CONSTANT, NO_MARKS].contains(&self.compression);
        self.is_whole
            && if is_constant {
                is_in_metadata
            } else {
                self.is_exact || self.is_fixed || is_in_one_block
            }
    }

    /// Adds what it is decoded from; false if that is not known.
    fn add(&self, blocks: &HashMap<u64, Checksum>, parts: &mut Parts) -> bool {
        for at in DIGESTED {
            let told = self.told.get(at).and_then(Option::as_deref);
            parts.number(u64::from(told.is_some()));
            parts.add(told.unwrap_or_default().as_bytes());
        }
        parts.number(self.blocks().count() as u64);
        let mut digests = self.blocks().map(|id| blocks.get(&id));
        self.is_told()
            && digests.all(|found| {
                found.inspect(|Checksum(found)| parts.add(&found.to_le_bytes())).is_some()
            })
    }
}

/// What the segments of a row group say; nothing if not even how many rows it has.
fn row_group(
    segments: &[Segment<'_>],
    columns: usize,
    blocks: &HashMap<u64, Checksum>,
    key: &str,
) -> Option<StoredRows> {
    let mut parts = Parts::default();
    parts.add(key.as_bytes());
    let mut known = true;
    // The values of a column, if it has any of its own, and what marks its NULLs.
    let mut values: BTreeMap<u64, u64> = BTreeMap::new();
    let mut marks: BTreeMap<u64, u64> = BTreeMap::new();
    for segment in segments {
        let column = segment.column;
        let counts = [(&mut values, format!("[{column}]")), (&mut marks, format!("[{column}, 0]"))];
        for (counts, path) in counts {
            if segment.path == path {
                let count = counts.entry(column).or_default();
                *count = count.checked_add(segment.rows)?;
            }
        }
        known &= segment.add(blocks, &mut parts);
    }
    let rows = *values.values().next()?;
    let is_consistent =
        marks.len() == columns && marks.values().chain(values.values()).all(|other| *other == rows);
    is_consistent.then(|| StoredRows { rows, digest: known.then(|| parts.digest()) })
}

/// Digests of the blocks of a file, by their numbers.
struct BlockDigests<'a> {
    of: &'a StoredTable<'a>,
    /// Bytes of the file.
    file_bytes: u64,
    known: HashMap<u64, Checksum>,
}

impl<'a> BlockDigests<'a> {
    fn new(of: &'a StoredTable<'a>) -> anyhow::Result<BlockDigests<'a>> {
        Ok(BlockDigests { of, file_bytes: of.file.metadata()?.len(), known: HashMap::new() })
    }

    /// Reads the blocks that segments are in; those that the file does not have stay unknown.
    fn read(&mut self, segments: &[Segment<'_>]) -> anyhow::Result<()> {
        if self.known.len() > BLOCKS_KEPT {
            self.known.clear();
        }
        let StoredTable { file, headers, key, ctx, .. } = self.of;
        let is_there = |block: &u64| {
            let end = headers.block_offset(*block).saturating_add(headers.block_bytes());
            *block < headers.block_count() && end <= self.file_bytes
        };
        let wanted: BTreeSet<u64> = segments.iter().flat_map(Segment::blocks).collect();
        let wanted = wanted.into_iter().filter(is_there);
        let wanted: Vec<u64> = wanted.filter(|block| !self.known.contains_key(block)).collect();
        let block_bytes = usize::try_from(headers.block_bytes())?;
        let piece = wanted.len().div_ceil(READERS).clamp(1, 64);
        let pieces: Vec<&[u64]> = wanted.chunks(piece).collect();
        let read = each_of_few(&pieces, READERS, &ctx.cancel, |piece| {
            let mut keyed = key.as_bytes().to_vec();
            keyed.resize(key.len() + block_bytes, 0);
            let mut found = Vec::new();
            for block in *piece {
                let (_key, bytes) = keyed.split_at_mut(key.len());
                file.read_exact_at(bytes, headers.block_offset(*block))?;
                found.push((*block, digest(&keyed)));
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

    /// A segment of a column: compression, block, whether its type is exact, statistics.
    fn segment_of(column: u64, path: &str, told: [&str; 4]) -> TextRow {
        let [compression, block, exact, stats] = told;
        let column = column.to_string();
        let row = [
            "0",
            &column,
            path,
            "10",
            compression,
            block,
            "[]",
            "true",
            exact,
            "false",
            "0",
            "0",
            "0",
            "column",
            "type",
            stats,
            "",
        ];
        row.map(|text| Some(text.to_owned())).to_vec()
    }

    /// Two columns, one of them with one value.
    fn segments() -> Vec<TextRow> {
        const MARKS: [&str; 4] = ["Constant", "-1", "true", "[Has Null: false]"];
        vec![
            segment_of(0, "[0]", ["FSST", "3", "false", "[Min: a, Max: b]"]),
            segment_of(0, "[0, 0]", MARKS),
            segment_of(1, "[1]", ["Constant", "-1", "true", "[Min: 5, Max: 5]"]),
            segment_of(1, "[1, 0]", MARKS),
        ]
    }

    fn told(rows: &[TextRow], blocks: &[(u64, u128)], key: &str) -> Option<StoredRows> {
        let segments = rows.iter().map(Segment::parse).collect::<Option<Vec<_>>>()?;
        let blocks = blocks.iter().map(|(id, digest)| (*id, Checksum(*digest))).collect();
        row_group(&segments, 2, &blocks, key)
    }

    fn changed(at: usize, changes: &[(usize, &str)]) -> Option<StoredRows> {
        let mut rows = segments();
        for (field, text) in changes {
            rows[at][*field] = Some((*text).to_owned());
        }
        told(&rows, &[(3, 7), (4, 9)], "key")
    }

    #[test]
    fn whatever_is_told_of_a_segment_counts_but_where_its_block_is() {
        let same = told(&segments(), &[(3, 7)], "key").expect("rows");
        assert_eq!(same.rows, 10);
        assert!(same.digest.is_some());
        assert_ne!(told(&segments(), &[(3, 8)], "key").expect("rows").digest, same.digest);
        assert_ne!(told(&segments(), &[(3, 7)], "other").expect("rows").digest, same.digest);
        let mut elsewhere = segments();
        elsewhere[0][5] = Some("5".into());
        assert_eq!(told(&elsewhere, &[(5, 7)], "key").expect("rows").digest, same.digest);
        for (at, field, text) in [
            (2, 15, "[Min: 6, Max: 6]"),
            (0, 4, "DICT_FSST"),
            (0, 6, "[4]"),
            (0, 12, "8"),
            (0, 14, "other"),
            (1, 15, "[Has Null: true]"),
        ] {
            let other = changed(at, &[(field, text)]).expect("rows");
            assert!(other.digest.is_some() && other.digest != same.digest, "{at} {field} {text}");
        }
    }

    #[test]
    fn what_is_not_all_told_has_no_digest() {
        for (at, changes) in [
            // Not in the file as it is.
            (0, &[(7, "false")][..]),
            (0, &[(7, "false"), (5, "")]),
            // A block that was not read.
            (0, &[(5, "5")]),
            (0, &[(6, "[3, 6]")]),
            // One value of a type that is not told exactly, or in another way.
            (0, &[(5, "-1")]),
            (0, &[(4, "Constant")]),
            (2, &[(8, "false")]),
            (2, &[(4, "Uncompressed")]),
            // Texts that may go on in blocks that are not listed.
            (0, &[(4, "Uncompressed")]),
            (0, &[(4, "ZSTD")]),
            (0, &[(4, "Empty Validity"), (5, "-1")]),
        ] {
            let found = changed(at, changes).expect("rows");
            assert!(found.digest.is_none(), "{at} {changes:?}");
        }
        for (at, changes) in [
            (0, &[(4, "Uncompressed"), (8, "true")][..]),
            (0, &[(4, "Uncompressed"), (9, "true")]),
            (1, &[(4, "Empty Validity")]),
        ] {
            let found = changed(at, changes).expect("rows");
            assert!(found.digest.is_some(), "{at} {changes:?}");
        }
        // Not even how many rows there are, or where.
        for changes in [&[(3, "11")][..], &[(3, "-1")], &[(6, "[3, x]")], &[(5, "x")]] {
            assert!(changed(0, changes).is_none(), "{changes:?}");
            assert!(changed(1, changes).is_none(), "{changes:?}");
        }
        assert!(changed(1, &[(2, "[0, 1]")]).is_none());
        assert!(told(&segments()[..2], &[(3, 7)], "key").is_none());
        let mut more = segments();
        for row in &mut more {
            row[3] = Some(u64::MAX.to_string());
        }
        more.push(more[0].clone());
        assert!(told(&more, &[(3, 7)], "key").is_none());
    }

    #[test]
    fn only_what_the_engine_finds_and_has_memory_for_is_listed() {
        let table = |name: &str, data_type: &str| -> TableEntry {
            let content = serde_json::json!({ "rows": 0, "sum": "0", "xor": "0" });
            let columns = serde_json::json!([{ "name": "c", "data_type": data_type }]);
            let table = serde_json::json!({ "schema": "main", "name": name, "columns": columns,
                "key": null, "parents": [], "own": [], "content": content, "data": null, "full": true,
                "rows_member": null });
            serde_json::from_value(table).expect("a table")
        };
        assert!(is_listable(&table("t", "BIGINT"), 1 << 30));
        assert!(!is_listable(&table("t", "BIGINT"), 1 << 33));
        assert!(!is_listable(&table("a\"b", "BIGINT"), 200_000));
        assert!(!is_listable(&table("t", &"x".repeat(5000)), 200_000));
        assert!(!is_listable(&table("t", &"x".repeat(4000)), 1 << 29));
        let fields = vec!["f INTEGER"; 200].join(", ");
        assert!(!is_listable(&table("t", &format!("STRUCT({fields})")), 10_000_000));
    }
}
