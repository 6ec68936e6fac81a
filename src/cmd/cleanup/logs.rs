//! Logs: which snapshots their segments need, and which segments nothing needs any more.
//!
//! Retention as jobs have it would leave gaps in a log. Here what is to be restorable decides, from the
//! segments and snapshots themselves. Segments in query mode restore from the first one on, so none of
//! them is ever spare.

use std::collections::{BTreeMap, HashMap, HashSet};

use time::{Duration, OffsetDateTime};

use crate::catalog::{Entry, Met};
use crate::config::settings::jobs::JobSettings;
use crate::domain::health::Ages;
use crate::domain::id::BackupId;
use crate::domain::names::BackupType;
use crate::domain::retention::{Backup, Policy, lateness};
use crate::domain::segment::{self, Base, Link, Log, Mode, keep};
use crate::wire::House;

/// So many segments have to be shipped after a time without any before others go.
const BACK_MIN: u32 = 24;

/// What is found of all logs of a store, by positions.
#[derive(Debug, Default)]
pub(super) struct Logs {
    /// Snapshots that segments need.
    pub(super) bases: HashSet<usize>,
    /// Segments that nothing needs, of each log oldest first.
    pub(super) spare: Vec<Vec<usize>>,
}

/// The parts of one source's log.
#[derive(Default)]
struct Parts {
    links: Vec<Link>,
    bases: Vec<Base>,
    places: HashMap<BackupId, usize>,
}

/// Looks at the logs of every source. Only backups that count are looked at.
pub(super) fn look(
    house: &House,
    entries: &[Entry],
    met: &[Met],
    backups: &[Backup],
    now: OffsetDateTime,
) -> Logs {
    let mut sources: BTreeMap<(BackupType, &str), Parts> = BTreeMap::new();
    for (at, ((entry, met), backup)) in entries.iter().zip(met).zip(backups).enumerate() {
        if !backup.whole || !backup.proven {
            continue;
        }
        let source = (entry.name.backup_type, entry.name.source.as_str());
        let parts = sources.entry(source).or_default();
        let link = met.link.as_ref().filter(|link| link.segment.mode == Mode::Wal);
        parts.links.extend(link.cloned());
        parts.bases.extend(met.ends.clone());
        if link.is_some() || met.ends.is_some() {
            parts.places.insert(entry.name.id, at);
        }
    }
    let mut logs = Logs::default();
    for ((_, source), parts) in sources {
        if parts.links.is_empty() {
            continue;
        }
        let since = since(house, source, &parts, backups, now);
        let found = keep(&Log::all(&parts.links), &parts.bases, since.unwrap_or(0));
        let place = |id: &BackupId| parts.places.get(id).copied();
        logs.bases.extend(found.bases.iter().filter_map(place));
        if since.is_some() {
            logs.spare.push(found.spare.iter().filter_map(place).collect());
        }
    }
    logs
}

/// From when on every moment is to be restorable, nanoseconds since 1970; nothing if for ever, or if the
/// log is late.
fn since(
    house: &House,
    source: &str,
    parts: &Parts,
    backups: &[Backup],
    now: OffsetDateTime,
) -> Option<u64> {
    let of_source =
        |job: &&JobSettings| job.run.word == "logs" && job.source.as_deref() == Some(source);
    let jobs: Vec<&JobSettings> = house.settings.jobs.values().filter(of_source).collect();
    let mut longest: Option<Duration> = None;
    let members: Vec<usize> =
        parts.links.iter().filter_map(|link| parts.places.get(&link.id).copied()).collect();
    for job in jobs {
        let kept = Duration::try_from(job.keep_log?).ok()?;
        longest = longest.max(Some(kept));
        let ages = Ages::of(job.when.interval(now), job.warn_after, job.critical_after);
        let frozen_after = Some(ages.critical);
        let policy = Policy { frozen_after, min_keep: BACK_MIN, ..Policy::empty() };
        if lateness(&policy, &members, backups, now).is_some() {
            return None;
        }
    }
    // The cluster's clock counts; ours may be ahead of it.
    let newest = parts.links.iter().map(|link| link.segment.position.last_timestamp).max()?;
    let by_ours = u64::try_from(now.unix_timestamp_nanos()).ok()?;
    let length = u64::try_from(longest?.whole_nanoseconds()).ok()?;
    newest.min(by_ours).checked_sub(length)
}

/// Whether an entry is a segment. As retention sees it, it builds on nothing: what it follows is looked
/// at here.
pub(super) fn is_segment(entry: &Entry) -> bool {
    entry.name.kind == segment::KIND
}
