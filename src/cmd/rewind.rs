//! `bkp restore --at` and `--op`: brings a source back to a moment, from the newest snapshot before it
//! and the log since.

use humansize::{BINARY, format_size};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;

use super::Report;
use super::restore::{self, check_target, known_addresses};
use super::segments::{History, find, is_segment};
use crate::catalog::{Catalog, Found};
use crate::domain::id::BackupId;
use crate::domain::manifest::hex;
use crate::domain::segment::{Base, Link, Mode, Target, Window, needed, spelled};
use crate::error::{Fault, Kind};
use crate::pipeline::BackupReader;
use crate::source::logs::{self, RewindRequest, Rewound};
use crate::source::{self, DrillTools, RestoreRequest};
use crate::store::ReadStore;
use crate::wire::House;

/// The moment that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// A time.
    At(OffsetDateTime),
    /// An operation of the log.
    Op(u64),
}

/// What was asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// The source.
    pub source: String,
    /// The moment.
    pub moment: Moment,
    /// Everything else, as for a snapshot.
    pub restore: restore::Options,
}

/// What is going to be done; the stable shape `bkp.restore-at-plan/1`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Plan {
    store: String,
    source: String,
    mode: Mode,
    /// The snapshot to begin with; null in query mode.
    base: Option<BackupId>,
    /// Segments to apply.
    segments: usize,
    stored_bytes: u64,
    target: std::path::PathBuf,
    target_exists: bool,
}

/// The stable shape `bkp.restore-at/1`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Done {
    store: String,
    source: String,
    mode: Mode,
    /// The snapshot that it began with; null in query mode.
    base: Option<BackupId>,
    segments: usize,
    seconds: f64,
    /// When the last operation was, RFC 3339, by the cluster's clock.
    time: Option<String>,
    #[serde(flatten)]
    rewound: Rewound,
}

/// Brings a source back to a moment at a new place. A source without a log is brought back to its
/// newest snapshot that began by then.
///
/// # Errors
/// [`Kind::Refused`] if the moment lies outside of what restores, with that in the message;
/// [`Kind::Integrity`] if a segment on the way is missing, damaged or out of order. Then the target is
/// as it was.
pub fn run(house: &House, options: &Options) -> anyhow::Result<Report> {
    let began = house.ctx.now();
    let store = house.store_read(house.settings.sources.get(&options.source))?;
    let found = find(store.as_ref(), &options.source)?;
    if !found.iter().any(is_segment) {
        return match options.moment {
            Moment::At(_) => restore::run(house, &options.restore),
            Moment::Op(op) => Err(no_log(store.as_ref(), &options.source, op).into()),
        };
    }
    let keys = house.keys_to_read()?;
    let history = History::read(store.as_ref(), &found)?;
    let way = way(&history, options)?;
    let catalog = Catalog::new(store.as_ref(), &keys, &house.ctx);
    let base = match way.base {
        Some(base) => catalog.chain(&named(&found, base.id)?.name)?,
        None => Vec::new(),
    };
    let segments = authentic(&catalog, &found, &way.segments)?;
    let backup_type = named(&found, way.first()?)?.name.backup_type;
    let readers = || base.iter().chain(&segments);
    let restore = &options.restore;
    let plan = Plan {
        store: store.url().to_owned(),
        source: options.source.clone(),
        mode: way.mode,
        base: way.base.map(|base| base.id),
        segments: segments.len(),
        stored_bytes: readers().map(|reader| reader.manifest().sizes.stored_bytes).sum(),
        target_exists: check_target(store.as_ref(), &restore.to)?,
        target: restore.to.clone(),
    };
    let request = RestoreRequest {
        target: restore.to.clone(),
        replica: restore.replica,
        table: None,
        addresses: known_addresses(house, restore, &options.source),
        force: restore.force,
    };
    guard(house, &plan, &base, &request, backup_type)?;
    let summary = summarise(&plan, options.moment);
    if restore.dry_run {
        return Report::done("bkp.restore-at-plan/1", &plan, format!("would {summary}\n"));
    }
    if !restore.yes {
        (house.confirm)(&summary)?;
    }
    readers().try_for_each(BackupReader::check_objects)?;
    let tools = DrillTools { tigerbeetle: house.settings.tigerbeetle.clone() };
    let rewind = RewindRequest {
        base: &base,
        segments: &segments,
        target: way.target,
        restore: &request,
        tools: &tools,
    };
    house.ctx.monitor.begin(&format!("restore {}", plan.source), Some(plan.stored_bytes));
    let rewound = (logs::kind_of(backup_type)?.rewind)(&rewind, &house.ctx)?;
    house.ctx.monitor.end();
    let seconds = (house.ctx.now() - began).as_seconds_f64();
    report(plan, rewound, seconds)
}

