//! `bkp cleanup`: removes backups that no policy keeps, and orphans.
//!
//! It looks at each store by itself, decides about everything in it ([`plan`](mod@plan)), and then
//! removes ([`apply`]). A dry run stops in between, so both decide the same.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::time::Duration;

use humansize::{BINARY, format_size};
use schemars::JsonSchema;
use serde::Serialize;

mod apply;
mod decide;
mod deletion_log;
mod item;
mod log_files;
mod logs;
mod mover;
mod plan;
mod rules;
mod tiers;

use self::apply::{FAILURES_MAX, RemovalError, RemovalOutcome, Remover};
use self::item::{Action, Item};
use self::mover::Mover;
use self::plan::{Plan, Target, plan};
use self::rules::Witness;
use crate::catalog::{self, Filter};
use crate::domain::id::BackupId;
use crate::error::{Fault, Kind, diagnose, worst};
use crate::ledger::Ledger;
use crate::ledger::outbox::Outbox;
use crate::ops::exclusive_run::{ExclusiveRun, retry_while_busy};
use crate::ops::report::Report;
use crate::ops::run_guard;
use crate::store::layer::mirrored::MirroredStore;
use crate::wire::AppContext;

/// The name of its lock and lease; no source can have it.
const LEASE: &str = "cleanup.all";

/// What `bkp cleanup` was asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Say what would be removed, and remove nothing.
    pub dry_run: bool,
    /// How long to wait for another cleanup.
    pub patience: Duration,
}

/// The stable shape `bkp.cleanup/1`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct CleanupReport {
    /// Nothing was removed, only decided.
    dry_run: bool,
    stores: Vec<StoreCleanup>,
}

/// What became of one store.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct StoreCleanup {
    store: String,
    removed: usize,
    /// Backups of which data moves to a colder storage class.
    moved: usize,
    kept: usize,
    /// Sum over what is or would be removed, bytes.
    freed_bytes: u64,
    /// Sum over what moves or would move, bytes.
    moved_bytes: u64,
    items: Vec<Item>,
    /// Why it could not be cleaned up, or not to the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// Cleans up every store that `--store` names, or all that are configured.
///
/// # Errors
/// [`Kind::Busy`] if another cleanup is at it; what the only store fails with. Several stores
/// fail independently.
pub fn run(app: &AppContext, options: &Options) -> anyhow::Result<Report> {
    let names = app.store_names()?;
    let mut everywhere = app.clone();
    everywhere.settings.store.clone_from(&names);
    let ledger = if options.dry_run { None } else { app.ledger() };
    let mirrored = if options.dry_run { None } else { Some(everywhere.stores_append(None)?) };
    let take = |mirrored| ExclusiveRun::take(app, LEASE, mirrored, ledger.as_deref());
    let taken = mirrored
        .as_ref()
        .map(|mirrored| retry_while_busy(app, options.patience, || take(mirrored)));
    let exclusive_run = taken.transpose()?;
    let witness = Witness::of(app);
    let (intents, left) = (intents(app), Some(HashSet::new()));
    let exclusive_run = mirrored.as_ref().zip(exclusive_run.as_ref());
    let mut cleanup_run = CleanupRun { app, options, witness, exclusive_run, intents, left };
    let (mut stores, mut outcome) = (Vec::new(), None);
    for (index, name) in names.iter().enumerate() {
        app.ctx.cancel.check()?;
        match cleanup_run.store(index, name) {
            Ok((store, ended)) => {
                stores.push(store);
                outcome = worst(outcome, ended);
            }
            Err(error) if names.len() == 1 => return Err(error),
            Err(error) => {
                cleanup_run.left = None;
                outcome = worst(outcome, Some(Kind::Partial));
                stores.push(StoreCleanup::failed(name, &error));
            }
        }
    }
    if let Some(ledger) = &ledger {
        cleanup_run.look_elsewhere(&names);
        outcome = worst(outcome, cleanup_run.report_deletions(&**ledger, &names));
    }
    let report = CleanupReport { dry_run: options.dry_run, stores };
    let text = render(&report)?;
    Ok(Report::done("bkp.cleanup/1", &report, text)?.with_outcome(outcome))
}

/// Deletions that are begun and not yet in the ledger. They are kept apart from the outbox, because
/// they may only be told once the backup has gone from every store.
fn intents(app: &AppContext) -> Option<Outbox> {
    app.settings.ledger.as_ref()?;
    Some(Outbox::of(&app.settings.state_dir.join("cleanup")))
}

