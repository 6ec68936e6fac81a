//! Failed attempts to read a file that another process writes.

/// Why an attempt at a capture ended.
pub(crate) type AttemptError = crate::source::attempt_error::AttemptError<Cause>;

/// What kept an attempt from its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The file moved on under it.
    Moved,
    /// A part is not what it should be: being written, or damaged.
    Torn,
    /// The log is not one that belongs to the file: a checkpoint ended between two looks, or for good.
    Foreign,
    /// A checkpoint is under way.
    Checkpoint,
}

/// The file moved on.
pub(crate) fn again(why: &str) -> AttemptError {
    AttemptError::Again(Cause::Moved, why.to_owned())
}
