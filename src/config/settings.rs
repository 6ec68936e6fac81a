//! The resolved configuration: finding the file, defaults, and checks that types cannot express.
//!
//! A value of the command line wins over one of the environment, that over one of the file, that
//! over a default; [`Provenance`] remembers which it was.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use time::OffsetDateTime;

use super::environment::Environment;
use super::exposure::is_public;
use super::file::{self, Document};
use crate::domain::manifest::Trigger;
use crate::keys::signature::SignerId;
use crate::ledger::LedgerSettings;
use crate::table::units::duration;
use crate::table::{ConfigError, join, parse_table};

mod adapter;
mod check;
pub mod jobs;
mod keys;
mod ledger;
mod new_file;
pub mod notifications;
mod secrets;
mod sources;
mod stores;

pub use self::adapter::{SourceSettings, StoreSettings};

/// How long a lease outlives a run that died, where the configuration does not say.
const LEASE: Duration = Duration::from_mins(2);
/// The shortest and the longest lease, seconds: one that is renewed within a second, and the
/// longest that an operator should have to wait for a dead run.
const LEASE_SECONDS: (u64, u64) = (2, 86_400);

/// What commands get to see of the configuration.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The file it came from, if there was one.
    pub file: Option<PathBuf>,
    /// Caches and the local lock; never anything that a restore needs.
    pub state_dir: PathBuf,
    /// The stores given on the command line, each a name or a URL.
    pub store: Vec<String>,
    /// The moment as of which stores are read, if it is not now.
    pub store_at: Option<OffsetDateTime>,
    /// Configured stores by name.
    pub stores: BTreeMap<String, StoreSettings>,
    /// Recipients as written: `file:PATH`, `passphrase:REFERENCE`. Those of the command line
    /// replace those of the file.
    pub recipients: Vec<String>,
    /// Those of the file, whatever the command line says: what is sealed anew is for them.
    pub recipients_of_file: Vec<String>,
    /// A reference to the key that this host signs with.
    pub signing_key: Option<String>,
    /// Whose signatures are believed besides those of this host.
    pub trust: Vec<SignerId>,
    /// A file with data keys of backups, wrapped for a recovery recipient.
    pub key_set: Option<PathBuf>,
    /// The age from which on a key is to be replaced; `None` for the usual one.
    pub key_max_age: Option<Duration>,
    /// Configured sources by name.
    pub sources: BTreeMap<String, SourceSettings>,
    /// How long a lease outlives a run that died.
    pub lease: Duration,
    /// The ledger, if there is one.
    pub ledger: Option<LedgerSettings>,
    /// Jobs by name.
    pub jobs: BTreeMap<String, jobs::JobSettings>,
    /// Channels for notifications.
    pub notify: Vec<notifications::NotifySettings>,
    /// What `run` and `cleanup` do besides.
    pub upkeep: jobs::Upkeep,
    /// What `status` writes and compares with.
    pub status: notifications::StatusSettings,
    /// The program that runs, which `run` starts again for every job.
    pub program: Option<PathBuf>,
    /// The `tigerbeetle` program for drills; `None` searches `PATH`.
    pub tigerbeetle: Option<PathBuf>,
    /// The folder of PostgreSQL's programs for drills; `None` looks where packages put them.
    pub postgres: Option<PathBuf>,
    /// What started this run.
    pub started_by: StartedBy,
    /// Where all this came from.
    pub provenance: Provenance,
}

/// What started a run, for the record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StartedBy {
    /// The job whose run it is.
    pub job: Option<String>,
    /// What started the run.
    pub trigger: Trigger,
}

/// Where the settings came from.
#[derive(Debug, Clone, Default)]
pub struct Provenance {
    /// Key path to origin, for every setting that is not a default.
    pub origins: BTreeMap<String, Origin>,
    /// The places where a configuration file was looked for, in order.
    pub looked: Vec<String>,
    /// What an operator should know although the configuration is valid.
    pub warnings: Vec<String>,
}

impl Provenance {
    /// Where the setting at this key path came from.
    #[must_use]
    pub fn of(&self, path: &str) -> Origin {
        self.origins.get(path).copied().unwrap_or(Origin::Default)
    }
}

/// Where a value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The command line.
    Flag,
    /// An environment variable.
    Environment,
    /// The configuration file.
    File,
    /// Nobody said anything else.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Origin::Flag => "flag",
            Origin::Environment => "environment",
            Origin::File => "file",
            Origin::Default => "default",
        })
    }
}

/// What the command line says about the configuration.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--store`, in the order given.
    pub store: Vec<String>,
    /// `--key`, in the order given.
    pub keys: Vec<String>,
    /// `--trust`, in the order given.
    pub trust: Vec<String>,
    /// `--with-keyset`.
    pub key_set: Option<PathBuf>,
}

