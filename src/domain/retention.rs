//! Which backups are kept: a pure function of policies, backups and time.
//!
//! A policy names calendar periods and how many of each are wanted: of every one of the last seven
//! days *that have a backup* the newest is kept, and so on. Only backups that are whole fill a
//! period. Ages are never compared where a count will do, so that backups do not run out while
//! nothing new arrives.
//!
//! Whatever a policy says, these stay: the newest backup and the newest full backup, what is pinned or
//! held, what is dated in the future, what is damaged (somebody should look at it), what nobody can
//! say bkp made, what a log begins at, what no policy is about, and everything that any of those builds
//! on. And nothing of a job goes while its newest backup is late, or while there are only few since it
//! was late: that is also how a clock looks that was set forward.

use std::collections::{HashMap, HashSet};
use std::fmt;

use time::{Duration, OffsetDateTime};

use super::calendar::{Period, TimeZone, number};
use super::id::BackupId;

/// After a time without backups at least so many have to be made before any is removed.
const BACK_MIN: usize = 3;

/// What is to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Whose days, weeks, months and years count.
    pub zone: TimeZone,
    /// Everything that is younger than this.
    pub within: Option<Duration>,
    /// That many of the newest.
    pub last: u32,
    /// That many periods of each kind that have a backup, and of each the newest backup.
    pub periods: Vec<(Period, u32)>,
    /// Never fewer than this many whole backups.
    pub min_keep: u32,
    /// At most this share of the backups is removed at once; rounded up.
    pub removed_percent_max: u8,
    /// If the newest whole backup is older than this, nothing is removed: the job is failing, or
    /// the clock is wrong. And if there was such a gap before one of the newest three (or `min_keep`).
    pub frozen_after: Option<Duration>,
}

impl Policy {
    /// A policy without any rule, in UTC.
    #[must_use]
    pub fn empty() -> Policy {
        Policy {
            zone: TimeZone::UTC,
            within: None,
            last: 0,
            periods: Vec::new(),
            min_keep: 1,
            removed_percent_max: 100,
            frozen_after: None,
        }
    }

    /// Whether it has no rule by which it keeps anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.within.is_none() && self.last == 0 && self.periods.iter().all(|(_, count)| *count == 0)
    }
}

/// A backup as retention sees it. Its time is that in its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "things that are true or not by themselves")]
pub struct Backup {
    /// The id.
    pub id: BackupId,
    /// What it adds to.
    pub parent: Option<BackupId>,
    /// The first of its chain; itself if it is full.
    pub base: BackupId,
    /// All its objects are there.
    pub whole: bool,
    /// Its manifest is authentic, or nobody here could tell.
    pub proven: bool,
    /// A log that is to be restorable begins at it.
    pub replayed: bool,
    /// Somebody has pinned it.
    pub pinned: bool,
    /// Not to be removed before this, as its manifest or the store says.
    pub held_until: Option<OffsetDateTime>,
}

impl Backup {
    /// A full backup that nothing is wrong with.
    #[must_use]
    pub fn full(id: BackupId) -> Backup {
        Backup {
            id,
            parent: None,
            base: id,
            whole: true,
            proven: true,
            replayed: false,
            pinned: false,
            held_until: None,
        }
    }
}

/// The backups that a policy is about.
#[derive(Debug, Clone)]
pub struct Group<'a> {
    /// What is wanted.
    pub policy: &'a Policy,
    /// Positions in the list of backups.
    pub members: Vec<usize>,
    /// Why nothing of this group is to be removed today: its last run failed, or is suspicious.
    pub frozen: Option<String>,
}

