//! Shared by both modes of shipping a log.

use serde_json::Value;

use super::capture_record::SegmentRecord;
use super::settings::LogSettings;
use crate::error::{Fault, Kind};
use crate::source::logs::OwnEvents;
use crate::source::tigerbeetle::replica::Replica;

/// What both modes know.
#[derive(Debug)]
pub(super) struct Shipping {
    pub(super) replica: Replica,
    pub(super) own: Option<OwnEvents>,
    pub(super) settings: LogSettings,
}

impl Shipping {
    /// The segment before, by the `capture` record of its manifest.
    pub(super) fn segment_before(capture: Option<&Value>) -> anyhow::Result<Option<SegmentRecord>> {
        capture.map(SegmentRecord::read).transpose().map_err(anyhow::Error::msg)
    }

    /// The ledger number of bkp's own events, if they are in this cluster.
    pub(super) fn own_ledger(&self, cluster: u128) -> Option<u32> {
        self.own.filter(|own| own.cluster == cluster).map(|own| own.ledger)
    }

    /// Refuses to continue the log of another cluster.
    pub(super) fn check_continues(
        after: Option<&SegmentRecord>,
        cluster: u128,
    ) -> anyhow::Result<()> {
        match after.filter(|after| after.cluster != cluster.to_string()) {
            None => Ok(()),
            Some(after) => {
                let message = format!(
                    "the newest segment in the store is of cluster {}, this one is {cluster}",
                    after.cluster
                );
                Err(Fault::new(Kind::Refused, message)
                    .hint("configure the new cluster as a source with another name")
                    .into())
            }
        }
    }
}
