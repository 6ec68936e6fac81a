//! The layout of a DuckDB file, storage versions v1.0.0 to v2.0.0, as DuckDB 2.0.0 defines it in
//! `storage_info.hpp`, `single_file_block_manager.cpp` and `metadata_manager.cpp`.
//!
//! ```text
//! 0      main header: checksum u64, "DUCK", version u64, flags 4 * u64, two version texts of 32
//!        bytes, encryption metadata (8 bytes), database id (16 bytes)
//! 4096   database header 1: checksum u64, iteration, meta block, free list, block count,
//!        block bytes, vector size, version (u64 each); the one with the higher iteration counts
//! 8192   database header 2
//! 12288  blocks, each beginning with the checksum of its rest
//! ```
//!
//! A checkpoint writes new blocks beside those in use, then the other database header; only then
//! are the old blocks free. What a header refers to is therefore not overwritten before the header
//! itself is, with one exception: blocks of metadata that have room are completed in place.
//!
//! All numbers are little-endian. In an encrypted file everything but the main header is opaque.

use crate::blockfile::map::Checksum;

/// Bytes of each of the three headers.
const HEADER_BYTES: usize = 4096;
/// Where the blocks begin, bytes: behind three headers.
pub(crate) const BLOCKS_AT: u64 = 3 * HEADER_BYTES as u64;
/// Bytes of the largest and usual block, and of the units in which files are captured.
pub(crate) const UNIT_BYTES: usize = 256 << 10;
/// Bytes of the smallest block.
const BLOCK_BYTES_MIN: u64 = 16 << 10;
/// Bytes at the beginning of a block that tell one state of it from another at a glance.
pub(crate) const GLANCE_BYTES: usize = 4096;
/// Pieces that a block of metadata is divided into.
const METADATA_PIECES: u64 = 64;
/// What a main header says since v2.0.0 in place of the version.
const VERSION_IN_DATABASE_HEADER: u64 = 999;

/// Where a unit begins, bytes.
pub(crate) fn unit_offset(unit: u64) -> u64 {
    BLOCKS_AT + unit * UNIT_BYTES as u64
}

/// The number that stands at `at`; 0 beyond the end.
pub(crate) fn number(bytes: &[u8], at: usize) -> u64 {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>());
    found.map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// DuckDB's checksum, computed piece by piece.
#[derive(Debug, Clone)]
pub(crate) struct BlockChecksum(u64);

impl BlockChecksum {
    /// The checksum of nothing.
    pub(crate) fn new() -> BlockChecksum {
        BlockChecksum(5381)
    }

    /// Adds bytes; only the last piece may have a length that is no multiple of 8.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        let word = |sum, word: &[u8; 8]| {
            sum ^ u64::from_le_bytes(*word).wrapping_mul(0xbf58_476d_1ce4_e5b9)
        };
        self.0 = words.iter().fold(self.0, word);
        if !rest.is_empty() {
            self.0 ^= remainder(rest);
        }
    }

    /// The checksum of everything added.
    pub(crate) fn value(&self) -> u64 {
        self.0
    }
}

/// The hash of the last one to seven bytes: `MurmurHash64A` with DuckDB's seed.
fn remainder(bytes: &[u8]) -> u64 {
    const M: u64 = 0xc6a4_a793_5bd1_e995;
    const R: u32 = 47;
    let mut hash = 0xe17a_1465 ^ (bytes.len() as u64).wrapping_mul(M);
    let tail = bytes.iter().rev().fold(0, |tail, byte| tail << 8 | u64::from(*byte));
    hash = (hash ^ tail).wrapping_mul(M);
    hash = (hash ^ hash >> R).wrapping_mul(M);
    hash ^ hash >> R
}

/// Whether bytes that begin with a checksum have it.
pub(crate) fn is_whole(block: &[u8]) -> bool {
    let mut sum = BlockChecksum::new();
    sum.add(block.get(8..).unwrap_or_default());
    block.len() > 8 && number(block, 0) == sum.value()
}

/// What identifies bytes in block maps: the first 16 bytes of their SHA-256.
pub(crate) fn digest(bytes: &[u8]) -> Checksum {
    use sha2::Digest as _;
    let hash: [u8; 32] = sha2::Sha256::digest(bytes).into();
    let first = hash.first_chunk::<16>().map_or(0, |first| u128::from_be_bytes(*first));
    // 0 stands for "no block" in a map.
    Checksum(first.max(1))
}

/// What is wrong with a file's headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HeaderError {
    /// It is something else than a file this module knows.
    Foreign(String),
    /// It is one, and a header is not what it should be: being written, or damaged.
    Torn(String),
}

