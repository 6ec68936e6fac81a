//! Hashes of the blocks of every file of a base backup, so that the next one stores only blocks that have changed,
//! although an older server sends everything.
//!
//! The object is a line of JSON for itself, and one for each file, in the order of the backup. A hash has 16 bytes,
//! made with a random key of the chain, so that nobody who writes to the database can make two blocks of the same
//! hash. Neither this map nor that of the parent is ever in memory as a whole: they are files of a scratch folder.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileExt as _;

use aegis::aegis128l::Aegis128L;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use serde::{Deserialize, Serialize};

use crate::domain::hex::{hex, unhex};
use crate::error::{Fault, Kind};
use crate::source::MapWriter;

/// Bytes of a block of PostgreSQL.
pub(super) const BLOCK_BYTES: usize = 8192;
/// Bytes of a hash.
pub(super) const SUM_BYTES: usize = 16;
/// Blocks of the longest file that is compared by blocks: 1 GiB, as long as a server makes one of a table. Longer ones,
/// such as its messages, are stored whole each time.
pub(super) const BLOCKS_MAX: u64 = 1 << 17;
const FORMAT: &str = "bkp.postgres-map/1";
/// Longest line that is read: that of a file of 1 GiB takes 3 MiB.
const LINE_BYTES_MAX: u64 = 8 << 20;

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    format: String,
    /// Hex.
    key: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct FileLine {
    member: String,
    bytes: u64,
    /// The hashes of its blocks, one after the other, base64.
    sums: String,
}

/// Hashes blocks.
#[derive(Clone)]
pub(super) struct BlockHasher {
    key: [u8; 16],
}

impl std::fmt::Debug for BlockHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlockHasher").finish_non_exhaustive()
    }
}

impl BlockHasher {
    /// With a new key.
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub(super) fn generate() -> anyhow::Result<BlockHasher> {
        let mut key = [0; 16];
        getrandom::fill(&mut key)?;
        Ok(BlockHasher { key })
    }

    /// Appends the hashes of the blocks of `bytes` to `sums`.
    pub(super) fn sums(&self, bytes: &[u8], sums: &mut Vec<u8>) {
        for block in bytes.chunks(BLOCK_BYTES) {
            let (_empty, tag) =
                Aegis128L::<SUM_BYTES>::new(&self.key, &[0; 16]).encrypt(&[], block);
            sums.extend_from_slice(&tag);
        }
    }
}

/// The map of the backup that is being made.
#[derive(Debug)]
pub(super) struct NewMap {
    out: BufWriter<File>,
    file: File,
}

impl NewMap {
    /// Begins it in an empty file.
    ///
    /// # Errors
    /// What the file system says.
    pub(super) fn begin(file: File, hasher: &BlockHasher) -> anyhow::Result<NewMap> {
        let mut map = NewMap { out: BufWriter::new(file.try_clone()?), file };
        map.line(&Header { format: FORMAT.to_owned(), key: hex(&hasher.key) })?;
        Ok(map)
    }

    fn line(&mut self, line: &impl Serialize) -> anyhow::Result<()> {
        serde_json::to_writer(&mut self.out, line)?;
        Ok(self.out.write_all(b"\n")?)
    }

    /// Whether a file of this size is compared by its blocks.
    pub(super) fn takes(bytes: u64) -> bool {
        bytes <= BLOCKS_MAX * BLOCK_BYTES as u64
    }

    /// Adds a file.
    ///
    /// # Errors
    /// What the file system says.
    pub(super) fn add(&mut self, member: &str, bytes: u64, sums: &[u8]) -> anyhow::Result<()> {
        self.line(&FileLine { member: member.to_owned(), bytes, sums: BASE64.encode(sums) })
    }

    /// What writes it into its object.
    ///
    /// # Errors
    /// What the file system says.
    pub(super) fn finish(mut self) -> anyhow::Result<MapWriter> {
        self.out.flush()?;
        Ok(copy_of(self.file))
    }
}

