//! Removes, so that it can be stopped at any instruction.
//!
//! A backup exists as long as its manifest does. So first it is marked and the deletion noted, then
//! its manifest goes, then its objects, and the mark last: whatever stops this, what is listed is
//! whole, and the next cleanup finds by the mark what is left to do.

use serde::Serialize;
use sha2::Digest as _;
use time::OffsetDateTime;

use super::plan::Target;
use super::{Action, Item, What};
use crate::catalog::{self, Entry};
use crate::cmd::alone::host;
use crate::cmd::journal;
use crate::domain::event::Event;
use crate::domain::id::BackupId;
use crate::domain::manifest::{Manifest, hex};
use crate::domain::names::Mark;
use crate::ledger::outbox::Outbox;
use crate::store::{PruneStore, Role, StoreError};
use crate::wire::House;

/// How things are removed from one store.
pub(super) struct Removal<'a> {
    pub(super) house: &'a House,
    pub(super) store: &'a dyn PruneStore,
    /// Where deletions are noted until the ledger has them; without a ledger the store notes them.
    pub(super) intents: &'a Option<Outbox>,
}

/// What is kept of a backup that was removed, schema `bkp.audit/1`.
#[derive(Debug, Serialize)]
struct Deleted<'a> {
    schema: &'static str,
    what: &'static str,
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
    backup: BackupId,
    manifest: &'a str,
    sha256: String,
    bytes: u64,
    reason: &'a str,
    host: String,
    process: u32,
}

/// What the mark of a backup that is being removed says, schema `bkp.mark/1`.
#[derive(Debug, Serialize)]
struct Going {
    schema: &'static str,
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
    host: String,
    process: u32,
}

impl Removal<'_> {
    /// Removes what `target` is. If the store locks it, the item says so and stays.
    pub(super) fn remove(&self, item: &mut Item, target: &Target) -> anyhow::Result<()> {
        let done = match target {
            Target::Upload(upload) => self.store.abort(upload).map_err(Into::into),
            Target::Object(key) => self.store.delete(key).map_err(Into::into),
            Target::Entry(entry) => self.entry(item, entry),
        };
        match done {
            Err(error) => match error.downcast_ref() {
                Some(StoreError::Retained { until, .. }) => {
                    item.reason = format!("locked by the store until {}", until.date());
                    item.action = Action::Retain;
                    Ok(())
                }
                _ => Err(error),
            },
            Ok(()) => Ok(()),
        }
    }

    fn entry(&self, item: &Item, entry: &Entry) -> anyhow::Result<()> {
        let mark = entry.name.key(&Mark::Deleting.extension());
        if item.what == What::Backup {
            self.note(item, entry)?;
            let (at, process) = (self.house.ctx.now(), std::process::id());
            let going = Going { schema: "bkp.mark/1", at, host: host(), process };
            journal::add(self.store, (&mark, Role::Lease), &going)?;
            match self.store.delete(&entry.name.manifest_key()) {
                Err(locked @ StoreError::Retained { .. }) => {
                    self.store.delete(&mark)?;
                    return Err(locked.into());
                }
                done => done?,
            }
        }
        for object in &entry.objects {
            self.store.delete(&object.key)?;
        }
        for other in entry.marks.iter().filter(|mark| **mark != Mark::Deleting) {
            self.store.delete(&entry.name.key(&other.extension()))?;
        }
        Ok(self.store.delete(&mark)?)
    }

    /// Notes that a backup is about to be removed.
    fn note(&self, item: &Item, entry: &Entry) -> anyhow::Result<()> {
        let key = entry.name.manifest_key();
        let bytes = catalog::read_manifest(self.store, &key)?;
        let sha256: [u8; 32] = sha2::Sha256::digest(&bytes).into();
        if let Some(intents) = self.intents {
            let manifest = Manifest::parse(&bytes, &key)?;
            return Ok(intents.put(&Event::completed(&manifest, &sha256).deleted())?);
        }
        let at = self.house.ctx.now();
        let deleted = Deleted {
            schema: "bkp.audit/1",
            what: "deleted",
            at,
            backup: entry.name.id,
            manifest: &key,
            sha256: hex(&sha256),
            bytes: item.bytes,
            reason: &item.reason,
            host: host(),
            process: std::process::id(),
        };
        let (year, month, day) = at.to_calendar_date();
        let (month, id) = (u8::from(month), entry.name.id);
        let place = format!("audit/{year:04}/{month:02}/{day:02}/deleted-{id}.json");
        journal::add(self.store, (&place, Role::Index), &deleted)
    }
}
