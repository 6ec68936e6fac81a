//! `bkp run`: due jobs run once, in order, exclusively, and are recorded.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::bed::{Run, bare};
use crate::support::jobs::{SNAPSHOT, add, bed, begun, code, gate, records, with};
use crate::support::planted::now;
use crate::support::tb;
use crate::support::wait::until;

#[test]
fn what_is_due_runs_once_and_a_lost_state_changes_nothing() {
    let verify = "[job.check]\nrun = \"verify\"\nsource = \"books\"\nlevel = \"decode\"\nafter = [\"nightly\"]\n[job.tidy]\nrun = \"cleanup\"\nafter = [\"check\"]\n[job.off]\nrun = \"cleanup\"\nenabled = false\n";
    let (_folder, bed) = bed(&format!("{SNAPSHOT}{verify}"));
    let planned = bed.json(&["run", "--dry-run"]);
    assert_eq!(with(&planned, "due"), ["check", "nightly", "tidy"], "{planned}");
    let done = bed.json(&["run"]);
    assert_eq!(with(&done, "done"), ["nightly", "check", "tidy"], "in order: {done}");
    let id = done["jobs"][0]["backup"].as_str().unwrap();
    bed.run(&["verify", "--id", id]).done();
    let first = records(&bed, "nightly");
    assert_eq!(first.len(), 1);
    assert_eq!(code(&first[0]), "0");
    // Nothing is due, and no store is asked.
    fs::rename(bed.path("store"), bed.path("away")).unwrap();
    let idle = bed.json(&["run"]);
    assert_eq!(idle["jobs"].as_array().unwrap().len(), 0, "{idle}");
    assert_eq!(idle["next"].as_array().unwrap().len(), 3);
    fs::rename(bed.path("away"), bed.path("store")).unwrap();
    // A host that never ran a job, and one that forgot.
    for _ in 0..2 {
        let run = Run::of(&bed.on_host(2, &["run", "--json"]).output().unwrap()).done();
        let elsewhere: Value = serde_json::from_str(&run.stdout).unwrap();
        assert_eq!(elsewhere["jobs"].as_array().unwrap().len(), 0, "{elsewhere}");
        let _there_or_not = fs::remove_dir_all(bed.path("state-2/cache"));
        fs::create_dir_all(bed.path("state-2/cache")).unwrap();
        fs::write(bed.path("state-2/cache/jobs.json"), "{\"nightly\":7").unwrap();
    }
    assert_eq!(records(&bed, "nightly"), first);
    // On demand it runs all the same.
    bed.run(&["run", "nightly"]).done();
    assert_eq!(records(&bed, "nightly").len(), 2);
    bed.run(&["run", "nigtly"]).failed(10, "no job `nigtly`");
}

