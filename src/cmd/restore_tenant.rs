//! `bkp restore --tenant`: brings the rows of one tenant back in a database that is in use.

use schemars::JsonSchema;
use serde::Serialize;

use crate::catalog::Catalog;
use crate::cmd::{restore, restore_at};
use crate::domain::backup_kind::BackupKind;
use crate::domain::event::Status;
use crate::domain::id::BackupId;
use crate::error::{Fault, Kind};
use crate::ops::log_history::find;
use crate::ops::pitr_plan::{Moment, OpenedPlan};
use crate::ops::report::Report;
use crate::ops::scratch::{self, ScratchPurpose};
use crate::ops::{audit, other_stores, thaw};
use crate::pipeline::BackupReader;
use crate::source::logs::RestoreAtRequest;
pub use crate::source::tenants::TenantMode;
use crate::source::tenants::{TableChange, TenantRequest, TenantRestored, TenantState};
use crate::source::{ResourceLimits, RestoreRequest, kinds};
use crate::store::ReadStore;
use crate::wire::AppContext;

/// What `bkp restore --tenant` was asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// What the tenant is called.
    pub tenant: String,
    /// The address of the database.
    pub into: String,
    /// How the rows are put back.
    pub mode: TenantMode,
    /// The tenant has another name today, and that is known.
    pub renamed: bool,
    /// The moment of the log whose rows they are; those of an export otherwise.
    pub at: Option<restore_at::Options>,
    /// Everything else, as for a restore of all.
    pub restore: restore::Options,
}

/// The stable shape `bkp.restore-tenant/1`, and of a dry run `bkp.restore-tenant-plan/1`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct TenantReport {
    store: String,
    source: String,
    /// The backup whose rows they are, or that a restore to the moment begins with.
    id: Option<BackupId>,
    /// The moment whose rows they are; null for those of an export.
    at: Option<String>,
    seconds: f64,
    #[serde(flatten)]
    restored: TenantRestored,
}

/// Brings the rows of a tenant back. The database has what it had before, or all of them.
///
/// # Errors
/// [`Kind::Refused`] for what cannot be brought back safely; [`Kind::Failed`] if the database does not take it;
/// [`Kind::Integrity`] if the backup is damaged.
pub fn run(app: &AppContext, options: &Options) -> anyhow::Result<Report> {
    let source = options.restore.select.source();
    let recorded = |app: &AppContext| {
        let report = restore_tenant(app, options);
        if !options.restore.dry_run && !thaw::is_waiting(&report) {
            audit::record_outcome(app, ("restored", Status::Restored), source, &report);
        }
        report
    };
    recorded(app).or_else(|error| {
        let is_newest = options.at.as_ref().is_some_and(|at| matches!(at.moment, Moment::Latest));
        if is_newest {
            return Err(other_stores::suggest(app, source, error));
        }
        other_stores::read_copy(app, source, error, recorded)
    })
}

fn restore_tenant(app: &AppContext, options: &Options) -> anyhow::Result<Report> {
    let name = options.restore.select.source().ok_or_else(|| {
        Fault::new(Kind::Usage, "no source is named")
            .hint("name the source: its configuration says whose row is whose")
    })?;
    // What is not configured is told before anything is read.
    kinds::tenant_kind_of(app.source_settings(name)?.backup_type)?;
    let store = app.store_read(app.settings.sources.get(name))?;
    match &options.at {
        None => from_export(app, options, (store.as_ref(), name)),
        Some(at) => at_moment(app, options, at, (store.as_ref(), name)),
    }
}

/// Takes the rows from an export.
fn from_export(
    app: &AppContext,
    options: &Options,
    (store, source): (&dyn ReadStore, &str),
) -> anyhow::Result<Report> {
    let keys = app.keys_to_read()?;
    let catalog = Catalog::new(store, &keys, &app.ctx);
    let catalog = catalog.with_effort(options.restore.select.effort());
    let found = options.restore.select.resolve_of(&catalog, true, &app.ctx)?;
    if found.name.kind != BackupKind::Export {
        let message = format!("{} is a {}", found.name.id, found.name.kind);
        return Err(Fault::new(Kind::Usage, message)
            .hint("choose an export, or a moment with --at")
            .into());
    }
    let chain = catalog.chain(&found.name)?;
    let run = TenantRun { app, options, store, source, id: Some(found.name.id), at: None };
    if let Some(waiting) = run.thaw(&chain)? {
        return Ok(waiting);
    }
    chain.iter().try_for_each(|link| link.check_objects(&app.ctx))?;
    let scratch = scratch::make(app, ScratchPurpose::Work)?;
    run.restore(&TenantState::Export(&chain), scratch.folder())
}

