//! Why an attempt to capture a data file failed, and whether a retry may succeed.

/// Why an attempt at a capture ended.
pub(crate) type AttemptError = crate::source::attempt_error::AttemptError<Cause>;

/// What kept an attempt from its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The file moved on under it.
    Moved,
    /// A part is not what it should be: overwritten since, being written, or damaged.
    Torn,
    /// The replica lags behind its cluster, or has something to repair from it.
    Behind,
}

pub(crate) fn moved(why: impl Into<String>) -> AttemptError {
    AttemptError::Again(Cause::Moved, why.into())
}

pub(crate) fn behind(why: impl Into<String>) -> AttemptError {
    AttemptError::Again(Cause::Behind, why.into())
}

pub(crate) fn torn(why: impl Into<String>) -> AttemptError {
    AttemptError::Again(Cause::Torn, why.into())
}
