//! The configuration: TOML, and what it means.

use std::fs;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bkp::cmd::config::{self, Options};
use bkp::config::settings::Flags;
use bkp::config::{Environment, Settings};
use bkp::ctx::Ctx;
use bkp::domain::id::BackupId;
use bkp::domain::retention::{self, Backup, Group};
use bkp::domain::schedule::{Due, JobHistory};
use bkp::table::ConfigError;
use bkp::wire::AppContext;
use tempfile::TempDir;

static SCRATCH: LazyLock<TempDir> = LazyLock::new(super::scratch);

/// Text that no message may have in it, wherever it stands in a file.
const SECRET: &str = "hunter2";

/// A file is taken or refused at a line of it; what it means can be shown, every job knows when it is
/// due next, and every policy which backups it keeps.
pub(crate) fn run(data: &[u8]) {
    let path = SCRATCH.path().join("bkp.toml");
    fs::write(&path, data).unwrap();
    let flags = Flags { config: Some(path.clone()), ..Flags::default() };
    let settings = match Settings::load(&flags, &Environment::of([("HOME", "/nonexistent")])) {
        Ok(settings) => settings,
        Err(error) => return refused(&error, &path, data),
    };
    let names = settings.sources.keys().chain(settings.stores.keys()).chain(settings.jobs.keys());
    assert!(names.into_iter().all(|name| bkp::domain::names::is_name(name)));
    for job in settings.jobs.values() {
        let interval = job.when.interval(super::now());
        assert!(interval >= time::Duration::ZERO, "{}: {interval}", job.name);
        let past =
            JobHistory { succeeded: Some(super::now()), failures: 3, ..JobHistory::default() };
        for past in [past, JobHistory { tried: past.succeeded, ..past }, JobHistory::default()] {
            let due = job.when.due(&past, job.retries, Duration::ZERO, super::now());
            let later = super::now() - time::Duration::days(1);
            let sound = match due {
                Due::Since(at) => at <= super::now(),
                Due::At(at) => at >= later,
                Due::Never => true,
            };
            assert!(sound, "{}: {due:?}", job.name);
        }
        if let Some(policy) = &job.retention {
            keep(policy);
        }
    }
    let app = AppContext {
        settings,
        ctx: Ctx::fixed(super::now),
        confirm: Arc::new(|_| Ok(())),
        ask: Arc::new(|_, _| Ok(None)),
        layer: None,
    };
    let shown = config::run(&app, &Options::Show { origin: true }).unwrap();
    assert!(!shown.text.is_empty() && shown.value.is_object());
    // A file that exists where this runs may be refused for a secret: a folder, or open to others.
    if let Err(error) = config::run(&app, &Options::Check) {
        assert!(error.downcast_ref::<ConfigError>().is_some(), "{error:#}");
    }
}

fn refused(error: &ConfigError, path: &Path, data: &[u8]) {
    let ConfigError::Invalid { place, problem, .. } = error else {
        panic!("{error}");
    };
    let lines = String::from_utf8_lossy(data).split('\n').count();
    let rest = place.strip_prefix(&path.display().to_string());
    let line = rest.and_then(|rest| rest.strip_prefix(':')?.split(':').next()?.parse().ok());
    assert!(line.is_none_or(|line: usize| (1..=lines).contains(&line)), "{place} of {lines}");
    assert!(!problem.is_empty());
    // Names stand in places; values do not, but for those that cannot be secrets.
    let quoted = problem.contains(SECRET) && problem.starts_with("not TOML");
    assert!(!quoted, "{problem}");
}

/// Whatever a policy says, the newest backup stays.
fn keep(policy: &retention::Policy) {
    let id = |day: i64| {
        let at = super::now() - time::Duration::days(day);
        let number =
            (u128::try_from(at.unix_timestamp()).unwrap() * 1000) << 80 | 7 << 76 | 2 << 62;
        BackupId::from_u128(number).unwrap()
    };
    let backups: Vec<Backup> = (0..40).map(|day| Backup::full(id(day * 3))).collect();
    let members = (0..backups.len()).collect();
    let group = Group { policy, members, frozen: None };
    let whys = retention::decide(&[group], &backups, super::now());
    assert!(whys.first().is_some_and(|whys| !whys.is_empty()));
}

/// The example, and its parts with every comment taken away.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let example = include_str!("../../../examples/bkp.toml");
    let is_key = |line: &str| {
        let line = line.trim_start_matches("# ");
        line.starts_with('[')
            || line.split_once(" = ").is_some_and(|(key, _)| {
                key.chars().all(|c| c.is_ascii_lowercase() || matches!(c, '_' | '.'))
            })
    };
    let every: Vec<&str> = example
        .lines()
        .filter(|line| is_key(line))
        .map(|line| line.trim_start_matches("# "))
        .collect();
    let plain: Vec<&str> =
        example.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    let mut seeds: Vec<Vec<u8>> =
        vec![plain.join("\n").into_bytes(), every.join("\n").into_bytes()];
    let job = |when: &str, keep: &str| {
        format!(
            "[store.s]\nurl = \"s3://bucket/prefix\"\nregion = \"eu-central-1\"\n[keys]\nrecipients = [\"passphrase:env:P\", \"kms:alias/k?region=us-east-1\"]\n[source.b]\nkind = \"duckdb\"\npath = \"b.duckdb\"\n[job.b]\nrun = \"snapshot\"\nsource = \"b\"\nat = \"{when}\"\nretention = {{ {keep} }}\n"
        )
        .into_bytes()
    };
    seeds.push(job("0 3 29 2 *", "keep_within = \"30d\", keep_hourly = 24"));
    seeds.push(job("monthly on 31 at 02:30 Europe/Berlin", "keep_all = true"));
    seeds.push(job("*/5 * * * 1-5", "keep_last = 4294967295, max_removed_percent = 1"));
    seeds.push(
        b"[notify.mail]\nkind = \"email\"\nurl = \"smtp://127.0.0.1:25\"\nfrom = \"a@b\"\nto = [\"c@d\"]\npassword = \"env:P\"\n[status]\nquota = { s = \"5GiB\" }\n".to_vec(),
    );
    seeds
}
