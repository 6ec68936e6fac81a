//! `bkp restore --at` and `--op`: restores a source to a moment, from the newest snapshot before it and
//! the log since.

use humansize::{BINARY, format_size};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::catalog::{Catalog, FoundBackup};
use crate::cmd::restore;
use crate::cmd::restore::{check_target, known_addresses};
use crate::ctx::Ctx;
use crate::domain::event::Status;
use crate::domain::id::BackupId;
use crate::domain::segment::Target;
use crate::domain::timestamp::spelled;
use crate::error::{Fault, Kind, diagnose};
use crate::ops::log_history::{History, find, is_segment};
use crate::ops::log_mode::LogModeName;
use crate::ops::pitr_plan::{self, Moment, OpenedPlan, PitrRequest, Unproven};
use crate::ops::report::Report;
use crate::ops::selection::SkippedBackups;
use crate::ops::thaw::ThawPlan;
use crate::ops::{audit, other_stores, thaw};
use crate::pipeline::BackupReader;
pub use crate::source::logs::LogEvent;
use crate::source::logs::{LogKind, RestoreAtRequest, RestoredAt};
use crate::source::{ResourceLimits, RestoreRequest, kinds};
use crate::store::ReadStore;
use crate::wire::AppContext;

pub(crate) mod drill;
mod planted;

use self::planted::{may_be_planted, proven_backups};

/// What was asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// The source.
    pub source: String,
    /// The moment.
    pub moment: Moment,
    /// What to end at instead, that only the log knows the place of.
    pub event: Option<LogEvent>,
    /// Whether the result ends right before it.
    pub exclusive: bool,
    /// How the id of the snapshot to begin with begins; else it is the newest one before the moment.
    pub base: Option<String>,
    /// Everything else, as for a snapshot.
    pub restore: restore::Options,
}

impl Options {
    fn request(&self) -> PitrRequest<'_> {
        PitrRequest { source: &self.source, moment: self.moment, base: self.base.as_deref() }
    }
}

/// What is going to be done; the stable shape `bkp.restore-at-plan/1`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Plan {
    store: String,
    source: String,
    #[schemars(with = "LogModeName")]
    mode: String,
    /// The snapshot to begin with; null in query mode.
    base: Option<BackupId>,
    /// Segments to apply.
    segments: usize,
    stored_bytes: u64,
    target: std::path::PathBuf,
    target_exists: bool,
    /// What has to be restored from the archive first.
    #[serde(skip_serializing_if = "Option::is_none")]
    thaw: Option<ThawPlan>,
}

/// The stable shape `bkp.restore-at/1`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RestoreAtReport {
    store: String,
    source: String,
    #[schemars(with = "LogModeName")]
    mode: String,
    /// The snapshot that it began with; null in query mode.
    base: Option<BackupId>,
    segments: usize,
    seconds: f64,
    /// When the last operation was, RFC 3339, by the cluster's clock.
    time: Option<String>,
    #[serde(flatten)]
    restored_at: RestoredAt,
}

/// Brings a source back to a moment at a new place. A source without a log is brought back to its
/// newest snapshot that began by then.
///
/// # Errors
/// [`Kind::Refused`] if the moment lies outside of what restores, with that in the message;
/// [`Kind::Integrity`] if a segment on the way is missing, damaged or out of order. Then the target is
/// as it was.
pub fn run(app: &AppContext, options: &Options) -> anyhow::Result<Report> {
    let source = Some(options.source.as_str());
    let recorded = |app: &AppContext| {
        let mut is_plain = false;
        let report = restore_at(app, options, &mut is_plain);
        // A plain restore is on record.
        if !options.restore.dry_run && !is_plain && !thaw::is_waiting(&report) {
            audit::record_outcome(app, ("restored", Status::Restored), source, &report);
        }
        report
    };
    recorded(app).or_else(|error| {
        // The end of the log is another one in another store, and a snapshot is no moment.
        if matches!(options.moment, Moment::Latest) {
            return Err(other_stores::suggest(app, source, error));
        }
        other_stores::read_copy(app, source, error, |app| {
            let found = find(&*app.store_read(None)?, &options.source, &app.ctx)?;
            let unlogged = || Fault::new(Kind::NotFound, "no log of this source");
            found.iter().find(|entry| is_segment(entry)).ok_or_else(unlogged)?;
            recorded(app)
        })
    })
}

