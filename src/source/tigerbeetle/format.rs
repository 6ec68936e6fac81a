//! The data file of TigerBeetle 0.16.78 and later 0.16 and 0.17 releases: where things are, and how
//! to tell that they are whole.
//!
//! The source of every offset is TigerBeetle's own code (`src/vsr/superblock.zig`,
//! `src/vsr/message_header.zig`, `src/lsm/schema.zig`, `src/constants.zig`). The layout constants
//! are the same in 0.16.78 and 0.17.8. All integers are little-endian.

use std::fmt;
use std::sync::LazyLock;

use aegis::aegis128l::Aegis128L;

use crate::blockfile::map::Checksum;
use crate::domain::segment::NUMBER_MAX;

/// Unit of direct I/O, bytes.
pub(super) const SECTOR_BYTES: usize = 4096;
/// Size of a grid block, bytes.
pub(super) const BLOCK_BYTES: usize = 512 << 10;
/// Size of a superblock header, bytes; the rest of each copy is padding.
pub(super) const SUPERBLOCK_BYTES: usize = 8192;
/// Distance between superblock copies, bytes.
pub(super) const SUPERBLOCK_STRIDE: u64 = 24_576;
/// Number of superblock copies.
pub(super) const SUPERBLOCK_COPIES: u16 = 4;
/// Copies that must agree before a superblock is believed: what TigerBeetle calls verified.
pub(super) const SUPERBLOCK_QUORUM: usize = 3;
/// Copies with which TigerBeetle opens a file: enough where nobody writes the others.
pub(super) const SUPERBLOCK_QUORUM_OPEN: usize = 2;
/// Slots of the write-ahead log.
pub(super) const SLOTS: u64 = 1024;
/// Size of a message slot (prepares and client replies), bytes.
pub(super) const MESSAGE_BYTES: usize = 1 << 20;
/// Size of any header, bytes.
pub(super) const HEADER_BYTES: usize = 256;
/// Slots for client replies.
pub(super) const REPLY_SLOTS: u64 = 64;

/// Start of the ring of redundant prepare headers.
pub(super) const WAL_HEADERS_AT: u64 = SUPERBLOCK_STRIDE * SUPERBLOCK_COPIES as u64;
/// Start of the ring of prepares.
pub(super) const WAL_PREPARES_AT: u64 = WAL_HEADERS_AT + SLOTS * HEADER_BYTES as u64;
/// Start of the client replies.
pub(super) const REPLIES_AT: u64 = WAL_PREPARES_AT + SLOTS * MESSAGE_BYTES as u64;
/// Start of the grid: the next block boundary behind the replies.
pub(super) const GRID_AT: u64 =
    (REPLIES_AT + REPLY_SLOTS * MESSAGE_BYTES as u64).next_multiple_of(BLOCK_BYTES as u64);

/// Ops between checkpoints.
pub(super) const CHECKPOINT_OPS: u64 = 960;
/// Ops per compaction bar: a checkpoint is written when the bar after it commits.
pub(super) const BAR_OPS: u64 = 32;
/// Most prepares in flight.
pub(super) const PIPELINE_OPS: u64 = 8;
/// Most headers in the superblock's list of view headers.
pub(super) const VIEW_HEADERS_MAX: usize = 11;

/// Headers of the end of a log with which a view begins (`view_change_headers_suffix_max`): what may be
/// in flight, and one more.
pub(super) const VIEW_SUFFIX_OPS: usize = 9;

/// The superblock version of every release build.
pub(super) const SUPERBLOCK_VERSION: u16 = 2;

static HASHER: LazyLock<Aegis128L<16>> = LazyLock::new(|| Aegis128L::new(&[0; 16], &[0; 16]));

/// TigerBeetle's checksum: the AEGIS-128L tag over the bytes as associated data, with key and nonce
/// zero.
pub(super) fn checksum(bytes: &[u8]) -> Checksum {
    let (_empty, tag) = HASHER.encrypt(&[], bytes);
    Checksum(u128::from_le_bytes(tag))
}

