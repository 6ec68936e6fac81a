//! A configured folder: its settings and operations.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::copy::Replication;
use super::walk::{self, Patterns, glob_set};
use crate::ctx::Ctx;
use crate::domain::manifest::Identity;
use crate::error::diagnose;
use crate::pipeline::objects::ObjectSink;
use crate::source::{
    Captured, Check, DrillTools, Opened, ReplicaRequest, Source, is_sealed, on_this_host,
};
use crate::table::{ConfigError, parse_table};

/// The files that are copied where the configuration does not say which.
const FILES_DEFAULT: &str = "**/*.parquet";

/// The keys of a `[source.NAME]` table with `kind = "parquet"`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    /// The folder.
    #[schemars(extend("format" = "path"))]
    path: PathBuf,
    /// Files that are copied, as patterns of their paths below the folder, in which * stands for anything
    /// but a slash and ** for any folders. Default **/*.parquet.
    #[serde(default)]
    files: Option<Vec<String>>,
    /// Files that are not, as such patterns.
    #[serde(default)]
    exclude: Vec<String>,
    /// Whether the copies are sealed: aes256-gcm (default), or none, so that every program that may read
    /// the store reads them as they are. The inventory is sealed in any case.
    #[serde(default)]
    encryption: Option<String>,
}

/// A configured folder.
#[derive(Debug)]
struct Configured {
    path: PathBuf,
    patterns: Patterns,
    sealed: bool,
}

pub(super) fn open(name: &str, table: toml::Table) -> Opened {
    let place = format!("source.{name}");
    let table: Table = parse_table(&place, table)?;
    let sealed = is_sealed(&place, table.encryption.as_deref())?;
    let files = table.files.unwrap_or_else(|| vec![FILES_DEFAULT.to_owned()]);
    if files.is_empty() {
        let problem = "the list of patterns is empty";
        let error = ConfigError::invalid(format!("{place}.files"), problem);
        return Err(error.suggest("name a pattern, or remove the key"));
    }
    let globs = |key: &str, patterns: &[String]| {
        glob_set(patterns).map_err(|problem| {
            let error = ConfigError::invalid(format!("{place}.{key}"), problem);
            error.suggest("a pattern is like **/*.parquet or 2026/*")
        })
    };
    let patterns =
        Patterns { wanted: globs("files", &files)?, excluded: globs("exclude", &table.exclude)? };
    Ok(Box::new(Configured { path: table.path, patterns, sealed }))
}

impl Source for Configured {
    fn identity(&self, _ctx: &Ctx) -> anyhow::Result<Identity> {
        Ok(on_this_host(&self.path))
    }

    fn check_parent(&self, _record: &Value, _ctx: &Ctx) -> anyhow::Result<()> {
        // The folder's identity is all that there is to compare.
        Ok(())
    }

    fn replicate(
        &self,
        request: &ReplicaRequest<'_>,
        out: &mut dyn ObjectSink,
        ctx: &Ctx,
    ) -> anyhow::Result<Captured> {
        let (root, patterns) = (self.path.as_path(), &self.patterns);
        Replication { root, patterns, sealed: self.sealed, request, ctx }.run(out)
    }

    fn check(&self, _tools: &DrillTools, ctx: &Ctx) -> Vec<Check> {
        let what = format!("folder {}", self.path.display());
        let listed = walk::open_root(&self.path).map_err(anyhow::Error::from);
        let listed =
            listed.and_then(|root| walk::list(&root, &self.path, &self.patterns, &ctx.cancel));
        let check = match listed {
            Ok(listing) if listing.unreadable.is_empty() => {
                let bytes = listing
                    .files
                    .iter()
                    .fold(0, |sum: u64, (_, stat)| sum.saturating_add(stat.bytes));
                let bytes = humansize::format_size(bytes, humansize::BINARY);
                let found = format!("{} files, {bytes}", listing.files.len());
                let ok = !listing.files.is_empty();
                let hint =
                    (!ok).then(|| "correct `path` or `files` in the source's table".to_owned());
                Check { what, ok, found, hint }
            }
            Ok(listing) => {
                let first = listing.unreadable.first();
                let first = first.map(|(path, why)| format!("`{path}` cannot be read: {why}"));
                let hint = "make it readable for the user who runs bkp (group membership or CAP_DAC_READ_SEARCH)";
                let found = first.unwrap_or_default();
                Check { what, ok: false, found, hint: Some(hint.into()) }
            }
            Err(error) => {
                let hint = Some(diagnose(&error).hint);
                Check { what, ok: false, found: format!("{error:#}"), hint }
            }
        };
        vec![check]
    }
}
