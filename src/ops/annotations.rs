//! Annotations of a backup, each a small object beside it: pins, damage, notes.
//!
//! Whoever can write to the store can write such a word, so each carries a [proof]: a MAC under the data
//! key of the backup that it is about, by whoever could open that. A pin counts without one, and so does
//! damage, as something to be looked into. What takes such a word back names what it takes back, and
//! counts with a proof only.

use std::collections::HashSet;
use std::io::Read as _;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::ctx::{Ctx, host};
use crate::domain::id::BackupId;
use crate::domain::limits::MARK_BYTES_MAX;
use crate::domain::names::{BackupName, Mark, MarkNumber};
use crate::domain::verify_level::VerifyLevel;
use crate::ops::authenticity;
use crate::ops::authenticity::{ANNOTATION, ProofChecker};
use crate::ops::records;
use crate::store::{AppendStore, ReadStore, Role, StoreError};

/// The schema that this version writes and reads.
const SCHEMA: &str = "bkp.mark/1";

/// How many words one object takes back: their names fit into it.
const TAKEN_BACK_MAX: usize = 1000;

/// How many marks of one kind are read beside one backup, the newest. Beyond that somebody plants them;
/// then what was said against a pin or damage may not be found, and both stay.
const READ_MAX: usize = 64;

/// The kinds of annotations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AnnotationKind {
    /// No retention may remove it.
    Pin,
    /// Retention may remove it again.
    Unpin,
    /// A free-form note.
    Note,
    /// A verification has found that it is not what was written.
    Damaged,
    /// A later one has found that it is.
    Sound,
}

impl AnnotationKind {
    /// What was done then.
    pub(crate) fn done(self) -> &'static str {
        match self {
            AnnotationKind::Pin => "pinned",
            AnnotationKind::Unpin => "unpinned",
            AnnotationKind::Note => "noted",
            AnnotationKind::Damaged => "found damaged",
            AnnotationKind::Sound => "found intact",
        }
    }

    /// A mark with this word.
    fn mark(self, nth: MarkNumber) -> Mark {
        match self {
            AnnotationKind::Pin => Mark::Pin(nth),
            AnnotationKind::Unpin => Mark::Unpin(nth),
            AnnotationKind::Note => Mark::Note(nth),
            AnnotationKind::Damaged => Mark::Damaged(nth),
            AnnotationKind::Sound => Mark::Sound(nth),
        }
    }

    /// The word of a mark, if it has one.
    fn of(mark: Mark) -> Option<AnnotationKind> {
        match mark {
            Mark::Pin(_) => Some(AnnotationKind::Pin),
            Mark::Unpin(_) => Some(AnnotationKind::Unpin),
            Mark::Note(_) => Some(AnnotationKind::Note),
            Mark::Damaged(_) => Some(AnnotationKind::Damaged),
            Mark::Sound(_) => Some(AnnotationKind::Sound),
            Mark::Wrapped(_) | Mark::Deleting => None,
        }
    }

    /// The word that it takes back.
    fn opposite(self) -> Option<AnnotationKind> {
        match self {
            AnnotationKind::Unpin => Some(AnnotationKind::Pin),
            AnnotationKind::Sound => Some(AnnotationKind::Damaged),
            AnnotationKind::Pin | AnnotationKind::Note | AnnotationKind::Damaged => None,
        }
    }
}

/// What is stored, schema `bkp.mark/1`. Behind it stands the proof, if there is one.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct AnnotationBody {
    schema: String,
    pub(crate) word: AnnotationKind,
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub(crate) at: OffsetDateTime,
    pub(crate) host: String,
    process: u32,
    /// The reason, or the text of a note.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
    /// How deep a verification had looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    level: Option<VerifyLevel>,
    /// The marks that count no more, by their extensions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    takes_back: Vec<String>,
}

/// An annotation as read from the store.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Annotation {
    #[serde(flatten)]
    pub(crate) body: AnnotationBody,
    /// Whether a key at hand shows that somebody said it who could open the backup.
    pub(crate) proven: bool,
}

