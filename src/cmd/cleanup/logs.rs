//! Logs: which snapshots their segments need, and which segments are no longer needed.
//!
//! Retention as jobs have it would leave gaps in a log. Here what is to be restorable decides, from the
//! segments and snapshots themselves. Segments that need no snapshot restore from the first one on, so none
//! of them is ever spare.

use crate::config::settings::jobs::JobKind;
use crate::domain::backup_kind::BackupKind;
use std::collections::{BTreeMap, HashMap, HashSet};

use time::{Duration, OffsetDateTime};

use super::rules::frozen;
use crate::catalog::{Authenticity, BackupFacts, Entry};
use crate::config::settings::jobs::JobSettings;
use crate::domain::id::BackupId;
use crate::domain::names::BackupType;
use crate::domain::record::RunOutcome;
use crate::domain::retention::{Backup, Policy, lateness, restorable};
use crate::domain::segment::{Base, Link, Log, keep};
use crate::ops::jobs::state::JobStates;
use crate::store::ReadStore;
use crate::wire::AppContext;

/// So many runs have to be good after a time without any before segments go.
const BACK_MIN: u32 = 24;

/// What is found of all logs of a store, by positions.
#[derive(Debug, Default)]
pub(super) struct LogNeeds {
    /// Snapshots that segments need.
    pub(super) bases: HashSet<usize>,
    /// Segments that nothing needs, of each log oldest first.
    pub(super) spare: Vec<Vec<usize>>,
}

/// The parts of one source's log.
#[derive(Default)]
struct LogParts {
    links: Vec<Link>,
    bases: Vec<Base>,
    places: HashMap<BackupId, usize>,
    /// Whether a manifest could not be checked today: what it says may be needed.
    unsure: bool,
}

impl LogParts {
    /// The segments of each mode, whose logs have nothing to do with each other.
    fn modes(&self) -> Vec<Vec<Link>> {
        let mut modes: BTreeMap<&str, Vec<Link>> = BTreeMap::new();
        for link in &self.links {
            modes.entry(&link.segment.mode).or_default().push(link.clone());
        }
        modes.into_values().collect()
    }
}

/// Looks at the logs of every source. Only backups that count are looked at.
///
/// # Errors
/// What the store fails with.
pub(super) fn log_needs(
    app: &AppContext,
    store: &dyn ReadStore,
    entries: &[Entry],
    facts: &[BackupFacts],
    backups: &[Backup],
    now: OffsetDateTime,
) -> anyhow::Result<LogNeeds> {
    let counts = restorable(backups, now);
    let mut sources: BTreeMap<(BackupType, &str), LogParts> = BTreeMap::new();
    for (at, (entry, facts)) in entries.iter().zip(facts).enumerate() {
        let source = (entry.name.backup_type, entry.name.source.as_str());
        let parts = sources.entry(source).or_default();
        let is_proven = backups.get(at).is_some_and(|backup| backup.proven);
        parts.unsure |= !is_proven && facts.proof != Authenticity::Forged;
        if !counts.contains(&at) {
            continue;
        }
        let link = facts.link.as_ref().filter(|link| link.segment.needs_base);
        parts.links.extend(link.cloned());
        parts.bases.extend(facts.ends.clone());
        if link.is_some() || facts.ends.is_some() {
            parts.places.insert(entry.name.id, at);
        }
    }
    let mut logs = LogNeeds::default();
    for ((_, source), parts) in sources {
        if parts.links.is_empty() {
            continue;
        }
        let since = restorable_since(app, store, source, &parts, now)?;
        let place = |id: &BackupId| parts.places.get(id).copied();
        for links in parts.modes() {
            let found = keep(&Log::all(&links), &parts.bases, since.unwrap_or(0));
            logs.bases.extend(found.bases.iter().filter_map(place));
            if since.is_some() {
                logs.spare.push(found.spare.iter().filter_map(place).collect());
            }
        }
    }
    Ok(logs)
}

/// From when on every moment is to be restorable, nanoseconds since 1970; nothing if for ever, or if
/// there is a reason to remove nothing today.
fn restorable_since(
    app: &AppContext,
    store: &dyn ReadStore,
    source: &str,
    parts: &LogParts,
    now: OffsetDateTime,
) -> anyhow::Result<Option<u64>> {
    if parts.unsure {
        return Ok(None);
    }
    let of_source =
        |job: &&JobSettings| job.run == JobKind::Logs && job.source.as_deref() == Some(source);
    let mut longest: Option<Duration> = None;
    for job in app.settings.jobs.values().filter(of_source) {
        let kept = job.keep_log.and_then(|kept| Duration::try_from(kept).ok());
        if kept.is_none()
            || frozen(store, app, job, now)?.is_some()
            || is_late(store, app, job, parts, now)?
        {
            return Ok(None);
        }
        longest = longest.max(kept);
    }
    // The source's clock counts; ours may be ahead of it.
    let newest = parts.links.iter().map(|link| link.segment.last_timestamp).max();
    let by_ours = u64::try_from(now.unix_timestamp_nanos()).ok();
    let length = longest.and_then(|length| u64::try_from(length.whole_nanoseconds()).ok());
    Ok(newest
        .zip(by_ours)
        .zip(length)
        .and_then(|((newest, ours), length)| newest.min(ours).checked_sub(length)))
}

/// Whether the runs of a job are late, or were until a few runs ago. A log at rest has no new segments, so
/// the records of runs tell; where none are kept, as of `--follow` as a service, the segments do.
fn is_late(
    store: &dyn ReadStore,
    app: &AppContext,
    job: &JobSettings,
    parts: &LogParts,
    now: OffsetDateTime,
) -> anyhow::Result<bool> {
    let ages = job.ages(now);
    let frozen_after = Some(ages.critical);
    let policy = Policy { frozen_after, min_keep: BACK_MIN, ..Policy::empty() };
    let judged = JobStates::load(app).judge(app, job, (store, BACK_MIN as usize + 1), now)?;
    let good = judged.believed.into_iter().filter(|record| record.outcome() == RunOutcome::Good);
    let mut runs: Vec<Backup> = good.map(|record| Backup::full(record.id)).collect();
    if runs.is_empty() {
        runs = parts.links.iter().map(|link| Backup::full(link.id)).collect();
    }
    let members: Vec<usize> = (0..runs.len()).collect();
    Ok(runs.is_empty() || lateness(&policy, &members, &runs, now).is_some())
}

/// Whether an entry is a segment. As retention sees it, it builds on nothing: what it follows is looked
/// at here.
pub(super) fn is_segment(entry: &Entry) -> bool {
    entry.name.kind == BackupKind::Log
}
