//! Decides which backups of a store are removed: first by cached facts, then by facts read again for
//! the backups that the decision relies on, until both agree.
//!
//! Whoever can write to the store can change what it has while the cache of facts stays as it was, and
//! so can a disk. So nothing goes before what stays in its stead was looked at in this run.

use std::collections::{HashMap, HashSet};

use time::OffsetDateTime;

use super::logs::{self, LogNeeds};
use super::rules::{Rule, Witness, rules};
use crate::catalog::{Authenticity, BackupFacts, Entry, FactsCache};
use crate::concurrent;
use crate::domain::id::BackupId;
use crate::domain::names::BackupType;
use crate::domain::retention::{Backup, Group, KeepReason, decide, removals};
use crate::domain::segment::Link;
use crate::ops::annotations::{BackupAnnotations, Damage, judge};
use crate::ops::authenticity::ProofChecker;
use crate::store::PruneStore;
use crate::wire::AppContext;

/// Of a manifest: its digest if it is shown to be bkp's own, and whether it may be.
pub(super) type ManifestStanding = (Option<[u8; 32]>, bool);

/// Until when the store locks a backup, by its position, as far as that was asked.
type Locks = HashMap<usize, Option<OffsetDateTime>>;

/// What is decided, by positions.
pub(super) struct CleanupDecision {
    /// What goes, in the order in which it has to.
    pub(super) gone: Vec<usize>,
    /// Why the others stay.
    pub(super) reasons: Vec<Vec<KeepReason>>,
    /// What the store locks.
    pub(super) locked: HashSet<usize>,
    /// For each segment that may go the first one of its log.
    pub(super) of_logs: HashMap<usize, BackupId>,
    pub(super) backups: Vec<Backup>,
    pub(super) ours: Vec<ManifestStanding>,
    /// The places in a log of those that are segments of one.
    pub(super) links: Vec<Option<Link>>,
    /// Why nothing may be called old today.
    pub(super) late: Option<&'static str>,
}

/// The inputs of the decision.
pub(super) struct Decider<'a> {
    pub(super) app: &'a AppContext,
    pub(super) store: &'a dyn PruneStore,
    pub(super) witness: &'a Witness<'a>,
    pub(super) entries: &'a [Entry],
    pub(super) now: OffsetDateTime,
}

