//! Builds new manifests: besides the capture they describe the run, the source, and what the current
//! policy promises.

use crate::config::settings::jobs::JobKind;
use crate::domain::backup_kind::BackupKind;
use serde_json::{Map, Value};
use time::OffsetDateTime;

use crate::ctx::{host, user};
use crate::domain::calendar::Period;
use crate::domain::id::BackupId;
use crate::domain::manifest::{Identity, Manifest, ObjectRecord, Retention, SCHEMA, Sizes};
use crate::domain::names::BackupName;
use crate::domain::recipient::Recipient;
use crate::domain::retention::Policy;
use crate::stage::ChainStats;
use crate::wire::AppContext;

/// What a run has made.
pub(crate) struct ManifestContent {
    /// Base and parent of an increment.
    pub(crate) links: Option<(BackupId, BackupId)>,
    /// What the source is.
    pub(crate) identity: Identity,
    /// What the source says of the capture.
    pub(crate) capture: Value,
    /// Totals over all objects.
    pub(crate) sizes: Sizes,
    /// The objects that the manifest names, the one with the data first.
    pub(crate) objects: Vec<ObjectRecord>,
    /// What each stage did.
    pub(crate) stats: ChainStats,
    /// Who can open it.
    pub(crate) keys: Vec<Recipient>,
}

/// The manifest of a backup whose objects are all confirmed. It lacks what only the run that publishes
/// it knows: the ledger, the copies, the MAC.
pub(crate) fn new(app: &AppContext, name: &BackupName, content: ManifestContent) -> Manifest {
    let ManifestContent { links, identity, capture, sizes, objects, stats, keys } = content;
    let (id, ended) = (name.id, app.ctx.now());
    let started_by = &app.settings.started_by;
    let source = app.settings.sources.get(&name.source);
    Manifest {
        schema: SCHEMA.to_owned(),
        id,
        backup_type: name.backup_type,
        source: name.source.clone(),
        scope: name.scope,
        kind: name.kind.clone(),
        parent: links.map(|(_, parent)| parent),
        base: links.map_or(id, |(base, _)| base),
        identity,
        tenant: source.and_then(|source| source.tenant.clone()),
        job: started_by.job.clone(),
        trigger: started_by.trigger,
        user: user(),
        host: host(),
        tool: format!("bkp {}", env!("CARGO_PKG_VERSION")),
        started: id.created(),
        ended,
        status: "completed".to_owned(),
        capture,
        sizes,
        timings: timings(&stats, id.created(), ended),
        objects,
        keys,
        retention: promise(app, name),
        ledger: None,
        copies: Vec::new(),
        resealed: None,
        signer: None,
        signature: None,
        mac: String::new(),
    }
}

/// What the policies of today promise of a backup of this name: the longest of the jobs that it could
/// be of, whether or not one of them made it.
pub(crate) fn promise(app: &AppContext, name: &BackupName) -> Retention {
    let is_log = name.kind == BackupKind::Log;
    let jobs = app.settings.jobs.values().filter(|job| {
        job.source.as_ref() == Some(&name.source)
            && job.scope.is_none_or(|scope| scope == name.scope)
            && if is_log {
                job.run == JobKind::Logs
            } else {
                job.run.makes().is_some_and(|made| name.kind == made)
            }
    });
    let mut promised = Retention::default();
    let mut longest = None;
    for job in jobs {
        let keeps = if is_log {
            job.keep_log.and_then(|keeps| time::Duration::try_from(keeps).ok())
        } else {
            job.retention.as_ref().and_then(|policy| policy.within)
        };
        if promised.policy.is_none() || keeps > longest {
            let of_log = || job.keep_log.map(|keeps| format!("keep_log = {}", spelled(keeps)));
            promised.policy = if is_log { of_log() } else { job.retention.as_ref().map(rules) };
            longest = keeps;
        }
    }
    promised.until = longest.and_then(|keeps| at_second(name.id.created()).checked_add(keeps));
    promised
}

/// Until when stores lock a backup of a kind that is promised until `promised`. Segments of a log are locked for a day
/// more, so that it is enough to extend the locks below them once a day.
pub(crate) fn locked_until(kind: &str, promised: Option<OffsetDateTime>) -> Option<OffsetDateTime> {
    let ahead =
        if kind == BackupKind::Log.as_str() { time::Duration::DAY } else { time::Duration::ZERO };
    promised?.checked_add(ahead)
}

/// A policy as a `retention` table spells it.
fn rules(policy: &Policy) -> String {
    let count = |name: &str, count: u32| (count > 0).then(|| format!("keep_{name} = {count}"));
    let within = policy.within.and_then(|within| std::time::Duration::try_from(within).ok());
    let within = within.map(|within| format!("keep_within = {}", spelled(within)));
    let last = if policy.last == u32::MAX {
        Some("keep_all = true".to_owned())
    } else {
        count("last", policy.last)
    };
    let periods = policy.periods.iter().filter_map(|(period, wanted)| {
        let name = match period {
            Period::Hour => "hourly",
            Period::Day => "daily",
            Period::Week => "weekly",
            Period::Month => "monthly",
            Period::Year => "yearly",
        };
        count(name, *wanted)
    });
    let rules = within.into_iter().chain(last).chain(periods);
    rules.chain([format!("min_keep = {}", policy.min_keep)]).collect::<Vec<_>>().join(", ")
}

fn spelled(length: std::time::Duration) -> String {
    format!("{:?}", crate::table::units::spelled(length))
}

/// Whole seconds: what is told to people and to the ledger.
fn at_second(time: OffsetDateTime) -> OffsetDateTime {
    time.replace_nanosecond(0).unwrap_or(time)
}

/// Seconds that each stage was busy, and the whole run took.
fn timings(
    stats: &ChainStats,
    started: OffsetDateTime,
    ended: OffsetDateTime,
) -> Map<String, Value> {
    let stages = stats.0.iter().filter(|measure| !measure.busy.is_zero());
    let mut timings: Map<String, Value> = stages
        .map(|measure| (measure.stage.to_owned(), seconds(measure.busy.as_secs_f64())))
        .collect();
    timings.insert("total".to_owned(), seconds((ended - started).as_seconds_f64()));
    timings
}

/// Seconds to the millisecond.
fn seconds(seconds: f64) -> Value {
    ((seconds * 1000.0).round() / 1000.0).into()
}