/// The three headers of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Headers {
    raw: Vec<u8>,
    /// Where in `raw` the database header that counts begins; `None` in an encrypted file.
    active: Option<usize>,
}

impl Headers {
    /// Reads the first [`BLOCKS_AT`] bytes of a file.
    pub(crate) fn parse(raw: &[u8]) -> Result<Headers, HeaderError> {
        let foreign = |why: &str| Err(HeaderError::Foreign(why.to_owned()));
        if raw.get(8..12) != Some(b"DUCK") {
            return foreign("it is not a DuckDB database");
        }
        let Some(main) = raw.get(..HEADER_BYTES).filter(|_| raw.len() as u64 == BLOCKS_AT) else {
            return Err(HeaderError::Torn("it ends before its first block".into()));
        };
        if !is_whole(main) {
            return Err(HeaderError::Torn("its main header has a wrong checksum".into()));
        }
        let mut headers = Headers { raw: raw.to_vec(), active: None };
        if headers.is_encrypted() {
            return Ok(headers);
        }
        let whole = [2, 1]
            .map(|slot| slot * HEADER_BYTES)
            .into_iter()
            .filter(|at| raw.get(*at..at + HEADER_BYTES).is_some_and(is_whole));
        // DuckDB takes the first one only if its iteration is higher.
        let active = whole.max_by_key(|at| (number(raw, at + 8), *at));
        let Some(active) = active else {
            return Err(HeaderError::Torn(
                "both of its database headers have wrong checksums".into(),
            ));
        };
        headers.active = Some(active);
        if headers.version_number().is_none() {
            return foreign(&format!(
                "its storage version ({}, {}) is unknown to this bkp, which knows v1.0.0 to v2.0.0",
                number(raw, 12),
                headers.field(6)
            ));
        }
        let bytes = headers.block_bytes();
        if !bytes.is_power_of_two() || !(BLOCK_BYTES_MIN..=UNIT_BYTES as u64).contains(&bytes) {
            return foreign(&format!("it has blocks of {bytes} bytes"));
        }
        Ok(headers)
    }

    /// The bytes.
    pub(crate) fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// A field of the database header that counts.
    fn field(&self, index: usize) -> u64 {
        self.active.map_or(0, |active| number(&self.raw, active + 8 + 8 * index))
    }

    /// Whether the file is encrypted.
    pub(crate) fn is_encrypted(&self) -> bool {
        number(&self.raw, 20) & 1 == 1
    }

    /// How many checkpoints led to this header.
    pub(crate) fn iteration(&self) -> u64 {
        self.field(0)
    }

    /// Blocks that the file has, in use or free.
    pub(crate) fn block_count(&self) -> u64 {
        self.field(3)
    }

    /// Bytes of a block.
    pub(crate) fn block_bytes(&self) -> u64 {
        match self.field(4) {
            0 => UNIT_BYTES as u64,
            bytes => bytes,
        }
    }

    /// The number of the storage version, as DuckDB numbers them from 64 (v1.0.0) to 69 (v2.0.0);
    /// `None` for one that is not known.
    fn version_number(&self) -> Option<u64> {
        match (number(&self.raw, 12), self.field(6)) {
            (VERSION_IN_DATABASE_HEADER, 69) => Some(69),
            // Until v1.5 the database header has a number of its own, in old files even 64.
            (64..=68, 0..=3 | 64) => Some(64),
            (64..=68, own @ 4..=7) => Some(own + 61),
            _ => None,
        }
    }

    /// The storage version, `v1.0.0` to `v2.0.0`; `None` in an encrypted file.
    pub(crate) fn storage_version(&self) -> Option<&'static str> {
        self.active?;
        match self.version_number()? {
            64 => Some("v1.0.0"),
            65 => Some("v1.2.0"),
            66 => Some("v1.3.0"),
            67 => Some("v1.4.0"),
            68 => Some("v1.5.0"),
            _ => Some("v2.0.0"),
        }
    }

    /// The version of DuckDB that made the file.
    pub(crate) fn made_by(&self) -> String {
        let text = self.raw.get(52..84).unwrap_or_default();
        let text: Vec<u8> = text.iter().copied().take_while(u8::is_ascii_graphic).collect();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// The id of the database, hex; `None` where the version gives it none.
    pub(crate) fn database_id(&self) -> Option<String> {
        let id = self.raw.get(124..140)?;
        let known = id.iter().any(|byte| *byte != 0);
        known.then(|| crate::domain::manifest::hex(id))
    }

    /// Where the list of free blocks begins.
    pub(crate) fn free_list(&self) -> Option<Pointer> {
        self.active?;
        Pointer::parse(self.field(2))
    }

    /// Where in the file a block begins, bytes.
    pub(crate) fn block_offset(&self, block: u64) -> u64 {
        BLOCKS_AT.saturating_add(block.saturating_mul(self.block_bytes()))
    }
}

