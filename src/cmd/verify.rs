//! `bkp verify`: checks a backup, from its existence to a restore drill.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;

use super::verify_logs::{self, LogContinuity};
use crate::catalog::{self, Catalog, Filter, FoundBackup};
use crate::domain::backup_kind::BackupKind;
use crate::domain::event::Status;
use crate::domain::id::BackupId;
use crate::domain::names::BackupName;
use crate::domain::verify_level::VerifyLevel;
use crate::error::{Fault, Kind, diagnose, worst};
use crate::keys::Effort;
use crate::ops::authenticity::ProofChecker;
use crate::ops::report::Report;
use crate::ops::selection::Select;
use crate::ops::thaw::ThawOptions;
use crate::ops::{audit, other_stores, scratch, thaw};
use crate::pipeline::BackupReader;
use crate::source::{DecodeTools, Drilled, ResourceLimits, SourceKind, kinds};
use crate::store::AppendStore;
use crate::wire::AppContext;

pub(super) use self::verify_report::VerifyReport;
use crate::cmd::verify::damage_notes::DamageNotes;

mod damage_notes;
mod open_chain;
mod verify_report;

/// Which backups to verify.
#[derive(Debug, Clone)]
pub enum VerifyTarget {
    /// One, and everything it builds on.
    One(Select),
    /// All of a source, or of the store.
    All(Option<String>),
}

/// What `bkp verify` was asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// The backups.
    pub which: VerifyTarget,
    /// Of the backups of a source only the exports are meant; else all the others, if there are any.
    pub from_export: bool,
    /// How deep to check.
    pub level: VerifyLevel,
    /// Ask for objects in an archive that it has to read, at this speed and for so many days; else they are
    /// left alone.
    pub thaw: Option<ThawOptions>,
    /// Where a drill restores to; `None` takes a folder in the state directory.
    pub scratch: Option<PathBuf>,
}

/// The stable shape `bkp.verify-all/1`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct VerifyAllReport {
    store: String,
    level: VerifyLevel,
    ok: bool,
    backups: Vec<VerifyOutcome>,
    /// The logs of the sources: how their segments follow each other.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    logs: Vec<LogContinuity>,
}

/// What became of one of many.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum VerifyOutcome {
    Verified(VerifyReport),
    /// It exists; what it consists of is in an archive and was not read.
    Skipped {
        id: BackupId,
        source: String,
        skipped: String,
    },
    Failed {
        id: BackupId,
        source: String,
        ok: bool,
        kind: &'static str,
        problem: String,
    },
}

/// Verifies a backup and everything it builds on, or all backups one after the other.
///
/// # Errors
/// [`Kind::Integrity`] if it is not what was written; what store or keys fail with. Of all backups
/// each has its own outcome; the report's is that of the first that failed.
pub fn run(app: &AppContext, options: &Options) -> anyhow::Result<Report> {
    let source = match &options.which {
        VerifyTarget::One(select) => select.source(),
        VerifyTarget::All(source) => source.as_deref(),
    };
    let mut chosen = None;
    let report = verify_which(app, options, source, &mut chosen);
    if !thaw::is_waiting(&report) {
        audit::record_outcome(app, ("verified", Status::Verified), source, &report);
    }
    report.map_err(|error| match &chosen {
        Some(name) if diagnose(&error).kind == Kind::Integrity => with_copies(app, name, error),
        _ => other_stores::suggest(app, source, error),
    })
}

