//! The data keys of the backups in the stores, wrapped for the recipients of a key set.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};

use crate::catalog::{self, Catalog, Entry, Filter};
use crate::concurrent::each;
use crate::domain::id::BackupId;
use crate::domain::log_file::LogFileName;
use crate::domain::names::BackupType;
use crate::error::{Fault, Kind};
use crate::keys::envelope::{self, Envelope};
use crate::keys::keyring::Keyring;
use crate::keys::{DataKey, Effort, KeyProvider};
use crate::pipeline::log_files::LogFiles;
use crate::source::kinds::SOURCES;
use crate::source::{BackupKeys, WrappedKeys};
use crate::store::{ReadStore, StoreError};
use crate::wire::AppContext;

/// Data keys that are wrapped before they are written: memory does not grow with the number of backups.
const BATCH: usize = 256;
/// What is missing is named so often; the rest is counted.
const NAMED_MAX: usize = 20;

/// Finds the data keys of backups for a key set.
#[derive(Debug)]
pub(super) struct StoredKeys<'a> {
    app: &'a AppContext,
    /// The source that the key set is.
    name: &'a str,
}

/// What is missing from a key set unless another store has it, by what it is of.
type Missing = BTreeMap<String, String>;

/// What a data key is of: copies of one backup that were sealed anew have others, and other manifests.
type Sealing = (BackupId, [u8; 32]);

/// A data key in a line of a key set.
type Line = (Sealing, Vec<u8>);

/// What a data key is of, and its line; no line if it is another tenant's.
type Outcome = (String, anyhow::Result<Option<Line>>);

impl<'a> StoredKeys<'a> {
    /// For the key set that is the source of this name.
    pub(super) fn of(app: &'a AppContext, name: &'a str) -> StoredKeys<'a> {
        StoredKeys { app, name }
    }

    /// The sources that the key set is for, and their tenant.
    fn sources(&self) -> anyhow::Result<(BTreeSet<String>, Option<String>)> {
        let set = self.app.source_settings(self.name)?;
        if !set.of_sources.is_empty() {
            return Ok((set.of_sources.iter().cloned().collect(), set.tenant.clone()));
        }
        let others = self.app.settings.sources.iter().filter(|(_, other)| {
            other.backup_type != BackupType::Kms && other.tenant == set.tenant
        });
        Ok((others.map(|(name, _)| name.clone()).collect(), set.tenant.clone()))
    }

    /// Every configured store, whatever `--store` says of where the key set goes.
    fn stores(&self) -> anyhow::Result<Vec<String>> {
        let configured: Vec<String> = self.app.settings.stores.keys().cloned().collect();
        if configured.is_empty() { self.app.store_names() } else { Ok(configured) }
    }
}

impl BackupKeys for StoredKeys<'_> {
    fn wrap(
        &self,
        recipients: &[Box<dyn KeyProvider>],
        line: &mut dyn FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<WrappedKeys> {
        let keys = self.app.keys_to_read()?;
        let (sources, tenant) = self.sources()?;
        let is_all = self.app.source_settings(self.name)?.of_sources.is_empty();
        let wrap = Wrap { app: self.app, keys: &keys, recipients, tenant: tenant.as_deref() };
        let mut wrapping = Wrapping {
            wrap,
            sources: &sources,
            line,
            known: BTreeSet::new(),
            missing: Missing::new(),
            others: BTreeSet::new(),
            done: WrappedKeys::default(),
        };
        let (mut failure, mut lost) = (None, Vec::new());
        for name in self.stores()? {
            let listed = wrapping.list(&name);
            match listed {
                Ok((store, entries)) => wrapping.store(&*store, &entries)?,
                Err(error) => {
                    self.app.ctx.cancel.check()?;
                    lost.push(format!("everything in store {name}: {error:#}"));
                    failure = Some(error);
                }
            }
        }
        let Wrapping { mut done, missing, others, .. } = wrapping;
        if let (true, Some(error)) = (done.stores.is_empty(), failure) {
            return Err(error);
        }
        if is_all && !others.is_empty() {
            let others = others.into_iter().collect::<Vec<_>>().join(", ");
            self.app.ctx.monitor.warn(&format!(
                "not in the key set: backups of {others}, which {} not configured; name them in `sources` to have them in it",
                if others.contains(',') { "are" } else { "is" }
            ));
        }
        done.missing = missing.len() as u64 + lost.len() as u64;
        let named = missing.into_iter().map(|(what, why)| format!("the key of {what}: {why}"));
        lost.extend(named);
        if lost.len() > NAMED_MAX {
            let more = lost.split_off(NAMED_MAX).len();
            lost.push(format!("{more} more like these"));
        }
        let sources = sources.into_iter().collect();
        Ok(WrappedKeys { sources, tenant, lost, ..done })
    }
}

