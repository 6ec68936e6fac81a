//! `bkp catalog` and `bkp list --sql`: the backups of a store as the table `backup_metadata`.

use std::fmt::Write as _;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::catalog::table::{self, CatalogRow};
use crate::catalog::{self, Filter};
use crate::cmd::restore::check_target;
use crate::concurrent;
use crate::domain::event::{self, Event};
use crate::domain::manifest::{Manifest, hex};
use crate::domain::text::plain;
use crate::error::{Fault, Kind, diagnose, worst};
use crate::ops::report::Report;
use crate::source::TargetKind;
use crate::store::ReadStore;
use crate::wire::AppContext;

/// What `bkp catalog` was asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// Path of the database.
    pub to: PathBuf,
    /// Replace what stands there.
    pub force: bool,
    /// Only backups of this source.
    pub source: Option<String>,
    /// Say what would be done, and do nothing.
    pub dry_run: bool,
}

/// The stable shape `bkp.catalog/1`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct CatalogReport<'a> {
    /// URL of the store.
    store: &'a str,
    /// The database.
    path: &'a str,
    /// Rows of its table.
    backups: usize,
    /// Whether it was written.
    written: bool,
    /// Where what stood there was moved, if it was another database.
    #[serde(skip_serializing_if = "Option::is_none")]
    moved_aside: Option<PathBuf>,
}

/// The stable shape `bkp.query/1`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct QueryReport {
    /// Names of the result's columns.
    columns: Vec<String>,
    /// Values as text.
    rows: Vec<Vec<Option<String>>>,
}

/// Writes the table to a database. Needs no key: manifests are read, not authenticated.
///
/// # Errors
/// [`Kind::Refused`] if the target exists and is not to be replaced, or is in the store; what the store fails with.
pub fn run(app: &AppContext, options: &Options) -> anyhow::Result<Report> {
    let path = options.to.display().to_string();
    let settings = options.source.as_ref().and_then(|name| app.settings.sources.get(name));
    let exists = check_target(
        app.store_read(settings)?.as_ref(),
        &options.to,
        TargetKind::File,
        table::FILE_TYPE,
    )?;
    if !options.force && exists {
        let fault = Fault::new(Kind::Refused, format!("{path} already exists"));
        return Err(fault.hint("choose another --to, or pass --force to replace it").into());
    }
    let Read { store, backups: rows, outcome } = rows(app, options.source.as_deref())?;
    let moved_aside =
        if options.dry_run { None } else { table::materialise(&options.to, &rows, options.force)? };
    let verb = if options.dry_run { "would write" } else { "wrote" };
    let aside = moved_aside.as_ref();
    let aside = aside.map(|path| format!("the previous file is now {}\n", path.display()));
    let failed = rows.iter().filter(|row| row.status == "failed").count();
    let count = rows.len() - failed;
    let failed = if failed > 0 { format!(" and {failed} failed runs") } else { String::new() };
    let text = format!("{verb} {count} backups{failed} to {path}\n{}", aside.unwrap_or_default());
    let (backups, written) = (rows.len(), !options.dry_run);
    let done = CatalogReport { store: &store, path: &path, backups, written, moved_aside };
    Ok(Report::done("bkp.catalog/1", &done, text)?.with_outcome(outcome))
}

/// Runs a query over the table.
///
/// # Errors
/// [`Kind::Usage`] with what DuckDB says of the query; what the store fails with.
pub fn query(app: &AppContext, sql: &str, source: Option<&str>) -> anyhow::Result<Report> {
    let Read { backups: rows, outcome, .. } = rows(app, source)?;
    let (columns, rows) = table::query(&rows, sql)?;
    let text = render(&columns, &rows)?;
    Ok(Report::done("bkp.query/1", &QueryReport { columns, rows }, text)?.with_outcome(outcome))
}

/// The backups of a store.
struct Read {
    /// Its URL.
    store: String,
    /// Oldest first.
    backups: Vec<CatalogRow>,
    /// Set if a manifest could not be read: its backup has no row.
    outcome: Option<Kind>,
}

fn rows(app: &AppContext, source: Option<&str>) -> anyhow::Result<Read> {
    let settings = source.and_then(|name| app.settings.sources.get(name));
    let store = app.store_read(settings)?;
    let filter = Filter { source: source.map(str::to_owned), ..Filter::default() };
    let (mut rows, mut outcome) = (Vec::new(), None);
    let all = catalog::find(store.as_ref(), &filter, &app.ctx.cancel)?;
    let read = concurrent::each(&all, &app.ctx.cancel, |found| {
        Ok(row(store.as_ref(), &found.name.manifest_key()))
    })?;
    for (found, row) in all.iter().zip(read) {
        match row {
            Ok(row) => rows.push(row),
            Err(error) => {
                app.ctx.monitor.warn(&format!("skipping {}: {error:#}", found.name.id));
                outcome = worst(outcome, Some(diagnose(&error).kind));
            }
        }
    }
    rows.extend(super::runs::failed(app, store.as_ref(), source)?);
    Ok(Read { store: store.url().to_owned(), backups: rows, outcome })
}

fn row(store: &dyn ReadStore, key: &str) -> anyhow::Result<CatalogRow> {
    let bytes = catalog::read_manifest(store, key)?;
    let manifest = Manifest::parse(&bytes, key)?;
    let digest: [u8; 32] = Sha256::digest(&bytes).into();
    let event = Event::completed(&manifest, &digest);
    let time = |time: OffsetDateTime| time.format(&Rfc3339);
    Ok(CatalogRow {
        id: manifest.id.to_string(),
        backup_type: manifest.backup_type.to_string(),
        backup_scope: manifest.scope.to_string(),
        tenant_id: manifest.tenant,
        start_time: time(manifest.started)?,
        end_time: time(manifest.ended)?,
        status: manifest.status.clone(),
        backup_size_bytes: manifest.sizes.stored_bytes,
        backup_location: crate::store::location(store.url(), key),
        checksum: hex(&digest),
        compression: match event.compression {
            Some(event::Compression::Gzip) => "gzip".to_owned(),
            Some(event::Compression::Zstd) => "zstd".to_owned(),
            Some(event::Compression::ParquetZstd) => "parquet-zstd".to_owned(),
            Some(event::Compression::None) | None => "none".to_owned(),
        },
        encryption: event.encryption.unwrap_or(event::Encryption::None).as_str().to_owned(),
        retention_until: manifest.retention.until.map(time).transpose()?,
        source: manifest.source,
        kind: manifest.kind,
        parent_id: manifest.parent.map(|parent| parent.to_string()),
    })
}

/// Columns with two spaces between them.
fn render(columns: &[String], rows: &[Vec<Option<String>>]) -> anyhow::Result<String> {
    let shown = |value: &Option<String>| value.as_deref().map_or_else(|| "NULL".to_owned(), plain);
    let rows: Vec<Vec<String>> = std::iter::once(columns.to_vec())
        .chain(rows.iter().map(|row| row.iter().map(shown).collect()))
        .collect();
    let width = |index: usize| {
        rows.iter().filter_map(|row| row.get(index)).map(|text| text.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns.len()).map(|index| width(index).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        writeln!(text, "{}", line.trim_end())?;
    }
    Ok(text)
}
