//! `bkp keys`: generates the configured key files.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;

use crate::error::{Fault, Kind};
use crate::keys::file;
use crate::ops::report::Report;
use crate::wire::AppContext;

/// What `bkp keys generate` was asked for.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Where to write a key; `None` means every `file:` recipient of the configuration that does
    /// not exist yet.
    pub path: Option<PathBuf>,
    /// Say what would be done, and do nothing.
    pub dry_run: bool,
}

/// The stable shape `bkp.keys/1`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Keys {
    keys: Vec<Key>,
}

/// A key file and what became of it.
#[derive(Debug, Serialize, JsonSchema)]
struct Key {
    path: String,
    /// `generated`, `exists` or `planned`.
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
}

/// Generates key files. A file that exists is never overwritten: it may be the only thing that
/// opens somebody's backups.
///
/// # Errors
/// [`Kind::Config`] if no path is given and no `file:` recipient is configured; a
/// [`crate::keys::KeyError`] if a key cannot be written or PATH exists.
pub fn run(app: &AppContext, options: &Options) -> anyhow::Result<Report> {
    let mut keys = Vec::new();
    for (path, wanted) in plan(app, options)? {
        let (state, id) = match (wanted, options.dry_run) {
            (false, _) => ("exists", None),
            (true, true) => ("planned", None),
            (true, false) => ("generated", Some(file::generate(&path)?)),
        };
        keys.push(Key { path: path.display().to_string(), state, id });
    }
    let mut text: Vec<String> = keys.iter().map(describe).collect();
    if keys.iter().any(|key| key.state == "generated") {
        text.push("Copy every key to a safe place apart from the backups: without one of them, no backup can be opened.".into());
    }
    Report::done("bkp.keys/1", &Keys { keys }, text.join("\n"))
}

/// The key files concerned, and whether each is to be written.
fn plan(app: &AppContext, options: &Options) -> anyhow::Result<Vec<(PathBuf, bool)>> {
    if let Some(path) = &options.path {
        return Ok(vec![(path.clone(), true)]);
    }
    let recipients = app.settings.recipients.iter();
    let files: Vec<PathBuf> =
        recipients.filter_map(|text| text.strip_prefix("file:")).map(PathBuf::from).collect();
    if files.is_empty() {
        return Err(Fault::new(Kind::Config, "no key file is configured")
            .hint("pass a PATH, or add `recipients = [\"file:/etc/bkp/key\"]` under [keys]")
            .into());
    }
    let missing = |path: PathBuf| {
        // A dangling link is something too: writing through it would be a surprise.
        let there = path.symlink_metadata().is_ok();
        (path, !there)
    };
    Ok(files.into_iter().map(missing).collect())
}

fn describe(key: &Key) -> String {
    match &key.id {
        Some(id) => format!("{}: generated, id {id}", key.path),
        None if key.state == "planned" => format!("{}: would be generated", key.path),
        None => format!("{}: exists, left unchanged", key.path),
    }
}
