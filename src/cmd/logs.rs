//! `bkp logs`: ships what a source did since the last segment in the store.
//!
//! The position is the newest segment itself. A source that did nothing ships nothing, takes no lease
//! and leaves no event: the run is done.

mod locks;
mod segment_content;

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use humansize::{BINARY, format_size};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use self::segment_content::SegmentContent;
use super::log_files::push;
use super::snapshot::Options as SnapshotOptions;
use super::snapshot::{self, StoreCopy, check_seen, new_key, note, store_copies};
use crate::catalog::Catalog;
use crate::config::settings::SourceSettings;
use crate::domain::backup_kind::BackupKind;
use crate::domain::id::BackupId;
use crate::domain::manifest::Manifest;
use crate::domain::names::{BackupName, Scope};
use crate::domain::recipient::Recipient;
use crate::domain::segment::KIND;
use crate::domain::timestamp::{rfc3339, spelled};
use crate::error::{Fault, Kind, diagnose, worst};
use crate::keys::DataKey;
use crate::keys::signature::Signer;
use crate::ledger::Ledger;
use crate::ops::known_stores::KnownStores;
use crate::ops::log_history::{NewestSegment, newest};
use crate::ops::log_mode::LogModeName;
use crate::ops::manifest_builder;
use crate::ops::report::Report;
use crate::ops::run_guard::{RunGuard, lease_name};
use crate::pipeline::ObjectBuilder;
use crate::pipeline::log_files::LogFiles;
use crate::source::kinds;
use crate::source::logs::{LogKind, LogSource, OnGap, OwnEvents};
use crate::store::Role;
use crate::store::layer::mirrored::{MirrorOutcome, MirroredStore};
use crate::wire::AppContext;

/// What `bkp logs` was asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// The source's name.
    pub source: String,
    /// What to ship, if not what is configured: `wal` or `query`.
    pub mode: Option<String>,
    /// Go on shipping until a signal comes.
    pub follow: bool,
    /// Say what would be done, and do nothing.
    pub dry_run: bool,
}

/// The stable shape `bkp.logs/1`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct LogsReport<'a> {
    source: &'a str,
    store: &'a str,
    #[schemars(with = "LogModeName")]
    mode: &'static str,
    /// How every store fared; left out if there is one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    copies: Vec<StoreCopy>,
    /// False if there was nothing to ship.
    shipped: bool,
    /// The last moment that is in the store, RFC 3339; null if nothing is.
    until: Option<String>,
    /// Why the segment does not continue the one before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    gap: Option<String>,
    /// The snapshot that was taken because of the gap.
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot: Option<BackupId>,
    /// The segment's manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    manifest: Option<Manifest>,
}

/// What one look at the source came to.
struct Pass {
    store: String,
    outcomes: Vec<MirrorOutcome>,
    until: Option<u64>,
    /// There is something to ship.
    news: bool,
    manifest: Option<Manifest>,
    gap: Option<String>,
    snapshot: Option<BackupId>,
    outcome: Option<Kind>,
}

/// What stays over many looks.
struct Shipper<'h> {
    app: &'h AppContext,
    options: &'h Options,
    settings: &'h SourceSettings,
    kind: &'static LogKind,
    log: Box<dyn LogSource>,
    /// The newest segment when it was last looked for.
    newest: Option<NewestSegment>,
    /// Connected once, however many segments are shipped.
    ledger: Option<Arc<dyn Ledger>>,
}

/// Ships what happened since the newest segment. When this returns without an error it is in the
/// store, or there was nothing. With `follow` it returns when a signal comes.
///
/// # Errors
/// Of every kind that a chain can fail with; then no segment is visible, and the next run ships the
/// same and more. A gap is an outcome, [`Kind::Partial`].
pub fn run(app: &AppContext, options: &Options) -> anyhow::Result<Report> {
    let settings = app.source_settings(&options.source)?;
    let source = app.source(&options.source)?;
    let ledger = app.settings.ledger.as_ref();
    let own = ledger.map(|own| OwnEvents { cluster: own.cluster, ledger: own.number });
    let log = source.log(options.mode.as_deref(), own)?;
    let kind = kinds::log_kind_of(settings.backup_type)?;
    let ledger = app.ledger().map(Arc::from);
    let mut shipper = Shipper { app, options, settings, kind, log, newest: None, ledger };
    if options.follow {
        return shipper.follow();
    }
    let mut pass = shipper.pass()?;
    while pass.manifest.is_some() && shipper.log.has_more() {
        // What one pass found broken is not mended by the next.
        let (outcome, gap) = (pass.outcome, pass.gap.clone());
        let text = shipper.report(pass)?.text;
        app.ctx.monitor.detail(text.trim_end());
        pass = shipper.pass()?;
        (pass.outcome, pass.gap) = (worst(outcome, pass.outcome), gap.or(pass.gap));
    }
    shipper.report(pass)
}

