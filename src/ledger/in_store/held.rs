//! Whether a run holds the lease of a job, for observers that do not want to take it.

use std::collections::BTreeSet;

use time::{Duration, OffsetDateTime};

use super::term::{FOLDER, Term, row};
use crate::domain::id::BackupId;
use crate::store::{ReadStore, StoreError};

/// Who holds the lease of `job` in a store, if anybody may: its newest term was not given back and ends
/// later than `grace` ago. The clock of its holder may be behind, or ours ahead. What no run can have
/// written is passed over.
///
/// # Errors
/// What the store fails with.
pub fn held(
    store: &dyn ReadStore,
    job: &str,
    now: OffsetDateTime,
    grace: Duration,
) -> Result<Option<String>, StoreError> {
    let newest = row(store, job, now)?.newest;
    let is_held = |term: &Term| !term.is_given_back() && term.until.saturating_add(grace) >= now;
    let term = newest.map(|(_, term)| term).filter(is_held);
    Ok(term.map(|term| term.holder(now)))
}

/// What is odd about the leases of a store, a sentence each: what no run can have written, and what is
/// held by somebody whose clock is far ahead of ours.
///
/// # Errors
/// What the store fails with.
pub fn strange(store: &dyn ReadStore, now: OffsetDateTime) -> Result<Vec<String>, StoreError> {
    let jobs = jobs(store)?;
    let mut found = Vec::new();
    for job in jobs {
        let row = row(store, &job, now)?;
        let say = |(key, why): &(String, String)| {
            format!("no run can have written the lease `{key}`: {why}")
        };
        found.extend(row.strange.iter().map(say));
        if let Some((_, term)) = row.newest.filter(|(_, term)| !term.is_given_back())
            && term.ahead(now).is_some()
        {
            found.push(format!("the lease of `{job}` is from the future: {}", term.holder(now)));
        }
    }
    Ok(found)
}

/// What runs now, by the leases that are held: the name of the lease, the run, and its host.
///
/// # Errors
/// What the store fails with.
pub fn running(
    store: &dyn ReadStore,
    now: OffsetDateTime,
) -> Result<Vec<(String, BackupId, String)>, StoreError> {
    let mut found = Vec::new();
    for job in jobs(store)? {
        let newest = row(store, &job, now)?.newest.map(|(_, term)| term);
        let held = newest.filter(|term| !term.is_given_back() && term.until >= now);
        found.extend(held.map(|term| (job, term.run, term.host)));
    }
    Ok(found)
}

/// Whose leases a store has.
fn jobs(store: &dyn ReadStore) -> Result<BTreeSet<String>, StoreError> {
    let mut jobs = BTreeSet::new();
    for object in store.list(FOLDER)? {
        let object = object?;
        if let [_, job, _] = object.key.split('/').collect::<Vec<_>>().as_slice() {
            jobs.insert((*job).to_owned());
        }
    }
    Ok(jobs)
}