/// Why a backup is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeepReason {
    /// It is the newest whole one.
    Newest,
    /// It is the newest whole one that is full.
    NewestFull,
    /// It is one of the newest, of which so many are wanted.
    Last,
    /// It is young enough.
    Within,
    /// It is the newest of its hour, day, week, month or year.
    NewestOf(Period),
    /// There would be too few.
    Minimum,
    /// Another backup that is kept builds on it.
    NeededBy(BackupId),
    /// Somebody has pinned it.
    Pinned,
    /// Its manifest or the store holds it until then.
    Held(OffsetDateTime),
    /// It is dated in the future.
    Future,
    /// Something of it or of what it builds on is missing.
    Damaged,
    /// No key at hand shows that its manifest is authentic.
    Unproven,
    /// The log that follows it is to be restorable.
    Replayed,
    /// No policy is about it.
    Ungoverned,
    /// Nothing is removed today, for this reason.
    Frozen(String),
    /// Nothing is removed today: the job does not run as it should, or the clock is wrong.
    Late(&'static str),
    /// It goes next time: enough is removed today.
    Limit,
}

impl fmt::Display for KeepReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeepReason::Newest => f.write_str("the newest"),
            KeepReason::NewestFull => f.write_str("the newest full backup"),
            KeepReason::Last => f.write_str("keep_last, or keep_all"),
            KeepReason::Within => f.write_str("keep_within"),
            KeepReason::NewestOf(Period::Hour) => f.write_str("keep_hourly"),
            KeepReason::NewestOf(Period::Day) => f.write_str("keep_daily"),
            KeepReason::NewestOf(Period::Week) => f.write_str("keep_weekly"),
            KeepReason::NewestOf(Period::Month) => f.write_str("keep_monthly"),
            KeepReason::NewestOf(Period::Year) => f.write_str("keep_yearly"),
            KeepReason::Minimum => f.write_str("min_keep"),
            KeepReason::NeededBy(id) => write!(f, "needed by {id}"),
            KeepReason::Pinned => f.write_str("pinned"),
            KeepReason::Held(until) => write!(f, "held until {}", until.date()),
            KeepReason::Future => f.write_str("dated in the future"),
            KeepReason::Damaged => f.write_str("damaged: neither counted nor removed"),
            KeepReason::Unproven => {
                f.write_str("not authenticated by any key: neither counted nor removed")
            }
            KeepReason::Replayed => f.write_str("keep_log: a retained log begins here"),
            KeepReason::Ungoverned => f.write_str("no job has a retention policy for it"),
            KeepReason::Late(reason) => write!(f, "nothing is removed: {reason}"),
            KeepReason::Frozen(reason) => write!(f, "nothing is removed: {reason}"),
            KeepReason::Limit => f.write_str("deferred: max_removed is reached"),
        }
    }
}

/// Decides about every backup: why it is kept, or nothing if it is to be removed. The answer is in
/// the order of `backups`.
///
/// Removing what it says, in the order of [`removals`], never leaves a backup without what it builds
/// on, and deciding again removes nothing more (but what the limit left).
#[must_use]
pub fn decide(
    groups: &[Group<'_>],
    backups: &[Backup],
    now: OffsetDateTime,
) -> Vec<Vec<KeepReason>> {
    let mut decision = Decision::of(backups, now);
    decision.apply_general_rules();
    let governed: HashSet<usize> = groups.iter().flat_map(|group| group.members.clone()).collect();
    for at in (0..backups.len()).filter(|at| !governed.contains(at)) {
        decision.keep(at, KeepReason::Ungoverned);
    }
    for group in groups {
        decision.apply(group);
    }
    decision.keep_parents();
    for group in groups {
        decision.limit_removals(group);
    }
    decision.keep_parents();
    decision.reasons
}

/// Why nothing of a group is to be removed today, as far as times alone say.
#[must_use]
pub fn lateness(
    policy: &Policy,
    members: &[usize],
    backups: &[Backup],
    now: OffsetDateTime,
) -> Option<&'static str> {
    let mut decision = Decision::of(backups, now);
    decision.apply_general_rules();
    decision.late(policy, &decision.counted_members(members))
}