impl Shipper<'_> {
    /// Ships until a signal comes. What may pass by itself is said and tried again.
    fn follow(&mut self) -> anyhow::Result<Report> {
        let ctx = &self.app.ctx;
        loop {
            match self.pass() {
                Ok(pass) => {
                    let text = self.report(pass)?.text;
                    ctx.monitor.detail(text.trim_end());
                }
                Err(error) => {
                    let passing = [Kind::Source, Kind::Store, Kind::Busy];
                    if !passing.contains(&diagnose(&error).kind) {
                        return Err(error);
                    }
                    ctx.monitor.warn(&format!("nothing shipped, retrying: {error:#}"));
                }
            }
            if let Err(error) = self.wait() {
                ctx.cancel.check()?;
                let passing = [Kind::Source, Kind::Store, Kind::Busy];
                if !passing.contains(&diagnose(&error).kind) {
                    return Err(error);
                }
                ctx.monitor.warn(&format!("nothing received, retrying: {error:#}"));
                ctx.pause(self.log.every())?;
            }
        }
    }

    /// Waits for the next look, and archives what is received meanwhile.
    fn wait(&mut self) -> anyhow::Result<()> {
        let (app, source) = (self.app, &self.options.source);
        let spool = push::receiving(app, source);
        let mut archive = |path: &Path| push::archive(app, source, path);
        self.log.wait(&spool, &mut archive, &app.ctx)
    }

    /// Looks once, and ships what there is.
    fn pass(&mut self) -> anyhow::Result<Pass> {
        let (app, source) = (self.app, &self.options.source);
        let of = (self.kind, self.log.mode());
        let keys = app.keys()?;
        let store = app.stores_append(Some(self.settings))?;
        let backup_type = self.settings.backup_type;
        // A store that has lost what it had must not make the others begin anew.
        check_seen(app, &store, backup_type, source)?;
        let catalog = Catalog::new(&store, &keys, &app.ctx);
        let before = newest(&store, &catalog, source, of, self.newest.as_ref(), &app.ctx)?;
        self.newest.clone_from(&before);
        let idle = |before: &Option<NewestSegment>| Pass {
            store: store.urls().into_iter().next().unwrap_or_default(),
            outcomes: Vec::new(),
            until: before.as_ref().map(|before| before.segment.last_timestamp),
            news: false,
            manifest: None,
            gap: None,
            snapshot: None,
            outcome: None,
        };
        let after = before.as_ref().map(|before| &before.capture);
        let files = catalog.log_files(backup_type, source);
        let news = self.log.news(after, &files, &app.ctx)?;
        if !news || self.options.dry_run {
            // A store that is away may lack what the others have.
            let outcomes = store.outcomes();
            return Ok(Pass { news, outcome: partial(&outcomes), outcomes, ..idle(&before) });
        }
        let job = lease_name(source, KIND);
        let run = RunGuard::begin_with(app, &job, backup_type, &store, self.ledger.clone())?;
        // Another one may have shipped between the look and the lease.
        let now = newest(&store, &catalog, source, of, before.as_ref(), &app.ctx)?;
        if now.as_ref().map(|now| now.id) != before.as_ref().map(|before| before.id) {
            let message = format!("another run has just shipped the log of `{source}`");
            return Err(Fault::new(Kind::Busy, message)
                .hint("nothing is lost; run it again")
                .into());
        }
        let key = new_key(&keys, run.id(), source)?;
        let (manifest, pending) =
            self.ship((&store, &files, keys.signer()), run, before.as_ref(), key)?;
        let shipped = (self.kind.read_segment)(&manifest.capture).map_err(anyhow::Error::msg)?;
        let segment = locks::Published {
            name: &manifest.name(),
            before: before.as_ref().map(|before| before.id),
            first: (!shipped.needs_base).then_some(manifest.base),
            promised: manifest.retention.until,
        };
        locks::lock_below(app, (&store, &catalog), &segment);
        let outcomes = store.outcomes();
        let broken = shipped.gap.or(shipped.unreplayable);
        let gap = broken.is_some().then_some(Kind::Partial);
        let mut pass = Pass {
            until: Some(shipped.last_timestamp),
            gap: broken,
            manifest: Some(manifest),
            outcome: worst(pending, worst(gap, partial(&outcomes))),
            outcomes,
            ..idle(&None)
        };
        self.handle_gap(&mut pass, shipped.needs_base);
        Ok(pass)
    }

    /// Makes the segment.
    fn ship(
        &mut self,
        (store, files, signer): (&MirroredStore, &LogFiles<'_>, Option<&Signer>),
        run: RunGuard<'_>,
        before: Option<&NewestSegment>,
        (key, recipients): (DataKey, Vec<Recipient>),
    ) -> anyhow::Result<(Manifest, Option<Kind>)> {
        let (app, id) = (self.app, run.id());
        let source = self.options.source.clone();
        if let Some(ahead) = before.filter(|before| before.id >= id) {
            let message = format!(
                "the newest segment {} is dated {}, after this run",
                ahead.id,
                rfc3339(ahead.id.created())
            );
            return Err(Fault::new(Kind::Refused, message).hint("check the clocks").into());
        }
        let backup_type = self.settings.backup_type;
        let kind = KIND.to_owned();
        let name = BackupName { id, backup_type, source, scope: Scope::Incremental, kind };
        let compression = self.settings.compression;
        let (recipients_of, ctx) = (&recipients[..], &app.ctx);
        let promised = manifest_builder::promise(app, &name).until;
        let builder = ObjectBuilder {
            store,
            name: &name,
            key: &key,
            recipients: recipients_of,
            compression,
            retain_until: manifest_builder::locked_until(KIND, promised),
            ctx,
        };
        app.ctx.monitor.begin(&format!("logs {}", name.source), None);
        let after = before.map(|before| &before.capture);
        let (data, stats, mut capture) =
            builder.archive(Role::Data, |out| self.log.ship(after, files, out, &app.ctx))?;
        let fields = capture.as_object_mut();
        let fields = fields.ok_or_else(|| Fault::new(Kind::Failed, "a segment has no record"))?;
        let parent = before.map(|before| before.sha256.clone());
        fields.insert("parent_sha256".into(), parent.into());
        let identity = (self.kind.identity)(&capture);
        let made = SegmentContent { name: &name, before, identity, capture, data, stats };
        let parent = before.map(|before| BackupName { id: before.id, ..name.clone() });
        let (manifest, pending) =
            run.publish(made.manifest(app, recipients), (&key, signer), parent.as_slice())?;
        app.ctx.monitor.end();
        store.stores().for_each(|(_, member)| {
            note(app, &KnownStores::of(app, &**member, backup_type, &name.source));
        });
        Ok((manifest, pending))
    }

    /// Says that there is a gap, and takes the snapshot that begins a new window if that is wanted.
    fn handle_gap(&self, pass: &mut Pass, needs_base: bool) {
        let monitor = &self.app.ctx.monitor;
        let Some(gap) = &pass.gap else { return };
        monitor.warn(&format!("gap in the log of `{}`: {gap}", self.options.source));
        // Where no snapshot is needed the segment itself begins a new window.
        if !needs_base {
            return;
        }
        if self.log.on_gap() == OnGap::Report {
            monitor.warn(match &self.kind.files {
                None => "a new window begins with the next snapshot; run `logs` more often, or with --follow",
                Some(_) => "take a snapshot, from which every later moment restores; `bkp list --windows` shows what restores now",
            });
            return;
        }
        let options = SnapshotOptions {
            kind: BackupKind::Snapshot,
            source: self.options.source.clone(),
            scope: None,
            mode: None,
            dry_run: false,
        };
        let taken = snapshot::run(self.app, &options).context("the snapshot after the gap");
        match taken {
            Ok(report) => {
                let id = report.value.pointer("/manifest/id").and_then(Value::as_str);
                pass.snapshot = id.and_then(|id| id.parse().ok());
                pass.outcome = worst(pass.outcome, report.outcome);
            }
            Err(error) => {
                monitor.warn(&format!("{error:#}"));
                pass.outcome = worst(pass.outcome, Some(diagnose(&error).kind));
            }
        }
    }

    fn report(&self, pass: Pass) -> anyhow::Result<Report> {
        let source = &self.options.source;
        let until = pass.until.and_then(spelled);
        let mut text = match &pass.manifest {
            None => match (pass.news, &until) {
                (true, Some(until)) => format!("would ship the log of {source} since {until}\n"),
                (true, None) => format!("would start the log of {source}\n"),
                (false, Some(until)) => {
                    format!("nothing to ship for {source}; shipped until {until}\n")
                }
                (false, None) => format!("nothing to ship for {source}: no activity\n"),
            },
            Some(manifest) => {
                let records = manifest.capture.get("records").and_then(Value::as_object);
                let counts = records.into_iter().flatten();
                let counts: Vec<String> =
                    counts.map(|(what, count)| format!("{count} {what}")).collect();
                format!(
                    "{} log of {source} until {}: {}, {} stored\n",
                    manifest.id,
                    until.as_deref().unwrap_or_default(),
                    counts.join(", "),
                    format_size(manifest.sizes.stored_bytes, BINARY),
                )
            }
        };
        let done = LogsReport {
            source,
            store: &pass.store,
            mode: self.log.mode(),
            copies: store_copies(pass.outcomes, &mut text)?,
            shipped: pass.manifest.is_some(),
            until,
            gap: pass.gap,
            snapshot: pass.snapshot,
            manifest: pass.manifest,
        };
        Ok(Report::done("bkp.logs/1", &done, text)?.with_outcome(pass.outcome))
    }
}

/// Whether a store was left out.
fn partial(outcomes: &[MirrorOutcome]) -> Option<Kind> {
    outcomes.iter().any(|outcomes| outcomes.lost.is_some()).then_some(Kind::Partial)
}
