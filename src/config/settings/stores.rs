//! A `[store.NAME]` table: the keys that every store has, and the rest, which belongs to its kind.

use std::collections::BTreeMap;
use std::path::Path;

use super::adapter::StoreSettings;
use super::check;
use super::jobs::keep;
use super::sources::{anchor_paths, known_keys};
use crate::config::file::{STORE_KEYS, StoreTable};
use crate::domain::calendar::TimeZone;
use crate::store::StoreLocation;
use crate::table::{ConfigError, parse_table};

/// Checks the table of the store `name` completely, its kind's part too, so that a mistake is found
/// by the next run of any command.
pub(super) fn open(
    name: &str,
    table: toml::Table,
    folder: &Path,
) -> Result<StoreSettings, ConfigError> {
    let place = format!("store.{name}");
    let (common, mut rest): (toml::Table, toml::Table) =
        table.into_iter().partition(|(key, _)| STORE_KEYS.contains(&key.as_str()));
    let common: StoreTable = parse_table(&place, common)?;
    let kind = check::url(&format!("{place}.url"), &common.url)?;
    let schema = (kind.schema)();
    known_keys(&place, &rest, &schema, &STORE_KEYS)?;
    anchor_paths(&mut rest, &schema, folder);
    let retention = common.retention.as_ref();
    let retention =
        retention.map(|table| keep::policy(&format!("{place}.retention"), table, TimeZone::UTC));
    let retention = retention.transpose()?.flatten();
    let place = StoreLocation { name: place, url: common.url, table: rest };
    let _url = (kind.check)(&place)?;
    Ok(StoreSettings { place, retention })
}

/// That a place is not one of `others`: two copies of a backup in one place are one.
pub(super) fn check_other(
    place: &StoreLocation,
    others: &BTreeMap<String, StoreSettings>,
) -> Result<(), ConfigError> {
    let url = |place: &StoreLocation| place.url.trim_end_matches('/').to_owned();
    let is_same = |other: &&StoreSettings| {
        url(&other.place) == url(place) && other.place.table == place.table
    };
    match others.values().find(is_same) {
        None => Ok(()),
        Some(other) => {
            let problem = format!("same location as [{}]", other.place.name);
            Err(ConfigError::invalid(&place.name, problem))
        }
    }
}
