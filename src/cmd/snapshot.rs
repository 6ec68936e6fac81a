//! `bkp snapshot`: captures a source and makes a backup of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use schemars::JsonSchema;
use serde::Serialize;

mod locks;
mod objects;
mod options;
mod plan;
mod sealed;

pub use self::options::Options;
use self::plan::{ParentChain, Plan, plan};
use crate::catalog::Catalog;
use crate::config::settings::jobs::JobKind;
use crate::domain::backup_kind::BackupKind;
use crate::domain::id::BackupId;
use crate::domain::manifest::{Manifest, Sizes};
use crate::domain::names::{BackupType, Scope};
use crate::domain::recipient::Recipient;
use crate::error::{Fault, Kind, worst};
use crate::keys::DataKey;
use crate::keys::keyring::Keyring;
use crate::ops::known_stores::KnownStores;
use crate::ops::manifest_builder::{self, ManifestContent};
use crate::ops::report::Report;
use crate::ops::run_guard::RunGuard;
use crate::pipeline::ObjectBuilder;
use crate::source::{SourceError, kinds};
use crate::store::ReadStore as _;
use crate::store::layer::mirrored::{MirrorOutcome, MirroredStore};
use crate::wire::AppContext;

/// The stable shapes `bkp.snapshot/1`, `bkp.export/1` and `bkp.replica/1`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct SnapshotReport<'m> {
    /// URL of the first store that has the backup.
    store: &'m str,
    /// How each store fared, if they are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    copies: Vec<StoreCopy>,
    manifest: &'m Manifest,
}

/// What became of the backup in one of several stores.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct StoreCopy {
    /// URL of the store.
    store: String,
    /// The backup is there.
    ok: bool,
    /// Why it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// The stable shapes `bkp.snapshot-plan/1`, `bkp.export-plan/1` and `bkp.replica-plan/1`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct SnapshotPlanReport<'p> {
    source: &'p str,
    store: &'p str,
    scope: Scope,
    parent: Option<BackupId>,
}

/// Captures a source. When this returns without an error the backup is captured consistently,
/// stored durably, confirmed by the store, and visible. Of several stores that holds for those that
/// are in the report; if any failed, its outcome is [`Kind::Partial`].
///
/// # Errors
/// Of every kind that a chain can fail with; then nothing is visible in the store.
pub fn run(app: &AppContext, options: &Options) -> anyhow::Result<Report> {
    match make(app, options) {
        // The choice was ours, so a backup is made.
        Err(error) if options.scope.is_none() && is_about_increment(&error) => {
            app.ctx.monitor.warn(&format!("taking a full backup instead: {error:#}"));
            make(app, &Options { scope: Some(Scope::Full), ..options.clone() })
        }
        made => made,
    }
}

/// Whether a source says that no increment is possible today.
fn is_about_increment(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<SourceError>(), Some(SourceError::NoIncrement { .. }))
}

fn make(app: &AppContext, options: &Options) -> anyhow::Result<Report> {
    let settings = app.source_settings(&options.source)?;
    check_made(options, settings.backup_type)?;
    let source = app.source(&options.source)?;
    let keys = app.keys_and(&settings.recipients)?;
    let store = app.stores_append(Some(settings))?;
    let catalog = Catalog::new(&store, &keys, &app.ctx);
    if options.dry_run {
        let id = BackupId::new(app.ctx.now());
        let identity = source.identity(&app.ctx)?;
        let plan = plan(app, options, (&*source, &identity), &store, &catalog, id)?;
        return describe(options, &plan, store.url());
    }
    // Before anything is written, leases too.
    check_seen(app, &store, settings.backup_type, &options.source)?;
    let run = RunGuard::begin(app, &options.source, settings.backup_type, &store)?;
    let identity = source.identity(&app.ctx)?;
    let of = (&*source, &identity);
    let plan = plan(app, options, of, &store, &catalog, run.id())?;
    let Plan { id, scope, parent_chain, skipped } = locks::lock_chain(app, options, plan, &store)?;
    let links = parent_chain.as_ref().map(|parent_chain| (parent_chain.base, parent_chain.parent));
    let chain = parent_chain.as_ref().map(ParentChain::names).unwrap_or_default();
    let below = parent_chain.as_ref().map(|parent_chain| parent_chain.keys(&app.ctx));
    let below = below.transpose()?.unwrap_or_default();
    let name = options.name(settings.backup_type, id, scope);
    let promised = manifest_builder::promise(app, &name).until;
    let (key, recipients) = new_key(&keys, id, &name.source)?;
    let builder = ObjectBuilder {
        store: &store,
        name: &name,
        key: &key,
        recipients: &recipients,
        compression: settings.compression,
        retain_until: promised,
        ctx: &app.ctx,
    };
    app.ctx.monitor.begin(&format!("{} {}", name.kind, name.source), None);
    let (mut objects, stats, captured) =
        objects::make(app, options, &*source, &builder, (parent_chain, skipped))?;
    let mut kept = BTreeMap::new();
    if let Some(write) = &captured.map {
        let (map, object_key) = builder.map(write.as_ref())?;
        objects.push(map);
        kept.extend([object_key]);
    }
    let capture = captured.record;
    let sizes = Sizes::of(&objects);
    let objects = builder.fit_manifest(objects)?;
    let content =
        ManifestContent { links, identity, capture, sizes, objects, stats, keys: recipients };
    let manifest = manifest_builder::new(app, &name, content);
    locks::lock_again(app, &name, &store, &below)?;
    let (manifest, pending) = run.publish(manifest, (&key, keys.signer()), &chain)?;
    sealed::keep(app, &keys, &name, (&chain, &kept));
    app.ctx.monitor.end();
    store.stores().for_each(|(_, store)| {
        note(app, &KnownStores::of(app, &**store, name.backup_type, &name.source));
    });
    let partial = (!captured.lost.is_empty()).then_some(Kind::Partial);
    for lost in &captured.lost {
        app.ctx.monitor.warn(&format!("missing from the backup: {lost}"));
    }
    report(&store, &manifest, worst(partial, pending))
}