/// How a moment is reached.
struct Way<'a> {
    mode: Mode,
    target: Target,
    base: Option<&'a Base>,
    segments: Vec<&'a Link>,
}

impl Way<'_> {
    /// Any backup on the way.
    fn first(&self) -> anyhow::Result<BackupId> {
        let first = self.segments.first().map(|link| link.id).or(self.base.map(|base| base.id));
        Ok(first.ok_or_else(|| Fault::new(Kind::Failed, "nothing leads to this moment"))?)
    }
}

/// Chooses the log, the snapshot and the segments.
fn way<'a>(history: &'a History, options: &Options) -> anyhow::Result<Way<'a>> {
    let target = match options.moment {
        Moment::Op(op) => Target::Op(op),
        Moment::At(time) => {
            let nanoseconds = time.unix_timestamp_nanos();
            // Before 1970 nothing was, and what is too far ahead lies outside of every window.
            Target::Time(u64::try_from(nanoseconds.max(0)).unwrap_or(u64::MAX))
        }
    };
    let windows = history.windows();
    // After a cluster was restored to an earlier state numbers of operations come twice, and the last
    // ones are meant; but at a time within the first log the cluster was as that log says.
    let of = |mode: Mode| {
        let mut admit =
            windows.iter().filter(|(window, _)| window.mode == mode && window.admits(target));
        match target {
            Target::Time(_) => admit.next(),
            Target::Op(_) => admit.next_back(),
        }
    };
    // Byte for byte is better than balances.
    let chosen = of(Mode::Wal).or_else(|| of(Mode::Query));
    let Some((window, run)) = chosen else {
        return Err(outside(history, &windows, target, &options.source).into());
    };
    let within = |base: &&Base| base.is_of(run) && !target.is_before(base.op, base.timestamp);
    let base = match window.mode {
        Mode::Wal => history.bases.iter().filter(within).max_by_key(|base| base.op),
        Mode::Query => None,
    };
    let segments = needed(run, base.map(|base| base.op), target);
    Ok(Way { mode: window.mode, target, base, segments })
}

/// Why no window admits the moment.
fn outside(
    history: &History,
    windows: &[(Window, &[Link])],
    target: Target,
    source: &str,
) -> Fault {
    let wanted = match target {
        Target::Op(op) => format!("op {op}"),
        Target::Time(at) => spelled(at).unwrap_or_else(|| at.to_string()),
    };
    let damage = history.breaks().into_iter().find(|(.., is_damage)| *is_damage);
    if let Some((_, id, why, _)) = damage {
        let message = format!(
            "{wanted} cannot be reached, since the log of `{source}` is damaged at segment {id}: {why}; it restores {}",
            listed(windows)
        );
        return Fault::new(Kind::Integrity, message).hint(format!(
            "look at it with `bkp verify {source} --logs`, and choose a moment that restores"
        ));
    }
    let message =
        format!("{wanted} lies outside of what restores of `{source}`: {}", listed(windows));
    Fault::new(Kind::Refused, message).hint(format!(
        "choose a moment within, see `bkp list {source} --windows`; or a snapshot as it is, with --id"
    ))
}

/// Windows in words.
fn listed(windows: &[(Window, &[Link])]) -> String {
    if windows.is_empty() {
        return "nothing, since no snapshot is continued by its log".into();
    }
    let words = windows.iter().map(|(window, _)| {
        let time = |at: u64| spelled(at).unwrap_or_else(|| at.to_string());
        let ops = window.ops.map(|(first, last)| format!(" (ops {first} to {last})"));
        format!("{} to {}{}", time(window.from), time(window.until), ops.unwrap_or_default())
    });
    words.collect::<Vec<_>>().join(", ")
}

