//! Copies of backups under other data keys.

use sha2::{Digest as _, Sha256};

use super::progress::{Copied, Progress, StoredBackup};
use super::replication::Replication;
use super::reseal_keys::Reseal;
use crate::catalog::{Catalog, Entry, Need};
use crate::cmd::snapshot::new_key;
use crate::concurrent::each_of_few;
use crate::ctx::host;
use crate::domain::event::Event;
use crate::domain::hex::hex;
use crate::domain::id::BackupId;
use crate::domain::limits::MANIFEST_BYTES_MAX;
use crate::domain::manifest::{Manifest, ObjectRecord, ROLE_OBJECTS, Sizes};
use crate::domain::names::{BackupName, BackupType};
use crate::domain::recipient::Recipient;
use crate::domain::resealed::{Resealed, unknown_field};
use crate::error::{Fault, Kind};
use crate::keys::begun_copies::BegunCopy;
use crate::keys::keyring::{Keyring, open_any};
use crate::keys::{DataKey, Effort, KeyError, KeyProvider, manifest_mac};
use crate::pipeline::resealing::{Resealing, is_sealed, left, or_left, recipients_of};
use crate::pipeline::{BackupReader, ObjectBuilder};
use crate::stage::Compression;

/// Objects of one backup that are sealed anew at a time. Each has five threads with up to 10 MiB between two of them.
const AT_A_TIME: usize = 2;

/// A data key, and who can open it.
type SealedKey = (DataKey, Vec<Recipient>);

