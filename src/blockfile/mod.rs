//! Shared code for files made of checksummed blocks, whichever engine writes them.
//!
//! - [`map`]: which checksum the block at an address has.
//! - [`listing`]: such a map as JSON.
//! - [`listed`]: what the members of a snapshot have in common.
//! - [`target`]: where the bytes of a restored file go.

pub mod layout_file;
pub mod listing;
pub mod map;
pub mod target;
