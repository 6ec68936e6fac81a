//! The tables about notifications and thresholds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::check;
use super::check::unknown;
use crate::config::file::jobs::{Notify, NotifyTable, StatusTable};
use crate::domain::health::Level;
use crate::notify::Channel;
use crate::notify::kinds::KINDS;
use crate::table::ConfigError;
use crate::table::join;
use crate::table::units::size;

/// How much of a folder's file system should be free, percent.
const FREE_PERCENT: u8 = 20;

impl Default for StatusSettings {
    fn default() -> StatusSettings {
        StatusSettings {
            metrics_file: None,
            free_percent_min: FREE_PERCENT,
            quota: BTreeMap::new(),
            prices: BTreeMap::new(),
        }
    }
}

/// What `status` writes and compares with.
#[derive(Debug, Clone)]
pub struct StatusSettings {
    /// A file for Prometheus' textfile collector.
    pub metrics_file: Option<PathBuf>,
    /// How much of a store in a folder should be free, percent.
    pub free_percent_min: u8,
    /// How much a store may hold, bytes, by its name.
    pub quota: BTreeMap<String, u64>,
    /// Prices per GiB and month, by storage class, that differ from the public ones.
    pub prices: BTreeMap<String, f64>,
}

/// Checks the `[status]` table; paths are relative to `folder`.
pub(super) fn status<'s>(
    table: StatusTable,
    folder: &Path,
    stores: impl Iterator<Item = &'s str> + Clone,
) -> Result<StatusSettings, ConfigError> {
    let mut quota = BTreeMap::new();
    for (name, text) in table.quota {
        let place = join("status.quota", &name);
        if !stores.clone().any(|known| known == name) {
            return Err(unknown(place, "store", &name, stores));
        }
        let bytes = size(&place, &text)?;
        quota.insert(name, bytes);
    }
    for (class, price) in &table.prices {
        if !price.is_finite() || *price < 0.0 {
            let place = join("status.prices", class);
            return Err(ConfigError::invalid(place, format!("{price} is not a price")));
        }
    }
    let metrics_file = table.metrics_file.map(|path| folder.join(path));
    let free_percent_min = table.min_free_percent.unwrap_or(FREE_PERCENT);
    if free_percent_min > 100 {
        let problem = format!("{free_percent_min} is more than 100");
        return Err(ConfigError::invalid("status.min_free_percent", problem));
    }
    Ok(StatusSettings { metrics_file, free_percent_min, quota, prices: table.prices })
}

/// A channel for notifications.
#[derive(Debug, Clone)]
pub struct NotifySettings {
    /// The kind of channel and its address.
    pub channel: Channel,
    /// From which level on.
    pub level: Level,
}

/// Checks every `[notify.NAME]` table; paths are relative to `folder`.
pub(super) fn notify(tables: Notify, folder: &Path) -> Result<Vec<NotifySettings>, ConfigError> {
    tables.into_iter().map(|(name, table)| channel(name, table, folder)).collect()
}

fn channel(name: String, table: NotifyTable, folder: &Path) -> Result<NotifySettings, ConfigError> {
    check::name("notify", &name)?;
    let place = join("notify", &name);
    let NotifyTable { kind, level, url, from, to, user, password } = table;
    let words = KINDS.iter().map(|kind| kind.word);
    let found = KINDS.iter().find(|known| known.word == kind);
    let at = || join(&place, "kind");
    let found = found.ok_or_else(|| unknown(at(), "kind of notification", &kind, words))?;
    let levels = [Level::Info, Level::Warning, Level::Critical];
    let wanted = level.as_deref().unwrap_or(Level::Warning.as_str());
    let level = levels.into_iter().find(|level| level.as_str() == wanted);
    let known = levels.iter().map(|level| level.as_str());
    let level = level.ok_or_else(|| unknown(join(&place, "level"), "level", wanted, known))?;
    let (url, password) =
        (check::resolve_path(&url, folder), check::resolve_path(&password, folder));
    let channel = Channel { name, kind, url, from, to, user, password };
    (found.check)(&channel).map_err(|problem| ConfigError::invalid(place, problem))?;
    Ok(NotifySettings { channel, level })
}
