//! `bkp restore`: restores a backup.

use std::path::PathBuf;

use humansize::{BINARY, format_size};
use schemars::JsonSchema;
use serde::Serialize;

use crate::catalog::Catalog;
use crate::domain::backup_kind::BackupKind;
use crate::domain::event::Status;
use crate::domain::id::BackupId;
use crate::domain::names::BackupName;
use crate::error::{Fault, Kind};
use crate::fs::staged_file::folder_of;
use crate::ops::report::Report;
use crate::ops::scratch;
use crate::ops::selection::Select;
use crate::ops::thaw::{ThawOptions, ThawPlan};
use crate::ops::{audit, other_stores, thaw};
use crate::pipeline::BackupReader;
use crate::source::{self, ResourceLimits, RestoreRequest, Restored, SourceKind, TargetKind};
use crate::wire::AppContext;

mod target;
mod warnings;

pub(super) use self::target::check_target;
use self::warnings::warn;

/// What `bkp restore` was asked for.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct Options {
    /// The backup.
    pub select: Select,
    /// The path of the result.
    pub to: PathBuf,
    /// Which replica of a cluster the result shall be.
    pub replica: Option<u8>,
    /// Addresses at which the original would answer if it still ran, beside the configured ones.
    pub addresses: Vec<String>,
    /// Of the backups of a source only the exports are meant; else all the others.
    pub from_export: bool,
    /// The one database that is wanted of several.
    pub database: Option<String>,
    /// The schemas that are wanted; empty for all of them.
    pub schemas: Vec<String>,
    /// The one table that is wanted, as SCHEMA.TABLE.
    pub table: Option<String>,
    /// The files that are wanted, as patterns of their paths; empty for all of them.
    pub files: Vec<String>,
    /// Folders of their own for tablespaces, by their numbers.
    pub tablespaces: Vec<(u32, PathBuf)>,
    /// Move what stands at the target aside instead of refusing.
    pub force: bool,
    /// Do not ask for confirmation.
    pub yes: bool,
    /// Say what would be done, and do nothing.
    pub dry_run: bool,
    /// How objects in an archive are brought back first.
    pub thaw: ThawOptions,
}

/// What is going to be done; the stable shape `bkp.restore-plan/1`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Plan {
    store: String,
    id: BackupId,
    source: String,
    /// Every backup that is read, base first.
    chain: Vec<BackupId>,
    stored_bytes: u64,
    target: PathBuf,
    replica: Option<u8>,
    target_exists: bool,
    /// What has to be restored from the archive first.
    #[serde(skip_serializing_if = "Option::is_none")]
    thaw: Option<ThawPlan>,
}

/// The stable shape `bkp.restore/1`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct RestoreReport {
    store: String,
    id: BackupId,
    source: String,
    seconds: f64,
    #[serde(flatten)]
    restored: Restored,
}

/// Brings a backup back at a new place. Everything is checked before the target appears. What the first store of
/// its source does not give, another one with a copy may.
///
/// # Errors
/// [`Kind::Refused`] if the target is taken or the restore would do harm; [`Kind::Integrity`] if
/// the backup is damaged; then the target is as it was.
pub fn run(app: &AppContext, options: &Options) -> anyhow::Result<Report> {
    let mut chosen = None;
    let error = match recorded(app, options, &mut chosen) {
        Err(error) => error,
        restored => return restored,
    };
    let source = chosen.as_ref().map(|name| name.source.as_str()).or(options.select.source());
    // Another store may have older backups only: from there nothing but this one is taken.
    let select = match (&chosen, &options.select) {
        (Some(name), _) => Select::IdOf(name.source.clone(), name.id.to_string()),
        (None, Select::Id(_) | Select::IdOf(..)) => options.select.clone(),
        (None, Select::Latest(_) | Select::At(..)) => {
            return Err(other_stores::suggest(app, source, error));
        }
    };
    let options = Options { select, ..options.clone() };
    other_stores::read_copy(app, source, error, |app| recorded(app, &options, &mut None))
}

/// Restores, and puts on record how that ended.
fn recorded(
    app: &AppContext,
    options: &Options,
    chosen: &mut Option<BackupName>,
) -> anyhow::Result<Report> {
    let report = restore(app, options, chosen);
    if !options.dry_run && !thaw::is_waiting(&report) {
        let source = options.select.source();
        audit::record_outcome(app, ("restored", Status::Restored), source, &report);
    }
    report
}

