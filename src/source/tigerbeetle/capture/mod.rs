//! From a data file that a replica may be writing into the chain.
//!
//! - [`mode`], [`hold`], [`pause`]: the ways to hold the file still, or not to.
//! - [`attempts`]: what is tried until one attempt comes to its end. [`wal`] and [`walk`] are its parts: the log,
//!   and the blocks.

pub(super) mod attempts;
pub(super) mod hold;
pub(super) mod mode;
mod pause;
mod wal;
mod walk;