/// Wrapping what the stores have.
struct Wrapping<'a> {
    wrap: Wrap<'a>,
    sources: &'a BTreeSet<String>,
    line: &'a mut dyn FnMut(&[u8]) -> anyhow::Result<()>,
    /// What is in the key set already: several stores have the same backups.
    known: BTreeSet<Sealing>,
    missing: Missing,
    /// Sources that have backups and are neither chosen nor configured.
    others: BTreeSet<String>,
    done: WrappedKeys,
}

impl Wrapping<'_> {
    /// A store, and the backups in it.
    fn list(&self, name: &str) -> anyhow::Result<(Box<dyn ReadStore>, Vec<Entry>)> {
        let app = self.wrap.app;
        let store = app.store_named(name)?;
        let entries = catalog::contents(&*store, &Filter::default(), &app.ctx.cancel)?;
        Ok((store, entries))
    }

    /// Wraps what one store has and those before it had not.
    fn store(&mut self, store: &dyn ReadStore, entries: &[Entry]) -> anyhow::Result<()> {
        let ctx = &self.wrap.app.ctx;
        let (mut chosen, mut copies) = (Vec::new(), Vec::new());
        let ids: BTreeSet<BackupId> = self.known.iter().map(|(id, _)| *id).collect();
        for entry in entries {
            let name = &entry.name;
            // Anybody who may write can leave a mark of removal; while the manifest is there, so is the backup.
            if name.backup_type == BackupType::Kms || entry.manifest.is_none() {
                continue;
            }
            if !self.sources.contains(&name.source) {
                if !self.wrap.app.settings.sources.contains_key(&name.source) {
                    self.others.insert(name.source.clone());
                }
            } else if ids.contains(&name.id) {
                copies.push(entry);
            } else {
                chosen.push(entry);
            }
        }
        let known = &self.known;
        let known = each(&copies, &ctx.cancel, |entry| Ok(is_known(known, store, entry)))?;
        let copies = copies.into_iter().zip(known);
        chosen.extend(copies.filter(|(_, known)| !known).map(|(entry, _)| entry));
        self.done.stores.push(store.url().to_owned());
        let wrap = self.wrap;
        // The run is there to have all of them, however much work it is to open them.
        let catalog = Catalog::new(store, wrap.keys, ctx).with_effort(Effort::Named);
        for batch in chosen.chunks(BATCH) {
            let outcomes = each(batch, &ctx.cancel, |entry| {
                Ok((entry.name.id.to_string(), wrap.backup(&catalog, entry)))
            })?;
            self.done.backups += self.write(outcomes)?;
        }
        let with_files = SOURCES
            .iter()
            .filter(|entry| entry.log.as_ref().is_some_and(|log| log.files.is_some()));
        for entry in with_files {
            for source in self.sources {
                let files = LogFiles::new(store, wrap.keys, (entry.kind.backup_type, source), ctx);
                self.log_files(&files, source)?;
            }
        }
        Ok(())
    }

    /// Wraps the data keys of the archived files of a log.
    fn log_files(&mut self, files: &LogFiles<'_>, source: &str) -> anyhow::Result<()> {
        let (wrap, cancel) = (self.wrap, &self.wrap.app.ctx.cancel);
        let list = |stream: &String| files.list(stream, None);
        let listed = files
            .streams()
            .and_then(|streams| streams.iter().map(list).collect::<anyhow::Result<Vec<_>>>());
        let streams = match listed {
            Ok(streams) => streams,
            Err(error) => {
                cancel.check()?;
                let what = format!("every archived log file of {source} in {}", files.url());
                self.missing.insert(what, format!("{error:#}"));
                return Ok(());
            }
        };
        for batch in streams.iter().flat_map(|listed| listed.chunks(BATCH)) {
            let outcomes = each(batch, cancel, |file| {
                Ok((file.name.key(), wrap.log_file(files, &file.name)))
            })?;
            self.done.log_files += self.write(outcomes)?;
        }
        Ok(())
    }

    /// Writes lines, and notes what is missing; returns how many lines those were.
    fn write(&mut self, outcomes: Vec<Outcome>) -> anyhow::Result<u64> {
        // That the run is to stop says nothing of a backup.
        self.wrap.app.ctx.cancel.check()?;
        let mut written = 0;
        for (what, outcome) in outcomes {
            match outcome {
                Ok(Some((of, line))) => {
                    if self.known.insert(of) {
                        (self.line)(&line)?;
                        written += 1;
                    }
                    self.missing.remove(&what);
                }
                Ok(None) => {}
                // A cleanup removed it since the listing.
                Err(error) if matches!(error.downcast_ref(), Some(StoreError::Missing { .. })) => {}
                Err(why) => {
                    self.missing.insert(what, format!("{why:#}"));
                }
            }
        }
        Ok(written)
    }
}