impl Replication<'_> {
    /// Copies one backup under another data key. When this returns without an error the copy is there, and its content
    /// is what the manifest says, which is authentic.
    pub(super) fn seal_anew(
        &self,
        reseal: &Reseal,
        backup: &StoredBackup,
        progress: &Progress,
    ) -> anyhow::Result<Copied> {
        let (entry, name, ctx) = (&backup.entry, &backup.entry.name, &self.app.ctx);
        check_kind(name)?;
        progress.check_resealed(backup, self.destination.url())?;
        let (reader, sha256) = self.catalog.open_for(name, Need::Content)?;
        let manifest = reader.manifest();
        progress.check(manifest)?;
        self.check_free(name, progress)?;
        self.check_understood(manifest, sha256)?;
        let objects = reader.objects(ctx)?.filter(|object| object.role != ROLE_OBJECTS);
        let objects: Vec<&ObjectRecord> = objects.collect();
        let keys = reseal.keys(&name.source)?;
        let begun = self.begun(&reader, &objects, (&keys, progress))?;
        if self.dry_run {
            return Ok(Copied::Now(None));
        }
        let (key, recipients) = match begun {
            Some(begun) => begun,
            None => self.begin(&reader, &keys)?,
        };
        let retain_until = self.retain_until(manifest);
        let builder = ObjectBuilder {
            store: self.destination,
            name,
            key: &key,
            recipients: &recipients,
            compression: Compression::None,
            retain_until,
            ctx,
        };
        ctx.monitor.begin(&format!("reseal {} {}", name.kind, name.id), Some(entry.stored_bytes()));
        let resealing = Resealing { origin: &reader, builder: &builder };
        let made =
            each_of_few(&objects, AT_A_TIME, &ctx.cancel, |object| resealing.object(object))?;
        let sizes = Sizes::of(&made);
        let named = builder.fit_manifest(made.clone())?;
        self.lock_longer(&reader, retain_until);
        self.confirm()?;
        let list = named.iter().filter(|object| object.role == ROLE_OBJECTS);
        self.check_copies(name, &made.iter().chain(list).collect::<Vec<_>>())?;
        let resealed = self.manifest_anew(manifest, &sha256, (named, sizes, recipients.clone()));
        self.publish_anew(&resealed, (&key, &keys))
    }

    /// The manifest of a copy: it says what that of the original says, and what it is a copy of.
    fn manifest_anew(
        &self,
        original: &Manifest,
        sha256: &[u8; 32],
        (objects, sizes, keys): (Vec<ObjectRecord>, Sizes, Vec<Recipient>),
    ) -> Manifest {
        let signer = original.resealed.as_ref().and_then(|resealed| resealed.signer.clone());
        let resealed = Resealed {
            from: hex(&original.original_sha256(sha256)),
            stored_bytes: original.original_bytes(),
            at: self.app.ctx.now(),
            host: host(),
            tool: format!("bkp {}", env!("CARGO_PKG_VERSION")),
            signer: signer.or_else(|| original.signer.clone()),
        };
        let (copies, resealed) = (Vec::new(), Some(resealed));
        Manifest { objects, sizes, keys, copies, resealed, ..original.clone() }
    }

    /// Writes the manifest of a copy, and tells the ledger.
    fn publish_anew(
        &self,
        manifest: &Manifest,
        (key, keys): (&DataKey, &Keyring),
    ) -> anyhow::Result<Copied> {
        let at = manifest.name().manifest_key();
        let bytes = manifest_mac::encode_signed(manifest.clone(), key, keys.signer())?;
        // Before it is visible: what a reader would refuse must not become a backup.
        let manifest = Manifest::parse(&bytes, &at)?;
        if bytes.len() as u64 > MANIFEST_BYTES_MAX {
            let message =
                format!("its manifest would have {} bytes, more than bkp can read", bytes.len());
            return Err(Fault::new(Kind::Refused, message)
                .hint("configure fewer recipients under [keys]")
                .into());
        }
        if self.publish((&at, &bytes), self.retain_until(&manifest))? {
            let there = crate::catalog::read_manifest(self.destination, &at)?;
            if there != bytes {
                return Err(self.taken(&at));
            }
        }
        if let Err(error) = self.begun_copy(manifest.id).forget() {
            self.app.ctx.monitor.warn(&format!("cannot write to the state directory: {error}"));
        }
        let event = Event::resealed(&manifest, &Sha256::digest(&bytes).into());
        Ok(Copied::Now(event.and_then(|event| self.tell(&event))))
    }

    /// That the other store has no manifest under this name.
    fn check_free(&self, name: &BackupName, progress: &Progress) -> anyhow::Result<()> {
        let known = progress.there.get(name);
        if known.is_some_and(|known| known.entry.manifest.is_some()) {
            return Err(self.taken(&name.manifest_key()));
        }
        Ok(())
    }

    fn taken(&self, key: &str) -> anyhow::Error {
        let (from, to) = (self.origin.url(), self.destination.url());
        let message = format!("{to}: `{key}` is there, and is not a copy of the one in {from}");
        let hint = "nothing is overwritten: seal anew into a store that has no copies yet, or remove that one by hand";
        Fault::new(Kind::Refused, message).hint(hint).into()
    }

    /// That nothing of a manifest gets lost when it is written anew.
    fn check_understood(&self, manifest: &Manifest, sha256: [u8; 32]) -> anyhow::Result<()> {
        let file = serde_json::from_slice(&self.manifest_of(&manifest.name(), sha256)?)?;
        let Some(field) = unknown_field(&file, &serde_json::to_value(manifest)?) else {
            return Ok(());
        };
        let message = format!("its manifest has a field that this bkp does not know: {field}");
        let hint = format!(
            "use a version of bkp at least as new as the one that made it, {}",
            manifest.tool
        );
        Err(Fault::new(Kind::Refused, message).hint(hint).into())
    }

    /// A new data key for a copy, wrapped for the recipients of today. Where anybody could have wrapped one for them, or
    /// a service may let this host seal and not open, it is kept, so that a run that ends is continued.
    fn begin(&self, reader: &BackupReader<'_>, keys: &Keyring) -> anyhow::Result<SealedKey> {
        let Manifest { id, source, .. } = reader.manifest();
        let (key, recipients) = new_key(keys, *id, source)?;
        let is_own = |key: &dyn KeyProvider| !key.is_public() && !key.is_service();
        let is_provable = keys.providers().iter().any(|key| key.can_open() && is_own(&**key));
        if let Some(original) = reader.data_key().filter(|_| !is_provable)
            && let Err(error) = self.begun_copy(*id).keep(original, &key, &recipients)
        {
            let what = "if this run ends early, what it leaves has to be removed first";
            let why = format!("cannot write to the state directory: {error:#}; {what}");
            self.app.ctx.monitor.warn(&why);
        }
        Ok((key, recipients))
    }

    fn begun_copy(&self, id: BackupId) -> BegunCopy {
        BegunCopy::of(&self.app.settings.state_dir, self.destination.url(), id)
    }

    /// The data key of a copy that an earlier run began, from the header of one of its objects: the others are sealed
    /// with it, too. Either a holder of a key made that header, or this host did.
    ///
    /// # Errors
    /// [`Kind::Refused`] if what is there was sealed by somebody or for somebody else.
    fn begun(
        &self,
        reader: &BackupReader<'_>,
        objects: &[&ObjectRecord],
        (keys, progress): (&Keyring, &Progress),
    ) -> anyhow::Result<Option<SealedKey>> {
        let name = reader.manifest().name();
        let Some(known) = progress.there.get(&name) else { return Ok(None) };
        let is_there = |key: &str| known.entry.objects.iter().any(|object| object.key == key);
        let first = objects.iter().find(|object| is_sealed(object) && is_there(&object.key));
        let Some(first) = first else { return Ok(None) };
        let (at, ctx, id) = (first.key.as_str(), &self.app.ctx, name.id);
        let recipients = recipients_of(self.destination, (id, at), ctx)
            .map_err(|error| or_left(error, self.destination, at))?;
        if keys.are_recipients(&recipients, id)? {
            let kept = reader.data_key().and_then(|key| self.begun_copy(id).load(key));
            if let Some(kept) = kept.filter(|(_, kept)| *kept == recipients) {
                return Ok(Some(kept));
            }
            match open_any(keys, &recipients, id, Effort::Named, &ctx.cancel) {
                Ok(opened) if opened.by_holder => return Ok(Some((opened.key, recipients))),
                Err(error) if !error.downcast_ref().is_some_and(KeyError::is_of_backup) => {
                    return Err(error);
                }
                // Anybody can seal for a public key, and this host perhaps not even open it.
                Ok(_) | Err(_) => {}
            }
        }
        Err(left(self.destination, at).into())
    }

    /// That a copy that is there opens with the recipients of today alone.
    pub(super) fn check_recipients(
        &self,
        reseal: &Reseal,
        entry: &Entry,
        progress: &Progress,
    ) -> anyhow::Result<Copied> {
        check_kind(&entry.name)?;
        let keys = reseal.keys(&entry.name.source)?;
        let there = progress.there.get(&entry.name).map_or(entry, |known| &known.entry);
        let catalog = Catalog::new(self.destination, self.keys, &self.app.ctx);
        let (recipients, is_proven) = catalog.openers(there)?;
        if is_proven && keys.owns(&recipients, entry.name.id)? {
            return Ok(Copied::Before);
        }
        let (at, to) = (entry.name.manifest_key(), self.destination.url());
        let message =
            format!("{to}: `{at}` is there already, and keys open it that are not configured");
        let hint = "nothing is overwritten: seal anew into a store that has no copies yet";
        Err(Fault::new(Kind::Refused, message).hint(hint).into())
    }
}

/// That it is of a kind that can be sealed anew.
///
/// # Errors
/// [`Kind::Refused`] for key sets: theirs are the data keys of the old bytes.
fn check_kind(name: &BackupName) -> Result<(), Fault> {
    if name.backup_type != BackupType::Kms {
        return Ok(());
    }
    let message =
        "a key set has the data keys of the old bytes, which open no copy that is sealed anew";
    let hint = format!("take a new one afterwards: bkp snapshot {}", name.source);
    Err(Fault::new(Kind::Refused, message).hint(hint))
}
