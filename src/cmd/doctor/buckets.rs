//! What each bucket does by itself, compared with what the configuration promises of the backups in it.

use time::{Duration, OffsetDateTime};

use super::check::{CheckResult, bad, good, tried};
use crate::config::settings::jobs::{JobKind, JobSettings};
use crate::domain::calendar::Period;
use crate::domain::protection::{Aspect, Promise};
use crate::domain::retention::Policy;
use crate::error::Kind;
use crate::wire::AppContext;

/// Every store of the configuration whose service has such things.
pub(super) fn buckets(app: &AppContext) -> Vec<CheckResult> {
    app.settings.stores.keys().flat_map(|name| bucket(app, name)).collect()
}

fn bucket(app: &AppContext, name: &str) -> Vec<CheckResult> {
    let looked = app.store_append(name).and_then(|store| Ok(store.protection()?));
    match looked {
        Ok(None) => Vec::new(),
        Ok(Some(protection)) => {
            let aspects = protection.aspects(&promises(app, name));
            aspects.into_iter().flat_map(|aspect| lines(name, aspect)).collect()
        }
        Err(error) => vec![tried(format!("bucket of {name}"), Err(error))],
    }
}

/// A line for each contradiction, or one that says how it is.
fn lines(store: &str, aspect: Aspect) -> Vec<CheckResult> {
    let what = format!("{} of {store}", aspect.name);
    if aspect.conflicts.is_empty() {
        return vec![(Kind::Config, good(what, aspect.found))];
    }
    let lines = aspect.conflicts.into_iter();
    lines.map(|(problem, hint)| (Kind::Config, bad(what.clone(), problem, hint))).collect()
}

/// What the jobs whose backups are in a store promise of them.
fn promises(app: &AppContext, store: &str) -> Vec<Promise> {
    let now = app.ctx.now();
    let jobs = app.settings.jobs.values();
    let jobs = jobs.filter(|job| job.run.makes().is_some() || job.run == JobKind::Logs);
    jobs.filter(|job| has_backups_in(app, job, store))
        .map(|job| promise(app, job, store, now))
        .collect()
}

/// Whether backups of a job are in a store: because it makes them there, or because another one copies them.
fn has_backups_in(app: &AppContext, job: &JobSettings, store: &str) -> bool {
    let source = job.source.as_ref().and_then(|name| app.settings.sources.get(name));
    let of_source = source.map(|source| source.store.as_slice()).unwrap_or_default();
    let is_made_there = match of_source {
        [] => app.settings.stores.len() == 1,
        named => named.iter().any(|name| name == store),
    };
    is_made_there
        || app.settings.jobs.values().any(|copy| {
            copy.copies.as_ref().is_some_and(|copies| copies.to == store)
                && (copy.source.is_none() || copy.source == job.source)
        })
}

fn promise(app: &AppContext, job: &JobSettings, store: &str, now: OffsetDateTime) -> Promise {
    let length = |of: std::time::Duration| Duration::try_from(of).unwrap_or(Duration::MAX);
    let source = job.source.as_ref().and_then(|name| app.settings.sources.get(name));
    let (kept, within) = if job.run == JobKind::Logs {
        let kept = job.keep_log.map(length);
        (kept, kept)
    } else {
        let policy = app.retention(store, job);
        let within = policy.as_ref().and_then(|policy| policy.within);
        (policy.and_then(|policy| longest(&policy, job.when.interval(now))), within)
    };
    Promise {
        job: job.name.clone(),
        kept,
        within,
        rpo: job.run.makes().map(|_kind| job.ages(now).critical),
        rto: source.and_then(|source| source.rto).map(length),
    }
}

/// The age that no backup exceeds which a policy keeps by a rule; `None` if there is no end.
fn longest(policy: &Policy, interval: Duration) -> Option<Duration> {
    if policy.last == u32::MAX {
        return None;
    }
    let times = |length: Duration, count: u32| {
        i32::try_from(count).map_or(Duration::MAX, |count| length.saturating_mul(count))
    };
    let periods = policy.periods.iter().map(|(period, count)| {
        let days = match period {
            Period::Hour => return times(Duration::HOUR, *count),
            Period::Day => 1,
            Period::Week => 7,
            Period::Month => 31,
            Period::Year => 366,
        };
        times(Duration::days(days), *count)
    });
    let least = times(interval, policy.last.max(policy.min_keep));
    Some(periods.chain(policy.within).fold(least, Duration::max))
}
