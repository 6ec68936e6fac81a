//! Plans the cleanup of a store without changing anything.

use std::collections::{BTreeMap, HashMap, HashSet};

use time::{Duration, OffsetDateTime};

use super::decide::{CleanupDecision, Decider};
use super::item::{Action, Item, ItemKind};
use super::log_files;
use super::logs;
use super::rules::Witness;
use super::tiers::{Moving, PlannedMove, TierPlanner};
use crate::catalog::{self, Entry, Filter};
use crate::domain::id::BackupId;
use crate::domain::names::BackupName;
use crate::domain::record::{self, Record, RunOutcome};
use crate::domain::retention::KeepReason;
use crate::domain::tier::StorageClass;
use crate::ledger::in_store;
use crate::ops::records;
use crate::ops::run_guard;
use crate::pipeline::log_files::ListedFile;
use crate::store::{PruneStore, StoreError, Unfinished};
use crate::wire::AppContext;

/// How far the clock of whoever runs a job may be from ours. Beyond that the run itself finds out, when
/// it looks at its chain before it publishes.
pub(super) const CLOCKS_APART: Duration = Duration::HOUR;

/// A mark of removal beside objects without a manifest is believed from this age on: whoever can write
/// to the store can put one beside an upload that is going on.
const MARK_AGE: Duration = Duration::DAY;

/// What is removed for an item.
#[derive(Debug)]
pub(super) enum Target {
    /// A backup, or objects without a manifest.
    Entry {
        /// What there is of it.
        entry: Box<Entry>,
        /// The first of its chain.
        base: BackupId,
        /// SHA-256 of the manifest by which it was decided; nothing for one that is not shown to be bkp's
        /// own, and for what has none.
        sha256: Option<[u8; 32]>,
        /// Nobody here can say that it is not bkp's own.
        may_be_ours: bool,
    },
    /// An upload.
    Upload(Unfinished),
    /// One object, by its key.
    Object(String),
    /// Data of a backup that moves.
    Data {
        /// The first of its chain.
        base: BackupId,
        moving: Vec<Moving>,
        /// Where to.
        class: StorageClass,
    },
}

/// Every item, in the order in which those that go have to, and what it stands for.
pub(super) struct Plan {
    pub(super) items: Vec<Item>,
    pub(super) targets: Vec<Target>,
}

/// The inputs of the plan.
struct Planner<'a> {
    app: &'a AppContext,
    store: &'a dyn PruneStore,
    witness: &'a Witness<'a>,
    now: OffsetDateTime,
    /// Who runs what, by the names of leases that were asked for.
    held: HashMap<(String, Duration), Option<String>>,
    plan: Plan,
}

/// Decides about everything in `store`.
pub(super) fn plan(
    app: &AppContext,
    store: &dyn PruneStore,
    witness: &Witness<'_>,
    now: OffsetDateTime,
) -> anyhow::Result<Plan> {
    let entries = catalog::contents(store, &Filter::default(), &app.ctx.cancel)?;
    let (whole, rest): (Vec<Entry>, Vec<Entry>) =
        entries.into_iter().partition(|entry| entry.manifest.is_some());
    let (held, plan) = (HashMap::new(), Plan { items: Vec::new(), targets: Vec::new() });
    let mut planner = Planner { app, store, witness, now, held, plan };
    // Of a log at rest and one whose job fails nothing goes either: its manifests stay.
    let spare = log_files::spare(app, store, &witness.keys, &whole)?;
    let late = planner.backups(whole)?;
    planner.orphans(rest, late)?;
    // A clock that was set forward makes leases, records and uploads old, too.
    if late.is_none() {
        planner.log_files(spare);
        planner.upkeep()?;
    }
    Ok(planner.plan)
}

