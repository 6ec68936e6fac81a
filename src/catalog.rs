//! The backups of a store. The store itself is the catalog: one listing names every backup, and a
//! backup without a manifest does not exist.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::ctx::{Cancel, Ctx};
use crate::domain::chain;
use crate::domain::id::BackupId;
use crate::domain::manifest::Manifest;
use crate::domain::names::{BackupName, BackupType, Mark, Scope};
use crate::domain::recipient::Recipient;
use crate::error::{Fault, Kind};
use crate::keys::Effort;
use crate::keys::keyring::Keyring;
use crate::keys::object_keys::ContentKey;
use crate::pipeline::BackupReader;
use crate::pipeline::log_files::LogFiles;
use crate::store::{ObjectInfo, ReadStore, StoreError};

mod authenticate;
mod contents;
mod envelopes;
mod facts_cache;
mod found;
mod last_listing;
mod lost_objects;
mod manifest;
pub mod table;

pub use authenticate::{AuthenticBackup, UnlockedBackup, authenticate, read_authentic};
pub use contents::{Entry, again, contents};
pub use facts_cache::{Authenticity, BackupFacts, FactsCache};
pub use found::{Filter, FoundBackup};
pub use last_listing::LastListing;
pub use manifest::{is_altered, is_unproven, read_manifest};

/// The backups of a store, oldest first. Costs a listing and no other request.
///
/// # Errors
/// What the store fails with.
pub fn find(
    store: &dyn ReadStore,
    filter: &Filter,
    cancel: &Cancel,
) -> anyhow::Result<Vec<FoundBackup>> {
    let entries = contents(store, filter, cancel)?.into_iter();
    let whole = entries.filter(|entry| entry.manifest.is_some());
    Ok(whole
        .map(|entry| FoundBackup {
            stored_bytes: entry.stored_bytes(),
            pinned: entry.is_pinned(),
            being_removed: entry.is_being_removed(),
            marks: entry.marks,
            name: entry.name,
        })
        .collect())
}

/// A backup with each of its objects, as a listing shows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// What its keys say.
    pub name: BackupName,
    /// Its objects, without the manifest.
    pub objects: Vec<ObjectInfo>,
}

impl Stored {
    /// Sum over its objects, bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.objects.iter().fold(0, |sum, object| sum.saturating_add(object.bytes))
    }
}

/// Every backup of a store with its objects, oldest first. Costs a listing and no other request.
///
/// # Errors
/// What the store fails with.
pub fn stored(store: &dyn ReadStore, cancel: &Cancel) -> anyhow::Result<Vec<Stored>> {
    let entries = contents(store, &Filter::default(), cancel)?.into_iter();
    let whole = entries.filter(|entry| entry.manifest.is_some());
    Ok(whole.map(|entry| Stored { name: entry.name, objects: entry.objects }).collect())
}

/// Reads backups of one source with the keys at hand.
pub struct Catalog<'a> {
    store: &'a dyn ReadStore,
    keys: &'a Keyring,
    ctx: &'a Ctx,
    effort: Effort,
    /// What was loaded last, so that a backup that was looked at costs nothing when it is opened then.
    last: Mutex<Option<(BackupName, AuthenticBackup)>>,
}

/// How much of a backup is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// All of it: a key has to open it.
    Content,
    /// What it consists of, and stored bytes as they are. A trusted signature is enough. What this host kept the
    /// keys of, it reads too.
    Proof,
}

impl std::fmt::Debug for Catalog<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalog").field("store", &self.store.url()).finish_non_exhaustive()
    }
}

impl<'a> Catalog<'a> {
    /// A catalog of `store`, opened with `keys`.
    #[must_use]
    pub fn new(store: &'a dyn ReadStore, keys: &'a Keyring, ctx: &'a Ctx) -> Self {
        Catalog { store, keys, ctx, effort: Effort::Usual, last: Mutex::default() }
    }

    /// The same with as much [`Effort`] as is allowed.
    #[must_use]
    pub fn with_effort(self, effort: Effort) -> Self {
        Catalog { effort, ..self }
    }

