//! Stored bytes as a manifest names them.

use std::io::{self, Read};

use crate::ctx::Ctx;
use crate::domain::manifest::{ManifestError, unhex};
use crate::error::{Fault, FirstError, Kind};
use crate::store::StoreError;

/// An object that a manifest names and the store does not have is damage, not a wrong question.
pub(super) fn lost(error: StoreError, key: &str) -> anyhow::Error {
    if matches!(error, StoreError::Missing { .. }) {
        let message = format!("object `{key}` is missing although its manifest exists");
        return Fault::new(Kind::Integrity, message).into();
    }
    error.into()
}

/// A SHA-256 in hex.
pub(super) fn digest(text: &str, key: &str) -> Result<[u8; 32], ManifestError> {
    let parsed = unhex(text.as_bytes()).and_then(|bytes| bytes.try_into().ok());
    parsed.ok_or_else(|| ManifestError::Invalid {
        key: key.to_owned(),
        reason: format!("`{text}` is not a SHA-256"),
    })
}

/// Stored bytes on their way in: counts them for the progress display, looks at the wish to stop,
/// and keeps the kind of a store's failure.
pub(super) struct StoredReader {
    pub(super) input: Box<dyn Read + Send>,
    pub(super) ctx: Ctx,
    pub(super) first_error: FirstError,
}

impl Read for StoredReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.ctx.cancel.check().map_err(|fault| self.first_error.note(fault))?;
        let count = self.input.read(buffer).map_err(|error| {
            if error.kind() == io::ErrorKind::Interrupted {
                return error;
            }
            if let Err(fault) = self.ctx.cancel.check() {
                return self.first_error.note(fault);
            }
            let fault = Fault::new(Kind::Store, format!("reading from the store failed: {error}"));
            self.first_error.note(fault)
        })?;
        self.ctx.monitor.advance(count as u64);
        Ok(count)
    }
}