impl Annotation {
    /// About what it takes in memory, bytes.
    pub(crate) fn weight(&self) -> u64 {
        let AnnotationBody { note, host, takes_back, .. } = &self.body;
        let taken = takes_back.iter().map(|name| name.len() + 32).sum::<usize>();
        (note.as_ref().map_or(0, String::len) + host.len() + taken + 256) as u64
    }
}

/// What is true of a backup, as far as its marks go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct BackupAnnotations {
    /// No retention may remove it.
    pub(crate) pinned: bool,
    pub(crate) damage: Damage,
    /// Something is said of it, or against what was said of it, that no key at hand proves.
    pub(crate) unproven: bool,
}

/// Whether a backup is damaged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Damage {
    /// Not marked as damaged.
    #[default]
    None,
    /// Marked as damaged, without authentication.
    Claimed,
    /// A verification found it.
    Confirmed,
}

impl AnnotationBody {
    /// Said now, by this process.
    pub(crate) fn now(
        ctx: &Ctx,
        word: AnnotationKind,
        note: Option<String>,
        level: Option<VerifyLevel>,
    ) -> AnnotationBody {
        let (schema, process, at) = (SCHEMA.to_owned(), std::process::id(), ctx.now());
        AnnotationBody {
            schema,
            word,
            at,
            host: host(),
            process,
            note,
            level,
            takes_back: Vec::new(),
        }
    }

    /// Says it of a backup, and against those of `marks` that are its opposite. It is proven if the
    /// backup can be opened.
    ///
    /// # Errors
    /// What the store fails with.
    pub(crate) fn add(
        &self,
        store: &dyn AppendStore,
        name: &BackupName,
        marks: &[Mark],
        proof_checker: &ProofChecker<'_>,
    ) -> anyhow::Result<()> {
        let against = self.word.opposite();
        let against = against.into_iter().flat_map(|word| of(marks, word));
        let taken: Vec<String> = against.map(Mark::extension).collect();
        let mut parts: Vec<&[String]> = taken.chunks(TAKEN_BACK_MAX).collect();
        if parts.is_empty() {
            parts.push(&[]);
        }
        for part in parts {
            let nth = MarkNumber::Made(BackupId::new(self.at));
            let key = name.key(&self.word.mark(nth).extension());
            let body = AnnotationBody { takes_back: part.to_vec(), ..self.clone() };
            let bytes = proof_checker.object(ANNOTATION, &key, &body, [name])?;
            records::add_new(store, (&key, Role::Index), &bytes)?;
        }
        Ok(())
    }
}

/// What was said about a backup with these marks, oldest first, as far as it can be read.
///
/// # Errors
/// What the store fails with.
pub(crate) fn read_annotations(
    store: &dyn ReadStore,
    proof_checker: &ProofChecker<'_>,
    name: &BackupName,
    marks: &[Mark],
) -> Result<Vec<Annotation>, StoreError> {
    let mut found = Vec::new();
    for word in [
        AnnotationKind::Pin,
        AnnotationKind::Unpin,
        AnnotationKind::Note,
        AnnotationKind::Damaged,
        AnnotationKind::Sound,
    ] {
        let read = newest(store, proof_checker, name, marks, word)?;
        found.extend(read.into_iter().map(|(_, said)| said));
    }
    found.sort_by_key(|said| said.body.at);
    Ok(found)
}