    /// The store that it reads.
    #[must_use]
    pub fn store(&self) -> &'a dyn ReadStore {
        self.store
    }

    /// The keys that it opens backups with.
    #[must_use]
    pub fn keys(&self) -> &'a Keyring {
        self.keys
    }

    /// The files of a log that a source's server handed over.
    #[must_use]
    pub fn log_files(&self, backup_type: BackupType, source: &str) -> LogFiles<'a> {
        LogFiles::new(self.store, self.keys, (backup_type, source), self.ctx)
    }

    /// Whether a backup of this id is authentic under another name: then what has this one is a copy of
    /// it that somebody planted. Costs a listing.
    ///
    /// # Errors
    /// What the store fails with.
    pub fn is_elsewhere(&self, name: &BackupName) -> anyhow::Result<bool> {
        let filter = Filter { id: Some(name.id.to_string()), ..Filter::default() };
        let found = find(self.store, &filter, &self.ctx.cancel)?;
        Ok(found.iter().any(|other| other.name != *name && self.authentic(&other.name).is_ok()))
    }

    /// Makes sure that a backup is there and one that bkp made, as a key at hand shows. What was found is
    /// kept until another one is looked at.
    ///
    /// # Errors
    /// What the store fails with; else one that [`is_unproven`], or what is wrong with a key.
    pub fn prove(&self, name: &BackupName) -> anyhow::Result<Manifest> {
        let loaded = self.authentic(name)?;
        let manifest = loaded.manifest.clone();
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((name.clone(), loaded));
        Ok(manifest)
    }

    /// The backup with this name and everything it builds on, base first, every manifest authentic, to read all of
    /// it.
    ///
    /// # Errors
    /// [`Kind::Integrity`] if a manifest is forged, broken or missing; [`Kind::Key`] if no key opens
    /// it; [`Kind::Refused`] for a manifest of a later schema, or one that nobody vouches for.
    pub fn chain(&self, name: &BackupName) -> anyhow::Result<Vec<BackupReader<'a>>> {
        self.chain_for(name, Need::Content)
    }

    /// The same, to read this much of it.
    ///
    /// # Errors
    /// As [`Catalog::chain`].
    pub fn chain_for(
        &self,
        name: &BackupName,
        need: Need,
    ) -> anyhow::Result<Vec<BackupReader<'a>>> {
        let (last, key, _sha256) = self.content(self.authentic(name)?, need)?;
        let mut opened = HashMap::from([(last.id, key)]);
        let links = chain::resolve(last, |parent| -> anyhow::Result<Manifest> {
            let (manifest, key, _sha256) = self.content(self.parent(name, parent)?, need)?;
            opened.insert(parent, key);
            Ok(manifest)
        })?;
        let readers = links.into_iter().filter_map(|manifest| {
            let key = opened.remove(&manifest.id)?;
            Some(BackupReader::new(self.store, manifest, key))
        });
        Ok(readers.collect())
    }

    /// The backup with this name alone, its manifest authentic, and the SHA-256 of that manifest.
    ///
    /// # Errors
    /// As [`Catalog::chain`].
    pub fn open(&self, name: &BackupName) -> anyhow::Result<(BackupReader<'a>, [u8; 32])> {
        self.open_for(name, Need::Content)
    }

    /// The same, to read this much of it.
    ///
    /// # Errors
    /// As [`Catalog::chain`].
    pub fn open_for(
        &self,
        name: &BackupName,
        need: Need,
    ) -> anyhow::Result<(BackupReader<'a>, [u8; 32])> {
        let (manifest, key, sha256) = self.content(self.authentic(name)?, need)?;
        Ok((BackupReader::new(self.store, manifest, key), sha256))
    }

    fn content(
        &self,
        backup: AuthenticBackup,
        need: Need,
    ) -> anyhow::Result<(Manifest, ContentKey, [u8; 32])> {
        let AuthenticBackup { manifest, sha256, key, .. } = backup;
        let key = match (key, need) {
            (Ok(key), _) => key.into(),
            (Err(error), Need::Content) => return Err(error),
            (Err(_sealed), Need::Proof) => ContentKey::Kept(self.keys.kept(&manifest.name())),
        };
        Ok((manifest, key, sha256))
    }

    /// The authentic manifest of a backup, and its data key.
    ///
    /// # Errors
    /// As [`Catalog::chain`].
    pub fn unlock(&self, name: &BackupName) -> anyhow::Result<UnlockedBackup> {
        self.authentic(name)?.unlock()
    }

    /// The authentic manifest of a backup, and its data key if a key at hand opens it.
    fn authentic(&self, name: &BackupName) -> anyhow::Result<AuthenticBackup> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, loaded)) = last.take_if(|(of, _)| of == name) {
            return Ok(loaded);
        }
        drop(last);
        read_authentic(self.store, &name.manifest_key(), (self.keys, self.effort), self.ctx)
    }

    /// Everybody who can open a backup with these marks: the recipients of its manifest, and those of the
    /// authentic envelopes beside it, as far as those can be read.
    #[must_use]
    pub fn recipients(&self, backup: &UnlockedBackup, marks: &[Mark]) -> Vec<Recipient> {
        let UnlockedBackup { manifest, key, .. } = backup;
        let of = (&manifest.name(), marks);
        let added = envelopes::authentic(self.store, of, Some(key), self.keys);
        manifest.keys.iter().cloned().chain(added).collect()
    }

    /// Who can open a backup by what its manifest and the envelopes beside it say, and whether anything at hand
    /// proves it. Of a backup that nothing proves, only what the manifest claims.
    ///
    /// # Errors
    /// As [`read_manifest`], and if it is no manifest.
    pub fn openers(&self, entry: &Entry) -> anyhow::Result<(Vec<Recipient>, bool)> {
        if let Ok(AuthenticBackup { manifest, key, .. }) = self.authentic(&entry.name) {
            let (of, key) = ((&entry.name, entry.marks.as_slice()), key.ok());
            let added = envelopes::authentic(self.store, of, key.as_ref(), self.keys);
            return Ok((manifest.keys.into_iter().chain(added).collect(), true));
        }
        let at = entry.name.manifest_key();
        Ok((Manifest::parse(&read_manifest(self.store, &at)?, &at)?.keys, false))
    }

    /// A parent, of which a child knows only the id. Whoever can write to the store can put something of
    /// that id into another scope, so all of them are looked at until one is authentic.
    fn parent(&self, child: &BackupName, parent: BackupId) -> anyhow::Result<AuthenticBackup> {
        let mut unproven = None;
        for scope in Scope::ALL {
            let name = BackupName { id: parent, scope, ..child.clone() };
            match self.store.head(&name.manifest_key()) {
                Ok(_) => {}
                Err(StoreError::Missing { .. }) => continue,
                Err(error) => return Err(error.into()),
            }
            match self.authentic(&name) {
                Ok(backup) => return Ok(backup),
                Err(error) if is_unproven(&error) => unproven = unproven.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        let message =
            format!("backup {} builds on {parent}, which is not in {}", child.id, self.store.url());
        Err(unproven.unwrap_or_else(|| Fault::new(Kind::Integrity, message).into()))
    }
}
