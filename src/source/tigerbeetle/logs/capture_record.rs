//! The `capture` records of the manifests of segments, and of snapshots that a log goes on from; and what the
//! rules of logs are told of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::spans::Spans;
use crate::domain::id::BackupId;
use crate::domain::manifest::Identity;
use crate::domain::segment::{Base, Range, Segment};
use crate::source::logs::LogMode;
use crate::source::tigerbeetle::cluster::totals::Totals;
use crate::source::tigerbeetle::data_file::zones::NUMBER_MAX;

/// Operations at the end of a snapshot that a cluster may take back: TigerBeetle has 8 in flight.
const UNSURE_OPS_MAX: u64 = 16;

/// The modes of a log: the same books are better than the same balances.
pub(crate) const MODES: &[LogMode] = &[
    LogMode {
        name: Mode::Wal.as_str(),
        about: "Operations of the write-ahead log, as the cluster wrote them.",
    },
    LogMode {
        name: Mode::Query.as_str(),
        about: "What the cluster answers: accounts, transfers and expiries.",
    },
];

/// What a log consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Operations of the write-ahead log, as the cluster wrote them.
    Wal,
    /// What the cluster answers: accounts, transfers and expiries.
    Query,
}

impl Mode {
    /// The word in manifests, configuration and on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Mode::Wal => "wal",
            Mode::Query => "query",
        }
    }

    /// The mode of this word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Mode> {
        [Mode::Wal, Mode::Query].into_iter().find(|mode| mode.as_str() == text)
    }
}

/// The `capture` record of a segment's manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentRecord {
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

impl SegmentRecord {
    /// The segment that a manifest's `capture` describes.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(capture: &Value) -> Result<SegmentRecord, String> {
        let segment: SegmentRecord =
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

    /// The same as the rules of logs see it.
    #[must_use]
    pub fn as_segment(&self) -> Segment {
        let SegmentRecord { mode, cluster, parent_sha256, gap, unreplayable, position, .. } = self;
        let range = position.ops.as_ref().map(|ops| Range {
            first: ops.first_op,
            last: ops.last_op,
            before: ops.before_checksum.clone(),
            after: ops.last_checksum.clone(),
        });
        Segment {
            mode: mode.as_str().to_owned(),
            stream: cluster.clone(),
            needs_base: match mode {
                Mode::Wal => true,
                // The first segment begins with the cluster's first account.
                Mode::Query => false,
            },
            parent_sha256: parent_sha256.clone(),
            gap: gap.clone(),
            unreplayable: unreplayable.clone(),
            first_timestamp: position.first_timestamp,
            last_timestamp: position.last_timestamp,
            range,
        }
    }
}

/// The segment that a manifest's `capture` describes, as the rules of logs see it.
pub(crate) fn read_segment(capture: &Value) -> Result<Segment, String> {
    SegmentRecord::read(capture).map(|record| record.as_segment())
}

/// Where the snapshot `id` ends, as its `capture` record says; `None` if it does not say.
pub(crate) fn read_base(id: BackupId, capture: &Value) -> Option<Base> {
    let number = |name: &str| capture.pointer(&format!("/position/{name}"))?.as_u64();
    Some(Base {
        id,
        stream: capture.get("cluster")?.as_str()?.to_owned(),
        position: number("head_op")?,
        timestamp: number("head_timestamp")?,
        slack: UNSURE_OPS_MAX,
        branch: None,
    })
}

