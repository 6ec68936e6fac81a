//! The cost of keeping backups: bytes times the price of their storage class.

use std::collections::BTreeMap;

use time::{Duration, OffsetDateTime};

use super::id::BackupId;
use super::retention::{Backup, Group, Policy, decide};
use super::thaw::ThawSpeed;
use super::tier::StorageClass;

/// Public prices of S3 in us-east-1 in November 2026, US dollars per GiB and month; the first tier,
/// storage alone. A store in a folder costs nothing here.
pub const PRICES: [(&str, f64); 8] = [
    ("STANDARD", 0.023),
    ("INTELLIGENT_TIERING", 0.023),
    ("STANDARD_IA", 0.0125),
    ("ONEZONE_IA", 0.01),
    ("GLACIER_IR", 0.004),
    ("GLACIER", 0.0036),
    ("DEEP_ARCHIVE", 0.00099),
    ("LOCAL", 0.0),
];

/// The month of those prices, and of the fees of retrievals.
pub const PRICES_OF: &str = "2026-11";

/// Days of a month, for prices.
const MONTH_DAYS: f64 = 30.0;

/// Public fees of S3 in us-east-1 in that month for reading a GiB from a class, US dollars; of those that have to be
/// thawed before, at the standard speed.
#[must_use]
pub fn retrieval(class: StorageClass) -> f64 {
    match class {
        StorageClass::Standard | StorageClass::IntelligentTiering | StorageClass::Other => 0.0,
        StorageClass::StandardIa | StorageClass::OnezoneIa => 0.01,
        StorageClass::GlacierIr => 0.03,
        StorageClass::Glacier | StorageClass::DeepArchive => {
            ThawSpeed::Standard.terms(class).map_or(0.0, |terms| terms.per_gib)
        }
    }
}

/// What is still to be paid for bytes that have been in a class since `since` and go now, at a price per GiB and month:
/// each class is charged for a minimum term.
#[must_use]
pub fn minimum_term(
    (bytes, class): (u64, StorageClass),
    price: f64,
    (since, now): (OffsetDateTime, OffsetDateTime),
) -> f64 {
    let left = Duration::days(class.days_min().into()) - (now - since);
    monthly(bytes, price) * (left.as_seconds_f64() / 86_400.0).max(0.0) / MONTH_DAYS
}

/// What keeping so many bytes costs a month, at a price per GiB and month.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "money to a few digits")]
pub fn monthly(bytes: u64, price: f64) -> f64 {
    bytes as f64 / f64::from(1 << 30) * price
}

/// The prices: the public ones, and those of the configuration in their place.
#[must_use]
pub fn prices(own: &BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    let mut prices: BTreeMap<String, f64> =
        PRICES.into_iter().map(|(class, price)| (class.to_owned(), price)).collect();
    prices.extend(own.iter().map(|(class, price)| (class.clone(), *price)));
    prices
}

/// Most backups that a forecast imagines; a year of one every 15 minutes.
const IMAGINED_MAX: i64 = 36_000;

/// What the backups of a job are like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BackupProfile {
    /// Size of a full one, bytes.
    pub full_bytes: u64,
    /// Size of one that builds on another one, bytes.
    pub built_bytes: u64,
    /// How many of those follow each full one.
    pub built_per_full: usize,
}

