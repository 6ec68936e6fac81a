//! What is wrong with a key.

use time::{Duration, OffsetDateTime};

use super::finding::{Finding, Level};
use super::rule::Rule;
use crate::domain::timestamp::rfc3339;

/// What is known of a key that is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeyHealth {
    /// Since when it exists.
    pub created: Option<OffsetDateTime>,
    /// Its service refuses to use it.
    pub disabled: bool,
    /// Its service deletes it.
    pub deleting: bool,
    /// When it does.
    pub deleted_at: Option<OffsetDateTime>,
    /// There are backups, and it opens none of those that were looked at.
    pub opens_nothing: bool,
}

/// What is wrong with a key that is to be replaced after `max_age`.
#[must_use]
pub fn of_key(name: &str, key: &KeyHealth, max_age: Duration, now: OffsetDateTime) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut add = |level, message| found.push(Finding::new(level, Rule::Key, name, message));
    if key.deleting {
        let when = key.deleted_at.map_or("soon".to_owned(), rfc3339);
        add(
            Level::Critical,
            format!(
                "it is deleted {when}, and opens nothing then: cancel that, or `bkp keys rewrap --to` another key before"
            ),
        );
    } else if key.disabled {
        add(
            Level::Critical,
            "it is disabled: backups cannot be made for it, nor opened by it".to_owned(),
        );
    }
    if let Some(age) = key.created.map(|created| now - created).filter(|age| *age > max_age) {
        add(
            Level::Warning,
            format!(
                "it is {} days old, more than {} (`max_age`): add a new one to `recipients`, run `bkp keys rewrap`, and remove it",
                age.whole_days(),
                max_age.whole_days()
            ),
        );
    }
    if key.opens_nothing {
        add(
            Level::Warning,
            "it opens none of the newest backups: run `bkp keys rewrap`, or remove it from `recipients`".to_owned(),
        );
    }
    found
}

/// A key whose service does not tell how it is.
#[must_use]
pub fn unasked(key: &str, why: &str) -> Finding {
    Finding::new(Level::Warning, Rule::Key, key, format!("cannot be looked at: {why}"))
}
