//! Copies of archived files from one store to another.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest as _, Sha256};

use super::{CHUNK_BYTES, ListedFile, LogFiles};
use crate::error::{Fault, FirstError, Kind};
use crate::pipeline::copies::CopyOutcome;
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
        let create = to.create(&key, &self.labels());
        let mut upload = match create {
            Ok(upload) => upload,
            Err(StoreError::Exists { .. }) => return self.confirm_copy(file, to),
            Err(error) => return Err(error.into()),
        };
        // What is held is read once; what is longer is proven first, and hashed again while it is copied.
        let mut object = Vec::new();
        let first_error = FirstError::default();
        let opened = self.watched(self.store.open(&key, None)?, &first_error);
        let is_held = file.bytes <= HELD_OBJECT_BYTES_MAX;
        let declared = if is_held {
            let mut input = opened.take(HELD_OBJECT_BYTES_MAX + 1);
            input.read_to_end(&mut object).map_err(|error| first_error.or(error))?;
            let bytes: Box<dyn Read + Send> = Box::new(io::Cursor::new(object.clone()));
            self.read_from(bytes, &file.name, &mut io::sink())?;
            Declared { bytes: object.len() as u64, sha256: Sha256::digest(&object).into() }
        } else {
            let (hashed, tally) = Hashed::of(opened);
            self.read_from(Box::new(hashed), &file.name, &mut io::sink())?;
            let tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
            Declared { bytes: tally.bytes, sha256: tally.hasher.clone().finalize().into() }
        };
        let mut input: Box<dyn Read> = if is_held {
            Box::new(object.as_slice())
        } else {
            let again = self.watched(self.store.open(&key, None)?, &first_error);
            let Declared { bytes, sha256 } = declared;
            Box::new(DigestReader::new(again, &key, bytes, sha256, first_error.clone()))
        };
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            self.ctx.cancel.check()?;
            let count = input.read(&mut chunk).map_err(|error| first_error.or(error))?;
            let read = chunk.get(..count).unwrap_or_default();
            if read.is_empty() {
                break;
            }
            upload.write(read)?;
        }
        match upload.commit(declared) {
            Ok(()) => Ok(CopyOutcome::Copied),
            Err(StoreError::Exists { .. }) => self.confirm_copy(file, to),
            Err(error) => Err(error.into()),
        }
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
