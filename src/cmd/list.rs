//! `bkp list`: the backups of a store.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use humansize::{BINARY, format_size};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::catalog::{self, Filter, FoundBackup, LastListing};
use crate::concurrent;
use crate::domain::cost::monthly;
use crate::domain::id::BackupId;
use crate::domain::limits::LISTED_WEIGHT_MAX;
use crate::domain::manifest::{self, Manifest};
use crate::domain::names::{BackupType, Scope};
use crate::domain::text::plain;
use crate::error::{Fault, Kind, diagnose, worst};
use crate::keys::keyring::Keyring;
use crate::ops::annotations;
use crate::ops::annotations::{Annotation, AnnotationBody};
use crate::ops::authenticity;
use crate::ops::authenticity::ProofChecker;
use crate::ops::cost;
use crate::ops::report::Report;
use crate::store::{ReadStore, location};
use crate::wire::AppContext;

use self::by_manifest::{ManifestFilter, choose};

mod by_manifest;

/// What `bkp list` was asked for.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Only this source.
    pub source: Option<String>,
    /// Only ids that begin so.
    pub id: Option<String>,
    /// Only this type.
    pub backup_type: Option<BackupType>,
    /// Only this scope.
    pub scope: Option<Scope>,
    /// Only those that this job made.
    pub job: Option<String>,
    /// Only those of this tenant.
    pub tenant: Option<String>,
    /// Only those that are pinned.
    pub pinned: bool,
    /// What this host saw last, without asking the store.
    pub cached: bool,
    /// Only those that began then, and how many.
    pub window: Window,
    /// Read the manifests too: sizes, positions, parents.
    pub long: bool,
}

/// A part of a history.
#[derive(Debug, Clone, Copy, Default)]
pub struct Window {
    /// Not before this.
    pub since: Option<OffsetDateTime>,
    /// Before this.
    pub until: Option<OffsetDateTime>,
    /// Only so many of the newest, and those newest first.
    pub limit: Option<usize>,
}

impl Window {
    /// Whether something that began then is in it.
    #[must_use]
    pub fn holds(&self, begun: OffsetDateTime) -> bool {
        self.since.is_none_or(|since| begun >= since)
            && self.until.is_none_or(|until| begun < until)
    }

    /// What is wanted of `items`, which are oldest first.
    #[must_use]
    pub fn newest<T>(&self, items: Vec<T>) -> Vec<T> {
        match self.limit {
            None => items,
            Some(limit) => items.into_iter().rev().take(limit).collect(),
        }
    }
}

