//! What the header of an archived file says of it, so that a plan can be made without reading the file.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::source::postgres::wal::name::SegmentSize;
use crate::source::postgres::wal::records::Ending;
use crate::source::postgres::wal::scan::{Facts, Transactions};

/// Restore points of one file that are kept.
const RESTORE_POINTS_MAX: usize = 100;

/// What is said of a segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SegmentFacts {
    /// Major version of the server.
    pub(super) major: u8,
    /// Bytes of a segment of this cluster.
    pub(super) segment_bytes: u64,
    /// The position after the last record that ends in it.
    pub(super) end: u64,
    /// Transactions that were committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) commits: Option<TransactionRange>,
    /// Transactions that were rolled back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) aborts: Option<TransactionRange>,
    /// Positions with a name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) restore_points: Vec<NamedPosition>,
    /// Why a recovery cannot go on over it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) flaw: Option<String>,
}

/// Some transactions. Times are nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TransactionRange {
    pub(super) count: u64,
    /// The earliest time.
    pub(super) earliest: u64,
    /// The latest time.
    pub(super) latest: u64,
    /// The position of the record of the last one.
    pub(super) last_lsn: u64,
    /// The lowest and the highest number, if any had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) xids: Option<(u32, u32)>,
}

/// A position that somebody gave a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NamedPosition {
    pub(super) name: String,
    pub(super) time: u64,
    pub(super) lsn: u64,
}

impl TransactionRange {
    fn of(found: &Transactions) -> TransactionRange {
        let Transactions { count, earliest, latest, last, xids, .. } = *found;
        TransactionRange { count, earliest, latest, last_lsn: last.lsn, xids }
    }
}

impl SegmentFacts {
    /// What is worth knowing of a segment that was read.
    pub(super) fn of(found: &Facts) -> SegmentFacts {
        let points = found.restore_points.iter().take(RESTORE_POINTS_MAX);
        let flaw = match found.ending {
            Ending::Unfinished { offset, flaw } => Some(format!(
                "it ends at byte {offset}, although the server calls it whole: {flaw}"
            )),
            Ending::Switch | Ending::Full { .. } => None,
        };
        SegmentFacts {
            major: found.major,
            segment_bytes: found.segment_size.bytes(),
            end: found.end,
            commits: found.commits.as_ref().map(TransactionRange::of),
            aborts: found.aborts.as_ref().map(TransactionRange::of),
            restore_points: points
                .map(|point| NamedPosition {
                    name: point.name.clone(),
                    time: point.time,
                    lsn: point.lsn,
                })
                .collect(),
            flaw,
        }
    }

    /// What is said of one that is damaged behind its beginning.
    pub(super) fn flawed(bytes: u64, flaw: String) -> SegmentFacts {
        SegmentFacts {
            major: 0,
            segment_bytes: bytes,
            end: 0,
            commits: None,
            aborts: None,
            restore_points: Vec::new(),
            flaw: Some(flaw),
        }
    }

    /// Reads what the header of a segment says.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(facts: &Value) -> Result<SegmentFacts, String> {
        SegmentFacts::deserialize(facts).map_err(|error| error.to_string())
    }

    /// The size of the cluster's segments.
    pub(super) fn size(&self) -> Option<SegmentSize> {
        SegmentSize::new(self.segment_bytes)
    }
}
