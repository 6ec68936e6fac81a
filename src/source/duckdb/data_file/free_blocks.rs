//! The list of free blocks, which is stored in blocks of the file itself. Nothing refers to the content
//! of free blocks.

use std::collections::BTreeSet;

use crate::source::duckdb::attempt_error::{AttemptError, Cause};
use crate::source::duckdb::data_file::database::Database;
use crate::source::duckdb::data_file::format::{Headers, UNIT_BYTES, is_whole, number};

/// The blocks that the headers list as free.
pub(crate) fn blocks(
    database: &Database,
    headers: &Headers,
) -> Result<BTreeSet<u64>, AttemptError> {
    let mut bytes = Vec::new();
    let mut next = headers.free_list();
    // The count of blocks is the header's word, so it bounds nothing: a list that comes back to a piece
    // of itself would be read until memory ends.
    let mut pieces_read = BTreeSet::new();
    let mut wanted = 8;
    while let Some(pointer) = next.filter(|_| bytes.len() < wanted) {
        let mut block = vec![0; usize::try_from(headers.block_bytes()).unwrap_or(UNIT_BYTES)];
        database.read(&mut block, headers.block_offset(pointer.block))?;
        let piece = pointer.read(&block).filter(|_| is_whole(&block));
        let Some((piece, following)) = piece.filter(|_| pieces_read.insert(pointer)) else {
            let why = format!("the list of free blocks in block {} is torn", pointer.block);
            return Err(AttemptError::Again(Cause::Torn, why));
        };
        bytes.extend_from_slice(piece);
        next = following;
        let count = number(&bytes, 0).min(headers.block_count());
        wanted = usize::try_from(count).unwrap_or_default().saturating_add(1).saturating_mul(8);
    }
    let (words, _rest) = bytes.get(..wanted.min(bytes.len())).unwrap_or_default().as_chunks();
    Ok(words.iter().skip(1).map(|word| u64::from_le_bytes(*word)).collect())
}