/// The positions of the backups that restore, as far as is known of them and of what they build on, and
/// that are not dated in the future.
#[must_use]
pub fn restorable(backups: &[Backup], now: OffsetDateTime) -> HashSet<usize> {
    let mut decision = Decision::of(backups, now);
    decision.apply_general_rules();
    decision.whole.into_iter().collect()
}

/// The positions of what is to be removed, in the order in which it has to be done: chain by chain,
/// and within a chain the newest first.
#[must_use]
pub fn removals(backups: &[Backup], reasons: &[Vec<KeepReason>]) -> Vec<usize> {
    let gone =
        backups.iter().zip(reasons).enumerate().filter(|(_, (_, reasons))| reasons.is_empty());
    let mut gone: Vec<(usize, &Backup)> = gone.map(|(at, (backup, _))| (at, backup)).collect();
    gone.sort_by_key(|(_, backup)| (backup.base, std::cmp::Reverse(backup.id)));
    gone.into_iter().map(|(at, _)| at).collect()
}

/// What is decided so far.
struct Decision<'a> {
    backups: &'a [Backup],
    now: OffsetDateTime,
    /// By id. Whoever can write to a store can give one to a second backup; neither may then take the
    /// other's place.
    places: HashMap<BackupId, Vec<usize>>,
    reasons: Vec<Vec<KeepReason>>,
    /// Positions of whole backups that are not of the future, newest first.
    whole: Vec<usize>,
}

impl<'a> Decision<'a> {
    fn of(backups: &'a [Backup], now: OffsetDateTime) -> Decision<'a> {
        let mut places: HashMap<BackupId, Vec<usize>> = HashMap::new();
        for (at, backup) in backups.iter().enumerate() {
            places.entry(backup.id).or_default().push(at);
        }
        Decision {
            places,
            reasons: vec![Vec::new(); backups.len()],
            whole: Vec::new(),
            backups,
            now,
        }
    }

    fn keep(&mut self, at: usize, why: KeepReason) {
        if let Some(reasons) = self.reasons.get_mut(at) {
            reasons.push(why);
        }
    }

    fn backup(&self, at: usize) -> Option<&Backup> {
        self.backups.get(at)
    }

    /// What a backup builds on, which is one unless somebody planted another of its id.
    fn parents(&self, backup: &Backup) -> &[usize] {
        let places = backup.parent.and_then(|parent| self.places.get(&parent));
        places.map_or(&[], Vec::as_slice)
    }

    /// What can be said of a backup without any policy.
    fn apply_general_rules(&mut self) {
        let mut order: Vec<usize> = (0..self.backups.len()).collect();
        order.sort_by_key(|at| self.backup(*at).map(|backup| backup.id));
        let mut whole = HashSet::new();
        for at in order {
            let Some(backup) = self.backup(at).copied() else { continue };
            let parents = self.parents(&backup);
            let chained = backup.parent.is_none()
                || (!parents.is_empty() && parents.iter().all(|parent| whole.contains(parent)));
            let future = backup.id.created() > self.now;
            if backup.whole && backup.proven && chained {
                whole.insert(at);
                if !future {
                    self.whole.push(at);
                }
            } else {
                self.keep(
                    at,
                    if backup.proven { KeepReason::Damaged } else { KeepReason::Unproven },
                );
            }
            if backup.replayed {
                self.keep(at, KeepReason::Replayed);
            }
            if future {
                self.keep(at, KeepReason::Future);
            }
            if backup.pinned {
                self.keep(at, KeepReason::Pinned);
            }
            if let Some(until) = backup.held_until.filter(|until| *until > self.now) {
                self.keep(at, KeepReason::Held(until));
            }
        }
        self.whole.reverse();
    }

    /// The members of a group that count, newest first.
    fn counted_members(&self, members: &[usize]) -> Vec<(usize, Backup)> {
        let inside: HashSet<usize> = members.iter().copied().collect();
        let found = self.whole.iter().filter(|at| inside.contains(at));
        found.filter_map(|at| Some((*at, *self.backup(*at)?))).collect()
    }

    /// Why nothing is to be removed of a group with these backups that count, newest first.
    ///
    /// A clock that jumps forward makes everything old at once, and the next run hides that by making
    /// a new backup. So after a gap backups have to be made anew before others go.
    fn late(&self, policy: &Policy, whole: &[(usize, Backup)]) -> Option<&'static str> {
        let after = policy.frozen_after?;
        let mut later = self.now;
        for (place, (_, backup)) in whole.iter().enumerate() {
            let at = backup.id.created();
            if later - at > after {
                return Some(if place == 0 {
                    "no recent backup"
                } else {
                    "too few backups since a period without any"
                });
            }
            if place + 1 >= BACK_MIN.max(usize::try_from(policy.min_keep).unwrap_or(usize::MAX)) {
                return None;
            }
            later = at;
        }
        None
    }