/// Notes in `chosen` which backup it is.
fn restore(
    app: &AppContext,
    options: &Options,
    chosen: &mut Option<BackupName>,
) -> anyhow::Result<Report> {
    let began = app.ctx.now();
    let settings = options.select.source().and_then(|name| app.settings.sources.get(name));
    let store = app.store_read(settings)?;
    let keys = app.keys_to_read()?;
    let catalog = Catalog::new(store.as_ref(), &keys, &app.ctx);
    let catalog = catalog.with_effort(options.select.effort());
    let found = options.select.resolve_of(&catalog, options.from_export, &app.ctx)?;
    let name = chosen.insert(found.name).clone();
    check_kind(&name)?;
    check_parts(options, &name)?;
    let chain = catalog.chain(&name)?;
    let cold = thaw::find(app, store.as_ref(), &chain)?;
    warn(app, &options.select, (store.as_ref(), &keys), &name, (&chain, &cold))?;
    let kind = source::kinds::kind_of(name.backup_type)?;
    let record = chain.last().map(|newest| newest.manifest().capture.clone()).unwrap_or_default();
    let (target_kind, request) = request(app, options, kind, &name.source);
    let to = request.target.clone();
    let target_exists = check_target(store.as_ref(), &to, target_kind, name.backup_type.as_str())?;
    let mut warnings = (kind.guard)(&record, &request)?;
    // It reads the backup, as far as that can be read today.
    if cold.is_empty() {
        warnings.extend((kind.preflight)(&chain, &request, &app.ctx)?);
    }
    for warning in warnings {
        app.ctx.monitor.warn(&warning);
    }
    let plan = Plan {
        store: store.url().to_owned(),
        id: name.id,
        source: name.source,
        chain: chain.iter().map(|reader| reader.manifest().id).collect(),
        stored_bytes: stored_bytes(&chain),
        target_exists,
        target: to,
        replica: options.replica,
        thaw: cold.plan_if_any(app, options.thaw)?,
    };
    if plan.target_exists && !options.force {
        let message = format!("{} already exists", plan.target.display());
        return Err(Fault::new(Kind::Refused, message)
            .hint("choose another --to; or, to replace it, pass --force, which renames it first")
            .into());
    }
    let summary = summarise(&plan);
    if options.dry_run {
        return Report::done("bkp.restore-plan/1", &plan, format!("would {summary}\n"));
    }
    if !options.yes {
        (app.confirm)(&summary)?;
    }
    let cold = (plan.source.as_str(), &cold);
    if let Some(waiting) = thaw::bring_back(app, store.as_ref(), cold, options.thaw)? {
        return Ok(waiting);
    }
    check_chain(app, &chain, &name.kind)?;
    app.ctx.monitor.begin(&format!("restore {}", plan.id), Some(plan.stored_bytes));
    let is_path = target_kind != TargetKind::Server;
    let noted = is_path.then(|| scratch::elsewhere(app, folder_of(&request.target)));
    let restored = (kind.restore)(&chain, &request, &app.ctx)?;
    drop(noted);
    app.ctx.monitor.end();
    let seconds = (app.ctx.now() - began).as_seconds_f64();
    report(app, plan, restored, seconds)
}

/// What was restored, and a warning of each thing that was not.
fn report(
    app: &AppContext,
    plan: Plan,
    restored: Restored,
    seconds: f64,
) -> anyhow::Result<Report> {
    let text = render(&plan, &restored, seconds);
    for lost in &restored.lost {
        app.ctx.monitor.warn(&format!("missing from the result: {lost}"));
    }
    let partial = (!restored.lost.is_empty()).then_some(Kind::Partial);
    let done =
        RestoreReport { store: plan.store, id: plan.id, source: plan.source, seconds, restored };
    Ok(Report::done("bkp.restore/1", &done, text)?.with_outcome(partial))
}

/// What the source is asked for, and what it is to make.
fn request(
    app: &AppContext,
    options: &Options,
    kind: &SourceKind,
    source: &str,
) -> (TargetKind, RestoreRequest) {
    let target_kind = if (kind.is_server)(&options.to) { TargetKind::Server } else { kind.target };
    let to = match target_kind {
        TargetKind::File | TargetKind::Server => options.to.clone(),
        // Without a slash at its end, which would be a part of other names.
        TargetKind::Folder => options.to.components().collect(),
    };
    let request = RestoreRequest {
        target: to,
        replica: options.replica,
        database: options.database.clone(),
        schemas: options.schemas.clone(),
        table: options.table.clone(),
        files: options.files.clone(),
        tablespaces: options.tablespaces.clone(),
        addresses: known_addresses(app, options, source),
        force: options.force,
        share: app.source(source).map(|source| source.share()).unwrap_or_default(),
        scratch: scratch::place(app),
        tools: app.drill_tools(ResourceLimits::default()),
    };
    (target_kind, request)
}

