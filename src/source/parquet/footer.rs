//! What a Parquet file says of itself, read by the crate `parquet`.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};

use parquet::file::metadata::ParquetMetaDataReader;
use parquet::file::reader::{FileReader as _, SerializedFileReader};

use super::path::RelativePath;

/// Bytes before the length of the footer and the magic at the end.
const MAGIC: &[u8] = b"PAR1";
/// Magic of a file whose footer is encrypted.
const MAGIC_ENCRYPTED: &[u8] = b"PARE";
/// Length and magic.
const TAIL_BYTES: usize = 8;

/// Most bytes of a footer that is looked at: it may take a hundred times as much memory, and whoever can write to
/// the folder can write one. Real ones have some KiB; one of 1000 columns in 100 groups of rows has 10 MB.
pub(super) const FOOTER_BYTES_MAX: usize = 16 << 20;

/// Whether a file is a Parquet file by its name.
pub(super) fn is_parquet(path: &RelativePath) -> bool {
    let name = path.plain_name().to_ascii_lowercase();
    [".parquet", ".parq", ".pq"].iter().any(|ending| name.ends_with(ending))
}

/// What is at the end of a file that is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tail {
    /// A footer of so many bytes.
    Footer(usize),
    /// A footer that is encrypted, or too long to be looked at.
    Opaque,
}

/// Reads the last [`TAIL_BYTES`] of a file of `length` bytes; an error says why it is not a whole file.
pub(super) fn tail(last: &[u8], length: u64) -> Result<Tail, String> {
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

/// Rows, as a footer says; an error says what is wrong with it.
pub(super) fn rows(footer: &[u8]) -> Result<u64, String> {
    let metadata = guarded(|| ParquetMetaDataReader::decode_metadata(footer))?;
    u64::try_from(metadata.file_metadata().num_rows())
        .map_err(|_negative| "it has less than no rows".to_owned())
}

/// Rows of a file that is whole: `None` where its footer does not say. An error says why it is not whole.
pub(super) fn rows_of(
    length: u64,
    read_at: &dyn Fn(&mut [u8], u64) -> std::io::Result<()>,
) -> Result<Option<u64>, String> {
    let read = |bytes: &mut [u8], at: u64| read_at(bytes, at).map_err(|error| error.to_string());
    let mut last = [0; TAIL_BYTES];
    let tail_at = length.checked_sub(TAIL_BYTES as u64).ok_or("it is too short for a footer")?;
    read(&mut last, tail_at)?;
    let Tail::Footer(bytes) = tail(&last, length)? else { return Ok(None) };
    let mut footer = vec![0; bytes];
    read(&mut footer, tail_at.saturating_sub(bytes as u64))?;
    rows(&footer).map(Some)
}

/// Reads and decompresses every page of a file, and returns its rows.
///
/// # Errors
/// What is wrong with it.
pub(super) fn read_all(file: File) -> Result<u64, String> {
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
        Err(_panic) => Err("its footer cannot be read".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_footer_that_does_not_fit_is_told() {
        assert_eq!(tail(b"\x05\0\0\0PAR1", 100), Ok(Tail::Footer(5)));
        assert_eq!(tail(b"\x05\0\0\0PAR1", 17), Ok(Tail::Footer(5)));
        assert!(tail(b"\x05\0\0\0PAR1", 16).is_err());
        assert!(tail(b"\xff\xff\xff\xffPAR1", u64::MAX).is_err());
        assert!(tail(b"\x05\0\0\0PAR2", 100).is_err());
        assert!(tail(b"", 0).is_err());
        assert_eq!(tail(b"\x05\0\0\0PARE", 100), Ok(Tail::Opaque));
        assert!(rows(b"nothing that thrift knows").is_err());
    }
}
