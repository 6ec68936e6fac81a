//! The protocol between bkp and its engine process: JSON frames over a socket, one question and one
//! answer at a time. The engine works on text that a database holds, so what it answers is data: it is
//! bounded, and nothing in it is ever run.

use std::io::{self, Read, Write};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::source::duckdb::export::index::Content;

/// What a database of ours is called: a schema of that name would make names of two parts ambiguous.
pub(crate) const CATALOG: &str = "bkp_6f3a90c1";

/// An empty database in memory, where names lead to nothing of the database: see [`crate::source::duckdb::engine::Session::leave_user_schema`].
pub(crate) const OUTSIDE: &str = "bkp_6f3a90c1_outside";

/// A row of which every value is text.
pub(crate) type TextRow = Vec<Option<String>>;

/// The word on the command line that makes a bkp an engine.
pub(crate) const WORD: &str = "duckdb-engine";

/// The folder that the engine lives in, by a name that needs no right to the folders around it.
pub(crate) const HERE: &str = "/proc/self/cwd";

/// Where the engine streams Parquet to: its standard output.
pub(crate) const OUTPUT: &str = "/proc/self/fd/1";

/// Largest frame, bytes.
const FRAME_BYTES_MAX: usize = 256 << 20;

/// How long a definition may take: it binds names and types, and no rows.
pub(crate) const DEFINITION: Duration = Duration::from_mins(1);

/// How long any other statement may take.
pub(crate) const WORK: Duration = Duration::from_hours(24);

/// A question, and for how long the engine may work on it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Question {
    pub(crate) seconds: u64,
    pub(crate) asked: EngineCommand,
}

/// What bkp asks for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum EngineCommand {
    /// The first question: which databases, and what the engine may take.
    Open(Open),
    /// The keys of the functions that hash rows, 64 hexadecimal digits: once in a session. From then on there is
    /// `bkp_tally`, too.
    RowKeys(String),
    /// A statement of ours, without an answer but that it is done.
    Run(String),
    /// A statement of ours in which `bkp_tally` notes groups of rows.
    Tally(TallyStatement),
    /// A statement that is not ours: exactly one, which begins with one of these.
    Define { begins: Vec<String>, sql: String },
    /// The rows of a query of ours, as text.
    Table(String),
    /// Rows of text for a table.
    Insert { table: String, rows: Vec<TextRow> },
    /// What differs between an earlier and the present state of a table.
    Compare(Compare),
    /// Close the databases and open these instead, in the same folder.
    Reopen(Open),
    /// The last question.
    Close,
}

/// A statement that notes groups of rows.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum TallyStatement {
    /// One that writes them.
    Copy(String),
    /// One that tells how many there are.
    Count(String),
}

impl TallyStatement {
    pub(crate) fn sql(&self) -> &str {
        match self {
            TallyStatement::Copy(sql) | TallyStatement::Count(sql) => sql,
        }
    }
}

/// How the engine is set up.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Open {
    /// The database itself; one in memory if there is none.
    pub(crate) database: Option<Base>,
    /// Others beside it.
    pub(crate) beside: Vec<Base>,
    /// Whether statements of ours read and write files in the engine's folder.
    pub(crate) files: bool,
    /// Whether it lives in a folder of ours, and not nowhere.
    pub(crate) folder: bool,
    pub(crate) memory_bytes: u64,
    pub(crate) threads: u64,
}

/// A database file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Base {
    /// What it is called in statements.
    pub(crate) name: String,
    /// The file.
    pub(crate) path: String,
    pub(crate) write: bool,
    /// The storage version of a file that is made.
    pub(crate) storage_version: Option<String>,
    /// Whether its log is put into it first, and how.
    pub(crate) settle: LogMerge,
}

/// How the log of a database is put into its file before it is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum LogMerge {
    /// It is not, unless attaching fails.
    Not,
    /// As an attached database, else as the engine's own.
    Attached,
    /// As the engine's own: an engine has ended over the other way.
    Own,
}

/// The queries of [`EngineCommand::Compare`]: see `delta::sequences`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Compare {
    pub(crate) base: String,
    pub(crate) later: Vec<String>,
    pub(crate) now: String,
    /// Rows that may differ or wait for others.
    pub(crate) most: u64,
    /// The temporary tables for the places of rows that differ, and for the keys of those that are gone.
    pub(crate) rows: String,
    pub(crate) gone: String,
}