/// What counts of what was said about a backup with these marks. Asks the store only where something
/// was said against a pin, or of damage.
///
/// # Errors
/// What the store fails with.
pub(crate) fn judge(
    store: &dyn ReadStore,
    proof_checker: &ProofChecker<'_>,
    name: &BackupName,
    marks: &[Mark],
) -> Result<BackupAnnotations, StoreError> {
    let mut unproven = false;
    let mut left =
        |word: AnnotationKind, against: AnnotationKind| -> Result<Vec<Mark>, StoreError> {
            let mut found: Vec<Mark> = of(marks, word).collect();
            if found.is_empty() || of(marks, against).next().is_none() {
                return Ok(found);
            }
            let read = newest(store, proof_checker, name, marks, against)?;
            unproven |= read.len() < of(marks, against).count();
            let mut taken: HashSet<String> = HashSet::new();
            for (_, said) in read {
                unproven |= !said.proven;
                if said.proven {
                    taken.extend(said.body.takes_back);
                }
            }
            found.retain(|mark| !taken.contains(&mark.extension()));
            Ok(found)
        };
    let pinned = !left(AnnotationKind::Pin, AnnotationKind::Unpin)?.is_empty();
    let damaged = left(AnnotationKind::Damaged, AnnotationKind::Sound)?;
    let mut damage = Damage::None;
    if !damaged.is_empty() {
        let read = newest(store, proof_checker, name, &damaged, AnnotationKind::Damaged)?;
        let is_found = read.iter().any(|(_, said)| said.proven);
        unproven |= !is_found;
        damage = if is_found { Damage::Confirmed } else { Damage::Claimed };
    }
    Ok(BackupAnnotations { pinned, damage, unproven })
}

/// The marks of damage of a backup that a look of this depth can take back: a look that was less deep
/// than the one that found the damage takes nothing back. What nobody has proven says nothing of how deep
/// that was.
///
/// # Errors
/// What the store fails with.
pub(crate) fn refutable(
    store: &dyn ReadStore,
    proof_checker: &ProofChecker<'_>,
    name: &BackupName,
    marks: &[Mark],
    level: VerifyLevel,
) -> Result<Vec<Mark>, StoreError> {
    let read = newest(store, proof_checker, name, marks, AnnotationKind::Damaged)?;
    let is_deeper = |said: &Annotation| {
        let depth = said.body.level.filter(|_| said.proven).unwrap_or(VerifyLevel::Digest);
        depth > level
    };
    let deeper: Vec<Mark> =
        read.iter().filter(|(_, said)| is_deeper(said)).map(|(mark, _)| *mark).collect();
    let is_read = |mark: &Mark| read.iter().any(|(of, _)| of == mark);
    // What is no mark, or cannot be read, is as unproven as anything.
    let rest = |mark: &Mark| is_read(mark) || level >= VerifyLevel::Digest;
    Ok(of(marks, AnnotationKind::Damaged)
        .filter(|mark| !deeper.contains(mark) && rest(mark))
        .collect())
}

fn of(marks: &[Mark], word: AnnotationKind) -> impl Iterator<Item = Mark> {
    marks.iter().copied().filter(move |mark| AnnotationKind::of(*mark) == Some(word))
}

/// The newest marks with a word that can be read.
fn newest(
    store: &dyn ReadStore,
    proof_checker: &ProofChecker<'_>,
    name: &BackupName,
    marks: &[Mark],
    word: AnnotationKind,
) -> Result<Vec<(Mark, Annotation)>, StoreError> {
    let mut wanted: Vec<Mark> = of(marks, word).collect();
    wanted.sort_unstable_by(|a, b| b.cmp(a));
    let mut found = Vec::new();
    for mark in wanted.into_iter().take(READ_MAX) {
        let said = read(store, proof_checker, name, mark)?.filter(|said| said.body.word == word);
        found.extend(said.map(|said| (mark, said)));
    }
    Ok(found)
}

/// What a mark says; `None` if it is none, or has gone.
fn read(
    store: &dyn ReadStore,
    proof_checker: &ProofChecker<'_>,
    name: &BackupName,
    mark: Mark,
) -> Result<Option<Annotation>, StoreError> {
    let key = name.key(&mark.extension());
    let body = match store.open(&key, None) {
        Err(StoreError::Missing { .. }) => return Ok(None),
        opened => opened?,
    };
    let mut bytes = Vec::new();
    let whole = body.take(MARK_BYTES_MAX).read_to_end(&mut bytes);
    let body = whole.ok().and_then(|_length| serde_json::from_slice::<AnnotationBody>(&bytes).ok());
    Ok(body.filter(|body| body.schema == SCHEMA).map(|body| {
        // By this backup, and no other one that the writer may open.
        let is_claimed = authenticity::named(&bytes).as_ref() == Some(name);
        let is_right = is_claimed && proof_checker.proven(ANNOTATION, &key, &bytes).is_some();
        Annotation { body, proven: is_right }
    }))
}
