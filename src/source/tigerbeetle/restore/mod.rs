//! From a chain of backups back to a data file.
//!
//! - [`guard`]: what must not be restored where.
//! - [`assemble`], [`audit`]: the file, checked on the way.
//! - [`drill`]: the real server started on it, and its answer compared.

pub(super) mod assemble;
mod audit;
pub(super) mod drill;
pub(super) mod guard;
