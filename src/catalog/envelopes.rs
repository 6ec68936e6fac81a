//! Opening a backup by its manifest, or by an envelope beside it.

use crate::ctx::Ctx;
use crate::domain::limits::MARK_BYTES_MAX;
use crate::domain::manifest::Manifest;
use crate::domain::names::{BackupName, Mark};
use crate::domain::recipient::Recipient;
use crate::keys::keyring::{self, Keyring, OpenedKey};
use crate::keys::{DataKey, Effort, KeyError, envelope, manifest_mac};
use crate::store::{ReadStore, StoreError};

use super::contents::again;
use super::manifest::read_small;

/// How many envelopes beside one backup are looked at where nobody named it: somebody may plant them.
const USUAL_MAX: usize = 64;
/// How many objects are read at most for each that is looked at.
const READS_FOR_ONE: usize = 4;
/// How many where somebody did.
const NAMED_MAX: usize = 10_000;

/// A manifest as it is stored.
#[derive(Debug)]
pub(super) struct ManifestFile<'a> {
    /// What it says.
    pub(super) manifest: &'a Manifest,
    /// Its bytes.
    pub(super) bytes: &'a [u8],
    /// Their SHA-256.
    pub(super) sha256: [u8; 32],
}

impl ManifestFile<'_> {
    /// Whether its MAC is right under a data key.
    pub(super) fn is_right(&self, key: &DataKey) -> bool {
        let at = self.manifest.name().manifest_key();
        manifest_mac::authenticate(self.bytes, key, &at).is_ok()
    }
}

/// A data key and what gave it.
#[derive(Debug)]
pub(super) struct FoundKey {
    /// The data key, and whether its MAC proves anything.
    pub(super) opened: OpenedKey,
    /// The recipients of the envelope that gave it; none if it was the manifest.
    pub(super) envelope: Vec<Recipient>,
}

/// The data key of a backup, and what gave it: its manifest or an envelope beside that. The caller has yet to
/// authenticate the manifest with it. Envelopes cost a listing of the backup's day, and are looked for only if the
/// manifest names nobody whose key is at hand.
///
/// # Errors
/// What [`keyring::open_any`] said of the manifest's recipients, if no envelope opens either; what the store or the
/// service of a key fails with where an envelope cannot be tried; a cancellation.
pub(super) fn find_key(
    store: &dyn ReadStore,
    file: &ManifestFile<'_>,
    (keys, effort): (&Keyring, Effort),
    ctx: &Ctx,
) -> anyhow::Result<FoundKey> {
    let ManifestFile { manifest, .. } = file;
    let id = manifest.id;
    let error = match keyring::open_any(keys, &manifest.keys, id, effort, &ctx.cancel) {
        Ok(opened) => return Ok(FoundKey { opened, envelope: Vec::new() }),
        Err(error) => error,
    };
    // A spent budget of derivations, or a service that is away, says nothing of other recipients.
    let is_about_keys =
        |error: &KeyError| error.is_of_backup() || matches!(error, KeyError::Away { .. });
    if !keys.can_open() || !error.downcast_ref().is_some_and(is_about_keys) {
        return Err(error);
    }
    let is_right = |key: &DataKey| file.is_right(key);
    let (mut unknown, mut wrong) = (None, None);
    match envelope::from_key_set((id, &file.sha256), keys, &is_right, &ctx.cancel) {
        Ok(Some((opened, envelope))) if file.is_right(&opened.key) => {
            return Ok(FoundKey { opened, envelope });
        }
        Ok(Some((opened, envelope))) => wrong = Some(FoundKey { opened, envelope }),
        Ok(None) => {}
        Err(error) => unknown = Some(error),
    }
    let max = match effort {
        Effort::Usual => USUAL_MAX,
        Effort::Named => NAMED_MAX,
    };
    let name = manifest.name();
    let marks = again(store, &name)?.marks;
    for bytes in envelopes(store, &name, &marks, max) {
        ctx.cancel.check()?;
        // At the usual cost, since there may be thousands: bkp writes none that asks for more.
        let open = |bytes: Vec<u8>| {
            envelope::open(&bytes, (id, &file.sha256), (keys, Effort::Usual), &ctx.cancel)
        };
        match bytes.and_then(open) {
            Ok(Some((opened, envelope))) if file.is_right(&opened.key) => {
                return Ok(FoundKey { opened, envelope });
            }
            // One of a copy under another data key, or of a manifest that was altered.
            Ok(Some((opened, envelope))) if opened.by_holder => {
                wrong = wrong.or(Some(FoundKey { opened, envelope }));
            }
            // Anybody can write one for a public key. The data key of the backup he does not know.
            Ok(Some(_) | None) => {}
            Err(error) if is_of_envelope(&error) => {}
            // One that cannot be read, or asked about, keeps nobody from the others.
            Err(error) => unknown = unknown.or(Some(error)),
        }
    }
    ctx.cancel.check()?;
    match (unknown, wrong) {
        (Some(error), _) => Err(error),
        (None, Some(wrong)) => Ok(wrong),
        (None, None) => Err(error),
    }
}

/// Whether an error says that an envelope is for others, or planted. Otherwise nothing is known of it today.
fn is_of_envelope(error: &anyhow::Error) -> bool {
    error.downcast_ref::<KeyError>().is_some_and(KeyError::is_of_backup)
}

/// The recipients of every envelope of a backup that a holder of its data key wrote, or else a trusted signer, as
/// far as they can be read.
pub(super) fn authentic(
    store: &dyn ReadStore,
    (name, marks): (&BackupName, &[Mark]),
    key: Option<&DataKey>,
    keys: &Keyring,
) -> Vec<Recipient> {
    let read = envelopes(store, name, marks, USUAL_MAX).filter_map(Result::ok);
    read.flat_map(|bytes| match key {
        Some(key) => envelope::recipients(&bytes, name.id, key),
        None => envelope::signed_recipients(&bytes, name.id, keys),
    })
    .collect()
}

/// The bytes of the envelopes among these marks, the newest and the oldest in turn, at most `max` of them: whoever
/// plants some does not hide those that were there before. What has gone, is too large or is no envelope of this
/// backup is left out, and does not count as long as there is not far too much of it.
fn envelopes<'a>(
    store: &'a dyn ReadStore,
    name: &'a BackupName,
    marks: &'a [Mark],
    max: usize,
) -> impl Iterator<Item = anyhow::Result<Vec<u8>>> + 'a {
    let wrapped: Vec<&Mark> =
        marks.iter().filter(|mark| matches!(mark, Mark::Wrapped(_))).collect();
    let last = wrapped.len().saturating_sub(1);
    let in_turn = (0..wrapped.len()).map(move |n| if n % 2 == 0 { last - n / 2 } else { n / 2 });
    let in_turn = in_turn.filter_map(move |at| wrapped.get(at).copied()).take(max * READS_FOR_ONE);
    let read = in_turn.filter_map(move |mark| {
        match read_small(store, &name.key(&mark.extension()), MARK_BYTES_MAX) {
            Err(error) if matches!(error.downcast_ref(), Some(StoreError::Missing { .. })) => None,
            read => read.transpose(),
        }
    });
    read.filter(|read| read.as_ref().map_or(true, |bytes| envelope::is_of(bytes, name.id)))
        .take(max)
}