/// Takes the rows of a moment of the log.
fn at_moment(
    app: &AppContext,
    options: &Options,
    at: &restore_at::Options,
    (store, source): (&dyn ReadStore, &str),
) -> anyhow::Result<Report> {
    let keys = app.keys_to_read()?;
    let catalog = Catalog::new(store, &keys, &app.ctx);
    let found = find(store, source, &app.ctx)?;
    let at = &restore_at::with_event(&catalog, &found, at, &app.ctx)?;
    let (_mode, target, opened) = restore_at::plan_route(&catalog, found, at, &app.ctx)?;
    let OpenedPlan { base, segments, backup_type } = opened;
    let id = base.last().map(|newest| newest.manifest().id);
    let moment = Some(at.moment.to_string());
    let run = TenantRun { app, options, store, source, id, at: moment };
    if let Some(waiting) = run.thaw(base.iter().chain(&segments))? {
        return Ok(waiting);
    }
    base.iter().chain(&segments).try_for_each(|link| link.check_data(&app.ctx))?;
    let scratch = scratch::make(app, ScratchPurpose::Work)?;
    let request = RestoreRequest::to(scratch.path("data"));
    let tools = app.drill_tools(ResourceLimits::default());
    let wanted = RestoreAtRequest {
        base: &base,
        segments: &segments,
        files: &catalog.log_files(backup_type, source),
        target,
        exclusive: at.exclusive,
        restore: &request,
        tools: &tools,
        alone: true,
    };
    run.restore(&TenantState::Moment(&wanted), scratch.folder())
        .map_err(|error| restore_at::hint_other_base(error, id))
}

/// A restore of a tenant whose state is chosen.
struct TenantRun<'a> {
    app: &'a AppContext,
    options: &'a Options,
    store: &'a dyn ReadStore,
    source: &'a str,
    id: Option<BackupId>,
    at: Option<String>,
}

impl TenantRun<'_> {
    /// Has objects in an archive brought back; a report where that is being waited for.
    fn thaw<'r, 's: 'r>(
        &self,
        readers: impl IntoIterator<Item = &'r BackupReader<'s>>,
    ) -> anyhow::Result<Option<Report>> {
        let TenantRun { app, options, store, source, .. } = self;
        let cold = thaw::find(app, *store, readers)?;
        if options.restore.dry_run && !cold.is_empty() {
            let message = "the backup is in an archive: what would change cannot be told";
            return Err(Fault::new(Kind::Thawing, message)
                .hint("bring it back first, with `bkp verify --thaw`")
                .into());
        }
        thaw::bring_back(app, *store, (source, &cold), options.restore.thaw)
    }

    fn restore(self, state: &TenantState<'_>, scratch: &std::path::Path) -> anyhow::Result<Report> {
        let TenantRun { app, options, store, source, id, at } = self;
        let began = app.ctx.now();
        let tools = app.drill_tools(ResourceLimits::default());
        let confirm = |question: &str| {
            if options.restore.yes { Ok(()) } else { (app.confirm)(question) }
        };
        let request = TenantRequest {
            tenant: &options.tenant,
            into: &options.into,
            database: options.restore.database.as_deref(),
            mode: options.mode,
            renamed: options.renamed,
            dry_run: options.restore.dry_run,
            scratch,
            tools: &tools,
            confirm: &confirm,
        };
        let settings = app.source_settings(source)?;
        let kind = kinds::tenant_kind_of(settings.backup_type)?;
        let restored = (kind.restore)((source, settings.table.clone()), &request, state, &app.ctx)?;
        for note in &restored.notes {
            app.ctx.monitor.warn(note);
        }
        let seconds = (app.ctx.now() - began).as_seconds_f64();
        let (store, source) = (store.url().to_owned(), source.to_owned());
        let report = TenantReport { store, source, id, at, seconds, restored };
        let text = render(&report, options.restore.dry_run);
        let schema = if options.restore.dry_run {
            "bkp.restore-tenant-plan/1"
        } else {
            "bkp.restore-tenant/1"
        };
        Report::done(schema, &report, text)
    }
}

fn render(report: &TenantReport, dry_run: bool) -> String {
    let TenantReport { restored, seconds, .. } = report;
    // A name in a database may hold the end of a line, and a line of its own could say anything.
    let plain = |name: &str| name.replace(char::is_control, "\u{fffd}");
    let mut lines = Vec::new();
    for TableChange { table, added, changed, removed, rows } in &restored.tables {
        let table = plain(table);
        lines.push(format!(
            "  {table}: {added} added, {changed} changed, {removed} removed; {rows} rows"
        ));
    }
    let (added, changed, removed) = restored.totals();
    let (tenant, target) = (plain(&restored.tenant), &restored.target);
    let totals = format!("{added} row(s) added, {changed} changed, {removed} removed");
    if dry_run {
        return format!(
            "would restore tenant {tenant} in {target}: {totals}\n{}\n",
            lines.join("\n")
        );
    }
    let quiet = restored.quiet_triggers.iter();
    lines.extend(quiet.map(|trigger| format!("  trigger kept from firing: {}", plain(trigger))));
    let advanced = restored.sequences.iter();
    lines.extend(advanced.map(|sequence| format!("  sequence moved forward: {}", plain(sequence))));
    lines.push(format!("  {} rows of others are unchanged", restored.unchanged_rows));
    format!(
        "restored tenant {tenant} in {target}: {totals} in {seconds:.1} s\n{}\n",
        lines.join("\n")
    )
}
