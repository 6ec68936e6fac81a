//! The logs of a source in a store: segments in order, and the snapshots they can roll forward.

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use crate::catalog::{self, Catalog, Filter, FoundBackup, Need};
use crate::concurrent;
use crate::ctx::Ctx;
use crate::domain::backup_kind::BackupKind;
use crate::domain::id::BackupId;
use crate::domain::manifest::{Manifest, ManifestError, hex};
use crate::domain::names::{BackupName, BackupType, MANIFEST_EXTENSION, Scope};
use crate::domain::segment::{self, Base, Break, Link, Log, Segment, Window};
use crate::error::{Kind, diagnose};
use crate::keys::KeyError;
use crate::keys::keyring::Keyring;
use crate::source::kinds;
use crate::source::logs::LogKind;
use crate::store::ReadStore;

/// Days that are listed one by one; what is older is found by one listing of everything.
const DAYS_MAX: i64 = 7;

/// The newest segment of a mode.
#[derive(Debug, Clone)]
pub struct NewestSegment {
    /// Its id.
    pub id: BackupId,
    /// The first segment of its log.
    pub base: BackupId,
    /// Its type.
    pub backup_type: BackupType,
    /// SHA-256 of the manifest that the run wrote which made it, hex.
    pub sha256: String,
    /// What it says of itself.
    pub segment: Segment,
    /// The same as its source wrote it: the `capture` record of its manifest.
    pub capture: Value,
    /// Newer ones that cannot be relied on.
    pub passed: Vec<BackupId>,
}