/// The bytes `at..at + N` of a header whose size the caller has fixed.
fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let found = bytes.get(at..at + N).and_then(|slice| slice.try_into().ok());
    debug_assert!(found.is_some(), "offset {at} is beyond a header of {} bytes", bytes.len());
    found.unwrap_or([0; N])
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(field(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(field(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(field(bytes, at))
}

fn u128_at(bytes: &[u8], at: usize) -> u128 {
    u128::from_le_bytes(field(bytes, at))
}

fn checksum_at(bytes: &[u8], at: usize) -> Checksum {
    Checksum(u128_at(bytes, at))
}

/// `bytes` without the first `at`; empty if there are fewer.
fn tail(bytes: &[u8], at: usize) -> &[u8] {
    bytes.get(at..).unwrap_or_default()
}

/// Offset of a grid block in the file. Addresses begin at 1.
pub(super) fn block_offset(address: u64) -> u64 {
    GRID_AT + (address - 1) * BLOCK_BYTES as u64
}

/// A release number as TigerBeetle packs it into 32 bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Release(pub(super) u32);

impl Release {
    /// The oldest release whose layout is known: 0.16.78.
    pub(super) const OLDEST: Release = Release(0x00_10_4e);

    /// Whether files of this release have the layout of this module: 0.16 from `.78`, and 0.17.
    pub(super) fn is_known(self) -> bool {
        let (major, minor) = (self.0 >> 16, self.0 >> 8 & 0xff);
        major == 0 && (minor == 16 || minor == 17) && self >= Release::OLDEST
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0 >> 16, self.0 >> 8 & 0xff, self.0 & 0xff)
    }
}

/// A reference to a grid block: where it is and what it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reference {
    pub(super) address: u64,
    pub(super) checksum: Checksum,
}

impl Reference {
    /// `None` where the address is 0: TigerBeetle's way to say that there is none.
    fn new(address: u64, checksum: Checksum) -> Option<Reference> {
        (address != 0).then_some(Reference { address, checksum })
    }
}

/// A chain of blocks that holds one piece of data, from its last block backwards.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trailer {
    pub(super) last: Option<Reference>,
    pub(super) bytes: u64,
    pub(super) checksum: Checksum,
}

/// A superblock header: 8 KiB that describe a checkpoint and the replica's place in its cluster.
#[derive(Clone)]
pub(super) struct Superblock {
    raw: Box<[u8; SUPERBLOCK_BYTES]>,
}

impl Superblock {
    /// Takes a superblock whose checksum is right; `None` otherwise.
    pub(super) fn parse(bytes: &[u8]) -> Option<Superblock> {
        let raw: Box<[u8; SUPERBLOCK_BYTES]> = Box::new(bytes.try_into().ok()?);
        let superblock = Superblock { raw };
        (superblock.checksum() == superblock.computed()).then_some(superblock)
    }

    fn computed(&self) -> Checksum {
        // The checksum covers neither itself, nor its padding, nor the copy number.
        checksum(tail(self.raw.as_slice(), 34))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.raw.as_slice()
    }

    pub(super) fn checksum(&self) -> Checksum {
        checksum_at(self.bytes(), 0)
    }

    pub(super) fn copy(&self) -> u16 {
        u16_at(self.bytes(), 32)
    }

    pub(super) fn version(&self) -> u16 {
        u16_at(self.bytes(), 34)
    }

    pub(super) fn sequence(&self) -> u64 {
        u64_at(self.bytes(), 40)
    }

    pub(super) fn cluster(&self) -> u128 {
        u128_at(self.bytes(), 48)
    }

    /// The header of the last prepare in the checkpoint.
    pub(super) fn checkpoint(&self) -> PrepareHeader {
        PrepareHeader { raw: field(self.bytes(), 96) }
    }

    pub(super) fn free_set_acquired(&self) -> Trailer {
        self.trailer([624, 352, 680, 544])
    }

    pub(super) fn free_set_released(&self) -> Trailer {
        self.trailer([632, 384, 688, 560])
    }

    pub(super) fn client_sessions(&self) -> Trailer {
        self.trailer([640, 416, 696, 576])
    }

    fn trailer(&self, [address, block, bytes, whole]: [usize; 4]) -> Trailer {
        let raw = self.bytes();
        Trailer {
            last: Reference::new(u64_at(raw, address), checksum_at(raw, block)),
            bytes: u64_at(raw, bytes),
            checksum: checksum_at(raw, whole),
        }
    }

    pub(super) fn manifest_oldest(&self) -> Option<Reference> {
        Reference::new(u64_at(self.bytes(), 648), checksum_at(self.bytes(), 448))
    }

