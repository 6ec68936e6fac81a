//! Rows from one server into another, by `COPY` on both sides: neither a file nor the memory of bkp holds them.

use bytes::{BufMut as _, BytesMut};
use postgres_protocol::message::frontend;

use super::connection::Connection;
use super::error::ClientError;
use super::message::{Body, Garbled};

/// Bytes that are collected before they are sent on.
const BATCH_BYTES: usize = 256 << 10;
/// What the receiving server is told of a sender that failed; it answers with an error that quotes it.
const GIVEN_UP: &str = "the rows could not be read to their end";

impl Connection {
    /// Runs `from`, a `COPY … TO STDOUT`, and has `target` run `into`, a `COPY … FROM STDIN`, with what it gives.
    /// Returns how many rows that were. Both servers have to agree on encoding and format.
    ///
    /// # Errors
    /// What either server or connection fails with; [`ClientError::Protocol`] if one of them counted other rows.
    /// Where a server refuses, both connections can be used again; the target has no row of it then.
    pub fn copy_rows(
        &mut self,
        from: &str,
        target: &mut Connection,
        into: &str,
    ) -> Result<u64, ClientError> {
        target.begin_copy(into, b'G')?;
        let sent = self.begin_copy(from, b'H').and_then(|()| self.pass_on(target));
        let sent = match sent {
            Ok(sent) => sent,
            Err(error) => {
                target.abandon_copy();
                return Err(error);
            }
        };
        target.stream.write_all(b"c\0\0\0\x04")?;
        let stored = target.copied()?;
        if sent == stored {
            return Ok(stored);
        }
        Err(target.protocol(format!("{stored} rows were stored of {sent} that were sent")))
    }

    /// Sends a command that begins a copy, which the server answers with `expected`.
    fn begin_copy(&mut self, command: &str, expected: u8) -> Result<(), ClientError> {
        self.command(command)?;
        match self.receive()?.0 {
            tag if tag == expected => Ok(()),
            other => Err(self.unexpected(other)),
        }
    }

    /// Passes on what comes, to its end; the number of rows.
    fn pass_on(&mut self, target: &mut Connection) -> Result<u64, ClientError> {
        let mut batch = BytesMut::with_capacity(2 * BATCH_BYTES);
        loop {
            let (tag, range) = self.receive()?;
            match tag {
                b'd' => {
                    let length =
                        u32::try_from(range.len() + 4).map_err(|_huge| self.garbled("a length"))?;
                    batch.put_u8(b'd');
                    batch.put_u32(length);
                    batch.put_slice(self.body(range));
                }
                b'c' => {
                    target.stream.write_all(&batch)?;
                    return self.copied();
                }
                other => return Err(self.unexpected(other)),
            }
            if batch.len() >= BATCH_BYTES {
                target.stream.write_all(&batch)?;
                batch.clear();
            }
        }
    }

    /// Waits for the end of a copy; how many rows it had.
    fn copied(&mut self) -> Result<u64, ClientError> {
        let (tag, range) = self.receive()?;
        if tag != b'C' {
            return Err(self.unexpected(tag));
        }
        let text = Body(self.body(range)).text().map_err(|Garbled| self.garbled("an end"))?;
        let rows = text.strip_prefix("COPY ").and_then(|rows| rows.parse().ok());
        let rows = rows.ok_or_else(|| self.garbled("a number of rows"))?;
        self.finished()?;
        Ok(rows)
    }

    /// Tells a server that no more rows come, and waits until it has understood.
    fn abandon_copy(&mut self) {
        let mut message = BytesMut::new();
        let built = frontend::copy_fail(GIVEN_UP, &mut message);
        if built.is_ok() && self.stream.write_all(&message).is_ok() {
            // It answers with an error, which says nothing new.
            let _expected = self.finished();
        }
    }
}