impl Settings {
    /// Whether there is anything that a manifest can be authenticated with, the ledger apart.
    #[must_use]
    pub fn has_witness(&self) -> bool {
        !self.recipients.is_empty() || !self.trust.is_empty() || self.signing_key.is_some()
    }

    /// Finds and reads the configuration. Without any file there are only defaults, flags and
    /// environment: enough to list, verify and restore on a machine that has never seen bkp.
    ///
    /// # Errors
    /// [`ConfigError`] if a named file cannot be read or anything in it is not valid.
    pub fn load(flags: &Flags, environment: &Environment) -> Result<Settings, ConfigError> {
        let (found, looked) = find(flags, environment)?;
        let mut settings = match found {
            Some(path) => {
                let text = file::read(&path)?;
                from_text(&path, &text).map_err(|error| with_location(error, &path, &text))?
            }
            None => Settings::default(),
        };
        settings.provenance.looked = looked;
        settings.program.clone_from(&environment.program);
        settings.started_by = started_by(environment)?;
        settings.apply_overrides(flags, environment)?;
        Ok(settings)
    }

    /// Applies what flags and environment say over what the file said.
    fn apply_overrides(
        &mut self,
        flags: &Flags,
        environment: &Environment,
    ) -> Result<(), ConfigError> {
        self.recipients_of_file.clone_from(&self.recipients);
        let origins = &mut self.provenance.origins;
        if !flags.store.is_empty() {
            flags.store.iter().try_for_each(|store| check::store_choice("--store", store))?;
            check::check_unique("--store", &flags.store)?;
            origins.insert("store".into(), Origin::Flag);
            self.store.clone_from(&flags.store);
        } else if let Some(store) = environment.text("BKP_STORE")? {
            check::store_choice("$BKP_STORE", &store)?;
            origins.insert("store".into(), Origin::Environment);
            self.store = vec![store];
        }
        if !flags.keys.is_empty() {
            flags.keys.iter().try_for_each(|key| check::recipient("--key", key))?;
            origins.insert("keys.recipients".into(), Origin::Flag);
            self.recipients.clone_from(&flags.keys);
        } else if let Some(key) = environment.text("BKP_KEY")? {
            check::recipient("$BKP_KEY", &key)?;
            origins.insert("keys.recipients".into(), Origin::Environment);
            self.recipients = vec![key];
        }
        if !flags.trust.is_empty() {
            origins.insert("keys.trust".into(), Origin::Flag);
            self.trust.extend(keys::signers("--trust", &flags.trust)?);
        }
        self.key_set.clone_from(&flags.key_set);
        if self.lease.is_zero() {
            self.lease = LEASE;
        }
        if self.state_dir.as_os_str().is_empty() {
            let (folder, origin) = default_state_dir(environment)?;
            origins.insert("state_dir".into(), origin);
            self.state_dir = folder;
        }
        Ok(())
    }
}

/// What the environment says of how this run came about: `bkp run` tells its children.
fn started_by(environment: &Environment) -> Result<StartedBy, ConfigError> {
    let trigger = environment.text("BKP_TRIGGER")?.map(|word| {
        let invalid =
            |()| ConfigError::invalid("$BKP_TRIGGER", format!("`{word}` is not a trigger"));
        word.parse().map_err(invalid).map_err(|error: ConfigError| {
            error.suggest("unset it, or use manual, scheduled or hook")
        })
    });
    let job = environment.text("BKP_JOB")?;
    job.iter().try_for_each(|job| check::name("$BKP_JOB", job))?;
    Ok(StartedBy { job, trigger: trigger.transpose()?.unwrap_or_default() })
}

/// The file to read, and the places that were looked at. A file that was named must be there.
fn find(
    flags: &Flags,
    environment: &Environment,
) -> Result<(Option<PathBuf>, Vec<String>), ConfigError> {
    if let Some(path) = named(flags, environment)? {
        let looked = vec![path.display().to_string()];
        return Ok((Some(path), looked));
    }
    let places = places(environment);
    let looked = places.iter().map(|path| path.display().to_string()).collect();
    for path in places {
        // A file that is there and cannot be looked at is an error, not an absent file: going on
        // with another configuration would be a surprise.
        match path.try_exists() {
            Ok(true) => return Ok((Some(path), looked)),
            Ok(false) => {}
            Err(source) => return Err(ConfigError::Unreadable { path, source }),
        }
    }
    Ok((None, looked))
}

/// The file that was named.
fn named(flags: &Flags, environment: &Environment) -> Result<Option<PathBuf>, ConfigError> {
    match &flags.config {
        Some(path) => Ok(Some(path.clone())),
        None => Ok(environment.text("BKP_CONFIG")?.map(PathBuf::from)),
    }
}

/// The configuration of the whole machine.
pub const MACHINE_FILE: &str = "/etc/bkp/bkp.toml";

