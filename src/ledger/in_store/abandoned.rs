//! Leases of holders whose clock is ahead of ours, or that were written before ours was set back.
//! Comparing clocks does not show when such a lease expires. But a holder renews its lease several
//! times while it lasts, so one that has not changed for its whole duration has been abandoned.

use std::collections::BTreeMap;
use std::path::Path;

use time::OffsetDateTime;

use super::term::Term;
use crate::cache;
use crate::ctx::Ctx;

/// How many are remembered.
const REMEMBERED_MAX: usize = 64;

/// Whether a term was seen first so long ago that its holder would have renewed it. `place` says which: no
/// other term has it. A clock that is set meanwhile begins the waiting anew.
pub(super) fn is_abandoned(state_dir: &Path, place: &str, term: &Term, ctx: &Ctx) -> bool {
    let (path, now) = (cache::folder(state_dir).join("leases.json"), ctx.now());
    let mut seen: BTreeMap<String, i64> = cache::load(&path).unwrap_or_default();
    let first = seen.get(place).and_then(|first| OffsetDateTime::from_unix_timestamp(*first).ok());
    if let Some(first) = first.filter(|first| *first <= now) {
        return now - first > term.length();
    }
    if seen.len() >= REMEMBERED_MAX {
        seen.clear();
    }
    seen.insert(place.to_owned(), now.unix_timestamp());
    cache::save(&path, &seen, ctx);
    false
}
