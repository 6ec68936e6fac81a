//! Which records and manifests in a store count: those of this host's own runs, and those that an
//! available key or the ledger authenticates. Whoever can only write to the store can plant others;
//! they make no job less due, end no failure, and hide nothing.
//!
//! It is looked from the newest on, at so many objects at a time, and what was found of each is kept in
//! the state directory for a day: whoever plants thousands costs a few requests in each tick.

use std::cell::{LazyCell, OnceCell, RefCell};
use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use time::{Duration, OffsetDateTime};

use crate::cache;
use crate::catalog;
use crate::domain::manifest::hex;
use crate::domain::names::BackupName;
use crate::domain::record::{Record, RunOutcome};
use crate::domain::recorded_manifests::RecordedManifests;
use crate::keys::keyring::Keyring;
use crate::ops::authenticity;
use crate::ops::authenticity::{OpenRefusal, ProofChecker, RECORD, Verdict};
use crate::store::{ReadStore, StoreError, Version};
use crate::wire::AppContext;

/// Largest record that is read, bytes.
const RECORD_BYTES_MAX: u64 = 64 << 10;
/// How many records of a job are read of one store at a time.
const RECORDS_MAX: usize = 32;
/// So many good runs say how long a job usually takes; nothing more follows from older ones.
pub const GOOD_ENOUGH: usize = 4;
/// How many manifests are read at a time to find the newest that is proven.
const MANIFESTS_MAX: usize = 16;
/// After so many of which nothing can be said now, no more are read.
const UNKNOWN_MAX: usize = 2;
/// How many objects that are not proven are remembered.
const REMEMBERED_MAX: usize = 4096;
/// For how long: a key may come into the place of another one.
const REMEMBERED_FOR: Duration = Duration::DAY;

/// What was found of objects, each as the URL of its store and its key.
#[derive(Debug, Default, Serialize, Deserialize)]
struct CheckedObjects {
    /// A digest of what names the keys that were at hand.
    by: String,
    #[serde(with = "time::serde::rfc3339::option")]
    since: Option<OffsetDateTime>,
    proven: BTreeSet<String>,
    unproven: BTreeSet<String>,
    #[serde(skip)]
    is_new: bool,
}

/// The witnesses of this host, asked when they are needed.
pub struct Evidence {
    path: PathBuf,
    keys: OnceCell<Keyring>,
    /// The backups that the ledger has; `None` if there is none, or it does not answer.
    events: OnceCell<Option<RecordedManifests>>,
    checked_objects: OnceCell<RefCell<CheckedObjects>>,
}

/// What counts of the records of a job in one store.
#[derive(Debug, Default)]
pub struct JudgedRecords {
    /// Those that are believed, oldest first.
    pub believed: Vec<Record>,
    /// The others, oldest first: not proven, or not looked at.
    pub others: Vec<Record>,
    /// Keys of those that were looked at and are not proven.
    pub unproven: Vec<String>,
    /// How many backups, newer than the last success, are not proven that it could have made.
    pub manifests: usize,
}