    pub(super) fn manifest_newest(&self) -> Option<Reference> {
        Reference::new(u64_at(self.bytes(), 656), checksum_at(self.bytes(), 480))
    }

    pub(super) fn manifest_blocks(&self) -> u32 {
        u32_at(self.bytes(), 704)
    }

    /// Logical size of the file at the checkpoint, bytes.
    pub(super) fn storage_bytes(&self) -> u64 {
        u64_at(self.bytes(), 672)
    }

    pub(super) fn release(&self) -> Release {
        Release(u32_at(self.bytes(), 708))
    }

    pub(super) fn replica_id(&self) -> u128 {
        u128_at(self.bytes(), 1120)
    }

    pub(super) fn member(&self, index: u8) -> u128 {
        u128_at(self.bytes(), 1136 + 16 * usize::from(index.min(11)))
    }

    /// The index of this replica in its cluster.
    pub(super) fn replica(&self) -> Option<u8> {
        (0..self.replica_count()).find(|index| self.member(*index) == self.replica_id())
    }

    pub(super) fn commit_max(&self) -> u64 {
        u64_at(self.bytes(), 1328)
    }

    pub(super) fn sync_op_max(&self) -> u64 {
        u64_at(self.bytes(), 1344)
    }

    pub(super) fn log_view(&self) -> u32 {
        u32_at(self.bytes(), 1356)
    }

    pub(super) fn view(&self) -> u32 {
        u32_at(self.bytes(), 1360)
    }

    pub(super) fn replica_count(&self) -> u8 {
        self.bytes().get(1364).copied().unwrap_or_default()
    }

    /// Headers at the head of the log when the current view began, highest op first.
    pub(super) fn view_headers(&self) -> impl Iterator<Item = PrepareHeader> + '_ {
        let count = u32_at(self.bytes(), 2152) as usize;
        (0..count.min(VIEW_HEADERS_MAX))
            .map(|index| PrepareHeader { raw: field(self.bytes(), 4096 + HEADER_BYTES * index) })
    }

    /// This superblock with the given copy number.
    pub(super) fn with_copy(mut self, copy: u16) -> Superblock {
        self.put(32, &copy.to_le_bytes());
        self
    }

    /// This superblock for another replica of the same cluster, or for one that stands alone.
    pub(super) fn with_replica(mut self, replica: u8, replica_count: u8) -> Superblock {
        let id = self.member(replica);
        self.put(1120, &id.to_le_bytes());
        self.put(1364, &[replica_count]);
        let sum = self.computed();
        self.put(0, &sum.0.to_le_bytes());
        self
    }

    /// This superblock with a log that ends with these headers, highest op first, and has no uncertain
    /// part: the view that its end was written in, and the headers that TigerBeetle makes a view
    /// begin with, [`VIEW_SUFFIX_OPS`] of them if the log has so many.
    pub(super) fn with_head(mut self, ends: &[PrepareHeader]) -> Superblock {
        let Some(head) = ends.first() else { return self };
        let commit_max = self.checkpoint().op().max(self.commit_max().min(head.op()));
        self.put(1328, &commit_max.to_le_bytes());
        self.put(1356, &head.view().to_le_bytes());
        self.put(1360, &head.view().to_le_bytes());
        let ends = ends.get(..VIEW_SUFFIX_OPS).unwrap_or(ends);
        self.put(2152, &u32::try_from(ends.len()).unwrap_or_default().to_le_bytes());
        self.put(4096, &[0; HEADER_BYTES * VIEW_HEADERS_MAX]);
        for (index, header) in ends.iter().enumerate() {
            self.put(4096 + HEADER_BYTES * index, header.bytes());
        }
        let sum = self.computed();
        self.put(0, &sum.0.to_le_bytes());
        self
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        if let Some(place) = self.raw.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }
}

impl fmt::Debug for Superblock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Superblock")
            .field("sequence", &self.sequence())
            .field("checkpoint_op", &self.checkpoint().op())
            .finish_non_exhaustive()
    }
}

/// The header of a prepare: one operation of the log.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct PrepareHeader {
    raw: [u8; HEADER_BYTES],
}

impl PrepareHeader {
    /// Takes the first 256 bytes.
    pub(super) fn read(bytes: &[u8]) -> Option<PrepareHeader> {
        Some(PrepareHeader { raw: *bytes.first_chunk()? })
    }

