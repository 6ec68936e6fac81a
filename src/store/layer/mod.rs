//! Decorators: stores that wrap stores. [`crate::wire`] stacks them; tests add theirs as a [`StoreLayer`].
//!
//! - [`retry`]: retries transient failures, with growing pauses, within a total deadline.
//! - [`mirrored`]: several stores as one.
//! - [`read_only`]: refuses every write.

use super::{AppendStore, PruneStore, ReadStore};

pub mod mirrored;
pub mod read_only;
pub mod retry;

/// Wraps every store that a command opens, beneath its retries. The program wraps none; tests wrap stores
/// in others that fail.
pub trait StoreLayer: Send + Sync {
    /// Wraps a store to read.
    fn read(&self, inner: Box<dyn ReadStore>) -> Box<dyn ReadStore>;
    /// Wraps a store to add to.
    fn append(&self, inner: Box<dyn AppendStore>) -> Box<dyn AppendStore>;
    /// Wraps a store to remove from.
    fn prune(&self, inner: Box<dyn PruneStore>) -> Box<dyn PruneStore>;
}
