//! The part of a log needed to restore any moment since a given one.

use std::collections::BTreeSet;

use super::log::Log;
use super::window::Base;
use crate::domain::id::BackupId;

/// What is needed of the logs of a source whose restores begin with snapshots, and what is not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogRetention {
    /// Snapshots from which segments are rolled forward: of each unbroken run the last one before the
    /// wanted time, or else the first one there is.
    pub bases: BTreeSet<BackupId>,
    /// Segments that nothing wanted needs, oldest first. Only ever the oldest of the log: where one of
    /// the middle is missing, that is damage.
    pub spare: Vec<BackupId>,
}

/// What is needed to restore any moment since `since` (nanoseconds since 1970, by the source's clock).
/// `logs` are those of [`Log::all`], the one that is continued last.
///
/// An unbroken run without a base from before the wanted time stays as it is: what it lacks may be a
/// snapshot that is being taken, or one that can be mended.
#[must_use]
pub fn keep(logs: &[Log], bases: &[Base], since: u64) -> LogRetention {
    let mut kept = LogRetention::default();
    let mut needed: BTreeSet<BackupId> = BTreeSet::new();
    for log in logs {
        let runs = log.runs();
        for (index, run) in runs.iter().enumerate() {
            let is_newest = index + 1 == runs.len();
            let end = run.last().map_or(0, |last| last.segment.last_timestamp);
            let of_run: Vec<&Base> = bases.iter().filter(|base| base.is_of(run)).collect();
            let before = of_run.iter().filter(|base| base.timestamp <= since);
            let anchor = before.max_by_key(|base| base.position);
            let first = anchor.or(of_run.iter().min_by_key(|base| base.position));
            let wanted = is_newest || end >= since;
            kept.bases.extend(first.filter(|_base| wanted).map(|base| base.id));
            let from = match anchor {
                _ if !wanted => u64::MAX,
                Some(base) => base.sure_until(),
                // Where no snapshot leads to the wanted time, one may be damaged and mended again.
                None => 0,
            };
            let beyond = run.iter().filter(|link| {
                let range = link.segment.range.as_ref();
                range.is_none_or(|range| range.last > from)
            });
            needed.extend(beyond.map(|link| link.id));
        }
        needed.extend(&log.strays);
    }
    let newest = logs.last().map(|log| log.links.as_slice()).unwrap_or_default();
    let spare = newest.iter().map(|link| link.id).take_while(|id| !needed.contains(id));
    kept.spare = spare.collect();
    kept
}
