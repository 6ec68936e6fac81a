//! What is backed up.

mod duckdb;
mod parquet;
mod postgres;
mod tigerbeetle;
