//! `bkp keys generate`: new keys of every kind that bkp can make.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;

use crate::error::{Fault, Kind};
use crate::keys::{KeyError, age, file, signature};
use crate::ops::report::Report;
use crate::wire::AppContext;

/// What kind of key to generate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NewKey {
    /// A key file, which seals and opens backups.
    #[default]
    File,
    /// A signing key, for hosts that cannot open what they seal.
    Signing,
    /// A private key of age, for those who open it.
    Age,
}

/// What `bkp keys generate` was asked for.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Where to write a key; `None` means every file of that kind in the configuration that does
    /// not exist yet.
    pub path: Option<PathBuf>,
    /// What to write.
    pub kind: NewKey,
    /// Say what would be done, and do nothing.
    pub dry_run: bool,
}

/// The stable shape `bkp.keys/1`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Keys {
    keys: Vec<Key>,
}

/// A file with a key and what became of it.
#[derive(Debug, Serialize, JsonSchema)]
struct Key {
    path: String,
    kind: NewKey,
    /// `generated`, `exists` or `planned`.
    state: &'static str,
    /// Which key it is: of a signing key and one of age its public half.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
}

/// Generates keys. A file that exists is never overwritten: it may be the only thing that
/// opens somebody's backups.
///
/// # Errors
/// [`Kind::Config`] if no path is given and no file of that kind is configured; a
/// [`KeyError`] if a key cannot be written or PATH exists.
pub fn run(app: &AppContext, options: &Options) -> anyhow::Result<Report> {
    let mut keys = Vec::new();
    for (path, wanted) in plan(app, options)? {
        let (state, id) = match (wanted, options.dry_run) {
            (false, _) => ("exists", None),
            (true, true) => ("planned", None),
            (true, false) => ("generated", Some(generate(options.kind, &path)?)),
        };
        keys.push(Key { path: path.display().to_string(), kind: options.kind, state, id });
    }
    let mut text: Vec<String> = keys.iter().map(describe).collect();
    if keys.iter().any(|key| key.state == "generated") {
        text.push(advice(options.kind).to_owned());
    }
    Report::done("bkp.keys/1", &Keys { keys }, text.join("\n"))
}

fn generate(kind: NewKey, path: &std::path::Path) -> Result<String, KeyError> {
    match kind {
        NewKey::File => file::generate(path),
        NewKey::Signing => signature::generate(path).map(|id| id.to_string()),
        NewKey::Age => age::generate(path).map(|public| format!("age:{public}")),
    }
}

fn advice(kind: NewKey) -> &'static str {
    match kind {
        NewKey::File => {
            "Copy every key to a safe place apart from the backups: without one of them, no backup can be opened."
        }
        NewKey::Signing => {
            "Add the public key to `trust` under [keys] wherever these backups are restored, verified or cleaned up. The file stays on this host; if it is lost, generate another and trust that too."
        }
        NewKey::Age => {
            "Add the public key to `recipients` on the hosts that make backups. Move the file away from them, and copy it to a safe place: without it, no backup can be opened."
        }
    }
}

/// The files concerned, and whether each is to be written.
fn plan(app: &AppContext, options: &Options) -> anyhow::Result<Vec<(PathBuf, bool)>> {
    if let Some(path) = &options.path {
        return Ok(vec![(path.clone(), true)]);
    }
    let (settings, hint) = (&app.settings, "pass a PATH, or add ");
    let below = |prefix: &str| -> Vec<PathBuf> {
        let texts = settings.recipients.iter().filter_map(|text| text.strip_prefix(prefix));
        texts.map(PathBuf::from).collect()
    };
    let (files, what, hint) = match options.kind {
        NewKey::File => (
            below("file:"),
            "no key file",
            format!("{hint}`recipients = [\"file:/etc/bkp/key\"]` under [keys]"),
        ),
        NewKey::Signing => {
            let configured = settings.signing_key.iter();
            let files = configured.filter_map(|text| text.strip_prefix("file:"));
            (
                files.map(PathBuf::from).collect(),
                "no file with a signing key",
                format!("{hint}`signing_key = \"file:/etc/bkp/signing.key\"` under [keys]"),
            )
        }
        NewKey::Age => (
            below("age:file:"),
            "no file with a private key of age",
            "pass a PATH, apart from the hosts that make backups".to_owned(),
        ),
    };
    if files.is_empty() {
        return Err(Fault::new(Kind::Config, format!("{what} is configured")).hint(hint).into());
    }
    let missing = |path: PathBuf| {
        // A dangling link is something too: writing through it would be a surprise.
        let there = path.symlink_metadata().is_ok();
        (path, !there)
    };
    Ok(files.into_iter().map(missing).collect())
}

fn describe(key: &Key) -> String {
    let what = match key.kind {
        NewKey::File => "id",
        NewKey::Signing | NewKey::Age => "public key",
    };
    match &key.id {
        Some(id) => format!("{}: generated, {what} {id}", key.path),
        None if key.state == "planned" => format!("{}: would be generated", key.path),
        None => format!("{}: exists, left unchanged", key.path),
    }
}
