//! Expired terms of leases.

use std::collections::BTreeMap;
use std::io::Read as _;

use serde::Deserialize;
use time::OffsetDateTime;

use super::term::{BYTES_MAX, FOLDER, chain, number};
use crate::store::{ObjectInfo, ReadStore, StoreError};

/// When a term ends; nothing else of it matters here.
#[derive(Deserialize)]
struct TermEnd {
    #[serde(with = "time::serde::rfc3339")]
    until: OffsetDateTime,
}

/// The terms of all jobs that ended before `before`, but of each job the newest that counts, by the clock
/// of now. They must have ended
/// long ago: a holder that slept through them all would take the number of one that is not there any
/// more for its own.
///
/// # Errors
/// What the store fails with.
pub fn stale(
    store: &dyn ReadStore,
    before: OffsetDateTime,
    now: OffsetDateTime,
) -> Result<Vec<ObjectInfo>, StoreError> {
    let mut jobs: BTreeMap<String, Vec<ObjectInfo>> = BTreeMap::new();
    for object in store.list(FOLDER)? {
        let object = object?;
        let parts: Vec<&str> = object.key.split('/').collect();
        if let [_, job, _] = parts.as_slice()
            && number(job, &object.key).is_some()
        {
            jobs.entry((*job).to_owned()).or_default().push(object);
        }
    }
    let mut found = Vec::new();
    for (job, mut terms) in jobs {
        terms.sort_by(|a, b| a.key.cmp(&b.key));
        let numbers: Vec<u64> = terms.iter().filter_map(|term| number(&job, &term.key)).collect();
        let newest = chain(&numbers, now).last().copied().unwrap_or(0);
        terms.retain(|term| number(&job, &term.key).is_some_and(|number| number < newest));
        let count = ended(store, &terms, before)?;
        terms.truncate(count);
        found.extend(terms);
    }
    Ok(found)
}

/// How many of the first `terms` ended before `before`. They follow one another, so few are read.
fn ended(
    store: &dyn ReadStore,
    terms: &[ObjectInfo],
    before: OffsetDateTime,
) -> Result<usize, StoreError> {
    let (mut low, mut high) = (0, terms.len());
    while low < high {
        let middle = usize::midpoint(low, high);
        let Some(term) = terms.get(middle) else { break };
        // One that cannot be read counts as young.
        if end(store, &term.key)?.is_some_and(|until| until < before) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

fn end(store: &dyn ReadStore, key: &str) -> Result<Option<OffsetDateTime>, StoreError> {
    let input = match store.open(key, None) {
        Err(StoreError::Missing { .. }) => return Ok(None),
        opened => opened?,
    };
    let mut bytes = Vec::new();
    if input.take(BYTES_MAX).read_to_end(&mut bytes).is_err() {
        return Ok(None);
    }
    Ok(serde_json::from_slice::<TermEnd>(&bytes).ok().map(|end| end.until))
}