/// Notes in `is_plain` whether it was a plain restore, since there is no log.
fn restore_at(app: &AppContext, options: &Options, is_plain: &mut bool) -> anyhow::Result<Report> {
    let began = app.ctx.now();
    let store = app.store_read(app.settings.sources.get(&options.source))?;
    let found = find(store.as_ref(), &options.source, &app.ctx)?;
    if !found.iter().any(is_segment) {
        let is_time = !matches!(options.moment, Moment::Op(_)) && options.event.is_none();
        let is_snapshot = is_time && !options.exclusive && options.base.is_none();
        *is_plain = is_snapshot;
        return if is_snapshot {
            restore::run(app, &options.restore)
        } else {
            Err(no_log(store.as_ref(), options).into())
        };
    }
    let keys = app.keys_to_read()?;
    let catalog = Catalog::new(store.as_ref(), &keys, &app.ctx);
    let options = &with_event(&catalog, &found, options, &app.ctx)?;
    let (mode, target, opened) = plan_route(&catalog, found, options, &app.ctx)?;
    let OpenedPlan { base, segments, backup_type } = opened;
    let readers = || base.iter().chain(&segments);
    let kind = kinds::kind_of(backup_type)?;
    let restore = &options.restore;
    let cold = thaw::find(app, store.as_ref(), readers())?;
    let plan = Plan {
        store: store.url().to_owned(),
        source: options.source.clone(),
        mode,
        base: base.last().map(|newest| newest.manifest().id),
        segments: segments.len(),
        stored_bytes: restore::stored_bytes(readers()),
        target_exists: check_target(
            store.as_ref(),
            &restore.to,
            kind.target,
            kind.backup_type.as_str(),
        )?,
        target: restore.to.clone(),
        thaw: cold.plan_if_any(app, restore.thaw)?,
    };
    let request = request(app, restore, &options.source);
    guard(app, &plan, &base, &request, backup_type)?;
    let summary = summarise(&plan, options.moment);
    if restore.dry_run {
        return Report::done("bkp.restore-at-plan/1", &plan, format!("would {summary}\n"));
    }
    if !restore.yes {
        (app.confirm)(&summary)?;
    }
    let cold = (options.source.as_str(), &cold);
    if let Some(waiting) = thaw::bring_back(app, store.as_ref(), cold, restore.thaw)? {
        return Ok(waiting);
    }
    readers().try_for_each(|link| link.check_data(&app.ctx))?;
    let log = kinds::log_kind_of(backup_type)?;
    let tools = app.drill_tools(ResourceLimits::default());
    let wanted = RestoreAtRequest {
        base: &base,
        segments: &segments,
        files: &catalog.log_files(backup_type, &options.source),
        target,
        exclusive: options.exclusive,
        restore: &request,
        tools: &tools,
        alone: false,
    };
    app.ctx.monitor.begin(&format!("restore {}", plan.source), Some(plan.stored_bytes));
    let restored =
        (log.restore_at)(&wanted, &app.ctx).map_err(|error| hint_other_base(error, plan.base))?;
    app.ctx.monitor.end();
    let seconds = (app.ctx.now() - began).as_seconds_f64();
    report(log, plan, restored, seconds)
}

/// What a snapshot alone would be restored by.
fn request(app: &AppContext, restore: &restore::Options, source: &str) -> RestoreRequest {
    RestoreRequest {
        replica: restore.replica,
        tablespaces: restore.tablespaces.clone(),
        addresses: known_addresses(app, restore, source),
        force: restore.force,
        ..RestoreRequest::to(restore.to.clone())
    }
}

/// The same with the position of the event in place of the event, if there is one.
pub(super) fn with_event(
    catalog: &Catalog<'_>,
    found: &[FoundBackup],
    options: &Options,
    ctx: &Ctx,
) -> anyhow::Result<Options> {
    let segments = || found.iter().rev().filter(|found| is_segment(found));
    let kind = segments().next().map(|newest| kinds::log_kind_of(newest.name.backup_type));
    let find_event = kind.transpose()?.and_then(|kind| kind.find_event);
    let Some(find_event) = find_event else {
        if options.event.is_none() && !options.exclusive {
            return Ok(options.clone());
        }
        let message =
            format!("the log of `{}` has no transactions and names to end at", options.source);
        return Err(Fault::new(Kind::Usage, message).hint("choose a time with --at").into());
    };
    let Some(event) = &options.event else { return Ok(options.clone()) };
    for segment in segments() {
        ctx.cancel.check()?;
        let opened = catalog.open(&segment.name);
        // What somebody planted is passed over; what is missing from the way, the plan tells.
        let Ok((reader, _)) = opened else { continue };
        let files = catalog.log_files(segment.name.backup_type, &options.source);
        if let Some(position) = find_event(&reader, &files, event, ctx)? {
            let moment = Moment::Op(position);
            return Ok(Options { moment, event: None, ..options.clone() });
        }
    }
    let message = format!("{event} is not in the log of `{}`", options.source);
    let hint = "ship what the server has archived since with `bkp logs SOURCE`, or choose a time with --at";
    Err(Fault::new(Kind::NotFound, message).hint(hint).into())
}

/// How many segments that are not proven are passed over one by one.
const LOOKS_MAX: u32 = 4;

