//! The record of a removed backup: an object in its store, written before anything is removed, from
//! which the next cleanup on any host can make the ledger's event.
//!
//! The ledger must not be made to say that bkp removed what somebody else did. So the object is
//! authentic like a manifest, by the key of the backup itself, and the event is made from one that is.
//! Where no key is at hand only the host that removed the backup can tell the ledger, from its own
//! state directory. Beside an object about which nothing is left to do there is another one,
//! `settled-…`.

use std::collections::HashSet;
use std::io::Read as _;

use serde::{Deserialize, Serialize};
use time::{Date, OffsetDateTime};

use crate::catalog::{self, Entry};
use crate::cmd::cleanup::item::Item;
use crate::ctx::{Ctx, host};
use crate::domain::event::{Event, Numbers, Status};
use crate::domain::id::BackupId;
use crate::domain::manifest::{Manifest, hex};
use crate::domain::recipient::Recipient;
use crate::error::{Fault, Kind};
use crate::keys::keyring::{self, Keyring, SignatureCheck};
use crate::keys::signature::Signer;
use crate::keys::{self, Effort, manifest_mac};
use crate::ledger::{Ledger, LedgerError};
use crate::ops::{audit, records};
use crate::store::{AppendStore, Role};

/// What the authentication of such an object is for; no manifest's can be taken for it.
const MAC_INFO: &[u8] = b"bkp deletion 1";
/// Largest object that is read, bytes.
const BYTES_MAX: u64 = 64 << 10;
/// How many months back deletions are looked for that the ledger does not have yet.
const MONTHS: usize = 4;

/// What is kept of a backup that was removed, schema `bkp.audit/1`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct DeletionRecord {
    schema: String,
    what: String,
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
    backup: BackupId,
    manifest: String,
    sha256: String,
    bytes: u64,
    reason: String,
    host: String,
    process: u32,
    /// For the ledger, if there was one.
    event: Option<Numbers>,
    /// The backup's recipients: whoever can open it can authenticate this.
    keys: Vec<Recipient>,
    /// The host that removed it, if it signs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signer: Option<String>,
    /// Ed25519 over what the MAC covers, after `bkp deletion 1` and a zero byte, hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signature: Option<String>,
    /// HMAC-SHA256 of this object without it, hex; nothing if no key was at hand.
    mac: Option<String>,
}

/// What is said of a deletion about which nothing is left to do.
#[derive(Debug, Serialize)]
struct ClosedDeletion<'a> {
    schema: &'static str,
    of: &'a str,
    why: &'a str,
}

impl DeletionRecord {
    fn tag(&self, key: &keys::DataKey) -> Option<String> {
        Some(manifest_mac::tag(key, MAC_INFO, &self.text()?))
    }

    fn text(&self) -> Option<Vec<u8>> {
        serde_json::to_vec(&AuthenticatedFields::of(self)).ok()
    }

    /// Whether it is what bkp wrote. Anybody can seal a data key for a public key.
    fn is_authentic(&self, keys: &Keyring, ctx: &Ctx) -> bool {
        let signed = (self.signature.as_deref(), self.signer.as_deref());
        match keys.check_text(signed, MAC_INFO, &self.text().unwrap_or_default()) {
            SignatureCheck::Trusted => return true,
            SignatureCheck::Wrong => return false,
            SignatureCheck::Unknown => {}
        }
        let (id, effort) = (self.backup, Effort::Usual);
        keyring::open_any(keys, &self.keys, id, effort, &ctx.cancel).is_ok_and(|opened| {
            opened.by_holder && self.mac.is_some() && self.tag(&opened.key) == self.mac
        })
    }

    /// The event, if this is what bkp wrote.
    fn event(&self, keys: &Keyring, ctx: &Ctx) -> Option<Event> {
        let event = self.event.as_ref().and_then(Event::unpack)?;
        (self.is_authentic(keys, ctx)
            && event.backup == self.backup
            && event.status == Status::Deleted)
            .then_some(event)
    }
}

/// The fields that are authenticated.
#[derive(Serialize)]
struct AuthenticatedFields<'a> {
    at: i128,
    backup: BackupId,
    manifest: &'a str,
    sha256: &'a str,
    bytes: u64,
    reason: &'a str,
    host: &'a str,
    process: u32,
    event: Option<Numbers>,
}

