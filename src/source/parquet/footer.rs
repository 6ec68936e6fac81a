//! What a Parquet file says of itself.
//!
//! Whoever can write to the folder writes footers, and they are read in the process that holds the keys. So this
//! reads no more of one than bkp needs: rows, and how deep columns are nested. It takes memory and stack that do
//! not depend on what the footer says. (Format: `parquet.thrift` of apache/parquet-format, in Thrift's compact
//! protocol.)

use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use parquet::file::reader::{FileReader as _, SerializedFileReader};

use super::path::RelativePath;
use super::thrift::Compact;

/// At the beginning and at the end.
const MAGIC: &[u8] = b"PAR1";
/// Magic of a file whose footer is encrypted.
const MAGIC_ENCRYPTED: &[u8] = b"PARE";
/// Length of the footer, and magic.
pub(super) const TAIL_BYTES: usize = 8;

/// Most bytes of a footer that is read: one of 1000 columns in 100 groups of rows has 10 MB.
pub(super) const FOOTER_BYTES_MAX: usize = 16 << 20;

/// Columns nested deeper are not read by a drill: the library recurses.
const NESTING_MAX: usize = 64;
/// With more columns and groups of them a drill reads no file: the library keeps the path of each.
const ELEMENTS_MAX: usize = 20_000;

/// Whether a file is a Parquet file by its name.
pub(super) fn is_parquet(path: &RelativePath) -> bool {
    let name = path.plain_name().to_ascii_lowercase();
    [".parquet", ".parq", ".pq"].iter().any(|ending| name.ends_with(ending))
}

/// What is at the end of a file that is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tail {
    /// A footer of so many bytes.
    Footer(usize),
    /// A footer that is encrypted, or too long to be read.
    Opaque,
}

/// What a footer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Footer {
    /// Rows.
    pub(super) rows: u64,
    /// How deep columns are nested.
    nesting: usize,
    /// Columns and groups of columns.
    elements: usize,
}

/// Reads the last [`TAIL_BYTES`] of a file of `length` bytes; an error says why it is not a whole file.
fn tail(last: &[u8], length: u64) -> Result<Tail, String> {
    let (size, magic) = last.split_at_checked(4).ok_or("it is too short for a footer")?;
    if magic == MAGIC_ENCRYPTED {
        return Ok(Tail::Opaque);
    }
    if magic != MAGIC {
        return Err("it has no footer".to_owned());
    }
    let size = size.iter().rev().fold(0_u64, |size, byte| size << 8 | u64::from(*byte));
    // The magic at the beginning, the footer, its length, the magic at the end.
    if size.saturating_add((TAIL_BYTES + MAGIC.len()) as u64) > length {
        return Err(format!("its footer of {size} bytes is longer than the file"));
    }
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    Ok(if size > FOOTER_BYTES_MAX { Tail::Opaque } else { Tail::Footer(size) })
}

/// Reads a footer; an error says what is wrong with it.
fn parse(footer: &[u8]) -> Result<Footer, String> {
    const SCHEMA: i64 = 2;
    const ROWS: i64 = 3;
    const CHILDREN: i64 = 5;
    let mut input = Compact(footer);
    let (mut rows, mut nesting, mut elements) = (None, 0, 0);
    // Of each group that is open: how many of its columns are still to come.
    let mut open: Vec<u64> = Vec::new();
    input.fields(&mut |input, id, kind| match id {
        ROWS => {
            rows = Some(input.integer(kind)?);
            Ok(())
        }
        SCHEMA => input.list(kind, &mut |input, kind| {
            let mut children = 0;
            input.structure(kind, &mut |input, id, kind| match id {
                CHILDREN => {
                    children = u64::try_from(input.integer(kind)?).unwrap_or(0);
                    Ok(())
                }
                _ => input.skip(kind),
            })?;
            elements += 1;
            while open.last() == Some(&0) {
                open.pop();
            }
            if let Some(left) = open.last_mut() {
                *left -= 1;
            }
            if children > 0 {
                open.push(children);
                nesting = nesting.max(open.len());
            }
            Ok(())
        }),
        _ => input.skip(kind),
    })?;
    let rows = rows.ok_or("its footer names no number of rows")?;
    let rows = u64::try_from(rows).map_err(|_negative| "it has a negative number of rows")?;
    Ok(Footer { rows, nesting, elements })
}