/// Finds the way to the moment, and opens what it leads over. What somebody plants must neither end a
/// window nor begin one: what turns out not to be proven is passed over. Only where no way is found at
/// all every backup of the source is opened to see whether it is.
pub(super) fn plan_route<'c>(
    catalog: &Catalog<'c>,
    mut found: Vec<FoundBackup>,
    options: &Options,
    ctx: &Ctx,
) -> anyhow::Result<(String, Target, OpenedPlan<'c>)> {
    let (mut passed, mut all_proven, mut looks) = (SkippedBackups::default(), false, 0);
    loop {
        looks += 1;
        let history = History::read(catalog.store(), &found, ctx)?;
        let led = pitr_plan::find(&history, &options.request()).and_then(|way| {
            let opened = way.open(catalog, &found, ctx)?;
            Ok((way.mode, way.target, opened))
        });
        let error = match led {
            Ok(led) => {
                passed.say("skipping", &*ctx.monitor);
                return Ok(led);
            }
            Err(error) => error,
        };
        let before = found.len();
        // Each look reads every manifest: after a few all that is not proven goes at once.
        let unproven = error.downcast_ref::<Unproven>().copied().filter(|_| looks < LOOKS_MAX);
        if let Some(Unproven(id)) = unproven {
            let of_it = |found: &mut FoundBackup| found.name.id == id && is_segment(found);
            let names = found.extract_if(.., of_it);
            names.for_each(|found| passed.add(&found.name, anyhow::anyhow!("{error:#}")));
        } else if !all_proven && may_be_planted(&error) {
            all_proven = true;
            found = proven_backups(catalog, found, &mut passed, ctx)?;
        }
        if found.len() == before {
            passed.say("skipping", &*ctx.monitor);
            return Err(error);
        }
    }
}

fn no_log(store: &dyn ReadStore, options: &Options) -> Fault {
    let (url, Options { source, moment, .. }) = (store.url(), options);
    let message = format!("{url}: {moment} cannot be restored without a log of `{source}`");
    Fault::new(Kind::Refused, message).hint("ship one with `bkp logs`, or restore a snapshot")
}

/// Refuses what would do harm.
fn guard(
    app: &AppContext,
    plan: &Plan,
    base: &[BackupReader<'_>],
    request: &RestoreRequest,
    backup_type: crate::domain::names::BackupType,
) -> anyhow::Result<()> {
    if let Some(newest) = base.last() {
        let record: &Value = &newest.manifest().capture;
        for warning in (kinds::kind_of(backup_type)?.guard)(record, request)? {
            app.ctx.monitor.warn(&warning);
        }
    } else if request.replica.is_some() {
        let message = "a log of mode query restores to a new cluster of one replica";
        return Err(Fault::new(Kind::Refused, message).hint("omit --replica").into());
    }
    if plan.target_exists && !request.force {
        let message = format!("{} already exists", plan.target.display());
        return Err(Fault::new(Kind::Refused, message)
            .hint("choose another --to; or pass --force, which renames the file first")
            .into());
    }
    Ok(())
}

/// Damage that shows only when a snapshot is read has a way around it.
pub(super) fn hint_other_base(error: anyhow::Error, base: Option<BackupId>) -> anyhow::Error {
    let damaged = base.filter(|_| diagnose(&error).kind == Kind::Integrity);
    let Some(base) = damaged else { return error };
    let message = format!("from snapshot {base}: {error:#}");
    Fault::new(Kind::Integrity, message)
        .hint("an older snapshot and more of the log lead to the same moment: choose one with --base ID; `bkp verify` shows what is damaged")
        .into()
}

fn summarise(plan: &Plan, moment: Moment) -> String {
    let base = plan.base.map(|base| format!("snapshot {base} and ")).unwrap_or_default();
    let first = plan.thaw.as_ref().map(|thaw| format!("; {}", thaw::summary(thaw)));
    let first = first.unwrap_or_default();
    format!(
        "restore {} as of {moment}, from {base}{} segment(s) of its log ({} stored), to {}{first}",
        plan.source,
        plan.segments,
        format_size(plan.stored_bytes, BINARY),
        plan.target.display(),
    )
}

fn report(
    log: &LogKind,
    plan: Plan,
    restored_at: RestoredAt,
    seconds: f64,
) -> anyhow::Result<Report> {
    let time = spelled(restored_at.timestamp);
    let position = restored_at.position.map(|at| log.position(at) + ", ").unwrap_or_default();
    let aside = restored_at.restored.moved_aside.as_ref();
    let aside = aside.map(|path| format!("the previous file is now {}\n", path.display()));
    let differs = restored_at
        .differences
        .iter()
        .fold(String::new(), |text, one| text + "differs: " + one + "\n");
    let notes =
        restored_at.notes.iter().fold(String::new(), |text, one| text + "note: " + one + "\n");
    let text = format!(
        "restored {} as of {position}{} to {}: {} in {seconds:.1} s\n{}{differs}{notes}next: {}\n",
        plan.source,
        time.as_deref().unwrap_or_default(),
        restored_at.restored.target.display(),
        format_size(restored_at.restored.bytes, BINARY),
        aside.unwrap_or_default(),
        restored_at.restored.next,
    );
    let Plan { store, source, mode, base, segments, .. } = plan;
    let done = RestoreAtReport { store, source, mode, base, segments, seconds, time, restored_at };
    Report::done("bkp.restore-at/1", &done, text)
}
