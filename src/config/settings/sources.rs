//! A `[source.NAME]` table: the keys that every source has, and the rest, which belongs to its kind.

use std::collections::BTreeMap;
use std::path::Path;

use super::adapter::{SourceSettings, StoreSettings};
use super::check;
use crate::config::file::{CompressionName, Names, SOURCE_KEYS, SourceTable};
use crate::domain::names::BackupType;
use crate::source::entry::SourceEntry;
use crate::source::kinds::SOURCES;
use crate::source::{SourceKind, TargetKind};
use crate::stage::Compression;
use crate::table::units::duration;
use crate::table::{ConfigError, parse_table};
use crate::table::{nearest, unknown_key};

/// The longest time that a restore may be allowed to take, seconds: a year.
const RTO_MAX: u64 = 366 * 86_400;

/// Checks the table of the source `name` completely, its kind's part too, so that a mistake is found
/// by the next run of any command and not by the next snapshot.
pub(super) fn open(
    name: &str,
    table: toml::Table,
    stores: &BTreeMap<String, StoreSettings>,
    folder: &Path,
) -> Result<SourceSettings, ConfigError> {
    let place = format!("source.{name}");
    let (common, mut rest): (toml::Table, toml::Table) =
        table.into_iter().partition(|(key, _)| SOURCE_KEYS.contains(&key.as_str()));
    let common: SourceTable = parse_table(&place, common)?;
    let kind = kind_named(&place, &common.kind)?;
    let named = common.store.is_some();
    let chosen = common.store.map(Names::list).unwrap_or_default();
    if named && chosen.is_empty() {
        let error = ConfigError::invalid(format!("{place}.store"), "the list of stores is empty");
        return Err(error.suggest("name a store, or remove the key"));
    }
    chosen.iter().try_for_each(|store| known_store(&place, store, stores))?;
    check::check_unique(&format!("{place}.store"), &chosen)?;
    common.tenant.iter().try_for_each(|tenant| check::tenant(&place, tenant))?;
    let rto = common.rto.map(|rto| duration(&format!("{place}.rto"), &rto, 1, RTO_MAX));
    let schema = (kind.schema)();
    known_keys(&place, &rest, &schema, &SOURCE_KEYS)?;
    anchor_paths(&mut rest, &schema, folder);
    anchor_recipients(&place, &mut rest, &schema, folder)?;
    let source = (kind.open)(name, rest.clone())?;
    if kind.target == TargetKind::Folder {
        check_no_store_inside(&place, &rest, stores)?;
    }
    Ok(SourceSettings {
        backup_type: kind.backup_type,
        store: chosen,
        tenant: common.tenant,
        rto: rto.transpose()?,
        compression: compression(&place, kind.zstd_level, common.compression, common.level)?,
        recipients: source.recipients().to_vec(),
        of_sources: source.of_sources().to_vec(),
        table: rest,
    })
}

