//! `bkp list`: the backups of a store.

use std::fmt::Write as _;

use humansize::{BINARY, format_size};
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Report;
use crate::catalog::{self, Filter, Found};
use crate::domain::id::BackupId;
use crate::domain::manifest::Manifest;
use crate::domain::names::{BackupType, Scope};
use crate::store::ReadStore;
use crate::wire::House;

/// What `bkp list` was asked for.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Only this source.
    pub source: Option<String>,
    /// Only ids that begin so.
    pub id: Option<String>,
    /// Only this type.
    pub backup_type: Option<BackupType>,
    /// Read the manifests too: sizes, positions, parents.
    pub long: bool,
}

/// The stable shape `bkp.list/1`.
#[derive(Debug, Serialize)]
struct Listing {
    store: String,
    backups: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    id: BackupId,
    #[serde(rename = "type")]
    backup_type: BackupType,
    source: String,
    scope: Scope,
    kind: String,
    #[serde(with = "time::serde::rfc3339")]
    started: OffsetDateTime,
    stored_bytes: u64,
    /// With `--long`: the manifest as stored. Not authenticated: listing needs no key.
    #[serde(skip_serializing_if = "Option::is_none")]
    manifest: Option<Value>,
}

/// Lists the backups of a store, oldest first. Needs no key; without `--long` it costs one listing.
///
/// # Errors
/// What the store fails with; with `--long` a manifest that cannot be read.
pub fn run(house: &House, options: &Options) -> anyhow::Result<Report> {
    let settings = options.source.as_ref().and_then(|name| house.settings.sources.get(name));
    let store = house.store_read(settings)?;
    let filter = Filter {
        source: options.source.clone(),
        id: options.id.clone(),
        backup_type: options.backup_type,
    };
    let found = catalog::find(store.as_ref(), &filter)?;
    let rows = found.into_iter().map(|found| row(store.as_ref(), found, options.long));
    let backups = rows.collect::<anyhow::Result<Vec<_>>>()?;
    let text = render(&backups)?;
    let listing = Listing { store: store.url().to_owned(), backups };
    Report::done("bkp.list/1", &listing, text)
}

fn row(store: &dyn ReadStore, found: Found, long: bool) -> anyhow::Result<Row> {
    let manifest = if long {
        let key = found.name.manifest_key();
        let bytes = catalog::read_manifest(store, &key)?;
        Manifest::parse(&bytes, &key)?;
        Some(serde_json::from_slice(&bytes)?)
    } else {
        None
    };
    let started = found.name.id.created();
    Ok(Row {
        id: found.name.id,
        backup_type: found.name.backup_type,
        source: found.name.source,
        scope: found.name.scope,
        kind: found.name.kind,
        started,
        stored_bytes: found.stored_bytes,
        manifest,
    })
}

fn render(rows: &[Row]) -> anyhow::Result<String> {
    if rows.is_empty() {
        return Ok("no backups\n".to_owned());
    }
    let width = rows.iter().map(|row| row.source.len()).max().unwrap_or(0).max("SOURCE".len());
    let mut text = String::new();
    writeln!(
        text,
        "{:<20}  {:<11}  {:<width$}  {:<12}  {:>10}  ID",
        "STARTED", "TYPE", "SOURCE", "SCOPE", "STORED"
    )?;
    for row in rows {
        let started = row.started.replace_nanosecond(0)?.format(&Rfc3339)?;
        let stored = format_size(row.stored_bytes, BINARY);
        let Row { backup_type, source, scope, id, .. } = row;
        writeln!(
            text,
            "{started:<20}  {backup_type:<11}  {source:<width$}  {scope:<12}  {stored:>10}  {id}"
        )?;
        let position =
            row.manifest.as_ref().and_then(|manifest| manifest.pointer("/capture/position"));
        if let Some(position) = position {
            writeln!(text, "{:<20}  position {position}", "")?;
        }
    }
    Ok(text)
}
