//! What the manifest of a base backup says of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::client::{Connection, Lsn};
use super::layout::Tablespace;
use crate::domain::id::BackupId;
use crate::domain::manifest::Identity;
use crate::domain::segment::Base;
use crate::error::{Fault, Kind};
use crate::source::Chain;

/// The role that most clusters begin with.
const SUPERUSER_DEFAULT: &str = "postgres";

/// How changed blocks are told in the chain that a backup belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Increments {
    /// By the server.
    Native,
    /// By hashes of blocks.
    Blocks,
    /// Not at all: every backup is a full one.
    Off,
}

/// The `capture` record of a base backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BaseRecord {
    /// `stream`.
    pub(super) mode: String,
    /// `transaction-consistent`: with the log that is in it.
    pub(super) consistency: String,
    /// The server's version, as it says it.
    pub(super) version: String,
    /// The same as a number: 180006.
    pub(super) version_number: u32,
    /// The system identifier.
    pub(super) system: String,
    /// From where on the log is needed.
    pub(super) start_lsn: String,
    /// The timeline there.
    pub(super) start_timeline: u32,
    /// Where it is consistent.
    pub(super) stop_lsn: String,
    /// The timeline there.
    pub(super) stop_timeline: u32,
    /// When it ended, by the server's clock if that could be asked; nanoseconds since 1970.
    pub(super) stopped: u64,
    /// Bytes of a segment of the log.
    pub(super) segment_bytes: u64,
    /// Whether the server's pages have checksums.
    pub(super) data_checksums: bool,
    /// Whether it is of a standby.
    pub(super) standby: bool,
    /// How an increment of it is made.
    pub(super) increments: Increments,
    /// The role that the cluster began with, for drills.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) superuser: Option<String>,
    /// Tablespaces besides those of every cluster.
    pub(super) tablespaces: Vec<Tablespace>,
    /// Tables of each database before the capture, if they could be counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tables_before: Option<Tables>,
    /// The same after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tables_after: Option<Tables>,
    /// Files.
    pub(super) files: u64,
    /// Bytes of all files, as the server sent them.
    pub(super) bytes: u64,
}

/// How many tables each database has that takes connections.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tables(pub(super) BTreeMap<String, u64>);

impl Tables {
    /// Counts them, with a connection for each database.
    ///
    /// # Errors
    /// What `connect` and the server fail with.
    pub(super) fn count(
        connect: &dyn Fn(&str) -> anyhow::Result<Connection>,
    ) -> anyhow::Result<Tables> {
        let databases = "select datname from pg_catalog.pg_database where datallowconn and datname <> 'template1'";
        // Those of PostgreSQL itself differ from release to release.
        let tables = "select count(*) from pg_catalog.pg_class where relkind in ('r', 'p', 'm') and oid >= 16384";
        let names = connect("postgres")?.query(databases)?;
        let mut counted = BTreeMap::new();
        for name in names.iter().filter_map(|row| row.get(0)) {
            let rows = connect(name)?.query(tables)?;
            let count = rows.first().and_then(|row| row.get(0)?.parse().ok()).unwrap_or_default();
            counted.insert(name.to_owned(), count);
        }
        Ok(Tables(counted))
    }

    /// Whether every database of both has a number between theirs.
    pub(super) fn is_between(&self, one: &Tables, other: &Tables) -> bool {
        let (Tables(own), Tables(one), Tables(other)) = (self, one, other);
        one.iter().filter_map(|(name, a)| Some((name, a, other.get(name)?))).all(|(name, a, b)| {
            own.get(name).is_some_and(|count| (a.min(b)..=a.max(b)).contains(&count))
        })
    }
}

impl BaseRecord {
    /// Reads a record; what is wrong with it if that is not possible.
    pub(super) fn read(record: &Value) -> Result<BaseRecord, String> {
        BaseRecord::deserialize(record).map_err(|error| error.to_string())
    }

    /// That of the newest backup of a chain.
    ///
    /// # Errors
    /// [`Kind::Integrity`] if there is none, or it cannot be read.
    pub(super) fn of_newest(chain: &Chain<'_>) -> Result<BaseRecord, Fault> {
        let newest =
            chain.last().ok_or_else(|| Fault::new(Kind::Integrity, "the chain is empty"))?;
        let manifest = newest.manifest();
        BaseRecord::read(&manifest.capture).map_err(|why| {
            let message =
                format!("the capture record of base backup {} is not valid: {why}", manifest.id);
            Fault::new(Kind::Integrity, message)
        })
    }

    /// The role that a server on what is restored is asked as.
    pub(super) fn superuser(&self) -> &str {
        self.superuser.as_deref().unwrap_or(SUPERUSER_DEFAULT)
    }

    /// The major version.
    pub(super) fn major(&self) -> u32 {
        self.version_number / 10_000
    }

    /// The position where it is consistent.
    pub(super) fn stop(&self) -> Option<u64> {
        self.stop_lsn.parse().ok().map(|Lsn(lsn)| lsn)
    }
}

/// What a base backup or a segment is of.
pub(super) fn identity(system: &str) -> Identity {
    [("system".to_owned(), system.to_owned())].into()
}

/// Where the base backup with this record ends, if a log goes on from it.
pub(super) fn read_base(id: BackupId, record: &Value) -> Option<Base> {
    let record = BaseRecord::read(record).ok()?;
    Some(Base {
        id,
        stream: record.system.clone(),
        position: record.stop()?.checked_sub(1)?,
        timestamp: record.stopped,
        slack: 0,
        branch: Some(record.stop_timeline.to_string()),
    })
}
