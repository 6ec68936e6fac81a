//! The TOML document: its keys, their documentation, and their position in the text.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;
use toml::de::{DeTable, DeValue};

use crate::table::ConfigError;

pub mod jobs;

/// Largest configuration that is read, bytes: a thousand sources need about 200 KiB.
pub const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// The configuration of bkp.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(title = "bkp.toml")]
pub struct Document {
    /// Caches, the local lock and events that wait for the ledger; nothing that a restore needs.
    /// Default: `$STATE_DIRECTORY`, else `$XDG_STATE_HOME/bkp`, else `~/.local/state/bkp` (root:
    /// `/var/lib/bkp`).
    #[schemars(with = "Option<String>", extend("format" = "path"))]
    pub state_dir: Option<PathBuf>,
    /// Stores for backups, by name.
    #[schemars(with = "BTreeMap<String, StoreTable>")]
    pub store: BTreeMap<String, toml::Table>,
    /// Keys of the backups.
    pub keys: KeysTable,
    /// How long a run's lease of its job outlives the run if that dies: 2s to 1d, default 2m. A run
    /// renews it while it works.
    pub lease: Option<String>,
    /// The ledger in which every run is recorded. Without one, leases are objects in the store.
    pub ledger: Option<LedgerTable>,
    /// Programs that bkp starts.
    pub tools: ToolsTable,
    /// Sources to back up, by name.
    #[schemars(with = "BTreeMap<String, SourceTable>")]
    pub source: BTreeMap<String, toml::Table>,
    /// Scheduled jobs, by name.
    pub job: jobs::Jobs,
    /// How jobs are run.
    pub run: jobs::RunTable,
    /// Channels for notifications, by name.
    pub notify: jobs::Notify,
    /// What `cleanup` removes.
    pub cleanup: jobs::CleanupTable,
    /// Where `status` writes its metrics.
    pub status: jobs::StatusTable,
}

/// The keys that every store has.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StoreTable {
    /// Scheme and place: `file:///var/backups/bkp`, `s3://bucket/prefix`. The scheme decides which
    /// further keys there are.
    pub url: String,
    /// Which backups are kept in this store, instead of what each job says.
    #[serde(default)]
    pub retention: Option<jobs::RetentionTable>,
}

/// The keys of [`StoreTable`].
pub const STORE_KEYS: [&str; 2] = ["url", "retention"];

/// The recipients of backups.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KeysTable {
    /// Each is `file:PATH` or `passphrase:REFERENCE`, a REFERENCE being `file:PATH`, `env:NAME`,
    /// `credential:NAME` or `cmd:COMMAND`. Any one of them opens a backup.
    pub recipients: Vec<String>,
    /// The key that this host signs its backups with, as a REFERENCE. Needed where a recipient is a public key.
    pub signing_key: Option<String>,
    /// Whose signatures are believed besides one's own: `ed25519:BASE64`, as `bkp keys generate --signing` prints
    /// it.
    pub trust: Vec<String>,
    /// The age from which on `bkp status` and `bkp keys status` want a key replaced: 1d to 36525d, default 90d.
    pub max_age: Option<String>,
}

/// The ledger: a TigerBeetle cluster. One of its own is best, see bkp-ledger(7).
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LedgerTable {
    /// The cluster id, in decimal.
    pub cluster: String,
    /// Every replica, as `tigerbeetle start --addresses` takes them.
    pub addresses: Vec<String>,
    /// Whether a run fails before it starts while the ledger does not answer. Default: no, its
    /// event waits in the outbox and the run ends with exit 17.
    #[serde(default)]
    pub required: bool,
    /// The ledger number of all accounts and transfers. Default: 12.
    pub number: Option<u32>,
    /// Ids of accounts, in decimal, in place of those that follow from the ledger number:
    /// `operator`, and the vault of a backup type under the type's name.
    #[serde(default)]
    pub accounts: BTreeMap<String, String>,
    /// Timeout of requests to the ledger: 1s to 10m, default 10s.
    pub deadline: Option<String>,
}

/// Programs that bkp starts.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ToolsTable {
    /// The `tigerbeetle` binary that drills start. Default: the one in `PATH`.
    #[schemars(with = "Option<String>", extend("format" = "path"))]
    pub tigerbeetle: Option<PathBuf>,
    /// The folder with the programs of PostgreSQL that drills start. Default: where packages put them, then `PATH`.
    #[schemars(with = "Option<String>", extend("format" = "path"))]
    pub postgres: Option<PathBuf>,
}

