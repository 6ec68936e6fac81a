//! What files made of checksummed blocks share, whatever engine writes them.
//!
//! - [`map`]: which checksum the block at an address has.
//! - [`device`]: reading a file that another process writes.

pub mod device;
pub mod map;
