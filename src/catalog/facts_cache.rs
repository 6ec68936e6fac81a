//! Facts about backups that retention needs and their keys do not contain. Manifests never change, so
//! what was read once is kept in the state directory, by what the store says identifies the stored
//! version. That saves reading what is decided about; whatever a deletion relies on is [read
//! again](FactsCache::confirm).

use crate::domain::backup_kind::BackupKind;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use time::{Duration, OffsetDateTime};

use crate::cache;
use crate::catalog::authenticate::authenticate;
use crate::catalog::contents::Entry;
use crate::catalog::lost_objects::{differs, listed_or_lost};
use crate::catalog::manifest::{is_altered, is_unproven, read_manifest};
use crate::concurrent::each;
use crate::ctx::Ctx;
use crate::domain::hex::{hex, unhex};
use crate::domain::id::BackupId;
use crate::domain::manifest::{Identity, Manifest, ObjectRecord};
use crate::domain::names::Mark;
use crate::domain::retention::Backup;
use crate::domain::segment::{Base, Link, Segment};
use crate::error::diagnose;
use crate::keys::keyring::Keyring;
use crate::keys::{Effort, KeyError};
use crate::source::kinds;
use crate::store::{ReadStore, StoreError, Version};

/// For how long a manifest is not tried again that these keys did not open: what is planted costs a
/// derivation each time, and a passphrase that was mistyped is corrected one day.
const TRIED_FOR: Duration = Duration::days(7);
/// How many manifests that are none are named in a run.
const NAMED_MAX: usize = 10;

/// Whether a manifest is one that bkp wrote, as the keys at hand tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Authenticity {
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
    /// Which version of its file was read: another one is another file.
    version: Option<Version>,
    /// Of its file, hex; empty if that cannot be understood.
    sha256: String,
    /// Of the manifest of the run that made the backup, hex, if it was sealed anew since.
    #[serde(default)]
    original: Option<String>,
    proof: Authenticity,
    /// With which keys it was tried that did not open it, and until when it is not tried again.
    tried: Option<LastAttempt>,
    /// With which keys, and whose word, it was found authentic that no key proves.
    #[serde(default)]
    vouched: Option<String>,
    parent: Option<BackupId>,
    base: BackupId,
    identity: Identity,
    #[serde(with = "time::serde::rfc3339::option")]
    until: Option<OffsetDateTime>,
    pinned: bool,
    objects: Vec<(String, u64)>,
    /// What it says of itself as a segment of a log.
    segment: Option<Segment>,
    /// Where it ends, if a log can go on from it.
    ends: Option<Base>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct LastAttempt {
    keys: String,
    #[serde(with = "time::serde::rfc3339")]
    until: OffsetDateTime,
}

/// A backup as retention sees it, and how far its manifest is to be believed.
#[derive(Debug, Clone)]
pub struct BackupFacts {
    /// The backup, without what [marks](crate::domain::names::Mark) say of it.
    pub backup: Backup,
    /// What the keys say.
    pub proof: Authenticity,
    /// SHA-256 of the manifest; `None` if it cannot be read.
    pub sha256: Option<[u8; 32]>,
    /// SHA-256 of the manifest of the run that made it, as far as this manifest is to be believed: the same, unless it
    /// was sealed anew since.
    pub original: Option<[u8; 32]>,
    /// Its place in a log, if it is a segment of one.
    pub link: Option<Link>,
    /// Where it ends, if a log can go on from it.
    pub ends: Option<Base>,
    /// What it is of, as its manifest says.
    pub identity: Identity,
}

/// The facts of the backups of one store, by the keys of their manifests: an id is not enough, whoever
/// can write to a store can use one twice.
#[derive(Debug)]
pub struct FactsCache {
    path: PathBuf,
    facts: HashMap<String, Facts>,
    /// What was read in this run, by the keys of manifests. Where a store does not tell versions, this is
    /// all that is known.
    seen: HashSet<String>,
    /// Of what was [confirmed](FactsCache::confirm), that of which objects are not as they should be.
    lost: HashSet<String>,
}

impl FactsCache {
    /// What is known of the backups of the store at `url`.
    #[must_use]
    pub fn of(state_dir: &Path, url: &str) -> FactsCache {
        let name = hex(&sha2::Sha256::digest(url.as_bytes()));
        let path = cache::folder(state_dir).join(format!("facts-{name}.json"));
        let facts = cache::load(&path).unwrap_or_default();
        FactsCache { facts, path, seen: HashSet::new(), lost: HashSet::new() }
    }

    /// The backups of `entries`, in their order. Reads the manifests that were not read before, or
    /// that no key could tell anything of then, several at a time. One that cannot be understood
    /// belongs to a backup that is not whole.
    ///
    /// # Errors
    /// What the store fails with; that the run is to stop.
    pub fn backups(
        &mut self,
        store: &dyn ReadStore,
        entries: &[Entry],
        keys: &Keyring,
        ctx: &Ctx,
    ) -> anyhow::Result<Vec<BackupFacts>> {
        let tried = keys.fingerprint();
        let is_news = |entry: &&Entry| self.is_news(entry, &tried, ctx.now());
        let news: Vec<&Entry> = entries.iter().filter(is_news).collect();
        self.read(store, &news, keys, ctx)?;
        Ok(entries.iter().map(|entry| self.backup_facts(entry)).collect())
    }

