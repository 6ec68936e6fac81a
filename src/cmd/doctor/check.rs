//! Checks and their results.

use crate::error::{Kind, diagnose};
use crate::source::Check;

/// A check, and the kind of failure it is if it is not as it should be.
pub(super) type CheckResult = (Kind, Check);

pub(super) fn good(what: impl Into<String>, found: impl Into<String>) -> Check {
    Check { what: what.into(), ok: true, found: found.into(), hint: None }
}

pub(super) fn bad(
    what: impl Into<String>,
    found: impl Into<String>,
    hint: impl Into<String>,
) -> Check {
    Check { what: what.into(), ok: false, found: found.into(), hint: Some(hint.into()) }
}

/// The outcome of something that was tried.
pub(super) fn tried(what: String, outcome: anyhow::Result<String>) -> CheckResult {
    match outcome {
        Ok(found) => (Kind::Failed, good(what, found)),
        Err(error) => {
            let diagnosis = diagnose(&error);
            (diagnosis.kind, bad(what, format!("{error:#}"), diagnosis.hint))
        }
    }
}