    /// The header that stands in a slot without an operation (`Header.Prepare.reserve`).
    pub(super) fn reserved(cluster: u128, slot: u64) -> PrepareHeader {
        let mut raw = [0; HEADER_BYTES];
        let mut put = |at: usize, bytes: &[u8]| {
            if let Some(place) = raw.get_mut(at..at + bytes.len()) {
                place.copy_from_slice(bytes);
            }
        };
        put(32, &checksum(&[]).0.to_le_bytes());
        put(80, &cluster.to_le_bytes());
        put(96, &256_u32.to_le_bytes());
        put(114, &[Self::COMMAND_PREPARE]);
        put(224, &slot.to_le_bytes());
        let sum = checksum(tail(&raw, 16));
        if let Some(place) = raw.first_chunk_mut() {
            *place = sum.0.to_le_bytes();
        }
        PrepareHeader { raw }
    }

    const COMMAND_PREPARE: u8 = 6;
    const OPERATION_RESERVED: u8 = 0;

    pub(super) fn bytes(&self) -> &[u8; HEADER_BYTES] {
        &self.raw
    }

    /// Whether this is a whole header of this cluster that belongs into `slot`.
    pub(super) fn fits(&self, cluster: u128, slot: u64) -> bool {
        let place = if self.is_reserved() { self.op() } else { self.op() % SLOTS };
        self.checksum() == checksum(tail(&self.raw, 16))
            && u128_at(&self.raw, 80) == cluster
            && self.raw.get(114) == Some(&Self::COMMAND_PREPARE)
            && place == slot
            && (HEADER_BYTES..=MESSAGE_BYTES).contains(&self.size())
            && self.is_counted()
    }

    /// Whether its numbers are ones that a cluster can come to.
    pub(super) fn is_counted(&self) -> bool {
        [self.op(), self.commit(), self.timestamp()].iter().all(|number| *number < NUMBER_MAX)
    }

    pub(super) fn checksum(&self) -> Checksum {
        checksum_at(&self.raw, 0)
    }

    pub(super) fn checksum_body(&self) -> Checksum {
        checksum_at(&self.raw, 32)
    }

    /// Size of the message, header included, bytes.
    pub(super) fn size(&self) -> usize {
        u32_at(&self.raw, 96) as usize
    }

    pub(super) fn view(&self) -> u32 {
        u32_at(&self.raw, 104)
    }

    pub(super) fn parent(&self) -> Checksum {
        checksum_at(&self.raw, 128)
    }

    pub(super) fn op(&self) -> u64 {
        u64_at(&self.raw, 224)
    }

    /// The highest op that was committed when this one was prepared.
    pub(super) fn commit(&self) -> u64 {
        u64_at(&self.raw, 232)
    }

    /// Nanoseconds since the Unix epoch, by the cluster's clock.
    pub(super) fn timestamp(&self) -> u64 {
        u64_at(&self.raw, 240)
    }

    /// What it does; the numbers are TigerBeetle's (`vsr.Operation`, `tb.Operation`).
    pub(super) fn operation(&self) -> u8 {
        self.raw.get(252).copied().unwrap_or_default()
    }

    pub(super) fn is_reserved(&self) -> bool {
        self.raw.get(252) == Some(&Self::OPERATION_RESERVED)
    }

    /// Whether `message` (header included) has the body that this header names.
    pub(super) fn has_body(&self, message: &[u8]) -> bool {
        let body = message.get(HEADER_BYTES..self.size());
        body.is_some_and(|body| checksum(body) == self.checksum_body())
    }
}

impl fmt::Debug for PrepareHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrepareHeader(op {}, {})", self.op(), self.checksum())
    }
}

/// Whether `slot` holds a whole client reply, and how long it is. `bytes` may be longer than the
/// reply. The layout of the first fields is that of every header.
pub(super) fn reply_bytes(bytes: &[u8]) -> Option<(Checksum, usize)> {
    let header = PrepareHeader::read(bytes)?;
    let size = header.size();
    let whole = (HEADER_BYTES..=MESSAGE_BYTES).contains(&size)
        && header.checksum() == checksum(tail(&header.raw, 16))
        && header.has_body(bytes);
    whole.then_some((header.checksum(), size))
}

