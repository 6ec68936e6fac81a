//! A base backup as the server streams it: tars of all tablespaces, then its manifest.

use std::ops::Range;
use std::time::Duration;

use super::connection::Connection;
use super::error::ClientError;
use super::lsn::Lsn;
use super::message::{Body, Garbled};
use super::query::Row;

/// How the checkpoint is made that a base backup begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checkpoint {
    /// At once.
    Fast,
    /// Little by little: the server says nothing for minutes.
    Spread,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct BackupOptions {
    /// What the backup is called in its `backup_label`.
    pub label: String,
    /// How the checkpoint is made.
    pub checkpoint: Checkpoint,
    /// Whether the log that it needs is a part of it.
    pub wal: bool,
    /// Whether the server checks the checksums of pages, if it has them.
    pub verify_checksums: bool,
    /// Whether it builds on the manifest that was uploaded.
    pub incremental: bool,
    /// At most so many KiB a second.
    pub max_rate_kib: Option<u32>,
}

/// A position on a timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The position.
    pub lsn: Lsn,
    /// The timeline.
    pub timeline: u32,
}

/// A tablespace besides the two of every cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tablespace {
    /// Its number, which is the name of its tar.
    pub oid: u32,
    /// Its folder on the server.
    pub location: String,
    /// About so large, KiB.
    pub size_kib: u64,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub enum BackupEvent<'b> {
    /// A tar begins. Those of the tablespaces come before `base.tar`.
    Archive {
        /// `base.tar`, or the number of a tablespace with `.tar`.
        name: String,
        /// The folder of the tablespace on the server; empty for `base.tar`.
        location: String,
    },
    /// The manifest begins: the last of all.
    Manifest,
    /// Bytes of what began last.
    Data(&'b [u8]),
    /// So many bytes of the whole are done.
    Progress(u64),
}

/// A base backup in the middle of the stream.
#[derive(Debug)]
pub struct BaseBackup<'c> {
    connection: &'c mut Connection,
    start: Position,
    tablespaces: Vec<Tablespace>,
    size_kib: u64,
    /// Whether all data has come.
    is_complete: bool,
}

/// What a message has in it.
enum Part {
    Archive(String, String),
    Manifest,
    Data(Range<usize>),
    Progress(u64),
}

impl Connection {
    /// Begins a base backup. Returns when the server's checkpoint is done.
    ///
    /// # Errors
    /// What the server or the connection fails with.
    pub fn base_backup(&mut self, options: &BackupOptions) -> Result<BaseBackup<'_>, ClientError> {
        self.command(&command(options))?;
        let start = self.result_set()?;
        let start = self.backup_position(start.rows.first())?;
        let mut tablespaces = Vec::new();
        let mut size_kib = 0;
        for row in self.result_set()?.rows {
            let size = if row.get(2).is_some() { self.parsed(&row, 2, "a size")? } else { 0 };
            size_kib += size;
            // The tablespaces of the cluster itself have no number here.
            if row.get(0).is_some() {
                let location = row.get(1).unwrap_or_default().to_owned();
                let oid = self.parsed(&row, 0, "a tablespace")?;
                tablespaces.push(Tablespace { oid, location, size_kib: size });
            }
        }
        match self.receive()?.0 {
            b'H' => {}
            other => return Err(self.unexpected(other)),
        }
        Ok(BaseBackup { connection: self, start, tablespaces, size_kib, is_complete: false })
    }

    fn backup_position(&self, row: Option<&Row>) -> Result<Position, ClientError> {
        let row = row.ok_or_else(|| self.protocol("a base backup without a position"))?;
        let lsn = self.parsed(row, 0, "a position")?;
        Ok(Position { lsn, timeline: self.parsed(row, 1, "a timeline")? })
    }
}