/// The stable shape `bkp.list/1`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Listing {
    /// URL of the store.
    store: String,
    /// With `--cached`: when this was seen.
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    as_of: Option<OffsetDateTime>,
    /// Oldest first; with `--limit` newest first.
    backups: Vec<BackupRow>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct BackupRow {
    id: BackupId,
    #[serde(rename = "type")]
    backup_type: BackupType,
    source: String,
    scope: Scope,
    kind: String,
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    started: OffsetDateTime,
    /// With `--long`: when its last object was stored, as its manifest says.
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    ended: Option<OffsetDateTime>,
    /// With `--long`: as its manifest says.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<String>,
    /// Where its manifest is: the store's URL and the key.
    location: String,
    /// Sum over its objects and its manifest, bytes.
    stored_bytes: u64,
    /// What keeping it costs, in the currency of the prices; what it builds on has costs of its own.
    cost_per_month: f64,
    /// No retention may remove it, as the names of what stands beside it say. With `--long`, `read_annotations` tells
    /// what of that is proven: a pin counts without a proof, and nothing against it does.
    pinned: bool,
    /// With `--long`: the manifest as stored. Not authenticated: listing needs no key.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Manifest")]
    manifest: Option<Value>,
    /// With `--long`: what people have said about it, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    said: Vec<Annotation>,
    /// With `--long`: why the manifest cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// Lists the backups of a store, oldest first. Needs no key; without `--long`, `--job` and `--tenant` it costs
/// one listing.
///
/// With `--long` a manifest that cannot be read is a problem of its row, and of the outcome.
///
/// # Errors
/// What the store fails with; [`Kind::NotFound`] for a source that neither the store nor the
/// configuration knows.
pub fn run(app: &AppContext, options: &Options) -> anyhow::Result<Report> {
    let settings = options.source.as_ref().and_then(|name| app.settings.sources.get(name));
    let store = app.store_read(settings)?;
    let filter = Filter {
        source: options.source.clone(),
        id: options.id.clone(),
        backup_type: options.backup_type,
    };
    let whole = options.source.is_none() && options.id.is_none() && options.backup_type.is_none();
    let seen = LastListing::of(&app.settings.state_dir, store.url());
    let (mut found, as_of) = if options.cached {
        seen.load(&filter)?
    } else {
        let found = catalog::find(store.as_ref(), &filter, &app.ctx.cancel)?;
        if whole && app.settings.store_at.is_none() {
            seen.save(&found, &app.ctx);
        }
        (found, None)
    };
    if let Some(name) = options.source.as_ref().filter(|_| found.is_empty() && settings.is_none()) {
        let message =
            format!("{}: no backup of `{name}`, and no such source is configured", store.url());
        return Err(Fault::new(Kind::NotFound, message)
            .hint("`bkp list` shows every source that has backups")
            .into());
    }
    found.retain(|found| {
        options.scope.is_none_or(|only| only == found.name.scope)
            && (found.pinned || !options.pinned)
            && options.window.holds(found.name.id.created())
    });
    let by_manifest =
        ManifestFilter { job: options.job.as_deref(), tenant: options.tenant.as_deref() };
    let (found, mut outcome) = choose(app, store.as_ref(), found, by_manifest)?;
    let found = options.window.newest(found);
    let (_, price) = cost::price(app, store.as_ref());
    let mut backups = Vec::new();
    let keys = if options.long { authenticity::keys(app) } else { Keyring::default() };
    let proof_checker = ProofChecker::new(store.as_ref(), &keys, &app.ctx);
    let weight = AtomicU64::new(0);
    let manifests = concurrent::each(&found, &app.ctx.cancel, |found| {
        let load = || load(store.as_ref(), &proof_checker, found, &weight).map(Some);
        Ok(if options.long { load() } else { Ok(None) })
    })?;
    // That the run is to stop is no problem of a row.
    app.ctx.cancel.check()?;
    for (found, long) in found.into_iter().zip(manifests) {
        outcome = worst(outcome, long.as_ref().err().map(|error| diagnose(error).kind));
        backups.push(row(store.url(), found, long, price));
    }
    let mut text = render(&backups)?;
    if backups.is_empty()
        && let Some(others) = others(app, store.url())
    {
        text = format!("no backups in {}; other stores: {others} (--store NAME)\n", store.url());
    }
    let listing = Listing { store: store.url().to_owned(), as_of, backups };
    Ok(Report::done("bkp.list/1", &listing, text)?.with_outcome(outcome))
}

/// What `--long` adds to a row.
struct BackupDetails {
    manifest: Value,
    ended: OffsetDateTime,
    status: String,
    said: Vec<Annotation>,
}

/// The manifest as stored; checked, but not authenticated. And what was said. `weight` is what those that
/// were loaded take in memory.
fn load(
    store: &dyn ReadStore,
    proof_checker: &ProofChecker<'_>,
    found: &FoundBackup,
    weight: &AtomicU64,
) -> anyhow::Result<BackupDetails> {
    let key = found.name.manifest_key();
    let bytes = catalog::read_manifest(store, &key)?;
    let said = annotations::read_annotations(store, proof_checker, &found.name, &found.marks)?;
    let own =
        said.iter().map(Annotation::weight).fold(manifest::weight(&bytes), u64::saturating_add);
    if weight.fetch_add(own, Ordering::Relaxed).saturating_add(own) > LISTED_WEIGHT_MAX {
        let message = format!("`{key}` is not shown: out of memory for manifests");
        let hint = "list fewer: a SOURCE, --limit, --since or --until, or this one with --id";
        return Err(Fault::new(Kind::Partial, message).hint(hint).into());
    }
    let Manifest { ended, status, .. } = Manifest::parse(&bytes, &key)?;
    Ok(BackupDetails { manifest: serde_json::from_slice(&bytes)?, ended, status, said })
}

fn row(
    store: &str,
    found: FoundBackup,
    long: anyhow::Result<Option<BackupDetails>>,
    price: f64,
) -> BackupRow {
    let (long, problem) = match long {
        Ok(long) => (long, None),
        Err(error) => (None, Some(format!("{error:#}"))),
    };
    let location = location(store, &found.name.manifest_key());
    let (mut row_ended, mut row_status, mut row_manifest, mut said) =
        (None, None, None, Vec::new());
    if let Some(long) = long {
        (row_ended, row_status) = (Some(long.ended), Some(long.status));
        (row_manifest, said) = (Some(long.manifest), long.said);
    }
    let started = found.name.id.created();
    BackupRow {
        id: found.name.id,
        backup_type: found.name.backup_type,
        source: found.name.source,
        scope: found.name.scope,
        kind: found.name.kind,
        started,
        ended: row_ended,
        status: row_status,
        location,
        stored_bytes: found.stored_bytes,
        cost_per_month: monthly(found.stored_bytes, price),
        pinned: found.pinned,
        manifest: row_manifest,
        said,
        problem,
    }
}

/// Names of the stores besides the one with this URL, if there are any.
fn others(app: &AppContext, url: &str) -> Option<String> {
    let stores = app.settings.stores.iter();
    let others = stores.filter(|(_, store)| !url.starts_with(store.place.url.as_str()));
    let names: Vec<&str> = others.map(|(name, _)| name.as_str()).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

fn render(rows: &[BackupRow]) -> anyhow::Result<String> {
    if rows.is_empty() {
        return Ok("no backups\n".to_owned());
    }
    let width = rows.iter().map(|row| row.source.len()).max().unwrap_or(0).max("SOURCE".len());
    let mut text = String::new();
    writeln!(
        text,
        "{:<24}  {:<11}  {:<width$}  {:<8}  {:<12}  {:>10}  ID",
        "STARTED", "TYPE", "SOURCE", "KIND", "SCOPE", "STORED"
    )?;
    for row in rows {
        // Whoever gives this to --at means this one, and not the one before.
        let second = row.started.replace_nanosecond(0)?.format(&Rfc3339)?;
        let started = format!("{}.{:03}Z", second.trim_end_matches('Z'), row.started.millisecond());
        let stored = format_size(row.stored_bytes, BINARY);
        let BackupRow { backup_type, source, kind, scope, id, .. } = row;
        writeln!(
            text,
            "{started:<24}  {backup_type:<11}  {source:<width$}  {kind:<8}  {scope:<12}  {stored:>10}  {id}"
        )?;
        if let Some(problem) = &row.problem {
            writeln!(text, "{:<24}  {}", "", plain(problem))?;
        }
        if let Some(manifest) = &row.manifest {
            let field = |at: &str| manifest.pointer(at).filter(|value| !value.is_null());
            let builds_on = field("/parent").and_then(Value::as_str);
            let builds_on =
                builds_on.map(|parent| format!("builds on {parent}; ")).unwrap_or_default();
            let position = field("/capture/position").map(describe).unwrap_or_default();
            let (builds_on, position) = (plain(&builds_on), plain(&position));
            let cost = row.cost_per_month;
            let cost = if cost > 0.0 { format!("; {cost:.4} a month") } else { String::new() };
            writeln!(text, "{:<24}  {builds_on}{position}{cost}", "")?;
            let ended = row
                .ended
                .map(|at| at.replace_nanosecond(0)?.format(&Rfc3339).map_err(anyhow::Error::from));
            let ended = ended.transpose()?.unwrap_or_default();
            let status = plain(row.status.as_deref().unwrap_or_default());
            let location = plain(&row.location);
            writeln!(text, "{:<24}  {status} {ended}; {location}", "")?;
        }
        for Annotation { body: AnnotationBody { word, at, host, note, .. }, proven } in &row.said {
            let (word, at) = (word.done(), at.replace_nanosecond(0)?.format(&Rfc3339)?);
            let note = note.as_ref().map(|note| format!(": {}", plain(note))).unwrap_or_default();
            let host = plain(host);
            let proven = if *proven { "" } else { " (unproven)" };
            writeln!(text, "{:<24}  {word} {at} on {host}{proven}{note}", "")?;
        }
    }
    Ok(text)
}

/// The fields of a position, as `name value`.
fn describe(position: &Value) -> String {
    let fields = position.as_object().into_iter().flatten();
    let shown = fields.map(|(name, value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        format!("{} {value}", name.replace('_', " "))
    });
    shown.collect::<Vec<_>>().join(", ")
}
