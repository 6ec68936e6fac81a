//! `bkp keys rewrap`: wraps the data keys of existing backups for further recipients, in envelopes beside their
//! manifests.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use schemars::JsonSchema;
use serde::Serialize;

use crate::catalog::{self, Catalog, Entry, Filter};
use crate::concurrent::each;
use crate::ctx::Ctx;
use crate::domain::id::BackupId;
use crate::domain::log_file::LogFileName;
use crate::domain::names::{BackupType, Mark, MarkNumber};
use crate::domain::recipient::Recipient;
use crate::error::{Fault, Kind};
use crate::keys::envelope::{self, Envelope};
use crate::keys::keyring::Keyring;
use crate::keys::{self, Effort, KeyError, KeyProvider};
use crate::ops::records;
use crate::ops::report::Report;
use crate::store::{AppendStore, Role};
use crate::wire::AppContext;

/// What `bkp keys rewrap` was asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// Who is to open the backups, as in the configuration; none means its recipients.
    pub to: Vec<String>,
    /// Only the backups of this source.
    pub source: Option<String>,
    /// Say what would be done, and do nothing.
    pub dry_run: bool,
}

/// The stable shape `bkp.rewrap/1`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct RewrapReport {
    /// Each of these opens every backup that is counted below.
    recipients: Vec<String>,
    stores: Vec<StoreResult>,
    dry_run: bool,
}

/// What was done in one store.
#[derive(Debug, Default, Serialize, JsonSchema)]
struct StoreResult {
    /// Its URL.
    store: String,
    /// Backups that got an envelope; with `--dry-run`, that would.
    rewrapped: usize,
    /// Backups that each recipient could open before.
    unchanged: usize,
    /// Backups that were not rewrapped.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failed: Vec<FailedBackup>,
    /// Sources with archived files of a log, which keep the recipients that they have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    log_files: Vec<String>,
    /// Why nothing was done in this store.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

impl StoreResult {
    /// Whether there was no backup to look at.
    fn is_empty(&self) -> bool {
        self.problem.is_none() && self.rewrapped + self.unchanged + self.failed.len() == 0
    }
}

/// A backup that was not rewrapped.
#[derive(Debug, Serialize, JsonSchema)]
struct FailedBackup {
    id: BackupId,
    problem: String,
}

/// Writes an envelope beside every backup that one of the recipients cannot open yet, in every store. When this
/// returns without an error and without an outcome, each recipient alone opens every backup; that was tried with
/// what is in the envelope before it was written, but for public keys.
///
/// # Errors
/// [`Kind::Config`] if there is no recipient; [`Kind::NotFound`] for a source that neither a store nor the configuration
/// knows; [`Kind::Key`] if one cannot be used; what the stores fail with if
/// all of them do. What is wrong with one backup is in the report, whose outcome is [`Kind::Partial`] then.
pub fn run(app: &AppContext, options: &Options) -> anyhow::Result<Report> {
    let recipients = recipients(app, options)?;
    let keys = app.keys_to_read()?;
    let (mut stores, mut failure) = (Vec::new(), None);
    for name in app.store_names()? {
        let rewrapped = in_store(app, options, &name, &keys, &recipients);
        stores.push(rewrapped.or_else(|error| -> anyhow::Result<StoreResult> {
            app.ctx.cancel.check()?;
            let problem = Some(format!("{error:#}"));
            app.ctx.monitor.warn(&format!("continuing without store {name}: {error:#}"));
            failure = Some(error);
            Ok(StoreResult { store: name, problem, ..StoreResult::default() })
        })?);
    }
    if let Some(source) = &options.source
        && !app.settings.sources.contains_key(source)
        && stores.iter().all(StoreResult::is_empty)
    {
        let message = format!("no backup of `{source}`, and no such source is configured");
        let hint = "`bkp list` shows every source that has backups";
        return Err(Fault::new(Kind::NotFound, message).hint(hint).into());
    }
    if stores.iter().all(|store| store.problem.is_some())
        && let Some(error) = failure
    {
        return Err(error);
    }
    let is_partial = |store: &StoreResult| {
        store.problem.is_some() || !store.failed.is_empty() || !store.log_files.is_empty()
    };
    let outcome = stores.iter().any(is_partial).then_some(Kind::Partial);
    let recipients = recipients.iter().map(|key| key.origin().to_owned()).collect();
    let report = RewrapReport { recipients, stores, dry_run: options.dry_run };
    Ok(Report::done("bkp.rewrap/1", &report, render(&report)?)?.with_outcome(outcome))
}

/// The keys that are to open the backups. All of them have to be at hand.
fn recipients(app: &AppContext, options: &Options) -> anyhow::Result<Vec<Box<dyn KeyProvider>>> {
    let configured = &app.settings.recipients;
    let texts = if options.to.is_empty() { configured } else { &options.to };
    if texts.is_empty() {
        let hint = "pass --to RECIPIENT, or configure `recipients` under [keys]";
        return Err(Fault::new(Kind::Config, "no recipient is configured").hint(hint).into());
    }
    let open = |text: &String| Ok(keys::kinds::open(text, &app.ctx.cancel)?);
    texts.iter().map(open).collect()
}

fn in_store(
    app: &AppContext,
    options: &Options,
    name: &str,
    keys: &Keyring,
    recipients: &[Box<dyn KeyProvider>],
) -> anyhow::Result<StoreResult> {
    let (store, ctx) = (app.store_append(name)?, &app.ctx);
    let filter = Filter { source: options.source.clone(), ..Filter::default() };
    let mut entries = catalog::contents(&*store, &filter, &ctx.cancel)?;
    // Anybody who may write can leave a mark of removal, and what restores must open with the new key.
    entries.retain(|entry| entry.manifest.is_some());
    let sources: BTreeSet<(BackupType, &str)> =
        entries.iter().map(|entry| (entry.name.backup_type, entry.name.source.as_str())).collect();
    let mut log_files = Vec::new();
    for (backup_type, source) in sources {
        if store.list(&LogFileName::prefix(backup_type, source))?.next().transpose()?.is_some() {
            log_files.push(source.to_owned());
        }
    }
    // Somebody asked for these backups, however much work it is to open them.
    let catalog = Catalog::new(&*store, keys, ctx).with_effort(Effort::Named);
    let rewrap = Rewrap { store: &*store, catalog, recipients, dry_run: options.dry_run, ctx };
    let outcomes = each(&entries, &ctx.cancel, |entry| {
        let outcome = rewrap.one(entry);
        // That the run is to stop says nothing of a backup.
        ctx.cancel.check()?;
        Ok(outcome)
    })?;
    let mut result =
        StoreResult { store: store.url().to_owned(), log_files, ..StoreResult::default() };
    for (entry, outcome) in entries.iter().zip(outcomes) {
        match outcome {
            Ok(true) => result.rewrapped += 1,
            Ok(false) => result.unchanged += 1,
            Err(error) => {
                let problem = format!("{error:#}");
                result.failed.push(FailedBackup { id: entry.name.id, problem });
            }
        }
    }
    Ok(result)
}

/// Wrapping anew in one store.
struct Rewrap<'a> {
    store: &'a dyn AppendStore,
    catalog: Catalog<'a>,
    recipients: &'a [Box<dyn KeyProvider>],
    dry_run: bool,
    ctx: &'a Ctx,
}

