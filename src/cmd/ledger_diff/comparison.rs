//! One comparison of the ledger with the stores, and the differences found.

use std::collections::{BTreeMap, HashMap, HashSet};

use schemars::JsonSchema;
use serde::Serialize;
use sha2::Digest as _;

use crate::catalog::{self, Stored};
use crate::ctx::Ctx;
use crate::domain::event::{Digest, Event, Status};
use crate::domain::id::BackupId;
use crate::domain::manifest::{Manifest, ROLE_OBJECTS};
use crate::domain::names::BackupType;
use crate::domain::recorded_manifests::RecordedManifests;
use crate::ledger::{Entry, Ledger};
use crate::store::ReadStore;

/// How ledger and store differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DifferenceKind {
    /// A manifest is not the one that was recorded.
    Changed,
    /// A recorded backup has no manifest, and its deletion was not recorded.
    Removed,
    /// A store has no copy although the manifest in another one names it; `bkp replicate --to` mends it.
    Lacking,
    /// A manifest was never recorded, or that it was sealed anew never was: planted, or its event was lost.
    Unrecorded,
    /// A backup that was recorded as deleted is there.
    Returned,
    /// An object is missing or of another size than its manifest says.
    Object,
    /// An event is not one that bkp records.
    Foreign,
    /// A vault does not hold what the stores hold.
    Balance,
}

impl DifferenceKind {
    /// How the difference is called in the report for people.
    pub(crate) fn label(self) -> &'static str {
        match self {
            DifferenceKind::Changed => "CHANGED",
            DifferenceKind::Removed => "REMOVED",
            DifferenceKind::Lacking => "MISSING COPY",
            DifferenceKind::Unrecorded => "UNRECORDED",
            DifferenceKind::Returned => "RETURNED",
            DifferenceKind::Object => "OBJECT",
            DifferenceKind::Foreign => "FOREIGN",
            DifferenceKind::Balance => "BALANCE",
        }
    }
}

/// One difference. It counts only if two comparisons in a row find it: otherwise a run ended in between.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Difference {
    pub(crate) what: DifferenceKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<BackupId>,
    /// The manifest or object, the transfer, or the vault.
    pub(crate) subject: String,
    /// What the ledger says, or the manifest of an object.
    pub(crate) expected: String,
    pub(crate) found: String,
}

#[derive(Debug, Clone, Copy, Default, Serialize, JsonSchema)]
pub(crate) struct Balance {
    /// What the ledger holds of this type; negative only if others write to the vault.
    pub(crate) vault_bytes: i64,
    /// What the stores hold.
    pub(crate) stored_bytes: u64,
}

/// The backups of each store, by its URL.
type BackupsByStore = HashMap<String, HashSet<BackupId>>;

/// What is known of a backup before its store is looked at.
struct Expected<'a> {
    /// That it was completed, and whether it was deleted.
    event: Option<&'a (Event, bool)>,
    recorded: &'a RecordedManifests,
    places: &'a BackupsByStore,
}

/// What the store has of it.
struct Compared {
    /// What the vault should hold of it: copies that were sealed anew count as what they are copies of.
    bytes: u64,
    /// The ledger has an event of this manifest.
    is_recorded: bool,
}

/// What ledger and stores are found to be, once.
pub(crate) struct Comparison {
    pub(crate) events: usize,
    pub(crate) backups: usize,
    pub(crate) balances: BTreeMap<String, Balance>,
    pub(crate) differences: Vec<Difference>,
    /// Backups without an event, by store.
    pub(crate) unrecorded: Vec<(usize, Stored)>,
}

