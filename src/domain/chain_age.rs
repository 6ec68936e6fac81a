//! How old the data of a backup is, for the storage class that it belongs to.
//!
//! A restore reads a whole chain, so a chain has one age: that of its youngest backup. Where a log goes on from
//! it, restores need it until the next chain begins. And what a restore of the newest state reads never gets
//! old, however long ago it was written.

use std::collections::HashMap;

use time::OffsetDateTime;

use super::id::BackupId;

/// A backup as far as its age is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aging {
    /// The id.
    pub id: BackupId,
    /// The first of its chain; itself if it is full.
    pub base: BackupId,
    /// Which backups it belongs with: those of one source and kind. Of each the newest chain stays.
    pub series: usize,
    /// Whether a log goes on from it.
    pub is_logged: bool,
    /// Whether it is shown to be bkp's own. What is not makes its chain younger, and nothing older.
    pub is_proven: bool,
}

/// The chains of a series.
#[derive(Debug, Default)]
struct Series {
    /// Of each the first and the last backup.
    chains: HashMap<BackupId, (OffsetDateTime, OffsetDateTime)>,
    /// When each proven chain began.
    begun: Vec<OffsetDateTime>,
    /// The youngest proven backup.
    newest: Option<(OffsetDateTime, BackupId)>,
}

/// For each backup since when nothing newer needs its chain; nothing for the newest chain of a series.
#[must_use]
pub fn unneeded_since(backups: &[Aging]) -> Vec<Option<OffsetDateTime>> {
    let mut all: HashMap<usize, Series> = HashMap::new();
    for backup in backups {
        let (at, series) = (backup.id.created(), all.entry(backup.series).or_default());
        let (first, last) = series.chains.entry(backup.base).or_insert((at, at));
        (*first, *last) = ((*first).min(at), (*last).max(at));
        if backup.is_proven {
            series.newest = series.newest.max(Some((at, backup.base)));
            series.begun.extend((backup.id == backup.base).then_some(at));
        }
    }
    let since = |backup: &Aging| {
        let series = all.get(&backup.series)?;
        let (_, last) = *series.chains.get(&backup.base)?;
        if series.newest.is_none_or(|(_, newest)| newest == backup.base) {
            return None;
        }
        if !backup.is_logged {
            return Some(last);
        }
        series.begun.iter().copied().filter(|begun| *begun > last).min()
    };
    backups.iter().map(since).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::Duration;
    use time::macros::datetime;

    const BEGAN: OffsetDateTime = datetime!(2026-01-01 00:00 UTC);

    fn day(day: i64) -> OffsetDateTime {
        BEGAN + Duration::days(day)
    }

    /// Backups of one series, each by its day and that of its base.
    fn series(days: &[(i64, i64)], is_logged: bool) -> Vec<Aging> {
        let mut ids: HashMap<i64, BackupId> = HashMap::new();
        let mut id = |of: i64| *ids.entry(of).or_insert_with(|| BackupId::new(day(of)));
        let backup = |(of, base): &(i64, i64)| Aging {
            id: id(*of),
            base: id(*base),
            series: 0,
            is_logged,
            is_proven: true,
        };
        days.iter().map(backup).collect()
    }

    fn days(backups: &[Aging]) -> Vec<Option<i64>> {
        let since = unneeded_since(backups).into_iter();
        since.map(|since| since.map(|since| (since - BEGAN).whole_days())).collect()
    }

    #[test]
    fn a_chain_is_as_old_as_its_youngest_backup() {
        let two = series(&[(0, 0), (1, 0), (6, 0), (7, 7), (8, 7)], false);
        assert_eq!(days(&two), [Some(6), Some(6), Some(6), None, None]);
        // Two chains of which the older one was continued last.
        let crossed = series(&[(0, 0), (5, 5), (9, 0)], false);
        assert_eq!(days(&crossed), [None, Some(5), None]);
    }

    #[test]
    fn a_log_needs_a_chain_until_the_next_one_begins() {
        let logged = series(&[(0, 0), (1, 0), (40, 40), (90, 90)], true);
        assert_eq!(days(&logged), [Some(40), Some(40), Some(90), None]);
    }

    #[test]
    fn the_newest_of_each_series_stays() {
        let mut both = series(&[(0, 0), (1, 1)], false);
        both.extend(
            series(&[(0, 0)], false).into_iter().map(|backup| Aging { series: 1, ..backup }),
        );
        assert_eq!(days(&both), [Some(0), None, None]);
        assert_eq!(days(&[]), []);
    }

    #[test]
    fn what_is_not_proven_makes_nothing_older() {
        let mut planted = series(&[(0, 0), (1, 1), (50, 50), (60, 0)], true);
        for backup in planted.iter_mut().skip(2) {
            backup.is_proven = false;
        }
        // Neither is the newest, and none begins a chain that others are measured by.
        assert_eq!(days(&planted)[..2], [None, None]);
    }
}