/// Where a file is looked for that was not named; the last one is that of the whole machine.
fn places(environment: &Environment) -> Vec<PathBuf> {
    let home = || environment.base("HOME").map(|home| home.join(".config"));
    let personal = environment.base("XDG_CONFIG_HOME").or_else(home);
    let personal = personal.map(|folder| folder.join("bkp/bkp.toml"));
    personal.into_iter().chain([PathBuf::from(MACHINE_FILE)]).collect()
}

fn default_state_dir(environment: &Environment) -> Result<(PathBuf, Origin), ConfigError> {
    if let Some(folder) = environment.state_directory() {
        return Ok((folder, Origin::Environment));
    }
    if let Some(folder) = environment.base("XDG_STATE_HOME") {
        return Ok((folder.join("bkp"), Origin::Environment));
    }
    if environment.root {
        return Ok((PathBuf::from("/var/lib/bkp"), Origin::Default));
    }
    let home = environment.base("HOME").ok_or_else(|| {
        ConfigError::invalid("state_dir", "no default: HOME is not set")
            .suggest("set `state_dir` in the configuration, or $STATE_DIRECTORY")
    })?;
    Ok((home.join(".local/state/bkp"), Origin::Default))
}

/// The settings that the file alone makes. Places of errors are key paths.
fn from_text(path: &Path, text: &str) -> Result<Settings, ConfigError> {
    let table = file::parse(path, text)?;
    let mut provenance = Provenance::default();
    note_origins(&table, "", &mut provenance.origins);
    let document: Document = parse_table("", table)?;
    let folder = std::path::absolute(path).ok().and_then(|path| path.parent().map(Path::to_owned));
    let folder = folder.unwrap_or_default();

    let mut stores = BTreeMap::new();
    for (name, table) in document.store {
        check::name("store", &name)?;
        let store = stores::open(&name, table, &folder)?;
        stores::check_other(&store.place, &stores)?;
        stores.insert(name, store);
    }
    let keys::Keys { recipients, signing_key, trust, max_age } =
        keys::open(document.keys, &folder)?;
    let mut sources = BTreeMap::new();
    for (name, table) in document.source {
        check::name("source", &name)?;
        let source = sources::open(&name, table, &stores, &folder)?;
        sources.insert(name, source);
    }
    sources::check_key_sets(&sources)?;
    let mut jobs = jobs::open(document.job, (&sources, &stores))?;
    for job in jobs.values_mut() {
        job.ping = job.ping.take().map(|url| check::resolve_path(&url, &folder));
    }
    let upkeep = jobs::upkeep(&document.run, &document.cleanup)?;
    jobs::check_ages(&upkeep, &jobs)?;
    let status =
        notifications::status(document.status, &folder, stores.keys().map(String::as_str))?;
    let settings = Settings {
        file: Some(path.to_owned()),
        state_dir: document.state_dir.map(|path| folder.join(path)).unwrap_or_default(),
        store_at: None,
        store: Vec::new(),
        stores,
        recipients,
        recipients_of_file: Vec::new(),
        signing_key,
        trust,
        key_set: None,
        key_max_age: max_age,
        sources,
        jobs,
        lease: match document.lease {
            Some(text) => duration("lease", &text, LEASE_SECONDS.0, LEASE_SECONDS.1)?,
            None => LEASE,
        },
        ledger: document.ledger.map(ledger::open).transpose()?,
        upkeep,
        status,
        notify: notifications::notify(document.notify, &folder)?,
        program: None,
        tigerbeetle: document.tools.tigerbeetle.map(|path| folder.join(path)),
        postgres: document.tools.postgres.map(|path| folder.join(path)),
        started_by: StartedBy::default(),
        provenance,
    };
    if is_public(path) {
        settings.check_literals()?;
    }
    Ok(settings)
}

/// Notes every leaf of the file's tables under its key path.
fn note_origins(table: &toml::Table, place: &str, origins: &mut BTreeMap<String, Origin>) {
    for (key, value) in table {
        let path = join(place, key);
        if let toml::Value::Table(inner) = value {
            note_origins(inner, &path, origins);
        } else {
            origins.insert(path, Origin::File);
        }
    }
}

/// Puts file and line before the key path of an error.
fn with_location(error: ConfigError, path: &Path, text: &str) -> ConfigError {
    match error {
        ConfigError::Invalid { place, problem, hint } => {
            let file = path.display().to_string();
            let place = match file::line(text, &place) {
                // A syntax error has its line already.
                _ if place.starts_with(&file) => place,
                Some(line) => format!("{file}:{line}: {place}"),
                None => format!("{file}: {place}"),
            };
            ConfigError::Invalid { place, problem, hint }
        }
        other @ (ConfigError::Unreadable { .. } | ConfigError::Missing { .. }) => other,
    }
}

#[cfg(test)]
mod tests;