/// One run over all stores.
struct CleanupRun<'a> {
    app: &'a AppContext,
    options: &'a Options,
    witness: Witness<'a>,
    /// The stores, and the leases in them; nothing in a dry run.
    exclusive_run: Option<(&'a MirroredStore, &'a ExclusiveRun<'a>)>,
    intents: Option<Outbox>,
    /// The backups that are in any store afterwards; `None` if a store did not say.
    left: Option<HashSet<BackupId>>,
}

impl CleanupRun<'_> {
    fn store(&mut self, index: usize, name: &str) -> anyhow::Result<(StoreCleanup, Option<Kind>)> {
        if self.exclusive_run.is_some_and(|(mirrored, _)| !mirrored.is_in(index)) {
            let message = format!("could not take the lease of store `{name}`");
            let hint = "see the warning above, then run `bkp cleanup` again";
            return Err(Fault::new(Kind::Store, message).hint(hint).into());
        }
        let store = self.app.store_prune(name)?;
        let content_run =
            self.exclusive_run.map(|_| take_content(self.app, self.options, name)).transpose()?;
        let now = self.app.ctx.now();
        let mut plan = plan(self.app, &*store, &self.witness, now)?;
        let mut problems = Vec::new();
        if let Some(((_, exclusive_run), content_run)) =
            self.exclusive_run.zip(content_run.as_ref())
        {
            let (app, intents) = (self.app, &self.intents);
            let (store, keys) = (&*store, &self.witness.keys);
            let remover = Remover { app, store, exclusive_run, content_run, index, intents, keys };
            problems = apply(&remover, &mut plan, &mut self.left)?;
        }
        for (item, target) in plan.items.iter().zip(&plan.targets) {
            if let Target::Entry { may_be_ours: true, entry, .. } = target
                && (self.options.dry_run || item.action != Action::Remove)
                && let Some(left) = &mut self.left
            {
                left.insert(entry.name.id);
            }
        }
        let kinds = problems.iter().map(|error| Some(diagnose(error).kind));
        let outcome = kinds.fold(None, worst);
        let texts: Vec<String> = problems.iter().map(|error| format!("{error:#}")).collect();
        let problem = (!texts.is_empty()).then(|| texts.join("; "));
        Ok((StoreCleanup::of(store.url(), plan.items, problem), outcome))
    }

    /// Looks for backups in the stores that are not cleaned up today.
    fn look_elsewhere(&mut self, names: &[String]) {
        for name in self.app.settings.stores.keys().filter(|name| !names.contains(name)) {
            let store = self.app.store_named(name);
            let cancel = &self.app.ctx.cancel;
            let found = store.and_then(|store| catalog::find(&*store, &Filter::default(), cancel));
            match (found, &mut self.left) {
                (Ok(found), Some(left)) => left.extend(found.iter().map(|found| found.name.id)),
                (Ok(_), None) => {}
                (Err(error), _) => {
                    let what = "the deletions are recorded once that store is reachable";
                    self.app.ctx.monitor.warn(&format!("{error:#}; {what}"));
                    self.left = None;
                }
            }
        }
    }

    /// Tells the ledger of the backups that have gone from every store: those that this host has noted,
    /// and those that the stores have.
    fn report_deletions(&self, ledger: &dyn Ledger, names: &[String]) -> Option<Kind> {
        let intents = self.intents.as_ref()?;
        let ctx = &self.app.ctx;
        let told = || -> anyhow::Result<()> {
            let Some(left) = &self.left else { return Ok(()) };
            intents.retain(|event| !left.contains(&event.backup))?;
            run_guard::flush(intents, ledger, &*ctx.monitor)?;
            for name in names {
                let store = self.app.store_append(name)?;
                deletion_log::report(&*store, ledger, left, &self.witness.keys, ctx)?;
            }
            Ok(())
        };
        if let Err(error) = told() {
            let what = "the deletions are recorded by the next cleanup";
            ctx.monitor.warn(&format!("{error:#}; {what}"));
            return Some(Kind::Pending);
        }
        let waiting = intents.waiting().map_or(0, |waiting| waiting.len());
        (waiting > 0).then_some(Kind::Pending)
    }
}

/// Keeps replications to a store away.
fn take_content<'a>(
    app: &'a AppContext,
    options: &Options,
    name: &str,
) -> anyhow::Result<ExclusiveRun<'a>> {
    let mut of_one = app.clone();
    of_one.settings.store = vec![name.to_owned()];
    let mirrored = of_one.stores_append(None)?;
    retry_while_busy(app, options.patience, || ExclusiveRun::of_store(app, &mirrored))
}

