//! Mode `wal`: operations of the log itself.
//!
//! - [`ring_view`], [`begin`], [`ship`]: from the live ring of a data file into segments.
//! - [`roll_forward`]: from a snapshot and segments to a file that ends with one operation.

mod begin;
mod ring_view;
pub(super) mod roll_forward;
pub(super) mod ship;