/// Copies a file from its beginning, however often.
pub(super) fn copy_of(file: File) -> MapWriter {
    Box::new(move |out| {
        let (mut at, mut chunk) = (0, vec![0; 256 << 10]);
        loop {
            let count = file.read_at(&mut chunk, at)?;
            let read = chunk.get(..count).unwrap_or_default();
            if read.is_empty() {
                return Ok(());
            }
            out.write_all(read)?;
            at += count as u64;
        }
    })
}

/// The map of the backup that is built on.
#[derive(Debug)]
pub(super) struct ParentSums {
    file: File,
    places: HashMap<String, (u64, usize)>,
    /// What hashed it.
    pub(super) hasher: BlockHasher,
}

impl ParentSums {
    /// Reads it into a file, which holds it from then on.
    ///
    /// # Errors
    /// [`Kind::Integrity`] if it is not one.
    pub(super) fn read(input: &mut dyn Read, file: File) -> anyhow::Result<ParentSums> {
        let broken = |why: &str| {
            Fault::new(Kind::Integrity, format!("the block map of the backup is not valid: {why}"))
        };
        let mut input = BufReader::with_capacity(256 << 10, input);
        let mut line = Vec::new();
        let next = |input: &mut BufReader<_>, line: &mut Vec<u8>| -> io::Result<bool> {
            line.clear();
            Read::take(input, LINE_BYTES_MAX).read_until(b'\n', line)?;
            Ok(!line.is_empty())
        };
        next(&mut input, &mut line)?;
        let header: Header =
            serde_json::from_slice(&line).map_err(|error| broken(&error.to_string()))?;
        let key = unhex(header.key.as_bytes()).and_then(|key| key.try_into().ok());
        let key = key.filter(|_key| header.format == FORMAT);
        let hasher = BlockHasher { key: key.ok_or_else(|| broken("it has another format"))? };
        let (mut places, mut at) = (HashMap::new(), 0);
        let mut out = BufWriter::new(file.try_clone()?);
        while next(&mut input, &mut line)? {
            let found: FileLine =
                serde_json::from_slice(&line).map_err(|error| broken(&error.to_string()))?;
            let sums = BASE64.decode(&found.sums).map_err(|_odd| broken("a hash is no base64"))?;
            out.write_all(&sums)?;
            places.insert(found.member, (at, sums.len()));
            at += sums.len() as u64;
        }
        out.flush()?;
        Ok(ParentSums { file, places, hasher })
    }

    /// Whether the backup has this file.
    pub(super) fn has(&self, member: &str) -> bool {
        self.places.contains_key(member)
    }

    /// The hashes of up to `blocks` blocks of a file from the block `first` on; of blocks that it does not have,
    /// none.
    ///
    /// # Errors
    /// What the file system says.
    pub(super) fn sums(
        &self,
        member: &str,
        first: usize,
        blocks: usize,
    ) -> anyhow::Result<Vec<u8>> {
        let Some((at, length)) = self.places.get(member) else { return Ok(Vec::new()) };
        let skipped = first.saturating_mul(SUM_BYTES).min(*length);
        let mut sums = vec![0; (blocks * SUM_BYTES).min(length - skipped)];
        self.file.read_exact_at(&mut sums, at + skipped as u64)?;
        Ok(sums)
    }
}

/// Blocks of a part of a file that have changed: their number, which ones they are, counted from the first one of
/// the part, and the blocks.
#[derive(Debug, Default)]
pub(super) struct ChangedBlocks {
    numbers: Vec<u8>,
    blocks: Vec<u8>,
}

impl ChangedBlocks {
    /// Those of `bytes` whose hashes in `sums` are not those in `before`.
    pub(super) fn of(bytes: &[u8], sums: &[u8], before: &[u8]) -> ChangedBlocks {
        let mut changed = ChangedBlocks::default();
        let known = before.chunks(SUM_BYTES).map(Some).chain(std::iter::repeat(None));
        let blocks = bytes.chunks(BLOCK_BYTES).zip(sums.chunks(SUM_BYTES)).zip(known);
        for (number, ((block, sum), known)) in (0_u32..).zip(blocks) {
            if known != Some(sum) {
                changed.numbers.extend_from_slice(&number.to_le_bytes());
                changed.blocks.extend_from_slice(block);
            }
        }
        changed
    }