/// Makes sure that the objects of a chain are there. Of a replica only the source knows which of them hold the
/// files that are wanted.
fn check_chain(app: &AppContext, chain: &[BackupReader<'_>], kind: &String) -> anyhow::Result<()> {
    let ctx = &app.ctx;
    if *kind == BackupKind::Export {
        return chain.iter().try_for_each(|link| link.check_objects(ctx));
    }
    if *kind == BackupKind::Snapshot {
        return chain.iter().try_for_each(|link| link.check_data(ctx));
    }
    Ok(())
}

/// Sum over what a chain has in the store.
pub(super) fn stored_bytes<'r, 's: 'r>(
    chain: impl IntoIterator<Item = &'r BackupReader<'s>>,
) -> u64 {
    let sizes = chain.into_iter().map(|reader| reader.manifest().sizes.stored_bytes);
    sizes.fold(0, u64::saturating_add)
}

/// A segment of a log is no state that could be restored by itself.
fn check_kind(name: &BackupName) -> Result<(), Fault> {
    if name.kind != BackupKind::Log {
        return Ok(());
    }
    let message = format!("{} is a segment of a log, not a state of {}", name.id, name.source);
    let hint =
        format!("choose a moment from `bkp list {} --windows` and pass it with --at", name.source);
    Err(Fault::new(Kind::Refused, message).hint(hint))
}

/// Only exports have tables that can be told apart, and only replicas have files.
fn check_parts(options: &Options, name: &BackupName) -> Result<(), Fault> {
    let is_part =
        options.table.is_some() || options.database.is_some() || !options.schemas.is_empty();
    if is_part && name.kind != BackupKind::Export {
        let message = format!("{} is a {}: it has no tables to select", name.id, name.kind);
        let hint = if name.kind == BackupKind::Replica {
            "use --file, or omit --database, --schema and --table"
        } else {
            "pass --from-export, or omit --database, --schema and --table"
        };
        return Err(Fault::new(Kind::Usage, message).hint(hint));
    }
    if !options.files.is_empty() && name.kind != BackupKind::Replica {
        let message = format!("{} is a {}: it has no files to select", name.id, name.kind);
        return Err(Fault::new(Kind::Usage, message).hint("omit --file"));
    }
    Ok(())
}

/// Addresses where the source's servers would answer: those given, and those of the source in the
/// configuration of this host, if it has it.
pub(super) fn known_addresses(app: &AppContext, options: &Options, source: &str) -> Vec<String> {
    let configured = app.source(source).map(|source| source.addresses().to_vec());
    options.addresses.iter().cloned().chain(configured.unwrap_or_default()).collect()
}

fn summarise(plan: &Plan) -> String {
    let parts = match plan.chain.len() {
        1 => String::new(),
        links => format!(", a chain of {links} backups"),
    };
    let aside = if plan.target_exists { ", renaming what is there" } else { "" };
    let replica = plan.replica.map(|replica| format!(" as replica {replica}")).unwrap_or_default();
    let first = plan.thaw.as_ref().map(|thaw| format!("; {}", thaw::summary(thaw)));
    let first = first.unwrap_or_default();
    format!(
        "restore {} of {} ({} stored{parts}) to {}{replica}{aside}{first}",
        plan.id,
        plan.source,
        format_size(plan.stored_bytes, BINARY),
        plan.target.display(),
    )
}

fn render(plan: &Plan, restored: &Restored, seconds: f64) -> String {
    let aside = restored.moved_aside.as_ref();
    let aside = aside.map(|path| format!("what was there is now {}\n", path.display()));
    format!(
        "restored {} of {} to {}: {} ({} written) in {seconds:.1} s\n{}next: {}\n",
        plan.id,
        plan.source,
        restored.target.display(),
        format_size(restored.bytes, BINARY),
        format_size(restored.bytes_written, BINARY),
        aside.unwrap_or_default(),
        restored.next,
    )
}