/// Whether a copy has the manifest of one that is in the key set already, and with that its data key.
fn is_known(known: &BTreeSet<Sealing>, store: &dyn ReadStore, entry: &Entry) -> bool {
    let read = catalog::read_manifest(store, &entry.name.manifest_key());
    read.is_ok_and(|bytes| known.contains(&(entry.name.id, Sha256::digest(&bytes).into())))
}

/// Wrapping one data key.
#[derive(Clone, Copy)]
struct Wrap<'a> {
    app: &'a AppContext,
    keys: &'a Keyring,
    recipients: &'a [Box<dyn KeyProvider>],
    tenant: Option<&'a str>,
}

impl Wrap<'_> {
    /// The line of a backup; nothing if it is another tenant's.
    fn backup(&self, catalog: &Catalog<'_>, entry: &Entry) -> anyhow::Result<Option<Line>> {
        let backup = catalog.unlock(&entry.name)?;
        match (backup.manifest.tenant.as_deref(), self.tenant) {
            (of, set) if of == set => {}
            (Some(of), None) => {
                let message = format!("it is of tenant {of}, and this key set is of none");
                return Err(Fault::new(Kind::Refused, message).into());
            }
            (None, Some(_)) => {
                let message = "it is of no tenant: its source had none then";
                return Err(Fault::new(Kind::Refused, message).into());
            }
            (Some(_), Some(_)) | (None, None) => return Ok(None),
        }
        self.line((entry.name.id, &entry.name.source), &backup.sha256, &backup.key).map(Some)
    }

    /// The line of an archived file of a log.
    fn log_file(&self, files: &LogFiles<'_>, name: &LogFileName) -> anyhow::Result<Option<Line>> {
        // Its header names no tenant: it is its source's.
        let settings = self.app.settings.sources.get(&name.source);
        if self.tenant.is_some() && settings.is_none() {
            let message = "its source is not configured, so that its tenant is not known";
            return Err(Fault::new(Kind::Refused, message).into());
        }
        let file = files.unlock(name)?;
        self.line((file.id, &name.source), &file.sha256, &file.key).map(Some)
    }

    /// A data key in an envelope.
    fn line(&self, of: (BackupId, &str), sha256: &[u8; 32], key: &DataKey) -> anyhow::Result<Line> {
        // Who may seal for a key of a service may often not open what is sealed for it: that is tried by drills.
        let wrapped = self.recipients.iter().map(|to| {
            if to.is_service() {
                to.wrap(key, of.0, of.1)
            } else {
                envelope::wrap(to.as_ref(), key, of)
            }
        });
        let wrapped = wrapped.collect::<Result<_, _>>()?;
        let envelope = Envelope::new(of.0, sha256, wrapped, self.app.ctx.now());
        let line = envelope.encode_line(key, self.keys.signer()).ok_or_else(|| {
            Fault::new(Kind::Config, "its wrapped keys do not fit into an envelope")
                .hint("name fewer recovery recipients")
        })?;
        Ok(((of.0, *sha256), line))
    }
}
