//! Removes backups in steps that can be interrupted at any point.
//!
//! A backup exists as long as its manifest does. So first it is marked and the deletion noted, then
//! its manifest goes, then its objects, and the mark last: whatever stops this, what is listed is
//! whole, and the next cleanup finds by the mark what is left to do.
//!
//! Between the mark and the rest it looks again: whoever pins a backup, or publishes one that builds on
//! it, writes first and looks for the mark then, so one of the two always sees the other.

use serde::Serialize;
use time::{Duration, OffsetDateTime};

use super::item::{Action, Item, ItemKind};
use super::plan::{CLOCKS_APART, Target, busy_reason};
use crate::catalog::{self, Entry};
use crate::cmd::cleanup::deletion_log;
use crate::ctx::host;
use crate::domain::names::{BackupName, Mark};
use crate::error::{Fault, Kind};
use crate::keys::keyring::Keyring;
use crate::ledger::in_store;
use crate::ledger::outbox::Outbox;
use crate::ops::annotations::judge;
use crate::ops::authenticity::ProofChecker;
use crate::ops::exclusive_run::ExclusiveRun;
use crate::ops::records;
use crate::ops::run_guard;
use crate::store::{PruneStore, Role, StoreError};
use crate::wire::AppContext;

/// How many versions of a manifest are removed, one below the other.
const VERSIONS_MAX: usize = 100;

/// So many failures one after the other are the store's, not those of one backup.
pub(super) const FAILURES_MAX: usize = 3;

/// How things are removed from one store.
pub(super) struct Remover<'a> {
    pub(super) app: &'a AppContext,
    pub(super) store: &'a dyn PruneStore,
    /// The leases of this cleanup.
    pub(super) exclusive_run: &'a ExclusiveRun<'a>,
    /// What keeps replications to the store away.
    pub(super) content_run: &'a ExclusiveRun<'a>,
    /// The place of the store among them.
    pub(super) index: usize,
    /// Where deletions are noted besides the store until the ledger has them.
    pub(super) intents: &'a Option<Outbox>,
    pub(super) keys: &'a Keyring,
}

/// How a removal ended.
#[derive(Debug)]
pub(super) enum RemovalOutcome {
    /// All of it is gone, or all but what the text names.
    Gone(Option<String>),
    /// It was left as it was, for this reason.
    Stays(Action, String),
}

/// A removal that came to no end.
#[derive(Debug)]
pub(super) struct RemovalError {
    pub(super) error: anyhow::Error,
    /// Whether its manifest is gone; `None` if the store does not say.
    pub(super) gone: Option<bool>,
}

/// What the mark of a backup that is being removed says, schema `bkp.mark/1`.
#[derive(Debug, Serialize)]
struct DeletingMark {
    schema: &'static str,
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
    host: String,
    process: u32,
}

impl<E: Into<anyhow::Error>> From<E> for RemovalError {
    fn from(error: E) -> RemovalError {
        RemovalError { error: error.into(), gone: Some(false) }
    }
}

