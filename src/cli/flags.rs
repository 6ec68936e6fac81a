//! Flags that several subcommands share.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::config::settings::Flags;
use crate::domain::thaw::ThawSpeed;
use crate::ops::selection::Select;
use crate::ops::thaw::ThawOptions;
use crate::table::units;
use crate::wire::AppContext;

/// The flags of every subcommand.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct GlobalArgs {
    // A plain attribute, because the names of variables would need quotes in a doc comment.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        help = "Configuration file [default: $BKP_CONFIG, $XDG_CONFIG_HOME/bkp/bkp.toml, /etc/bkp/bkp.toml]"
    )]
    config: Option<PathBuf>,

    #[arg(
        long,
        global = true,
        value_name = "NAME|URL",
        help = "Store, by name or URL; repeatable when making a backup [default: $BKP_STORE, the stores of the source, or the only one]",
        action = ArgAction::Append
    )]
    store: Vec<String>,

    #[arg(long = "key", global = true, value_name = "REFERENCE",
        help = "Key to use instead of the configured recipients; repeatable [default: $BKP_KEY]"
    , action = ArgAction::Append)]
    keys: Vec<String>,

    #[arg(long, global = true, value_name = "SIGNER",
        help = "Public signing key whose backups are trusted, besides those of the configuration; repeatable"
    , action = ArgAction::Append)]
    trust: Vec<String>,

    #[arg(
        long = "with-keyset",
        global = true,
        value_name = "FILE",
        help = "Restored key set: open backups with the data keys in it, for which --key is the recovery key"
    )]
    key_set: Option<PathBuf>,

    /// Print one JSON object; errors go to standard error as JSON
    #[arg(long, global = true)]
    pub(super) json: bool,

    /// Print only results, warnings and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(super) quiet: bool,

    /// Print more detail; repeatable
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(super) verbose: u8,
}

/// How objects in an archive are brought back.
#[derive(Debug, Clone, Args)]
pub(super) struct ThawArgs {
    // A plain attribute, because the name of a class would need quotes in a doc comment.
    #[arg(long, help = "Tier at which objects in GLACIER or DEEP_ARCHIVE are restored: Bulk, Standard or Expedited", value_name = "TIER", default_value_t = ThawSpeed::Standard, value_parser = thaw_speed)]
    tier: ThawSpeed,

    /// Days for which such objects stay readable
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=365))]
    thaw_days: u32,
}

impl ThawArgs {
    pub(super) fn options(&self, wait: bool) -> ThawOptions {
        ThawOptions { speed: self.tier, days: self.thaw_days, wait }
    }
}

fn thaw_speed(text: &str) -> Result<ThawSpeed, String> {
    let found = ThawSpeed::ALL.into_iter().find(|speed| speed.name().eq_ignore_ascii_case(text));
    found.ok_or_else(|| format!("one of {}", ThawSpeed::ALL.map(ThawSpeed::name).join(", ")))
}

impl GlobalArgs {
    pub(super) fn flags(&self) -> Flags {
        let GlobalArgs { config, store, keys, trust, key_set, .. } = self;
        Flags {
            config: config.clone(),
            store: store.clone(),
            keys: keys.clone(),
            trust: trust.clone(),
            key_set: key_set.clone(),
        }
    }
}

/// The moment as of which a store is read.
#[derive(Debug, Args)]
pub(super) struct StoreAtArgs {
    /// Read the bucket as it was at this time, such as 2026-11-21T02:00:00Z; it must have versioning. For
    /// the day after somebody overwrote or deleted backups; writes nothing to the store
    #[arg(long, value_name = "TIME", value_parser = time_of)]
    store_at: Option<OffsetDateTime>,
}

impl StoreAtArgs {
    /// What commands work with, with stores as they were at that moment.
    pub(super) fn of(&self, app: &AppContext) -> AppContext {
        app.as_of(self.store_at)
    }
}

/// A moment to restore a source to.
#[derive(Debug, Clone, Copy)]
pub(super) enum AtArg {
    /// A point in time.
    Time(OffsetDateTime),
    /// The end of the shipped log.
    Latest,
}

fn moment_of(text: &str) -> Result<AtArg, String> {
    if text == "latest" { Ok(AtArg::Latest) } else { time_of(text).map(AtArg::Time) }
}

/// Selects a backup.
#[derive(Debug, Args)]
#[group(id = "backup", required = true, multiple = true, args = ["source", "latest", "id"])]
pub(super) struct SelectArgs {
    /// Source; its newest backup is used unless --id or --at is given
    #[arg(value_name = "SOURCE")]
    source: Option<String>,

    /// Newest backup of this source
    #[arg(long, value_name = "SOURCE", conflicts_with_all = ["source", "id", "at"])]
    latest: Option<String>,

    /// Backup id, or a unique prefix of it
    #[arg(long, value_name = "ID", conflicts_with = "at")]
    id: Option<String>,

    /// Newest backup of SOURCE that started no later than this, such as 2026-11-21T02:00:00Z; if SOURCE
    /// has a log, restore rolls it forward to that moment, or with `latest` to the end of the shipped log
    #[arg(long, value_name = "TIME", requires = "source", value_parser = moment_of)]
    at: Option<AtArg>,
}

impl SelectArgs {
    pub(super) fn source(self) -> Option<String> {
        self.source
    }

    /// The source, if no backup of it was chosen by its id.
    pub(super) fn source_alone(&self) -> Option<&str> {
        self.source.as_deref().filter(|_source| self.id.is_none())
    }

    /// The moment that was chosen.
    pub(super) fn at(&self) -> Option<AtArg> {
        self.at
    }
}

impl From<SelectArgs> for Select {
    fn from(args: SelectArgs) -> Select {
        let SelectArgs { source, latest, id, at } = args;
        match (source.or(latest), id, at) {
            (Some(source), Some(id), _) => Select::IdOf(source, id),
            (None, id, _) => Select::Id(id.unwrap_or_default()),
            (Some(source), None, Some(AtArg::Time(at))) => Select::At(source, at),
            (Some(source), None, Some(AtArg::Latest) | None) => Select::Latest(source),
        }
    }
}

/// How long to wait for another run.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct WaitArgs {
    /// Wait up to this long for a conflicting run to end, such as 10m [default: do not wait]
    #[arg(long, value_name = "DURATION", value_parser = duration_of)]
    wait_lock: Option<Duration>,
}

impl WaitArgs {
    pub(super) fn patience(self) -> Duration {
        self.wait_lock.unwrap_or_default()
    }
}

fn duration_of(text: &str) -> Result<Duration, String> {
    units::duration("--wait-lock", text, 0, 7 * 86_400).map_err(|error| error.to_string())
}

pub(super) fn time_of(text: &str) -> Result<OffsetDateTime, String> {
    let wrong =
        |_parse| "expected RFC 3339 with a time zone, such as 2026-11-21T02:00:00Z".to_owned();
    OffsetDateTime::parse(text, &Rfc3339).map_err(wrong)
}
