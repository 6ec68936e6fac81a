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
/// What [`keys::open_any`] said of the manifest's recipients, if no envelope opens either; what the store fails
/// with; a cancellation.
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
    for bytes in envelopes(store, &name, &marks, max) {
        ctx.cancel.check()?;
        // At the usual cost, since there may be thousands: bkp writes none that asks for more.
        match envelope::open(&bytes?, id, (keys, Effort::Usual), &ctx.cancel) {
            Ok(Some((key, envelope))) => return Ok(Unlocked { key, envelope }),
            Ok(None) => {}
            Err(stopped) if matches!(stopped.downcast_ref(), Some(KeyError::Stopped(_))) => {
                return Err(stopped);
            }
            // It is for others, or planted; what the manifest said is what is reported.
            Err(_not_ours) => ctx.cancel.check()?,
        }
    }
    Err(error)
}

/// The recipients of every envelope of a backup that a holder of its data key wrote.
///
/// # Errors
/// What the store fails with.
pub(super) fn authentic(
    store: &dyn ReadStore,
    name: &BackupName,
    marks: &[Mark],
    key: &DataKey,
) -> anyhow::Result<Vec<Recipient>> {
    let mut found = Vec::new();
    for bytes in envelopes(store, name, marks, USUAL_MAX) {
        found.extend(envelope::recipients(&bytes?, name.id, key));
    }
    Ok(found)
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