/// Says of a damaged backup which other store has a copy with every object in its size. It is damage all the same.
fn with_copies(app: &AppContext, name: &BackupName, error: anyhow::Error) -> anyhow::Error {
    let is_complete = |store: &str| -> anyhow::Result<()> {
        let (store, keys) = (app.store_named(store)?, app.keys_to_read()?);
        let catalog = Catalog::new(&*store, &keys, &app.ctx);
        let chain = open_chain::open(&catalog, name, VerifyLevel::Exists)?;
        chain.iter().try_for_each(|link| link.check_objects(&app.ctx))
    };
    let others = app.stores_with_copies(Some(&name.source));
    let Some(other) = others.iter().find(|store| is_complete(store).is_ok()) else { return error };
    let id = name.id;
    let hint = format!(
        "store `{other}` has a copy: check it with `bkp verify --id {id} --store {other}`, and restore with --store {other}"
    );
    error.context(Fault::new(Kind::Integrity, format!("backup {id} is damaged")).hint(hint))
}

/// Notes in `chosen` which backup it is, if it is about one.
fn verify_which(
    app: &AppContext,
    options: &Options,
    source: Option<&str>,
    chosen_name: &mut Option<BackupName>,
) -> anyhow::Result<Report> {
    let settings = source.and_then(|name| app.settings.sources.get(name));
    let store = app.store_read_and_note(settings)?;
    let keys = app.keys_to_read()?;
    let catalog = Catalog::new(&*store, &keys, &app.ctx);
    let catalog = catalog.with_effort(match &options.which {
        VerifyTarget::One(select) => select.effort(),
        VerifyTarget::All(_) => Effort::Usual,
    });
    match &options.which {
        VerifyTarget::One(select) => {
            // What a restore would take; a source may have nothing but exports.
            let chosen = match select.resolve_of(&catalog, options.from_export, &app.ctx) {
                Err(error) if !options.from_export && diagnose(&error).kind == Kind::NotFound => {
                    select.resolve(&catalog, &app.ctx)?
                }
                resolved => resolved?,
            };
            let name = chosen.name;
            *chosen_name = Some(name.clone());
            let verified = verify_again(app, options, &catalog, &name, &mut BTreeSet::new());
            // That the run is to stop is no failure of a backup.
            app.ctx.cancel.check()?;
            let filter = Filter::of_source(name.backup_type, &name.source);
            let found = catalog::find(&*store, &filter, &app.ctx.cancel)?;
            let (store, catalog, level) = (&*store, &catalog, options.level);
            let (noted, proof_checker) =
                (RefCell::default(), &ProofChecker::new(store, &keys, &app.ctx));
            let found = found.as_slice();
            DamageNotes { app, store, catalog, proof_checker, found, level, noted }
                .write(&name, &verified);
            let mut verified = verified?;
            verified.store = Some(store.url().to_owned());
            let text = render(&verified);
            // That all is well is not to be said of a newest backup that nobody could look at.
            let passed = (chosen.passed > 0).then_some(Kind::Partial);
            let outcome = worst(verified.outcome(), passed);
            Ok(Report::done("bkp.verify/1", &verified, text)?.with_outcome(outcome))
        }
        VerifyTarget::All(source) => {
            let filter = Filter { source: source.clone(), ..Filter::default() };
            let found = catalog::find(&*store, &filter, &app.ctx.cancel)?;
            if found.is_empty() {
                let message = format!("{}: no backup to verify", store.url());
                return Err(Fault::new(Kind::NotFound, message).into());
            }
            let proof_checker = ProofChecker::new(&*store, &keys, &app.ctx);
            all(app, options, (&catalog, &proof_checker), &*store, &found)
        }
    }
}

