//! The contract of a tenant restore: the rows of one tenant of a database that many share are brought back in place,
//! and nobody else's row changes.

use std::fmt;
use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;

use super::chain::Chain;
use super::logs::RestoreAtRequest;
use super::requests::DrillTools;
use crate::ctx::Ctx;

/// Where the earlier rows come from.
#[derive(Debug)]
pub enum TenantState<'a> {
    /// An export, the newest link of a chain.
    Export(&'a Chain<'a>),
    /// A moment of the log. Its target is a folder in the scratch folder of the request.
    Moment(&'a RestoreAtRequest<'a>),
}

/// How the rows are put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TenantMode {
    /// The database checks its foreign keys itself.
    #[default]
    Fk,
    /// As a replica would: the database checks no foreign key, and bkp looks for rows without a parent before it
    /// commits. Takes the right to set `session_replication_role`.
    Replica,
}

/// What a tenant restore is asked for.
pub struct TenantRequest<'a> {
    /// What the tenant is called.
    pub tenant: &'a str,
    /// The address of the database whose rows are replaced.
    pub into: &'a str,
    /// The database in the backup, if it has another name than the configuration and the address say.
    pub database: Option<&'a str>,
    /// How the rows are put back.
    pub mode: TenantMode,
    /// The tenant has another name today, and that is known.
    pub renamed: bool,
    /// Only say what would change.
    pub dry_run: bool,
    /// A folder that is removed afterwards.
    pub scratch: &'a Path,
    /// The programs that it may work with.
    pub tools: &'a DrillTools,
    /// Asks whether to go on, once it is known what would change.
    pub confirm: &'a dyn Fn(&str) -> anyhow::Result<()>,
}

impl fmt::Debug for TenantRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TenantRequest").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

/// What changes in a table, in rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct TableChange {
    /// SCHEMA.TABLE.
    pub table: String,
    /// Rows that the tenant had then and has no more.
    pub added: u64,
    /// Rows that have other values today.
    pub changed: u64,
    /// Rows that came since.
    pub removed: u64,
    /// Rows that the tenant has afterwards.
    pub rows: u64,
}

/// What a tenant restore did, or would do.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct TenantRestored {
    /// What the tenant is called.
    pub tenant: String,
    /// The value of the root table's key.
    pub key: String,
    /// The database.
    pub target: String,
    /// How the rows were put back.
    pub mode: TenantMode,
    /// Every table that holds rows of tenants.
    pub tables: Vec<TableChange>,
    /// Rows of others in those tables, and of shared tables: the same before and after, by two hashes over each
    /// table. Zero in a dry run, which changes nothing.
    pub unchanged_rows: u64,
    /// Triggers that were kept from firing.
    pub quiet_triggers: Vec<String>,
    /// Sequences that were advanced.
    pub sequences: Vec<String>,
    /// What the operator should know.
    pub notes: Vec<String>,
}

impl TenantRestored {
    /// Rows added, changed and removed over all tables.
    #[must_use]
    pub fn totals(&self) -> (u64, u64, u64) {
        let sum = |rows: fn(&TableChange) -> u64| self.tables.iter().map(rows).sum();
        (sum(|table| table.added), sum(|table| table.changed), sum(|table| table.removed))
    }
}

/// What can be said of the map that tells whose row is whose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct TenantMapReport {
    /// The database that it was compared with.
    pub database: String,
    /// Whether it is configured; else it is a proposal.
    pub configured: bool,
    /// The tables of the configuration, as TOML.
    pub map: String,
    /// What in it does not fit the database, or has to be decided by a person.
    pub problems: Vec<String>,
}

/// What a kind of source does with tenants. It is given the name of a source and the rest of its table.
pub struct TenantKind {
    /// Brings the rows of one tenant back in a database that is in use. It has what it had before, or all of them.
    pub restore: fn(
        (&str, toml::Table),
        &TenantRequest<'_>,
        &TenantState<'_>,
        &Ctx,
    ) -> anyhow::Result<TenantRestored>,
    /// Compares the configured map with a database, or proposes one that begins at a root table.
    pub map: fn((&str, toml::Table), &MapRequest<'_>, &Ctx) -> anyhow::Result<TenantMapReport>,
}

/// Which map is meant.
#[derive(Debug, Clone, Copy)]
pub struct MapRequest<'a> {
    /// The table with a row for each tenant, of which a map is proposed; else the configured one is compared.
    pub root: Option<&'a str>,
    /// The database, if not that of the map.
    pub database: Option<&'a str>,
}

impl fmt::Debug for TenantKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TenantKind").finish_non_exhaustive()
    }
}
