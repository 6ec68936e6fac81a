//! Backup ids: UUID version 7, time-ordered, and as a `u128` the id of a ledger transfer.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

/// The id of a backup. Ordering is by time of creation, to the millisecond.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
pub struct BackupId(Uuid);

impl BackupId {
    /// A new id for a backup that starts at `now` (milliseconds count, the rest is random).
    #[must_use]
    pub fn new(now: OffsetDateTime) -> Self {
        let seconds = u64::try_from(now.unix_timestamp()).unwrap_or(0);
        let stamp = uuid::Timestamp::from_unix(uuid::NoContext, seconds, now.nanosecond());
        BackupId(Uuid::new_v7(stamp))
    }

    /// The id as the number that a ledger transfer carries.
    #[must_use]
    pub fn as_u128(self) -> u128 {
        self.0.as_u128()
    }

    /// The id that is this number; `None` if that is no UUID version 7.
    #[must_use]
    pub fn from_u128(number: u128) -> Option<Self> {
        let uuid = Uuid::from_u128(number);
        (uuid.get_version_num() == 7).then_some(BackupId(uuid))
    }

    /// The id of the same time with 62 bits of `random` for its random part.
    #[must_use]
    pub fn with_random(self, random: u64) -> Self {
        // Version and variant stay where they are (RFC 9562, 5.7).
        let keep = u128::MAX << 80 | 0xf << 76 | 0b11 << 62;
        let random = u128::from(random & (u64::MAX >> 2));
        BackupId(Uuid::from_u128(self.0.as_u128() & keep | random))
    }

    /// The creation time in the id, UTC, milliseconds.
    #[must_use]
    pub fn created(self) -> OffsetDateTime {
        // The first 48 bits of a version 7 UUID are Unix milliseconds (RFC 9562, 5.7).
        let millis = self.0.as_u128() >> 80;
        i128::try_from(millis)
            .ok()
            .and_then(|ms| OffsetDateTime::from_unix_timestamp_nanos(ms * 1_000_000).ok())
            .unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

/// The text is not a hyphenated, lower-case UUID version 7.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a backup id")]
pub struct InvalidId(pub String);

impl FromStr for BackupId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = || InvalidId(text.to_owned());
        let uuid = Uuid::try_parse(text).map_err(|_parse| invalid())?;
        // One spelling only: an id is part of a key, and two keys must not mean one backup.
        if uuid.get_version_num() != 7 || uuid.as_hyphenated().to_string() != text {
            return Err(invalid());
        }
        Ok(BackupId(uuid))
    }
}

impl TryFrom<String> for BackupId {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<BackupId> for String {
    fn from(id: BackupId) -> String {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn ids_carry_their_time_and_sort_by_it() {
        let early = datetime!(2026-11-21 02:00:00.125 UTC);
        let late = datetime!(2026-11-21 02:00:00.126 UTC);
        let (a, b) = (BackupId::new(early), BackupId::new(late));
        assert!(a < b);
        assert_eq!(a.created(), early);
        assert_eq!(a.to_string().parse::<BackupId>(), Ok(a));
    }

    #[test]
    fn other_spellings_are_refused() {
        let id = BackupId::new(datetime!(2026-11-21 02:00:00 UTC)).to_string();
        for text in [id.to_uppercase(), id.replace('-', ""), format!("{{{id}}}"), String::new()] {
            assert!(text.parse::<BackupId>().is_err(), "{text}");
        }
        assert!("6ba7b810-9dad-11d1-80b4-00c04fd430c8".parse::<BackupId>().is_err());
    }
}
