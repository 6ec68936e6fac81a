//! `bkp config`: checks, shows and describes the configuration.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};
use std::fmt::Write as _;

use crate::config::schema;
use crate::config::settings::{Origin, Provenance, Settings, SourceSettings};
use crate::keys::{secret, shown};
use crate::ledger::LedgerSettings;
use crate::ops::report::Report;
use crate::stage::Compression;
use crate::table::ConfigError;
use crate::table::units::spelled;
use crate::wire::AppContext;

mod lifecycle;
mod tenants;

pub(super) use self::lifecycle::LifecycleReport;
pub(super) use self::tenants::ConfigTenantsReport;
pub use self::tenants::TenantsOptions;

/// What `bkp config` was asked for.
#[derive(Debug, Clone)]
pub enum Options {
    /// Say whether it is valid.
    Check,
    /// The resolved settings.
    Show {
        /// Say where each value came from.
        origin: bool,
    },
    /// The lifecycle rules of a bucket.
    Lifecycle,
    /// Whose row is whose in a database.
    Tenants(TenantsOptions),
    /// The JSON Schema of the file, or of a report.
    Schema {
        /// That of the report.
        report: Option<Value>,
    },
}

/// The stable shape `bkp.config-schema/1`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ConfigSchemaReport {
    json_schema: Value,
}

/// The stable shape `bkp.config-check/1`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ConfigCheckReport {
    file: String,
    valid: bool,
    /// How many are configured; as for recipients and sources.
    stores: usize,
    recipients: usize,
    sources: usize,
    warnings: Vec<String>,
}

/// The stable shape `bkp.config/1`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ConfigReport {
    file: Option<String>,
    /// The settings in effect, in the shape of the file.
    settings: Map<String, Value>,
    /// Where each setting came from, by its key path.
    #[serde(skip_serializing_if = "Option::is_none")]
    origins: Option<Map<String, Value>>,
}

/// Checks, shows or describes the configuration. Loading it has checked everything already, the
/// sources' own tables too.
///
/// # Errors
/// [`ConfigError::Missing`] from `check` if there is no file.
pub fn run(app: &AppContext, options: &Options) -> anyhow::Result<Report> {
    match options {
        Options::Check => check(&app.settings),
        Options::Show { origin } => show(&app.settings, *origin),
        Options::Lifecycle => lifecycle::run(app),
        Options::Tenants(options) => tenants::run(app, options),
        Options::Schema { report } => describe(report.clone()),
    }
}

/// The JSON Schema of the configuration, or of a report; needs no configuration.
///
/// # Errors
/// None in practice; see [`Report::done`].
pub fn describe(report: Option<Value>) -> anyhow::Result<Report> {
    let json_schema = report.unwrap_or_else(schema::schema);
    let text = serde_json::to_string_pretty(&json_schema)?;
    Report::done("bkp.config-schema/1", &ConfigSchemaReport { json_schema }, text)
}

fn check(settings: &Settings) -> anyhow::Result<Report> {
    let Provenance { looked, warnings, .. } = &settings.provenance;
    let file =
        settings.file.as_ref().ok_or_else(|| ConfigError::Missing { looked: looked.clone() })?;
    let lacking = [
        ("store", "[store.NAME]", settings.stores.len()),
        ("recipient", "[keys] recipients", settings.recipients.len()),
        ("source", "[source.NAME]", settings.sources.len()),
    ];
    let lacking = lacking.into_iter().filter(|(_, _, count)| *count == 0);
    let lacking = lacking.map(|(what, key, _)| format!("no {what} is configured ({key})"));
    let unreadable = settings.check_secret_files()?;
    let body = ConfigCheckReport {
        file: file.display().to_string(),
        valid: true,
        stores: settings.stores.len(),
        recipients: settings.recipients.len(),
        sources: settings.sources.len(),
        warnings: warnings.iter().cloned().chain(lacking).chain(unreadable).collect(),
    };
    let mut text = format!(
        "{}: valid; stores: {}, recipients: {}, sources: {}\n",
        body.file, body.stores, body.recipients, body.sources
    );
    for warning in &body.warnings {
        writeln!(text, "warning: {warning}")?;
    }
    Report::done("bkp.config-check/1", &body, text)
}

/// One resolved setting under its key path.
struct SettingLine {
    section: String,
    key: String,
    value: toml::Value,
    origin: Origin,
}

fn show(settings: &Settings, origin: bool) -> anyhow::Result<Report> {
    let lines = lines(settings);
    let mut tree = Map::new();
    let mut origins = Map::new();
    for line in &lines {
        insert(&mut tree, &line.section, &line.key, serde_json::to_value(&line.value)?);
        let path = format!("{}.{}", line.section, line.key);
        origins.insert(path.trim_start_matches('.').to_owned(), serde_json::to_value(line.origin)?);
    }
    let file = settings.file.as_ref().map(|path| path.display().to_string());
    let body = ConfigReport { file, settings: tree, origins: origin.then_some(origins) };
    Report::done("bkp.config/1", &body, toml_text(&lines, origin))
}