/// Refuses a key set that would mix tenants, or be of none of the sources: whoever opens a tenant's key set opens
/// that tenant's backups only.
pub(super) fn check_key_sets(
    sources: &BTreeMap<String, SourceSettings>,
) -> Result<(), ConfigError> {
    let (sets, others): (Vec<_>, Vec<_>) =
        sources.iter().partition(|(_, source)| source.backup_type == BackupType::Kms);
    for (name, set) in &sets {
        let place = format!("source.{name}");
        let is_chosen = |other: &str| set.of_sources.iter().any(|chosen| chosen == other);
        if let Some((other, _)) = sets.iter().find(|(other, _)| is_chosen(other)) {
            let problem = format!("`{other}` is a key set");
            let error = ConfigError::invalid(format!("{place}.sources"), problem);
            return Err(error.suggest("name sources that make backups of data"));
        }
        let all = set.of_sources.is_empty();
        let of_set = others.iter().filter(|(other, _)| all || is_chosen(other));
        let foreign = of_set.clone().find(|(_, other)| other.tenant != set.tenant);
        let of_tenant = of_set.filter(|(_, other)| other.tenant == set.tenant).count();
        match (foreign, &set.tenant) {
            (Some((other, theirs)), None) => {
                let theirs = theirs.tenant.as_deref().unwrap_or_default();
                let problem =
                    format!("`{other}` is of tenant {theirs}, and this key set is of none");
                let error = ConfigError::invalid(format!("{place}.tenant"), problem);
                let hint = "make a key set for each tenant: set `tenant`; or name sources without one in `sources`";
                return Err(error.suggest(hint));
            }
            (Some((other, _)), Some(tenant)) if !all => {
                let problem = format!("`{other}` is not of tenant {tenant}");
                let error = ConfigError::invalid(format!("{place}.sources"), problem);
                return Err(error.suggest("name sources of this tenant, or omit `sources`"));
            }
            _ if all && of_tenant == 0 => {
                let of = set.tenant.as_deref().map(|tenant| format!(" of tenant {tenant}"));
                let problem = format!("there is no source{} to make it of", of.unwrap_or_default());
                let error = ConfigError::invalid(place, problem);
                return Err(error.suggest("configure one, or name some in `sources`"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Checks the recipients in a table, which are the lists whose items have the format `recipient`, and takes
/// relative paths in them relative to `folder`.
fn anchor_recipients(
    place: &str,
    table: &mut toml::Table,
    schema: &serde_json::Value,
    folder: &Path,
) -> Result<(), ConfigError> {
    for (key, value) in table {
        let format = schema.pointer(&format!("/properties/{key}/items/format"));
        let is_list = format.and_then(|format| format.as_str()) == Some("recipient");
        let Some(texts) = value.as_array_mut().filter(|_| is_list) else { continue };
        for (index, text) in texts.iter_mut().enumerate() {
            if let toml::Value::String(text) = text {
                check::recipient(&format!("{place}.{key}[{index}]"), text)?;
                *text = check::resolve_path(text, folder);
            }
        }
    }
    Ok(())
}

/// Refuses a folder that a store is in: each run would copy what the last one stored.
fn check_no_store_inside(
    place: &str,
    table: &toml::Table,
    stores: &BTreeMap<String, StoreSettings>,
) -> Result<(), ConfigError> {
    let Some(folder) = table.get("path").and_then(toml::Value::as_str) else { return Ok(()) };
    let is_inside = |store: &&StoreSettings| {
        let path = store.place.url.strip_prefix("file://");
        path.is_some_and(|path| Path::new(path).starts_with(folder))
    };
    let Some(inside) = stores.values().find(is_inside) else { return Ok(()) };
    let problem = format!("[{}] is inside this folder", inside.place.name);
    let error = ConfigError::invalid(format!("{place}.path"), problem);
    Err(error.suggest("keep backups elsewhere"))
}

fn kind_named(place: &str, word: &str) -> Result<&'static SourceKind, ConfigError> {
    let word_of = |entry: &SourceEntry| entry.kind.backup_type.source_kind();
    let known: Vec<&str> = SOURCES.iter().map(word_of).collect();
    let found = SOURCES.iter().find(|entry| word_of(entry) == word);
    found.map(|entry| &entry.kind).ok_or_else(|| {
        let problem = format!("unknown source kind `{word}`");
        let hint = match nearest(word, known.iter().copied()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("known kinds: {}", known.join(", ")),
        };
        ConfigError::invalid(format!("{place}.kind"), problem).suggest(hint)
    })
}

fn known_store(
    place: &str,
    store: &str,
    stores: &BTreeMap<String, StoreSettings>,
) -> Result<(), ConfigError> {
    if stores.contains_key(store) {
        return Ok(());
    }
    let hint = match nearest(store, stores.keys().map(String::as_str)) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("add a table [store.{store}]"),
    };
    let problem = format!("unknown store `{store}`");
    Err(ConfigError::invalid(format!("{place}.store"), problem).suggest(hint))
}

/// Refuses keys that neither the kind nor, as `common`, every kind has. The kind refuses its own
/// unknown keys too; only here can a suggestion come from both lists.
pub(super) fn known_keys(
    place: &str,
    table: &toml::Table,
    schema: &serde_json::Value,
    common: &[&str],
) -> Result<(), ConfigError> {
    let Some(properties) = schema.get("properties").and_then(|value| value.as_object()) else {
        return Ok(());
    };
    let own = properties.keys().map(String::as_str);
    let known: Vec<&str> = own.chain(common.iter().copied()).collect();
    match table.keys().find(|key| !properties.contains_key(*key)) {
        Some(key) => Err(unknown_key(place, key, &known)),
        None => Ok(()),
    }
}

/// Takes relative paths relative to `folder`. Paths are the keys whose schema has the format `path`.
pub(super) fn anchor_paths(table: &mut toml::Table, schema: &serde_json::Value, folder: &Path) {
    for (key, value) in table {
        let format = schema.pointer(&format!("/properties/{key}/format"));
        if let (Some("path"), toml::Value::String(path)) = (format.and_then(|f| f.as_str()), value)
        {
            *path = folder.join(&path).display().to_string();
        }
    }
}

fn compression(
    place: &str,
    zstd_level: u8,
    name: Option<CompressionName>,
    level: Option<u8>,
) -> Result<Compression, ConfigError> {
    let level_place = format!("{place}.level");
    let within = |default: u8, max: u8| match level {
        Some(level) if !(1..=max).contains(&level) => {
            Err(ConfigError::invalid(&level_place, format!("{level} is not between 1 and {max}")))
        }
        Some(level) => Ok(level),
        None => Ok(default),
    };
    match name.unwrap_or(CompressionName::Zstd) {
        CompressionName::Zstd => Ok(Compression::Zstd(i32::from(within(zstd_level, 19)?))),
        CompressionName::Gzip => Ok(Compression::Gzip(u32::from(within(6, 9)?))),
        CompressionName::None if level.is_some() => {
            Err(ConfigError::invalid(&level_place, "without compression there is no level")
                .suggest("remove `level`, or choose zstd or gzip"))
        }
        CompressionName::None => Ok(Compression::None),
    }
}