/// The keys that every source has.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceTable {
    /// The kind of source; decides which further keys there are.
    pub kind: String,
    /// The name of the store its backups go to, or several names: then every run makes its backup
    /// in all of them, and commands that read take the first. Not needed if there is only one store.
    pub store: Option<Names>,
    /// Whose data it is, for a stack with several tenants: noted in manifests and in the table
    /// `backup_metadata`.
    pub tenant: Option<String>,
    /// Within which time it is to be restorable: `4h`. `bkp doctor` compares that with what storage classes take to
    /// thaw.
    pub rto: Option<String>,
    /// How its backups are compressed. Default: zstd.
    pub compression: Option<CompressionName>,
    /// The level of the compression: zstd 1 to 19 (default: what suits
    /// the kind of source; 1 for tigerbeetle), gzip 1 to 9 (default 6).
    pub level: Option<u8>,
}

/// One name, or several.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(untagged)]
pub enum Names {
    /// A string.
    One(String),
    /// An array of strings.
    Several(Vec<String>),
}

impl Names {
    /// The names, in order.
    #[must_use]
    pub fn list(self) -> Vec<String> {
        match self {
            Names::One(name) => vec![name],
            Names::Several(names) => names,
        }
    }
}

// By hand, since serde's derive for such enums loses which key an error is about.
impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Names, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Names;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a name or an array of names")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Names, E> {
                Ok(Names::One(name.to_owned()))
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, seq: A) -> Result<Names, A::Error> {
                let names = serde::de::value::SeqAccessDeserializer::new(seq);
                Vec::deserialize(names).map(Names::Several)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// The keys of [`SourceTable`].
pub const SOURCE_KEYS: [&str; 6] = ["kind", "store", "tenant", "rto", "compression", "level"];

/// How objects are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CompressionName {
    /// Independent zstd frames; the default.
    Zstd,
    /// gzip members, for compatibility.
    Gzip,
    /// No compression.
    None,
}

/// Reads the text of a configuration file.
///
/// # Errors
/// [`ConfigError::Unreadable`], and [`ConfigError::Invalid`] if it is longer than
/// [`CONFIG_BYTES_MAX`] or not UTF-8, or if others can write it.
pub fn read(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    super::exposure::check_writers(path, &file)?;
    file.take(CONFIG_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    let place = path.display().to_string();
    if bytes.len() as u64 > CONFIG_BYTES_MAX {
        let problem = format!("is longer than {CONFIG_BYTES_MAX} bytes");
        return Err(ConfigError::invalid(place, problem));
    }
    String::from_utf8(bytes).map_err(|_bytes| ConfigError::invalid(place, "is not valid UTF-8"))
}

/// Parses `text`, the content of `path`.
///
/// # Errors
/// [`ConfigError::Invalid`] with file and line. The line is not quoted: it could hold a secret.
pub fn parse(path: &Path, text: &str) -> Result<toml::Table, ConfigError> {
    text.parse::<toml::Table>().map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(text, span.start));
        let what = error.message().lines().collect::<Vec<_>>().join(", ");
        ConfigError::invalid(format!("{}:{line}", path.display()), format!("not TOML: {what}"))
    })
}

/// The line, counted from 1, where the key path `place` stands in `text`, or the innermost table
/// around it that does.
#[must_use]
pub fn line(text: &str, place: &str) -> Option<usize> {
    let root = DeTable::parse(text).ok()?;
    let mut table = root.get_ref();
    let mut found = None;
    for part in place.split('.') {
        let name = part.split_once('[').map_or(part, |(name, _index)| name);
        let Some((key, value)) = table.iter().find(|(key, _)| key.get_ref() == name) else {
            break;
        };
        found = Some(key.span().start);
        let DeValue::Table(inner) = value.get_ref() else {
            break;
        };
        table = inner;
    }
    found.map(|offset| line_of(text, offset))
}

fn line_of(text: &str, offset: usize) -> usize {
    text.get(..offset).unwrap_or(text).matches('\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "state_dir = 'x'\n\n[source.books]\nkind = 'k'\n# note\ndatafile = 1\n";

    #[test]
    fn keys_are_found_by_line() {
        assert_eq!(line(TEXT, "state_dir"), Some(1));
        assert_eq!(line(TEXT, "source.books.datafile"), Some(6));
        assert_eq!(line(TEXT, "source.books.missing"), Some(3));
        assert_eq!(line(TEXT, "nothing"), None);
    }

    #[test]
    fn a_syntax_error_names_the_line_and_quotes_nothing() {
        let error = parse(Path::new("f.toml"), "a = 1\npassword = hunter2\n").expect_err("invalid");
        let text = error.to_string();
        assert!(text.starts_with("f.toml:2: not TOML"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}
