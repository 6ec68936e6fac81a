//! Times as people read them, RFC 3339.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A time for people.
#[must_use]
pub fn rfc3339(time: OffsetDateTime) -> String {
    time.format(&Rfc3339).unwrap_or_else(|_| time.to_string())
}

/// The time of nanoseconds since 1970 for people; `None` if it has none.
#[must_use]
pub fn spelled(timestamp: u64) -> Option<String> {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(timestamp)).ok();
    time?.format(&Rfc3339).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_spelled_alike() {
        assert_eq!(spelled(1_500_000_000).as_deref(), Some("1970-01-01T00:00:01.5Z"));
        assert_eq!(rfc3339(OffsetDateTime::UNIX_EPOCH), "1970-01-01T00:00:00Z");
        assert!(spelled(u64::MAX).is_some_and(|last| last.starts_with("2554-")));
    }
}