/// Oldest first, so that each object is read for the backup that it belongs to.
fn all(
    app: &AppContext,
    options: &Options,
    (catalog, proof_checker): (&Catalog<'_>, &ProofChecker<'_>),
    store: &dyn AppendStore,
    found: &[FoundBackup],
) -> anyhow::Result<Report> {
    let (mut backups, mut text, mut outcome) = (Vec::new(), String::new(), None);
    let mut seen = BTreeSet::new();
    let (level, noted) = (options.level, RefCell::default());
    let damage_notes = DamageNotes { app, store, catalog, proof_checker, found, level, noted };
    for FoundBackup { name, .. } in found {
        let verified = verify_again(app, options, catalog, name, &mut seen);
        // That the run is to stop is no failure of a backup.
        app.ctx.cancel.check()?;
        damage_notes.write(name, &verified);
        match verified {
            Ok(verified) => {
                outcome = worst(outcome, verified.outcome());
                writeln!(text, "{}", render(&verified))?;
                backups.push(VerifyOutcome::Verified(verified));
            }
            Err(error) if diagnose(&error).kind == Kind::Thawing => {
                let (id, skipped) = (name.id, format!("{error:#}"));
                writeln!(text, "{id} of {}: skipped: {skipped}", name.source)?;
                let source = name.source.clone();
                backups.push(VerifyOutcome::Skipped { id, source, skipped });
            }
            Err(error) => {
                let kind = diagnose(&error).kind;
                outcome = worst(outcome, Some(kind));
                let (id, problem) = (name.id, format!("{error:#}"));
                writeln!(text, "{id} of {}: FAILED: {problem}", name.source)?;
                let (source, kind) = (name.source.clone(), kind.name());
                backups.push(VerifyOutcome::Failed { id, source, ok: false, kind, problem });
            }
        }
    }
    // That nothing could be read is no success.
    let is_skipped = |one: &VerifyOutcome| matches!(one, VerifyOutcome::Skipped { .. });
    if backups.iter().all(is_skipped) {
        outcome = worst(outcome, Some(Kind::Thawing));
    }
    let logs = verify_logs::chained(app, store, found)?;
    for log in &logs {
        outcome = worst(outcome, log.outcome());
        text.push_str(&log.text()?);
    }
    let body = VerifyAllReport {
        store: store.url().to_owned(),
        level: options.level,
        ok: outcome.is_none(),
        backups,
        logs,
    };
    Ok(Report::done("bkp.verify-all/1", &body, text)?.with_outcome(outcome))
}

/// Verifies a backup, and once more if it does not seem to be what was written: one answer of a service
/// that was damaged on its way is no damage of the backup.
fn verify_again(
    app: &AppContext,
    options: &Options,
    catalog: &Catalog<'_>,
    name: &BackupName,
    proven: &mut BTreeSet<BackupId>,
) -> anyhow::Result<VerifyReport> {
    match verify(app, options, catalog, name, proven) {
        Err(error) if diagnose(&error).kind == Kind::Integrity => {
            app.ctx.monitor.end();
            let why = format!("{error:#}; reading it again before marking it as damaged");
            app.ctx.monitor.warn(&why);
            verify(app, options, catalog, name, proven)
        }
        verified => verified,
    }
}

/// Verifies one backup and its chain. The links whose stored bytes are in `proven` are not read
/// again for their digests, and those that are join them.
fn verify(
    app: &AppContext,
    options: &Options,
    catalog: &Catalog<'_>,
    name: &BackupName,
    proven: &mut BTreeSet<BackupId>,
) -> anyhow::Result<VerifyReport> {
    let began = app.ctx.now();
    let is_segment = name.kind == BackupKind::Log;
    let chain = open_chain::open(catalog, name, options.level)?;
    let kind = kinds::kind_of(name.backup_type)?;
    app.ctx
        .monitor
        .begin(&format!("verify {}", name.id), open_chain::stored_bytes(&chain, options.level));
    chain.iter().try_for_each(|link| link.check_objects(&app.ctx))?;
    if options.level != VerifyLevel::Exists {
        check_readable(app, options, catalog, &chain)?;
    }
    let mut drill = None;
    // A segment alone is nothing that a server could start from.
    let level = if is_segment { options.level.min(VerifyLevel::Decode) } else { options.level };
    match level {
        VerifyLevel::Exists | VerifyLevel::Digest => {}
        VerifyLevel::Decode | VerifyLevel::Drill if is_segment => {
            let decode = kinds::log_kind_of(name.backup_type)?.decode;
            let files = catalog.log_files(name.backup_type, &name.source);
            chain.iter().try_for_each(|segment| decode(segment, &files, &app.ctx))?;
        }
        VerifyLevel::Decode => {
            let scratch = || scratch::to_drill(app, options.scratch.as_deref());
            let share = share(app, &chain);
            (kind.decode)(&chain, &DecodeTools { scratch: &scratch, share }, &app.ctx)?;
        }
        VerifyLevel::Drill => drill = Some(run_drill(app, kind, &chain, options)?),
    }
    // Decoding and drilling compare the digests of what they read, and need not read everything.
    if options.level != VerifyLevel::Exists {
        for reader in &chain {
            let id = reader.manifest().id;
            if !proven.contains(&id) {
                reader.check_digests(&app.ctx)?;
                proven.insert(id);
            }
        }
    }
    app.ctx.monitor.end();
    Ok(VerifyReport {
        store: None,
        id: name.id,
        source: name.source.clone(),
        level,
        chain: chain.iter().map(|reader| reader.manifest().id).collect(),
        ok: drill.as_ref().is_none_or(Drilled::is_ok),
        seconds: (app.ctx.now() - began).as_seconds_f64(),
        drill,
    })
}

