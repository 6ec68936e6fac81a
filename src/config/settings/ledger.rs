//! The `[ledger]` table.

use std::collections::BTreeMap;

use crate::config::file::LedgerTable;
use crate::domain::names::BackupType;
use crate::ledger::LedgerSettings;
use crate::table::ConfigError;
use crate::table::units::duration;
use crate::table::{join, unknown_key};

const PLACE: &str = "ledger";

/// The number of a ledger where the configuration names none.
const NUMBER: u32 = 12;
/// A cluster has at most six voting replicas.
const ADDRESSES_MAX: usize = 6;

/// Checks the table and fills in what it leaves out.
pub(super) fn open(table: LedgerTable) -> Result<LedgerSettings, ConfigError> {
    let LedgerTable { cluster, addresses, required, number, accounts, deadline } = table;
    let at = |key: &str| join(PLACE, key);
    if !(1..=ADDRESSES_MAX).contains(&addresses.len()) {
        let problem = format!("{} addresses", addresses.len());
        let error = ConfigError::invalid(at("addresses"), problem);
        return Err(
            error.suggest("list every replica of the cluster, in the order of its --addresses")
        );
    }
    for (index, address) in addresses.iter().enumerate() {
        if address.is_empty() || address.contains([',', ' ']) {
            let error = ConfigError::invalid(at(&format!("addresses[{index}]")), "not an address");
            return Err(error.suggest("write one address per string: \"127.0.0.1:3001\""));
        }
    }
    if number == Some(0) {
        return Err(ConfigError::invalid(at("number"), "ledger 0 is not allowed by TigerBeetle"));
    }
    Ok(LedgerSettings {
        cluster: number_of(&at("cluster"), &cluster)?,
        addresses,
        required,
        number: number.unwrap_or(NUMBER),
        accounts: overrides(accounts)?,
        deadline: duration(&at("deadline"), deadline.as_deref().unwrap_or("10s"), 1, 600)?,
    })
}

/// The account ids that the configuration chooses itself.
fn overrides(accounts: BTreeMap<String, String>) -> Result<BTreeMap<String, u128>, ConfigError> {
    let place = join(PLACE, "accounts");
    let known: Vec<&str> =
        BackupType::ALL.map(BackupType::as_str).into_iter().chain(["operator"]).collect();
    let mut ids = BTreeMap::new();
    for (name, text) in accounts {
        if !known.contains(&name.as_str()) {
            return Err(unknown_key(&place, &name, &known));
        }
        let at = join(&place, &name);
        let id = number_of(&at, &text)?;
        if id == 0 || id == u128::MAX || ids.values().any(|other| *other == id) {
            return Err(ConfigError::invalid(at, "this account id is reserved or already used"));
        }
        ids.insert(name, id);
    }
    Ok(ids)
}

fn number_of(place: &str, text: &str) -> Result<u128, ConfigError> {
    text.parse().map_err(|_parse| {
        ConfigError::invalid(place, "not an integer")
            .suggest("write the digits as a string: TOML integers may be too small")
    })
}
