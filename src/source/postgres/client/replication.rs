//! What a server says of itself to a replica: its system, its timelines, its slots.

use std::io::Read;

use bytes::BytesMut;
use postgres_protocol::message::frontend;

use super::connection::Connection;
use super::error::{ClientError, quote_identifier};
use super::lsn::Lsn;
use super::message::{Garbled, row};
use super::query::Row;

/// Bytes of a manifest that are sent in one message.
const CHUNK_BYTES: usize = 64 << 10;

/// Which cluster this is, and where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SystemIdentity {
    /// The same for a cluster and everything restored or replicated from it.
    pub system_id: u64,
    /// The timeline it writes, or replays.
    pub timeline: u32,
    /// What is on its disk of the log.
    pub lsn: Lsn,
}

/// A physical replication slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// From where on the log is kept, if the slot was used or reserves it.
    pub restart: Option<Lsn>,
    /// The timeline of that.
    pub timeline: Option<u32>,
}

impl Connection {
    /// Which cluster this is. Works on connections for replication only, as everything here.
    ///
    /// # Errors
    /// What the server or the connection fails with.
    pub fn identify_system(&mut self) -> Result<SystemIdentity, ClientError> {
        let row = self.only_row("IDENTIFY_SYSTEM")?;
        Ok(SystemIdentity {
            system_id: self.parsed(&row, 0, "a system identifier")?,
            timeline: self.parsed(&row, 1, "a timeline")?,
            lsn: self.parsed(&row, 2, "a position")?,
        })
    }

    /// The name and the content of a timeline's history file. The first timeline has none: the server refuses.
    ///
    /// # Errors
    /// What the server or the connection fails with.
    pub fn timeline_history(&mut self, timeline: u32) -> Result<(String, Vec<u8>), ClientError> {
        self.command(&format!("TIMELINE_HISTORY {timeline}"))?;
        let mut found = None;
        loop {
            let (tag, range) = self.receive()?;
            match tag {
                b'T' | b'C' => {}
                // Its content is what it is, in no encoding.
                b'D' => {
                    let values = row(self.body(range)).map_err(|Garbled| self.garbled("a row"))?;
                    found = <[_; 2]>::try_from(values).ok();
                }
                b'Z' => break,
                other => return Err(self.unexpected(other)),
            }
        }
        let Some([Some(name), Some(content)]) = found else {
            return Err(self.protocol("no history in the answer to TIMELINE_HISTORY"));
        };
        let name = String::from_utf8(name).map_err(|_no_text| self.garbled("a file name"))?;
        Ok((name, content))
    }

    /// Looks at a physical slot; `None` if there is none of that name.
    ///
    /// # Errors
    /// What the server or the connection fails with; it refuses for a logical slot.
    pub fn read_replication_slot(&mut self, name: &str) -> Result<Option<Slot>, ClientError> {
        let command = format!("READ_REPLICATION_SLOT {}", quote_identifier(name));
        let row = self.only_row(&command)?;
        if row.get(0).is_none() {
            return Ok(None);
        }
        let has = |column| row.get(column).is_some();
        let restart = has(1).then(|| self.parsed(&row, 1, "a position")).transpose()?;
        let timeline = has(2).then(|| self.parsed(&row, 2, "a timeline")).transpose()?;
        Ok(Some(Slot { restart, timeline }))
    }

    /// Makes a physical slot, which keeps the log from now on. A temporary one ends with this connection.
    ///
    /// # Errors
    /// [`ClientError::Server`] with 42710 if there is one of that name.
    pub fn create_replication_slot(
        &mut self,
        name: &str,
        temporary: bool,
    ) -> Result<(), ClientError> {
        let name = quote_identifier(name);
        let temporary = if temporary { "TEMPORARY " } else { "" };
        let command =
            format!("CREATE_REPLICATION_SLOT {name} {temporary}PHYSICAL (RESERVE_WAL true)");
        self.query(&command).map(drop)
    }

    /// Removes a slot that nobody uses at the moment.
    ///
    /// # Errors
    /// [`ClientError::Server`] with 42704 if there is none, with 55006 if it is in use.
    pub fn drop_replication_slot(&mut self, name: &str) -> Result<(), ClientError> {
        self.query(&format!("DROP_REPLICATION_SLOT {}", quote_identifier(name))).map(drop)
    }

    /// Sends the manifest of the backup that an incremental one, the next command, shall build on. Version 17 and
    /// newer.
    ///
    /// # Errors
    /// [`ClientError::Input`] if `manifest` cannot be read; what the server or the connection fails with.
    pub fn upload_manifest(&mut self, manifest: &mut dyn Read) -> Result<(), ClientError> {
        self.command("UPLOAD_MANIFEST")?;
        let (tag, _) = self.receive()?;
        if tag != b'G' {
            return Err(self.unexpected(tag));
        }
        let mut message = vec![0; 5 + CHUNK_BYTES];
        loop {
            let room = message.get_mut(5..).unwrap_or_default();
            let count = match manifest.read(room) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(problem) => return Err(self.give_up_copy(problem)),
            };
            let length = u32::try_from(count + 4).map_err(|_huge| self.garbled("a length"))?;
            if let Some((head, _)) = message.split_first_chunk_mut::<5>() {
                let [b, c, d, e] = length.to_be_bytes();
                *head = [b'd', b, c, d, e];
            }
            self.stream.write_all(message.get(..5 + count).unwrap_or_default())?;
        }
        self.stream.write_all(b"c\0\0\0\x04")?;
        self.finished()
    }

    /// Tells the server that no more comes, and waits until it has understood.
    fn give_up_copy(&mut self, problem: std::io::Error) -> ClientError {
        let mut message = BytesMut::new();
        let built = frontend::copy_fail("the manifest cannot be read", &mut message);
        let told = built.is_ok() && self.stream.write_all(&message).is_ok();
        if told {
            // It answers with an error, which says nothing new.
            let _expected = self.finished();
        }
        ClientError::Input { host: self.host().to_owned(), problem }
    }

    /// The one row that a command answers with.
    fn only_row(&mut self, command: &str) -> Result<Row, ClientError> {
        let rows = self.query(command)?;
        let first = rows.into_iter().next();
        first.ok_or_else(|| self.protocol(format!("no answer to {command}")))
    }

    /// A value that has to be there.
    pub(super) fn parsed<T: std::str::FromStr>(
        &self,
        row: &Row,
        column: usize,
        what: &str,
    ) -> Result<T, ClientError> {
        let text = row.get(column).ok_or_else(|| self.protocol(format!("{what} is missing")))?;
        text.parse().map_err(|_no| self.garbled(what))
    }
}
