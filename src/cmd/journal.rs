//! What stores keep of runs and of what was done to backups: small objects that are only ever added.

use serde::Serialize;
use sha2::Digest as _;
use time::OffsetDateTime;

use crate::domain::record::{FOLDER, Outcome, Record};
use crate::store::{AppendStore, Declared, ObjectLabels, ReadStore, Role, StoreError};

/// The records of the runs of a job that its schedule needs: those of this month and the last, or
/// all if none of them is a success.
///
/// # Errors
/// What the store fails with.
pub fn recent(
    store: &dyn ReadStore,
    job: &str,
    now: OffsetDateTime,
) -> Result<Vec<Record>, StoreError> {
    let today = now.date();
    let before = today.replace_day(1).ok().and_then(time::Date::previous_day).unwrap_or(today);
    let mut found = Vec::new();
    for day in [before, today] {
        found.extend(below(store, &Record::folder(job, day))?);
    }
    if !found.iter().any(|record| record.outcome() == Outcome::Good) {
        found = below(store, &format!("{FOLDER}/{job}"))?;
    }
    Ok(found)
}

/// The records in a folder, oldest first.
///
/// # Errors
/// What the store fails with.
pub fn below(store: &dyn ReadStore, folder: &str) -> Result<Vec<Record>, StoreError> {
    let mut found = Vec::new();
    for object in store.list(folder)? {
        found.extend(Record::parse(&object?.key));
    }
    found.sort();
    Ok(found)
}

/// Adds a small object. One that is there already is success.
///
/// # Errors
/// What the store fails with.
pub fn add(
    store: &dyn AppendStore,
    (key, role): (&str, Role),
    body: &impl Serialize,
) -> anyhow::Result<()> {
    let mut bytes = serde_json::to_vec(body)?;
    bytes.push(b'\n');
    let labels = ObjectLabels { role, ..ObjectLabels::default() };
    let put = || -> Result<(), StoreError> {
        let mut upload = store.create(key, &labels)?;
        upload.write(&bytes)?;
        let sha256 = sha2::Sha256::digest(&bytes).into();
        upload.commit(Declared { bytes: bytes.len() as u64, sha256 })
    };
    match put() {
        Ok(()) | Err(StoreError::Exists { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
