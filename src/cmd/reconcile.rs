//! `bkp verify --ledger`: the ledger against the stores, both ways. Needs no key.
//!
//! What was recorded cannot be changed, and who can write to a store usually cannot write to the
//! ledger. So whatever differs between them was changed, removed or planted by somebody, or lost.

use std::collections::{BTreeMap, HashMap, HashSet};

use schemars::JsonSchema;
use serde::Serialize;
use sha2::Digest as _;

use super::{Report, recorded};
use crate::catalog::{self, Stored};
use crate::domain::event::{Digest, Event, Status};
use crate::domain::id::BackupId;
use crate::domain::manifest::Manifest;
use crate::domain::names::BackupType;
use crate::error::{Fault, Kind};
use crate::keys;
use crate::ledger::outbox::Outbox;
use crate::ledger::{Entry, Ledger};
use crate::store::ReadStore;
use crate::wire::House;

/// What `bkp verify --ledger` was asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Record the authentic backups that the ledger does not have. Needs a key of each.
    pub record: bool,
}

/// How ledger and store differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum What {
    /// A manifest is not the one that was recorded.
    Changed,
    /// A recorded backup has no manifest, and its deletion was not recorded.
    Removed,
    /// A manifest was never recorded: planted, or its event was lost.
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

/// One difference. Equal in both of two looks, it is no run that ended in between.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
struct Difference {
    what: What,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<BackupId>,
    /// The manifest or object, the transfer, or the vault.
    subject: String,
    /// What the ledger says, or the manifest of an object.
    expected: String,
    found: String,
}

/// The stable shape `bkp.verify-ledger/1`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Reconciled {
    /// Where the ledger is.
    ledger: String,
    /// URLs of the stores that it was compared with.
    stores: Vec<String>,
    /// There is no difference.
    ok: bool,
    /// Transfers of code 12 in the ledger.
    events: usize,
    /// Backups in the stores; one that is in several counts once.
    backups: usize,
    /// By type: what the vault holds and what the stores hold, bytes.
    balances: BTreeMap<String, Balance>,
    /// Events that were recorded because of `--record`.
    recorded: Vec<BackupId>,
    differences: Vec<Difference>,
}

#[derive(Debug, Clone, Copy, Default, Serialize, JsonSchema)]
struct Balance {
    /// What the ledger holds of this type; negative only if others write to the vault.
    vault_bytes: i64,
    /// What the stores hold.
    stored_bytes: u64,
}

/// Compares the ledger with every configured store, and with the one that `--store` names.
///
/// # Errors
/// [`Kind::Config`] if no ledger is configured; what ledger or stores fail with. Differences are no
/// error: the report has them, and its outcome is [`Kind::Integrity`].
pub fn run(house: &House, options: Options) -> anyhow::Result<Report> {
    let ledger = ledger_of(house)?;
    let stores = stores(house)?;
    let outbox = Outbox::of(&house.settings.state_dir);
    recorded::flush(&outbox, &*ledger, &*house.ctx.monitor)?;
    let mut look = Look::take(&*ledger, &stores)?;
    let mut recorded = Vec::new();
    if options.record {
        recorded = record(house, &*ledger, &stores, &look)?;
    }
    if !look.differences.is_empty() {
        // A run that ended between reading the stores and reading the ledger looks like a
        // difference, once.
        let first = std::mem::replace(&mut look, Look::take(&*ledger, &stores)?);
        look.differences.retain(|difference| first.differences.contains(difference));
    }
    let reconciled = Reconciled {
        ledger: ledger.name().to_owned(),
        stores: stores.iter().map(|store| store.url().to_owned()).collect(),
        ok: look.differences.is_empty(),
        events: look.events,
        backups: look.backups,
        balances: look.balances,
        recorded,
        differences: look.differences,
    };
    let outcome = (!reconciled.ok).then_some(Kind::Integrity);
    let text = render(&reconciled);
    Ok(Report::done("bkp.verify-ledger/1", &reconciled, text)?.with_outcome(outcome))
}

