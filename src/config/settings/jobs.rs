//! The resolved tables about scheduled work.

use std::collections::BTreeMap;
use std::time::Duration;

use super::adapter::{SourceSettings, StoreSettings};
use super::check::{self, unknown};
use crate::config::file::jobs::{HooksTable, JobTable, Jobs};
use crate::domain::calendar::TimeZone;
use crate::domain::names::{BackupType, Scope};
use crate::domain::schedule::{Retries, ScheduleError, When, zone_named};
use crate::domain::verify_level::VerifyLevel;
use crate::notify::check_url;
use crate::source::kinds;
use crate::table::ConfigError;
use crate::table::join;
use crate::table::units::duration;

mod job;
pub(super) mod keep;
mod upkeep;

pub use self::job::{CopySettings, Hooks, JobKind, JobSettings, VerifySelection};
use self::job::{DAY, HOUR, LONGEST};
use self::keep::retention;
pub use upkeep::Upkeep;
pub(super) use upkeep::{check_ages, upkeep};

const WEB: [&str; 2] = ["https", "http"];

/// Checks every `[job.NAME]` table.
pub(super) fn open(
    jobs: Jobs,
    (sources, stores): (&BTreeMap<String, SourceSettings>, &BTreeMap<String, StoreSettings>),
) -> Result<BTreeMap<String, JobSettings>, ConfigError> {
    let mut opened = BTreeMap::new();
    for (name, table) in jobs {
        check::name("job", &name)?;
        let job = job(&name, table, (sources, stores))?;
        opened.insert(name, job);
    }
    for job in opened.values() {
        for (index, other) in job.after.iter().enumerate() {
            if !opened.contains_key(other) {
                let place = format!("job.{}.after[{index}]", job.name);
                return Err(unknown(place, "job", other, opened.keys().map(String::as_str)));
            }
        }
        if reaches(&opened, &job.name, &job.name, opened.len()) {
            let place = format!("job.{}.after", job.name);
            return Err(ConfigError::invalid(place, "the job depends on itself"));
        }
    }
    Ok(opened)
}

/// Whether following `after` from `from` leads to `to` within so many steps.
fn reaches(jobs: &BTreeMap<String, JobSettings>, from: &str, to: &str, steps: usize) -> bool {
    let after = jobs.get(from).map(|job| job.after.as_slice()).unwrap_or_default();
    steps > 0 && after.iter().any(|next| next == to || reaches(jobs, next, to, steps - 1))
}

fn job(
    name: &str,
    table: JobTable,
    (sources, stores): (&BTreeMap<String, SourceSettings>, &BTreeMap<String, StoreSettings>),
) -> Result<JobSettings, ConfigError> {
    let place = join("job", name);
    let at = |key: &str| join(&place, key);
    let words = JobKind::ALL.iter().map(|kind| kind.word());
    let run = JobKind::ALL.into_iter().find(|kind| kind.word() == table.run);
    let run = run.ok_or_else(|| unknown(at("run"), "command", &table.run, words))?;
    let copies = copies(&place, run, &table, stores)?;
    let run = if copies.is_some() { JobKind::Copy } else { run };
    let source = source(&place, run, table.source.as_deref(), sources)?;
    let auto_scope = table.scope.as_deref() == Some("auto") && run.makes().is_some();
    let word = table.scope.as_deref().filter(|_word| !auto_scope);
    let named = word.map(|word| scope(&at("scope"), run, word)).transpose()?;
    // From here on an omitted key is its default, whoever looks at the job.
    let scope = named.or(run.scope().filter(|_scope| !auto_scope));
    let verify_selection = for_verify(&place, run, &table)?;
    let level = table.level.as_deref().map(|word| level(&at("level"), word)).transpose()?;
    let zone = match &table.zone {
        Some(name) => zone_named(name).map_err(|problem| wrong(at("zone"), problem))?,
        None => TimeZone::UTC,
    };
    let of = |key: &str, text: &Option<String>, least: u64| {
        text.as_ref().map(|text| duration(&at(key), text, least, LONGEST)).transpose()
    };
    let backup_type = source.map(|source| source.backup_type);
    let every = of("every", &table.every, 1)?;
    let usual = || default_interval(run, backup_type, scope);
    let when = when(&at("at"), (every, table.at.as_deref()), &zone, usual)?;
    let retries = table.retries.unwrap_or(2);
    if retries > 20 {
        return Err(ConfigError::invalid(at("retries"), format!("{retries} is more than 20")));
    }
    let pause = of("retry_after", &table.retry_after, 1)?.unwrap_or(Duration::from_mins(5));
    let (warn_after, critical_after) =
        (of("warn_after", &table.warn_after, 1)?, of("critical_after", &table.critical_after, 1)?);
    let retention = retention(&place, run, table.retention.as_ref(), backup_type, zone)?;
    if let Some(problem) = table.ping.as_deref().and_then(|url| check_url(url, &WEB).err()) {
        return Err(ConfigError::invalid(at("ping"), problem));
    }
    let hooks = hooks(&at("hooks"), table.hooks)?;
    let keep_log = of("keep_log", &table.keep_log, DAY)?;
    if keep_log.is_some() && run != JobKind::Logs {
        let problem = format!("`{}` does not ship a log", run.word());
        return Err(ConfigError::invalid(at("keep_log"), problem));
    }
    Ok(JobSettings {
        name: name.to_owned(),
        run,
        copies,
        source: table.source,
        backup_type,
        scope,
        level: level.or(run.level()),
        auto_scope,
        verify_selection,
        when,
        enabled: table.enabled.unwrap_or(true),
        jitter: of("jitter", &table.jitter, 0)?.unwrap_or_default(),
        retries: Retries { count: retries, pause },
        timeout: of("timeout", &table.timeout, 1)?.unwrap_or(Duration::from_secs(DAY)),
        after: table.after,
        warn_after,
        critical_after,
        retention,
        keep_log,
        ping: table.ping,
        hooks,
    })
}

