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

mod attacks;
mod cmd;
mod fuzzed;
mod house;
mod keys;
mod ledger;
mod pipeline;
mod source;
mod store;
mod support;
