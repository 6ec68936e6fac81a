//! What a running cluster is asked besides its log.

pub(super) mod address;
pub(super) mod totals;
