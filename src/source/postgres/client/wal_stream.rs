//! The log as the server writes it.

use std::ops::Range;
use std::time::{Duration, Instant};

use super::connection::Connection;
use super::error::{ClientError, quote_identifier};
use super::lsn::Lsn;
use super::message::{Body, Garbled};

/// How long an answer that says nothing new is put off: a server that stops asks again with every answer, until it
/// is told that all of its log is durable.
const REPLY_EVERY: Duration = Duration::from_millis(100);

/// Seconds from the system's epoch to the server's, the year 2000.
const SERVER_EPOCH: i128 = 946_684_800;

/// How far a receiver of the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WalStatus {
    /// Up to where it has what was sent.
    pub written: Lsn,
    /// Up to where that is durable: the server may forget it then, and lets commits go that wait for it.
    pub flushed: Lsn,
    /// Up to where it was replayed.
    pub applied: Lsn,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub enum WalEvent<'b> {
    /// Bytes of the log.
    Xlog {
        /// Where the first of them belongs.
        start: Lsn,
        /// The end of the log on the server.
        end: Lsn,
        /// The bytes.
        bytes: &'b [u8],
    },
    /// A sign of life.
    Keepalive {
        /// The end of what was sent.
        end: Lsn,
        /// Whether the server wants an answer at once. It gets the last status again if there is no new one soon.
        reply_requested: bool,
    },
    /// The timeline ends; nothing comes any more, and the connection can be used again.
    TimelineEnd {
        /// The one that follows.
        next_timeline: u32,
        /// Where it begins.
        switch: Lsn,
    },
    /// The server has ended the stream, usually because it stops.
    Closed,
}

/// The log in the middle of the stream. A server ends it when it hears nothing for `wal_sender_timeout` (60 s):
/// call [`WalStream::recv`] or [`WalStream::send_status`] more often.
#[derive(Debug)]
pub struct WalStream<'c> {
    connection: &'c mut Connection,
    status: WalStatus,
    /// When the server was asked whether it lives.
    asked_at: Option<Instant>,
    /// When the server was told last.
    said_at: Instant,
    owes_reply: bool,
    end: Option<End>,
}

/// How the stream ended.
#[derive(Debug, Clone, Copy)]
enum End {
    Timeline(u32, Lsn),
    Closed,
}

/// What a message has in it.
enum Part {
    Xlog(Lsn, Lsn, Range<usize>),
    Keepalive(Lsn, bool),
}

impl Connection {
    /// Begins to stream the log of `timeline` from `from` on, which should be the beginning of a segment.
    ///
    /// # Errors
    /// [`ClientError::Server`] with 58P01 if the server no longer has it; what else it or the connection fails
    /// with.
    pub fn start_replication(
        &mut self,
        slot: Option<&str>,
        from: Lsn,
        timeline: u32,
    ) -> Result<WalStream<'_>, ClientError> {
        let slot = slot.map(|name| format!("SLOT {} ", quote_identifier(name)));
        let slot = slot.unwrap_or_default();
        self.command(&format!("START_REPLICATION {slot}PHYSICAL {from} TIMELINE {timeline}"))?;
        let (tag, range) = self.receive()?;
        let end = match tag {
            b'W' => None,
            // There is nothing on this timeline from there on.
            b'T' => Some(self.timeline_end(range)?),
            other => return Err(self.unexpected(other)),
        };
        Ok(WalStream {
            connection: self,
            status: WalStatus::default(),
            asked_at: None,
            said_at: Instant::now(),
            owes_reply: false,
            end,
        })
    }

    /// The rest of a stream after its copying, with which timeline goes on; its description is in `range`.
    fn timeline_end(&mut self, range: Range<usize>) -> Result<End, ClientError> {
        let _columns = self.described(range)?;
        let (tag, range) = self.receive()?;
        if tag != b'D' {
            return Err(self.unexpected(tag));
        }
        let row = self.row(range)?;
        let next = self.parsed(&row, 0, "a timeline")?;
        let switch = self.parsed(&row, 1, "a position")?;
        self.finished()?;
        Ok(End::Timeline(next, switch))
    }

    /// The same, where it is not known yet what comes.
    fn stream_end(&mut self) -> Result<End, ClientError> {
        let (tag, range) = self.receive()?;
        match tag {
            b'T' => self.timeline_end(range),
            b'C' => {
                self.finished()?;
                Ok(End::Closed)
            }
            other => Err(self.unexpected(other)),
        }
    }
}

