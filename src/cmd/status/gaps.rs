//! Where the log of a source is broken: gaps, as far as those are news, by its newest segments and those of
//! recent runs that did only a part; and segments that are missing, by the manifests of all of them, each
//! of which is read once. The whole log is what `list --windows` reads.

use crate::concurrent;
use crate::domain::backup_kind::BackupKind;
use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use crate::cache;
use crate::catalog::{self, Entry};
use crate::domain::health::GapFacts;
use crate::domain::id::BackupId;
use crate::domain::manifest::Manifest;
use crate::domain::record::{Record, RunOutcome};
use crate::domain::segment::{KIND, Segment};
use crate::source::kinds;
use crate::store::ReadStore;
use crate::wire::AppContext;

/// How many of the newest segments are read in any case.
const NEWEST: usize = 2;
/// How many segments are read at most.
const READ_MAX: usize = 20;
/// For how long a gap is news.
const NEWS: Duration = Duration::DAY;
/// How long after the end of a run its segment may be dated; clocks and seconds are rounded.
const SLACK: Duration = Duration::minutes(1);

/// The gaps of one source, of whose entries in this store these are, by the records of its jobs. A
/// segment that cannot be read has none: that is for `verify`.
pub(super) fn recent(
    store: &dyn ReadStore,
    entries: &[&Entry],
    records: &[Record],
    now: OffsetDateTime,
) -> Vec<GapFacts> {
    let segments = entries.iter().filter(|entry| entry.name.kind == KIND).rev();
    let is_news = |entry: &&&&Entry| now - entry.name.id.created() <= NEWS;
    let of_partial = |entry: &Entry| {
        let at = entry.name.id.created();
        let partial = records.iter().filter(|record| record.outcome() == RunOutcome::Partial);
        partial
            .map(|record| (record.id.created(), Duration::seconds(record.seconds.into())))
            .any(|(begun, took)| (begun - SLACK..=begun + took + SLACK).contains(&at))
    };
    let wanted = segments
        .enumerate()
        .filter(|(index, entry)| *index < NEWEST || of_partial(entry))
        .map(|(_, entry)| entry);
    let mut found = Vec::new();
    for entry in wanted.filter(|entry| is_news(&entry)).take(READ_MAX) {
        let Some(segment) = read(store, entry) else { continue };
        let at = entry.name.id.created();
        let Some(why) = segment.gap else { continue };
        let is_base = |other: &&Entry| {
            other.name.kind == BackupKind::Snapshot && other.name.id.created() > at
        };
        // Where no snapshot is needed the segment itself begins a new window.
        let mended = !segment.needs_base || entries.iter().any(is_base);
        found.push(GapFacts { at, why, mended });
    }
    found
}

fn read(store: &dyn ReadStore, entry: &Entry) -> Option<Segment> {
    read_manifest(store, entry).map(|(_, segment)| segment)
}

fn read_manifest(store: &dyn ReadStore, entry: &Entry) -> Option<(Manifest, Segment)> {
    let key = entry.name.manifest_key();
    let manifest = Manifest::parse(&catalog::read_manifest(store, &key).ok()?, &key).ok()?;
    let kind = kinds::log_kind_of(manifest.backup_type).ok()?;
    let segment = (kind.read_segment)(&manifest.capture).ok()?;
    Some((manifest, segment))
}

/// How many manifests of segments are read at most in one look; those of earlier ones are known.
const MANIFESTS_MAX: usize = 500;

/// What is known of a segment: manifests never change.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct SegmentFacts {
    manifest_bytes: u64,
    parent: Option<BackupId>,
    mode: String,
}

/// Segments of a source that others continue and that are not in the store, in words; what is older than
/// the oldest segment was removed on purpose.
pub(super) fn lost(
    app: &AppContext,
    store_name: &str,
    store: &dyn ReadStore,
    entries: &[&Entry],
) -> Vec<String> {
    let segments: Vec<&Entry> =
        entries.iter().copied().filter(|entry| entry.name.kind == KIND).collect();
    let Some(source) = segments.first().map(|entry| entry.name.source.as_str()) else {
        return Vec::new();
    };
    let path =
        cache::folder(&app.settings.state_dir).join(format!("links-{store_name}-{source}.json"));
    let before: HashMap<BackupId, SegmentFacts> = cache::load(&path).unwrap_or_default();
    let mut known: HashMap<BackupId, SegmentFacts> = HashMap::new();
    let mut news: Vec<&Entry> = Vec::new();
    for entry in segments.iter().rev() {
        let id = entry.name.id;
        match before.get(&id).filter(|place| entry.manifest == Some(place.manifest_bytes)) {
            Some(place) => drop(known.insert(id, place.clone())),
            None if news.len() < MANIFESTS_MAX => news.push(entry),
            None => {}
        }
    }
    let read = concurrent::each(&news, &app.ctx.cancel, |entry| Ok(place(store, entry)));
    let read = news.iter().zip(read.unwrap_or_default());
    known.extend(read.filter_map(|(entry, place)| Some((entry.name.id, place?))));
    if !news.is_empty() || known.len() != before.len() {
        cache::save(&path, &known, &app.ctx);
    }
    missing(&known)
}

/// The parents that are missing although there is something older in their log.
fn missing(known: &HashMap<BackupId, SegmentFacts>) -> Vec<String> {
    let mut oldest: HashMap<&str, BackupId> = HashMap::new();
    for (id, place) in known {
        oldest.entry(&place.mode).and_modify(|oldest| *oldest = (*oldest).min(*id)).or_insert(*id);
    }
    let mut missing: Vec<(BackupId, BackupId)> = known
        .iter()
        .filter_map(|(id, place)| {
            let parent = place.parent.filter(|parent| !known.contains_key(parent))?;
            let oldest = oldest.get(place.mode.as_str())?;
            (*oldest < parent).then_some((parent, *id))
        })
        .collect();
    missing.sort();
    missing
        .into_iter()
        .map(|(parent, id)| format!("the segment {parent}, which {id} continues"))
        .collect()
}

fn place(store: &dyn ReadStore, entry: &Entry) -> Option<SegmentFacts> {
    let (manifest, segment) = read_manifest(store, entry)?;
    let manifest_bytes = entry.manifest?;
    Some(SegmentFacts { manifest_bytes, parent: manifest.parent, mode: segment.mode })
}
