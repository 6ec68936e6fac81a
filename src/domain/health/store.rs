//! Health rules for a store, and for the ledger's outbox.

use schemars::JsonSchema;
use serde::Serialize;
use time::OffsetDateTime;

use super::ages::DAY;
use super::finding::{Finding, Level};
use super::rule::Rule;

/// Space of a store, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Space {
    /// What can still be written.
    pub free_bytes: u64,
    /// The total size.
    pub total_bytes: u64,
}

/// What is wrong with the space of a store that holds `stored` bytes and of which that many percent
/// should be free.
#[must_use]
pub fn of_space(
    name: &str,
    stored: u64,
    quota: Option<u64>,
    space: Option<Space>,
    free_percent_min: u8,
) -> Vec<Finding> {
    let mut found = Vec::new();
    let percent = |part: u64, whole: u64| u128::from(part) * 100 / u128::from(whole.max(1));
    if let Some(quota) = quota {
        let used = percent(stored, quota);
        let level = match used {
            95.. => Some(Level::Critical),
            80.. => Some(Level::Warning),
            _ => None,
        };
        if let Some(level) = level {
            let message = format!("{used} % of the quota is used");
            found.push(Finding::new(level, Rule::Quota, name, message).of_store(name));
        }
    }
    if let Some(Space { free_bytes, total_bytes }) = space {
        let free = percent(free_bytes, total_bytes);
        let least = u128::from(free_percent_min);
        let level = match free {
            // A quarter of what should be free is next to nothing.
            free if free < least / 4 => Some(Level::Critical),
            free if free < least => Some(Level::Warning),
            _ => None,
        };
        if let Some(level) = level {
            let message = format!("only {free} % is free");
            found.push(Finding::new(level, Rule::Space, name, message).of_store(name));
        }
    }
    found
}

/// What is wrong if so many events wait for the ledger, the oldest since then.
#[must_use]
pub fn of_outbox(
    waiting: usize,
    oldest: Option<OffsetDateTime>,
    now: OffsetDateTime,
) -> Option<Finding> {
    let old = oldest.is_some_and(|oldest| now - oldest > DAY);
    let level = if old { Level::Critical } else { Level::Warning };
    let message = format!("{waiting} event(s) pending for the ledger");
    (waiting > 0).then(|| Finding::new(level, Rule::Outbox, "ledger", message))
}

/// A key that is configured and cannot be used.
#[must_use]
pub fn unusable(key: &str, why: &str) -> Finding {
    Finding::new(Level::Critical, Rule::Key, key, format!("unusable: {why}"))
}

/// A store that does not answer.
#[must_use]
pub fn unreachable(name: &str, why: &str) -> Finding {
    Finding::new(Level::Critical, Rule::Unreachable, name, format!("unreachable: {why}"))
}
