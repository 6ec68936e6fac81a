//! Exports of a server: a dump of each of its databases that a person can open, and the way back from one.
//!
//! - [`custom_format`]: what `pg_dump` writes, read as a stream. [`selection`]: which entries of it are restored.
//! - [`facts`], [`index`]: what a server says of its databases, and what an export says of them.
//! - [`export`]: from a server into the chain.
//! - [`decode`]: an export that is only read. [`unpack`]: its dumps as files. [`load`]: a dump into an empty database.
//! - [`target`]: the database that a restore makes. [`restore`]: a restore to it, or to a folder. [`drill`]: into a
//!   server of ours, which is compared with what was recorded.
//!
//! What a dump holds is *transaction-consistent*: one snapshot of one database. PostgreSQL has no snapshot of several.

mod checks;
pub(in crate::source::postgres) mod custom_format;
mod decode;
pub(in crate::source::postgres) mod drill;
mod export;
mod facts;
pub(in crate::source::postgres) mod index;
pub(in crate::source::postgres) mod load;
mod restore;
pub(in crate::source::postgres) mod selection;
mod target;
pub(in crate::source::postgres) mod unpack;

pub(super) use self::checks::check;
pub(super) use self::decode::decode;
pub(super) use self::drill::drill;
pub(super) use self::export::export;
pub(super) use self::index::is_dump;
pub(super) use self::restore::{guard, preflight, restore};
pub(super) use self::target::is_server;

use crate::domain::backup_kind::BackupKind;
use crate::source::Chain;

/// Whether a chain is one of exports.
pub(super) fn is_export(chain: &Chain<'_>) -> bool {
    chain.last().is_some_and(|newest| newest.manifest().kind == BackupKind::Export)
}
