//! The tables about scheduled work: jobs, their retention, and `cleanup`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

/// A job: a command and its schedule.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct JobTable {
    /// The command: `snapshot`, `export`, `replicate`, `logs`, `verify` or `cleanup`.
    #[schemars(required)]
    pub run: String,
    /// The source it is about. `cleanup` needs none, and `replicate` with a store copies all of them then.
    pub source: Option<String>,
    /// For `replicate`: the store to copy to.
    pub to: Option<String>,
    /// For `replicate` with `to`: the store to copy from. Default: another store of the source, else the only
    /// other store.
    pub from: Option<String>,
    /// How long after the beginning of its last run it runs again, for instance `6h`. Default:
    /// snapshot 6h (DuckDB 24h, with scope incremental 6h), logs 15m, replicate to a store 1h, verify and
    /// cleanup 24h.
    pub every: Option<String>,
    /// The times it runs, in place of `every`: `daily at 03:00`, `weekly on sunday at 03:00`,
    /// `monthly on 1 at 03:00`, `hourly`, or five cron fields; then optionally a time zone.
    pub at: Option<String>,
    /// The time zone of `at` and of the days and weeks of `retention`. Default: UTC.
    pub zone: Option<String>,
    /// Whether the job is enabled. Default: yes.
    pub enabled: Option<bool>,
    /// Longest delay of its start, to spread hosts; always the same on one host. Default: 0s.
    pub jitter: Option<String>,
    /// How often a failed run is retried before the next regular time: 0 to 20, default 2.
    pub retries: Option<u32>,
    /// Delay of the first retry; doubles with each further failure. Default: 5m.
    pub retry_after: Option<String>,
    /// How long a run may take before it is killed. Default: 24h.
    pub timeout: Option<String>,
    /// Jobs that run before it if they are due at the same time; it waits if one of them failed.
    pub after: Vec<String>,
    /// For `snapshot` and `export`: full, incremental, differential or auto. Default: auto for
    /// snapshots, full for exports.
    pub scope: Option<String>,
    /// For `verify`: exists, digest, decode or drill. Default: digest.
    pub level: Option<String>,
    /// For `verify`: check every backup of the source instead of the newest one. Default: no.
    pub all: bool,
    /// For `verify`: the newest export of the source, and not the newest of its other backups. Default:
    /// no.
    pub from_export: bool,
    /// For `verify`: the log of the source, that no segment is missing and every one reads; with level drill a
    /// moment of it is restored and its server started. Default: no.
    pub logs: bool,
    /// Age of the last successful run from which `status` warns. Default: four intervals, at most 24h
    /// but at least one and a half intervals.
    pub warn_after: Option<String>,
    /// Age from which that is critical, and cleanup removes nothing. Default: twice that,
    /// 48h for a job of every six hours.
    pub critical_after: Option<String>,
    /// Which of its backups are kept. Default: TigerBeetle 365 days, others 90 days, and whatever their
    /// age the newest 30.
    pub retention: Option<RetentionTable>,
    /// For `logs`: from how long ago on any moment is to be restorable. Segments in wal mode that are only
    /// needed for earlier ones are removed, and snapshots that are needed stay. Default: for ever.
    pub keep_log: Option<String>,
    /// A URL, or a reference to a secret that is one, that is told when it begins (`/start`) and how it
    /// ended (`/EXIT CODE`), as healthchecks services understand it.
    pub ping: Option<String>,
    /// Hooks: programs that run around it.
    pub hooks: HooksTable,
}

/// Programs around a run, each a list of words. Each gets a JSON object on its standard input.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HooksTable {
    /// Before the run; if it fails, the run does not start and counts as failed.
    pub before: Vec<String>,
    /// After a successful run.
    pub after: Vec<String>,
    /// After a failed run.
    pub failed: Vec<String>,
    /// At the end of every run, whatever its outcome.
    pub finally: Vec<String>,
    /// Timeout of each hook. Default: 1m.
    pub timeout: Option<String>,
}

/// A channel for notifications: that something is wrong, or has recovered.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NotifyTable {
    /// `webhook`, `slack` or `email`.
    #[schemars(required)]
    pub kind: String,
    /// The lowest level to notify: `info`, `warning` (default) or `critical`.
    pub level: Option<String>,
    /// Where: `https://…`, for e-mail `smtp://host:25`, `smtp://host:587?tls=required` or
    /// `smtps://host`; or a reference to a secret that is a URL, `file:PATH` for instance.
    #[schemars(required)]
    pub url: String,
    /// For e-mail: the sender.
    pub from: String,
    /// For e-mail: the recipients.
    pub to: Vec<String>,
    /// For e-mail: the user name, if the server requires a login.
    pub user: String,
    /// For e-mail: a reference to the password.
    pub password: String,
}

/// Retention. Only complete backups count, and periods without one are ignored.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetentionTable {
    /// Keep every backup.
    pub keep_all: bool,
    /// Keep every backup younger than this, for example `90d`.
    pub keep_within: Option<String>,
    /// Keep this many of the newest.
    pub keep_last: u32,
    /// The newest of so many hours.
    pub keep_hourly: u32,
    /// The newest of so many days.
    pub keep_daily: u32,
    /// The newest of so many weeks, which begin on Monday.
    pub keep_weekly: u32,
    /// The newest of so many months.
    pub keep_monthly: u32,
    /// The newest of so many years.
    pub keep_yearly: u32,
    /// Never fewer than so many. Default: 3.
    pub min_keep: Option<u32>,
    /// At most this share is removed at once, in percent: 1 to 100, default 50.
    pub max_removed_percent: Option<u8>,
}

/// How `bkp run` runs jobs.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RunTable {
    /// How many jobs run at the same time: 1 to 64, default 2.
    pub parallel: Option<u32>,
    /// After how long what is still wrong is told again. Default: 24h.
    pub remind_after: Option<String>,
}

/// What `bkp cleanup` removes besides old backups.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CleanupTable {
    /// From which age on objects that belong to no backup, uploads that nobody finished and leases
    /// that have ended are removed: at least 24h, default 7d.
    pub orphan_age: Option<String>,
    /// For how long the records of runs are kept. Default: 400d.
    pub records: Option<String>,
}

/// Where `bkp status` writes to.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StatusTable {
    /// A file for Prometheus' textfile collector, written after every `run` and `status`.
    #[schemars(with = "Option<String>", extend("format" = "path"))]
    pub metrics_file: Option<PathBuf>,
    /// How much of the file system of a store in a folder should be free, percent: below it `status`
    /// warns, below a quarter of it that is critical. Default: 20.
    pub min_free_percent: Option<u8>,
    /// How much each store may hold, by its name: `500GiB`. From 80 % on `status` warns.
    pub quota: BTreeMap<String, String>,
    /// What a GiB costs per month, by storage class, in place of the public prices of S3 in US dollars;
    /// `LOCAL` is the class of a folder.
    pub prices: BTreeMap<String, f64>,
}

/// Where news goes, by name.
pub type Notify = BTreeMap<String, NotifyTable>;

/// The jobs, by name.
pub type Jobs = BTreeMap<String, JobTable>;
