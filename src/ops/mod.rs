//! What several subcommands share: the run that holds locks and leases and records how it ended, what stores keep
//! of runs and of what was said about backups, which of that is authentic, which backup is meant, the way to a
//! moment.
//!
//! Nothing here knows a subcommand.

pub mod annotations;
pub mod audit;
pub mod authenticity;
pub(crate) mod cost;
pub mod exclusive_run;
pub mod jobs;
pub(crate) mod known_stores;
pub mod ledger_events;
pub mod log_history;
pub(crate) mod manifest_builder;
pub mod pitr_plan;
pub mod records;
pub mod report;
pub mod run_guard;
pub(crate) mod scratch;
pub mod selection;
pub mod verify_level;
