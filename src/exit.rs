//! The exit codes: the one table that `main`, the man page and the tests read.

use crate::error::Kind;

/// Exit code of a run that did all it was asked to.
pub const DONE: u8 = 0;

/// The exit code of a kind of failure.
#[must_use]
pub const fn code(kind: Kind) -> u8 {
    match kind {
        Kind::Failed => 1,
        Kind::Usage => 2,
        Kind::Partial => 3,
        Kind::NotFound => 10,
        Kind::Busy => 11,
        Kind::Key => 12,
        Kind::Integrity => 13,
        Kind::Refused => 14,
        Kind::Source => 15,
        Kind::Store => 16,
        Kind::Pending => 17,
        Kind::Stale => 18,
        Kind::Thawing => 75,
        Kind::Config => 78,
        Kind::Interrupted => 130,
        Kind::Terminated => 143,
    }
}

/// One line on what a kind means, for the man page.
#[must_use]
pub fn meaning(kind: Kind) -> &'static str {
    match kind {
        Kind::Failed => "failed, unclassified",
        Kind::Usage => "usage error",
        Kind::Partial => "partial: some items failed; the report names them",
        Kind::NotFound => "no such backup, source or store",
        Kind::Busy => "busy: another run of the same job holds its lease, or took it over",
        Kind::Key => "a key is missing, wrong or refused",
        Kind::Integrity => {
            "integrity: stored bytes differ from what was written, or a drill failed"
        }
        Kind::Refused => "refused by a safety rule",
        Kind::Source => "the source is unavailable or could not be captured consistently",
        Kind::Store => {
            "the store is unavailable, full, or refused a write; or a required ledger does not answer"
        }
        Kind::Pending => "the backup is durable; a ledger event or notification is pending",
        Kind::Stale => "status found something critical",
        Kind::Thawing => "come back later: archived objects are being restored",
        Kind::Config => "the configuration is not valid",
        Kind::Interrupted => "interrupted (SIGINT)",
        Kind::Terminated => "terminated (SIGTERM)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_in_order() {
        let codes: Vec<u8> = Kind::ALL.iter().map(|kind| code(*kind)).collect();
        assert!(codes.is_sorted_by(|a, b| a < b), "{codes:?}");
    }
}
