//! Queries to a running cluster other than for its log.

pub(super) mod address;
pub(super) mod totals;
