//! The PostgreSQL source: base backups of a running server, its write-ahead log, and any moment in it.
//!
//! - [`settings`], [`configured`]: what is configured, and what a server says of itself. [`source`]: what it does as a
//!   source. [`checks`]: what `doctor` tells of one. [`archive_state`]: how far its log is archived.
//! - [`client`]: how a server is talked with. [`wal`]: files of the log. Both know nothing of backups.
//! - [`capture`]: from a server into the chain. [`layout`], [`file_list`], [`block_map`], [`record`]: what a base
//!   backup consists of.
//! - [`restore`]: from the chain back to a data folder. [`server`]: a server of ours on one, for drills.
//! - [`dump`]: exports, which are a dump of each database, and the way back from one.
//! - [`tenant`]: the rows of one tenant, brought back in a database that is in use.
//! - [`logs`]: the files of the log that a server hands over, which manifests say what has arrived, and the way back
//!   to a moment.
//!
//! What a backup holds is *transaction-consistent*: the log from its begin to its end is in it, and a server that
//! starts on it replays that first.

mod archive_state;
mod block_map;
mod capture;
mod checks;
pub mod client;
mod configured;
mod discover;
mod dump;
mod file_list;
mod layout;
mod logs;
mod record;
mod restore;
mod server;
mod settings;
mod source;
mod tenant;
pub mod wal;

use std::time::Duration;

use crate::ctx::Ctx;
use crate::domain::backup_kind::BackupKind;
use crate::domain::names::{BackupType, Scope};
use crate::source::entry::SourceEntry;
use crate::source::{Chain, Continuation, SourceKind, TargetKind, link_by_link};

const KIND: SourceKind = SourceKind {
    backup_type: BackupType::Postgres,
    zstd_level: 3,
    open: settings::open,
    schema: || schemars::schema_for!(settings::Table).to_value(),
    extend,
    target: TargetKind::Folder,
    is_server: dump::is_server,
    read_map: None,
    decode: |chain, tools, ctx| {
        if dump::is_export(chain) {
            dump::decode(chain, tools, ctx)
        } else {
            restore::decode(chain, tools, ctx)
        }
    },
    guard: |record, request| {
        if dump::is_dump(record) {
            dump::guard(record, request)
        } else {
            restore::guard(record, request)
        }
    },
    preflight: |chain, request, ctx| {
        if dump::is_export(chain) {
            dump::preflight(chain, request, ctx)
        } else {
            restore::preflight(request)
        }
    },
    restore: |chain, request, ctx| {
        if dump::is_export(chain) {
            dump::restore(chain, request, ctx)
        } else {
            restore::restore(chain, request, ctx)
        }
    },
    drill: |chain, scratch, tools, ctx| {
        if dump::is_export(chain) {
            dump::drill(chain, scratch, tools, ctx)
        } else {
            restore::drill(chain, scratch, tools, ctx)
        }
    },
};

/// A base backup builds on the one before it; every export is a full one.
fn extend(chain: &Chain<'_>, ctx: &Ctx) -> anyhow::Result<Continuation> {
    if dump::is_export(chain) {
        return Ok(Continuation::Full { else_onto: chain.len() });
    }
    link_by_link(chain, ctx)
}

/// The line in the table of sources.
pub const ENTRY: SourceEntry = SourceEntry {
    kind: KIND,
    makes: &[BackupKind::Snapshot, BackupKind::Export, BackupKind::Log],
    log: Some(logs::LOG),
    tenants: Some(tenant::KIND),
    finder: Some(discover::FINDER),
    serve: |_words| None,
    interval,
    kept_days: 90,
};

fn interval(kind: BackupKind, _scope: Option<Scope>) -> Duration {
    match kind {
        BackupKind::Snapshot | BackupKind::Export | BackupKind::Replica => Duration::from_hours(24),
        BackupKind::Log => Duration::from_mins(15),
    }
}