/// Reads the footer of a file that is whole: none where it is opaque. The inner error says why it is not whole.
///
/// # Errors
/// What `read_at` fails with.
pub(super) fn of_file(
    length: u64,
    read_at: &dyn Fn(&mut [u8], u64) -> io::Result<()>,
) -> io::Result<Result<Option<Footer>, String>> {
    let mut last = [0; TAIL_BYTES];
    let Some(tail_at) = length.checked_sub(TAIL_BYTES as u64) else {
        return Ok(Err("it is too short for a footer".to_owned()));
    };
    read_at(&mut last, tail_at)?;
    let bytes = match tail(&last, length) {
        Ok(Tail::Footer(bytes)) => bytes,
        Ok(Tail::Opaque) => return Ok(Ok(None)),
        Err(why) => return Ok(Err(why)),
    };
    let mut footer = vec![0; bytes];
    read_at(&mut footer, tail_at.saturating_sub(bytes as u64))?;
    Ok(parse(&footer).map(Some))
}

/// Reads and decompresses every page of a file, and returns its rows.
///
/// # Errors
/// What is wrong with it, or why it is not read.
pub(super) fn read_all(file: File) -> Result<u64, String> {
    use std::os::unix::fs::FileExt as _;
    let length = file.metadata().map_err(|error| error.to_string())?.len();
    let footer = of_file(length, &|bytes, at| file.read_exact_at(bytes, at));
    let footer = footer.map_err(|error| error.to_string())??.ok_or("its footer is not readable")?;
    if footer.nesting > NESTING_MAX || footer.elements > ELEMENTS_MAX {
        let Footer { nesting, elements, .. } = footer;
        return Err(format!("not read: {elements} columns and groups, nested {nesting} deep"));
    }
    guarded(|| {
        let reader = SerializedFileReader::new(file)?;
        let mut rows = 0;
        for group in 0..reader.num_row_groups() {
            let group = reader.get_row_group(group)?;
            for column in 0..group.num_columns() {
                let mut values = 0;
                for page in group.get_column_page_reader(column)? {
                    let page = page?;
                    values += if page.is_data_page() { i64::from(page.num_values()) } else { 0 };
                }
                let expected = group.metadata().column(column).num_values();
                if values != expected {
                    let text = format!("a column has {values} values instead of {expected}");
                    return Err(parquet::errors::ParquetError::General(text));
                }
            }
            rows += group.metadata().num_rows();
        }
        Ok(u64::try_from(rows).unwrap_or(0))
    })
}

/// What the crate makes of bytes that anybody may have written: an error, also where it panics.
fn guarded<T>(read: impl FnOnce() -> parquet::errors::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(read) => read.map_err(|error| error.to_string()),
        Err(_panic) => Err("its pages cannot be read".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_footer_that_does_not_fit_is_named() {
        assert_eq!(tail(b"\x05\0\0\0PAR1", 100), Ok(Tail::Footer(5)));
        assert_eq!(tail(b"\x05\0\0\0PAR1", 17), Ok(Tail::Footer(5)));
        assert!(tail(b"\x05\0\0\0PAR1", 16).is_err());
        assert!(tail(b"\xff\xff\xff\xffPAR1", u64::MAX) == Ok(Tail::Opaque));
        assert!(tail(b"\x05\0\0\0PAR2", 100).is_err());
        assert!(tail(b"", 0).is_err());
        assert_eq!(tail(b"\x05\0\0\0PARE", 100), Ok(Tail::Opaque));
        assert!(parse(b"nothing that thrift knows").is_err());
    }

    /// A root with `depth` groups in each other and a column in the last: version, schema, rows.
    fn nested(depth: u8) -> Vec<u8> {
        let mut bytes = vec![0x15, 0x02, 0x19, 0xfc, depth + 1];
        for _ in 0..depth {
            // The name and the number of children of a group.
            bytes.extend_from_slice(&[0x48, 0x01, b'g', 0x15, 0x02, 0x00]);
        }
        bytes.extend_from_slice(&[0x48, 0x01, b'c', 0x00, 0x16, 0x54, 0x00]);
        bytes
    }

    #[test]
    fn rows_and_nesting_are_read() {
        let footer = parse(&nested(100)).unwrap();
        assert_eq!(footer, Footer { rows: 42, nesting: 100, elements: 101 });
        let whole = nested(3);
        for end in 0..whole.len() - 1 {
            assert!(parse(&whole[..end]).is_err(), "{end}");
        }
    }
}