impl Comparison {
    pub(crate) fn compare(
        ledger: &dyn Ledger,
        stores: &[Box<dyn ReadStore>],
        ctx: &Ctx,
    ) -> anyhow::Result<Comparison> {
        let held = stores.iter().map(|store| catalog::stored(store.as_ref(), &ctx.cancel));
        let held = held.collect::<anyhow::Result<Vec<_>>>()?;
        let mut look = Comparison {
            events: 0,
            backups: 0,
            balances: BTreeMap::new(),
            differences: Vec::new(),
            unrecorded: Vec::new(),
        };
        let entries = ledger.entries()?;
        let known = look.index(&entries);
        let recorded = RecordedManifests::of(entries.iter().filter_map(|entry| entry.event));
        let places = stores.iter().zip(&held).map(|(store, backups)| {
            let ids = backups.iter().map(|backup| backup.name.id).collect();
            (store.url().to_owned(), ids)
        });
        let places: BackupsByStore = places.collect();
        let mut seen = HashSet::new();
        let mut stored_bytes: BTreeMap<BackupType, u64> = BTreeMap::new();
        for (index, (store, backups)) in stores.iter().zip(held).enumerate() {
            for backup in backups {
                let event = known.get(&backup.name.id);
                let expected = Expected { event, recorded: &recorded, places: &places };
                let Compared { bytes, is_recorded } =
                    look.backup(store.as_ref(), &backup, &expected)?;
                if seen.insert(backup.name.id) {
                    let total = stored_bytes.entry(backup.name.backup_type).or_default();
                    *total = total.saturating_add(bytes);
                }
                if !is_recorded {
                    look.unrecorded.push((index, backup));
                }
            }
        }
        look.backups = seen.len();
        look.removed(&known, &seen);
        look.vaults(&ledger.balances()?, &stored_bytes);
        Ok(look)
    }

    /// The events by backup: that it was completed, and whether it was deleted.
    fn index(&mut self, entries: &[Entry]) -> HashMap<BackupId, (Event, bool)> {
        self.events = entries.len();
        let mut known: HashMap<BackupId, (Event, bool)> = HashMap::new();
        let mut deleted = Vec::new();
        for entry in entries {
            match entry.event {
                Some(event) if event.status == Status::Completed => {
                    known.insert(event.backup, (event, false));
                }
                Some(event) if event.status == Status::Deleted => deleted.push(event.backup),
                Some(_) => {}
                None => self.note(
                    DifferenceKind::Foreign,
                    None,
                    format!("transfer {} of {}", entry.id, entry.recorded),
                    "only events recorded by bkp".into(),
                    "a transfer of code 12 from elsewhere".into(),
                ),
            }
        }
        for id in deleted {
            if let Some((_, gone)) = known.get_mut(&id) {
                *gone = true;
            }
        }
        known
    }

    /// Compares one backup with its event, and its objects with its manifest.
    fn backup(
        &mut self,
        store: &dyn ReadStore,
        backup: &Stored,
        expected: &Expected<'_>,
    ) -> anyhow::Result<Compared> {
        let id = Some(backup.name.id);
        let key = backup.name.manifest_key();
        let subject = format!("{} in {}", key, store.url());
        let (manifest, sha256) = read(store, &key)?;
        let is_recorded = self.manifest((backup, &subject), (&manifest, &sha256), expected);
        if expected.event.is_some_and(|(_, gone)| *gone) {
            let expected = "recorded as deleted".to_owned();
            self.note(DifferenceKind::Returned, id, subject, expected, "present".into());
        }
        for url in manifest.iter().flat_map(|manifest| &manifest.copies) {
            if expected.places.get(url).is_some_and(|ids| !ids.contains(&backup.name.id)) {
                let (subject, expected) = (format!("{key} in {url}"), "a copy".to_owned());
                self.note(DifferenceKind::Lacking, id, subject, expected, "nothing".into());
            }
        }
        for object in manifest.iter().flat_map(|manifest| &manifest.objects) {
            let found = backup.objects.iter().find(|found| found.key == object.key);
            let found = found.map_or("nothing".to_owned(), |found| bytes(found.bytes));
            let subject = format!("{} in {}", object.key, store.url());
            if found != bytes(object.bytes) {
                self.note(DifferenceKind::Object, id, subject, bytes(object.bytes), found);
            }
        }
        let manifest = manifest.ok();
        // An event counts what the manifest's `sizes` count, which is not the list of further objects.
        let list = manifest.as_ref().and_then(|manifest| manifest.object(ROLE_OBJECTS));
        let list = list.and_then(|list| backup.objects.iter().find(|found| found.key == list.key));
        let held = backup.bytes().saturating_sub(list.map_or(0, |list| list.bytes));
        let counted = |manifest: Manifest| {
            let more = held.saturating_sub(manifest.sizes.stored_bytes);
            manifest.original_bytes().saturating_add(more)
        };
        let resealed = manifest.filter(|manifest| manifest.resealed.is_some());
        Ok(Compared { bytes: resealed.map_or(held, counted), is_recorded })
    }