/// Refuses a kind of backup that the source does not make.
fn check_made(options: &Options, backup_type: BackupType) -> Result<(), Fault> {
    let Options { kind, source, .. } = options;
    let makes = kinds::entry_of(backup_type).map(|entry| entry.makes).unwrap_or_default();
    if makes.contains(kind) {
        return Ok(());
    }
    let message = format!("`{source}` is a {backup_type} source, which has no {kind}s");
    let commands = JobKind::making(makes).into_iter().map(|word| format!("bkp {word} {source}"));
    let commands: Vec<String> = commands.collect();
    Err(Fault::new(Kind::Usage, message).hint(format!("use {}", commands.join(" or "))))
}

/// Lets every store drop out that has lost what it had.
pub(super) fn check_seen(
    app: &AppContext,
    mirrored: &MirroredStore,
    backup_type: BackupType,
    source: &str,
) -> anyhow::Result<()> {
    for (index, store) in mirrored.stores() {
        if let Err(error) = KnownStores::of(app, &**store, backup_type, source).check(&**store) {
            mirrored.drop_out(index, error)?;
        }
    }
    Ok(())
}

/// Remembers where the backup is, as far as the state directory can be written.
pub(super) fn note(app: &AppContext, seen: &KnownStores) {
    if let Err(error) = seen.note() {
        app.ctx.monitor.warn(&format!("cannot write to the state directory: {error}"));
    }
}

/// A new data key, wrapped for every recipient.
pub(super) fn new_key(
    keys: &Keyring,
    id: BackupId,
    source: &str,
) -> anyhow::Result<(DataKey, Vec<Recipient>)> {
    let key = DataKey::generate()?;
    let recipients = keys.providers().iter().map(|provider| provider.wrap(&key, id, source));
    let recipients = recipients.collect::<Result<_, _>>()?;
    Ok((key, recipients))
}

fn describe(options: &Options, plan: &Plan<'_>, store: &str) -> anyhow::Result<Report> {
    let made = options.kind.as_str();
    let parent = plan.parent_chain.as_ref().map(|parent_chain| parent_chain.parent);
    let planned = SnapshotPlanReport { source: &options.source, store, scope: plan.scope, parent };
    let parent_chain = parent.map(|parent| format!(", building on {parent}")).unwrap_or_default();
    let (scope, source) = (plan.scope.with_article(), &options.source);
    let text = format!("would take {scope} {made} of {source} to {store}{parent_chain}\n");
    Report::done(&format!("bkp.{made}-plan/1"), &planned, text)
}

/// How several stores fared, also as lines of text.
pub(super) fn store_copies(
    outcomes: Vec<MirrorOutcome>,
    text: &mut String,
) -> anyhow::Result<Vec<StoreCopy>> {
    let mut copies = Vec::new();
    if outcomes.len() > 1 {
        for MirrorOutcome { url, lost } in outcomes {
            match &lost {
                None => writeln!(text, "  in {url}")?,
                Some(why) => writeln!(text, "  NOT in {url}: {why}")?,
            }
            copies.push(StoreCopy { store: url, ok: lost.is_none(), problem: lost });
        }
    }
    Ok(copies)
}

fn report(
    mirrored: &MirroredStore,
    manifest: &Manifest,
    pending: Option<Kind>,
) -> anyhow::Result<Report> {
    use humansize::{BINARY, format_size};
    let Sizes { plaintext_bytes, stored_bytes, ratio } = manifest.sizes;
    let mut text = format!(
        "{} {} {} of {}: {} stored ({} before compression, ratio {ratio}) in {:.1} s\n",
        manifest.id,
        manifest.scope,
        manifest.kind,
        manifest.source,
        format_size(stored_bytes, BINARY),
        format_size(plaintext_bytes, BINARY),
        (manifest.ended - manifest.started).as_seconds_f64(),
    );
    if manifest.kind == BackupKind::Replica {
        let count = |name: &str| manifest.capture.get(name).and_then(serde_json::Value::as_u64);
        let [files, copied, deleted] =
            ["files", "copied", "deleted"].map(|name| count(name).unwrap_or_default());
        writeln!(text, "  {files} files, {copied} copied, {deleted} deleted since the last time")?;
    }
    if manifest.backup_type == BackupType::Kms {
        let count = |name: &str| manifest.capture.get(name).and_then(serde_json::Value::as_u64);
        let [backups, files, missing] =
            ["backups", "log_files", "missing"].map(|name| count(name).unwrap_or_default());
        writeln!(
            text,
            "  keys of {backups} backup(s) and {files} archived log file(s); {missing} missing"
        )?;
    }
    let outcomes = mirrored.outcomes();
    let partial = outcomes.iter().any(|outcomes| outcomes.lost.is_some()).then_some(Kind::Partial);
    let copies = store_copies(outcomes, &mut text)?;
    let stores = mirrored.urls();
    let store = stores.first().map_or("", String::as_str);
    let report = Report::done(
        &format!("bkp.{}/1", manifest.kind),
        &SnapshotReport { store, copies, manifest },
        text,
    )?;
    Ok(report.with_outcome(worst(partial, pending)))
}
