//! Whether a run holds the lease of a job, as somebody sees it who does not want it himself.

use std::io::Read as _;

use serde::Deserialize;
use time::{Duration, OffsetDateTime};

use super::{FOLDER, TERM_BYTES_MAX, Term};
use crate::ledger::Holder;
use crate::store::{ReadStore, StoreError};

/// From when to when a term lasts; whatever else it should say, this is enough to know that it is over.
#[derive(Deserialize)]
struct End {
    #[serde(default, with = "time::serde::rfc3339::option")]
    begun: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339")]
    until: OffsetDateTime,
}

/// Who holds the lease of `job` in a store, if anybody may: its newest term was not given back and ends
/// later than `grace` ago. The clock of its holder may be behind, or ours ahead; and what cannot be read
/// may be anybody's.
///
/// # Errors
/// What the store fails with.
pub fn held(
    store: &dyn ReadStore,
    job: &str,
    now: OffsetDateTime,
    grace: Duration,
) -> Result<Option<String>, StoreError> {
    let mut newest: Option<String> = None;
    for object in store.list(&format!("{FOLDER}/{job}"))? {
        let key = object?.key;
        let is_term = |name: &str| name.len() == 20 && name.bytes().all(|b| b.is_ascii_digit());
        if key.rsplit('/').next().is_some_and(is_term) {
            newest = newest.max(Some(key));
        }
    }
    let Some(key) = newest else { return Ok(None) };
    let input = match store.open(&key, None) {
        Err(StoreError::Missing { .. }) => return Ok(None),
        opened => opened?,
    };
    let mut bytes = Vec::new();
    let read = input.take(TERM_BYTES_MAX).read_to_end(&mut bytes);
    let Some(end) = read.ok().and_then(|_| serde_json::from_slice::<End>(&bytes).ok()) else {
        return Ok(Some(format!("`{key}` cannot be understood")));
    };
    if end.begun == Some(end.until) || end.until.saturating_add(grace) < now {
        return Ok(None);
    }
    let Ok(term) = serde_json::from_slice::<Term>(&bytes) else {
        return Ok(Some(format!("`{key}` cannot be understood")));
    };
    let plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let host: String = term.host.chars().filter(plain).take(64).collect();
    Ok(Some(Holder::describe(&host, term.process, term.run.created(), now)))
}
