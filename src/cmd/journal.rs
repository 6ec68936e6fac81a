//! What stores keep of runs and of what was done to backups: small objects that are only ever added.

use std::io::Read as _;

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
pub fn add(store: &dyn AppendStore, of: (&str, Role), body: &impl Serialize) -> anyhow::Result<()> {
    put(store, of, &line(body)?).map(|_created| ()).map_err(Into::into)
}

/// Adds a small object whose key another one may take at the same time. Returns whether what is there now
/// is this one.
///
/// # Errors
/// What the store fails with.
pub fn add_own(
    store: &dyn AppendStore,
    (key, role): (&str, Role),
    body: &impl Serialize,
) -> anyhow::Result<bool> {
    let bytes = line(body)?;
    if put(store, (key, role), &bytes)? {
        return Ok(true);
    }
    // A store may have kept what it said it did not.
    let mut found = Vec::new();
    let read = store.open(key, None)?.take(bytes.len() as u64 + 1).read_to_end(&mut found);
    Ok(read.is_ok() && found == bytes)
}

fn line(body: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = serde_json::to_vec(body)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Creates an object; returns whether it was not there before.
fn put(
    store: &dyn AppendStore,
    (key, role): (&str, Role),
    bytes: &[u8],
) -> Result<bool, StoreError> {
    let labels = ObjectLabels { role, ..ObjectLabels::default() };
    let put = || -> Result<(), StoreError> {
        let mut upload = store.create(key, &labels)?;
        upload.write(bytes)?;
        let sha256 = sha2::Sha256::digest(bytes).into();
        upload.commit(Declared { bytes: bytes.len() as u64, sha256 })
    };
    match put() {
        Ok(()) => Ok(true),
        Err(StoreError::Exists { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}
