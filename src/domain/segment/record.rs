//! The description of a segment: the `capture` record of its manifest.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::spans::Spans;

/// Timestamps and numbers of operations are smaller: TigerBeetle has the same limit.
pub const NUMBER_MAX: u64 = 1 << 63;

/// What a log consists of.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Operations of the write-ahead log, as the cluster wrote them.
    Wal,
    /// What the cluster answers: accounts, transfers and expiries.
    Query,
}

impl Mode {
    /// Every mode, the default first.
    pub const ALL: [Mode; 2] = [Mode::Wal, Mode::Query];

    /// The word in manifests, configuration and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Wal => "wal",
            Mode::Query => "query",
        }
    }

    /// The mode of this word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Mode> {
        Mode::ALL.into_iter().find(|mode| mode.as_str() == text)
    }
}

/// The `capture` record of a segment's manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// What it consists of.
    pub mode: Mode,
    /// `transaction-consistent`: it ends between two operations.
    pub consistency: String,
    /// The cluster's id, decimal.
    pub cluster: String,
    /// SHA-256 of the manifest of the segment before it, hex; `None` for the first one.
    pub parent_sha256: Option<String>,
    /// Why it does not continue what was shipped before.
    pub gap: Option<String>,
    /// Why no restore goes on over this segment, although nothing of it is missing; in query mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreplayable: Option<String>,
    /// From where to where.
    pub position: Position,
    /// How many records of each sort it has.
    pub records: BTreeMap<String, u64>,
    /// What the books came to at its end; only where all of it was shipped, in query mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub totals: Option<Totals>,
}

/// Sums over all accounts of a cluster.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// How many accounts there are.
    pub accounts: u64,
    /// What was posted to their debits, all together. Accounts and this only grow.
    #[serde(with = "decimal")]
    pub debits_posted: u128,
    /// The same of their credits.
    #[serde(with = "decimal")]
    pub credits_posted: u128,
}

impl std::fmt::Display for Totals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Totals { accounts, debits_posted, credits_posted } = self;
        write!(f, "{accounts} accounts, {debits_posted} debited, {credits_posted} credited")
    }
}

/// Numbers beyond 2^53 as decimal text, which every JSON reader keeps exact.
mod decimal {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(
        number: &u128,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(number)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<u128, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// From where to where a segment goes. Times are nanoseconds since 1970, by the cluster's clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The time of the first operation; in query mode the first time that is covered.
    pub first_timestamp: u64,
    /// The time of the last operation; in query mode the last time that is covered.
    pub last_timestamp: u64,
    /// `last_timestamp` for people, RFC 3339.
    pub last_time: Option<String>,
    /// In wal mode.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub ops: Option<Ops>,
    /// In query mode.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub marks: Option<Marks>,
}

/// The operations of a segment in wal mode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ops {
    /// Number of the first one.
    pub first_op: u64,
    /// Number of the last one.
    pub last_op: u64,
    /// Checksum of the operation before the first, 32 hex digits.
    pub before_checksum: String,
    /// Checksum of the last one.
    pub last_checksum: String,
    /// When pending transfers with a timeout may expire, of those that were shipped so far, as far as
    /// that is still to come.
    pub expiries: Spans,
}

/// How far a log in query mode has come. Timestamps of accounts and of transfers grow by themselves,
/// not together: imported ones lie in the past.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// Timestamp of the last account.
    pub accounts_mark: u64,
    /// Timestamp of the last transfer.
    pub transfers_mark: u64,
    /// Whether a pending transfer with a timeout was shipped so far. Without one nothing expires.
    pub timeouts: bool,
    /// Time of the last expiry.
    pub expiries_mark: u64,
    /// Expiries that were shipped since the last transfer.
    #[serde(default)]
    pub expiries_since: u64,
}

impl Segment {
    /// The segment that a manifest's `capture` describes.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(capture: &Value) -> Result<Segment, String> {
        let segment: Segment =
            serde_json::from_value(capture.clone()).map_err(|error| error.to_string())?;
        let Position { first_timestamp, last_timestamp, ops, marks, .. } = &segment.position;
        let whole = match segment.mode {
            Mode::Wal => ops.as_ref().is_some_and(|ops| ops.first_op <= ops.last_op),
            Mode::Query => marks.is_some(),
        };
        let mut numbers = vec![*first_timestamp, *last_timestamp];
        numbers.extend(ops.iter().flat_map(|ops| [ops.first_op, ops.last_op]));
        let of = |marks: &Marks| [marks.accounts_mark, marks.transfers_mark, marks.expiries_mark];
        numbers.extend(marks.iter().flat_map(of));
        let small = numbers.into_iter().all(|number| number < NUMBER_MAX);
        if !whole || !small || first_timestamp > last_timestamp {
            return Err("its position is inconsistent".into());
        }
        Ok(segment)
    }

    /// Whether nothing before it is needed: in query mode a segment that continues none begins with the
    /// cluster's first account.
    #[must_use]
    pub fn is_from_the_beginning(&self) -> bool {
        self.mode == Mode::Query
            && (self.parent_sha256.is_none() || self.gap.is_some())
            && self.unreplayable.is_none()
    }

    /// Why this segment does not continue `before`, whose manifest has this digest; `None` if it
    /// does. A gap that the segment names itself is none of this.
    #[must_use]
    pub fn contradicts(&self, before: &Segment, before_sha256: &str) -> Option<String> {
        let Position { first_timestamp, ops, .. } = &self.position;
        if self.parent_sha256.as_deref() != Some(before_sha256) {
            return Some("the previous segment is not the one it names".into());
        }
        if self.mode != before.mode || self.cluster != before.cluster {
            return Some("the previous segment belongs to another log".into());
        }
        if self.gap.is_some() {
            return None;
        }
        if *first_timestamp <= before.position.last_timestamp {
            return Some("it begins before the end of the previous segment".into());
        }
        let (Some(ops), Some(earlier)) = (ops, &before.position.ops) else { return None };
        let follows =
            ops.first_op == earlier.last_op + 1 && ops.before_checksum == earlier.last_checksum;
        (!follows).then(|| {
            format!(
                "it begins with op {}, but the previous segment ends with op {}",
                ops.first_op, earlier.last_op
            )
        })
    }
}