    pub(super) fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// As they are stored.
    pub(super) fn encode(&self) -> Vec<u8> {
        let count = u32::try_from(self.numbers.len() / 4).unwrap_or(u32::MAX);
        [count.to_le_bytes().as_slice(), &self.numbers, &self.blocks].concat()
    }

    /// Shows each stored block to `put`, with its number.
    ///
    /// # Errors
    /// [`Kind::Integrity`] if that is not what [`ChangedBlocks::encode`] writes; what `put` fails with.
    pub(super) fn decode(
        bytes: &[u8],
        put: &mut dyn FnMut(u32, &[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let broken = || Fault::new(Kind::Integrity, "changed blocks are cut off");
        let (count, rest) = bytes.split_first_chunk::<4>().ok_or_else(broken)?;
        let count = usize::try_from(u32::from_le_bytes(*count))?;
        let numbers = count.checked_mul(4).ok_or_else(broken)?;
        let (numbers, blocks) = rest.split_at_checked(numbers).ok_or_else(broken)?;
        let (numbers, _) = numbers.as_chunks::<4>();
        let mut blocks = blocks.chunks(BLOCK_BYTES);
        for number in numbers {
            put(u32::from_le_bytes(*number), blocks.next().ok_or_else(broken)?)?;
        }
        if blocks.next().is_some() { Err(broken().into()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scratch() -> File {
        tempfile::tempfile().unwrap()
    }

    #[test]
    fn a_map_reads_as_it_was_written() {
        let hasher = BlockHasher::generate().unwrap();
        let mut map = NewMap::begin(scratch(), &hasher).unwrap();
        let mut sums = Vec::new();
        hasher.sums(&vec![7; 3 * BLOCK_BYTES + 1], &mut sums);
        assert_eq!(sums.len(), 4 * SUM_BYTES);
        map.add("data/a", 3 * 8192 + 1, &sums).unwrap();
        map.add("data/empty", 0, &[]).unwrap();
        let mut bytes = Vec::new();
        map.finish().unwrap()(&mut bytes).unwrap();
        let parent = ParentSums::read(&mut bytes.as_slice(), scratch()).unwrap();
        assert!(parent.has("data/empty") && !parent.has("data/b"));
        assert_eq!(parent.sums("data/a", 0, 100).unwrap(), sums);
        assert_eq!(parent.sums("data/a", 3, 1).unwrap(), sums[3 * SUM_BYTES..]);
        assert!(parent.sums("data/a", 4, 1).unwrap().is_empty());
        let mut again = Vec::new();
        parent.hasher.sums(&vec![7; 3 * BLOCK_BYTES + 1], &mut again);
        assert_eq!(again, sums);
        assert!(ParentSums::read(&mut b"{}\n".as_slice(), scratch()).is_err());
    }

    proptest! {
        #[test]
        fn changed_blocks_make_the_new_out_of_the_old(
            old in prop::collection::vec(0_u8..3, 0..6), new in prop::collection::vec(0_u8..3, 0..6), tail in 0..BLOCK_BYTES
        ) {
            let hasher = BlockHasher::generate().unwrap();
            let file = |blocks: &[u8], tail| {
                let mut bytes: Vec<u8> = blocks.iter().flat_map(|byte| vec![*byte; BLOCK_BYTES]).collect();
                bytes.extend(vec![9; tail]);
                bytes
            };
            let (old, new) = (file(&old, 0), file(&new, tail));
            let (mut before, mut after) = (Vec::new(), Vec::new());
            hasher.sums(&old, &mut before);
            hasher.sums(&new, &mut after);
            let changed = ChangedBlocks::of(&new, &after, &before);
            let mut built = old;
            built.resize(new.len(), 0);
            ChangedBlocks::decode(&changed.encode(), &mut |number, block| {
                let at = usize::try_from(number).unwrap() * BLOCK_BYTES;
                built[at..at + block.len()].copy_from_slice(block);
                Ok(())
            }).unwrap();
            prop_assert!(built == new);
        }

        #[test]
        fn no_bytes_make_it_fail_otherwise(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _any = ChangedBlocks::decode(&bytes, &mut |_, _| Ok(()));
            let _any = ParentSums::read(&mut bytes.as_slice(), scratch());
        }
    }
}