    /// Reads again what a deletion relies on, whatever is known of it: the manifests are authenticated,
    /// and the store is asked for every object, its size, and its SHA-256 if it tells one. What is found
    /// now is known from now on.
    ///
    /// # Errors
    /// As [`FactsCache::backups`].
    pub fn confirm(
        &mut self,
        store: &dyn ReadStore,
        entries: &[&Entry],
        keys: &Keyring,
        ctx: &Ctx,
    ) -> anyhow::Result<()> {
        let objects = self.read(store, entries, keys, ctx)?;
        let lost = each(&objects, &ctx.cancel, |objects| {
            let lost = objects.iter().map(|object| differs(store, object));
            Ok(lost.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().next())
        })?;
        for (entry, lost) in entries.iter().zip(lost) {
            if let Some(why) = lost {
                let id = entry.name.id;
                let hint = format!("check it with `bkp verify --id {id}`");
                ctx.monitor.warn(&format!("backup {id} does not count: {why}; {hint}"));
                self.lost.insert(entry.name.manifest_key());
            }
        }
        Ok(())
    }

    /// Reads manifests, several at a time; returns the objects that each of them names.
    fn read(
        &mut self,
        store: &dyn ReadStore,
        entries: &[&Entry],
        keys: &Keyring,
        ctx: &Ctx,
    ) -> anyhow::Result<Vec<Vec<ObjectRecord>>> {
        let tried = keys.fingerprint();
        let found = each(entries, &ctx.cancel, |entry| read(store, entry, (keys, &tried), ctx))?;
        let (mut objects, mut nameless) = (Vec::new(), 0_usize);
        for (entry, found) in entries.iter().zip(found) {
            let key = entry.name.manifest_key();
            if let Some(problem) = &found.problem {
                nameless += 1;
                if nameless <= NAMED_MAX {
                    ctx.monitor.warn(&format!("skipping {problem}"));
                }
            }
            objects.push(found.objects);
            match found.facts {
                Some(facts) => self.facts.insert(key.clone(), facts),
                None => self.facts.remove(&key),
            };
            self.seen.insert(key);
        }
        if nameless > NAMED_MAX {
            let more = nameless - NAMED_MAX;
            ctx.monitor.warn(&format!("skipping {more} more invalid manifests"));
        }
        Ok(objects)
    }

    /// What is known of the version that the store has.
    fn facts(&self, entry: &Entry) -> Option<&Facts> {
        let key = entry.name.manifest_key();
        let facts = self.facts.get(&key)?;
        let is_same = entry.version.is_some() && facts.version == entry.version;
        (is_same || self.seen.contains(&key)).then_some(facts)
    }

    fn is_news(&self, entry: &Entry, keys: &str, now: OffsetDateTime) -> bool {
        if self.seen.contains(&entry.name.manifest_key()) {
            return false;
        }
        let is_tried = |tried: &LastAttempt| {
            tried.keys == attempt(keys, entry) && (now..=now + TRIED_FOR).contains(&tried.until)
        };
        self.facts(entry).is_none_or(|facts| match facts.proof {
            Authenticity::Unchecked => {
                !keys.is_empty() && !facts.tried.as_ref().is_some_and(is_tried)
            }
            // Whoever is not trusted any more vouches for nothing.
            Authenticity::Authentic => facts.vouched.as_deref().is_some_and(|by| by != keys),
            Authenticity::Forged => false,
        })
    }

    fn backup_facts(&self, entry: &Entry) -> BackupFacts {
        let id = entry.name.id;
        let known = self.facts(entry).filter(|facts| !facts.sha256.is_empty());
        let Some(facts) = known else {
            let backup = Backup { whole: false, ..Backup::full(id) };
            let (proof, identity) = (Authenticity::Forged, Identity::new());
            let (sha256, original, link, ends) = (None, None, None, None);
            return BackupFacts { backup, proof, sha256, original, link, ends, identity };
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
                && !self.lost.contains(&entry.name.manifest_key()),
            pinned: facts.pinned,
            held_until: facts.until,
            ..Backup::full(id)
        };
        let digest = |hex: &str| unhex(hex.as_bytes()).and_then(|bytes| bytes.try_into().ok());
        let known_by = facts.original.as_ref().unwrap_or(&facts.sha256);
        let (sha256, original) = (digest(&facts.sha256), digest(known_by));
        let link = facts.segment.clone().map(|segment| Link {
            id,
            parent: facts.parent,
            sha256: known_by.clone(),
            segment,
        });
        let (ends, identity) = (facts.ends.clone(), facts.identity.clone());
        BackupFacts { backup, proof: facts.proof, sha256, original, link, ends, identity }
    }

