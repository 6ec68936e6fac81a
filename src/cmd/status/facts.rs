//! Facts about jobs and sources from the records of one store, and from several stores together.

use crate::cmd::replicate;
use crate::config::settings::jobs::JobKind;
use crate::domain::backup_kind::BackupKind;
use crate::domain::verify_level::VerifyLevel;
use std::collections::{BTreeMap, BTreeSet};

use time::OffsetDateTime;

use crate::catalog::{self, Entry};
use crate::config::settings::jobs::JobSettings;
use crate::domain::health::Uncopied;
use crate::domain::limits::CHAIN_LENGTH_MAX;
use crate::domain::manifest::Manifest;
use crate::domain::names::{BackupName, Scope};
use crate::domain::record::{Record, RunOutcome};
use crate::domain::schedule::Due;
use crate::error::{Kind, diagnose};
use crate::ops::jobs::evidence::{Evidence, JudgedRecords};
use crate::ops::jobs::state::{JobStates, is_for_each, places};
use crate::pipeline::ROLE_MAP;
use crate::store::{ReadStore, Version};
use crate::wire::AppContext;

/// What one store has.
pub(super) struct StoreFacts {
    pub(super) name: String,
    pub(super) store: Box<dyn ReadStore>,
    /// Price of its storage class per GiB and month.
    pub(super) price: f64,
    pub(super) entries: Vec<Entry>,
    /// Its own records of the runs of each job.
    pub(super) records: BTreeMap<String, JudgedRecords>,
}

impl StoreFacts {
    /// The records of the runs of a job that count, oldest first.
    pub(super) fn records(&self, job: &JobSettings) -> &[Record] {
        let judged = self.records.get(&job.name);
        judged.map(|judged| judged.believed.as_slice()).unwrap_or_default()
    }

    /// The last run that did what it should, as far as this store is concerned.
    pub(super) fn good(&self, job: &JobSettings) -> Option<&Record> {
        let mut records = self.records(job).iter().rev();
        records.find(|record| record.outcome() == RunOutcome::Good)
    }

    /// The last run that verified the backups of a source here, at this level or any, and found them well.
    pub(super) fn verified(
        &self,
        app: &AppContext,
        source: &str,
        level: Option<VerifyLevel>,
    ) -> Option<&Record> {
        let jobs = app.settings.jobs.values().filter(|job| {
            job.source.as_deref() == Some(source)
                && job.run == JobKind::Verify
                && level.is_none_or(|level| job.level == Some(level))
        });
        jobs.filter_map(|job| self.good(job)).max_by_key(|record| record.id.created())
    }

    /// The backups of a source here, oldest first.
    pub(super) fn backups(&self, source: &str) -> impl DoubleEndedIterator<Item = &Entry> {
        self.entries
            .iter()
            .filter(move |entry| entry.manifest.is_some() && entry.name.source == source)
    }

    /// When the newest of a job's backups here began that is proven, or their last good verification.
    pub(super) fn newest(
        &self,
        app: &AppContext,
        job: &JobSettings,
        evidence: &Evidence,
    ) -> Option<OffsetDateTime> {
        let good = self.good(job).map(|record| record.id.created());
        let Some(made) = job.run.makes() else { return good };
        let is_of = |entry: &&Entry| {
            let name = &entry.name;
            entry.manifest.is_some()
                && job.source.as_ref() == Some(&name.source)
                && name.kind == made
                && job.scope.is_none_or(|scope| scope == name.scope)
        };
        let mine = self.entries.iter().filter(is_of).rev().map(versioned);
        let (newest, _unproven) = evidence.newest(app, &*self.store, mine);
        newest.map(|name| name.id.created()).max(good)
    }
}

/// How many of the newest backups are full ones, of a kind that a job makes as increments where it can.
pub(super) fn unexpected_fulls(jobs: &[&JobSettings], mine: &[&Entry]) -> usize {
    let auto = |job: &&&JobSettings| {
        let chooses = matches!(job.run, JobKind::Snapshot | JobKind::Replicate);
        job.auto_scope || (chooses && job.scope.is_none())
    };
    let kinds = jobs.iter().filter(auto).filter_map(|job| job.run.makes());
    // A job that makes full ones is counted as well: it cannot be told which of them is whose.
    let plain = |kind: BackupKind| {
        let full = jobs.iter().filter(|job| !auto(job));
        full.filter_map(|job| job.run.makes()).any(|made| made == kind)
    };
    let counted = kinds.filter(|kind| !plain(*kind)).map(|kind| {
        let newest = mine.iter().rev().filter(move |entry| entry.name.kind == kind);
        newest.take_while(|entry| entry.name.scope == Scope::Full).count()
    });
    counted.max().unwrap_or(0)
}

/// The job that a job waits for, and since when it has been due.
pub(super) fn waits(
    app: &AppContext,
    job: &JobSettings,
    states: &JobStates,
    due: Due,
) -> Option<(String, OffsetDateTime)> {
    let Due::Since(since) = due else { return None };
    let failed = |first: &String| {
        let known = app.settings.jobs.get(first).filter(|known| known.enabled)?;
        let past = states.past(app, known);
        Some((first.clone(), past.tried.filter(|_tried| past.failures > 0)?))
    };
    let (first, failed) = job.after.iter().find_map(failed)?;
    // A job that never ran is due at any time; it waits since the other one failed.
    let never = states.past(app, job).tried.is_none();
    Some((first, if never { failed } else { since }))
}

