//! The subcommands: mostly one file each, with `run(app, options) -> Report`. What they share is in
//! [`crate::ops`].
//!
//! A command asks [`crate::wire::AppContext`] for adapters, computes what to do, does it, and reports.
//! It never prints, never names an adapter, and knows nothing of the command line.

pub mod catalog_file;
pub mod cleanup;
pub mod config;
pub mod doctor;
pub mod history;
pub mod init;
pub mod key_inventory;
mod key_set;
pub mod keys;
pub mod ledger_diff;
pub mod list;
pub mod log_files;
pub mod logs;
pub mod pin;
pub mod replicate;
pub mod restore;
pub mod restore_at;
pub mod restore_tenant;
pub mod rewrap;
pub mod run;
pub mod runs;
pub mod schema;
pub mod snapshot;
pub mod status;
pub mod verify;
pub mod verify_logs;
pub mod windows;