impl Decider<'_> {
    pub(super) fn decide(&self) -> anyhow::Result<CleanupDecision> {
        let Decider { app, store, witness, entries, now } = *self;
        let (ctx, keys) = (&app.ctx, &witness.keys);
        let mut known = FactsCache::of(&app.settings.state_dir, store.url());
        let rules = rules(app, store, entries, now)?;
        let judged = self.judge()?;
        let (mut locks, mut sure) = (Locks::new(), HashSet::new());
        loop {
            let facts = known.backups(store, entries, keys, ctx)?;
            let decided = self.decide_from(&rules, &facts, &judged, &mut locks)?;
            let mut needed = self.relied_on(&decided);
            needed.retain(|at| sure.insert(*at));
            if needed.is_empty() {
                known.save(entries, ctx);
                for rule in &rules {
                    if let Some(sources) = rule.shared(&facts, &decided.backups) {
                        let job = &rule.job;
                        ctx.monitor.warn(&format!(
                            "the backups of job `{job}` come from several sources with the same name and are counted separately: {sources}"
                        ));
                    }
                }
                return Ok(decided);
            }
            let needed: Vec<&Entry> = needed.iter().filter_map(|at| entries.get(*at)).collect();
            known.confirm(store, &needed, keys, ctx)?;
        }
    }

    /// What counts of what stands beside each backup.
    fn judge(&self) -> anyhow::Result<Vec<BackupAnnotations>> {
        let Decider { app, store, witness, entries, .. } = *self;
        let proof_checker = ProofChecker::new(store, &witness.keys, &app.ctx);
        concurrent::each(entries, &app.ctx.cancel, |entry| {
            Ok(judge(store, &proof_checker, &entry.name, &entry.marks)?)
        })
    }

    /// What is decided by what is known. What is called damaged without a proof may be, or may not: only
    /// what goes either way goes.
    fn decide_from(
        &self,
        rules: &[Rule],
        facts: &[BackupFacts],
        judged: &[BackupAnnotations],
        locks: &mut Locks,
    ) -> anyhow::Result<CleanupDecision> {
        let mut decided =
            self.decide_counting_damage(rules, facts, judged, Damage::Confirmed, locks)?;
        if judged.iter().all(|judged| judged.damage != Damage::Claimed) {
            return Ok(decided);
        }
        let careful = self.decide_counting_damage(rules, facts, judged, Damage::Claimed, locks)?;
        let gone: HashSet<usize> = careful.gone.into_iter().collect();
        decided.gone.retain(|at| gone.contains(at));
        decided.locked.extend(careful.locked);
        decided.late = decided.late.or(careful.late);
        for (reasons, more) in decided.reasons.iter_mut().zip(careful.reasons) {
            reasons
                .extend(more.into_iter().filter(|why| !reasons.contains(why)).collect::<Vec<_>>());
        }
        for at in &careful.of_logs.keys().copied().collect::<Vec<_>>() {
            if !gone.contains(at) {
                decided.of_logs.remove(at);
            }
        }
        Ok(decided)
    }

    /// What is decided if those are damaged of whom at least `from` is said.
    fn decide_counting_damage(
        &self,
        rules: &[Rule],
        facts: &[BackupFacts],
        judged: &[BackupAnnotations],
        from: Damage,
        locks: &mut Locks,
    ) -> anyhow::Result<CleanupDecision> {
        let Decider { app, store, witness, entries, now } = *self;
        let (mut backups, mut ours) = (Vec::new(), Vec::new());
        for ((facts, entry), judged) in facts.iter().zip(entries).zip(judged) {
            let proven = witness.believes(facts);
            let mut backup = Backup { proven, ..facts.backup };
            // The promise of a job is about the stores that it writes to.
            if app.own_retention(store.name()).is_some() {
                backup.held_until = None;
            }
            backup.whole &= judged.damage < from;
            backup.pinned |= judged.pinned;
            if logs::is_segment(entry) {
                (backup.parent, backup.base) = (None, backup.id);
            }
            backups.push(backup);
            ours.push((facts.sha256.filter(|_| proven), facts.proof != Authenticity::Forged));
        }
        let logs = logs::log_needs(app, store, entries, facts, &backups, now)?;
        for at in &logs.bases {
            if let Some(backup) = backups.get_mut(*at) {
                backup.replayed = true;
            }
        }
        let late = rules.iter().find_map(|rule| rule.late(&backups, now));
        let groups = |rule| Rule::groups(rule, entries, facts, &backups);
        let groups: Vec<Group<'_>> = rules.iter().flat_map(groups).collect();
        let (reasons, locked) = self.decide_around_locks(&groups, &mut backups, locks)?;
        let spare = self.removable_segments(&logs, &reasons, locks)?;
        let of_logs = first_of_logs(&logs, &backups);
        let gone = removals(&backups, &reasons).into_iter().chain(spare).collect();
        let links = facts.iter().map(|facts| facts.link.clone()).collect();
        Ok(CleanupDecision { gone, reasons, locked, of_logs, backups, ours, links, late })
    }

    /// The positions of the backups that something goes for: those of the same sources that stay and
    /// count. What a policy keeps of a group, what that builds on, and what a log begins at are among them.
    fn relied_on(&self, decided: &CleanupDecision) -> Vec<usize> {
        let gone: HashSet<usize> = decided.gone.iter().copied().collect();
        let source = |at: usize| -> Option<(BackupType, &str)> {
            let name = &self.entries.get(at)?.name;
            Some((name.backup_type, name.source.as_str()))
        };
        let sources: HashSet<_> = gone.iter().filter_map(|at| source(*at)).collect();
        let stays = |(at, backup): &(usize, &Backup)| {
            let is_of = source(*at).is_some_and(|source| sources.contains(&source));
            is_of && backup.proven && !gone.contains(at)
        };
        decided.backups.iter().enumerate().filter(stays).map(|(at, _)| at).collect()
    }

    /// Decides, asks the store whether it locks what would go, and decides again until nothing that
    /// would go is locked. Returns the decision and the positions of what is locked.
    fn decide_around_locks(
        &self,
        groups: &[Group<'_>],
        backups: &mut [Backup],
        locks: &mut Locks,
    ) -> anyhow::Result<(Vec<Vec<KeepReason>>, HashSet<usize>)> {
        let (mut asked, mut locked) = (HashSet::new(), HashSet::new());
        loop {
            let reasons = decide(groups, backups, self.now);
            let mut again = false;
            for at in removals(backups, &reasons) {
                if !asked.insert(at) {
                    continue;
                }
                let until = self.locked_until(at, locks)?.filter(|until| *until > self.now);
                if let Some((until, backup)) = until.zip(backups.get_mut(at)) {
                    backup.held_until = backup.held_until.max(Some(until));
                    again |= locked.insert(at);
                }
            }
            if !again {
                return Ok((reasons, locked));
            }
        }
    }

    /// The segments that go, of each log oldest first: only from its beginning on, or it would have a
    /// hole.
    fn removable_segments(
        &self,
        logs: &LogNeeds,
        reasons: &[Vec<KeepReason>],
        locks: &mut Locks,
    ) -> anyhow::Result<Vec<usize>> {
        let mut found = Vec::new();
        for log in &logs.spare {
            for at in log {
                let Some(reasons) = reasons.get(*at) else { break };
                let is_free = matches!(reasons.as_slice(), [KeepReason::Ungoverned]);
                if !is_free || self.locked_until(*at, locks)?.is_some_and(|until| until > self.now)
                {
                    break;
                }
                found.push(*at);
            }
        }
        Ok(found)
    }

    /// Until when the store locks any part of a backup, or what was said about it.
    fn locked_until(&self, at: usize, locks: &mut Locks) -> anyhow::Result<Option<OffsetDateTime>> {
        if let Some(known) = locks.get(&at) {
            return Ok(*known);
        }
        let Some(entry) = self.entries.get(at) else { return Ok(None) };
        let mut until = self.store.retained(&entry.name.manifest_key())?;
        for object in &entry.objects {
            until = until.max(self.store.retained(&object.key)?);
        }
        for mark in &entry.marks {
            until = until.max(self.store.retained(&entry.name.key(&mark.extension()))?);
        }
        locks.insert(at, until);
        Ok(until)
    }
}

/// For each segment that is spare the first one of its log.
fn first_of_logs(logs: &LogNeeds, backups: &[Backup]) -> HashMap<usize, BackupId> {
    let mut found = HashMap::new();
    for log in &logs.spare {
        let first = log.first().and_then(|at| backups.get(*at));
        found.extend(first.into_iter().flat_map(|first| log.iter().map(|at| (*at, first.id))));
    }
    found
}
