//! A connection with a server: messages back and forth, and what the server says besides.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use postgres_protocol::message::frontend;

use super::conninfo::Endpoint;
use super::error::{ClientError, PgError};
use super::frame::{BadLength, FrameBuffer, Framed};
use super::message::{Body, Garbled, server_error};
use super::stream::{Heard, Stream};
use crate::ctx::Ctx;

/// How many warnings of a command are kept for its error.
const WARNINGS_MAX: usize = 8;

/// A connection with a server, over which one command runs at a time.
#[derive(Debug)]
pub struct Connection {
    pub(super) stream: Stream,
    buffer: FrameBuffer,
    user: String,
    endpoint: Endpoint,
    parameters: BTreeMap<String, String>,
    /// Warnings since the command began.
    warnings: Vec<String>,
    /// Whether the server waits for a command.
    is_ready: bool,
}

impl Connection {
    /// A connection on which nothing was said yet.
    pub(super) fn new(stream: Stream, user: String, endpoint: Endpoint) -> Connection {
        Connection {
            stream,
            buffer: FrameBuffer::new(),
            user,
            endpoint,
            parameters: BTreeMap::new(),
            warnings: Vec::new(),
            is_ready: false,
        }
    }

    /// The host as messages name it.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.stream.host
    }

    /// The place of the connection string that answered.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The role.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// What the server said of itself at the start, such as `server_version` or `in_hot_standby`.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// Whether the server waits for a command: not so in the middle of one, nor after the connection broke.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// How long the server may say nothing and take nothing from here on: a base backup waits for a checkpoint
    /// before its first byte.
    pub fn set_silence(&mut self, silence: Duration) {
        self.stream.silence = silence;
    }

    pub(super) fn ctx(&self) -> &Ctx {
        &self.stream.ctx
    }

    pub(super) fn protocol(&self, problem: impl Into<String>) -> ClientError {
        ClientError::protocol(self.host(), problem)
    }

    /// A message that comes when nobody expects it.
    pub(super) fn unexpected(&self, tag: u8) -> ClientError {
        self.protocol(format!("an unexpected message `{}`", tag.escape_ascii()))
    }

    pub(super) fn garbled(&self, what: &str) -> ClientError {
        self.protocol(format!("{what} that cannot be read"))
    }

    /// Part of the message that was received last.
    pub(super) fn body(&self, range: Range<usize>) -> &[u8] {
        self.buffer.get(range)
    }

    /// Sends a command, which ends all others.
    ///
    /// # Errors
    /// [`ClientError::Lost`] in the middle of another one; what sending fails with.
    pub(super) fn command(&mut self, text: &str) -> Result<(), ClientError> {
        if !self.is_ready {
            let what = "the command before did not come to its end; connect again";
            return Err(self.stream.lost(io::Error::new(io::ErrorKind::NotConnected, what)));
        }
        self.is_ready = false;
        self.warnings.clear();
        let mut message = BytesMut::new();
        frontend::query(text, &mut message).map_err(|error| self.protocol(error.to_string()))?;
        self.stream.write_all(&message)
    }

    /// Waits for the next message that is part of the conversation.
    ///
    /// # Errors
    /// [`ClientError::Silent`] if no byte comes for too long; otherwise as [`Connection::receive_until`].
    pub(super) fn receive(&mut self) -> Result<Framed, ClientError> {
        let began = Instant::now();
        loop {
            let until = self.stream.last_heard.max(began) + self.stream.silence;
            if Instant::now() >= until {
                return Err(self.stream.silent());
            }
            if let Some(message) = self.receive_until(until)? {
                return Ok(message);
            }
        }
    }

    /// The same, but nothing if none is there as a whole at `until`. Notices and the like are dealt with here.
    ///
    /// # Errors
    /// [`ClientError::Server`] for an error of the server, after which the connection can be used again if it is
    /// not fatal; [`ClientError::Lost`], [`ClientError::Protocol`], [`ClientError::Stopped`].
    pub(super) fn receive_until(&mut self, until: Instant) -> Result<Option<Framed>, ClientError> {
        loop {
            let Some((tag, range)) = self.next_message()? else {
                match self.stream.read(self.buffer.room(), until)? {
                    Heard::Bytes(count) => self.buffer.filled(count),
                    Heard::Nothing => return Ok(None),
                }
                continue;
            };
            match tag {
                b'N' => self.note(range)?,
                b'S' => self.keep_parameter(range)?,
                b'A' => {}
                b'E' => return Err(self.failure(range)),
                b'Z' => {
                    self.is_ready = true;
                    return Ok(Some((tag, range)));
                }
                _ => return Ok(Some((tag, range))),
            }
        }
    }

    fn next_message(&mut self) -> Result<Option<Framed>, ClientError> {
        self.buffer.next().map_err(|BadLength(length)| {
            self.protocol(format!("a message of {length} bytes: this is not PostgreSQL"))
        })
    }

    /// An error or notice as the server sent it.
    fn server_error(&self, range: Range<usize>) -> Result<PgError, ClientError> {
        let found = server_error(self.body(range));
        let error = found.map_err(|Garbled| self.garbled("an error"))?;
        Ok(PgError { host: self.host().to_owned(), user: self.user.clone(), ..error })
    }

    fn note(&mut self, range: Range<usize>) -> Result<(), ClientError> {
        let notice = self.server_error(range)?;
        let text = format!("PostgreSQL at {}: {}", notice.host, notice.message);
        if notice.severity == "WARNING" {
            self.ctx().monitor.warn(&text);
            if self.warnings.len() < WARNINGS_MAX {
                self.warnings.push(notice.message);
            }
        } else {
            self.ctx().monitor.detail(&text);
        }
        Ok(())
    }

    fn keep_parameter(&mut self, range: Range<usize>) -> Result<(), ClientError> {
        let mut body = Body(self.buffer.get(range));
        let read = body.text().and_then(|name| Ok((name.to_owned(), body.text()?.to_owned())));
        let (name, value) = read.map_err(|Garbled| self.garbled("a parameter"))?;
        self.parameters.insert(name, value);
        Ok(())
    }

    /// The error in `range`, once the server waits for commands again if it will.
    fn failure(&mut self, range: Range<usize>) -> ClientError {
        let mut error = match self.server_error(range) {
            Ok(error) => error,
            Err(garbled) => return garbled,
        };
        error.warnings = std::mem::take(&mut self.warnings);
        if !error.is_fatal() {
            let until = Instant::now() + self.stream.silence;
            while let Ok(Some(())) = self.skip(until) {
                if self.is_ready {
                    break;
                }
            }
        }
        ClientError::Server(Box::new(error))
    }

    /// Reads on after an error.
    fn skip(&mut self, until: Instant) -> Result<Option<()>, ClientError> {
        loop {
            if let Some((tag, _)) = self.next_message()? {
                self.is_ready = tag == b'Z';
                return Ok(Some(()));
            }
            match self.stream.read(self.buffer.room(), until)? {
                Heard::Bytes(count) => self.buffer.filled(count),
                Heard::Nothing => return Ok(None),
            }
        }
    }
}

impl Drop for Connection {
    /// Tells the server that this was all, where it listens.
    fn drop(&mut self) {
        if self.is_ready {
            let mut message = BytesMut::new();
            frontend::terminate(&mut message);
            self.stream.write_once(&message);
        }
    }
}