#[test]
fn backups_are_listed_by_the_job_that_made_them() {
    let (_folder, bed) = bed(SNAPSHOT);
    let by_hand = bed.snapshot("full");
    bed.run(&["run", "nightly"]).done();
    let listed = |words: &[&str]| {
        let listing = bed.json(words);
        let backups = listing["backups"].as_array().unwrap().iter();
        backups.map(|backup| backup["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let [of_job] = listed(&["list", "--job", "nightly"]).try_into().unwrap();
    assert_ne!(of_job, by_hand);
    assert_eq!(listed(&["list"]), [by_hand.as_str(), &of_job]);
    assert!(listed(&["list", "--job", "other"]).is_empty());
    // What cannot be told is said, and keeps nothing else out.
    fs::write(bed.object(&by_hand, "manifest.json"), "{").unwrap();
    let run = Run::of(&bed.command(&["list", "--job", "nightly"]).output().unwrap());
    assert_eq!(run.code, Some(13), "{}", run.stderr);
    assert!(run.stdout.contains(&of_job), "{}", run.stdout);
    assert!(run.stderr.contains(&format!("backup {by_hand} is not listed")), "{}", run.stderr);
}

/// The tenant of a source is on every backup that is made from then on, in listings, status and metrics.
#[test]
fn a_tenant_is_named_wherever_its_backups_are() {
    let (_folder, bed) = bed(&format!("{SNAPSHOT}[job.off]\nrun = \"cleanup\"\nenabled = false\n"));
    let before = bed.snapshot("full");
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    let kind = "kind = \"tigerbeetle\"";
    assert_eq!(config.matches(kind).count(), 1, "{config}");
    let config = config
        .replace(kind, &format!("{kind}\ntenant = \"acme\""))
        .replace("[status]", "[status]\nmetrics_file = \"out/bkp.prom\"");
    fs::write(bed.path("bkp.toml"), config).unwrap();
    bed.run(&["run", "nightly"]).done();
    let listed = |words: &[&str]| {
        let listing = bed.json(words);
        let backups = listing["backups"].as_array().unwrap().iter();
        backups.map(|backup| backup["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let [of_tenant] = listed(&["list", "--tenant", "acme"]).try_into().unwrap();
    assert_ne!(of_tenant, before);
    assert_eq!(listed(&["list", "--tenant", "acme", "--job", "nightly"]), [of_tenant.as_str()]);
    assert!(listed(&["list", "--tenant", "acme", "--job", "other"]).is_empty());
    assert!(listed(&["list", "--tenant", "other"]).is_empty());
    let rows =
        bed.json(&["list", "--sql", "SELECT id::VARCHAR AS id, tenant_id FROM backup_metadata"]);
    let tenant_of = |id: &str| {
        let rows = rows["rows"].as_array().unwrap();
        rows.iter().find(|row| row.to_string().contains(id)).unwrap().to_string()
    };
    assert!(tenant_of(&of_tenant).contains("acme") && !tenant_of(&before).contains("acme"));
    let status = bed.json(&["status"]);
    assert_eq!(status["sources"][0]["tenant"], "acme", "{status}");
    let jobs = status["jobs"].as_array().unwrap();
    let tenants: Vec<_> = jobs.iter().map(|job| (&job["job"], &job["tenant"])).collect();
    assert_eq!(tenants, [(&json!("nightly"), &json!("acme")), (&json!("off"), &Value::Null)]);
    let metrics = fs::read_to_string(bed.path("out/bkp.prom")).unwrap();
    for series in [
        "bkp_last_run_exit_code{job=\"nightly\",source=\"books\",tenant=\"acme\"} 0",
        "bkp_backups{source=\"books\",store=\"main\",tenant=\"acme\"} 2",
        "bkp_failures{job=\"off\",source=\"\"} 0",
    ] {
        assert!(metrics.contains(series), "{series}: {metrics}");
    }
}

#[test]
fn a_backup_made_by_hand_counts() {
    let (_folder, bed) = bed(SNAPSHOT);
    bed.snapshot("full");
    let report = bed.json(&["run"]);
    assert_eq!(report["jobs"].as_array().unwrap().len(), 0, "{report}");
}

#[test]
fn a_failure_is_recorded_and_retried_and_holds_back_dependent_jobs() {
    let more = "[job.check]\nrun = \"verify\"\nsource = \"books\"\nafter = [\"nightly\"]\n[job.tidy]\nrun = \"cleanup\"\n";
    let (folder, bed) = bed(&format!("{SNAPSHOT}retries = 1\n{more}"));
    let (file, gone) = (folder.path().join("0_0.tigerbeetle"), folder.path().join("gone"));
    fs::rename(&file, &gone).unwrap();
    let run = bed.run(&["run", "--json"]);
    assert_eq!(run.code, Some(3), "others did what they should: {}{}", run.stdout, run.stderr);
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(with(&report, "failed"), ["nightly"]);
    assert_eq!(with(&report, "waits"), ["check"]);
    assert_eq!(with(&report, "done"), ["tidy"]);
    let failed = report["jobs"].as_array().unwrap().iter().find(|job| job["job"] == "nightly");
    let message = failed.unwrap()["message"].as_str().unwrap();
    assert!(message.contains("0_0.tigerbeetle"), "{message}");
    // Once more after a second, and then not before the next regular time.
    let began = now();
    while records(&bed, "nightly").len() < 2 {
        bed.run(&["run"]);
        assert!(now() - began < time::Duration::minutes(2), "it is not tried again");
    }
    fs::rename(&gone, &file).unwrap();
    let kept = bed.json(&["run"]);
    assert_eq!(with(&kept, "done"), Vec::<String>::new(), "{kept}");
    assert_eq!(
        records(&bed, "nightly").iter().map(|name| code(name)).collect::<Vec<_>>(),
        ["15", "15"]
    );
    bed.run(&["run", "nightly"]).done();
    let after = bed.json(&["run"]);
    assert_eq!(with(&after, "done"), ["check"], "{after}");
}

#[test]
fn a_run_that_exceeds_its_timeout_is_killed() {
    let (_folder, bed) = bed(&format!("{SNAPSHOT}timeout = \"1s\"\n"));
    bed.recipients_are(&["passphrase:cmd:sleep 600"]);
    let run = bed.run(&["run", "nightly", "--json"]);
    assert_ne!(run.code, Some(0));
    assert!(run.stdout.contains("exceeded its timeout of 1s"), "{}{}", run.stdout, run.stderr);
    assert_eq!(records(&bed, "nightly").len(), 1);
    // It left no lock behind.
    bed.recipients_are(&["file:key"]);
    bed.run(&["run", "nightly"]).done();
}

#[test]
fn of_many_ticks_at_once_one_runs_the_job() {
    let (_folder, bed) = bed(SNAPSHOT);
    let start = |host: usize| {
        let mut command: Command = bed.on_host(host, &["run", "--json"]);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        command.spawn().unwrap()
    };
    let children: Vec<_> = (0..20).map(start).collect();
    let mut done = BTreeSet::new();
    for (host, child) in children.into_iter().enumerate() {
        let run = Run::of(&child.wait_with_output().unwrap()).done();
        let report: Value = serde_json::from_str(&run.stdout).unwrap();
        if !with(&report, "done").is_empty() {
            done.insert(host);
        }
    }
    assert_eq!(done.len(), 1, "{done:?}");
    assert_eq!(records(&bed, "nightly").len(), 1);
    assert_eq!(bed.json(&["list"])["backups"].as_array().unwrap().len(), 1);
}

#[test]
fn of_a_hundred_starts_of_a_job_one_runs_it_and_the_others_name_it() {
    let (_folder, bed) = bed(SNAPSHOT);
    add(&bed, &gate(&bed, "nightly"));
    let start = |host: usize| {
        let mut command: Command = bed.on_host(host, &["run", "nightly"]);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        command.spawn().unwrap()
    };
    let mut children: Vec<_> = (0..100).map(start).collect();
    // All but one end while that one works.
    until("the end of 99", || {
        let ended = children.iter_mut().filter_map(|child| child.try_wait().unwrap()).count();
        assert!(ended < 100, "nobody runs it");
        ended == 99
    });
    fs::write(bed.path("go-nightly"), "").unwrap();
    let mut codes = Vec::new();
    for child in children {
        let run = Run::of(&child.wait_with_output().unwrap());
        if run.code == Some(11) {
            let named = run.stdout.contains("`nightly.job` is already running: process");
            assert!(named && run.stdout.contains(" for "), "{}{}", run.stdout, run.stderr);
        }
        codes.push(run.code.unwrap());
    }
    codes.sort_unstable();
    assert_eq!((codes[0], codes[1], codes[99]), (0, 11, 11), "{codes:?}");
    assert_eq!(bed.json(&["list"])["backups"].as_array().unwrap().len(), 1);
    // Those that were skipped are on record too, and count for nothing.
    let recorded = records(&bed, "nightly");
    assert_eq!(recorded.iter().filter(|name| code(name) == "11").count(), 99);
    assert_eq!(bed.json(&["run"])["jobs"].as_array().unwrap().len(), 0);
}

/// A timer for a configuration without jobs is a mistake, and so is a wrong path.
#[test]
fn without_any_job_there_is_nothing_to_be_quiet_about() {
    let folder = tempfile::tempdir().unwrap();
    for words in [&["run"][..], &["run", "-q"], &["run", "--dry-run"]] {
        Run::of(&bare(folder.path(), words).output().unwrap()).failed(78, "no job is configured");
    }
}

#[test]
fn a_long_run_does_not_delay_compatible_jobs() {
    let (folder, bed) = bed("[run]\nparallel = 3");
    let other = folder.path().join("other");
    fs::create_dir(&other).unwrap();
    tb::format(&other.join("0_0.tigerbeetle"), 0, 1);
    bed.snapshot("full");
    let snapshot = |job: &str, source: &str| {
        format!("[job.{job}]\nrun = \"snapshot\"\nsource = \"{source}\"\nevery = \"1s\"\n")
    };
    let source = format!(
        "[source.more]\nkind = \"tigerbeetle\"\ndata_file = {:?}\n",
        other.join("0_0.tigerbeetle")
    );
    let check = "[job.check]\nrun = \"verify\"\nsource = \"books\"\nlevel = \"exists\"\n";
    let jobs = [snapshot("long", "books"), snapshot("same", "books"), snapshot("other", "more")];
    add(&bed, &format!("{source}{}{check}", jobs.concat()));
    add(&bed, &["long", "same", "other"].map(|job| gate(&bed, job)).concat());
    fs::write(bed.path("go-other"), "").unwrap();
    let tick =
        bed.command(&["run", "--json"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    // The other source and the verification run beside the long one; its own source waits.
    until("what may run beside it", || {
        !records(&bed, "other").is_empty() && !records(&bed, "check").is_empty()
    });
    assert!(!begun(&bed).contains(&"same".to_owned()), "{:?}", begun(&bed));
    // Another tick, of a timer or another host, starts nothing twice.
    let second = Run::of(&bed.on_host(1, &["run", "--json", "--dry-run"]).output().unwrap()).done();
    assert!(second.stdout.contains("same"), "{}", second.stdout);
    fs::write(bed.path("go-long"), "").unwrap();
    until("its turn", || begun(&bed).contains(&"same".to_owned()));
    assert_eq!(records(&bed, "long").len(), 1, "it had ended before");
    fs::write(bed.path("go-same"), "").unwrap();
    let done = Run::of(&tick.wait_with_output().unwrap()).done();
    let done: Value = serde_json::from_str(&done.stdout).unwrap();
    let jobs: BTreeSet<String> = with(&done, "done").into_iter().collect();
    assert_eq!(jobs, ["check", "long", "other", "same"].map(str::to_owned).into());
}