/// Removes what the plan says, and puts into it what came of that. Returns what failed: one backup that
/// cannot be removed does not keep the others.
fn apply(
    remover: &Remover<'_>,
    plan: &mut Plan,
    left: &mut Option<HashSet<BackupId>>,
) -> anyhow::Result<Vec<anyhow::Error>> {
    let (mut problems, mut in_a_row) = (Vec::new(), 0);
    // Nothing may go that something builds on which is still there.
    let mut stuck: HashSet<BackupId> = HashSet::new();
    let mut mover = Mover::default();
    for (item, target) in plan.items.iter_mut().zip(&plan.targets) {
        remover.app.ctx.cancel.check()?;
        let base = match target {
            Target::Entry { base, .. } => Some(*base),
            Target::Upload(_) | Target::Object(_) | Target::Data { .. } => None,
        };
        if item.action == Action::Move {
            problems.extend(mover.apply(remover, item, target));
            continue;
        }
        if item.action != Action::Remove {
            if let Target::Entry { entry, sha256: Some(_), .. } = target
                && entry.is_being_removed()
                && let Err(error) = remover.unmark(entry)
            {
                problems.push(error.into());
            }
            continue;
        }
        let is_stuck = base.is_some_and(|base| stuck.contains(&base));
        if is_stuck || in_a_row >= FAILURES_MAX {
            let why = if is_stuck {
                "a backup that builds on it could not be removed"
            } else {
                "not reached"
            };
            (item.action, item.reason) = (Action::Keep, why.to_owned());
            continue;
        }
        let stays = match remover.remove(item, target) {
            Ok(RemovalOutcome::Gone(rest)) => {
                in_a_row = 0;
                item.reason.extend(rest.map(|rest| format!("; {rest}")));
                None
            }
            Ok(RemovalOutcome::Stays(action, why)) => Some((action, why)),
            Err(RemovalError { error, gone }) => {
                in_a_row += 1;
                let why = format!("{error:#}");
                problems.push(error);
                if gone.is_none() {
                    // Whether the ledger is to be told shows when the store says.
                    *left = None;
                }
                if gone == Some(true) {
                    item.reason = format!("{}; some of it remains: {why}", item.reason);
                    None
                } else {
                    Some((Action::Keep, why))
                }
            }
        };
        if let Some((action, why)) = stays {
            (item.action, item.reason) = (action, why);
            stuck.extend(base);
        }
    }
    Ok(problems)
}

impl StoreCleanup {
    fn of(url: &str, items: Vec<Item>, problem: Option<String>) -> StoreCleanup {
        let of = |action| items.iter().filter(move |item| item.action == action);
        let bytes = |action| of(action).map(|item| item.bytes).fold(0, u64::saturating_add);
        let (removed, moved) = (of(Action::Remove).count(), of(Action::Move).count());
        let (freed_bytes, moved_bytes) = (bytes(Action::Remove), bytes(Action::Move));
        StoreCleanup {
            store: url.to_owned(),
            removed,
            moved,
            kept: items.len() - removed - moved,
            freed_bytes,
            moved_bytes,
            items,
            problem,
        }
    }

    fn failed(name: &str, error: &anyhow::Error) -> StoreCleanup {
        StoreCleanup::of(name, Vec::new(), Some(format!("{error:#}")))
    }
}

fn render(report: &CleanupReport) -> anyhow::Result<String> {
    let mut text = String::new();
    for store in &report.stores {
        for item in &store.items {
            // What stays is of interest to who wants to know what would happen.
            if !report.dry_run && item.action == Action::Keep {
                continue;
            }
            let verb = match (item.action, report.dry_run) {
                (Action::Remove, true) => "would remove",
                (Action::Remove, false) => "removed",
                (Action::Move, true) => "would move",
                (Action::Move, false) => "moved",
                (Action::Keep, _) => "keeps",
                (Action::Retain, _) => "retained",
            };
            let size = format_size(item.bytes, BINARY);
            let Item { key, reason, .. } = item;
            writeln!(text, "{verb:<12}  {size:>10}  {key}: {reason}")?;
        }
        let verb = if report.dry_run { "would be removed" } else { "removed" };
        let StoreCleanup { store, removed, moved, kept, freed_bytes, moved_bytes, problem, .. } =
            store;
        let size = format_size(*freed_bytes, BINARY);
        write!(text, "{store}: {removed} {verb} ({size}), ")?;
        if *moved > 0 {
            let verb = if report.dry_run { "would be moved" } else { "moved" };
            write!(text, "{moved} {verb} ({}), ", format_size(*moved_bytes, BINARY))?;
        }
        writeln!(text, "{kept} kept")?;
        if let Some(problem) = problem {
            writeln!(text, "{store}: FAILED: {problem}")?;
        }
    }
    Ok(text)
}
