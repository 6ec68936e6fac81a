//! The logs of a source in a store: segments in order, and the snapshots they can roll forward.

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use crate::catalog::{self, Catalog, Filter, FoundBackup};
use crate::concurrent;
use crate::ctx::Ctx;
use crate::domain::backup_kind::BackupKind;
use crate::domain::id::BackupId;
use crate::domain::manifest::{Manifest, ManifestError, hex};
use crate::domain::names::{BackupName, BackupType, MANIFEST_EXTENSION, Scope};
use crate::domain::segment::{self, Base, Break, Link, Log, Mode, Segment, Window};
use crate::error::{Kind, diagnose};
use crate::keys::KeyError;
use crate::source::kinds;
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
    /// SHA-256 of its manifest, hex.
    pub sha256: String,
    /// What it says of itself.
    pub segment: Segment,
    /// Newer ones that cannot be relied on.
    pub passed: Vec<BackupId>,
}

/// The newest segment of `mode`, authentic: what is shipped next follows from it. `known` is what was
/// found before; if it still is the newest it is not opened again. A segment that is not authentic is
/// passed over, and said: what it should hold is shipped again.
///
/// # Errors
/// What the store and the keys fail with.
pub fn newest(
    store: &dyn ReadStore,
    catalog: &Catalog<'_>,
    source: &str,
    mode: Mode,
    known: Option<&NewestSegment>,
    ctx: &Ctx,
) -> anyhow::Result<Option<NewestSegment>> {
    let (now, monitor) = (ctx.now(), &*ctx.monitor);
    let recent = known.map(|known| since(store, source, known, now)).transpose()?.flatten();
    let found = recent.map_or_else(|| find(store, source, ctx), Ok)?;
    let mut passed = known.map(|known| known.passed.clone()).unwrap_or_default();
    for found in found.iter().rev().filter(|found| is_segment(found)) {
        if passed.contains(&found.name.id) {
            continue;
        }
        if let Some(known) = known.filter(|known| known.id == found.name.id) {
            return Ok(Some(known.clone()));
        }
        let opened = catalog.open(&found.name).and_then(|(reader, sha256)| {
            // What a verification has found is looked into: anybody may have written it.
            if found.is_damaged() {
                (kinds::log_kind_of(found.name.backup_type)?.decode)(&reader, ctx)?;
            }
            let manifest = reader.manifest();
            let segment = read(&found.name, &manifest.capture)?;
            let (id, base, backup_type) = (manifest.id, manifest.base, manifest.backup_type);
            Ok(NewestSegment {
                id,
                base,
                backup_type,
                sha256: hex(&sha256),
                segment,
                passed: Vec::new(),
            })
        });
        match opened {
            Ok(newest) if newest.segment.mode == mode => {
                return Ok(Some(NewestSegment { passed, ..newest }));
            }
            Ok(_other) => {}
            // Whoever can write to a store must not be able to stop the log.
            Err(error) if is_of_segment(&error) && !is_of_keys(&error) => {
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
fn is_of_segment(error: &anyhow::Error) -> bool {
    catalog::is_unproven(error) || diagnose(error).kind == Kind::Integrity
}

/// Whether an error says that a key could not be tried on a segment: it may be whole, and the log must not
/// begin anew for that.
fn is_of_keys(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(KeyError::Spent { .. } | KeyError::Forbidden { .. }))
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

/// The logs of a source.
#[derive(Debug, Default)]
pub struct History {
    /// The logs of each mode, the one that is continued last.
    pub logs: Vec<(Mode, Log)>,
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
        let mut links: Vec<Link> = Vec::new();
        let steps = concurrent::each(found, &ctx.cancel, |found| Ok(history_item(store, found)))?;
        // That the run is to stop is no problem of a backup.
        ctx.cancel.check()?;
        for (found, step) in found.iter().zip(steps) {
            if is_segment(found) && found.is_damaged() {
                let id = found.name.id;
                history.problems.push(format!("{id}: a verification found this segment damaged"));
            }
            match step {
                Ok(HistoryItem::Segment(link)) => links.push(*link),
                Ok(HistoryItem::Snapshot(base)) => history.bases.push(base),
                Ok(HistoryItem::Other) => {}
                Err(error) => history.problems.push(format!("{}: {error:#}", found.name.id)),
            }
        }
        for mode in Mode::ALL {
            let (of_mode, others): (Vec<_>, Vec<_>) =
                links.into_iter().partition(|link| link.segment.mode == mode);
            links = others;
            if !of_mode.is_empty() {
                history.logs.extend(Log::all(&of_mode).into_iter().map(|log| (mode, log)));
            }
        }
        Ok(history)
    }

    /// Every window with the segments that make it up. A branch that restores nothing more is left out.
    #[must_use]
    pub fn windows(&self) -> Vec<(Window, &[Link])> {
        let mut windows: Vec<(Window, &[Link])> = Vec::new();
        for mode in Mode::ALL {
            let of_mode = self.logs.iter().rev().filter(|(of, _)| *of == mode);
            let mut found: Vec<(Window, &[Link])> = Vec::new();
            for (index, (_, log)) in of_mode.enumerate() {
                for run in log.runs().into_iter().rev() {
                    let window = segment::window(run, &self.bases).filter(|new| {
                        index == 0 || !found.iter().any(|(known, _)| known.covers(new))
                    });
                    found.extend(window.map(|window| (window, run)));
                }
            }
            windows.extend(found.into_iter().rev());
        }
        windows
    }

    /// Segments that the newest one of their mode does not lead to.
    #[must_use]
    pub fn strays(&self) -> Vec<BackupId> {
        let newest = |mode| self.logs.iter().rev().find(|(of, _)| *of == mode);
        let logs = Mode::ALL.into_iter().filter_map(newest);
        logs.flat_map(|(_, log)| log.strays.iter().copied()).collect()
    }

    /// Where segments do not follow each other, as text, and whether it is damage.
    #[must_use]
    pub fn breaks(&self) -> Vec<(Mode, BackupId, String, bool)> {
        let mut breaks: Vec<(Mode, BackupId, String, bool)> = Vec::new();
        for (mode, log) in &self.logs {
            for (index, broken) in &log.breaks {
                let (why, is_damage) = match broken {
                    Break::Gap(why) => (why, false),
                    Break::Damage(why) => (why, true),
                };
                // Branches share their beginning.
                let link = log.links.get(*index);
                let news = link.filter(|link| !breaks.iter().any(|(_, id, ..)| *id == link.id));
                breaks.extend(news.map(|link| (*mode, link.id, why.clone(), is_damage)));
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
    let BackupName { kind, scope, backup_type, .. } = &found.name;
    kind == segment::KIND
        && *scope == Scope::Incremental
        && kinds::log_kind_of(*backup_type).is_ok()
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
    if is_segment(found) {
        let (manifest, sha256) = load(store, name)?;
        let segment = read(name, &manifest.capture)?;
        let link = Link { id: manifest.id, parent: manifest.parent, sha256, segment };
        return Ok(HistoryItem::Segment(Box::new(link)));
    }
    if name.kind != BackupKind::Snapshot {
        return Ok(HistoryItem::Other);
    }
    let (manifest, _) = load(store, name)?;
    Ok(Base::read(manifest.id, &manifest.capture).map_or(HistoryItem::Other, HistoryItem::Snapshot))
}

fn load(store: &dyn ReadStore, name: &BackupName) -> anyhow::Result<(Manifest, String)> {
    let at = name.manifest_key();
    let bytes = catalog::read_manifest(store, &at)?;
    Ok((Manifest::parse(&bytes, &at)?, hex(&Sha256::digest(&bytes))))
}

fn read(name: &BackupName, capture: &Value) -> Result<Segment, ManifestError> {
    Segment::read(capture)
        .map_err(|reason| ManifestError::Invalid { key: name.manifest_key(), reason })
}