impl BaseBackup<'_> {
    /// How long the server may say nothing from here on: it has done its checkpoint.
    pub fn set_silence(&mut self, silence: Duration) {
        self.connection.set_silence(silence);
    }

    /// From where on the log is needed to restore it.
    #[must_use]
    pub fn start(&self) -> Position {
        self.start
    }

    /// The tablespaces besides those of every cluster.
    #[must_use]
    pub fn tablespaces(&self) -> &[Tablespace] {
        &self.tablespaces
    }

    /// About how large all of it is, KiB.
    #[must_use]
    pub fn size_kib(&self) -> u64 {
        self.size_kib
    }

    /// What comes next; `None` after all data. Whether it is a backup is known after [`BaseBackup::finish`] only.
    ///
    /// # Errors
    /// What the server or the connection fails with.
    pub fn next_event(&mut self) -> Result<Option<BackupEvent<'_>>, ClientError> {
        if self.is_complete {
            return Ok(None);
        }
        let (tag, range) = self.connection.receive()?;
        match tag {
            b'd' => {}
            b'c' => {
                self.is_complete = true;
                return Ok(None);
            }
            other => return Err(self.connection.unexpected(other)),
        }
        let read = part(Body(self.connection.body(range.clone())), range);
        Ok(Some(match read.map_err(|Garbled| self.connection.garbled("a part of a backup"))? {
            Part::Archive(name, location) => BackupEvent::Archive { name, location },
            Part::Manifest => BackupEvent::Manifest,
            Part::Data(range) => BackupEvent::Data(self.connection.body(range)),
            Part::Progress(bytes) => BackupEvent::Progress(bytes),
        }))
    }

    /// Waits for the server's word that all was well, and returns up to where the log is needed to restore it.
    ///
    /// # Errors
    /// [`ClientError::Server`] with XX001 if a page is damaged, which the server says here and not before; the
    /// hint names the page. [`ClientError::Protocol`] if not all events were taken.
    pub fn finish(self) -> Result<Position, ClientError> {
        if !self.is_complete {
            return Err(self.connection.protocol("the end of a backup in the middle of it"));
        }
        let end = self.connection.result_set()?;
        self.connection.finished()?;
        self.connection.backup_position(end.rows.first())
    }
}

fn command(options: &BackupOptions) -> String {
    // The label is one line of a file, and this grammar knows no escapes but doubled quotes.
    let label = options.label.replace(char::is_control, " ").replace('\'', "''");
    let checkpoint = match options.checkpoint {
        Checkpoint::Fast => "fast",
        Checkpoint::Spread => "spread",
    };
    let mut command = format!(
        "BASE_BACKUP (LABEL '{label}', PROGRESS true, CHECKPOINT '{checkpoint}', WAL {}, \
         WAIT {}, TABLESPACE_MAP true, MANIFEST 'yes', MANIFEST_CHECKSUMS 'CRC32C', \
         VERIFY_CHECKSUMS {}",
        // Without an archiver nothing would come to wait for.
        options.wal,
        false,
        options.verify_checksums,
    );
    if options.incremental {
        command += ", INCREMENTAL true";
    }
    let rate = options.max_rate_kib.map(|rate| format!(", MAX_RATE {rate}"));
    command + &rate.unwrap_or_default() + ")"
}

/// What a message in `range` of the buffer has in it.
fn part(mut body: Body<'_>, range: Range<usize>) -> Result<Part, Garbled> {
    Ok(match body.byte()? {
        b'd' => Part::Data(range.start + 1..range.end),
        b'p' => Part::Progress(body.u64()?),
        b'n' => {
            let name = body.text()?.to_owned();
            Part::Archive(name, body.text()?.to_owned())
        }
        b'm' => Part::Manifest,
        _ => return Err(Garbled),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_label_stays_in_its_quotes() {
        let options = BackupOptions {
            label: "a'b\nc".into(),
            checkpoint: Checkpoint::Fast,
            wal: true,
            verify_checksums: true,
            incremental: true,
            max_rate_kib: Some(64),
        };
        let command = command(&options);
        assert!(command.starts_with("BASE_BACKUP (LABEL 'a''b c', PROGRESS"), "{command}");
        assert!(command.ends_with("VERIFY_CHECKSUMS true, INCREMENTAL true, MAX_RATE 64)"));
    }

    proptest! {
        #[test]
        fn no_part_is_too_strange(body in any::<Vec<u8>>()) {
            let _any = part(Body(&body), 0..body.len());
        }
    }
}