/// What the manifest of a segment says that it is of.
pub(crate) fn identity(capture: &Value) -> Identity {
    let cluster = capture.get("cluster").and_then(Value::as_str);
    cluster.map(|id| ("cluster".to_owned(), id.to_owned())).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::segment::{Link, window};

    /// A segment in mode wal.
    fn record() -> SegmentRecord {
        SegmentRecord {
            mode: Mode::Wal,
            consistency: "transaction-consistent".into(),
            cluster: "7".into(),
            parent_sha256: Some("sha of 0".into()),
            gap: None,
            unreplayable: None,
            position: Position {
                first_timestamp: 50,
                last_timestamp: 90,
                last_time: None,
                ops: Some(Ops {
                    first_op: 5,
                    last_op: 9,
                    before_checksum: "04".into(),
                    last_checksum: "09".into(),
                    expiries: Spans::default(),
                }),
                marks: None,
            },
            records: BTreeMap::new(),
            totals: None,
        }
    }

    /// The same in mode query.
    fn of_query() -> SegmentRecord {
        let mut segment = record();
        segment.mode = Mode::Query;
        segment.position.ops = None;
        let marks =
            Marks { accounts_mark: 3, transfers_mark: 4, timeouts: true, ..Marks::default() };
        segment.position.marks = Some(marks);
        segment
    }

    #[test]
    fn what_a_segment_says_reads_back() {
        let segment = record();
        let value = serde_json::to_value(&segment).expect("encodes");
        assert_eq!(value["position"]["first_op"], 5);
        assert_eq!(SegmentRecord::read(&value), Ok(segment));
        let segment = of_query();
        let value = serde_json::to_value(&segment).expect("encodes");
        assert_eq!(SegmentRecord::read(&value), Ok(segment));
        for (at, wrong) in
            [("first_timestamp", 1000), ("accounts_mark", -1), ("transfers_mark", i64::MIN)]
        {
            let mut value = value.clone();
            // The last one is 2^63.
            value["position"][at] =
                if wrong == i64::MIN { (1_u64 << 63).into() } else { wrong.into() };
            assert!(SegmentRecord::read(&value).is_err(), "{at}");
        }
    }

    /// The words of the modes are in manifests, and are those that the configuration has.
    #[test]
    fn modes_have_one_word_each() {
        for mode in MODES {
            let found = Mode::parse(mode.name).expect("a mode");
            assert_eq!(serde_json::to_value(found).expect("encodes"), mode.name);
        }
        assert_eq!(MODES.len(), 2);
        assert_eq!(Mode::parse("Wal"), None);
    }

    #[test]
    fn the_rules_see_what_a_manifest_says() {
        let value = serde_json::to_value(record()).expect("encodes");
        let segment = read_segment(&value).expect("a segment");
        let range = Range { first: 5, last: 9, before: "04".into(), after: "09".into() };
        assert_eq!((segment.mode.as_str(), segment.stream.as_str()), ("wal", "7"));
        assert_eq!((segment.first_timestamp, segment.last_timestamp), (50, 90));
        assert_eq!(segment.range.as_ref(), Some(&range));
        assert_eq!(identity(&value), Identity::from([("cluster".into(), "7".into())]));

        let id: BackupId = "01935a3c-7a00-7abc-8def-0123456789ab".parse().expect("an id");
        let position = serde_json::json!({ "head_op": 7, "head_timestamp": 70 });
        let mut snapshot = serde_json::json!({ "cluster": "7", "position": position });
        let base = read_base(id, &snapshot).expect("a base");
        assert_eq!((base.position, base.sure_until()), (7, 0), "16 operations may be taken back");
        let link = Link { id, parent: None, sha256: "ab".into(), segment };
        let found = window(std::slice::from_ref(&link), &[base]).expect("a window");
        assert_eq!((found.from, found.until, found.positions), (70, 90, Some((7, 9))));
        snapshot["position"] = serde_json::json!({});
        assert_eq!(read_base(id, &snapshot), None, "an old snapshot does not say where it ends");
    }

    /// In mode query the first segment, and one after a gap, has everything from the first account on.
    #[test]
    fn mode_query_needs_no_snapshot() {
        let at = |record: &SegmentRecord| {
            let segment = record.as_segment();
            assert!(!segment.needs_base);
            segment.is_from_the_beginning()
        };
        let mut segment = of_query();
        assert!(!at(&segment), "it goes on from another one");
        segment.gap = Some("restored".into());
        assert!(at(&segment));
        segment.unreplayable = Some("imported".into());
        assert!(!at(&segment));
        (segment.parent_sha256, segment.gap, segment.unreplayable) = (None, None, None);
        assert!(at(&segment));
        assert!(!record().as_segment().is_from_the_beginning());
    }
}