/// When a job is due: every so often, at times, or as often as is usual.
fn when(
    place: &str,
    (every, at): (Option<Duration>, Option<&str>),
    zone: &TimeZone,
    usual: impl FnOnce() -> Duration,
) -> Result<When, ConfigError> {
    match (every, at) {
        (Some(_), Some(_)) => {
            let error = ConfigError::invalid(place, "`every` is set as well");
            Err(error.suggest("keep one of them"))
        }
        (None, Some(text)) => {
            When::at(text, zone).map_err(|problem| wrong(place.to_owned(), problem))
        }
        (every, None) => Ok(When::Every(every.unwrap_or_else(usual))),
    }
}

/// Checks what only copying between stores has; nothing for another job.
fn copies(
    place: &str,
    run: JobKind,
    table: &JobTable,
    stores: &BTreeMap<String, StoreSettings>,
) -> Result<Option<CopySettings>, ConfigError> {
    let given = [("to", &table.to), ("from", &table.from)];
    for (key, store) in given.into_iter().filter_map(|(key, store)| Some((key, store.as_ref()?))) {
        let at = join(place, key);
        if run != JobKind::Replicate {
            let problem = format!("only valid for `replicate`; this job runs `{}`", run.word());
            return Err(ConfigError::invalid(at, problem).suggest("remove it"));
        }
        if !stores.contains_key(store) {
            return Err(unknown(at, "store", store, stores.keys().map(String::as_str)));
        }
    }
    match (table.to.clone(), table.from.clone()) {
        (None, None) => Ok(None),
        (None, Some(_)) => {
            let error = ConfigError::invalid(join(place, "to"), "missing key");
            Err(error.suggest("add `to = …`, the store that gets the copies"))
        }
        (Some(to), from) if from.as_ref() == Some(&to) => {
            Err(ConfigError::invalid(join(place, "from"), "the same store as `to`"))
        }
        (Some(to), from) => Ok(Some(CopySettings { to, from })),
    }
}