/// The configured ledger.
///
/// # Errors
/// [`Kind::Config`] if there is none.
pub fn ledger_of(house: &House) -> anyhow::Result<Box<dyn Ledger>> {
    let ledger = house.ledger().ok_or_else(|| {
        Fault::new(Kind::Config, "no ledger is configured")
            .hint("add a [ledger] table with `cluster` and `addresses`; see examples/bkp.toml")
    })?;
    Ok(ledger)
}

fn stores(house: &House) -> anyhow::Result<Vec<Box<dyn ReadStore>>> {
    let settings = &house.settings;
    let chosen = settings.store.iter().filter(|text| text.contains("://"));
    let names: Vec<&String> = settings.stores.keys().chain(chosen).collect();
    if names.is_empty() {
        return Ok(vec![house.store_read(None)?]);
    }
    let open = |name: &&String| {
        let mut house = house.clone();
        house.settings.store = Some((*name).clone());
        house.store_read(None)
    };
    names.iter().map(open).collect()
}

/// What ledger and stores are found to be, once.
struct Look {
    events: usize,
    backups: usize,
    balances: BTreeMap<String, Balance>,
    differences: Vec<Difference>,
    /// Backups without an event, by store.
    unrecorded: Vec<(usize, Stored)>,
}

impl Look {
    fn take(ledger: &dyn Ledger, stores: &[Box<dyn ReadStore>]) -> anyhow::Result<Look> {
        let held = stores.iter().map(|store| catalog::stored(store.as_ref()));
        let held = held.collect::<anyhow::Result<Vec<_>>>()?;
        let mut look = Look {
            events: 0,
            backups: 0,
            balances: BTreeMap::new(),
            differences: Vec::new(),
            unrecorded: Vec::new(),
        };
        let known = look.index(&ledger.entries()?);
        let mut seen = HashSet::new();
        let mut stored_bytes: BTreeMap<BackupType, u64> = BTreeMap::new();
        for (index, (store, backups)) in stores.iter().zip(held).enumerate() {
            for backup in backups {
                look.backup(store.as_ref(), &backup, known.get(&backup.name.id))?;
                if seen.insert(backup.name.id) {
                    let total = stored_bytes.entry(backup.name.backup_type).or_default();
                    *total = total.saturating_add(backup.bytes());
                }
                if !known.contains_key(&backup.name.id) {
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
                    What::Foreign,
                    None,
                    format!("transfer {} of {}", entry.id, entry.recorded),
                    "only events that bkp records".into(),
                    "a transfer of code 12 that it does not".into(),
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
        known: Option<&(Event, bool)>,
    ) -> anyhow::Result<()> {
        let id = Some(backup.name.id);
        let key = backup.name.manifest_key();
        let subject = format!("{} in {}", key, store.url());
        let (manifest, sha256) = read(store, &key)?;
        let digest = Digest::of(&sha256);
        let (expected, found) = match (known, &manifest) {
            (None, _) => {
                let expected = "no event".to_owned();
                self.note(What::Unrecorded, id, subject, expected, format!("digest {digest}"));
                (String::new(), String::new())
            }
            (Some((event, _)), _) if event.digest != digest => {
                (format!("digest {}", event.digest), format!("digest {digest}"))
            }
            (Some((event, _)), Ok(manifest)) => {
                (spelled(event), spelled(&Event::completed(manifest, &sha256)))
            }
            (Some(_), Err(reason)) => ("a manifest".to_owned(), reason.clone()),
        };
        let subject = format!("{} in {}", key, store.url());
        if expected != found {
            self.note(What::Changed, id, subject.clone(), expected, found);
        }
        if known.is_some_and(|(_, gone)| *gone) {
            let expected = "recorded as deleted".to_owned();
            self.note(What::Returned, id, subject, expected, "it is there".into());
        }
        for object in manifest.iter().flat_map(|manifest| &manifest.objects) {
            let found = backup.objects.iter().find(|found| found.key == object.key);
            let found = found.map_or("nothing".to_owned(), |found| bytes(found.bytes));
            let subject = format!("{} in {}", object.key, store.url());
            if found != bytes(object.bytes) {
                self.note(What::Object, id, subject, bytes(object.bytes), found);
            }
        }
        Ok(())
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
            self.note(What::Removed, Some(event.backup), subject, spelled(event), found);
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
                self.note(What::Balance, None, subject, expected, bytes(stored_bytes));
            }
            if (vault_bytes, stored_bytes) != (0, 0) {
                self.balances.insert(backup_type.to_string(), balance);
            }
        }
    }

    fn note(
        &mut self,
        what: What,
        id: Option<BackupId>,
        subject: String,
        expected: String,
        found: String,
    ) {
        self.differences.push(Difference { what, id, subject, expected, found });
    }
}

/// A balance as a number of JSON; one that does not fit is not that of any store.
fn saturated(balance: i128) -> i64 {
    i64::try_from(balance).unwrap_or(if balance < 0 { i64::MIN } else { i64::MAX })
}

/// A manifest, or what is wrong with it, and the SHA-256 of its file.
fn read(store: &dyn ReadStore, key: &str) -> anyhow::Result<(Result<Manifest, String>, [u8; 32])> {
    let bytes = catalog::read_manifest(store, key)?;
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

/// Records the backups that the ledger does not have, as far as a key at hand shows them to be ours.
fn record(
    house: &House,
    ledger: &dyn Ledger,
    stores: &[Box<dyn ReadStore>],
    look: &Look,
) -> anyhow::Result<Vec<BackupId>> {
    let providers = house.keys_to_read()?;
    let mut recorded = Vec::new();
    for (index, backup) in &look.unrecorded {
        let Some(store) = stores.get(*index) else { continue };
        let key = backup.name.manifest_key();
        let file = catalog::read_manifest(store.as_ref(), &key)?;
        let authentic = || -> anyhow::Result<Event> {
            let manifest = Manifest::parse(&file, &key)?;
            let data_key =
                keys::unwrap_any(&providers, &manifest.keys, manifest.id, &house.ctx.cancel)?;
            Manifest::authenticate(&file, &data_key, &key)?;
            Ok(Event::completed(&manifest, &sha2::Sha256::digest(&file).into()))
        };
        match authentic() {
            Ok(event) => {
                ledger.record(&event)?;
                recorded.push(event.backup);
            }
            Err(error) => house.ctx.monitor.warn(&format!("`{key}` is not recorded: {error:#}")),
        }
    }
    Ok(recorded)
}

fn render(reconciled: &Reconciled) -> String {
    let Reconciled { ledger, stores, events, backups, recorded, differences, .. } = reconciled;
    let mut lines =
        vec![format!("ledger {ledger}: {events} events; {}: {backups} backups", stores.join(", "))];
    if !recorded.is_empty() {
        lines.push(format!("recorded {} backup(s) that had no event", recorded.len()));
    }
    for (name, balance) in &reconciled.balances {
        let Balance { vault_bytes, stored_bytes } = balance;
        lines.push(format!(
            "{name}: the vault holds {vault_bytes} bytes, the stores {stored_bytes}"
        ));
    }
    for difference in differences {
        let Difference { what, id, subject, expected, found } = difference;
        let what = format!("{what:?}").to_uppercase();
        let id = id.map(|id| format!("{id} ")).unwrap_or_default();
        lines.push(format!("{what:<10}  {id}{subject}: expected {expected}, found {found}"));
    }
    lines.push(match differences.len() {
        0 => "they agree".to_owned(),
        count => format!("{count} difference(s)"),
    });
    lines.join("\n")
}
