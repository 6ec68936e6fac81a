//! `bkp cleanup`: removes what no policy wants any more, and what belongs to nothing.
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
mod plan;

use self::apply::Removal;
use self::plan::{Plan, plan};
use super::Report;
use super::alone::{Alone, patiently};
use super::recorded;
use crate::domain::id::BackupId;
use crate::error::{Kind, diagnose, worst};
use crate::ledger::Ledger;
use crate::ledger::outbox::Outbox;
use crate::wire::House;

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
pub(super) struct Cleaned {
    /// Nothing was removed, only decided.
    dry_run: bool,
    stores: Vec<Outcome>,
}

/// What became of one store.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Outcome {
    store: String,
    removed: usize,
    kept: usize,
    /// Sum over what is or would be removed, bytes.
    freed_bytes: u64,
    items: Vec<Item>,
    /// Why it could not be cleaned up, or not to the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// What an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum What {
    /// A backup.
    Backup,
    /// Objects without a manifest: no backup.
    Orphan,
    /// An upload that nobody finished.
    Upload,
    /// Terms of leases that have ended.
    Lease,
    /// The record of a run.
    Record,
}

/// What becomes of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Action {
    /// It is removed.
    Remove,
    /// It stays.
    Keep,
    /// It stays because the store locks it.
    Retain,
}

/// One thing, and why it stays or goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
struct Item {
    what: What,
    action: Action,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<BackupId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    /// The key of its manifest, or its own.
    key: String,
    bytes: u64,
    reason: String,
}

/// Cleans up every store that `--store` names, or all that are configured.
///
/// # Errors
/// [`Kind::Busy`] if another cleanup is at it; what the only store fails with. Of several stores each
/// fares by itself.
pub fn run(house: &House, options: &Options) -> anyhow::Result<Report> {
    let names = house.store_names()?;
    let mut everywhere = house.clone();
    everywhere.settings.store.clone_from(&names);
    let ledger = if options.dry_run { None } else { house.ledger() };
    let fan = if options.dry_run { None } else { Some(everywhere.stores_append(None)?) };
    let take = |fan| Alone::take(house, LEASE, fan, ledger.as_deref());
    let taken = fan.as_ref().map(|fan| patiently(house, options.patience, || take(fan)));
    let _alone = taken.transpose()?;
    let mut round = Round { house, options, intents: intents(house), left: Some(HashSet::new()) };
    let (mut stores, mut outcome) = (Vec::new(), None);
    for name in &names {
        house.ctx.cancel.check()?;
        match round.store(name) {
            Ok((store, ended)) => {
                stores.push(store);
                outcome = worst(outcome, ended);
            }
            Err(error) if names.len() == 1 => return Err(error),
            Err(error) => {
                round.left = None;
                outcome = worst(outcome, Some(Kind::Partial));
                stores.push(Outcome::failed(name, &error));
            }
        }
    }
    if let Some(ledger) = &ledger {
        outcome = worst(outcome, round.tell(&**ledger));
    }
    let cleaned = Cleaned { dry_run: options.dry_run, stores };
    let text = render(&cleaned)?;
    Ok(Report::done("bkp.cleanup/1", &cleaned, text)?.with_outcome(outcome))
}

/// Deletions that are begun and not yet in the ledger. They are kept apart from the outbox, because
/// they may only be told once the backup has gone from every store.
fn intents(house: &House) -> Option<Outbox> {
    house.settings.ledger.as_ref()?;
    Some(Outbox::of(&house.settings.state_dir.join("cleanup")))
}

/// One run over all stores.
struct Round<'a> {
    house: &'a House,
    options: &'a Options,
    intents: Option<Outbox>,
    /// The backups that are in any store afterwards; `None` if a store did not say.
    left: Option<HashSet<BackupId>>,
}

impl Round<'_> {
    fn store(&mut self, name: &str) -> anyhow::Result<(Outcome, Option<Kind>)> {
        let store = self.house.store_prune(name)?;
        let now = self.house.ctx.now();
        let Plan { mut items, targets } = plan(self.house, &*store, now)?;
        let mut problem = None;
        if !self.options.dry_run {
            let removal = Removal { house: self.house, store: &*store, intents: &self.intents };
            for (item, target) in items.iter_mut().zip(&targets) {
                if item.action != Action::Remove {
                    continue;
                }
                self.house.ctx.cancel.check()?;
                if problem.is_some() {
                    (item.action, item.reason) = (Action::Keep, "not reached".to_owned());
                } else if let Err(error) = removal.remove(item, target) {
                    (item.action, item.reason) = (Action::Keep, format!("{error:#}"));
                    problem = Some(error);
                }
            }
        }
        let stay = items.iter().filter(|item| {
            item.what == What::Backup && (self.options.dry_run || item.action != Action::Remove)
        });
        if let Some(left) = &mut self.left {
            left.extend(stay.filter_map(|item| item.id));
        }
        let outcome = problem.as_ref().map(|error| diagnose(error).kind);
        let problem = problem.map(|error| format!("{error:#}"));
        Ok((Outcome::of(store.url(), items, problem), outcome))
    }

    /// Tells the ledger of the backups that have gone from every store.
    fn tell(&self, ledger: &dyn Ledger) -> Option<Kind> {
        let (intents, left) = self.intents.as_ref().zip(self.left.as_ref())?;
        let monitor = &*self.house.ctx.monitor;
        let told = intents.retain(|event| !left.contains(&event.backup));
        let told = told.and_then(|()| recorded::flush(intents, ledger, monitor));
        if let Err(error) = told {
            monitor.warn(&format!("{error}; the deletions are recorded by the next cleanup"));
            return Some(Kind::Pending);
        }
        let waiting = intents.waiting().map_or(0, |waiting| waiting.len());
        (waiting > 0).then_some(Kind::Pending)
    }
}

impl Outcome {
    fn of(url: &str, items: Vec<Item>, problem: Option<String>) -> Outcome {
        let gone = items.iter().filter(|item| item.action == Action::Remove);
        Outcome {
            store: url.to_owned(),
            removed: gone.clone().count(),
            kept: items.len() - gone.clone().count(),
            freed_bytes: gone.map(|item| item.bytes).fold(0, u64::saturating_add),
            items,
            problem,
        }
    }

    fn failed(name: &str, error: &anyhow::Error) -> Outcome {
        Outcome::of(name, Vec::new(), Some(format!("{error:#}")))
    }
}

fn render(cleaned: &Cleaned) -> anyhow::Result<String> {
    let mut text = String::new();
    for store in &cleaned.stores {
        for item in &store.items {
            // What stays is of interest to who wants to know what would happen.
            if !cleaned.dry_run && item.action == Action::Keep {
                continue;
            }
            let verb = match (item.action, cleaned.dry_run) {
                (Action::Remove, true) => "would remove",
                (Action::Remove, false) => "removed",
                (Action::Keep, _) => "keeps",
                (Action::Retain, _) => "retained",
            };
            let size = format_size(item.bytes, BINARY);
            let Item { key, reason, .. } = item;
            writeln!(text, "{verb:<12}  {size:>10}  {key}: {reason}")?;
        }
        let verb = if cleaned.dry_run { "would be removed" } else { "removed" };
        let Outcome { store, removed, kept, freed_bytes, problem, .. } = store;
        let size = format_size(*freed_bytes, BINARY);
        writeln!(text, "{store}: {removed} {verb} ({size}), {kept} kept")?;
        if let Some(problem) = problem {
            writeln!(text, "{store}: FAILED: {problem}")?;
        }
    }
    Ok(text)
}
