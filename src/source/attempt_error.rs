//! Why an attempt to capture a file in use failed, so that callers can decide whether to retry.

use crate::source::SourceError;

/// Why an attempt at a capture ended. What can keep one from its end, `C`, each kind of source knows.
#[derive(Debug)]
pub(crate) enum AttemptError<C> {
    /// Another attempt may succeed.
    Again(C, String),
    /// Trying again cannot help.
    Fatal(anyhow::Error),
}

impl<C> From<SourceError> for AttemptError<C> {
    fn from(error: SourceError) -> Self {
        AttemptError::Fatal(error.into())
    }
}

impl<C> From<anyhow::Error> for AttemptError<C> {
    fn from(error: anyhow::Error) -> Self {
        AttemptError::Fatal(error)
    }
}
