//! The change log of a cluster, in two modes.
//!
//! - [`tail`], [`look`]: mode `wal`, operations from the live ring of a data file. [`inject`]: the way back, a
//!   restored file rolled forward with them to the same books.
//! - [`page`], [`pager`], [`order`]: mode `query`, what the cluster answers. [`replay`], [`import`], [`proof`]: the
//!   way back, `imported` into a new cluster, and compared. [`private`]: where that is alone.
//! - [`segment`]: what a segment consists of. [`record`], [`session`]: the client's records and a
//!   session of it.

mod import;
mod inject;
mod look;
mod order;
mod page;
mod pager;
mod private;
mod proof;
mod record;
mod replay;
mod segment;
mod session;
mod shipment;
mod tail;

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Replica, drill};
use crate::ctx::Ctx;
use crate::domain::names::BackupType;
use crate::domain::segment::{Mode, Segment};
use crate::error::{Fault, Kind};
use crate::source::logs::{LogKind, LogSource, OnGap, OwnEvents, RewindRequest, Rewound};
use crate::table::ConfigError;
use crate::table::units::duration;

pub use self::private::inside;

/// The line in the table of logs.
pub const LOG: LogKind = LogKind {
    backup_type: BackupType::Tigerbeetle,
    decode: segment::decode,
    rewind,
    drill: drill::of_log,
    bracket: drill::bracket,
};

/// The keys of a `[source.NAME.logs]` table.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    /// What is shipped: wal (default; reads the data file, restores every account and transfer as it was) or query (asks at
    /// `addresses`, restores balances).
    #[serde(default)]
    mode: Option<String>,
    /// When operations were overwritten before they were shipped: report (default) says so and ends
    /// with exit code 3, snapshot does that and takes a snapshot at once.
    #[serde(default)]
    on_gap: Option<String>,
    /// How long the cluster may take for an answer: 1s to 10m. Default 30s.
    #[serde(default)]
    deadline: Option<String>,
    /// The pause between two looks of `bkp logs --follow`: 1s to 1h. Default 5s.
    #[serde(default)]
    every: Option<String>,
}

/// What the table says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    mode: Mode,
    on_gap: OnGap,
    deadline: Duration,
    every: Duration,
}

/// Checks the table of the source at `place`.
pub(super) fn settings(place: &str, table: Option<Table>) -> Result<Settings, ConfigError> {
    let Table { mode, on_gap, deadline, every } = table.unwrap_or_default();
    let at = |key: &str| format!("{place}.logs.{key}");
    let unknown = |key: &str, text: &str, known: &str| ConfigError::Invalid {
        place: at(key),
        problem: format!("there is no `{text}`"),
        hint: Some(format!("known: {known}")),
    };
    Ok(Settings {
        mode: match mode.as_deref() {
            None => Mode::Wal,
            Some(text) => Mode::parse(text).ok_or_else(|| unknown("mode", text, "wal, query"))?,
        },
        on_gap: match on_gap.as_deref() {
            None | Some("report") => OnGap::Report,
            Some("snapshot") => OnGap::Snapshot,
            Some(text) => return Err(unknown("on_gap", text, "report, snapshot")),
        },
        deadline: duration(&at("deadline"), deadline.as_deref().unwrap_or("30s"), 1, 600)?,
        every: duration(&at("every"), every.as_deref().unwrap_or("5s"), 1, 3600)?,
    })
}

/// Opens the log of a replica.
pub(super) fn open(
    replica: &Replica,
    mode: Option<Mode>,
    own: Option<OwnEvents>,
) -> anyhow::Result<Box<dyn LogSource>> {
    let source = Shipping { replica: replica.clone(), own, settings: replica.logs };
    match mode.unwrap_or(replica.logs.mode) {
        Mode::Wal => Ok(Box::new(tail::Tail::new(source))),
        Mode::Query if replica.addresses.is_empty() => {
            let message =
                "logs in mode query ask the cluster, and no addresses of it are configured";
            Err(Fault::new(Kind::Config, message)
                .hint("set `addresses` in the source's table, or use mode wal")
                .into())
        }
        Mode::Query => Ok(Box::new(page::Pages::new(source))),
    }
}

/// What both modes know.
#[derive(Debug)]
struct Shipping {
    replica: Replica,
    own: Option<OwnEvents>,
    settings: Settings,
}

impl Shipping {
    /// The ledger number of bkp's own events, if they are in this cluster.
    fn own_ledger(&self, cluster: u128) -> Option<u32> {
        self.own.filter(|own| own.cluster == cluster).map(|own| own.ledger)
    }

    /// Refuses to continue the log of another cluster.
    fn check_continues(after: Option<&Segment>, cluster: u128) -> anyhow::Result<()> {
        match after.filter(|after| after.cluster != cluster.to_string()) {
            None => Ok(()),
            Some(after) => {
                let message = format!(
                    "the newest segment in the store is of cluster {}, this one is {cluster}",
                    after.cluster
                );
                Err(Fault::new(Kind::Refused, message)
                    .hint("give the new cluster a source of another name")
                    .into())
            }
        }
    }
}

/// Brings a cluster back to a moment.
fn rewind(request: &RewindRequest<'_>, ctx: &Ctx) -> anyhow::Result<Rewound> {
    if request.base.is_empty() {
        replay::rewind(request, ctx)
    } else {
        inject::rewind(request, ctx)
    }
}
