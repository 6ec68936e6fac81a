//! The final checks of a run, before and after its backup becomes visible.
//!
//! A run works for hours, and cleanup may have taken what it relies on for what nobody needs: a clock
//! was wrong, a lease was lost. Both write first and look then (cleanup its mark, a run its manifest), so
//! one of them sees the other.

use crate::domain::manifest::Manifest;
use crate::domain::names::{BackupName, Mark};
use crate::error::{Fault, Kind};
use crate::store::layer::mirrored::MirroredStore;
use crate::store::{ReadStore, StoreError};

/// What is said of a backup that may have been taken apart while it was made.
const TAKEN: &str = "cleanup mistook it for a leftover while it was being made";
const AGAIN: &str = "check the clocks of the hosts, then run the same command again";

/// Makes sure that every store still has `chain`, and the objects of `manifest`, and that nobody has
/// begun to remove any of it. A store of which that is not true drops out.
pub(crate) fn before(
    mirrored: &MirroredStore,
    chain: &[BackupName],
    manifest: &Manifest,
) -> anyhow::Result<()> {
    check_each_store(mirrored, &|store| {
        if let Some(lost) = chain_problem(store, chain)? {
            return Ok(Some(lost));
        }
        for object in &manifest.objects {
            let is_there = match store.head(&object.key) {
                Ok(found) => found.bytes == object.bytes,
                Err(StoreError::Missing { .. }) => false,
                Err(error) => return Err(error),
            };
            if !is_there {
                return Ok(Some(format!("`{}` was removed: {TAKEN}", object.key)));
            }
        }
        let being_removed = is_being_removed(store, &manifest.name())?;
        Ok(being_removed.then(|| format!("backup {} is being removed: {TAKEN}", manifest.id)))
    })
}

/// Makes sure that nobody began to remove the backup, or what it builds on, while it became visible.
pub(crate) fn after(
    mirrored: &MirroredStore,
    chain: &[BackupName],
    manifest: &Manifest,
) -> anyhow::Result<()> {
    check_each_store(mirrored, &|store| {
        let id = manifest.id;
        // The backup is there, whether or not the store still answers.
        if is_being_removed(store, &manifest.name()).unwrap_or(false) {
            return Ok(Some(format!("backup {id} is visible but may be missing objects: {TAKEN}")));
        }
        // Said of a backup that exists: so not by one answer alone.
        let lost = chain_problem(store, chain).unwrap_or_default();
        let lost = lost.and_then(|_first| chain_problem(store, chain).unwrap_or_default());
        Ok(lost.map(|lost| format!("backup {id} is visible but does not restore: {lost}")))
    })
}

/// What is missing of a chain, or about to go.
fn chain_problem(
    store: &dyn ReadStore,
    chain: &[BackupName],
) -> Result<Option<String>, StoreError> {
    for link in chain {
        let is_there = match store.head(&link.manifest_key()) {
            Ok(_) => !is_being_removed(store, link)?,
            Err(StoreError::Missing { .. }) => false,
            Err(error) => return Err(error),
        };
        if !is_there {
            let what = "a backup it builds on was removed while it was being made";
            return Ok(Some(format!("{what}: {}", link.id)));
        }
    }
    Ok(None)
}

fn is_being_removed(store: &dyn ReadStore, name: &BackupName) -> Result<bool, StoreError> {
    match store.head(&name.key(&Mark::Deleting.extension())) {
        Ok(_) => Ok(true),
        Err(StoreError::Missing { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Looks at a store, and says what is wrong with it.
type VisibilityCheck<'a> = &'a dyn Fn(&dyn ReadStore) -> Result<Option<String>, StoreError>;

/// Asks every store; one of which there is something to say drops out with that.
fn check_each_store(mirrored: &MirroredStore, check: VisibilityCheck<'_>) -> anyhow::Result<()> {
    let stores: Vec<_> = mirrored.stores().collect();
    for (index, store) in stores {
        match check(&**store) {
            Ok(None) => {}
            Ok(Some(why)) => {
                let why = format!("{}: {why}", store.url());
                let fault = Fault::new(Kind::Integrity, why).hint(AGAIN);
                mirrored.drop_out::<anyhow::Error>(index, fault.into())?;
            }
            Err(error) => mirrored.failed(index, error)?,
        }
    }
    Ok(())
}