/// That everything can be read now. What is in an archive is asked for if that is wanted.
///
/// # Errors
/// [`Kind::Thawing`] if it cannot.
fn check_readable(
    app: &AppContext,
    options: &Options,
    catalog: &Catalog<'_>,
    chain: &[BackupReader<'_>],
) -> anyhow::Result<()> {
    let cold = thaw::find(app, catalog.store(), chain)?;
    let Some(plan) = cold.plan_if_any(app, options.thaw.unwrap_or_default())? else {
        return Ok(());
    };
    let mut hint = "pass --thaw to ask for them, or verify with --level exists";
    if let Some(thaw) = options.thaw {
        cold.ask(app, catalog.store(), thaw)?;
        hint = "they were asked for: run the same command again later";
    }
    let message = format!("not read: {}", thaw::summary(&plan));
    Err(Fault::new(Kind::Thawing, message).hint(hint).into())
}

/// What an engine may take of this machine: no configuration of the source is needed, but what it says is heeded.
fn share(app: &AppContext, chain: &[BackupReader<'_>]) -> ResourceLimits {
    let source = chain.last().map(|newest| newest.manifest().source.as_str()).unwrap_or_default();
    app.source(source).map(|source| source.share()).unwrap_or_default()
}

/// Drills in a new folder that is removed again, whatever happens.
fn run_drill(
    app: &AppContext,
    kind: &SourceKind,
    chain: &[BackupReader<'_>],
    options: &Options,
) -> anyhow::Result<Drilled> {
    let scratch = scratch::to_drill(app, options.scratch.as_deref())?;
    let tools = app.drill_tools(share(app, chain)).with_keys(app.keys_at_hand());
    (kind.drill)(chain, scratch.folder(), &tools, &app.ctx)
}

fn render(verified: &VerifyReport) -> String {
    let level = format!("{:?}", verified.level).to_lowercase();
    let checks = verified.drill.iter().flat_map(|drill| &drill.checks);
    let found = if checks.into_iter().all(|check| check.ok) { "ok" } else { "incomplete" };
    let mut lines = vec![format!(
        "{} of {}: {level} {found}, {} backup(s) in its chain, {:.1} s",
        verified.id,
        verified.source,
        verified.chain.len(),
        verified.seconds
    )];
    if let Some(drill) = &verified.drill {
        for check in &drill.checks {
            lines.push(format!("  {}: {}", check.what, check.found));
            lines.extend(check.hint.iter().map(|hint| format!("    hint: {hint}")));
        }
        lines.push(format!("  measured RTO: {:.1} s", drill.rto_seconds));
    }
    lines.join("\n")
}