    /// Keeps what was read for the next time, without what is not in the store any more.
    pub fn save(&mut self, present: &[Entry], ctx: &Ctx) {
        let before = self.facts.len();
        let keys: HashSet<String> = present.iter().map(|entry| entry.name.manifest_key()).collect();
        self.facts.retain(|key, _| keys.contains(key));
        if !self.seen.is_empty() || before != self.facts.len() {
            cache::save(&self.path, &self.facts, ctx);
        }
    }
}

/// What such keys are tried on: a manifest with so many envelopes beside it. One more is another try.
fn attempt(keys: &str, entry: &Entry) -> String {
    let envelopes = entry.marks.iter().filter(|mark| matches!(mark, Mark::Wrapped(_))).count();
    if envelopes == 0 { keys.to_owned() } else { format!("{keys}\n{envelopes} envelopes") }
}

/// What was read in the place of a manifest.
#[derive(Default)]
struct ReadManifest {
    /// Nothing if it has gone.
    facts: Option<Facts>,
    objects: Vec<ObjectRecord>,
    /// Why it is no manifest.
    problem: Option<String>,
}

/// Reads a manifest. One that is none is no failure, whatever it is instead.
fn read(
    store: &dyn ReadStore,
    entry: &Entry,
    (keys, tried): (&Keyring, &str),
    ctx: &Ctx,
) -> anyhow::Result<ReadManifest> {
    let key = entry.name.manifest_key();
    let parsed = read_manifest(store, &key).and_then(|bytes| {
        let manifest = Manifest::parse(&bytes, &key)?;
        Ok((bytes, manifest))
    });
    let version = entry.version;
    let (bytes, manifest) = match parsed {
        Ok(parsed) => parsed,
        Err(error) if is_unproven(&error) => {
            let problem = Some(format!("{error:#}"));
            let facts = Facts {
                version,
                sha256: String::new(),
                original: None,
                proof: Authenticity::Forged,
                tried: None,
                vouched: None,
                parent: None,
                base: entry.name.id,
                identity: Identity::new(),
                until: None,
                pinned: false,
                objects: Vec::new(),
                segment: None,
                ends: None,
            };
            return Ok(ReadManifest { facts: Some(facts), problem, ..ReadManifest::default() });
        }
        Err(error) if matches!(error.downcast_ref(), Some(StoreError::Missing { .. })) => {
            return Ok(ReadManifest::default());
        }
        Err(error) => return Err(error),
    };
    let (proof, is_final, by_holder) = prove(store, (&manifest, &bytes), keys, ctx)?;
    let mut objects = manifest.objects.clone();
    // What nobody proves may name very many.
    if proof == Authenticity::Authentic {
        objects.extend(listed_or_lost(store, &manifest, ctx)?);
    }
    let again = LastAttempt { keys: attempt(tried, entry), until: ctx.now() + TRIED_FOR };
    let is_segment = manifest.kind == BackupKind::Log;
    let (capture, log) = (&manifest.capture, kinds::log_kind_of(manifest.backup_type).ok());
    let facts = Facts {
        segment: log.filter(|_| is_segment).and_then(|log| (log.read_segment)(capture).ok()),
        ends: log.filter(|_| !is_segment).and_then(|log| (log.read_base)(manifest.id, capture)),
        version,
        sha256: hex(&sha2::Sha256::digest(&bytes)),
        original: manifest.resealed.map(|resealed| resealed.from),
        proof,
        tried: is_final.then_some(again),
        vouched: (proof == Authenticity::Authentic && !by_holder).then(|| tried.to_owned()),
        parent: manifest.parent,
        base: manifest.base,
        identity: manifest.identity,
        until: manifest.retention.until,
        pinned: manifest.retention.pinned,
        objects: objects.iter().map(|object| (object.key.clone(), object.bytes)).collect(),
    };
    Ok(ReadManifest { facts: Some(facts), objects, problem: None })
}

/// Whether a manifest is authentic, as far as the keys at hand can tell; whether they would say the same
/// tomorrow; and whether it is a key that says so, and not a signer or the ledger.
fn prove(
    store: &dyn ReadStore,
    (manifest, bytes): (&Manifest, &[u8]),
    keys: &Keyring,
    ctx: &Ctx,
) -> anyhow::Result<(Authenticity, bool, bool)> {
    if keys.is_empty() {
        return Ok((Authenticity::Unchecked, false, false));
    }
    match authenticate(store, (manifest.clone(), bytes), (keys, Effort::Usual), ctx) {
        Ok(backup) => Ok((Authenticity::Authentic, true, backup.by_holder)),
        Err(error) if is_altered(&error) => Ok((Authenticity::Forged, true, false)),
        Err(error) if matches!(error.downcast_ref(), Some(KeyError::Stopped(_))) => Err(error),
        // Sealed for others, or a service that does not answer today: to be looked at again.
        Err(error) => {
            let id = manifest.id;
            let why = diagnose(&error).hint;
            ctx.monitor.detail(&format!("did not check the manifest of {id}: {error:#}; {why}"));
            let is_spent = matches!(error.downcast_ref(), Some(KeyError::Spent { .. }));
            Ok((Authenticity::Unchecked, is_unproven(&error) && !is_spent, false))
        }
    }
}
