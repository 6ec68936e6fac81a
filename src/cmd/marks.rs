//! Words about a backup, each a small object beside it: that it is to stay, that it is damaged, notes.

use std::io::Read as _;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::journal;
use super::verify::Level;
use crate::ctx::{Ctx, host};
use crate::domain::names::{BackupName, Mark};
use crate::error::{Fault, Kind};
use crate::store::{AppendStore, ReadStore, Role, StoreError};

/// How many numbers are tried if others take them.
const TRIES: u16 = 100;

/// The schema that this version writes and reads.
const SCHEMA: &str = "bkp.mark/1";

/// Largest mark that is read, bytes.
const MARK_BYTES_MAX: u64 = 64 << 10;

/// What is said about a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Word {
    /// No retention may remove it.
    Pin,
    /// Retention may remove it again.
    Unpin,
    /// Something to remember.
    Note,
    /// A verification has found that it is not what was written.
    Damaged,
    /// A later one has found that it is.
    Sound,
}

impl Word {
    /// What was done then.
    pub(super) fn done(self) -> &'static str {
        match self {
            Word::Pin => "pinned",
            Word::Unpin => "unpinned",
            Word::Note => "noted",
            Word::Damaged => "found damaged",
            Word::Sound => "found whole",
        }
    }

    /// The mark with this word and number.
    fn mark(self, number: u16) -> Mark {
        match self {
            Word::Pin => Mark::Pin(number),
            Word::Unpin => Mark::Unpin(number),
            Word::Note => Mark::Note(number),
            Word::Damaged => Mark::Damaged(number),
            Word::Sound => Mark::Sound(number),
        }
    }

    /// The number of a mark that is counted together with those of this word.
    fn number(self, mark: Mark) -> Option<u16> {
        match (self, mark) {
            (Word::Pin | Word::Unpin, Mark::Pin(number) | Mark::Unpin(number))
            | (Word::Note, Mark::Note(number))
            | (Word::Damaged | Word::Sound, Mark::Damaged(number) | Mark::Sound(number)) => {
                Some(number)
            }
            (Word::Pin | Word::Unpin | Word::Note | Word::Damaged | Word::Sound, _) => None,
        }
    }
}

/// What is stored, schema `bkp.mark/1`. Whoever can write to the store can write one.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(super) struct Said {
    schema: String,
    pub(super) word: Word,
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub(super) at: OffsetDateTime,
    pub(super) host: String,
    process: u32,
    /// Why, or what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) note: Option<String>,
    /// How deep a verification had looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) level: Option<Level>,
}

impl Said {
    /// Said now, by this process.
    pub(super) fn now(ctx: &Ctx, word: Word, note: Option<String>, level: Option<Level>) -> Said {
        let (schema, process) = (SCHEMA.to_owned(), std::process::id());
        Said { schema, word, at: ctx.now(), host: host(), process, note, level }
    }

    /// Says it of a backup that has these `marks` already.
    ///
    /// # Errors
    /// What the store fails with; [`Kind::Refused`] if no number is left, [`Kind::Busy`] if others keep
    /// taking them.
    pub(super) fn add(
        &self,
        store: &dyn AppendStore,
        name: &BackupName,
        marks: &[Mark],
    ) -> anyhow::Result<()> {
        let last = marks.iter().filter_map(|mark| self.word.number(*mark)).max().unwrap_or(0);
        // Somebody else may say something at the same time, and takes the number.
        for further in 1..=TRIES {
            let next = last.checked_add(further).ok_or_else(|| {
                let message = format!("backup {} has too many marks of this kind", name.id);
                Fault::new(Kind::Refused, message).hint("unpin and clean up, or leave it as it is")
            })?;
            let key = name.key(&self.word.mark(next).extension());
            if journal::add_own(store, (&key, Role::Index), self)? {
                return Ok(());
            }
        }
        let message = format!("others keep writing marks beside backup {}", name.id);
        Err(Fault::new(Kind::Busy, message).into())
    }
}

/// What was said about a backup with these marks, oldest first, as far as it can be read.
///
/// # Errors
/// What the store fails with.
pub(super) fn said(
    store: &dyn ReadStore,
    name: &BackupName,
    marks: &[Mark],
) -> Result<Vec<Said>, StoreError> {
    let mut found = Vec::new();
    for mark in marks.iter().filter(|mark| **mark != Mark::Deleting) {
        let mut bytes = Vec::new();
        let body = match store.open(&name.key(&mark.extension()), None) {
            Err(StoreError::Missing { .. }) => continue,
            opened => opened?,
        };
        let whole = body.take(MARK_BYTES_MAX).read_to_end(&mut bytes);
        let said = whole.ok().and_then(|_length| serde_json::from_slice::<Said>(&bytes).ok());
        found.extend(said.filter(|said| said.schema == SCHEMA));
    }
    found.sort_by_key(|said| said.at);
    Ok(found)
}