/// What kind of data a grid block holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BlockKind {
    FreeSet,
    ClientSessions,
    Manifest,
    Index,
    Value,
}

/// A grid block that was checked against a reference: what is read from it can be believed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block<'a> {
    bytes: &'a [u8],
}

impl<'a> Block<'a> {
    /// The address and checksum that `bytes` claim to have.
    pub(super) fn claim(bytes: &[u8]) -> Option<Reference> {
        let header: &[u8; HEADER_BYTES] = bytes.first_chunk()?;
        Reference::new(u64_at(header, 224), checksum_at(header, 0))
    }

    /// Checks `bytes` against `reference`: header, body, address and size.
    pub(super) fn check(bytes: &'a [u8], reference: Reference) -> Option<Block<'a>> {
        let header: &[u8; HEADER_BYTES] = bytes.first_chunk()?;
        let size = u32_at(header, 96) as usize;
        let bytes = bytes.get(..size).filter(|_| size <= BLOCK_BYTES)?;
        let whole = Block::claim(bytes)? == reference
            && checksum(tail(header, 16)) == reference.checksum
            && checksum(bytes.get(HEADER_BYTES..)?) == checksum_at(header, 32);
        whole.then_some(Block { bytes })
    }

    /// Takes a block that [`Block::check`] accepted before, without hashing it again.
    pub(super) fn trusted(bytes: &'a [u8]) -> Block<'a> {
        let size = bytes.first_chunk::<HEADER_BYTES>().map_or(0, |header| u32_at(header, 96));
        Block { bytes: bytes.get(..size as usize).unwrap_or_default() }
    }

    /// The block without the unused rest of its 512 KiB, which no checksum covers.
    pub(super) fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    pub(super) fn body(self) -> &'a [u8] {
        tail(self.bytes, HEADER_BYTES)
    }

    pub(super) fn kind(self) -> Option<BlockKind> {
        match self.bytes.get(240)? {
            1 => Some(BlockKind::FreeSet),
            2 => Some(BlockKind::ClientSessions),
            3 => Some(BlockKind::Manifest),
            4 => Some(BlockKind::Index),
            5 => Some(BlockKind::Value),
            _ => None,
        }
    }

    /// The block before this one in a trailer or in the manifest log.
    pub(super) fn previous(self) -> Option<Reference> {
        Reference::new(u64_at(self.bytes, 160), checksum_at(self.bytes, 128))
    }

    /// The entries of a manifest block, newest first.
    pub(super) fn tables(self) -> impl Iterator<Item = TableEvent> + 'a {
        const ENTRY_BYTES: usize = 128;
        let count = u32_at(self.bytes, 168) as usize;
        let (entries, _rest) = self.body().as_chunks::<ENTRY_BYTES>();
        let used = entries.get(..count).unwrap_or(entries);
        used.iter().rev().map(|entry| TableEvent {
            index: Reference { address: u64_at(entry, 96), checksum: checksum_at(entry, 64) },
            change: match entry.get(126).map(|label| label >> 6) {
                Some(1) => TableChange::Insert,
                Some(2) => TableChange::Update,
                _ => TableChange::Remove,
            },
        })
    }

    /// The value blocks that an index block names.
    pub(super) fn values(self) -> impl Iterator<Item = Reference> + 'a {
        let count = u32_at(self.bytes, 128) as usize;
        let capacity = u32_at(self.bytes, 132) as usize;
        let key_bytes = u32_at(self.bytes, 136) as usize;
        // Checksums of 32 bytes, then the smallest and the largest keys, then addresses; each array
        // has room for `capacity` entries.
        let room = capacity.saturating_mul(32 + 2 * key_bytes);
        let checksums = self.body().as_chunks::<32>().0;
        let addresses = tail(self.body(), room).as_chunks::<8>().0;
        let pairs = checksums.iter().zip(addresses).take(count);
        pairs.map(|(checksum, address)| Reference {
            address: u64::from_le_bytes(*address),
            checksum: checksum_at(checksum, 0),
        })
    }

    /// How many value blocks an index block names.
    pub(super) fn value_count(self) -> usize {
        u32_at(self.bytes, 128) as usize
    }
}

/// What an entry of the manifest log says about a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TableChange {
    Insert,
    Update,
    Remove,
}

