//! The keys of a `[source.NAME]` table with `kind = "postgres"`.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::client::Checkpoint;
use super::configured::{DumpSettings, IncrementChoice, LogSettings, Server};
use super::tenant::map::{TenantMap, TenantsTable};
use crate::source::Opened;
use crate::table::units::{duration, size};
use crate::table::{ConfigError, parse_table};

/// The pause between two looks of `bkp logs --follow` where the configuration does not say.
const EVERY_DEFAULT: Duration = Duration::from_secs(5);

/// How long changes wait in a segment that is not full where the configuration does not say.
const SWITCH_AFTER_DEFAULT: Duration = Duration::from_mins(1);

/// How long a dump waits for the lock of a table where the configuration does not say.
const LOCK_TIMEOUT_DEFAULT: Duration = Duration::from_mins(1);

/// The keys of a `[source.NAME]` table with `kind = "postgres"`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    /// How to reach the server, as libpq writes it: `host=/var/run/postgresql user=bkp`, or
    /// `postgresql://bkp@db.example.com/?sslmode=verify-full`. What it leaves open, libpq's environment and files say.
    #[serde(default)]
    conninfo: String,
    /// The role's password, as a reference: `file:PATH`, `env:NAME`, `credential:NAME` or `cmd:COMMAND`.
    #[serde(default)]
    password: Option<String>,
    /// How a base backup begins: spread (default; the server writes its pages little by little, which takes minutes),
    /// or fast.
    #[serde(default)]
    checkpoint: Option<String>,
    /// How increments are made: auto (default: native if the server can, else blocks), native (the server sends only
    /// what has changed; 17 and later with `summarize_wal = on`), blocks (it sends everything, and only changed blocks
    /// are stored), or off.
    #[serde(default)]
    incremental: Option<String>,
    /// At most so much is asked of the server per second, such as 50MiB.
    #[serde(default)]
    max_rate: Option<String>,
    /// The databases that `bkp export` dumps, by their names. Default: all but templates.
    #[serde(default)]
    databases: Vec<String>,
    /// What `bkp export` leaves out, as patterns of `pg_dump`: `audit.*` tables, `staging` a schema with everything in it.
    #[serde(default)]
    exclude: Vec<String>,
    /// How long `bkp export` waits for a table that somebody else has locked: 1s to 24h. Default 60s.
    #[serde(default)]
    lock_timeout: Option<String>,
    /// How `bkp logs` ships the write-ahead log.
    #[serde(default)]
    logs: Option<LogTable>,
    /// Whose row is whose, for `bkp restore --tenant`; `bkp config tenants` proposes and checks it.
    #[serde(default)]
    tenants: Option<TenantsTable>,
}

/// The keys of a `[source.NAME.logs]` table.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LogTable {
    /// The physical replication slot of `bkp logs --follow`; made if it is not there. Default bkp.
    #[serde(default)]
    slot: Option<String>,
    /// After how long `bkp logs --follow` has the server begin a new segment where changes wait in one that is not full:
    /// 1s to 24h, or off. Default 60s. Takes the right to execute `pg_switch_wal()`.
    #[serde(default)]
    switch_after: Option<String>,
    /// How often `bkp logs --follow` makes a manifest of what has arrived: 1s to 1h. Default 5s.
    #[serde(default)]
    every: Option<String>,
}

/// Opens the server that the table says. Connects to nothing yet.
pub(super) fn open(name: &str, table: toml::Table) -> Opened {
    Ok(Box::new(server(name, table)?))
}

/// The server that the table says.
///
/// # Errors
/// [`ConfigError`] for what is wrong with the table.
pub(super) fn server(name: &str, table: toml::Table) -> Result<Server, ConfigError> {
    let place = format!("source.{name}");
    let table: Table = parse_table(&place, table)?;
    let word = |key: &str, text: &str, words: &str| {
        let error = ConfigError::invalid(format!("{place}.{key}"), format!("no {key} `{text}`"));
        error.suggest(format!("use {words}"))
    };
    let checkpoint = match table.checkpoint.as_deref() {
        None | Some("spread") => Checkpoint::Spread,
        Some("fast") => Checkpoint::Fast,
        Some(other) => return Err(word("checkpoint", other, "spread or fast")),
    };
    let increments = match table.incremental.as_deref() {
        None | Some("auto") => IncrementChoice::Auto,
        Some("native") => IncrementChoice::Native,
        Some("blocks") => IncrementChoice::Blocks,
        Some("off") => IncrementChoice::Off,
        Some(other) => return Err(word("incremental", other, "auto, native, blocks or off")),
    };
    let max_rate_kib = match &table.max_rate {
        None => None,
        Some(text) => Some(rate(&place, text)?),
    };
    let lock_timeout = match &table.lock_timeout {
        None => LOCK_TIMEOUT_DEFAULT,
        Some(text) => duration(&format!("{place}.lock_timeout"), text, 1, 86_400)?,
    };
    let dumps = DumpSettings { databases: table.databases, exclude: table.exclude, lock_timeout };
    let logs = table.logs.unwrap_or_default();
    let every = match &logs.every {
        None => EVERY_DEFAULT,
        Some(text) => duration(&format!("{place}.logs.every"), text, 1, 3600)?,
    };
    let switch_after = match logs.switch_after.as_deref() {
        None => Some(SWITCH_AFTER_DEFAULT),
        Some("off") => None,
        Some(text) => Some(duration(&format!("{place}.logs.switch_after"), text, 1, 86_400)?),
    };
    let slot = logs.slot.unwrap_or_else(|| "bkp".to_owned());
    let is_slot = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if slot.is_empty() || slot.len() > 63 || !slot.bytes().all(is_slot) {
        let problem = format!("`{slot}` is not the name of a slot");
        let error = ConfigError::invalid(format!("{place}.logs.slot"), problem);
        return Err(error.suggest("use lower-case letters, digits and underscores, 63 at most"));
    }
    let tenants = table.tenants.map(|tenants| TenantMap::read(format!("{place}.tenants"), tenants));
    Ok(Server {
        tenants: tenants.transpose()?,
        place,
        conninfo: table.conninfo,
        password: table.password,
        checkpoint,
        choice: increments,
        max_rate_kib,
        logs: LogSettings { slot, switch_after, every },
        dumps,
    })
}

fn rate(place: &str, text: &str) -> Result<u32, ConfigError> {
    let place = format!("{place}.max_rate");
    let bytes = size(&place, text)?;
    // What the server takes: 32 KiB to 1 GiB.
    let kib = u32::try_from(bytes / 1024).ok().filter(|kib| (32..=1 << 20).contains(kib));
    kib.ok_or_else(|| ConfigError::invalid(place, format!("{text} is not between 32KiB and 1GiB")))
}
