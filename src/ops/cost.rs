//! The cost of keeping backups at the configured prices, now and a year from now.

use crate::config::settings::jobs::JobKind;
use crate::domain::backup_kind::BackupKind;
use time::{Duration, OffsetDateTime};

use crate::catalog::Entry;
use crate::config::settings::jobs::JobSettings;
use crate::domain::cost::{self, BackupProfile, monthly};
use crate::domain::names::Scope;
use crate::domain::tier::StorageClass;
use crate::store::ReadStore;
use crate::wire::AppContext;

/// How many of the newest backups tell what the coming ones will be like.
const RECENT: usize = 30;
/// From how much of the past the growth of a log follows.
const LOG_SPAN: Duration = Duration::days(30);

/// The storage class of a store, and its price per GiB and month.
pub(crate) fn price(app: &AppContext, store: &dyn ReadStore) -> (String, f64) {
    let settings = app.settings.stores.get(store.name());
    let class = settings.and_then(|store| store.place.table.get("storage_class"));
    let class = match class.and_then(|class| class.as_str()) {
        Some(class) => class,
        None if store.url().starts_with("file:") => "LOCAL",
        None => "STANDARD",
    };
    let prices = cost::prices(&app.settings.status.prices);
    (class.to_owned(), prices.get(class).copied().unwrap_or(0.0))
}

/// What the backups of a source in a store cost, in the currency of the prices.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Costs {
    /// Storage of a month, each object in its own class.
    pub(crate) per_month: f64,
    /// What minimum storage terms would still cost if everything were removed now.
    pub(crate) minimum_terms: f64,
    /// What reading everything once would cost in fees, with a thaw at the standard speed where it takes one.
    pub(crate) retrieval: f64,
}

/// The costs of what is in a store of these backups.
pub(crate) fn of_entries(
    app: &AppContext,
    store: &dyn ReadStore,
    entries: &[&Entry],
    now: OffsetDateTime,
) -> Costs {
    let prices = cost::prices(&app.settings.status.prices);
    let (of_store, usual) = price(app, store);
    // A store that has no classes, and one that does not tell them.
    let is_usual = |class| {
        class == StorageClass::Other || (class == StorageClass::Standard && of_store == "LOCAL")
    };
    let price_of = |class: StorageClass| {
        let known = prices.get(class.name()).filter(|_| !is_usual(class));
        known.copied().unwrap_or(usual)
    };
    let mut costs = Costs::default();
    for entry in entries {
        let manifest = entry.manifest.unwrap_or_default();
        costs.per_month += monthly(manifest, price_of(StorageClass::Standard));
        for object in &entry.objects {
            let (bytes, class) = (object.bytes, object.class);
            let price = price_of(class);
            let moved = Duration::days(moved_after(app, store, class).into());
            let since = entry.name.id.created().checked_add(moved).unwrap_or(now);
            costs.per_month += monthly(bytes, price);
            costs.minimum_terms += cost::minimum_term((bytes, class), price, (since, now));
            costs.retrieval += monthly(bytes, cost::retrieval(class));
        }
    }
    costs
}

/// At which age data comes to a class, days: by the tiers of the store's table, or when it is written.
fn moved_after(app: &AppContext, store: &dyn ReadStore, class: StorageClass) -> u32 {
    let settings = app.settings.stores.get(store.name());
    let tiers = settings.and_then(|store| store.place.table.get("tiers")?.as_array());
    let tiers = tiers.into_iter().flatten();
    let after =
        tiers.filter(|tier| tier.get("class").and_then(|name| name.as_str()) == Some(class.name()));
    let days =
        after.filter_map(|tier| tier.get("after")?.as_str()?.strip_suffix('d')?.parse().ok());
    days.min().unwrap_or(0)
}

/// A sum of sizes. Whoever can write to a store chooses them.
pub(crate) fn total(bytes: impl Iterator<Item = u64>) -> u64 {
    bytes.fold(0, u64::saturating_add)
}

/// How many bytes the backups of a job will take a year from now, if the coming ones are like the recent
/// ones: as large, and as many increments for each full one.
pub(crate) fn forecast(job: &JobSettings, entries: &[&Entry], now: OffsetDateTime) -> u64 {
    if job.run == JobKind::Logs {
        return log(entries, job.keep_log, now);
    }
    let made = entries.iter().rev().filter(|entry| job.is_maker_of(&entry.name));
    let recent = made.take(RECENT);
    let (mut full, mut built) = (Vec::new(), Vec::new());
    for entry in recent {
        let sizes = if entry.name.scope == Scope::Full { &mut full } else { &mut built };
        sizes.push(entry.stored_bytes());
    }
    let mean = |sizes: &[u64]| total(sizes.iter().copied()).checked_div(sizes.len() as u64);
    let profile = BackupProfile {
        full_bytes: mean(&full).unwrap_or(0),
        built_bytes: mean(&built).unwrap_or(0),
        built_per_full: built.len().checked_div(full.len()).unwrap_or(built.len()),
    };
    cost::in_a_year(job.retention.as_ref(), job.when.interval(now), profile, now)
}

/// Segments of a log: those of today and a year more, or as much as `keep_log` keeps.
fn log(entries: &[&Entry], keep_log: Option<std::time::Duration>, now: OffsetDateTime) -> u64 {
    let segments = entries.iter().filter(|entry| entry.name.kind == BackupKind::Log);
    let recent = segments.clone().filter(|entry| now - entry.name.id.created() <= LOG_SPAN);
    let begun = segments.clone().map(|entry| entry.name.id.created()).min().unwrap_or(now);
    // A log that began an hour ago says little about a year; a day is the least that counts.
    let span = (now - begun).clamp(Duration::DAY, LOG_SPAN).whole_seconds().unsigned_abs();
    let recent = total(recent.map(|entry| entry.stored_bytes()));
    let year = Duration::days(365).whole_seconds().unsigned_abs();
    let kept = keep_log.map_or(year, |kept| kept.as_secs().min(year));
    let coming = u128::from(recent) * u128::from(kept) / u128::from(span.max(1));
    let present = segments.filter(|_entry| kept == year);
    let present = total(present.map(|entry| entry.stored_bytes()));
    present.saturating_add(u64::try_from(coming).unwrap_or(u64::MAX))
}