impl WalStream<'_> {
    /// What comes next; `None` if nothing comes for `timeout`, which may be zero.
    ///
    /// # Errors
    /// [`ClientError::Silent`] if the server gives no sign of life even when asked; what it or the connection
    /// fails with.
    pub fn recv(&mut self, timeout: Duration) -> Result<Option<WalEvent<'_>>, ClientError> {
        let until = Instant::now() + timeout;
        let (tag, range) = loop {
            if let Some(end) = self.end {
                return Ok(Some(event_of(end)));
            }
            let half = self.connection.stream.silence / 2;
            if self.owes_reply && self.said_at.elapsed() >= REPLY_EVERY {
                self.say(false)?;
            }
            let longest = if self.owes_reply { REPLY_EVERY } else { half };
            let next_look = (Instant::now() + longest).min(until);
            match self.connection.receive_until(next_look)? {
                Some(message) => break message,
                None => self.ask_for_life(half)?,
            }
            if Instant::now() >= until {
                return Ok(None);
            }
        };
        match tag {
            b'd' => {}
            b'c' => {
                self.connection.stream.write_all(b"c\0\0\0\x04")?;
                let end = self.connection.stream_end()?;
                self.end = Some(end);
                return Ok(Some(event_of(end)));
            }
            // A server that stops says that it is done, and nothing else.
            b'C' => {
                self.end = Some(End::Closed);
                return Ok(Some(WalEvent::Closed));
            }
            other => return Err(self.connection.unexpected(other)),
        }
        let read = part(Body(self.connection.body(range.clone())), &range);
        match read.map_err(|Garbled| self.connection.garbled("a part of the log"))? {
            Part::Xlog(start, end, range) => {
                let bytes = self.connection.body(range);
                Ok(Some(WalEvent::Xlog { start, end, bytes }))
            }
            Part::Keepalive(end, reply_requested) => {
                self.owes_reply |= reply_requested;
                Ok(Some(WalEvent::Keepalive { end, reply_requested }))
            }
        }
    }

    /// Tells the server how far the receiver is.
    ///
    /// # Errors
    /// What the connection fails with.
    pub fn send_status(&mut self, status: WalStatus) -> Result<(), ClientError> {
        self.status = status;
        self.say(false)
    }

    /// Ends the stream; the connection can be used again after it.
    ///
    /// # Errors
    /// What the server or the connection fails with.
    pub fn stop(self) -> Result<(), ClientError> {
        if self.end.is_some() {
            return Ok(());
        }
        self.connection.stream.write_all(b"c\0\0\0\x04")?;
        loop {
            match self.connection.receive()?.0 {
                b'd' => {}
                b'c' => return self.connection.stream_end().map(drop),
                b'C' => return self.connection.finished(),
                other => return Err(self.connection.unexpected(other)),
            }
        }
    }

    /// After half of the silence that is allowed, asks the server for a sign of life; after the other half, gives up.
    fn ask_for_life(&mut self, half: Duration) -> Result<(), ClientError> {
        let heard = self.connection.stream.last_heard;
        match self.asked_at.filter(|asked| *asked >= heard) {
            Some(asked) if asked.elapsed() >= half => Err(self.connection.stream.silent()),
            None if heard.elapsed() >= half => {
                self.asked_at = Some(Instant::now());
                self.say(true)
            }
            Some(_) | None => Ok(()),
        }
    }

    fn say(&mut self, wants_reply: bool) -> Result<(), ClientError> {
        if self.end.is_some() {
            return Ok(());
        }
        let now = self.connection.ctx().now().unix_timestamp_nanos() / 1_000;
        self.said_at = Instant::now();
        self.owes_reply = false;
        let micros = i64::try_from(now - SERVER_EPOCH * 1_000_000).unwrap_or(0);
        let WalStatus { written, flushed, applied } = self.status;
        let mut message = Vec::with_capacity(39);
        message.extend(b"d\0\0\0\x26r");
        for Lsn(position) in [written, flushed, applied] {
            message.extend(position.to_be_bytes());
        }
        message.extend(micros.to_be_bytes());
        message.push(u8::from(wants_reply));
        self.connection.stream.write_all(&message)
    }
}

fn event_of(end: End) -> WalEvent<'static> {
    match end {
        End::Timeline(next_timeline, switch) => WalEvent::TimelineEnd { next_timeline, switch },
        End::Closed => WalEvent::Closed,
    }
}

/// What a message in `range` of the buffer has in it.
fn part(mut body: Body<'_>, range: &Range<usize>) -> Result<Part, Garbled> {
    match body.byte()? {
        b'w' => {
            let (start, end, _sent_at) = (body.u64()?, body.u64()?, body.u64()?);
            Ok(Part::Xlog(Lsn(start), Lsn(end), range.end - body.0.len()..range.end))
        }
        b'k' => {
            let (end, _sent_at) = (body.u64()?, body.u64()?);
            Ok(Part::Keepalive(Lsn(end), body.byte()? != 0))
        }
        _ => Err(Garbled),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_log_stands_behind_three_numbers() {
        let body = [&b"w"[..], &7_u64.to_be_bytes(), &9_u64.to_be_bytes(), &[0; 8], b"ab"].concat();
        match part(Body(&body), &(100..100 + body.len())) {
            Ok(Part::Xlog(start, end, range)) => {
                assert_eq!((start, end, range), (Lsn(7), Lsn(9), 125..127));
            }
            _ => panic!("no log"),
        }
    }

    proptest! {
        #[test]
        fn no_part_is_too_strange(body in any::<Vec<u8>>()) {
            let _any = part(Body(&body), &(5..5 + body.len()));
        }
    }
}