impl Planner<'_> {
    fn add(&mut self, item: Item, target: Target) {
        self.plan.items.push(item);
        self.plan.targets.push(target);
    }

    /// Decides about backups. Returns why nothing may be called old today.
    fn backups(&mut self, entries: Vec<Entry>) -> anyhow::Result<Option<&'static str>> {
        let Planner { app, store, witness, now, .. } = *self;
        let decider = Decider { app, store, witness, entries: &entries, now };
        let decision = decider.decide()?;
        let mut moves = Vec::new();
        // A clock that was set forward makes everything old.
        if let Some(tiers) = store.tiers().filter(|_| decision.late.is_none()) {
            let (entries, decision, ctx) = (&entries, &decision, &app.ctx);
            moves = TierPlanner { store, entries, decision, now, ctx }.plan(tiers)?;
        }
        let CleanupDecision { gone, reasons, locked, of_logs, backups, ours, links: _, late } =
            decision;
        let gone_set: HashSet<usize> = gone.iter().copied().collect();
        let stay = (0..entries.len()).filter(|at| !gone_set.contains(at));
        let order: Vec<usize> = gone.iter().copied().chain(stay).collect();
        let mut entries: Vec<Option<Entry>> = entries.into_iter().map(Some).collect();
        for at in order {
            let (Some(entry), Some(reasons), Some(backup)) =
                (entries.get_mut(at).and_then(Option::take), reasons.get(at), backups.get(at))
            else {
                continue;
            };
            let of_log =
                logs::is_segment(&entry) && matches!(reasons.as_slice(), [KeepReason::Ungoverned]);
            let reasons: Vec<String> = if of_log {
                vec!["part of a retained log".to_owned()]
            } else {
                reasons.iter().map(KeepReason::to_string).collect()
            };
            let (action, reason) = if !gone_set.contains(&at) {
                let action = if locked.contains(&at) { Action::Retain } else { Action::Keep };
                (action, reasons.join(", "))
            } else if let Some(holder) = self.lease_holder(&entry.name, CLOCKS_APART)? {
                (Action::Keep, busy_reason(&holder))
            } else if of_logs.contains_key(&at) {
                (Action::Remove, "keep_log: no retained moment needs it".to_owned())
            } else {
                (Action::Remove, "no rule keeps it".to_owned())
            };
            let item = item(ItemKind::Backup, action, &entry, reason);
            let (sha256, may_be_ours) = ours.get(at).copied().unwrap_or_default();
            // Of a log the first segment that cannot be removed keeps those after it.
            let base = of_logs.get(&at).copied().unwrap_or(backup.base);
            let entry = Box::new(entry);
            self.add(item, Target::Entry { entry, base, sha256, may_be_ours });
        }
        for PlannedMove { item, base, moving, class } in moves {
            self.add(item, Target::Data { base, moving, class });
        }
        Ok(late)
    }

    fn orphans(&mut self, entries: Vec<Entry>, late: Option<&str>) -> anyhow::Result<()> {
        let limit = signed(self.app.settings.upkeep.orphan_age);
        for entry in entries {
            let age = self.now - entry.name.id.created();
            let days = age.whole_days();
            let (action, reason) = if entry.is_being_removed() && age > MARK_AGE {
                (Action::Remove, "leftover of a removed backup".to_owned())
            } else if age <= limit {
                (Action::Keep, "no manifest yet; a run may be in progress".to_owned())
            } else if let Some(why) = late {
                (Action::Keep, format!("nothing is removed: {why}"))
            } else {
                (Action::Remove, format!("belongs to no backup, {days} days old"))
            };
            // Its run may have begun by a clock that was far behind.
            let held = if action == Action::Remove {
                self.lease_holder(&entry.name, limit)?
            } else {
                None
            };
            let (action, reason) =
                held.map_or((action, reason), |holder| (Action::Keep, busy_reason(&holder)));
            let base = entry.name.id;
            let item = item(ItemKind::Orphan, action, &entry, reason);
            let (entry, sha256, may_be_ours) = (Box::new(entry), None, false);
            self.add(item, Target::Entry { entry, base, sha256, may_be_ours });
        }
        Ok(())
    }

    fn log_files(&mut self, spare: Vec<ListedFile>) {
        for file in spare {
            let (what, action, key) = (ItemKind::LogFile, Action::Remove, file.name.key());
            let (id, source, bytes) = (None, Some(file.name.source), file.bytes);
            let reason = "before every moment that restores".to_owned();
            let target = Target::Object(key.clone());
            self.add(Item { what, action, id, source, key, bytes, reason }, target);
        }
    }

    /// Uploads, leases and records that are old.
    fn upkeep(&mut self) -> anyhow::Result<()> {
        let Planner { app, store, now, .. } = *self;
        let upkeep = app.settings.upkeep;
        let limit = signed(upkeep.orphan_age);
        let before = now - limit;
        let mut plain = |what, key: &str, bytes, reason: String, target| {
            let (action, key) = (Action::Remove, key.to_owned());
            let item = Item { what, action, id: None, source: None, key, bytes, reason };
            self.plan.items.push(item);
            self.plan.targets.push(target);
        };
        for term in in_store::stale(store, before, now)? {
            let target = Target::Object(term.key.clone());
            plain(ItemKind::Lease, &term.key, term.bytes, "an expired lease".into(), target);
        }
        let records = records::below(store, record::FOLDER)?;
        for record in old_records(&records, now - signed(upkeep.records)) {
            let target = Target::Object(record.key());
            plain(ItemKind::Record, &record.key(), 0, "the record of an old run".into(), target);
        }
        for upload in store.unfinished(before)? {
            let name = BackupName::parse(&upload.key).map(|(name, _)| name);
            if let Some(name) = name
                && self.lease_holder(&name, limit)?.is_some()
            {
                continue;
            }
            let (action, key) = (Action::Remove, upload.key.clone());
            let reason = format!("an unfinished upload, begun on {}", upload.begun.date());
            let (what, id, source, bytes) = (ItemKind::Upload, None, None, 0);
            let item = Item { what, action, id, source, key, bytes, reason };
            self.add(item, Target::Upload(upload));
        }
        Ok(())
    }

    /// Who may be making a backup of the same source and kind.
    fn lease_holder(
        &mut self,
        name: &BackupName,
        grace: Duration,
    ) -> Result<Option<String>, StoreError> {
        let asked = (run_guard::lease_name(&name.source, &name.kind), grace);
        if let Some(known) = self.held.get(&asked) {
            return Ok(known.clone());
        }
        let holder = in_store::held(self.store, &asked.0, self.now, grace)?;
        self.held.insert(asked, holder.clone());
        Ok(holder)
    }
}

/// The records from before a time, but of each job not that of its last good run: without that the job
/// would look as if it had never run.
fn old_records(records: &[Record], before: OffsetDateTime) -> Vec<&Record> {
    let good = records.iter().filter(|record| record.outcome() == RunOutcome::Good);
    let mut last: BTreeMap<&str, BackupId> = BTreeMap::new();
    for record in good {
        let newest = last.entry(&record.job).or_insert(record.id);
        *newest = record.id.max(*newest);
    }
    let is_old = |record: &&Record| {
        record.id.created() < before && last.get(record.job.as_str()) != Some(&record.id)
    };
    records.iter().filter(is_old).collect()
}

fn item(what: ItemKind, action: Action, entry: &Entry, reason: String) -> Item {
    Item {
        what,
        action,
        id: Some(entry.name.id),
        source: Some(entry.name.source.clone()),
        key: entry.name.manifest_key(),
        bytes: entry.stored_bytes(),
        reason,
    }
}

fn signed(length: std::time::Duration) -> Duration {
    Duration::try_from(length).unwrap_or(Duration::MAX)
}

/// Why something of a source stays while somebody runs it.
pub(super) fn busy_reason(holder: &str) -> String {
    format!("a run is in progress: {holder}")
}