    /// Keeps what the policy of a group wants.
    fn apply(&mut self, group: &Group<'_>) {
        let Group { policy, members, frozen } = group;
        let whole = self.counted_members(members);
        let late = self.late(policy, &whole).map(KeepReason::Late);
        if let Some(why) = frozen.clone().map(KeepReason::Frozen).or(late) {
            for at in members {
                self.keep(*at, why.clone());
            }
        }
        if let Some((at, _)) = whole.first() {
            self.keep(*at, KeepReason::Newest);
        }
        if let Some((at, _)) = whole.iter().find(|(_, backup)| backup.parent.is_none()) {
            self.keep(*at, KeepReason::NewestFull);
        }
        let newest = |count: u32| whole.iter().take(usize::try_from(count).unwrap_or(usize::MAX));
        newest(policy.last).for_each(|(at, _)| self.keep(*at, KeepReason::Last));
        newest(policy.min_keep).for_each(|(at, _)| self.keep(*at, KeepReason::Minimum));
        if let Some(within) = policy.within {
            let young = |(_, backup): &&(usize, Backup)| self.now - backup.id.created() <= within;
            let young: Vec<usize> = whole.iter().filter(young).map(|(at, _)| *at).collect();
            for at in young {
                self.keep(at, KeepReason::Within);
            }
        }
        for (period, count) in &policy.periods {
            let mut seen = HashSet::new();
            for (at, backup) in &whole {
                let of = number(*period, backup.id.created(), &policy.zone);
                if seen.contains(&of) {
                    continue;
                }
                if seen.len() >= usize::try_from(*count).unwrap_or(usize::MAX) {
                    break;
                }
                seen.insert(of);
                self.keep(*at, KeepReason::NewestOf(*period));
            }
        }
    }

    /// Keeps what a kept backup builds on.
    fn keep_parents(&mut self) {
        let kept = self.reasons.iter().enumerate().filter(|(_, reasons)| !reasons.is_empty());
        let mut kept: Vec<usize> = kept.map(|(at, _)| at).collect();
        while let Some(at) = kept.pop() {
            let Some(backup) = self.backup(at).copied() else { continue };
            for parent in self.parents(&backup).to_vec() {
                if self.reasons.get(parent).is_some_and(Vec::is_empty) {
                    self.keep(parent, KeepReason::NeededBy(backup.id));
                    kept.push(parent);
                }
            }
        }
    }

    /// Leaves what is too much for one time to the next.
    fn limit_removals(&mut self, group: &Group<'_>) {
        let inside: HashSet<usize> = group.members.iter().copied().collect();
        let gone = removals(self.backups, &self.reasons);
        let gone = gone.into_iter().filter(|at| inside.contains(at));
        let percent = usize::from(group.policy.removed_percent_max);
        // What nobody proves makes nothing more of it go.
        let is_proven = |at: &&usize| self.backups.get(**at).is_some_and(|backup| backup.proven);
        let proven = group.members.iter().filter(is_proven).count();
        let most = (proven * percent).div_ceil(100);
        for at in gone.skip(most).collect::<Vec<_>>() {
            self.keep(at, KeepReason::Limit);
        }
    }
}

#[cfg(test)]
mod tests;