/// What each of several stores has of a job, of those that answer. A run of `logs` that finds nothing
/// writes nothing, so nothing follows from the age of a segment.
pub(super) fn copies(
    app: &AppContext,
    job: &JobSettings,
    seen: &[StoreFacts],
    evidence: &Evidence,
) -> Vec<(String, Option<OffsetDateTime>)> {
    let places = places(app, job);
    let is_one = places.len() < 2 || !(job.run.makes().is_some() || is_for_each(job));
    let answer = seen.iter().filter(|seen| !is_one && places.contains(&seen.name));
    answer.map(|seen| (seen.name.clone(), seen.newest(app, job, evidence))).collect()
}

/// What a job that copies from one store to another has not copied yet: of each source the backups that are
/// newer than the newest proven one in the other store. What it left out on purpose is older.
pub(super) fn uncopied(
    app: &AppContext,
    job: &JobSettings,
    seen: &[StoreFacts],
    evidence: &Evidence,
) -> Vec<Uncopied> {
    let Some(copies) = &job.copies else { return Vec::new() };
    let between = (copies.from.as_deref(), copies.to.as_str());
    let from = replicate::origin(&app.settings, job.source.as_deref(), between);
    let of_name = |name: &str| seen.iter().find(|seen| seen.name == name);
    let stores = from.ok().and_then(|from| of_name(&from)).zip(of_name(&copies.to));
    // A store that does not answer is another finding, and so is a job that cannot run.
    let Some((from, to)) = stores else { return Vec::new() };
    let sources: BTreeSet<&String> = from.entries.iter().map(|entry| &entry.name.source).collect();
    let is_of_job = |source: &&String| job.source.as_ref().is_none_or(|only| only == *source);
    let lacking = sources.into_iter().filter(is_of_job).filter_map(|source| {
        let newest = |seen: &StoreFacts| {
            let names = seen.backups(source).rev().map(versioned);
            let (newest, _unproven) = evidence.newest(app, &*seen.store, names);
            newest.map(|name| name.id.created())
        };
        let (made, there) = (newest(from)?, newest(to));
        let waits = |at: &OffsetDateTime| there < Some(*at) && *at <= made;
        let waiting = from.backups(source).map(|entry| entry.name.id.created()).filter(waits);
        let waiting: Vec<OffsetDateTime> = waiting.collect();
        Some(Uncopied {
            source: source.clone(),
            from: from.name.clone(),
            to: to.name.clone(),
            count: waiting.len(),
            oldest: waiting.into_iter().min()?,
        })
    });
    lacking.collect()
}

/// How many records of a job, and how many backups since its last success, no key here proves.
pub(super) fn unproven(job: &JobSettings, seen: &[StoreFacts]) -> (usize, usize) {
    let judged = || seen.iter().filter_map(|seen| seen.records.get(&job.name));
    let records: BTreeSet<&String> = judged().flat_map(|judged| &judged.unproven).collect();
    (records.len(), judged().map(|judged| judged.manifests).max().unwrap_or(0))
}

pub(super) fn versioned(entry: &Entry) -> (BackupName, Option<Version>) {
    (entry.name.clone(), entry.version)
}

/// Why the newest backup of a source in a store that is proven does not restore, as far as its manifests and a
/// listing show that: something that it needs is not there, or of another size.
pub(super) fn broken(
    app: &AppContext,
    seen: &StoreFacts,
    mine: &[&Entry],
    evidence: &Evidence,
) -> Option<String> {
    let states = mine.iter().rev().filter(|entry| entry.name.kind != BackupKind::Log);
    let (newest, _) = evidence.newest(app, &*seen.store, states.map(|entry| versioned(entry)));
    let newest = newest?.id;
    let mut next = Some(newest);
    for _ in 0..=CHAIN_LENGTH_MAX {
        let id = next?;
        // Something that nobody proves may have the same id.
        let of_id = mine.iter().filter(|entry| entry.name.id == id);
        let is_proven =
            |entry: &&&&Entry| evidence.newest(app, &*seen.store, [versioned(entry)]).0.is_some();
        let all: Vec<&&Entry> = of_id.collect();
        let Some(entry) = all.iter().find(is_proven).or(all.first()) else {
            return Some(format!("{newest} builds on {id}, which has no manifest"));
        };
        let key = entry.name.manifest_key();
        let read = catalog::read_manifest(&*seen.store, &key);
        let manifest = match read.and_then(|bytes| Ok(Manifest::parse(&bytes, &key)?)) {
            Ok(manifest) => manifest,
            Err(error) if diagnose(&error).kind == Kind::Integrity => {
                return Some(format!("{newest} needs {id}: {error:#}"));
            }
            // That the store does not answer is another finding.
            Err(_) => return None,
        };
        // A snapshot restores without its map.
        let is_needed = |role: &str| entry.name.kind != BackupKind::Snapshot || role != ROLE_MAP;
        for object in manifest.objects.iter().filter(|object| is_needed(&object.role)) {
            let found = entry.objects.iter().find(|found| found.key == object.key);
            match found.map(|found| found.bytes) {
                Some(bytes) if bytes == object.bytes => {}
                Some(bytes) => {
                    return Some(format!(
                        "`{}` has {bytes} bytes instead of {}",
                        object.key, object.bytes
                    ));
                }
                None => return Some(format!("`{}` is missing", object.key)),
            }
        }
        next = manifest.parent;
    }
    None
}

/// How many of the newest backups of a source in a store were tried, if none of them opens with a key that
/// is at hand, or is known to the ledger.
pub(super) fn unopenable(
    app: &AppContext,
    seen: &StoreFacts,
    mine: &[&Entry],
    evidence: &Evidence,
) -> Option<usize> {
    if evidence.keys(app).is_empty() {
        return None;
    }
    let names = mine.iter().rev().map(|entry| versioned(entry));
    match evidence.newest(app, &*seen.store, names) {
        (None, unproven @ 1..) => Some(unproven),
        _ => None,
    }
}