/// An entry of the manifest log.
#[derive(Debug, Clone, Copy)]
pub(super) struct TableEvent {
    pub(super) index: Reference,
    pub(super) change: TableChange,
}

/// The addresses in an encoded free set: words of 64 bits, EWAH-compressed. Bit `i` stands for
/// address `i + 1`. `None` if the encoding is not valid.
pub(super) fn decode_free_set(encoded: &[u8], blocks_max: u64) -> Option<Vec<u64>> {
    let (words, rest) = encoded.as_chunks::<8>();
    let mut words = words.iter().map(|word| u64::from_le_bytes(*word));
    let mut decoded = Vec::new();
    let words_max = usize::try_from(blocks_max.div_ceil(64)).ok()?.next_multiple_of(64) + 64;
    while let Some(marker) = words.next() {
        let run = usize::try_from(marker >> 1 & 0x7fff_ffff).ok()?;
        let literals = usize::try_from(marker >> 32).ok()?;
        let filler = if marker & 1 == 1 { u64::MAX } else { 0 };
        if decoded.len() + run + literals > words_max && filler != 0 {
            return None;
        }
        // Trailing zeros carry nothing; do not let a hostile marker allocate for them.
        let zeros = run.min(words_max.saturating_sub(decoded.len()));
        decoded.resize(decoded.len() + if filler == 0 { zeros } else { run }, filler);
        for _ in 0..literals {
            decoded.push(words.next()?);
        }
    }
    rest.is_empty().then_some(decoded)
}

/// Number of blocks and whether one is in a set as [`decode_free_set`] returns it.
pub(super) fn contains(set: &[u64], address: u64) -> bool {
    let Some(index) = address.checked_sub(1) else {
        return false;
    };
    let word = usize::try_from(index / 64).ok().and_then(|at| set.get(at));
    word.is_some_and(|word| word >> (index % 64) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_the_documented_one() {
        assert_eq!(WAL_HEADERS_AT, 98_304);
        assert_eq!(WAL_PREPARES_AT, 360_448);
        assert_eq!(REPLIES_AT, 1_074_102_272);
        assert_eq!(GRID_AT, 1_141_374_976);
        assert_eq!(block_offset(1), GRID_AT);
    }

    #[test]
    fn the_checksum_is_tigerbeetles() {
        // The checksum of nothing, a constant in TigerBeetle's source.
        assert_eq!(checksum(&[]).0, 0x49F1_7461_8255_402D_E6E7_E3C4_0D60_CC83);
    }

    #[test]
    fn releases_are_accepted_by_layout() {
        let known = |minor: u32, patch: u32| Release(minor << 8 | patch).is_known();
        assert!(known(16, 78) && known(16, 90) && known(17, 8));
        assert!(!known(16, 77) && !known(15, 90) && !known(18, 0) && !Release(1 << 16).is_known());
        assert_eq!(Release::OLDEST.to_string(), "0.16.78");
    }

    #[test]
    fn a_free_set_decodes() {
        // One word of ones, one literal, two words of zeros, one literal.
        let words = [1 | 1 << 1 | 1 << 32, 0b101, 2 << 1 | 1 << 32, 1_u64];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let set = decode_free_set(&bytes, 1024).expect("valid");
        assert_eq!(set, [u64::MAX, 0b101, 0, 0, 1]);
        assert!(contains(&set, 1) && contains(&set, 65) && !contains(&set, 66));
        assert!(contains(&set, 257) && !contains(&set, 0) && !contains(&set, 99_999));
    }

    #[test]
    fn a_hostile_free_set_does_not_allocate() {
        let marker: u64 = 0x7fff_ffff << 1 | 1;
        assert_eq!(decode_free_set(&marker.to_le_bytes(), 1024), None);
        let zeros: u64 = 0x7fff_ffff << 1;
        assert!(decode_free_set(&zeros.to_le_bytes(), 1024).is_some_and(|set| set.len() < 200));
        assert_eq!(decode_free_set(&(5_u64 << 32).to_le_bytes(), 1024), None);
    }

    #[test]
    fn reserved_headers_fit_their_slot_only() {
        let header = PrepareHeader::reserved(7, 3);
        assert!(header.is_reserved() && header.fits(7, 3));
        assert!(!header.fits(7, 4) && !header.fits(8, 3));
    }
}