impl Rewrap<'_> {
    /// Writes an envelope for the recipients that cannot open this backup; false if there are none.
    fn one(&self, entry: &Entry) -> anyhow::Result<bool> {
        let backup = self.catalog.unlock(&entry.name)?;
        let known = self.catalog.recipients(&backup, &entry.marks);
        let mut wrapped = Vec::new();
        for recipient in self.recipients {
            if opens(recipient.as_ref(), &known, entry.name.id)? {
                continue;
            }
            if self.dry_run {
                return Ok(true);
            }
            let of = (entry.name.id, backup.manifest.source.as_str());
            wrapped.push(envelope::wrap(recipient.as_ref(), &backup.key, of)?);
        }
        if wrapped.is_empty() {
            return Ok(false);
        }
        let at = self.ctx.now();
        let key = entry.name.key(&Mark::Wrapped(MarkNumber::Made(BackupId::new(at))).extension());
        let envelope = Envelope::new(backup.manifest.id, &backup.sha256, wrapped, at);
        let bytes =
            envelope.encode(&backup.key, self.catalog.keys().signer()).ok_or_else(|| {
                let hint = "name fewer recipients with --to, and run it once for each";
                Fault::new(Kind::Usage, "the wrapped keys do not fit into an envelope").hint(hint)
            })?;
        records::add_new(self.store, (&key, Role::Index), &bytes)?;
        Ok(true)
    }
}

/// Whether a key opens a backup by one of these recipients. That one matches says little: the manifest was
/// perhaps sealed for an earlier key of that name.
fn opens(key: &dyn KeyProvider, known: &[Recipient], id: BackupId) -> Result<bool, KeyError> {
    // Whether what is there for a public key opens cannot be tried here.
    if !key.can_open() {
        return Ok(known.iter().any(|recipient| key.matches(recipient)));
    }
    for recipient in known.iter().filter(|recipient| key.matches(recipient)) {
        match key.open(recipient, id, Effort::Named) {
            Ok(_) => return Ok(true),
            Err(error @ (KeyError::Away { .. } | KeyError::Stopped(_))) => return Err(error),
            Err(_) => {}
        }
    }
    Ok(false)
}

fn render(report: &RewrapReport) -> Result<String, std::fmt::Error> {
    let recipients = report.recipients.join(", ");
    let would = if report.dry_run { "would be " } else { "" };
    let mut text = String::new();
    for StoreResult { store, rewrapped, unchanged, failed, log_files, problem } in &report.stores {
        if let Some(problem) = problem {
            writeln!(text, "{store}: NOT rewrapped: {problem}")?;
            continue;
        }
        writeln!(
            text,
            "{store}: {rewrapped} backup(s) {would}rewrapped for {recipients}; {unchanged} needed nothing"
        )?;
        for FailedBackup { id, problem } in failed {
            writeln!(text, "  {id} NOT rewrapped: {problem}")?;
        }
        for source in log_files {
            writeln!(
                text,
                "  the archived log files of {source} keep their recipients: keep the keys that open them"
            )?;
        }
    }
    let rewrapped: usize = report.stores.iter().map(|store| store.rewrapped).sum();
    if rewrapped > 0 && !report.dry_run {
        text.push_str(
            "This adds keys and revokes none: an old key still opens what it could open before.\n",
        );
    }
    Ok(text)
}