fn no_log(store: &dyn ReadStore, source: &str, op: u64) -> Fault {
    let message = format!("{}: op {op} cannot be reached without a log of `{source}`", store.url());
    Fault::new(Kind::Refused, message)
        .hint("ship one with `bkp logs SOURCE`; or restore a snapshot")
}

fn named(found: &[Found], id: BackupId) -> anyhow::Result<&Found> {
    let named = found.iter().find(|found| found.name.id == id);
    Ok(named.ok_or_else(|| Fault::new(Kind::NotFound, format!("backup {id} has gone")))?)
}

/// Opens segments, and makes sure that they are those that the plan was made from.
fn authentic<'c>(
    catalog: &Catalog<'c>,
    found: &[Found],
    links: &[&Link],
) -> anyhow::Result<Vec<BackupReader<'c>>> {
    let open = |link: &&Link| {
        let (reader, sha256) = catalog.open(&named(found, link.id)?.name)?;
        if hex(&sha256) != link.sha256 {
            let message = format!("the manifest of segment {} changes while it is read", link.id);
            return Err(Fault::new(Kind::Integrity, message).into());
        }
        Ok(reader)
    };
    links.iter().map(open).collect()
}

/// Refuses what would do harm.
fn guard(
    house: &House,
    plan: &Plan,
    base: &[BackupReader<'_>],
    request: &RestoreRequest,
    backup_type: crate::domain::names::BackupType,
) -> anyhow::Result<()> {
    if let Some(newest) = base.last() {
        let record: &Value = &newest.manifest().capture;
        for warning in (source::kind_of(backup_type)?.guard)(record, request)? {
            house.ctx.monitor.warn(&warning);
        }
    } else if request.replica.is_some() {
        let message = "a log of mode query restores to a new cluster of one replica";
        return Err(Fault::new(Kind::Refused, message).hint("leave out --replica").into());
    }
    if plan.target_exists && !request.force {
        let message = format!("{} exists already", plan.target.display());
        return Err(Fault::new(Kind::Refused, message)
            .hint("choose another --to; or add --force, which keeps it under another name")
            .into());
    }
    Ok(())
}

fn summarise(plan: &Plan, moment: Moment) -> String {
    let moment = match moment {
        Moment::Op(op) => format!("op {op}"),
        Moment::At(time) => time.to_string(),
    };
    let base = plan.base.map(|base| format!("snapshot {base} and ")).unwrap_or_default();
    format!(
        "restore {} as of {moment}, from {base}{} segment(s) of its log ({} stored), to {}",
        plan.source,
        plan.segments,
        format_size(plan.stored_bytes, BINARY),
        plan.target.display(),
    )
}

fn report(plan: Plan, rewound: Rewound, seconds: f64) -> anyhow::Result<Report> {
    let time = spelled(rewound.timestamp);
    let op = rewound.op.map(|op| format!("op {op}, ")).unwrap_or_default();
    let aside = rewound.restored.moved_aside.as_ref();
    let aside = aside.map(|path| format!("what was there is now {}\n", path.display()));
    let differs =
        rewound.differences.iter().fold(String::new(), |text, one| text + "differs: " + one + "\n");
    let notes = rewound.notes.iter().fold(String::new(), |text, one| text + "note: " + one + "\n");
    let text = format!(
        "restored {} as of {op}{} to {}: {} in {seconds:.1} s\n{}{differs}{notes}next: {}\n",
        plan.source,
        time.as_deref().unwrap_or_default(),
        rewound.restored.target.display(),
        format_size(rewound.restored.bytes, BINARY),
        aside.unwrap_or_default(),
        rewound.restored.next,
    );
    let Plan { store, source, mode, base, segments, .. } = plan;
    let done = Done { store, source, mode, base, segments, seconds, time, rewound };
    Report::done("bkp.restore-at/1", &done, text)
}
