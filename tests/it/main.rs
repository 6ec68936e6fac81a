//! The integration tests: one binary, so that DuckDB is linked once.
//!
//! They run the real program against real servers; `tests/run.sh` provides those.

#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::string_slice,
    clippy::unnecessary_debug_formatting,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and clippy knows only marked functions as tests"
)]

mod architecture;
mod attacks;
mod bed;
mod books;
mod breakglass;
mod catalog;
mod chain;
mod cleanup;
mod cli;
mod cluster;
mod contract_store;
mod damage;
mod drill;
mod duck;
mod fault;
mod frozen;
mod fuzzed;
mod generated;
mod golden;
mod histories;
mod imports;
mod kms;
mod large_database;
mod lease;
mod ledger;
mod live_captures;
mod logs;
mod memory;
mod mirrored_stores;
mod notify;
mod parent_choice;
mod parquet;
mod planted;
mod promise;
mod prune;
mod recipients;
mod refusals;
mod repairs;
mod reports;
mod run;
mod s3;
mod simulated_week;
mod simulated_years;
mod smtp;
mod status;
mod sweep;
mod tb;
mod tick;
mod tidy;
mod trace;
mod two_stores;
mod units;
mod vectors;
