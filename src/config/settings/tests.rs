use super::*;
use crate::domain::schedule::When;
use crate::error::Classify;
use crate::stage::Compression;

const GOOD: &str = r#"
[store.main]
url = "file:///b"
[keys]
recipients = ["file:key", "passphrase:env:PASS"]
[tools]
tigerbeetle = "bin/tigerbeetle"
[source.books]
kind = "tigerbeetle"
data_file = "0_0.tigerbeetle"
compression = "gzip"
"#;

fn settings(text: &str) -> Result<Settings, ConfigError> {
    let path = Path::new("/etc/bkp/bkp.toml");
    from_text(path, text).map_err(|error| with_location(error, path, text))
}

fn failure(text: &str) -> String {
    let error = settings(text).expect_err("invalid");
    format!("{error} | {}", error.hint().unwrap_or_default())
}

#[test]
fn a_document_is_resolved_against_its_folder() {
    let settings = settings(GOOD).expect("valid");
    assert_eq!(settings.recipients, ["file:/etc/bkp/key", "passphrase:env:PASS"]);
    assert_eq!(settings.tigerbeetle, Some("/etc/bkp/bin/tigerbeetle".into()));
    let books = settings.sources.get("books").expect("a source");
    assert_eq!(books.compression, Compression::Gzip(6));
    assert_eq!(settings.provenance.of("source.books.compression"), Origin::File);
    assert_eq!(settings.provenance.of("source.books.level"), Origin::Default);
}

#[test]
fn unknown_keys_are_named_with_line_path_and_suggestion() {
    let at = "/etc/bkp/bkp.toml";
    for (text, expected) in [
        ("state_dri = 'x'", format!("{at}:1: state_dri: unknown key | did you mean `state_dir`?")),
        (
            "[frequency]\nrun = 'x'",
            format!(
                "{at}:1: frequency: unknown key | known keys: state_dir, store, keys, lease, ledger, tools, source, job, run, notify, cleanup, status"
            ),
        ),
        (
            "[store.a]\nurl = 'file:///b'\nregoin = 'x'",
            format!("{at}:3: store.a.regoin: unknown key | known keys: url, retention"),
        ),
        (
            &format!("{GOOD}compresion = 1"),
            format!("{at}:12: source.books.compresion: unknown key | did you mean `compression`?"),
        ),
        (
            &GOOD.replace("data_file", "datafile"),
            format!("{at}:10: source.books.datafile: unknown key | did you mean `data_file`?"),
        ),
        (
            "[source.x]\nkind = 'tigerbeatle'",
            format!(
                "{at}:2: source.x.kind: unknown source kind `tigerbeatle` | did you mean `tigerbeetle`?"
            ),
        ),
    ] {
        assert_eq!(failure(text), expected);
    }
}