/// Checks what only a verification has.
fn for_verify(place: &str, run: JobKind, table: &JobTable) -> Result<VerifySelection, ConfigError> {
    let given = [
        ("level", table.level.is_some()),
        ("all", table.all),
        ("from_export", table.from_export),
        ("logs", table.logs),
    ];
    if let Some((key, _)) = given.into_iter().find(|(_, is)| *is && run != JobKind::Verify) {
        let problem = format!("only valid for `verify`; this job runs `{}`", run.word());
        return Err(ConfigError::invalid(join(place, key), problem).suggest("remove it"));
    }
    if let Some(word) = &table.level {
        level(&join(place, "level"), word)?;
    }
    if table.logs {
        let other = [("all", table.all), ("from_export", table.from_export)];
        if let Some((key, _)) = other.into_iter().find(|(_, is)| *is) {
            let problem = "only the log is verified";
            return Err(ConfigError::invalid(join(place, key), problem).suggest("remove it"));
        }
        if table.level.as_ref().is_some_and(|level| level != "decode" && level != "drill") {
            let problem = "a log is verified with level decode or drill";
            return Err(
                ConfigError::invalid(join(place, "level"), problem).suggest("use one of these")
            );
        }
        return Ok(VerifySelection::Log);
    }
    match (table.all, table.from_export) {
        (true, true) => {
            let problem = "all backups are verified, exports included";
            Err(ConfigError::invalid(join(place, "from_export"), problem).suggest("remove it"))
        }
        (true, false) => Ok(VerifySelection::All),
        (false, true) => Ok(VerifySelection::NewestExport),
        (false, false) => Ok(VerifySelection::Newest),
    }
}

fn level(place: &str, word: &str) -> Result<VerifyLevel, ConfigError> {
    let known = VerifyLevel::ALL.iter().map(|level| level.as_str());
    VerifyLevel::parse(word)
        .ok_or_else(|| unknown(place.to_owned(), "level of verify", word, known))
}

fn hooks(place: &str, table: HooksTable) -> Result<Hooks, ConfigError> {
    let HooksTable { before, after, failed, finally, timeout } = table;
    let timeout =
        timeout.map(|text| duration(&join(place, "timeout"), &text, 1, DAY)).transpose()?;
    let timeout = timeout.unwrap_or(Duration::from_mins(1));
    Ok(Hooks { before, after, failed, finally, timeout })
}

fn wrong(place: String, problem: ScheduleError) -> ConfigError {
    ConfigError::invalid(place, problem.what).suggest(problem.hint)
}

fn source<'s>(
    place: &str,
    run: JobKind,
    name: Option<&str>,
    sources: &'s BTreeMap<String, SourceSettings>,
) -> Result<Option<&'s SourceSettings>, ConfigError> {
    match name {
        None if run.of_source() => {
            let error = ConfigError::invalid(join(place, "source"), "missing key");
            Err(error.suggest("add `source = …`"))
        }
        None => Ok(None),
        Some(name) => {
            let known = sources.keys().map(String::as_str);
            let error = || unknown(join(place, "source"), "source", name, known);
            let source = sources.get(name).ok_or_else(error)?;
            check_made(place, run, name, source.backup_type)?;
            Ok(Some(source))
        }
    }
}

/// Refuses a job that makes what its source has none of.
fn check_made(
    place: &str,
    run: JobKind,
    name: &str,
    backup_type: BackupType,
) -> Result<(), ConfigError> {
    let makes = kinds::entry_of(backup_type).map(|entry| entry.makes).unwrap_or_default();
    let Some(kind) = run.kind().filter(|kind| !makes.contains(kind)) else { return Ok(()) };
    let problem = format!("`{name}` is a {backup_type} source, which has no {kind}s");
    let words = JobKind::making(makes).join(", ");
    Err(ConfigError::invalid(join(place, "run"), problem).suggest(format!("use one of: {words}")))
}

fn scope(place: &str, run: JobKind, word: &str) -> Result<Scope, ConfigError> {
    let known = Scope::ALL.map(Scope::as_str);
    match word.parse() {
        Ok(Scope::Differential) if run == JobKind::Replicate => {
            let problem = "a replica is never differential";
            Err(ConfigError::invalid(place, problem).suggest("use full, incremental or auto"))
        }
        Ok(scope) if run.makes().is_some() => Ok(scope),
        Ok(_) => {
            let problem = format!("`{}` takes no scope", run.word());
            Err(ConfigError::invalid(place, problem))
        }
        Err(_) => Err(unknown(place.to_owned(), "scope", word, known.into_iter())),
    }
}

fn default_interval(
    run: JobKind,
    backup_type: Option<BackupType>,
    scope: Option<Scope>,
) -> Duration {
    let entry = backup_type.and_then(kinds::entry_of);
    if run == JobKind::Copy {
        return Duration::from_secs(HOUR);
    }
    let of_source = entry.zip(run.kind()).map(|(entry, kind)| (entry.interval)(kind, scope));
    of_source.unwrap_or(Duration::from_secs(DAY))
}
