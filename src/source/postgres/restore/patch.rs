//! Changed blocks, put into the file that they belong to.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;

use crate::error::{Fault, Kind};
use crate::source::postgres::block_map::{BLOCK_BYTES, BLOCKS_MAX, ChangedBlocks};

/// What PostgreSQL's own files of changed blocks begin with (`src/include/backup/basebackup_incremental.h`).
const MAGIC: u32 = 0xd3ae_1f0d;
/// Most bytes of a part of a file whose changed blocks bkp stores, and of their numbers.
const PART_BYTES_MAX: u64 = (2048 * (BLOCK_BYTES as u64 + 4)) + 4;

fn broken(why: &str) -> anyhow::Error {
    Fault::new(Kind::Integrity, format!("changed blocks cannot be read: {why}")).into()
}

fn number(input: &mut dyn Read) -> io::Result<u32> {
    let mut bytes = [0; 4];
    input.read_exact(&mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}

/// Puts what a server's own file of changed blocks has into `file`, as `pg_combinebackup` does: three numbers (a
/// magic one, how many blocks, the least length of the file in blocks), the blocks' numbers, zeros up to a whole
/// block if there are any, the blocks.
///
/// Blocks from the least length on that are not here do not exist any more, or not yet.
///
/// # Errors
/// [`Kind::Integrity`] if it is no such file; what reading and writing fail with.
pub(super) fn native(file: &File, input: &mut dyn Read) -> anyhow::Result<()> {
    if number(input)? != MAGIC {
        return Err(broken("they do not begin with PostgreSQL's magic number"));
    }
    let (count, least) = (number(input)?, number(input)?);
    if u64::from(count.max(least)) > BLOCKS_MAX {
        return Err(broken("they are more than a file has"));
    }
    let mut numbers = vec![0; usize::try_from(count)? * 4];
    input.read_exact(&mut numbers)?;
    let header = (12 + numbers.len()) as u64;
    if count > 0 {
        let rest = header.next_multiple_of(BLOCK_BYTES as u64) - header;
        io::copy(&mut input.take(rest), &mut io::sink())?;
    }
    file.set_len(u64::from(least) * BLOCK_BYTES as u64)?;
    let mut block = vec![0; BLOCK_BYTES];
    let (numbers, _) = numbers.as_chunks::<4>();
    for number in numbers {
        let number = u32::from_le_bytes(*number);
        if u64::from(number) >= BLOCKS_MAX {
            return Err(broken("one stands beyond the end of any file"));
        }
        input.read_exact(&mut block)?;
        file.write_all_at(&block, u64::from(number) * BLOCK_BYTES as u64)?;
    }
    // Of a server with blocks of another size there would be more.
    if input.read(&mut block)? > 0 {
        return Err(broken("there are more bytes than blocks"));
    }
    Ok(())
}

/// Puts changed blocks of a part of a file, as bkp stores them, into `file`; the part begins with block `first`.
///
/// # Errors
/// As [`native`].
pub(super) fn own(file: &File, first: u64, input: &mut dyn Read) -> anyhow::Result<()> {
    let mut bytes = Vec::new();
    input.take(PART_BYTES_MAX).read_to_end(&mut bytes)?;
    ChangedBlocks::decode(&bytes, &mut |number, block| {
        let at = first.saturating_add(number.into());
        if at >= BLOCKS_MAX {
            return Err(broken("one stands beyond the end of any file"));
        }
        Ok(file.write_all_at(block, at * BLOCK_BYTES as u64)?)
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    /// A file of changed blocks as a server writes it.
    fn incremental(blocks: &[(u32, u8)], least: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        let count = u32::try_from(blocks.len()).unwrap();
        for number in [MAGIC, count, least].into_iter().chain(blocks.iter().map(|block| block.0)) {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        if count > 0 {
            bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
        }
        for (_, byte) in blocks {
            bytes.extend(vec![*byte; BLOCK_BYTES]);
        }
        bytes
    }

    fn content(file: &File) -> Vec<u8> {
        let length = file.metadata().unwrap().len();
        let firsts = (0..length).step_by(BLOCK_BYTES).map(|at| {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            byte[0]
        });
        firsts.collect()
    }

    #[test]
    fn blocks_are_replaced_added_and_cut_off() {
        let mut file = tempfile::tempfile().unwrap();
        for byte in [1_u8, 2, 3, 4] {
            file.write_all(&[byte; BLOCK_BYTES]).unwrap();
        }
        native(&file, &mut incremental(&[], 4).as_slice()).unwrap();
        assert_eq!(content(&file), [1, 2, 3, 4]);
        native(&file, &mut incremental(&[(1, 7), (5, 9)], 3).as_slice()).unwrap();
        assert_eq!(content(&file), [1, 7, 3, 0, 0, 9]);
        native(&file, &mut incremental(&[], 1).as_slice()).unwrap();
        assert_eq!(content(&file), [1]);
        assert!(native(&file, &mut [0_u8; 12].as_slice()).is_err());
        let mut longer = incremental(&[(0, 5)], 1);
        longer.push(0);
        assert!(native(&file, &mut longer.as_slice()).is_err());
        assert!(native(&file, &mut incremental(&[(u32::MAX, 7)], 3).as_slice()).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fail_otherwise(head in 0..3_usize, bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let file = tempfile::tempfile().unwrap();
            let magic = MAGIC.to_le_bytes();
            let input = [if head == 0 { &[] } else { magic.as_slice() }, &bytes].concat();
            let _any = native(&file, &mut input.as_slice());
            let _any = own(&file, 0, &mut bytes.as_slice());
        }
    }
}