/// The newest segment of a log of this kind and mode, authentic: what is shipped next follows from it.
/// `known` is what was found before; if it still is the newest it is not opened again. A segment that is
/// not authentic is passed over, and said: what it should hold is shipped again.
///
/// # Errors
/// What the store and the keys fail with.
pub fn newest(
    store: &dyn ReadStore,
    catalog: &Catalog<'_>,
    source: &str,
    (kind, mode): (&LogKind, &str),
    known: Option<&NewestSegment>,
    ctx: &Ctx,
) -> anyhow::Result<Option<NewestSegment>> {
    let (now, monitor) = (ctx.now(), &*ctx.monitor);
    let recent = known.map(|known| since(store, source, known, now)).transpose()?.flatten();
    let found = recent.map_or_else(|| find(store, source, ctx), Ok)?;
    let mut passed = known.map(|known| known.passed.clone()).unwrap_or_default();
    let is_of = |found: &&FoundBackup| {
        segment_kind(found).is_some_and(|of| of.backup_type == kind.backup_type)
    };
    for found in found.iter().rev().filter(is_of) {
        if passed.contains(&found.name.id) {
            continue;
        }
        if let Some(known) = known.filter(|known| known.id == found.name.id) {
            return Ok(Some(known.clone()));
        }
        let opened = catalog.open_for(&found.name, Need::Proof).and_then(|(reader, sha256)| {
            // What a verification has found is looked into: anybody may have written it.
            if found.is_damaged() {
                (kind.decode)(&reader, &catalog.log_files(kind.backup_type, source), ctx)?;
            }
            let manifest = reader.manifest();
            let segment = read(kind, &found.name, &manifest.capture)?;
            let (id, base, backup_type) = (manifest.id, manifest.base, manifest.backup_type);
            Ok(NewestSegment {
                id,
                base,
                backup_type,
                sha256: hex(&manifest.original_sha256(&sha256)),
                segment,
                capture: manifest.capture.clone(),
                passed: Vec::new(),
            })
        });
        match opened {
            Ok(newest) if newest.segment.mode == mode => {
                return Ok(Some(NewestSegment { passed, ..newest }));
            }
            Ok(_other) => {}
            // Whoever can write to a store must not be able to stop the log.
            Err(error) if is_passed_over(&error, catalog.keys()) => {
                monitor.warn(&format!(
                    "continuing from before segment {}, which is unusable: {error:#}",
                    found.name.id
                ));
                passed.push(found.name.id);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Whether an error says that a segment cannot be relied on, and nothing of the store or the keys.
fn is_passed_over(error: &anyhow::Error, keys: &Keyring) -> bool {
    if matches!(error.downcast_ref(), Some(KeyError::Spent { .. } | KeyError::Forbidden { .. })) {
        // It could not be tried: it may be whole, and the log must not begin anew for that. A host that signs knows
        // its own all the same.
        return keys.signer().is_some();
    }
    catalog::is_unproven(error) || diagnose(error).kind == Kind::Integrity
}

/// The segments from the day of `known` on: whoever follows a log looks every few seconds, and does not
/// list years. `None` if `known` is not among them, or lies too far back.
fn since(
    store: &dyn ReadStore,
    source: &str,
    known: &NewestSegment,
    now: OffsetDateTime,
) -> anyhow::Result<Option<Vec<FoundBackup>>> {
    let first = known.id.created().date();
    // Another host's clock may be ahead.
    let days = (now.date() - first).whole_days() + 1;
    if !(0..DAYS_MAX).contains(&days) {
        return Ok(None);
    }
    let mut found = Vec::new();
    for date in std::iter::successors(Some(first), |date| date.next_day()).zip(0..=days) {
        let day = BackupName::day(known.backup_type, source, Scope::Incremental, date.0);
        for object in store.list(&day)? {
            let object = object?;
            let name = BackupName::parse(&object.key)
                .filter(|(_, extension)| *extension == MANIFEST_EXTENSION)
                .map(|(name, _)| name);
            found.extend(name.map(|name| FoundBackup {
                name,
                stored_bytes: object.bytes,
                pinned: false,
                being_removed: false,
                marks: Vec::new(),
            }));
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found.iter().any(|found| found.name.id == known.id).then_some(found))
}

/// A log of a source.
#[derive(Debug)]
pub struct SourceLog {
    /// What is done with it.
    pub kind: &'static LogKind,
    /// What it consists of.
    pub mode: &'static str,
    /// Its segments in order.
    pub log: Log,
}

impl SourceLog {
    /// Whether the segments of both are of one log, or of branches of it.
    fn is_like(&self, other: &SourceLog) -> bool {
        self.kind.backup_type == other.kind.backup_type && self.mode == other.mode
    }
}

/// From when to when an unbroken part of a log restores.
#[derive(Debug)]
pub struct LogWindow<'h> {
    /// What is done with the log.
    pub kind: &'static LogKind,
    /// The moments.
    pub window: Window,
    /// The segments that make it up.
    pub run: &'h [Link],
}

impl LogWindow<'_> {
    /// Whether both are of one log, or of branches of it.
    #[must_use]
    pub fn is_like(&self, other: &LogWindow<'_>) -> bool {
        self.kind.backup_type == other.kind.backup_type && self.window.mode == other.window.mode
    }
}

/// Where segments do not follow each other.
#[derive(Debug)]
pub struct LogBreak {
    /// What the log consists of.
    pub mode: &'static str,
    /// The segment that does not follow the one before it.
    pub segment: BackupId,
    /// Why it does not.
    pub why: String,
    /// A segment is missing or was changed; otherwise it was known when it was shipped.
    pub is_damage: bool,
}

/// The logs of a source.
#[derive(Debug, Default)]
pub struct History {
    /// The logs of each kind and mode, the one that is continued last.
    pub logs: Vec<SourceLog>,
    /// Snapshots, oldest first.
    pub bases: Vec<Base>,
    /// What cannot be read, and what a verification has found damaged.
    pub problems: Vec<String>,
}

impl History {
    /// Reads every manifest of the source. Nothing of it is authenticated, which needs keys: whoever
    /// acts on it must open what it uses, and compares digests.
    ///
    /// # Errors
    /// That the run is to stop. A manifest that cannot be read is one of its problems.
    pub fn read(
        store: &dyn ReadStore,
        found: &[FoundBackup],
        ctx: &Ctx,
    ) -> anyhow::Result<History> {
        let mut history = History::default();
        let mut links: Vec<(BackupType, Link)> = Vec::new();
        let steps = concurrent::each(found, &ctx.cancel, |found| Ok(history_item(store, found)))?;
        // That the run is to stop is no problem of a backup.
        ctx.cancel.check()?;
        for (found, step) in found.iter().zip(steps) {
            if is_segment(found) && found.is_damaged() {
                let id = found.name.id;
                history.problems.push(format!("{id}: a verification found this segment damaged"));
            }
            match step {
                Ok(HistoryItem::Segment(link)) => links.push((found.name.backup_type, *link)),
                Ok(HistoryItem::Snapshot(base)) => history.bases.push(base),
                Ok(HistoryItem::Other) => {}
                Err(error) => history.problems.push(format!("{}: {error:#}", found.name.id)),
            }
        }
        for (kind, mode) in kinds::log_modes() {
            let is_of = |(backup_type, link): &mut (BackupType, Link)| {
                *backup_type == kind.backup_type && link.segment.mode == mode.name
            };
            let of_mode: Vec<Link> =
                links.extract_if(.., is_of).map(|(_backup_type, link)| link).collect();
            if !of_mode.is_empty() {
                let logs = Log::all(&of_mode).into_iter();
                history.logs.extend(logs.map(|log| SourceLog { kind, mode: mode.name, log }));
            }
        }
        Ok(history)
    }

    /// Every window, those of the best mode first. A branch that restores nothing more is left out.
    #[must_use]
    pub fn windows(&self) -> Vec<LogWindow<'_>> {
        let mut windows: Vec<LogWindow<'_>> = Vec::new();
        for of_mode in self.logs.chunk_by(SourceLog::is_like) {
            let mut found: Vec<LogWindow<'_>> = Vec::new();
            for (index, SourceLog { kind, log, .. }) in of_mode.iter().rev().enumerate() {
                for run in log.runs().into_iter().rev() {
                    let window = segment::window(run, &self.bases).filter(|new| {
                        index == 0 || !found.iter().any(|known| known.window.covers(new))
                    });
                    found.extend(window.map(|window| LogWindow { kind, window, run }));
                }
            }
            windows.extend(found.into_iter().rev());
        }
        windows
    }

    /// Segments that the newest one of their mode does not lead to.
    #[must_use]
    pub fn strays(&self) -> Vec<BackupId> {
        let newest = self.logs.chunk_by(SourceLog::is_like).filter_map(<[SourceLog]>::last);
        newest.flat_map(|newest| newest.log.strays.iter().copied()).collect()
    }

    /// Where segments do not follow each other.
    #[must_use]
    pub fn breaks(&self) -> Vec<LogBreak> {
        let mut breaks: Vec<LogBreak> = Vec::new();
        for SourceLog { kind, mode, log } in &self.logs {
            for (index, broken) in &log.breaks {
                let (why, is_damage) = match broken {
                    Break::Gap(why) => (why.clone(), false),
                    Break::Damage(damage) => (damage.text(kind.position_name), true),
                };
                // Branches share their beginning.
                let link = log.links.get(*index);
                let news = link.filter(|link| !breaks.iter().any(|known| known.segment == link.id));
                breaks.extend(news.map(|link| LogBreak { mode, segment: link.id, why, is_damage }));
            }
        }
        breaks
    }
}

/// Every backup of a source, oldest first.
///
/// # Errors
/// What the store fails with.
pub fn find(store: &dyn ReadStore, source: &str, ctx: &Ctx) -> anyhow::Result<Vec<FoundBackup>> {
    let filter = Filter { source: Some(source.to_owned()), ..Filter::default() };
    catalog::find(store, &filter, &ctx.cancel)
}

/// Whether it is a segment of a log: an increment of a type that has logs. Whoever can write to the store can
/// give the id of one to something of another scope or type, which is none.
#[must_use]
pub fn is_segment(found: &FoundBackup) -> bool {
    segment_kind(found).is_some()
}

/// The kind of log that it is a segment of, if it is one.
fn segment_kind(found: &FoundBackup) -> Option<&'static LogKind> {
    let BackupName { kind, scope, backup_type, .. } = &found.name;
    let is_segment = kind == segment::KIND && *scope == Scope::Incremental;
    kinds::log_kind_of(*backup_type).ok().filter(|_log| is_segment)
}

/// What a backup is to a history.
enum HistoryItem {
    Segment(Box<Link>),
    Snapshot(Base),
    /// Anything else, and a snapshot that does not say where it ends.
    Other,
}

fn history_item(store: &dyn ReadStore, found: &FoundBackup) -> anyhow::Result<HistoryItem> {
    let name = &found.name;
    if let Some(kind) = segment_kind(found) {
        let (manifest, sha256) = load(store, name)?;
        let segment = read(kind, name, &manifest.capture)?;
        let link = Link { id: manifest.id, parent: manifest.parent, sha256, segment };
        return Ok(HistoryItem::Segment(Box::new(link)));
    }
    if name.kind != BackupKind::Snapshot {
        return Ok(HistoryItem::Other);
    }
    let (manifest, _) = load(store, name)?;
    let kind = kinds::log_kind_of(name.backup_type).ok();
    let base = kind.and_then(|kind| (kind.read_base)(manifest.id, &manifest.capture));
    Ok(base.map_or(HistoryItem::Other, HistoryItem::Snapshot))
}

fn load(store: &dyn ReadStore, name: &BackupName) -> anyhow::Result<(Manifest, String)> {
    let at = name.manifest_key();
    let bytes = catalog::read_manifest(store, &at)?;
    let manifest = Manifest::parse(&bytes, &at)?;
    let sha256 = hex(&manifest.original_sha256(&Sha256::digest(&bytes).into()));
    Ok((manifest, sha256))
}

fn read(kind: &LogKind, name: &BackupName, capture: &Value) -> Result<Segment, ManifestError> {
    (kind.read_segment)(capture)
        .map_err(|reason| ManifestError::Invalid { key: name.manifest_key(), reason })
}
