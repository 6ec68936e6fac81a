//! All that a kind of source brings: one line of [`crate::source::kinds::SOURCES`].

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use super::SourceKind;
use super::discovery::finder::Finder;
use super::logs::LogKind;
use super::tenants::TenantKind;
use crate::domain::backup_kind::BackupKind;
use crate::domain::names::Scope;

/// All that a kind of source brings.
#[derive(Debug)]
pub struct SourceEntry {
    /// What is done with its backups.
    pub kind: SourceKind,
    /// The kinds of backups that it makes.
    pub makes: &'static [BackupKind],
    /// What is done with its log, if it has one.
    pub log: Option<LogKind>,
    /// What is done with tenants, if one of them can be restored by itself.
    pub tenants: Option<TenantKind>,
    /// How `bkp init` finds and describes such a source, if it does.
    pub finder: Option<Finder>,
    /// Works as a process that bkp starts of itself, if these words of a command line say so: an engine that
    /// holds no keys, a client in a network of its own.
    pub serve: fn(&[OsString]) -> Option<ExitCode>,
    /// How often a job makes such a backup where its table does not say.
    pub interval: fn(BackupKind, Option<Scope>) -> Duration,
    /// For how long a job keeps its backups where its table has no retention, days.
    pub kept_days: i64,
}