    /// Compares a manifest with the events of its backup; whether there is one of it.
    fn manifest(
        &mut self,
        (backup, subject): (&Stored, &str),
        (manifest, sha256): (&Result<Manifest, String>, &[u8; 32]),
        expected: &Expected<'_>,
    ) -> bool {
        let (id, found) = (backup.name.id, format!("digest {}", Digest::of(sha256)));
        let mut note = |what, expected: String, found| {
            self.note(what, Some(id), subject.to_owned(), expected, found);
        };
        let Some((event, _)) = expected.event else {
            note(DifferenceKind::Unrecorded, "no event".to_owned(), found);
            return false;
        };
        let original =
            manifest.as_ref().map_or(*sha256, |manifest| manifest.original_sha256(sha256));
        if event.digest != Digest::of(&original) {
            note(DifferenceKind::Changed, format!("digest {}", event.digest), found);
            return true;
        }
        if !expected.recorded.had(id, sha256) {
            let expected = format!("digest {}, or an event that says resealed", event.digest);
            note(DifferenceKind::Unrecorded, expected, found);
            return false;
        }
        let (expected, found) = match manifest {
            Ok(manifest) => (spelled(event), spelled(&Event::completed(manifest, sha256))),
            Err(reason) => ("a manifest".to_owned(), reason.clone()),
        };
        if expected != found {
            note(DifferenceKind::Changed, expected, found);
        }
        true
    }

    /// Events of backups that are in no store.
    fn removed(&mut self, known: &HashMap<BackupId, (Event, bool)>, seen: &HashSet<BackupId>) {
        let mut gone: Vec<&Event> = known
            .values()
            .filter(|(event, deleted)| !deleted && !seen.contains(&event.backup))
            .map(|(event, _)| event)
            .collect();
        gone.sort_by_key(|event| event.backup);
        for event in gone {
            let subject = format!("the manifest of a {} backup", event.backup_type);
            let found = "in no store".to_owned();
            self.note(DifferenceKind::Removed, Some(event.backup), subject, spelled(event), found);
        }
    }

    fn vaults(&mut self, vaults: &BTreeMap<BackupType, i128>, stored: &BTreeMap<BackupType, u64>) {
        for backup_type in BackupType::ALL {
            let balance = Balance {
                vault_bytes: vaults.get(&backup_type).copied().map_or(0, saturated),
                stored_bytes: stored.get(&backup_type).copied().unwrap_or(0),
            };
            let Balance { vault_bytes, stored_bytes } = balance;
            if i128::from(vault_bytes) != i128::from(stored_bytes) {
                let subject = format!("the vault of {backup_type}");
                let expected = format!("{vault_bytes} bytes");
                self.note(DifferenceKind::Balance, None, subject, expected, bytes(stored_bytes));
            }
            if (vault_bytes, stored_bytes) != (0, 0) {
                self.balances.insert(backup_type.to_string(), balance);
            }
        }
    }

    fn note(
        &mut self,
        what: DifferenceKind,
        id: Option<BackupId>,
        subject: String,
        expected: String,
        found: String,
    ) {
        let difference = Difference { what, id, subject, expected, found };
        // Each of several copies says so of one that is gone.
        if !self.differences.contains(&difference) {
            self.differences.push(difference);
        }
    }
}

/// A balance as a number of JSON; one that does not fit is not that of any store.
fn saturated(balance: i128) -> i64 {
    i64::try_from(balance).unwrap_or(if balance < 0 { i64::MIN } else { i64::MAX })
}

/// A manifest, or what is wrong with it, and the SHA-256 of its file. One that is larger than any manifest
/// has the digest of nothing: it is not read to its end.
fn read(store: &dyn ReadStore, key: &str) -> anyhow::Result<(Result<Manifest, String>, [u8; 32])> {
    let bytes = match catalog::read_manifest(store, key) {
        Ok(bytes) => bytes,
        Err(error) if catalog::is_unproven(&error) => {
            return Ok((Err(format!("{error:#}")), sha2::Sha256::digest(b"").into()));
        }
        Err(error) => return Err(error),
    };
    let manifest = Manifest::parse(&bytes, key).map_err(|error| error.to_string());
    Ok((manifest, sha2::Sha256::digest(&bytes).into()))
}

/// What can differ between an event and the one that a manifest would make.
fn spelled(event: &Event) -> String {
    let seconds = event.seconds;
    format!(
        "{} at {} for {seconds} s, {:032x}",
        bytes(event.stored_bytes),
        event.started,
        event.pack()
    )
}

fn bytes(bytes: u64) -> String {
    format!("{bytes} bytes")
}
