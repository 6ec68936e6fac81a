//! Copies of backups.

use std::collections::{HashMap, HashSet};

use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use super::progress::{Copied, Presence, Progress, StoredBackup, sizes};
use super::replication::{COPIES, Replication};
use super::report::{CopiesReport, CopyAction};
use crate::catalog::{self, Entry, Filter, Need};
use crate::concurrent::each_of_few;
use crate::domain::backup_kind::BackupKind;
use crate::domain::event::{Event, Status};
use crate::domain::manifest::{Manifest, ObjectRecord};
use crate::domain::names::BackupName;
use crate::error::{Fault, Kind, diagnose, worst};
use crate::pipeline::BackupReader;
use crate::store::{Declared, ObjectLabels, StoreError};

/// After so many failures one after the other both stores are asked whether they answer at all.
const FAILURES_MAX: usize = 3;

impl Replication<'_> {
    /// Copies every backup that is wanted and not there. Returns what waits to be told to the ledger.
    pub(super) fn backups(&self, report: &mut CopiesReport) -> anyhow::Result<Option<Kind>> {
        let cancel = &self.app.ctx.cancel;
        let filter = Filter { source: self.source.map(str::to_owned), ..Filter::default() };
        let mut here = catalog::contents(self.origin, &filter, cancel)?;
        // Also what is marked as being removed: the mark may be somebody's who has no key.
        here.retain(|entry| entry.manifest.is_some());
        let there = catalog::contents(self.destination, &filter, cancel)?;
        self.check_source(&here, &there)?;
        let here = self.stored(self.origin, here)?;
        let (whole, rest): (Vec<Entry>, Vec<Entry>) =
            there.into_iter().partition(|entry| entry.manifest.is_some());
        let rest = rest.into_iter().map(|entry| StoredBackup { entry, facts: None });
        let there = self.stored(self.destination, whole)?.into_iter().chain(rest);
        let there: HashMap<BackupName, StoredBackup> =
            there.map(|backup| (backup.entry.name.clone(), backup)).collect();
        let names: HashSet<&BackupName> = here.iter().map(|backup| &backup.entry.name).collect();
        let only_there = there.values().filter(|backup| !names.contains(&backup.entry.name));
        let unwanted = self.unwanted(&here, &only_there.collect::<Vec<_>>());
        let mut progress = Progress::of(there, &here);
        let mut pending = None;
        for backup in &here {
            self.confirm()?;
            let name = &backup.entry.name;
            let presence = progress.presence(backup);
            if presence == Presence::None && unwanted.contains(name) {
                let reason = "the retention of that store would not keep it".to_owned();
                report.add(&backup.entry, CopyAction::LeftOut, Some(reason));
                continue;
            }
            let ended = match (self.reseal, presence) {
                (None, Presence::None) => self.copy(backup, &progress),
                (Some(reseal), Presence::None) => self.seal_anew(reseal, backup, &progress),
                (None, Presence::Same | Presence::Resealed) => Ok(Copied::Before),
                (Some(reseal), Presence::Same | Presence::Resealed) => {
                    self.check_recipients(reseal, &backup.entry, &progress)
                }
            };
            let is_new = self.reseal.is_some() && presence == Presence::None && ended.is_ok();
            if is_new || presence == Presence::Resealed {
                progress.resealed.insert(name.id);
            }
            report.present_resealed += usize::from(presence == Presence::Resealed && ended.is_ok());
            pending = worst(pending, self.settle(&backup.entry, ended, &mut progress, report)?);
            if progress.is_complete(name.id) {
                self.annotations(&backup.entry, &progress, report);
            }
        }
        Ok(pending)
    }

    /// That a source that was named exists.
    fn check_source(&self, here: &[Entry], there: &[Entry]) -> anyhow::Result<()> {
        let Some(source) = self.source else { return Ok(()) };
        if !here.is_empty() || !there.is_empty() || self.app.settings.sources.contains_key(source) {
            return Ok(());
        }
        let message = format!("no source `{source}` in the configuration or in either store");
        Err(Fault::new(Kind::NotFound, message).hint("see `bkp list`").into())
    }

    /// Copies one backup. When this returns without an error it is there, all of it what the manifest says.
    fn copy(&self, backup: &StoredBackup, progress: &Progress) -> anyhow::Result<Copied> {
        let began = self.app.ctx.now();
        let (name, ctx) = (&backup.entry.name, &self.app.ctx);
        progress.check_resealed(backup, self.destination.url())?;
        let (reader, sha256) = self.catalog.open_for(name, Need::Proof)?;
        let manifest = reader.manifest();
        progress.check(manifest)?;
        let objects: Vec<&ObjectRecord> = reader.objects(ctx)?.collect();
        let lacking = progress.lacking(name, objects.iter().copied());
        if self.dry_run {
            return Ok(Copied::Now(None));
        }
        let retain_until = self.retain_until(manifest);
        let bytes = lacking.iter().map(|object| object.bytes).sum();
        ctx.monitor.begin(&format!("copy {} {}", name.kind, name.id), Some(bytes));
        each_of_few(&lacking, COPIES, &ctx.cancel, |object| {
            reader.copy_object(object, (self.destination, retain_until), ctx)
        })?;
        self.lock_longer(&reader, retain_until);
        self.confirm()?;
        self.check_copies(name, &objects)?;
        let bytes = self.manifest_of(name, sha256)?;
        let key = name.manifest_key();
        let was_there = self.publish((&key, &bytes), retain_until)?;
        if was_there {
            self.check_same(&key, &bytes)?;
        }
        let was_there = was_there && lacking.is_empty();
        if was_there {
            return Ok(Copied::Before);
        }
        let seconds = (ctx.now() - began).whole_seconds();
        let seconds = u32::try_from(seconds.max(0)).unwrap_or(u32::MAX);
        let event = Event::completed(manifest, &sha256).read(Status::Copied, began, seconds);
        Ok(Copied::Now(self.tell(&event)))
    }

    /// That every object is there right before the manifest is, and that nobody has begun to remove them: a host
    /// that slept may have been overtaken by a cleanup.
    pub(super) fn check_copies(
        &self,
        name: &BackupName,
        objects: &[&ObjectRecord],
    ) -> anyhow::Result<()> {
        let now = catalog::again(self.destination, name)?;
        let sizes = sizes(&now);
        let is_gone = |object: &&&ObjectRecord| sizes.get(&*object.key) != Some(&object.bytes);
        match objects.iter().find(is_gone) {
            Some(gone) => Err(self.overtaken(&gone.key)),
            None if now.is_being_removed() => Err(self.overtaken(&name.manifest_key())),
            None => Ok(()),
        }
    }

    fn overtaken(&self, key: &str) -> anyhow::Error {
        let message =
            format!("{}: `{key}` was removed while it was copied", self.destination.url());
        Fault::new(Kind::Refused, message).hint("run it again").into()
    }

    /// The bytes of the manifest of a backup, the one that was authenticated.
    pub(super) fn manifest_of(
        &self,
        name: &BackupName,
        sha256: [u8; 32],
    ) -> anyhow::Result<Vec<u8>> {
        let key = name.manifest_key();
        let bytes = catalog::read_manifest(self.origin, &key)?;
        if <[u8; 32]>::from(Sha256::digest(&bytes)) != sha256 {
            let message = format!("{}: `{key}` changed while it was copied", self.origin.url());
            let hint = "somebody overwrote it; check who can write to that store";
            return Err(Fault::new(Kind::Integrity, message).hint(hint).into());
        }
        Ok(bytes)
    }

    /// Writes a manifest. Whether there was one already.
    pub(super) fn publish(
        &self,
        (key, bytes): (&str, &[u8]),
        retain_until: Option<OffsetDateTime>,
    ) -> anyhow::Result<bool> {
        let declared = Declared { bytes: bytes.len() as u64, sha256: Sha256::digest(bytes).into() };
        let labels = ObjectLabels { retain_until, ..ObjectLabels::default() };
        let written = self.destination.create(key, &labels);
        let written = written.and_then(|mut upload| {
            upload.write(bytes)?;
            upload.commit(declared)
        });
        match written {
            Err(StoreError::Exists { .. }) => Ok(true),
            written => Ok(written.map(|()| false)?),
        }
    }

    /// That the other store has this manifest.
    fn check_same(&self, key: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let there = catalog::read_manifest(self.destination, key);
        if there.as_ref().is_ok_and(|there| there == bytes) {
            return Ok(());
        }
        if let Err(error) = there
            && !catalog::is_unproven(&error)
        {
            return Err(error);
        }
        let (from, to) = (self.origin.url(), self.destination.url());
        let message = format!("{to}: `{key}` differs from the manifest in {from}");
        let hint = "the original is authentic, so the copy was altered: check who can write to that store, and remove the copy by hand";
        Err(Fault::new(Kind::Integrity, message).hint(hint).into())
    }

    /// Puts into the report how copying a backup ended.
    ///
    /// # Errors
    /// What it failed with, if a store no longer answers; that the run is to stop, or was overtaken.
    fn settle(
        &self,
        entry: &Entry,
        ended: anyhow::Result<Copied>,
        progress: &mut Progress,
        report: &mut CopiesReport,
    ) -> anyhow::Result<Option<Kind>> {
        let id = entry.name.id;
        progress.settle(id, ended.is_ok());
        let error = match ended {
            Ok(copied) => {
                progress.failures_in_a_row = 0;
                return Ok(match copied {
                    Copied::Now(pending) => {
                        report.copied_bytes += entry.stored_bytes();
                        report.add(entry, CopyAction::Copied, None);
                        pending
                    }
                    Copied::Before => {
                        report.present += 1;
                        None
                    }
                });
            }
            Err(error) => error,
        };
        self.confirm()?;
        let key = entry.name.manifest_key();
        if matches!(self.origin.head(&key), Err(StoreError::Missing { .. })) {
            let reason = "it was removed from the first store meanwhile".to_owned();
            report.add(entry, CopyAction::LeftOut, Some(reason));
            return Ok(None);
        }
        if diagnose(&error).kind == Kind::Store {
            progress.failures_in_a_row += 1;
            if progress.failures_in_a_row >= FAILURES_MAX && self.check_answering().is_err() {
                return Err(error);
            }
        }
        let why = format!("{error:#}; {}", diagnose(&error).hint);
        self.app.ctx.monitor.warn(&format!("{key}: {why}"));
        report.add(entry, CopyAction::Failed, Some(why));
        Ok(None)
    }

    /// Until when a copy must not be removed: as long as the retention of the other store keeps everything, or
    /// else as the manifest promises.
    pub(super) fn retain_until(&self, manifest: &Manifest) -> Option<OffsetDateTime> {
        match self.app.own_retention(self.destination.name()) {
            Some(policy) => manifest.id.created().checked_add(policy.within?),
            None => manifest.retention.until,
        }
    }

    /// Sees to it that what a backup builds on is locked for as long as its copy, where the store locks.
    pub(super) fn lock_longer(&self, reader: &BackupReader<'_>, until: Option<OffsetDateTime>) {
        let manifest = reader.manifest();
        if manifest.parent.is_none() || BackupKind::Log.as_str() == manifest.kind {
            return;
        }
        let keys = self.keys_below(&manifest.name());
        if let Err(error) = keys.and_then(|keys| Ok(self.destination.lock_longer(&keys, until)?)) {
            self.app.ctx.monitor.warn(&format!(
                "{}: the locks of the backups that {} builds on expire before its own: {error:#}",
                self.destination.url(),
                manifest.id
            ));
        }
    }

    /// The keys of everything that a backup builds on.
    fn keys_below(&self, name: &BackupName) -> anyhow::Result<Vec<String>> {
        let mut keys = Vec::new();
        for link in self
            .catalog
            .chain_for(name, Need::Proof)?
            .iter()
            .filter(|link| link.manifest().id != name.id)
        {
            keys.extend(link.objects(&self.app.ctx)?.map(|object| object.key.clone()));
            keys.push(link.manifest().name().manifest_key());
        }
        Ok(keys)
    }
}
