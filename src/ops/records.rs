//! Records in stores of runs and of operations on backups: small objects that are only ever added.

use std::collections::HashSet;
use std::io::Read as _;

use serde::Serialize;
use sha2::Digest as _;
use time::{Date, OffsetDateTime};

use crate::domain::names::{BackupName, BackupType, MANIFEST_EXTENSION, Scope};
use crate::domain::record::{FOLDER, Record, RunOutcome};
use crate::store::{AppendStore, Declared, ObjectLabels, ReadStore, Role, StoreError, Version};

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
    let before = today.replace_day(1).ok().and_then(Date::previous_day).unwrap_or(today);
    let mut found = Vec::new();
    for day in [before, today] {
        found.extend(below(store, &Record::folder(job, day))?);
    }
    if !found.iter().any(|record| record.outcome() == RunOutcome::Good) {
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

/// Adds a small object with these bytes under a key that nobody else takes.
///
/// # Errors
/// What the store fails with; [`StoreError::Exists`] if somebody else has taken the key.
pub fn add_new(
    store: &dyn AppendStore,
    (key, role): (&str, Role),
    bytes: &[u8],
) -> anyhow::Result<()> {
    if put(store, (key, role), bytes)? {
        return Ok(());
    }
    // A store may have kept what it said it did not.
    let mut found = Vec::new();
    let read = store.open(key, None)?.take(bytes.len() as u64 + 1).read_to_end(&mut found);
    if read.is_ok() && found == bytes {
        return Ok(());
    }
    let (store, key) = (store.url().to_owned(), key.to_owned());
    Err(StoreError::Exists { store, key }.into())
}

/// Adds a small object of these bytes. One that is there already is success.
///
/// # Errors
/// What the store fails with.
pub fn add_bytes(
    store: &dyn AppendStore,
    of: (&str, Role),
    bytes: &[u8],
) -> Result<(), StoreError> {
    put(store, of, bytes).map(|_created| ())
}

/// Names of the backups of a source, for whoever wants a recent one: first those of the newest days, then
/// those of the months before, each newest first. A folder is listed when those before it are used up;
/// what the store fails with ends it. Each comes with the version of its manifest.
pub fn backups<'a>(
    store: &'a dyn ReadStore,
    (backup_type, source): (BackupType, &'a str),
    scopes: &'a [Scope],
    today: Date,
) -> impl Iterator<Item = (BackupName, Option<Version>)> + 'a {
    let before = |day: Option<Date>| day.and_then(Date::previous_day).unwrap_or(today);
    let last_month = before(today.replace_day(1).ok());
    let folders = [(today, true), (before(Some(today)), true), (today, false), (last_month, false)];
    let list = move |(date, is_day): (Date, bool)| {
        let mut names = Vec::new();
        for scope in scopes {
            let day = BackupName::day(backup_type, source, *scope, date);
            let month = day.rsplit_once('/').map_or(day.as_str(), |(month, _)| month);
            for object in store.list(if is_day { &day } else { month })? {
                let object = object?;
                if let Some((name, MANIFEST_EXTENSION)) = BackupName::parse(&object.key) {
                    names.push((name, object.version));
                }
            }
        }
        names.sort_by(|(a, _), (b, _)| b.cmp(a));
        Ok(names)
    };
    let listed = folders.into_iter().map(list).map_while(Result::<_, StoreError>::ok);
    let mut seen = HashSet::new();
    listed.flatten().filter(move |(name, _)| seen.insert(name.clone()))
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
