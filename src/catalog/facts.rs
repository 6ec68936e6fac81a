//! What retention has to know of a backup and its key does not say. Manifests never change, so what
//! was read once is kept in the state directory.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use time::OffsetDateTime;

use super::{Entry, each, read_manifest};
use crate::cache;
use crate::ctx::Ctx;
use crate::domain::id::BackupId;
use crate::domain::manifest::{Manifest, hex, unhex};
use crate::domain::retention::Backup;
use crate::domain::segment::{self, Base, Link, Segment};
use crate::error::diagnose;
use crate::keys::{self, KeyError, KeyProvider};
use crate::store::{ReadStore, StoreError};

/// Whether a manifest is one that bkp wrote, as the keys at hand tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Proof {
    /// Its MAC is right.
    Authentic,
    /// No key was at hand that could tell.
    Unchecked,
    /// Its MAC is wrong, or it cannot be understood.
    Forged,
}

/// What the manifest of a backup says, as far as retention goes.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Facts {
    /// Size of its file: another one is another file.
    manifest_bytes: u64,
    /// Of its file, hex.
    sha256: String,
    proof: Proof,
    parent: Option<BackupId>,
    base: BackupId,
    #[serde(with = "time::serde::rfc3339::option")]
    until: Option<OffsetDateTime>,
    pinned: bool,
    objects: Vec<(String, u64)>,
    /// What it says of itself as a segment of a log.
    segment: Option<Segment>,
    /// Where it ends, if a log can go on from it.
    ends: Option<Base>,
}

/// A backup as retention sees it, and how far its manifest is to be believed.
#[derive(Debug, Clone)]
pub struct Met {
    /// The backup.
    pub backup: Backup,
    /// What the keys say.
    pub proof: Proof,
    /// SHA-256 of the manifest; `None` if it cannot be read.
    pub sha256: Option<[u8; 32]>,
    /// Its place in a log, if it is a segment of one.
    pub link: Option<Link>,
    /// Where it ends, if a log can go on from it.
    pub ends: Option<Base>,
}

/// The facts of the backups of one store, by the keys of their manifests: an id is not enough, whoever
/// can write to a store can use one twice.
#[derive(Debug)]
pub struct Known {
    path: PathBuf,
    facts: HashMap<String, Facts>,
    read: bool,
}

impl Known {
    /// What is known of the backups of the store at `url`.
    #[must_use]
    pub fn of(state_dir: &Path, url: &str) -> Known {
        let name = hex(&sha2::Sha256::digest(url.as_bytes()));
        let path = cache::folder(state_dir).join(format!("facts-{name}.json"));
        Known { facts: cache::load(&path).unwrap_or_default(), path, read: false }
    }

    /// The backups of `entries`, in their order. Reads the manifests that were not read before, or
    /// that no key could tell anything of then, several at a time. One that cannot be understood
    /// belongs to a backup that is not whole.
    ///
    /// # Errors
    /// What the store or a key's service fails with.
    pub fn backups(
        &mut self,
        store: &dyn ReadStore,
        entries: &[Entry],
        keys: &[Box<dyn KeyProvider>],
        ctx: &Ctx,
    ) -> anyhow::Result<Vec<Met>> {
        let news: Vec<&Entry> = entries.iter().filter(|entry| self.is_news(entry, keys)).collect();
        let found = each(&news, &ctx.cancel, |entry| read(store, entry, keys, ctx))?;
        let found = news.iter().zip(found);
        let found = found.filter_map(|(entry, facts)| Some((entry.name.manifest_key(), facts?)));
        self.facts.extend(found);
        self.read |= !news.is_empty();
        Ok(entries.iter().map(|entry| self.met(entry)).collect())
    }

    fn is_news(&self, entry: &Entry, keys: &[Box<dyn KeyProvider>]) -> bool {
        let known = self.facts.get(&entry.name.manifest_key());
        known
            .filter(|facts| entry.manifest == Some(facts.manifest_bytes))
            .is_none_or(|facts| facts.proof == Proof::Unchecked && !keys.is_empty())
    }

