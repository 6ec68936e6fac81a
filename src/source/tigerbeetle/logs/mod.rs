//! The change log of a cluster, in two modes.
//!
//! - [`settings`]: what is configured. [`shipping`]: what both modes know.
//! - [`segment`]: what a segment consists of. [`capture_record`]: what its manifest says of that, with times at
//!   which something may expire as [`spans`].
//! - [`wal`]: mode `wal`, operations from the live ring of a data file, and the way back: a restored file
//!   rolled forward with them to the same books.
//! - [`query`]: mode `query`, what the cluster answers, and the way back: `imported` into a new cluster, and
//!   compared.
//! - [`client`]: the client's records and a session of it, also with a server that is alone in a network.

mod capture_record;
mod client;
mod query;
mod segment;
pub(super) mod settings;
mod shipping;
mod spans;
mod wal;

pub use self::capture_record::SegmentRecord;
pub(crate) use self::client::private_server::serve_if_private;

use self::capture_record::{MODES, Mode, identity, read_base, read_segment};
use self::query::ship::QueryLog;
use self::shipping::Shipping;
use self::wal::ship::WalLog;
use super::replica::Replica;
use super::restore::drill;
use crate::ctx::Ctx;
use crate::domain::names::BackupType;
use crate::error::{Fault, Kind};
use crate::source::logs::{LogKind, LogSource, OwnEvents, RestoreAtRequest, RestoredAt};

/// The line in the table of logs.
pub(crate) const LOG: LogKind = LogKind {
    backup_type: BackupType::Tigerbeetle,
    modes: MODES,
    position_name: "op",
    spell: |op| op.to_string(),
    read_segment,
    read_base,
    identity,
    decode: segment::decode,
    restore_at,
    find_event: None,
    drill: drill::drill_log,
    files: None,
};

/// Opens the log of a replica.
pub(super) fn open(
    replica: &Replica,
    mode: Option<&str>,
    own: Option<OwnEvents>,
) -> anyhow::Result<Box<dyn LogSource>> {
    let mode = match mode {
        None => replica.logs.mode,
        Some(text) => Mode::parse(text).ok_or_else(|| LOG.unknown_mode(text))?,
    };
    let source = Shipping { replica: replica.clone(), own, settings: replica.logs };
    match mode {
        Mode::Wal => Ok(Box::new(WalLog::new(source))),
        Mode::Query if replica.addresses.is_empty() => {
            let message = "logs in mode query need the cluster, but `addresses` is not configured";
            Err(Fault::new(Kind::Config, message)
                .hint("set `addresses` in the source's table, or use mode wal")
                .into())
        }
        Mode::Query => Ok(Box::new(QueryLog::new(source))),
    }
}

/// Brings a cluster back to a moment.
fn restore_at(request: &RestoreAtRequest<'_>, ctx: &Ctx) -> anyhow::Result<RestoredAt> {
    if request.base.is_empty() {
        query::replay::restore_at(request, ctx)
    } else {
        wal::roll_forward::restore_at(request, ctx)
    }
}
