//! Copies of backups.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use super::progress::Progress;
use super::replication::{COPIES, Replication};
use super::report::{CopiesReport, CopyAction, CopyItem};
use crate::catalog::{self, Authenticity, BackupFacts, Entry, FactsCache, Filter};
use crate::concurrent::each_of_few;
use crate::domain::backup_kind::BackupKind;
use crate::domain::event::{Event, Status};
use crate::domain::manifest::{Identity, ObjectRecord};
use crate::domain::names::BackupName;
use crate::domain::retention::{Backup, Group, Policy, decide};
use crate::error::{Fault, Kind, diagnose, worst};
use crate::pipeline::BackupReader;
use crate::store::{Declared, ObjectLabels, StoreError};

/// So many failures one after the other are a store's, not those of one backup.
const FAILURES_MAX: usize = 3;

impl Replication<'_> {
    /// Copies every backup that is wanted and not there. Returns what waits to be told to the ledger.
    pub(super) fn backups(&self, report: &mut CopiesReport) -> anyhow::Result<Option<Kind>> {
        let cancel = &self.app.ctx.cancel;
        let filter = Filter { source: self.source.map(str::to_owned), ..Filter::default() };
        let mut here = catalog::contents(self.origin, &filter, cancel)?;
        here.retain(|entry| entry.manifest.is_some() && !entry.is_being_removed());
        let there = catalog::contents(self.destination, &filter, cancel)?;
        let wanted = self.wanted(&here)?;
        let mut progress = Progress::of(&here, there);
        let mut pending = None;
        for (entry, wanted) in here.iter().zip(wanted) {
            self.confirm()?;
            if progress.has(entry) {
                report.present += 1;
                progress.whole.insert(entry.name.id);
            } else if let Some(reason) = progress.left_out(entry, wanted) {
                report.items.push(CopyItem::of(entry, CopyAction::LeftOut, Some(reason)));
                continue;
            } else {
                let ended = self.copy(entry, &mut progress);
                pending = worst(pending, self.note(entry, ended, &mut progress, report)?);
            }
            if progress.whole.contains(&entry.name.id) {
                self.annotations(entry, &progress, report);
            }
        }
        self.lock_longer(&progress);
        Ok(pending)
    }

    /// For each backup whether a policy of the other store would keep it, if it were there with all others:
    /// what a cleanup would remove at once is not copied.
    fn wanted(&self, here: &[Entry]) -> anyhow::Result<Vec<bool>> {
        let (app, ctx) = (self.app, &self.app.ctx);
        let mut cache = FactsCache::of(&app.settings.state_dir, self.origin.url());
        let facts = cache.backups(self.origin, here, self.keys, ctx)?;
        cache.save(here, ctx);
        let backup = |(entry, facts): (&Entry, &BackupFacts)| {
            let mut backup = facts.backup;
            backup.proven = facts.proof == Authenticity::Authentic;
            backup.pinned |= entry.is_pinned();
            if entry.name.kind == BackupKind::Log {
                (backup.parent, backup.base) = (None, backup.id);
            }
            backup
        };
        let backups: Vec<Backup> = here.iter().zip(&facts).map(backup).collect();
        let mut rules: Vec<(Policy, Vec<usize>)> = Vec::new();
        for job in app.settings.jobs.values() {
            let Some(policy) = app.retention(self.destination.name(), job) else { continue };
            // What goes there is not limited by how much goes at once.
            let policy = Policy { removed_percent_max: 100, frozen_after: None, ..policy };
            let mut members: BTreeMap<&Identity, Vec<usize>> = BTreeMap::new();
            for (at, (entry, facts)) in here.iter().zip(&facts).enumerate() {
                if job.is_maker_of(&entry.name) {
                    members.entry(&facts.identity).or_default().push(at);
                }
            }
            rules.extend(members.into_values().map(|members| (policy.clone(), members)));
        }
        let groups = rules.iter().map(|(policy, members)| {
            let (members, frozen) = (members.clone(), None);
            Group { policy, members, frozen }
        });
        let reasons = decide(&groups.collect::<Vec<_>>(), &backups, ctx.now());
        Ok(reasons.iter().map(|reasons| !reasons.is_empty()).collect())
    }

    /// Copies one backup. When this returns without an error it is there, all of it what the manifest says.
    fn copy(&self, entry: &Entry, progress: &mut Progress<'_>) -> anyhow::Result<Option<Kind>> {
        let began = self.app.ctx.now();
        let name = &entry.name;
        let (reader, sha256) = self.catalog.open(name)?;
        let manifest = reader.manifest();
        progress.check_parent(manifest)?;
        let known = progress.there.get(name);
        let ctx = &self.app.ctx;
        let objects: Vec<&ObjectRecord> = reader.objects(ctx)?.collect();
        let lacking: Vec<&ObjectRecord> =
            objects.into_iter().filter(|object| !is_there(known, object)).collect();
        if self.dry_run {
            return Ok(None);
        }
        let bytes = lacking.iter().map(|object| object.bytes).sum();
        ctx.monitor.begin(&format!("copy {} {}", name.kind, name.id), Some(bytes));
        each_of_few(&lacking, COPIES, &ctx.cancel, |object| {
            reader.copy_object(object, self.destination, ctx)
        })?;
        self.confirm()?;
        self.publish(&reader, sha256)?;
        if manifest.parent.is_some() {
            progress.newest.insert(manifest.base, name.clone());
        }
        let seconds = (ctx.now() - began).whole_seconds();
        let seconds = u32::try_from(seconds.max(0)).unwrap_or(u32::MAX);
        let event = Event::completed(manifest, &sha256).read(Status::Copied, began, seconds);
        Ok(self.tell(&event))
    }

    /// Writes the manifest, byte for byte the one that was authenticated.
    fn publish(&self, reader: &BackupReader<'_>, sha256: [u8; 32]) -> anyhow::Result<()> {
        let key = reader.manifest().name().manifest_key();
        let bytes = catalog::read_manifest(self.origin, &key)?;
        if <[u8; 32]>::from(Sha256::digest(&bytes)) != sha256 {
            let message = format!("{}: `{key}` changed while it was copied", self.origin.url());
            let hint = "somebody overwrote it; look at who can write to that store";
            return Err(Fault::new(Kind::Integrity, message).hint(hint).into());
        }
        let declared = Declared { bytes: bytes.len() as u64, sha256 };
        let written = self.destination.create(&key, &ObjectLabels::default());
        let written = written.and_then(|mut upload| {
            upload.write(&bytes)?;
            upload.commit(declared)
        });
        match written {
            Err(StoreError::Exists { .. }) => self.check_same(&key, &bytes),
            written => Ok(written?),
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
        let message = format!(
            "{}: `{key}` is not the manifest that {} has",
            self.destination.url(),
            self.origin.url()
        );
        let hint = "the one to copy is authentic; somebody altered the other: look at who can write to that store, and remove it by hand";
        Err(Fault::new(Kind::Integrity, message).hint(hint).into())
    }

    /// Puts into the report how copying a backup ended.
    fn note(
        &self,
        entry: &Entry,
        ended: anyhow::Result<Option<Kind>>,
        progress: &mut Progress<'_>,
        report: &mut CopiesReport,
    ) -> anyhow::Result<Option<Kind>> {
        match ended {
            Ok(pending) => {
                progress.failures_in_a_row = 0;
                progress.whole.insert(entry.name.id);
                report.copied += 1;
                report.copied_bytes += entry.stored_bytes();
                report.items.push(CopyItem::of(entry, CopyAction::Copied, None));
                Ok(pending)
            }
            Err(error) => {
                self.confirm()?;
                progress.failures_in_a_row += 1;
                let is_store = matches!(diagnose(&error).kind, Kind::Store | Kind::Failed);
                if is_store && progress.failures_in_a_row >= FAILURES_MAX {
                    return Err(error);
                }
                if entry.name.kind == BackupKind::Log {
                    let log = progress.log_of(&entry.name);
                    progress.broken.extend(log);
                }
                let why = format!("{error:#}");
                self.app.ctx.monitor.warn(&format!("{}: {why}", entry.name.manifest_key()));
                report.failed += 1;
                report.items.push(CopyItem::of(entry, CopyAction::Failed, Some(why)));
                Ok(None)
            }
        }
    }

    /// Sees to it that what the copies build on is locked for as long as they are, where the store locks.
    fn lock_longer(&self, progress: &Progress<'_>) {
        for name in progress.newest.values() {
            let locked =
                self.below(name).and_then(|keys| Ok(self.destination.lock_longer(&keys)?));
            if let Err(error) = locked {
                self.app.ctx.monitor.warn(&format!(
                    "{}: the locks of what {} builds on expire before its own: {error:#}",
                    self.destination.url(),
                    name.id
                ));
            }
        }
    }

    /// The keys of everything that a backup builds on.
    fn below(&self, name: &BackupName) -> anyhow::Result<Vec<String>> {
        let mut keys = Vec::new();
        for link in self.catalog.chain(name)?.iter().filter(|link| link.manifest().id != name.id) {
            keys.extend(link.objects(&self.app.ctx)?.map(|object| object.key.clone()));
            keys.push(link.manifest().name().manifest_key());
        }
        Ok(keys)
    }
}

/// Whether a listing of the other store shows an object of a backup that is complete there.
fn is_there(known: Option<&Entry>, object: &ObjectRecord) -> bool {
    let Some(known) = known.filter(|known| known.manifest.is_some()) else { return false };
    known.objects.iter().any(|found| found.key == object.key && found.bytes == object.bytes)
}
