//! The key set: the data keys of the backups of other sources, wrapped for recovery recipients.
//!
//! - [`settings`]: what is configured, and the source that it makes.
//! - [`capture`]: from the data keys that a command finds into the archive.
//! - [`restore`]: from the archive to a file, and the drill on it.
//!
//! The archive's members are pieces of one file, in the format of [`crate::keys::key_set`]. A capture has the keys of
//! the backups that were there when the stores were listed; later ones are in the next key set.

mod capture;
mod restore;
mod settings;

use std::time::Duration;

use crate::domain::backup_kind::BackupKind;
use crate::domain::names::BackupType;
use crate::source::entry::SourceEntry;
use crate::source::{Continuation, SourceKind, TargetKind};

const KIND: SourceKind = SourceKind {
    backup_type: BackupType::Kms,
    // Wrapped keys are random: what compresses is the text around them.
    zstd_level: 3,
    open: settings::open,
    schema: || schemars::schema_for!(settings::Table).to_value(),
    // Each is for the day on which all else is lost: it needs no other one.
    extend: |_chain, _ctx| Ok(Continuation::Full { else_onto: 1 }),
    target: TargetKind::File,
    is_server: |_to| false,
    preflight: |_chain, _request, _ctx| Ok(Vec::new()),
    read_map: None,
    decode: restore::decode,
    guard: restore::guard,
    restore: restore::restore,
    drill: restore::drill,
};

/// The line in the table of sources.
pub const ENTRY: SourceEntry = SourceEntry {
    kind: KIND,
    makes: &[BackupKind::Snapshot],
    log: None,
    tenants: None,
    // Whom to wrap keys for has to be decided.
    finder: None,
    serve: |_words| None,
    interval: |_kind, _scope| Duration::from_hours(24),
    kept_days: 30,
};