/// How many bytes a policy will hold a year from `now`, if a backup of this shape is made every
/// `interval`; with everything that those build on which it keeps.
#[must_use]
pub fn in_a_year(
    policy: Option<&Policy>,
    interval: Duration,
    profile: BackupProfile,
    now: OffsetDateTime,
) -> u64 {
    let year = Duration::days(365);
    let step = interval.max(year / 36_000);
    let count = (year.whole_seconds() / step.whole_seconds().max(1)).min(IMAGINED_MAX);
    let mut backups: Vec<Backup> = Vec::new();
    for number in 0..count {
        let id = BackupId::new(now + step * i32::try_from(number).unwrap_or(i32::MAX));
        let place = backups.len() % profile.built_per_full.saturating_add(1);
        let before = backups.last().filter(|_before| place > 0 && profile.full_bytes > 0);
        let (parent, base) = (before.map(|b| b.id), before.map_or(id, |before| before.base));
        backups.push(Backup { parent, base, ..Backup::full(id) });
    }
    let bytes = |at: usize| match at % profile.built_per_full.saturating_add(1) {
        0 if profile.full_bytes > 0 => profile.full_bytes,
        _ => profile.built_bytes,
    };
    let Some(policy) = policy else { return total((0..backups.len()).map(bytes)) };
    let policy = Policy { frozen_after: None, removed_percent_max: 100, ..policy.clone() };
    let members = (0..backups.len()).collect();
    let groups = [Group { policy: &policy, members, frozen: None }];
    let reasons = decide(&groups, &backups, now + year);
    total(
        reasons
            .iter()
            .enumerate()
            .filter(|(_, reasons)| !reasons.is_empty())
            .map(|(at, _)| bytes(at)),
    )
}

/// A sum of sizes, which may be those that somebody made up.
fn total(bytes: impl Iterator<Item = u64>) -> u64 {
    bytes.fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::calendar::Period;
    use time::macros::datetime;

    #[test]
    fn a_forecast_follows_from_the_policy() {
        let now = datetime!(2026-01-01 00:00 UTC);
        let day = Duration::DAY;
        let policy = Policy { periods: vec![(Period::Day, 7)], ..Policy::empty() };
        let full = |full_bytes| BackupProfile { full_bytes, ..BackupProfile::default() };
        assert_eq!(in_a_year(Some(&policy), day, full(10), now), 70);
        assert_eq!(in_a_year(Some(&policy), Duration::hours(6), full(10), now), 70);
        assert_eq!(in_a_year(None, day, full(10), now), 3650);
        let within = Policy { within: Some(day * 90), ..Policy::empty() };
        assert_eq!(in_a_year(Some(&within), day, full(1), now), 90);
    }

    #[test]
    fn what_kept_backups_build_on_is_paid_for_too() {
        let now = datetime!(2026-01-01 00:00 UTC);
        let day = Duration::DAY;
        // A full one every ten days, and nine small ones on it: a year ends in a day after 36 of them.
        let profile = BackupProfile { full_bytes: 1000, built_bytes: 1, built_per_full: 9 };
        assert_eq!(in_a_year(None, day, profile, now), 37 * 1000 + (365 - 37));
        let policy = Policy { periods: vec![(Period::Day, 2)], ..Policy::empty() };
        // The last two days are the fourth and fifth after a full one: five backups.
        assert_eq!(in_a_year(Some(&policy), day, profile, now), 1000 + 4);
        let increments = BackupProfile { full_bytes: 0, built_bytes: 5, built_per_full: 30 };
        assert_eq!(
            in_a_year(Some(&policy), day, increments, now),
            10,
            "another job makes the full"
        );
    }

    #[test]
    fn what_goes_early_is_charged_for_its_minimum_term() {
        let begun = datetime!(2026-01-01 00:00 UTC);
        let due = |class, days| {
            minimum_term((3 << 30, class), 2.0, (begun, begun + Duration::DAY * days))
        };
        assert!((due(StorageClass::StandardIa, 0) - 6.0).abs() < 1e-9);
        assert!((due(StorageClass::DeepArchive, 150) - 6.0).abs() < 1e-9);
        for (class, days) in [(StorageClass::Standard, 0), (StorageClass::StandardIa, 31)] {
            assert!(due(class, days).abs() < 1e-9, "{class}");
        }
        assert!(retrieval(StorageClass::GlacierIr) > retrieval(StorageClass::StandardIa));
    }

    #[test]
    fn own_prices_take_the_place_of_public_ones() {
        let prices = prices(&BTreeMap::from([("STANDARD".to_owned(), 1.0), ("X".to_owned(), 2.0)]));
        assert!((monthly(3 << 30, prices["STANDARD"]) - 3.0).abs() < 1e-9);
        assert!((prices["X"] - 2.0).abs() < 1e-9 && prices.contains_key("DEEP_ARCHIVE"));
    }
}
