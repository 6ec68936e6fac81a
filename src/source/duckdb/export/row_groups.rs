//! A Parquet file of which only some groups of rows are read: a file of the same size, in which the others are holes.
//!
//! The end of it tells where each group is. The engine skips groups by the numbers of their rows; if it ever did
//! look into a hole it would find no page there, and say so.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::pipeline::parts::ObjectParts;
use crate::source::duckdb::engine::{Session, TextRow};
use crate::source::duckdb::schema::{number, sql};

/// What ends a Parquet file: the length of the footer in front of it, and a mark, of four bytes each.
const TRAILER_BYTES: u64 = 8;
const MARK: &[u8; 4] = b"PAR1";

/// Where of each group of rows its pages are, and its filters, and how many rows it has. A dictionary is in front of
/// the pages that use it.
const GROUPS: &str = "SELECT any_value(row_group_num_rows), min(least(data_page_offset, if(dictionary_page_offset > 0, dictionary_page_offset, data_page_offset))), max(least(data_page_offset, if(dictionary_page_offset > 0, dictionary_page_offset, data_page_offset)) + total_compressed_size), coalesce(min(bloom_filter_offset), 0), coalesce(max(bloom_filter_offset + bloom_filter_length), 0) FROM parquet_metadata({file}) GROUP BY row_group_id ORDER BY row_group_id";

/// Puts the groups into a new file at `path`, in the folder of `session`, that have the rows in these `places`. False
/// if most of it would be read: that is better read as a whole, and its digest compared.
///
/// # Errors
/// What store, engine and system say.
pub(super) fn fetch(
    parts: &ObjectParts<'_>,
    places: &[Range<u64>],
    session: &Session,
    path: &Path,
) -> anyhow::Result<bool> {
    // The engine may keep what it has read of a file under its name.
    let footer = path.with_extension("footer");
    let file = File::options().read(true).write(true).create_new(true).open(&footer)?;
    file.set_len(parts.bytes())?;
    let groups = if fetch_footer(parts, &file)? {
        Some(session.rows(&GROUPS.replace("{file}", &sql::text(&session.path(&footer))))?)
    } else {
        None
    };
    let wanted = groups.and_then(|groups| wanted(&groups, places, parts.bytes()));
    let bytes =
        |ranges: &[Range<u64>]| ranges.iter().map(|part| part.end - part.start).sum::<u64>();
    let Some(wanted) = wanted.filter(|ranges| bytes(ranges) <= parts.bytes() / 2) else {
        std::fs::remove_file(&footer)?;
        return Ok(false);
    };
    for range in &wanted {
        parts.read(range, &mut |at, piece| file.write_all_at(piece, at))?;
    }
    std::fs::rename(&footer, path)?;
    Ok(true)
}

/// Puts the end of a file in its place; false if it is not the end of one.
fn fetch_footer(parts: &ObjectParts<'_>, file: &File) -> anyhow::Result<bool> {
    let bytes = parts.bytes();
    let Some(trailer_at) = bytes.checked_sub(TRAILER_BYTES) else { return Ok(false) };
    let mut place = |at, piece: &[u8]| file.write_all_at(piece, at);
    parts.read(&(trailer_at..bytes), &mut place)?;
    let (mut length, mut mark) = ([0; 4], [0; 4]);
    file.read_exact_at(&mut length, trailer_at)?;
    file.read_exact_at(&mut mark, trailer_at + 4)?;
    let begin = trailer_at.checked_sub(u32::from_le_bytes(length).into());
    let Some(begin) = begin.filter(|_| mark == *MARK) else { return Ok(false) };
    parts.read(&(begin..bytes), &mut place)?;
    Ok(true)
}

/// What of a file has the groups with the rows in these places, in order; nothing if the groups are not told, or not in
/// the file.
fn wanted(groups: &[TextRow], places: &[Range<u64>], bytes: u64) -> Option<Vec<Range<u64>>> {
    let mut found: Vec<Range<u64>> = Vec::new();
    let mut row = 0_u64;
    for group in groups {
        let [rows, begin, end, filter, filter_end] = [0, 1, 2, 3, 4].map(|at| number(group, at));
        let next = row.checked_add(rows?)?;
        if places.iter().any(|place| place.start < next && row < place.end) {
            found.extend([begin?..end?, filter?..filter_end?]);
        }
        row = next;
    }
    let is_within = |part: &Range<u64>| part.start <= part.end && part.end <= bytes;
    if !found.iter().all(is_within) || places.iter().any(|place| place.end > row) {
        return None;
    }
    found.retain(|part| !part.is_empty());
    found.sort_by_key(|part| part.start);
    let mut joined: Vec<Range<u64>> = Vec::new();
    for part in found {
        match joined.last_mut() {
            Some(last) if part.start <= last.end => last.end = last.end.max(part.end),
            _ => joined.push(part),
        }
    }
    Some(joined)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(told: [u64; 5]) -> TextRow {
        told.map(|number| Some(number.to_string())).to_vec()
    }

    #[test]
    fn groups_are_found_by_the_numbers_of_their_rows() {
        let groups = [
            group([100, 4, 50, 0, 0]),
            group([100, 50, 90, 300, 310]),
            group([100, 90, 200, 310, 320]),
            group([10, 200, 220, 320, 330]),
        ];
        let of = |places: &[(u64, u64)], bytes| {
            let places: Vec<_> = places.iter().map(|(start, end)| *start..*end).collect();
            let found = wanted(&groups, &places, bytes)?;
            Some(found.into_iter().map(|part| (part.start, part.end)).collect::<Vec<_>>())
        };
        assert_eq!(of(&[(0, 1)], 400), Some(vec![(4, 50)]));
        assert_eq!(of(&[(100, 101)], 400), Some(vec![(50, 90), (300, 310)]));
        assert_eq!(of(&[(199, 201), (309, 310)], 400), Some(vec![(50, 220), (300, 330)]));
        assert_eq!(of(&[], 400), Some(vec![]));
        assert_eq!(of(&[(300, 311)], 400), None, "rows that are not there");
        assert_eq!(of(&[(300, 310)], 329), None, "beyond the file");
        let refused = |groups: &[TextRow]| wanted(groups, &[0..1, 1..2], 10).is_none();
        assert!(refused(&[group([2, 9, 4, 0, 0])]));
        assert!(refused(&[vec![Some("2".into())]]));
        assert!(refused(&[group([u64::MAX, 0, 1, 0, 0]), group([2, 1, 2, 0, 0])]));
    }
}