impl<'a> AuthenticatedFields<'a> {
    fn of(of: &'a DeletionRecord) -> AuthenticatedFields<'a> {
        let DeletionRecord {
            at,
            backup,
            manifest,
            sha256,
            bytes,
            reason,
            host,
            process,
            event,
            ..
        } = of;
        AuthenticatedFields {
            at: at.unix_timestamp_nanos(),
            backup: *backup,
            manifest,
            sha256,
            bytes: *bytes,
            reason,
            host,
            process: *process,
            event: *event,
        }
    }
}

/// Notes in the store that a backup is about to be removed, whose manifest is still the one with the
/// digest that was decided on. Returns the event that says so.
///
/// # Errors
/// What the store fails with; [`Kind::Integrity`] if the manifest is another one now.
pub(crate) fn record_deletion(
    store: &dyn AppendStore,
    (item, entry, decided_on): (&Item, &Entry, Option<[u8; 32]>),
    has_ledger: bool,
    keys: &Keyring,
    ctx: &Ctx,
) -> anyhow::Result<Option<Event>> {
    let (at, id, place) = (ctx.now(), entry.name.id, entry.name.manifest_key());
    let bytes = catalog::read_manifest(store, &place)?;
    let sha256: [u8; 32] = <sha2::Sha256 as sha2::Digest>::digest(&bytes).into();
    if decided_on != Some(sha256) {
        let message = format!("manifest `{place}` has changed");
        let hint = "check it with `bkp verify --id`; if it is damaged, remove it by hand";
        return Err(Fault::new(Kind::Integrity, message).hint(hint).into());
    }
    let manifest = Manifest::parse(&bytes, &place)?;
    let event = has_ledger.then(|| Event::completed(&manifest, &sha256).deleted());
    let mut deleted = DeletionRecord {
        schema: "bkp.audit/1".to_owned(),
        what: "deleted".to_owned(),
        at,
        backup: id,
        manifest: place,
        sha256: hex(&sha256),
        bytes: item.bytes,
        reason: item.reason.clone(),
        host: host(),
        process: std::process::id(),
        event: event.as_ref().map(Numbers::from),
        keys: manifest.keys.clone(),
        signer: keys.signer().map(|signer| signer.id().to_string()),
        signature: None,
        mac: None,
    };
    if let Ok(opened) = catalog::authenticate(store, (manifest, &bytes), (keys, Effort::Usual), ctx)
    {
        deleted.mac = opened.key.ok().and_then(|key| deleted.tag(&key));
        // What opens the backup now has to open this later, when the backup has gone.
        deleted.keys.extend(opened.envelope);
    }
    let text = deleted.text();
    let sign = |signer: &Signer| text.map(|text| signer.sign_text(MAC_INFO, &text));
    deleted.signature = keys.signer().and_then(sign);
    records::add(store, (&audit::key("deleted", id, at), Role::Index), &deleted)?;
    Ok(event)
}

/// Tells the ledger of the deletions that this store knows of and the ledger may not, but not of backups
/// in `left`, which are still somewhere.
///
/// # Errors
/// What the store fails with, and [`LedgerError::Away`].
pub(crate) fn report(
    store: &dyn AppendStore,
    ledger: &dyn Ledger,
    left: &HashSet<BackupId>,
    keys: &Keyring,
    ctx: &Ctx,
) -> anyhow::Result<()> {
    for key in open_deletions(store, ctx.now().date())? {
        ctx.cancel.check()?;
        let Some(deleted) = read(store, &key)? else { continue };
        // Without a ledger, or without a key, this object is all that there is.
        if deleted.event.is_none() || (deleted.mac.is_none() && deleted.signature.is_none()) {
            continue;
        }
        if left.contains(&deleted.backup) {
            close_deletion(store, &key, "the backup is still there")?;
            continue;
        }
        let Some(event) = deleted.event(keys, ctx) else {
            let what = "claims that bkp removed a backup, but no available key authenticates it";
            ctx.monitor.warn(&format!("`{key}` {what}; not reported to the ledger"));
            continue;
        };
        match ledger.record(&event) {
            Ok(()) => close_deletion(store, &key, "the ledger knows")?,
            Err(error @ LedgerError::Away { .. }) => return Err(error.into()),
            Err(error) => ctx.monitor.warn(&format!("a deletion is not recorded: {error}")),
        }
    }
    Ok(())
}

/// The deletions of the last months about which something may be left to do, by their keys.
fn open_deletions(store: &dyn AppendStore, today: Date) -> anyhow::Result<Vec<String>> {
    let before = |day: &Date| day.replace_day(1).ok().and_then(Date::previous_day);
    let (mut found, mut settled) = (Vec::new(), HashSet::new());
    for day in std::iter::successors(Some(today), before).take(MONTHS) {
        for object in store.list(&audit::month(day))? {
            let key = object?.key;
            let name = key.rsplit('/').next().unwrap_or_default();
            if let Some(of) = name.strip_prefix("settled-") {
                settled.insert(key.replace(name, &format!("deleted-{of}")));
            } else if name.starts_with("deleted-") {
                found.push(key);
            }
        }
    }
    found.retain(|key| !settled.contains(key));
    found.sort();
    Ok(found)
}

fn read(store: &dyn AppendStore, key: &str) -> anyhow::Result<Option<DeletionRecord>> {
    let mut bytes = Vec::new();
    // What cannot be read now may be next time; what is no such object never is.
    let read = store.open(key, None)?.take(BYTES_MAX).read_to_end(&mut bytes);
    Ok(read.ok().and_then(|_| serde_json::from_slice(&bytes).ok()))
}

fn close_deletion(store: &dyn AppendStore, of: &str, why: &str) -> anyhow::Result<()> {
    let key = of.replace("/deleted-", "/settled-");
    records::add(store, (&key, Role::Index), &ClosedDeletion { schema: "bkp.audit/1", of, why })
}
