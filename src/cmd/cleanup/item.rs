//! The items that a cleanup decides about.

use schemars::JsonSchema;
use serde::Serialize;

use crate::domain::id::BackupId;

/// What an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum ItemKind {
    /// A backup.
    Backup,
    /// Objects without a manifest: no backup.
    Orphan,
    /// An upload that nobody finished.
    Upload,
    /// Terms of leases that have ended.
    Lease,
    /// The record of a run.
    Record,
    /// A file of a log that no manifest is about.
    #[serde(rename = "log-file")]
    LogFile,
}

/// What becomes of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Action {
    /// It is removed.
    Remove,
    /// Its data moves to a colder storage class.
    Move,
    /// It stays.
    Keep,
    /// It stays because the store locks it.
    Retain,
}

/// One thing, and why it stays or goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(super) struct Item {
    pub(super) what: ItemKind,
    pub(super) action: Action,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<BackupId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) source: Option<String>,
    /// The key of its manifest, or its own.
    pub(super) key: String,
    pub(super) bytes: u64,
    pub(super) reason: String,
}
