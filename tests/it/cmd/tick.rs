//! The scheduler on a bad day: runs that collide, stores that are away, jobs that wait, long ticks; and
//! its output for cron and journald.

use std::fs;
use std::process::Stdio;

use serde_json::Value;

use crate::support::bed::{Bed, Run};
use crate::support::jobs::{SNAPSHOT, add, bed, begun, code, gate, hide, records, with};
use crate::support::status::{findings, has, status};
use crate::support::tb;
use crate::support::wait::until;
use crate::support::web::Web;

/// A second source, whose snapshots are the job `other`.
fn other(bed: &Bed, folder: &std::path::Path, more: &str) {
    let file = folder.join("other");
    fs::create_dir(&file).unwrap();
    let file = file.join("0_0.tigerbeetle");
    tb::format(&file, 0, 1);
    add(
        bed,
        &format!(
            "[source.more]\nkind = \"tigerbeetle\"\ndata_file = {file:?}\n[job.other]\nrun = \"snapshot\"\nsource = \"more\"\nevery = \"1s\"\n{more}"
        ),
    );
}

#[test]
fn in_a_long_tick_a_collision_keeps_no_job_away_and_people_are_told() {
    let web = Web::start();
    let (folder, bed) = bed(&format!("[run]\nparallel = 4\n{SNAPSHOT}"));
    other(&bed, folder.path(), "");
    add(&bed, &["nightly", "other"].map(|job| gate(&bed, job)).concat());
    let failing =
        "[job.bad]\nrun = \"cleanup\"\nretries = 0\n[job.bad.hooks]\nbefore = [\"false\"]\n";
    let notify = format!("[notify.hook]\nkind = \"webhook\"\nurl = \"{}\"\n", web.url("alerts"));
    add(&bed, &format!("{failing}{notify}"));
    // Another host is at one of the jobs when the tick begins.
    let mut elsewhere = bed.on_host(1, &["run", "other"]).stdout(Stdio::null()).spawn().unwrap();
    until("the run on another host", || begun(&bed) == ["other"]);
    let tick = bed.command(&["run", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    until("the long run", || begun(&bed).contains(&"nightly".to_owned()));
    assert_eq!(begun(&bed), ["other", "nightly"]);
    // The failure of the third job is told while the long one goes on.
    until("the news", || {
        web.heard().iter().any(|(_, body)| body.contains("\"failing\"") && body.contains("bad"))
    });
    fs::write(bed.path("go-other"), "").unwrap();
    assert!(elsewhere.wait().unwrap().success());
    until("another run in the same tick", || records(&bed, "other").len() >= 2);
    assert_eq!(records(&bed, "nightly").len(), 0, "the long one goes on");
    fs::write(bed.path("go-nightly"), "").unwrap();
    let run = Run::of(&tick.wait_with_output().unwrap());
    assert_eq!(run.code, Some(3), "{}", run.stdout);
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(with(&report, "busy"), Vec::<String>::new(), "that is over: {report}");
    assert_eq!(with(&report, "failed"), ["bad"]);
}

#[test]
fn a_run_that_reaches_no_store_is_told_of_and_tried_again() {
    let web = Web::start();
    let (_folder, bed) = bed("");
    let log = bed.path("log");
    let hook =
        |event: &str| format!("{event} = [\"sh\", \"-c\", \"echo {event} >>{}\"]\n", log.display());
    let hooks: String = ["before", "failed", "finally"].map(hook).concat();
    let ping = web.url("ping");
    let job = format!(
        "{}ping = \"{ping}\"\nretries = 1\n[job.nightly.hooks]\n{hooks}",
        SNAPSHOT.replace("6h", "30d")
    );
    add(&bed, &job);
    fs::rename(bed.path("store"), bed.path("away")).unwrap();
    // More often than it is tried again elsewise.
    let failures = || {
        let log = fs::read_to_string(&log).unwrap_or_default();
        log.lines().filter(|line| *line == "failed").count()
    };
    until("the fourth try", || {
        let run = bed.run(&["run", "-q"]);
        assert!([Some(0), Some(10)].contains(&run.code), "{}{}", run.stdout, run.stderr);
        let said = run.stderr.contains("nightly: FAILED, exit code 10");
        assert_eq!(said, run.code == Some(10), "{}", run.stderr);
        failures() >= 4
    });
    let report = status(&bed, 18);
    has(&report, "failing", "nightly", "critical");
    assert!(report.to_string().contains("no store was reachable"), "{report}");
    let log = fs::read_to_string(&log).unwrap();
    assert!(!log.contains("before") && log.ends_with("failed\nfinally\n"), "{log}");
    let pings: Vec<String> = web.heard().into_iter().map(|(path, _)| path).collect();
    assert!(!pings.is_empty() && pings.iter().all(|path| path == "/ping/10"), "{pings:?}");
    fs::rename(bed.path("away"), bed.path("store")).unwrap();
    until("a good run", || {
        bed.run(&["run"]).done();
        records(&bed, "nightly").iter().any(|name| code(name) == "0")
    });
    assert_eq!(findings(&status(&bed, 0)).keys().filter(|(rule, _)| rule == "failing").count(), 0);
}

#[test]
fn a_waiting_job_is_reported_once_per_failure_and_is_a_finding() {
    let chain = "[job.check]\nrun = \"verify\"\nsource = \"books\"\nlevel = \"exists\"\nevery = \"1s\"\nafter = [\"nightly\"]\n[job.last]\nrun = \"verify\"\nsource = \"books\"\nlevel = \"exists\"\nevery = \"1s\"\nafter = [\"check\"]\n";
    let (folder, bed) = bed(&format!("{}retries = 0\n", SNAPSHOT.replace("6h", "2s")));
    bed.run(&["run"]).done();
    add(&bed, chain);
    let back = hide(folder.path());
    bed.run(&["run", "nightly"]).failed_in_text(15, "FAILED");
    // Only those that wait are due, if the failed one is not again; none of them runs either way.
    let run = bed.run(&["run", "--json"]);
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(with(&report, "waits"), ["check", "last"], "{report}");
    assert!([Some(3), Some(15)].contains(&run.code), "{report}");
    assert_eq!(run.stderr.matches("did not run").count(), 2, "{}", run.stderr);
    until("the rule", || {
        let run = bed.run(&["status", "--json"]);
        let found = findings(&serde_json::from_str(&run.stdout).unwrap());
        found.get(&("waits".into(), "check".into())).map(String::as_str) == Some("warning")
    });
    back();
    until("their turn", || {
        bed.run(&["run"]);
        !records(&bed, "last").is_empty()
    });
}

#[test]
fn a_tick_that_only_waits_says_so_once() {
    let (folder, bed) = bed(&format!("{SNAPSHOT}retries = 0\n"));
    bed.run(&["run"]).done();
    add(
        &bed,
        "[job.check]\nrun = \"verify\"\nsource = \"books\"\nlevel = \"exists\"\nafter = [\"nightly\"]\n",
    );
    let back = hide(folder.path());
    bed.run(&["run", "nightly"]).failed_in_text(15, "FAILED");
    // Not well, although nothing failed in this tick.
    let first = bed.run(&["run", "-q"]);
    assert_eq!(first.code, Some(3), "{}{}", first.stdout, first.stderr);
    assert!(first.stderr.contains("warning: check: did not run"), "{}", first.stderr);
    let second = bed.run(&["run", "-q"]).done();
    assert_eq!((second.stdout.as_str(), second.stderr.as_str()), ("", ""));
    // Each failure anew.
    bed.run(&["run", "nightly"]).failed_in_text(15, "FAILED");
    assert_eq!(bed.run(&["run", "-q"]).code, Some(3));
    back();
    bed.run(&["run", "nightly"]).done();
    assert_eq!(with(&bed.json(&["run"]), "done"), ["check"]);
}

#[test]
fn cron_mails_what_is_wrong_and_nothing_else() {
    let (folder, bed) = bed(&format!("{}retries = 0\n", SNAPSHOT.replace("6h", "1s")));
    let silent = |words: &[&str]| {
        let run = bed.run(words).done();
        assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("", ""), "{words:?}");
    };
    silent(&["-q", "run"]);
    assert!(bed.run(&["-q", "run", "--json"]).done().stdout.contains("bkp.run/1"));
    let back = hide(folder.path());
    until("a failure", || {
        let run = bed.run(&["-q", "run"]);
        let failed = run.code == Some(15);
        let named = run.stderr.contains("warning: nightly: FAILED, exit code 15")
            && run.stderr.contains("0_0.tigerbeetle");
        assert_eq!(named, failed, "{}{}", run.stdout, run.stderr);
        failed
    });
    back();
    until("the next run", || {
        silent(&["-q", "run"]);
        records(&bed, "nightly").last().is_some_and(|name| code(name) == "0")
    });
    // What the examples and the README tell cron to run is this.
    let line = "*/5 * * * * bkp bkp -q run";
    for file in ["README.md", "examples/crontab"] {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let text = fs::read_to_string(path).unwrap();
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let found = text.lines().any(|text| words(text).contains(line) && !text.contains('>'));
        assert!(found, "{file} has no line `{line}`");
    }
}

#[test]
fn another_place_of_the_same_name_is_another_store() {
    let (_folder, bed) = bed(SNAPSHOT);
    bed.run(&["run"]).done();
    assert_eq!(with(&bed.json(&["run"]), "done"), Vec::<String>::new());
    fs::create_dir(bed.path("elsewhere")).unwrap();
    bed.store_is(&format!("url = \"file://{}\"", bed.path("elsewhere").display()));
    assert_eq!(with(&bed.json(&["run"]), "done"), ["nightly"]);
}

#[test]
fn hook_output_stays_on_its_host() {
    let web = Web::start();
    let (_folder, bed) = bed("");
    let hook = "[job.nightly.hooks]\nbefore = [\"sh\", \"-c\", \"echo the password is swordfish >&2; exit 3\"]\n";
    add(&bed, &format!("{SNAPSHOT}ping = \"{}\"\n{hook}", web.url("ping")));
    let run = bed.run(&["run", "nightly"]).failed_in_text(1, "swordfish");
    assert!(run.stdout.contains("`sh` failed: exit status: 3"), "{}", run.stdout);
    let path = bed.stored().into_iter().find(|path| path.to_str().unwrap().contains("/runs/"));
    let record = fs::read_to_string(path.unwrap()).unwrap();
    assert!(record.contains("exit status: 3") && !record.contains("swordfish"), "{record}");
    let heard = web.heard();
    assert_eq!(heard.last().unwrap().0, "/ping/1");
    assert!(!format!("{heard:?}").contains("swordfish"), "{heard:?}");
}

#[test]
fn a_clock_that_is_a_little_behind_runs_nothing_twice() {
    // Another host's run: a backup of the day before yesterday proves its record.
    let other = || {
        let (folder, bed) = bed(SNAPSHOT);
        let before = crate::support::planted::now() - time::Duration::days(2);
        crate::support::planted::plant(
            &bed,
            &bed.app(None),
            &crate::support::planted::Seed::at(before),
        );
        (folder, bed)
    };
    let (_folder, bed) = other();
    let soon = crate::support::planted::now() + time::Duration::minutes(3);
    crate::support::planted::record(&bed, "nightly", soon, 0);
    assert_eq!(with(&bed.json(&["run"]), "done"), Vec::<String>::new());
    // One that is far ahead holds nothing back.
    let (_folder, bed) = other();
    crate::support::planted::record(&bed, "nightly", soon + time::Duration::hours(1), 0);
    assert_eq!(with(&bed.json(&["run"]), "done"), ["nightly"]);
}

#[test]
fn foreign_output_of_a_run_stays_on_its_host() {
    let web = Web::start();
    let (_folder, bed) = bed(&format!("{SNAPSHOT}ping = \"{}\"\n", web.url("ping")));
    // A program of the operator says something, and the run is killed: that is what is told. Whoever puts it
    // on record is asked for, too, and is not killed.
    let once = bed.path("once").display().to_string();
    bed.recipients_are(&[&format!("passphrase:cmd:echo swordfish >&2; [ -e {once} ] || {{ touch {once}; kill -9 $PPID; }}; echo correct horse battery staple")]);
    let run = bed.run(&["run", "nightly"]).failed_in_text(1, "killed by signal 9: swordfish");
    assert!(run.stdout.contains("nightly: FAILED, exit code 1"), "{}", run.stdout);
    // It says the same, and all is well.
    bed.recipients_are(&["passphrase:cmd:echo swordfish >&2; echo correct horse battery staple"]);
    let run = bed.run(&["run", "nightly"]).done();
    assert!(!run.stdout.contains("swordfish"), "{}", run.stdout);
    let kept: Vec<String> = bed
        .stored()
        .into_iter()
        .filter(|path| path.to_str().unwrap().contains("/runs/"))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    assert_eq!(kept.len(), 2);
    assert!(!kept.concat().contains("swordfish"), "{kept:?}");
    assert_eq!(kept.concat().matches("killed by signal 9").count(), 1, "{kept:?}");
    let heard = web.heard();
    let paths: Vec<&str> = heard.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(paths, ["/ping/start", "/ping/1", "/ping/start", "/ping/0"]);
    assert!(!format!("{heard:?}").contains("swordfish"), "{heard:?}");
    assert_eq!((heard[1].1.as_str(), heard[3].1.as_str()), ("killed by signal 9", ""));
}
