//! `bkp pin`, `bkp unpin` and `bkp note`: a word about a backup, kept beside it.

use schemars::JsonSchema;
use serde::Serialize;
use time::OffsetDateTime;

use super::Report;
use super::alone::host;
use super::journal;
use crate::catalog::{self, Entry, Filter};
use crate::domain::id::BackupId;
use crate::domain::names::Mark;
use crate::error::{Fault, Kind};
use crate::store::Role;
use crate::wire::House;

/// What is said about a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Word {
    /// No retention may remove it.
    Pin,
    /// Retention may remove it again.
    Unpin,
    /// Something to remember.
    Note,
}

/// What was asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// The beginning of the id.
    pub id: String,
    /// What is said.
    pub word: Word,
    /// Why, or what.
    pub note: Option<String>,
    /// Say what would be done, and do nothing.
    pub dry_run: bool,
}

/// The stable shape `bkp.pin/1`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Said {
    id: BackupId,
    word: Word,
    /// URLs of the stores that have the backup, and now the word about it.
    stores: Vec<String>,
    dry_run: bool,
}

/// What is stored, schema `bkp.mark/1`.
#[derive(Debug, Serialize)]
struct Stored<'a> {
    schema: &'static str,
    word: Word,
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
    host: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'a str>,
}

/// Writes a mark beside the backup, in every store that has it.
///
/// # Errors
/// [`Kind::NotFound`] if there is no such backup, [`Kind::Usage`] if the id fits several; what the
/// stores fail with.
pub fn run(house: &House, options: &Options) -> anyhow::Result<Report> {
    let filter = Filter { id: Some(options.id.clone()), ..Filter::default() };
    let mut found: Vec<(String, String, Entry)> = Vec::new();
    for name in house.store_names()? {
        let store = house.store_named(&name)?;
        let entries = catalog::contents(&*store, &filter)?.into_iter();
        let whole = entries.filter(|entry| entry.manifest.is_some());
        found.extend(whole.map(|entry| (name.clone(), store.url().to_owned(), entry)));
    }
    let Some((_, _, Entry { name, .. })) = found.first() else {
        let message = format!("no backup with id `{}`", options.id);
        return Err(Fault::new(Kind::NotFound, message).into());
    };
    let id = name.id;
    if found.iter().any(|(_, _, entry)| entry.name.id != id) {
        let message = format!("`{}` fits several backups", options.id);
        return Err(Fault::new(Kind::Usage, message).hint("give more of the id").into());
    }
    let mut stores = Vec::new();
    for (name, url, entry) in &found {
        if !options.dry_run {
            say(house, options, name, entry)?;
        }
        stores.push(url.clone());
    }
    let verb = match options.word {
        Word::Pin => "pinned",
        Word::Unpin => "unpinned",
        Word::Note => "noted",
    };
    let would = if options.dry_run { "would be " } else { "" };
    let text = format!("{id} {would}{verb} in {}\n", stores.join(", "));
    let said = Said { id, word: options.word, stores, dry_run: options.dry_run };
    Report::done("bkp.pin/1", &said, text)
}

fn say(house: &House, options: &Options, store: &str, entry: &Entry) -> anyhow::Result<()> {
    let notes = |mark: &Mark| matches!(mark, Mark::Note(_));
    let last = entry.marks.iter().filter_map(|mark| match mark {
        Mark::Note(number) if options.word == Word::Note => Some(*number),
        Mark::Pin(number) | Mark::Unpin(number) if options.word != Word::Note && !notes(mark) => {
            Some(*number)
        }
        Mark::Note(_) | Mark::Pin(_) | Mark::Unpin(_) | Mark::Deleting => None,
    });
    let next = last.max().unwrap_or(0).checked_add(1).ok_or_else(|| {
        let message = format!("backup {} has too many marks of this kind", entry.name.id);
        Fault::new(Kind::Refused, message).hint("unpin and clean up, or leave it as it is")
    })?;
    let mark = match options.word {
        Word::Pin => Mark::Pin(next),
        Word::Unpin => Mark::Unpin(next),
        Word::Note => Mark::Note(next),
    };
    let stored = Stored {
        schema: "bkp.mark/1",
        word: options.word,
        at: house.ctx.now(),
        host: host(),
        note: options.note.as_deref(),
    };
    let store = house.store_append(store)?;
    journal::add(&*store, (&entry.name.key(&mark.extension()), Role::Index), &stored)
}
