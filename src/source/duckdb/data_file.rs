//! The format of a database file and its log, and reading them while another process writes them.
//!
//! - [`format`], [`wal`], [`free_blocks`]: headers, log entries, lists of free blocks.
//! - [`database`]: an open file with its log, as a mode of capture reads it.
//! - [`layout`]: what a snapshot of both consists of.

pub(crate) mod database;
pub(crate) mod format;
pub(crate) mod free_blocks;
pub(crate) mod layout;
pub(crate) mod wal;
