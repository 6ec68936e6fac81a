//! The integration tests: one binary, so that DuckDB is linked once.
//!
//! They run the real program against real servers; `tests/run.sh` provides those.

mod bed;
mod breakglass;
mod chain;
mod cli;
mod cluster;
mod contract_store;
mod damage;
mod generated;
mod memory;
mod refusals;
mod spine;
mod tb;
mod vectors;
