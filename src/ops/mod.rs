//! Shared by several subcommands: runs that hold locks and leases and record how they ended, records
//! and annotations in stores and their authenticity, the selection of a backup, plans for point-in-time
//! restores.
//!
//! Nothing here knows a subcommand.

pub mod annotations;
pub mod audit;
pub mod authenticity;
pub(crate) mod cost;
pub mod exclusive_run;
pub mod jobs;
pub(crate) mod key_health;
pub(crate) mod known_stores;
pub mod ledger_events;
pub mod log_history;
pub(crate) mod log_mode;
pub(crate) mod manifest_builder;
pub(crate) mod other_stores;
pub mod pitr_plan;
pub mod records;
pub mod report;
pub mod run_guard;
pub(crate) mod scratch;
pub mod selection;
pub mod thaw;
