//! The stream of a base backup as tars, one after the other.

use std::io::{self, Read};

use crate::error::FirstError;
use crate::source::postgres::client::{BackupEvent, BaseBackup};

/// What begins next in the stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The tar of the data folder.
    Data,
    /// That of a tablespace.
    Tablespace(u32),
    /// The server's list of files.
    FileList,
    /// Nothing: all of it has come.
    End,
}

/// A reader of what began last, which ends where the next thing begins.
pub(super) struct StreamInput<'b, 'c> {
    backup: &'b mut BaseBackup<'c>,
    /// Bytes that have come, and how many of them were read.
    buffer: Vec<u8>,
    at: usize,
    next: Option<Next>,
    first_error: FirstError,
}

impl<'b, 'c> StreamInput<'b, 'c> {
    pub(super) fn new(backup: &'b mut BaseBackup<'c>, first_error: FirstError) -> Self {
        StreamInput { backup, buffer: Vec::new(), at: 0, next: None, first_error }
    }

    /// What begins next; the rest of what began before is passed over.
    pub(super) fn next(&mut self) -> anyhow::Result<Next> {
        loop {
            if let Some(next) = self.next.take() {
                return Ok(next);
            }
            self.at = self.buffer.len();
            self.advance(&mut []).map_err(|error| self.first_error.or(error))?;
        }
    }

    /// Takes one event. What it brings goes to `direct` as a whole, if there is room, and else to the buffer.
    fn advance(&mut self, direct: &mut [u8]) -> io::Result<usize> {
        let event = self.backup.next_event().map_err(|error| self.first_error.note(error))?;
        self.next = match event {
            Some(BackupEvent::Data(bytes)) => {
                if let Some(room) = direct.get_mut(..bytes.len()) {
                    room.copy_from_slice(bytes);
                    return Ok(bytes.len());
                }
                self.buffer.clear();
                self.buffer.extend_from_slice(bytes);
                self.at = 0;
                None
            }
            Some(BackupEvent::Progress(_)) => None,
            Some(BackupEvent::Manifest) => Some(Next::FileList),
            Some(BackupEvent::Archive { name, .. }) => {
                let oid = name.strip_suffix(".tar").and_then(|oid| oid.parse().ok());
                Some(oid.map_or(Next::Data, Next::Tablespace))
            }
            None => Some(Next::End),
        };
        Ok(0)
    }
}

impl Read for StreamInput<'_, '_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.buffer.get(self.at..).unwrap_or_default();
            if !ready.is_empty() {
                let count = ready.read(out)?;
                self.at += count;
                return Ok(count);
            }
            if self.next.is_some() || out.is_empty() {
                return Ok(0);
            }
            let count = self.advance(out)?;
            if count > 0 {
                return Ok(count);
            }
        }
    }
}