/// A place in the metadata: a block, and a piece of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pointer {
    /// The block.
    pub(crate) block: u64,
    piece: u64,
}

impl Pointer {
    fn parse(number: u64) -> Option<Pointer> {
        let (block, piece) = (number & (u64::MAX >> 8), number >> 56);
        (number != u64::MAX && piece < METADATA_PIECES).then_some(Pointer { block, piece })
    }

    /// What stands in this piece of `block`, and where it goes on.
    pub(crate) fn read(self, block: &[u8]) -> Option<(&[u8], Option<Pointer>)> {
        let pieces = usize::try_from(METADATA_PIECES).ok()?;
        // The size of a piece is rounded down to a multiple of 8.
        let bytes = block.len().checked_sub(8)? / pieces / 8 * 8;
        let start = 8 + usize::try_from(self.piece).ok()? * bytes;
        let piece = block.get(start..start + bytes)?;
        Some((piece.get(8..)?, Pointer::parse(number(piece, 0))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(version: u64, own: u64, iterations: [u64; 2]) -> Vec<u8> {
        let mut raw = vec![0; 3 * HEADER_BYTES];
        raw[8..12].copy_from_slice(b"DUCK");
        raw[12..20].copy_from_slice(&version.to_le_bytes());
        for (slot, iteration) in iterations.into_iter().enumerate() {
            let fields = [iteration, 0, u64::MAX, 7, 0, 2048, own];
            for (index, field) in fields.into_iter().enumerate() {
                let at = HEADER_BYTES * (slot + 1) + 8 + 8 * index;
                raw[at..at + 8].copy_from_slice(&field.to_le_bytes());
            }
        }
        seal(&mut raw);
        raw
    }

    fn seal(raw: &mut [u8]) {
        for header in raw.chunks_mut(HEADER_BYTES) {
            let mut sum = BlockChecksum::new();
            sum.add(&header[8..]);
            header[..8].copy_from_slice(&sum.value().to_le_bytes());
        }
    }

    #[test]
    fn the_higher_iteration_counts_and_of_equals_the_second() {
        for (iterations, active) in [([1, 2], 2), ([4, 3], 1), ([5, 5], 2)] {
            let found = Headers::parse(&headers(64, 1, iterations)).expect("parses");
            assert_eq!(found.active, Some(active * HEADER_BYTES), "{iterations:?}");
        }
    }

    #[test]
    fn a_torn_header_does_not_count_and_two_are_one_too_many() {
        let mut raw = headers(999, 69, [1, 2]);
        raw[2 * HEADER_BYTES + 100] ^= 1;
        assert_eq!(Headers::parse(&raw).expect("parses").iteration(), 1);
        raw[HEADER_BYTES + 100] ^= 1;
        assert!(matches!(Headers::parse(&raw), Err(HeaderError::Torn(_))));
    }

    #[test]
    fn storage_versions_have_names_and_others_are_foreign() {
        for (version, own, name) in [(64, 1, "v1.0.0"), (65, 6, "v1.4.0"), (999, 69, "v2.0.0")] {
            let found = Headers::parse(&headers(version, own, [1, 2])).expect("parses");
            assert_eq!(found.storage_version(), Some(name));
        }
        for (version, own) in [(63, 1), (999, 70), (70, 1), (68, 8)] {
            let refused = Headers::parse(&headers(version, own, [1, 2]));
            assert!(matches!(refused, Err(HeaderError::Foreign(_))), "{version} {own}");
        }
        assert!(matches!(Headers::parse(b"PAR1"), Err(HeaderError::Foreign(_))));
    }

    #[test]
    fn an_encrypted_file_tells_nothing_more() {
        let mut raw = headers(67, 6, [1, 2]);
        raw[20] = 1;
        seal(&mut raw);
        let found = Headers::parse(&raw).expect("parses");
        assert!(found.is_encrypted());
        assert_eq!((found.storage_version(), found.free_list()), (None, None));
    }

    #[test]
    fn a_checksum_does_not_depend_on_the_pieces() {
        let bytes: Vec<u8> = (0..=254).collect();
        let mut whole = BlockChecksum::new();
        whole.add(&bytes);
        let mut pieces = BlockChecksum::new();
        pieces.add(&bytes[..64]);
        pieces.add(&bytes[64..]);
        assert_eq!(whole.value(), pieces.value());
    }
}
