//! The data file of TigerBeetle 0.16.78 and later 0.16 and 0.17 releases: its layout, and how to check
//! its integrity.
//!
//! The source of every offset is TigerBeetle's own code (`src/vsr/superblock.zig`,
//! `src/vsr/message_header.zig`, `src/lsm/schema.zig`, `src/constants.zig`). The layout constants
//! are the same in 0.16.78 and 0.17.8. All integers are little-endian.
//!
//! - [`zones`]: sizes and places. [`checkpoints`]: how far the log may run ahead of a checkpoint.
//! - [`superblock`], [`prepare`], [`block`], [`free_set`]: what stands in those places, read from bytes.
//!   [`bytes`] and [`checksum`] are what they all need.
//! - [`quorum`], [`rings`]: read from a file that a replica may be writing.

pub(super) mod block;
mod bytes;
pub(super) mod checkpoints;
pub(super) mod checksum;
pub(super) mod free_set;
pub(super) mod prepare;
pub(super) mod quorum;
pub(super) mod rings;
pub(super) mod superblock;
pub(super) mod zones;
