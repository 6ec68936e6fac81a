//! The keys of a `[source.NAME]` table, and the replica that they configure.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::capture::mode::CaptureMode;
use super::cluster::address::{ADDRESS_HINT, parse_address};
use super::logs::settings::{LogTable, log_settings};
use super::replica::Replica;
use crate::source::Opened;
use crate::table::{ConfigError, parse_table};

/// Attempts of an online capture if the configuration does not say otherwise. Under the heaviest
/// load measured 16 were needed.
const ATTEMPTS_DEFAULT: u32 = 64;

/// The keys of a `[source.NAME]` table with `kind = "tigerbeetle"`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Table {
    /// The replica's data file.
    #[schemars(extend("format" = "path"))]
    data_file: PathBuf,
    /// The cluster's id, decimal. If given, a file of another cluster is refused.
    #[serde(default)]
    cluster: Option<String>,
    /// Addresses of the cluster's replicas, in order. If given, account totals are recorded with
    /// each snapshot, a snapshot waits for a replica that lags, and a restore with `--replica` is
    /// refused while one of them answers.
    #[serde(default)]
    addresses: Vec<String>,
    /// How to capture: online (default), reflink, stopped or pause.
    #[serde(default)]
    mode: Option<String>,
    /// Attempts of an online capture before it gives up. Default 64.
    #[serde(default)]
    attempts: Option<u32>,
    /// How `bkp logs` ships the change log.
    #[serde(default)]
    logs: Option<LogTable>,
}

/// Opens the replica that the table says.
pub(crate) fn open(name: &str, table: toml::Table) -> Opened {
    let place = format!("source.{name}");
    let table: Table = parse_table(&place, table)?;
    let invalid = |key: &str, problem: String, hint: &str| ConfigError::Invalid {
        place: format!("{place}.{key}"),
        problem,
        hint: Some(hint.to_owned()),
    };
    let cluster = match &table.cluster {
        None => None,
        Some(text) => Some(text.parse().map_err(|error| {
            let problem = format!("`{text}` is not a cluster id: {error}");
            invalid(
                "cluster",
                problem,
                "write the decimal number passed to `tigerbeetle format --cluster`",
            )
        })?),
    };
    if let Some(text) = table.addresses.iter().find(|text| parse_address(text).is_none()) {
        let problem = format!("`{text}` is not a replica address");
        return Err(invalid("addresses", problem, ADDRESS_HINT));
    }
    let mode = match &table.mode {
        None => CaptureMode::Online,
        Some(text) => CaptureMode::parse(text).ok_or_else(|| {
            invalid(
                "mode",
                format!("no mode `{text}`"),
                &format!("modes: {}", CaptureMode::NAMES.join(", ")),
            )
        })?,
    };
    let attempts = table.attempts.unwrap_or(ATTEMPTS_DEFAULT);
    if attempts == 0 {
        return Err(invalid(
            "attempts",
            "0 attempts cannot capture anything".into(),
            "use at least 1",
        ));
    }
    Ok(Box::new(Replica {
        data_file: table.data_file,
        cluster,
        addresses: table.addresses,
        mode,
        attempts,
        logs: log_settings(&place, table.logs)?,
    }))
}