impl Remover<'_> {
    /// Makes sure that nobody else can have begun to change what the store has.
    pub(super) fn confirm(&self) -> anyhow::Result<()> {
        self.app.ctx.cancel.check()?;
        self.exclusive_run.confirm(self.index)?;
        Ok(self.content_run.confirm(0)?)
    }

    /// Removes what `target` is. What the store locks stays, and so does what somebody needs by now.
    pub(super) fn remove(
        &self,
        item: &Item,
        target: &Target,
    ) -> Result<RemovalOutcome, RemovalError> {
        self.confirm()?;
        match target {
            Target::Upload(upload) => {
                self.store.abort(upload)?;
                Ok(RemovalOutcome::Gone(None))
            }
            Target::Object(key) => Ok(match self.delete(key)? {
                Some(until) => RemovalOutcome::Stays(Action::Retain, locked(until)),
                None => RemovalOutcome::Gone(None),
            }),
            Target::Entry { entry, sha256, .. } if item.what == ItemKind::Backup => {
                self.backup(item, entry, *sha256)
            }
            Target::Entry { entry, .. } => self.orphan(entry),
            Target::Data { .. } => {
                Ok(RemovalOutcome::Stays(Action::Keep, "it only moves".to_owned()))
            }
        }
    }

    fn backup(
        &self,
        item: &Item,
        entry: &Entry,
        decided_on: Option<[u8; 32]>,
    ) -> Result<RemovalOutcome, RemovalError> {
        let mark = self.mark(&entry.name)?;
        let now = catalog::again(self.store, &entry.name)?;
        if let Some(why) = self.reason_to_keep(&now, CLOCKS_APART)? {
            self.delete(&mark)?;
            return Ok(RemovalOutcome::Stays(Action::Keep, why));
        }
        let has_ledger = self.app.settings.ledger.is_some();
        let noted = (item, entry, decided_on);
        let event =
            deletion_log::record_deletion(self.store, noted, has_ledger, self.keys, &self.app.ctx)?;
        if let Some((intents, event)) = self.intents.as_ref().zip(event) {
            intents.put(&event)?;
        }
        match self.delete_manifest(&entry.name.manifest_key()) {
            Ok(None) => {}
            Ok(Some(until)) => {
                self.delete(&mark)?;
                return Ok(RemovalOutcome::Stays(Action::Retain, locked(until)));
            }
            Err(error) => return Err(RemovalError { gone: self.is_gone(&entry.name), error }),
        }
        let rest =
            self.delete_objects(&now).map_err(|error| RemovalError { error, gone: Some(true) })?;
        Ok(RemovalOutcome::Gone(rest.map(|until| format!("the remainder is {}", locked(until)))))
    }

    /// Removes what has no manifest; a run may be about to write it.
    fn orphan(&self, entry: &Entry) -> Result<RemovalOutcome, RemovalError> {
        let mark = if entry.is_being_removed() {
            entry.name.key(&Mark::Deleting.extension())
        } else {
            self.mark(&entry.name)?
        };
        let now = catalog::again(self.store, &entry.name)?;
        let grace = Duration::try_from(self.app.settings.upkeep.orphan_age);
        let appeared = now.manifest.map(|_| "it has a manifest now".to_owned());
        let busy = self.reason_to_keep(&now, grace.unwrap_or(Duration::MAX))?;
        if let Some(why) = appeared.or(busy) {
            self.delete(&mark)?;
            return Ok(RemovalOutcome::Stays(Action::Keep, why));
        }
        let until = self.delete_objects(&now)?;
        if self.is_gone(&entry.name) == Some(false) {
            let message =
                format!("backup {} became visible while it was being removed", entry.name.id);
            let hint = "check the clocks of the hosts; the run that made it reports a failure";
            return Err(Fault::new(Kind::Integrity, message).hint(hint).into());
        }
        Ok(match until {
            Some(until) => RemovalOutcome::Stays(Action::Retain, locked(until)),
            None => RemovalOutcome::Gone(None),
        })
    }

    /// Marks a backup as one that is being removed. Returns the key of the mark.
    fn mark(&self, name: &BackupName) -> anyhow::Result<String> {
        let mark = name.key(&Mark::Deleting.extension());
        let (at, process) = (self.app.ctx.now(), std::process::id());
        let body = DeletingMark { schema: "bkp.mark/1", at, host: host(), process };
        records::add(self.store, (&mark, Role::Lease), &body)?;
        Ok(mark)
    }

    /// Why something stays that was to be removed a moment ago.
    fn reason_to_keep(&self, now: &Entry, grace: Duration) -> Result<Option<String>, StoreError> {
        let proof_checker = ProofChecker::new(self.store, self.keys, &self.app.ctx);
        if judge(self.store, &proof_checker, &now.name, &now.marks)?.pinned {
            return Ok(Some("pinned".to_owned()));
        }
        let job = run_guard::lease_name(&now.name.source, &now.name.kind);
        let held = in_store::held(self.store, &job, self.app.ctx.now(), grace)?;
        Ok(held.map(|holder| busy_reason(&holder)))
    }

    /// Removes every version of a manifest: where a bucket has versions, the one below the newest would
    /// come to light. Returns until when the store locks it, if it does.
    fn delete_manifest(&self, key: &str) -> anyhow::Result<Option<OffsetDateTime>> {
        for _ in 0..VERSIONS_MAX {
            if let Some(until) = self.delete(key)? {
                return Ok(Some(until));
            }
            match self.store.head(key) {
                Err(StoreError::Missing { .. }) => return Ok(None),
                Err(error) => return Err(error.into()),
                Ok(_) => {}
            }
        }
        let message = format!("{}: `{key}` was deleted but still exists", self.store.url());
        let hint = "inspect the versions of this object and delete them";
        Err(Fault::new(Kind::Store, message).hint(hint).into())
    }

    /// Whether the manifest is gone, if the store says.
    fn is_gone(&self, name: &BackupName) -> Option<bool> {
        match self.store.head(&name.manifest_key()) {
            Ok(_) => Some(false),
            Err(StoreError::Missing { .. }) => Some(true),
            Err(_) => None,
        }
    }

    /// Removes everything but the manifest, the mark of its removal last. Returns until when the store
    /// locks what it leaves.
    fn delete_objects(&self, entry: &Entry) -> anyhow::Result<Option<OffsetDateTime>> {
        let mut until = None;
        for object in &entry.objects {
            until = until.max(self.delete(&object.key)?);
        }
        for other in entry.marks.iter().filter(|mark| **mark != Mark::Deleting) {
            until = until.max(self.delete(&entry.name.key(&other.extension()))?);
        }
        if until.is_none() {
            until = self.delete(&entry.name.key(&Mark::Deleting.extension()))?;
        }
        Ok(until)
    }

    /// Removes an object. Returns until when the store locks it, if it does.
    fn delete(&self, key: &str) -> Result<Option<OffsetDateTime>, StoreError> {
        match self.store.delete(key) {
            Ok(()) => Ok(None),
            Err(StoreError::Retained { until, .. }) => Ok(Some(until)),
            Err(error) => Err(error),
        }
    }

    /// Takes the mark from a backup that stays; an earlier cleanup had begun to remove it.
    pub(super) fn unmark(&self, entry: &Entry) -> Result<(), StoreError> {
        self.delete(&entry.name.key(&Mark::Deleting.extension())).map(|_until| ())
    }
}

fn locked(until: OffsetDateTime) -> String {
    format!("locked by the store until {}", until.date())
}
