//! `bkp pin`, `bkp unpin` and `bkp note`: annotations of a backup, stored beside it.

use std::fmt::Write as _;

use schemars::JsonSchema;
use serde::Serialize;

use crate::catalog::{self, Entry, Filter};
use crate::domain::id::BackupId;
use crate::domain::names::Mark;
use crate::error::{Fault, Kind};
use crate::keys::keyring::Keyring;
use crate::ops::annotations::{AnnotationBody, AnnotationKind};
use crate::ops::authenticity;
use crate::ops::authenticity::ProofChecker;
use crate::ops::report::Report;
use crate::store::{AppendStore, StoreError};
use crate::wire::AppContext;

/// Longest note, bytes.
const NOTE_BYTES_MAX: usize = 4096;

/// What was asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// The beginning of the id.
    pub id: String,
    /// The kind of annotation.
    pub word: AnnotationKind,
    /// The reason, or the text of a note.
    pub note: Option<String>,
    /// Say what would be done, and do nothing.
    pub dry_run: bool,
}

/// The stable shape `bkp.pin/1`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct PinReport {
    id: BackupId,
    word: AnnotationKind,
    /// URLs of the stores that have the backup, and now the word about it.
    stores: Vec<String>,
    /// Stores in which nothing is said now, or nothing that can be relied on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failed: Vec<FailedStore>,
    dry_run: bool,
}

/// A store that failed.
#[derive(Debug, Serialize, JsonSchema)]
struct FailedStore {
    store: String,
    problem: String,
}

/// Writes a mark beside the backup, in every store that has it. A store that fails keeps no other one
/// from it.
///
/// # Errors
/// [`Kind::NotFound`] if there is no such backup, [`Kind::Usage`] if the id fits several or the note is
/// too long; [`Kind::Key`] if it is to be unpinned and no key at hand opens it; what the last store fails
/// with.
pub fn run(app: &AppContext, options: &Options) -> anyhow::Result<Report> {
    if let Some(bytes) =
        options.note.as_ref().map(String::len).filter(|bytes| *bytes > NOTE_BYTES_MAX)
    {
        let message = format!("a note of {bytes} bytes is longer than {NOTE_BYTES_MAX}");
        return Err(Fault::new(Kind::Usage, message).hint("shorten the note").into());
    }
    let filter = Filter { id: Some(options.id.clone()), ..Filter::default() };
    let mut found: Vec<(String, String, Entry)> = Vec::new();
    let (mut failed, mut failure) = (Vec::new(), None);
    let mut fail = |store: &str, error: anyhow::Error| {
        let problem = format!("{error:#}");
        app.ctx.monitor.warn(&format!("continuing without store {store}: {problem}"));
        failed.push(FailedStore { store: store.to_owned(), problem });
        failure = Some(error);
    };
    for name in app.store_names()? {
        let looked = app.store_named(&name).and_then(|store| {
            let entries = catalog::contents(&*store, &filter, &app.ctx.cancel)?;
            Ok((store.url().to_owned(), entries))
        });
        match looked {
            Ok((url, entries)) => {
                let whole = entries.into_iter().filter(|entry| entry.manifest.is_some());
                found.extend(whole.map(|entry| (name.clone(), url.clone(), entry)));
            }
            Err(error) => fail(&name, error),
        }
    }
    if found.iter().any(|(_, _, entry)| Some(entry.name.id) != found.first().map(|f| f.2.name.id)) {
        let message = format!("`{}` matches several backups", options.id);
        return Err(Fault::new(Kind::Usage, message).hint("use more digits of the id").into());
    }
    let keys = if options.dry_run { Keyring::default() } else { authenticity::keys(app) };
    let mut stores = Vec::new();
    for (name, url, entry) in &found {
        let annotate = || annotate(app, options, name, entry, &keys);
        let done = if options.dry_run { Ok(()) } else { annotate() };
        match done {
            Ok(()) => stores.push(url.clone()),
            Err(error) => fail(url, error),
        }
    }
    if stores.is_empty()
        && let Some(error) = failure
    {
        return Err(error);
    }
    let Some((_, _, Entry { name, .. })) = found.first() else {
        let message = format!("no backup with id `{}`", options.id);
        return Err(Fault::new(Kind::NotFound, message).into());
    };
    let id = name.id;
    let verb = options.word.done();
    let would = if options.dry_run { "would be " } else { "" };
    let mut text = format!("{id} {would}{verb} in {}\n", stores.join(", "));
    for FailedStore { store, problem } in &failed {
        writeln!(text, "NOT {verb} in {store}: {problem}")?;
    }
    let outcome = (!failed.is_empty()).then_some(Kind::Partial);
    let said = PinReport { id, word: options.word, stores, failed, dry_run: options.dry_run };
    Ok(Report::done("bkp.pin/1", &said, text)?.with_outcome(outcome))
}

/// Writes the mark in one store. What only keeps a backup may be said by anybody; what lets it go has to
/// be proven.
fn annotate(
    app: &AppContext,
    options: &Options,
    store: &str,
    entry: &Entry,
    keys: &Keyring,
) -> anyhow::Result<()> {
    let (store, ctx, word, id) = (app.store_append(store)?, &app.ctx, options.word, entry.name.id);
    let proof_checker = ProofChecker::new(&*store, keys, ctx);
    match (proof_checker.can_prove(&entry.name), word) {
        (false, AnnotationKind::Unpin) => {
            let message = format!(
                "backup {id} stays pinned: no available key opens it, so this host cannot authenticate the unpin"
            );
            let hint = "run it on a host that has one of the keys the backup was sealed for, or pass one with --key";
            return Err(Fault::new(Kind::Key, message).hint(hint).into());
        }
        (false, _) => ctx.monitor.warn(&format!(
            "no available key opens backup {id}: it is {}, but without authentication",
            word.done()
        )),
        (true, _) => {}
    }
    let said = AnnotationBody::now(ctx, word, options.note.clone(), None);
    said.add(&*store, &entry.name, &entry.marks, &proof_checker)?;
    if word == AnnotationKind::Pin { check_not_removed(&*store, entry) } else { Ok(()) }
}

/// Makes sure that no cleanup has begun to remove what was just pinned. Cleanup marks first and looks for
/// pins then, so one of the two sees the other.
fn check_not_removed(store: &dyn AppendStore, entry: &Entry) -> anyhow::Result<()> {
    let is_there = |key: &str| match store.head(key) {
        Ok(_) => Ok(true),
        Err(StoreError::Missing { .. }) => Ok(false),
        Err(error) => Err(error),
    };
    let being_removed = is_there(&entry.name.key(&Mark::Deleting.extension()))?;
    if being_removed || !is_there(&entry.name.manifest_key())? {
        let message = format!("a cleanup has begun to remove backup {}", entry.name.id);
        let hint = "check with `bkp list`; if it still exists, run the same command again after `bkp cleanup`";
        return Err(Fault::new(Kind::Refused, message).hint(hint).into());
    }
    Ok(())
}
