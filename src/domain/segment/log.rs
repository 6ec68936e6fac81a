//! Segments in order.

use std::collections::{BTreeMap, BTreeSet};

use super::description::{Damage, Segment};
use crate::domain::id::BackupId;

/// A segment in its place: what its manifest says, and that manifest's digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its id.
    pub id: BackupId,
    /// The segment before it.
    pub parent: Option<BackupId>,
    /// SHA-256 of the manifest that the run wrote which made it, hex: what the segment after it names.
    pub sha256: String,
    /// What it says of itself.
    pub segment: Segment,
}

/// A log: segments in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Log {
    /// In order of shipping.
    pub links: Vec<Link>,
    /// Where the order is broken: the index of the link that does not follow the one before it, and
    /// why. What a segment says itself of a gap is among them, as [`Break::Gap`].
    pub breaks: BTreeMap<usize, Break>,
    /// Segments that none of the others leads to.
    pub strays: Vec<BackupId>,
}

/// Why a segment does not follow the one before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Break {
    /// It was known when it was shipped.
    Gap(String),
    /// It is damage: a segment is missing, was changed, or stands in the wrong place.
    Damage(Damage),
}

impl Log {
    /// The logs that segments of one mode make up: the one with the newest segment last, and before it
    /// one for each segment that nobody continued. With several stores a run goes on from what all of
    /// them have, and what only some of them have is such a branch: it restores all the same.
    #[must_use]
    pub fn all(links: &[Link]) -> Vec<Log> {
        let mut logs = vec![Log::of(links.to_vec())];
        let mut strays = logs.first().map(|log| log.strays.clone()).unwrap_or_default();
        while let Some(newest) = strays.pop() {
            let until = links.iter().filter(|link| link.id <= newest);
            let branch = Log::of(until.cloned().collect());
            strays.retain(|stray| !branch.links.iter().any(|link| link.id == *stray));
            logs.push(branch);
        }
        for log in &mut logs {
            let first = log.links.first().filter(|first| first.parent.is_none());
            if first.is_some_and(|first| links.iter().any(|link| link.id < first.id)) {
                log.breaks.insert(0, Break::Gap("it starts a new log".into()));
            }
        }
        logs.reverse();
        logs
    }

    /// Puts segments of one mode in order. The order is that of the parents, from the newest back.
    #[must_use]
    pub fn of(links: Vec<Link>) -> Log {
        let mut left: BTreeMap<BackupId, Link> =
            links.into_iter().map(|link| (link.id, link)).collect();
        let mut log = Log::default();
        let mut reversed: Vec<(Link, Option<Damage>)> = Vec::new();
        let mut next = left.pop_last().map(|(_, link)| link);
        while let Some(link) = next {
            let parent = link.parent.filter(|parent| *parent < link.id);
            next = parent.and_then(|parent| left.remove(&parent));
            let mut problem = None;
            if next.is_none() {
                // What is older than a missing parent is still a part of the log; what is newer
                // than it is a branch that nobody continued.
                while let Some((id, older)) = left.pop_last() {
                    if parent.is_some_and(|parent| id < parent) {
                        problem = parent.map(Damage::Missing);
                        next = Some(older);
                        break;
                    }
                    log.strays.push(id);
                }
            }
            reversed.push((link, problem));
        }
        let strays: BTreeSet<BackupId> =
            log.strays.iter().copied().chain(left.into_keys()).collect();
        log.strays = strays.into_iter().collect();
        for (link, missing) in reversed.into_iter().rev() {
            let index = log.links.len();
            let damage = match (missing, log.links.last()) {
                (Some(missing), _) => Some(missing),
                (None, Some(before)) => link.segment.contradicts(&before.segment, &before.sha256),
                (None, None) => None,
            };
            let Segment { gap, unreplayable, .. } = &link.segment;
            let gap = gap.clone().filter(|_gap| index > 0);
            let gap = unreplayable.clone().or(gap).map(Break::Gap);
            if let Some(broken) = damage.map(Break::Damage).or(gap) {
                log.breaks.insert(index, broken);
            }
            log.links.push(link);
        }
        log
    }

    /// The unbroken parts, oldest first.
    #[must_use]
    pub fn runs(&self) -> Vec<&[Link]> {
        let mut runs = Vec::new();
        let ends = self.breaks.keys().copied().chain([self.links.len()]);
        let mut begin = 0;
        for end in ends {
            runs.extend(self.links.get(begin..end).filter(|run| !run.is_empty()));
            begin = end;
        }
        runs
    }

    /// Whether something in it is damaged.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.breaks.values().any(|broken| matches!(broken, Break::Damage(_)))
    }
}