/// What was compared and found.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CompareOutcome {
    /// How many rows differ or are new.
    pub(crate) rows: u64,
    /// How many are gone.
    pub(crate) gone: u64,
    /// Of the earlier state, and of the present one.
    pub(crate) before: RowSum,
    pub(crate) now: RowSum,
}

/// How many rows there were, and the sum of their hashes, decimal.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RowSum {
    pub(crate) rows: u64,
    pub(crate) sum: String,
}

/// What the engine answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    Done,
    Table {
        columns: Vec<String>,
        rows: Vec<TextRow>,
    },
    /// How many rows a statement wrote or counted, and what was noted of each group of them.
    Tallied {
        rows: u64,
        groups: Vec<(u64, Content)>,
    },
    /// Nothing if it could not be told in one pass.
    Compared(Option<CompareOutcome>),
    /// Why it was not done, in the engine's words.
    Refused(String),
}

/// Sends a frame.
///
/// # Errors
/// What the system says; [`io::ErrorKind::InvalidData`] for one that is too large.
pub(crate) fn send(mut to: impl Write, what: &impl Serialize) -> io::Result<()> {
    let body = serde_json::to_vec(what)?;
    let too_large = || {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "it is more than one question or answer can hold",
        )
    };
    let length = u32::try_from(body.len()).ok().filter(|_| body.len() <= FRAME_BYTES_MAX);
    to.write_all(&length.ok_or_else(too_large)?.to_le_bytes())?;
    to.write_all(&body)?;
    to.flush()
}

/// Receives a frame; `None` at the end.
///
/// # Errors
/// What the system says; [`io::ErrorKind::InvalidData`] for what is no frame.
pub(crate) fn receive<T: DeserializeOwned>(mut from: impl Read) -> io::Result<Option<T>> {
    let mut frame = Frame::default();
    let mut buffer = vec![0; 64 << 10];
    loop {
        if let Some(found) = frame.take()? {
            return Ok(Some(found));
        }
        let wanted = frame.missing().min(buffer.len());
        match from.read(buffer.get_mut(..wanted).unwrap_or_default()) {
            Ok(0) => return Ok(None),
            Ok(count) => frame.add(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A frame that arrives in pieces.
#[derive(Debug, Default)]
pub(crate) struct Frame(Vec<u8>);

impl Frame {
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn length(&self) -> Option<usize> {
        let head = self.0.first_chunk::<4>()?;
        usize::try_from(u32::from_le_bytes(*head)).ok()
    }

    /// How many bytes are wanted before the next look; never those of a later frame.
    pub(crate) fn missing(&self) -> usize {
        match self.length() {
            None => 4 - self.0.len(),
            Some(length) => (4 + length).saturating_sub(self.0.len()).max(1),
        }
    }

    /// What the frame holds, if it is whole.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] for what is no frame.
    pub(crate) fn take<T: DeserializeOwned>(&self) -> io::Result<Option<T>> {
        let Some(length) = self.length() else { return Ok(None) };
        if length > FRAME_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "an answer that is too large"));
        }
        let body = self.0.get(4..).filter(|body| body.len() == length);
        Ok(body.map(serde_json::from_slice).transpose()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_arrives_whole_or_not_at_all() {
        let mut bytes = Vec::new();
        let row = vec![Some("x\u{0}'".to_owned()), None];
        let answer = Answer::Table { columns: vec!["a".into()], rows: vec![row] };
        send(&mut bytes, &answer).expect("it is small");
        send(&mut bytes, &Answer::Done).expect("it is small");
        let mut from = bytes.as_slice();
        let first: Option<Answer> = receive(&mut from).expect("a frame");
        assert!(matches!(first, Some(Answer::Table { rows, .. }) if rows[0][0].is_some()));
        assert!(matches!(receive(&mut from).expect("a frame"), Some(Answer::Done)));
        assert!(receive::<Answer>(&mut from).expect("the end").is_none());
        let huge = u32::MAX.to_le_bytes();
        assert!(receive::<Answer>(&mut huge.as_slice()).is_err());
        assert!(receive::<Answer>(&mut [3, 0, 0, 0, b'x', b'y', b'z'].as_slice()).is_err());
    }
}