    fn met(&self, entry: &Entry) -> Met {
        let id = entry.name.id;
        let pinned = entry.is_pinned();
        let known = self.facts.get(&entry.name.manifest_key());
        let Some(facts) = known.filter(|facts| entry.manifest == Some(facts.manifest_bytes)) else {
            let backup = Backup { whole: false, pinned, ..Backup::full(id) };
            let (proof, sha256, link, ends) = (Proof::Forged, None, None, None);
            return Met { backup, proof, sha256, link, ends };
        };
        let is_there = |(key, bytes): &(String, u64)| {
            entry.objects.iter().any(|object| object.key == *key && object.bytes == *bytes)
        };
        let backup = Backup {
            parent: facts.parent,
            base: facts.base,
            // A backup of nothing is not what anybody means to keep.
            whole: !facts.objects.is_empty()
                && facts.objects.iter().all(is_there)
                && !entry.is_damaged(),
            pinned: pinned || facts.pinned,
            held_until: facts.until,
            ..Backup::full(id)
        };
        let sha256 = unhex(facts.sha256.as_bytes()).and_then(|bytes| bytes.try_into().ok());
        let link = facts.segment.clone().map(|segment| Link {
            id,
            parent: facts.parent,
            sha256: facts.sha256.clone(),
            segment,
        });
        Met { backup, proof: facts.proof, sha256, link, ends: facts.ends.clone() }
    }

    /// Keeps what was read for the next time, without what is not in the store any more.
    pub fn save(&mut self, present: &[Entry], ctx: &Ctx) {
        let before = self.facts.len();
        let keys: HashSet<String> = present.iter().map(|entry| entry.name.manifest_key()).collect();
        self.facts.retain(|key, _| keys.contains(key));
        if self.read || before != self.facts.len() {
            cache::save(&self.path, &self.facts, ctx);
        }
    }
}

/// Reads a manifest; `None` if it is not one, or has gone.
fn read(
    store: &dyn ReadStore,
    entry: &Entry,
    keys: &[Box<dyn KeyProvider>],
    ctx: &Ctx,
) -> anyhow::Result<Option<Facts>> {
    let key = entry.name.manifest_key();
    let Some(manifest_bytes) = entry.manifest else { return Ok(None) };
    let bytes = match read_manifest(store, &key) {
        Ok(bytes) => bytes,
        Err(error) => {
            let missing = matches!(error.downcast_ref(), Some(StoreError::Missing { .. }));
            return if missing { Ok(None) } else { Err(error) };
        }
    };
    let Ok(manifest) = Manifest::parse(&bytes, &key) else { return Ok(None) };
    let proof = prove(&manifest, &bytes, &key, keys, ctx)?;
    let is_segment = manifest.kind == segment::KIND;
    let capture = Some(&manifest.capture);
    Ok(Some(Facts {
        segment: capture.filter(|_| is_segment).and_then(|c| Segment::read(c).ok()),
        ends: capture.filter(|_| !is_segment).and_then(|c| Base::read(manifest.id, c)),
        manifest_bytes,
        sha256: hex(&sha2::Sha256::digest(&bytes)),
        proof,
        parent: manifest.parent,
        base: manifest.base,
        until: manifest.retention.until,
        pinned: manifest.retention.pinned,
        objects: manifest.objects.into_iter().map(|object| (object.key, object.bytes)).collect(),
    }))
}

/// Whether a manifest is authentic, as far as the keys at hand can tell.
fn prove(
    manifest: &Manifest,
    bytes: &[u8],
    at: &str,
    keys: &[Box<dyn KeyProvider>],
    ctx: &Ctx,
) -> anyhow::Result<Proof> {
    if keys.is_empty() {
        return Ok(Proof::Unchecked);
    }
    match keys::unwrap_any(keys, &manifest.keys, manifest.id, &ctx.cancel) {
        Ok(key) if Manifest::authenticate(bytes, &key, at).is_ok() => Ok(Proof::Authentic),
        Ok(_) => Ok(Proof::Forged),
        Err(error) if matches!(error.downcast_ref(), Some(KeyError::Stopped(_))) => Err(error),
        // Sealed for others, or a service that does not answer today: to be looked at again.
        Err(error) => {
            let id = manifest.id;
            let why = diagnose(&error).hint;
            ctx.monitor.detail(&format!("the manifest of {id} is not checked: {error:#}; {why}"));
            Ok(Proof::Unchecked)
        }
    }
}
