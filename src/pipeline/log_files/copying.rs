//! Copies of archived files from one store to another.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest as _, Sha256};

use super::{ListedFile, LogFiles};
use crate::error::{Fault, FirstError, Kind};
use crate::pipeline::copies::{CopyOutcome, pass_on};
use crate::stage::digest::DigestReader;
use crate::store::{AppendStore, Declared, StoreError};

/// Largest object of a file that is held in memory while it is copied, bytes.
const HELD_OBJECT_BYTES_MAX: u64 = 32 << 20;

impl LogFiles<'_> {
    /// Copies the object of an archived file to another store, byte for byte. When this returns without an error,
    /// what is there is whole and authentic.
    ///
    /// # Errors
    /// As [`LogFiles::read`]; [`Kind::Refused`] if a file of that name with other content is there; what the other
    /// store fails with.
    pub fn copy(&self, file: &ListedFile, to: &dyn AppendStore) -> anyhow::Result<CopyOutcome> {
        let key = file.name.key();
        let upload = match to.create(&key, &self.labels()) {
            Ok(upload) => upload,
            Err(StoreError::Exists { .. }) => return self.confirm_copy(file, to),
            Err(error) => return Err(error.into()),
        };
        let first_error = FirstError::default();
        let (declared, mut input) = self.proven(file, &first_error)?;
        if pass_on(&mut *input, &first_error, upload, declared)? {
            return Ok(CopyOutcome::Copied);
        }
        self.confirm_copy(file, to)
    }

    /// The object of a file, which was read to its end and found authentic, once more: from memory, or if it is too
    /// large for that from the store again, compared with what was read.
    fn proven(
        &self,
        file: &ListedFile,
        first_error: &FirstError,
    ) -> anyhow::Result<(Declared, Box<dyn Read>)> {
        let key = file.name.key();
        let opened = self.watched(self.store.open(&key, None)?, first_error);
        if file.bytes <= HELD_OBJECT_BYTES_MAX {
            let mut held = Vec::new();
            let mut opened = opened.take(HELD_OBJECT_BYTES_MAX + 1);
            opened.read_to_end(&mut held).map_err(|error| first_error.or(error))?;
            let held: Arc<[u8]> = held.into();
            let input = io::Cursor::new(Arc::clone(&held));
            self.read_from(Box::new(input), &file.name, &mut io::sink())?;
            let sha256 = Sha256::digest(&held).into();
            return Ok((
                Declared { bytes: held.len() as u64, sha256 },
                Box::new(io::Cursor::new(held)),
            ));
        }
        let (hashed, read) = Hashed::of(opened);
        self.read_from(Box::new(hashed), &file.name, &mut io::sink())?;
        let read = read.lock().unwrap_or_else(PoisonError::into_inner);
        let (bytes, sha256) = (read.bytes, read.hasher.clone().finalize().into());
        let again = self.watched(self.store.open(&key, None)?, first_error);
        let input = DigestReader::new(again, &key, bytes, sha256, first_error.clone());
        Ok((Declared { bytes, sha256 }, Box::new(input)))
    }

    /// Compares what the header of a file says here and in another store, where it is already.
    fn confirm_copy(&self, file: &ListedFile, to: &dyn AppendStore) -> anyhow::Result<CopyOutcome> {
        let there = LogFiles { store: to, ..self.clone() };
        let (own, other) = (self.facts(&file.name)?, there.facts(&file.name)?);
        if own == other {
            return Ok(CopyOutcome::WasThere);
        }
        let message = format!("{}: `{}` is there with other content", to.url(), file.name.key());
        let hint = "two servers claim the same place in one log: give each a source of its own; nothing was overwritten";
        Err(Fault::new(Kind::Refused, message).hint(hint).into())
    }
}

/// What was read so far.
#[derive(Debug, Default)]
struct ReadSoFar {
    bytes: u64,
    hasher: Sha256,
}

/// A reader that hashes what passes, for somebody who cannot ask it afterwards.
struct Hashed<R> {
    input: R,
    read: Arc<Mutex<ReadSoFar>>,
}

impl<R> Hashed<R> {
    fn of(input: R) -> (Hashed<R>, Arc<Mutex<ReadSoFar>>) {
        let read = Arc::default();
        (Hashed { input, read: Arc::clone(&read) }, read)
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        read.hasher.update(buffer.get(..count).unwrap_or_default());
        read.bytes += count as u64;
        Ok(count)
    }
}