impl std::fmt::Debug for Evidence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Evidence").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Evidence {
    /// The witnesses of this host.
    #[must_use]
    pub fn of(app: &AppContext) -> Evidence {
        let path = cache::folder(&app.settings.state_dir).join("looked.json");
        let (keys, events, checked_objects) = Default::default();
        Evidence { path, keys, events, checked_objects }
    }

    /// The keys at hand.
    pub fn keys(&self, app: &AppContext) -> &Keyring {
        self.keys.get_or_init(|| authenticity::keys(app))
    }

    /// Which of `listed`, the records of a job in a store, oldest first, count. Those whose keys are
    /// `own` are believed; none is read that is older than so many good ones.
    pub fn records(
        &self,
        app: &AppContext,
        store: &dyn ReadStore,
        own: &BTreeSet<String>,
        (listed, enough): (Vec<Record>, usize),
    ) -> JudgedRecords {
        // A key may be one that a program has to be asked for.
        let proof_checker = LazyCell::new(|| ProofChecker::new(store, self.keys(app), &app.ctx));
        let (mut judged, mut read, mut good) = (JudgedRecords::default(), 0, 0);
        for record in listed.into_iter().rev() {
            let key = record.key();
            let known = if own.contains(&key) { Some(true) } else { self.known(app, store, &key) };
            let known = known.or_else(|| {
                let is_enough = read >= RECORDS_MAX || good >= enough;
                let verdict = (!is_enough).then(|| record_of(store, &proof_checker, &key))?;
                read += 1;
                self.note(app, store, &key, &verdict)
            });
            match known {
                Some(true) => {
                    good += usize::from(record.outcome() == RunOutcome::Good);
                    judged.believed.push(record);
                }
                Some(false) => {
                    judged.unproven.push(key);
                    judged.others.push(record);
                }
                None => judged.others.push(record),
            }
        }
        judged.believed.reverse();
        judged.others.reverse();
        judged
    }

    /// The first of `names`, of backups in a store with the versions of their manifests, whose manifest is
    /// proven, and how many of those before it are not.
    pub fn newest(
        &self,
        app: &AppContext,
        store: &dyn ReadStore,
        names: impl IntoIterator<Item = (BackupName, Option<Version>)>,
    ) -> (Option<BackupName>, usize) {
        let proof_checker = LazyCell::new(|| ProofChecker::new(store, self.keys(app), &app.ctx));
        let (mut read, mut unproven, mut unknown) = (0, 0, 0);
        for (name, version) in names {
            // Whoever overwrites one makes another version of it.
            let version = version.map_or_else(String::new, |version| format!(" {version}"));
            let key = name.manifest_key() + &version;
            let mut known = self.known(app, store, &key);
            if known.is_none() {
                if read >= MANIFESTS_MAX {
                    break;
                }
                read += 1;
                let verdict = self.manifest(app, store, &proof_checker, &name);
                known = self.note(app, store, &key, &verdict);
            }
            match known {
                Some(true) => return (Some(name), unproven),
                Some(false) => unproven += 1,
                // A service that does not answer for one answers for no other.
                None if unknown == UNKNOWN_MAX => break,
                None => unknown += 1,
            }
        }
        (None, unproven)
    }

    fn manifest(
        &self,
        app: &AppContext,
        store: &dyn ReadStore,
        proof_checker: &ProofChecker<'_>,
        name: &BackupName,
    ) -> Verdict {
        let refused = match proof_checker.try_open(name) {
            Ok(_key) => return Verdict::Proven(name.clone()),
            Err(refused) => refused,
        };
        let unproven = match refused {
            OpenRefusal::Always => Verdict::Unproven,
            OpenRefusal::Now => Verdict::Unknown,
        };
        if app.settings.ledger.is_none() {
            return unproven;
        }
        let Some(events) = self.events.get_or_init(|| ask(app)) else { return Verdict::Unknown };
        if !events.knows(name.id) {
            return unproven;
        }
        let bytes = catalog::read_manifest(store, &name.manifest_key());
        let is_it =
            bytes.is_ok_and(|bytes| events.has(name.id, &sha2::Sha256::digest(&bytes).into()));
        if is_it { Verdict::Proven(name.clone()) } else { unproven }
    }

    /// What was found of an object before.
    fn known(&self, app: &AppContext, store: &dyn ReadStore, key: &str) -> Option<bool> {
        let place = place(store, key);
        let checked_objects = self.checked_objects(app).borrow();
        let known = checked_objects.proven.contains(&place).then_some(true);
        known.or_else(|| checked_objects.unproven.contains(&place).then_some(false))
    }

    /// Remembers what was found of an object.
    fn note(
        &self,
        app: &AppContext,
        store: &dyn ReadStore,
        key: &str,
        of: &Verdict,
    ) -> Option<bool> {
        let mut checked_objects = self.checked_objects(app).borrow_mut();
        let is_proven = match of {
            Verdict::Proven(_) => true,
            Verdict::Unproven => false,
            Verdict::Unknown => return None,
        };
        checked_objects.is_new = true;
        let set =
            if is_proven { &mut checked_objects.proven } else { &mut checked_objects.unproven };
        set.insert(place(store, key));
        if set.len() > REMEMBERED_MAX {
            set.pop_first();
        }
        Some(is_proven)
    }

    fn checked_objects(&self, app: &AppContext) -> &RefCell<CheckedObjects> {
        self.checked_objects.get_or_init(|| {
            let (by, now) = (fingerprint(app), app.ctx.now());
            let is_fit = |checked_objects: &CheckedObjects| {
                let is_young = |since| since <= now && now - since < REMEMBERED_FOR;
                checked_objects.by == by && checked_objects.since.is_some_and(is_young)
            };
            let kept = cache::load(&self.path).filter(is_fit);
            RefCell::new(kept.unwrap_or(CheckedObjects {
                by,
                since: Some(now),
                ..CheckedObjects::default()
            }))
        })
    }

    /// Keeps what was found for the next time, where the state directory is in use already: who only
    /// looks makes none that the runs could not write to.
    pub fn save(&self, app: &AppContext) {
        if !self.path.parent().is_some_and(Path::is_dir) {
            return;
        }
        if let Some(checked_objects) =
            self.checked_objects.get().filter(|checked_objects| checked_objects.borrow().is_new)
        {
            cache::save(&self.path, &*checked_objects.borrow(), &app.ctx);
        }
    }
}

fn record_of(store: &dyn ReadStore, proof_checker: &ProofChecker<'_>, key: &str) -> Verdict {
    let mut bytes = Vec::new();
    let read = match store.open(key, None) {
        Ok(input) => input.take(RECORD_BYTES_MAX).read_to_end(&mut bytes).is_ok(),
        Err(StoreError::Missing { .. }) => return Verdict::Unproven,
        Err(_) => false,
    };
    if read { proof_checker.judge(RECORD, key, &bytes) } else { Verdict::Unknown }
}

/// The backups that the ledger has.
fn ask(app: &AppContext) -> Option<RecordedManifests> {
    let entries = app.ledger()?.entries();
    let entries = entries.inspect_err(|error| {
        let what = "backups that no key on this host opens do not count until the ledger answers";
        app.ctx.monitor.warn(&format!("{error}; {what}"));
    });
    Some(RecordedManifests::of(entries.ok()?.into_iter().filter_map(|entry| entry.event)))
}

fn place(store: &dyn ReadStore, key: &str) -> String {
    format!("{} {key}", store.url())
}

/// A digest of what names the keys of this host, since a name may contain a secret.
fn fingerprint(app: &AppContext) -> String {
    let recipients = app.settings.recipients.join("\n");
    let trust: Vec<String> = app.settings.trust.iter().map(ToString::to_string).collect();
    let (trust, signs) = (trust.join(" "), app.settings.signing_key.as_deref().unwrap_or_default());
    let text = format!("{}\n{recipients}\n{trust}\n{signs}", app.settings.ledger.is_some());
    hex(&sha2::Sha256::digest(text.as_bytes()))
}
