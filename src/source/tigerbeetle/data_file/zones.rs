//! Sizes and offsets of the zones of a data file.

/// Unit of direct I/O, bytes.
pub(crate) const SECTOR_BYTES: usize = 4096;
/// Size of a grid block, bytes.
pub(crate) const BLOCK_BYTES: usize = 512 << 10;
/// Size of a superblock header, bytes; the rest of each copy is padding.
pub(crate) const SUPERBLOCK_BYTES: usize = 8192;
/// Distance between superblock copies, bytes.
pub(crate) const SUPERBLOCK_STRIDE: u64 = 24_576;
/// Number of superblock copies.
pub(crate) const SUPERBLOCK_COPIES: u16 = 4;
/// Slots of the write-ahead log.
pub(crate) const SLOTS: u64 = 1024;
/// Size of a message slot (prepares and client replies), bytes.
pub(crate) const MESSAGE_BYTES: usize = 1 << 20;
/// Size of any header, bytes.
pub(crate) const HEADER_BYTES: usize = 256;
/// Slots for client replies.
pub(crate) const REPLY_SLOTS: u64 = 64;

/// Timestamps and numbers of operations are smaller: TigerBeetle has the same limit.
pub(crate) const NUMBER_MAX: u64 = 1 << 63;

/// Start of the ring of redundant prepare headers.
pub(crate) const WAL_HEADERS_AT: u64 = SUPERBLOCK_STRIDE * SUPERBLOCK_COPIES as u64;
/// Start of the ring of prepares.
pub(crate) const WAL_PREPARES_AT: u64 = WAL_HEADERS_AT + SLOTS * HEADER_BYTES as u64;
/// Start of the client replies.
pub(crate) const REPLIES_AT: u64 = WAL_PREPARES_AT + SLOTS * MESSAGE_BYTES as u64;
/// Start of the grid: the next block boundary behind the replies.
pub(crate) const GRID_AT: u64 =
    (REPLIES_AT + REPLY_SLOTS * MESSAGE_BYTES as u64).next_multiple_of(BLOCK_BYTES as u64);

/// Offset of a grid block in the file. Addresses begin at 1.
pub(crate) fn block_offset(address: u64) -> u64 {
    GRID_AT + (address - 1) * BLOCK_BYTES as u64
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
}