/// Puts a value into the table at the dotted path `section`, making the tables on the way.
fn insert(tree: &mut Map<String, Value>, section: &str, key: &str, value: Value) {
    if section.is_empty() {
        tree.insert(key.to_owned(), value);
        return;
    }
    let (head, rest) = section.split_once('.').unwrap_or((section, ""));
    let inner = tree.entry(head).or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(inner) = inner {
        insert(inner, rest, key, value);
    }
}

/// TOML that could be a configuration file, one line per setting.
fn toml_text(lines: &[SettingLine], origin: bool) -> String {
    let mut text = Vec::new();
    let mut section = "";
    for line in lines {
        if line.section != section {
            section = &line.section;
            text.push(format!("\n[{section}]"));
        }
        let note = if origin { format!("  # {}", line.origin) } else { String::new() };
        text.push(format!("{} = {}{note}", line.key, line.value));
    }
    text.join("\n").trim_start().to_owned()
}

fn lines(settings: &Settings) -> Vec<SettingLine> {
    let provenance = &settings.provenance;
    let line = |section: &str, key: &str, value: toml::Value| {
        let path = if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") };
        let origin = provenance.of(&path);
        SettingLine { section: section.to_owned(), key: key.to_owned(), value, origin }
    };
    let mut lines = vec![line("", "state_dir", settings.state_dir.display().to_string().into())];
    lines.push(line("", "lease", spelled(settings.lease).into()));
    for (name, store) in &settings.stores {
        let section = format!("store.{name}");
        lines.push(line(&section, "url", store.place.url.clone().into()));
        let own = store.place.table.clone();
        lines.extend(own.into_iter().map(|(key, value)| line(&section, &key, value)));
    }
    for store in &settings.store {
        // Not a key of the file: what --store or BKP_STORE chose for this run.
        let origin = provenance.of("store");
        let section = "chosen".to_owned();
        lines.push(SettingLine {
            section,
            key: "store".into(),
            value: store.clone().into(),
            origin,
        });
    }
    let recipients: Vec<String> = settings.recipients.iter().map(|text| shown(text)).collect();
    lines.push(line("keys", "recipients", recipients.into()));
    if let Some(reference) = &settings.signing_key {
        lines.push(line("keys", "signing_key", secret::origin(reference).into()));
    }
    if !settings.trust.is_empty() {
        let trust: Vec<String> = settings.trust.iter().map(ToString::to_string).collect();
        lines.push(line("keys", "trust", trust.into()));
    }
    if let Some(ledger) = &settings.ledger {
        lines.extend(
            ledger_values(ledger).into_iter().map(|(key, value)| line("ledger", key, value)),
        );
    }
    if let Some(program) = &settings.tigerbeetle {
        lines.push(line("tools", "tigerbeetle", program.display().to_string().into()));
    }
    for (name, source) in &settings.sources {
        let section = format!("source.{name}");
        lines.extend(
            source_values(source).into_iter().map(|(key, value)| line(&section, &key, value)),
        );
    }
    lines
}

fn ledger_values(ledger: &LedgerSettings) -> Vec<(&'static str, toml::Value)> {
    let accounts = ledger.accounts.iter().map(|(name, id)| (name.clone(), id.to_string().into()));
    let accounts: toml::Table = accounts.collect();
    let mut values: Vec<(&str, toml::Value)> = vec![
        ("cluster", ledger.cluster.to_string().into()),
        ("addresses", ledger.addresses.clone().into()),
        ("required", ledger.required.into()),
        ("number", i64::from(ledger.number).into()),
        ("deadline", spelled(ledger.deadline).into()),
    ];
    if !accounts.is_empty() {
        values.push(("accounts", accounts.into()));
    }
    values
}

fn source_values(source: &SourceSettings) -> Vec<(String, toml::Value)> {
    let mut values = vec![("kind".to_owned(), source.backup_type.source_kind().into())];
    match source.store.as_slice() {
        [] => {}
        [only] => values.push(("store".to_owned(), only.clone().into())),
        several => values.push(("store".to_owned(), several.to_vec().into())),
    }
    let (name, level) = match source.compression {
        Compression::None => ("none", None),
        Compression::Gzip(level) => ("gzip", Some(i64::from(level))),
        Compression::Zstd(level) => ("zstd", Some(i64::from(level))),
    };
    values.push(("compression".to_owned(), name.into()));
    values.extend(level.map(|level| ("level".to_owned(), level.into())));
    values.extend(source.table.clone());
    values
}
