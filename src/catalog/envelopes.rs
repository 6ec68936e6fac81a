//! Opening a backup by its manifest, or by an envelope beside it.

use std::io::Read as _;

use crate::ctx::Ctx;
use crate::domain::manifest::Manifest;
use crate::domain::names::{BackupName, Mark};
use crate::domain::recipient::Recipient;
use crate::error::{Fault, Kind};
use crate::keys::envelope::{self, ENVELOPE_BYTES_MAX};
use crate::keys::{self, DataKey, Effort, KeyError, KeyProvider};
use crate::store::{ReadStore, StoreError};

use super::contents::again;

/// How many envelopes beside one backup are looked at where nobody named it: somebody may plant them.
const USUAL_MAX: usize = 64;
/// How many where somebody did.
const NAMED_MAX: usize = 10_000;

/// A data key and what gave it.
#[derive(Debug)]
pub struct Unlocked {
    /// The data key.
    pub key: DataKey,
    /// The recipients of the envelope that gave it; none if it was the manifest.
    pub envelope: Vec<Recipient>,
}

/// The data key of a backup, from its manifest or an envelope beside that. The caller has yet to authenticate
/// the manifest with it.
///
/// # Errors
/// As [`unlock`].
pub fn data_key(
    store: &dyn ReadStore,
    manifest: &Manifest,
    keys: (&[Box<dyn KeyProvider>], Effort),
    ctx: &Ctx,
) -> anyhow::Result<DataKey> {
    unlock(store, manifest, keys, ctx).map(|unlocked| unlocked.key)
}

/// The same, and what gave it. Envelopes cost a listing of the backup's day, and are looked for only if the
/// manifest names nobody whose key is at hand.
///
/// # Errors
/// What [`keys::open_any`] said of the manifest's recipients, if no envelope opens either; what the store or the
/// service of a key fails with where an envelope cannot be tried; a cancellation.
pub fn unlock(
    store: &dyn ReadStore,
    manifest: &Manifest,
    (keys, effort): (&[Box<dyn KeyProvider>], Effort),
    ctx: &Ctx,
) -> anyhow::Result<Unlocked> {
    let id = manifest.id;
    let error = match keys::open_any(keys, &manifest.keys, id, effort, &ctx.cancel) {
        Ok(key) => return Ok(Unlocked { key, envelope: Vec::new() }),
        Err(error) => error,
    };
    let is_about_keys = matches!(
        error.downcast_ref(),
        Some(
            KeyError::Unusable { .. }
                | KeyError::Forbidden { .. }
                | KeyError::Away { .. }
                | KeyError::Wrong { .. }
                | KeyError::NoneFits { .. }
        )
    );
    if keys.is_empty() || !is_about_keys {
        return Err(error);
    }
    let max = match effort {
        Effort::Usual => USUAL_MAX,
        Effort::Named => NAMED_MAX,
    };
    let name = manifest.name();
    let marks = again(store, &name)?.marks;
    let mut unknown = None;
    for bytes in envelopes(store, &name, &marks, max) {
        ctx.cancel.check()?;
        // At the usual cost, since there may be thousands: bkp writes none that asks for more.
        let open = |bytes: Vec<u8>| envelope::open(&bytes, id, (keys, Effort::Usual), &ctx.cancel);
        match bytes.and_then(open) {
            Ok(Some((key, envelope))) => return Ok(Unlocked { key, envelope }),
            Ok(None) => {}
            Err(error) if is_of_envelope(&error) => {}
            // One that cannot be read, or asked about, keeps nobody from the others.
            Err(error) => unknown = unknown.or(Some(error)),
        }
    }
    ctx.cancel.check()?;
    Err(unknown.unwrap_or(error))
}

/// Whether an error says that an envelope is for others, or planted. Otherwise nothing is known of it today.
fn is_of_envelope(error: &anyhow::Error) -> bool {
    error.downcast_ref::<KeyError>().is_some_and(KeyError::is_of_backup)
}

/// The recipients of every envelope of a backup that a holder of its data key wrote, as far as they can be read.
pub(super) fn authentic(
    store: &dyn ReadStore,
    name: &BackupName,
    marks: &[Mark],
    key: &DataKey,
) -> Vec<Recipient> {
    let read = envelopes(store, name, marks, USUAL_MAX).filter_map(Result::ok);
    read.flat_map(|bytes| envelope::recipients(&bytes, name.id, key)).collect()
}

/// The bytes of the envelopes among these marks, the newest first; those that have gone or are too large are
/// left out.
fn envelopes<'a>(
    store: &'a dyn ReadStore,
    name: &'a BackupName,
    marks: &'a [Mark],
    max: usize,
) -> impl Iterator<Item = anyhow::Result<Vec<u8>>> + 'a {
    let wrapped = marks.iter().rev().filter(|mark| matches!(mark, Mark::Wrapped(_))).take(max);
    wrapped.filter_map(move |mark| {
        let key = name.key(&mark.extension());
        let body = match store.open(&key, None) {
            Err(StoreError::Missing { .. }) => return None,
            Err(error) => return Some(Err(error.into())),
            Ok(body) => body,
        };
        let mut bytes = Vec::new();
        match body.take(ENVELOPE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes) {
            Ok(length) => (length <= ENVELOPE_BYTES_MAX).then_some(Ok(bytes)),
            Err(error) => {
                let message = format!("reading `{key}` failed: {error}");
                Some(Err(Fault::new(Kind::Store, message).into()))
            }
        }
    })
}