#[test]
fn values_are_checked() {
    for (change, expected) in [
        (("file:///b", "nowhere"), "store.main.url: not a URL"),
        (("file:///b", "file://b"), "store.main: the path must be absolute"),
        (
            ("[source", "[store.more]\nurl = \"file:///b/\"\n[source"),
            "store.more: same location as [store.main]",
        ),
        (("store.main", "store.Main"), "not a valid name for a store"),
        (
            ("\"gzip\"", "\"none\"\nlevel = 3"),
            "source.books.level: without compression there is no level",
        ),
        (("\"gzip\"", "\"gzip\"\nlevel = 12"), "12 is not between 1 and 9"),
        (("\"gzip\"", "\"zip\""), "did you mean `gzip`?"),
        (("compression = ", "store = "), "unknown store `gzip`"),
        (
            ("passphrase:env:PASS", "passphrase:hunter2"),
            "keys.recipients[1]: a passphrase must not",
        ),
        (
            ("passphrase:env:PASS", "kms:alias/k?endpoint=http://u:hunter2@h"),
            "keys.recipients[1]: an endpoint must not hold a user or password",
        ),
    ] {
        let text = failure(&GOOD.replace(change.0, change.1));
        assert!(text.contains(expected), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let environment =
        Environment::of([("BKP_STORE", "other"), ("BKP_KEY", "file:/e"), ("HOME", "/h")]);
    let mut settings = settings(GOOD).expect("valid");
    let flags = Flags { store: vec!["file:///f".into()], ..Default::default() };
    settings.apply_overrides(&flags, &environment).expect("valid");
    assert_eq!(settings.store, ["file:///f"]);
    assert_eq!(settings.recipients, ["file:/e"]);
    assert_eq!(settings.provenance.of("store"), Origin::Flag);
    assert_eq!(settings.provenance.of("keys.recipients"), Origin::Environment);
    assert_eq!(settings.state_dir, Path::new("/h/.local/state/bkp"));
    assert_eq!(settings.provenance.of("state_dir"), Origin::Default);
}

#[test]
fn the_state_directory_follows_systemd_then_xdg() {
    let both = Environment::of([("STATE_DIRECTORY", "/s:/t"), ("XDG_STATE_HOME", "/x")]);
    assert_eq!(default_state_dir(&both).expect("found").0, Path::new("/s"));
    let xdg = Environment::of([("XDG_STATE_HOME", "/x")]);
    assert_eq!(default_state_dir(&xdg).expect("found").0, Path::new("/x/bkp"));
    assert!(default_state_dir(&Environment::default()).is_err());
    let mut root = Environment::of([]);
    root.root = true;
    assert_eq!(default_state_dir(&root).expect("found").0, Path::new("/var/lib/bkp"));
}

#[test]
fn an_unusable_environment_is_an_error() {
    let empty = Environment::of([("BKP_STORE", ""), ("HOME", "/h")]);
    let error = Settings::default().apply_overrides(&Flags::default(), &empty).expect_err("empty");
    assert_eq!(error.to_string(), "$BKP_STORE: set but empty");
    let wrong = Environment::of([("BKP_KEY", "hunter2"), ("HOME", "/h")]);
    let error =
        Settings::default().apply_overrides(&Flags::default(), &wrong).expect_err("no recipient");
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

#[test]
fn a_file_that_was_named_must_exist_and_others_need_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let missing = folder.path().join("bkp.toml");
    let environment = Environment::of([("HOME", "/nonexistent")]);
    let flags = Flags { config: Some(missing.clone()), ..Default::default() };
    let error = Settings::load(&flags, &environment).expect_err("missing");
    assert!(error.to_string().contains(&missing.display().to_string()), "{error}");
}

#[test]
fn a_file_that_others_can_write_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("bkp.toml");
    std::fs::File::create(&path).expect("created");
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    std::fs::set_permissions(&path, permissions).expect("chmod");
    let flags = Flags { config: Some(path), ..Default::default() };
    let environment = Environment::of([("HOME", "/h")]);
    let error = Settings::load(&flags, &environment).expect_err("refused");
    assert!(error.to_string().contains("writable by others"), "{error}");
}

#[test]
fn a_ledger_has_defaults_and_its_values_are_checked() {
    let minimal = "[ledger]\ncluster = '7'\naddresses = ['127.0.0.1:3001']\n";
    let found = settings(minimal).expect("valid");
    assert_eq!(found.lease.as_secs(), 120);
    let ledger = found.ledger.expect("a ledger");
    assert_eq!((ledger.cluster, ledger.number, ledger.required), (7, 12, false));
    assert_eq!(ledger.deadline.as_secs(), 10);
    for (more, expected) in [
        ("requird = true", "ledger.requird: unknown key | did you mean `required`?"),
        ("deadline = '10'", "ledger.deadline: `10` is not a duration | write an integer"),
        ("deadline = '0s'", "ledger.deadline: 0s is not between 1s and 10m"),
        ("number = 0", "ledger.number: ledger 0 is not allowed by TigerBeetle"),
        ("accounts = { oprator = '1' }", "ledger.accounts.oprator: unknown key | did you mean"),
        ("accounts = { operator = '0' }", "ledger.accounts.operator: this account id is reserved"),
        ("accounts = { duckdb = '1', operator = '1' }", "operator: this account id is reserved"),
    ] {
        let text = failure(&format!("{minimal}{more}"));
        assert!(text.contains(expected), "{text}");
    }
    let text = failure("[ledger]\ncluster = '7'\naddresses = []");
    assert!(text.contains("ledger.addresses: 0 addresses | list every replica"), "{text}");
    let text = failure("lease = '1s'");
    assert!(text.contains("lease: 1s is not between 2s and 1d"), "{text}");
}

const JOB: &str = "\n[job.nightly]\nrun = 'snapshot'\nsource = 'books'\n";

#[test]
fn jobs_have_the_defaults_of_their_sources() {
    let found = settings(&format!("{GOOD}{JOB}")).expect("valid");
    let job = found.jobs.get("nightly").expect("a job");
    assert!(matches!(job.when, When::Every(every) if every.as_secs() == 6 * 3600));
    let policy = job.retention.as_ref().expect("a policy");
    assert_eq!(policy.within, Some(time::Duration::days(365)));
    assert_eq!((policy.min_keep, policy.removed_percent_max, policy.last), (3, 50, 30));
    assert!(job.enabled && job.retries.count == 2 && found.upkeep.parallel == 2);
    let all = settings(&format!("{GOOD}{JOB}retention = {{ keep_all = true }}")).expect("valid");
    let all = all.jobs["nightly"].retention.as_ref().expect("a policy");
    assert_eq!(all.last, u32::MAX, "a rule like others, so that it counts beside those of others");
    let away = settings(&format!("{GOOD}\n[job.away]\nrun = 'replicate'\nto = 'main'\n"));
    let away = &away.expect("valid").jobs["away"];
    assert!(matches!(away.when, When::Every(every) if every.as_secs() == 3600));
    assert!(away.retention.is_none() && away.copies.is_some());
}

#[test]
fn jobs_are_checked() {
    for (more, expected) in [
        ("evry = '6h'", "job.nightly.evry: unknown key | did you mean `every`?"),
        ("every = '6'", "job.nightly.every: `6` is not a duration"),
        ("every = '6h'\nat = 'hourly'", "job.nightly.at: `every` is set as well"),
        ("at = 'nightly'", "job.nightly.at: `nightly` is not a schedule | write `daily at 03:00`"),
        ("at = 'daily at 03:00 Europe/Berlín'", "unknown time zone `Europe/Berlín`"),
        ("zone = 'Berlin'", "job.nightly.zone: unknown time zone `Berlin`"),
        ("scope = 'ful'", "job.nightly.scope: unknown scope `ful` | did you mean `full`?"),
        ("level = 'drill'", "job.nightly.level: only valid for `verify`; this job runs `snapshot`"),
        ("from_export = true", "job.nightly.from_export: only valid for `verify`"),
        ("after = ['nigtly']", "job.nightly.after[0]: unknown job `nigtly` | did you mean"),
        ("after = ['nightly']", "job.nightly.after: the job depends on itself"),
        ("retention = {}", "job.nightly.retention: this policy keeps nothing | set what to keep"),
        ("retention = { keep_dayly = 7 }", "retention.keep_dayly: unknown key | did you mean"),
        ("retention = { keep_last = 1, keep_all = true }", "keep_all: other rules are set as well"),
        ("retention = { keep_last = 1, max_removed_percent = 0 }", "0 is not between 1 and 100"),
        ("\n[job.check]\nrun = 'verify'", "job.check.source: missing key"),
        ("\n[job.check]\nrun = 'backup'", "unknown command `backup` | known: snapshot"),
        ("\n[run]\nparallel = 0", "run.parallel: 0 is not between 1 and 64"),
        ("\n[cleanup]\norphan_age = '1h'", "cleanup.orphan_age: 1h is not between 1d"),
        ("timeout = '168h'", "cleanup.orphan_age: not longer than the timeout of `nightly`"),
        ("\n[cleanup]\norphan_age = '1d'", "increase it, or set job.nightly.timeout"),
        ("keep_log = '35d'", "job.nightly.keep_log: `snapshot` does not ship a log"),
        ("to = 'main'", "job.nightly.to: only valid for `replicate`; this job runs `snapshot`"),
        ("\n[job.away]\nrun = 'replicate'\nto = 'of'", "job.away.to: unknown store `of`"),
        ("\n[job.away]\nrun = 'replicate'\nfrom = 'main'", "job.away.to: missing key"),
        (
            "\n[job.away]\nrun = 'replicate'\nto = 'main'\nretention = { keep_last = 1 }",
            "`replicate` does not make backups | set `retention` in the table of the store",
        ),
        ("\n[job.away]\nrun = 'replicate'\nto = 'main'\nfrom = 'main'", "the same store as `to`"),
        (
            "\n[store.main.retention]\nkeep_last = 0",
            "store.main.retention: this policy keeps nothing",
        ),
    ] {
        let text = failure(&format!("{GOOD}{JOB}{more}"));
        assert!(text.contains(expected), "{text}");
    }
}
