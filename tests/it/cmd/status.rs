//! `bkp status`: it finds problems from the stores alone, and reports them in every format.

use std::fs;

use serde_json::Value;
use time::Duration;

use crate::support::bed::Run;
use crate::support::jobs::bed;
use crate::support::planted::{self, Seed, now, plant};
use crate::support::status::{findings, has, parse, set, status};

const JOBS: &str = "[job.nightly]\nrun = \"snapshot\"\nsource = \"books\"\nevery = \"6h\"\nretention = { keep_daily = 7 }\n[job.drill]\nrun = \"verify\"\nsource = \"books\"\nlevel = \"drill\"\nevery = \"7d\"\nafter = [\"nightly\"]\n";

#[test]
fn findings_appear_and_disappear_again() {
    let (_folder, bed) = bed(JOBS);
    let bad = status(&bed, 18);
    has(&bad, "missing", "books", "critical");
    has(&bad, "late", "nightly", "critical");
    assert_eq!(bad["health"], "critical");
    bed.run(&["run"]).done();
    let text = bed.run(&["status"]).done().stdout;
    assert!(text.ends_with("all is well\n"), "{text}");
    let good = status(&bed, 0);
    let source = &good["sources"][0];
    assert_eq!((&source["backups"], &source["full"]), (&1.into(), &1.into()));
    assert!(source["last_drill"].is_string(), "{source}");
    assert!(source["last_drill_rto_seconds"].as_f64().unwrap() > 0.0, "{source}");
    assert_eq!(good["jobs"][0]["job"], "drill");
    assert_eq!(good["jobs"][1]["warning_seconds"], 24 * 3600);
    assert_eq!(good["jobs"][1]["critical_seconds"], 48 * 3600);
    // Another host sees the same in the store.
    let other = Run::of(&bed.on_host(3, &["status", "--json"]).output().unwrap()).done();
    let other: Value = serde_json::from_str(&other.stdout).unwrap();
    for field in ["jobs", "sources"] {
        let ages = |value: &Value| {
            let mut rows = value[field].clone();
            for row in rows.as_array_mut().unwrap() {
                row.as_object_mut().unwrap().remove("age_seconds");
            }
            rows
        };
        assert_eq!(ages(&other), ages(&good));
    }
}

#[test]
fn ages_failures_sizes_quotas_and_stores_are_watched() {
    let (_folder, bed) = bed(JOBS);
    set(&bed, "quota = { main = \"10KiB\" }\nprices = { LOCAL = 1048576.0 }");
    let app = bed.app(None);
    let began = now();
    for days in (2..9).rev() {
        let at = Seed::at(began - Duration::days(days));
        plant(&bed, &app, &Seed { bytes: if days == 2 { 10 } else { 50_000 }, ..at });
    }
    planted::record(&bed, "nightly", began - Duration::days(2), 0);
    for minutes in [30, 20, 10] {
        planted::record(&bed, "nightly", began - Duration::minutes(minutes), 16);
    }
    planted::record(&bed, "drill", began - Duration::days(9), 0);
    planted::record(&bed, "drill", began - Duration::days(1), 13);
    plant(&bed, &app, &Seed::at(began + Duration::days(1)));
    let report = status(&bed, 18);
    has(&report, "failing", "nightly", "critical");
    has(&report, "damage", "drill", "critical");
    has(&report, "size", "books", "warning");
    has(&report, "future", "books", "warning");
    has(&report, "quota", "main", "critical");
    let late = findings(&report);
    assert_eq!(late[&("late".to_owned(), "nightly".to_owned())], "critical");
    // A KiB costs one here.
    let source = &report["sources"][0];
    let (bytes, cost) =
        (source["stored_bytes"].as_u64().unwrap(), source["cost_per_month"].as_f64());
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    let expected = bytes as f64 / 1024.0;
    assert!((cost.unwrap() - expected).abs() < 0.001, "{source}");
    assert!(source["cost_per_month_in_a_year"].as_f64().unwrap() > 0.0);
    // Each backup costs its part.
    let listed = bed.json(&["list"]);
    let each = listed["backups"].as_array().unwrap().iter();
    let each: f64 = each.map(|row| row["cost_per_month"].as_f64().unwrap()).sum();
    assert!((cost.unwrap() - each).abs() < 0.001 && each > 0.0, "{listed}");
    assert!(bed.run(&["list", "--long"]).done().stdout.contains(" a month\n"));
    fs::rename(bed.path("store"), bed.path("away")).unwrap();
    has(&status(&bed, 18), "store", "main", "critical");
    bed.run(&["status"]).failed_in_text(18, "unreachable:");
}

#[test]
fn a_source_without_a_job_is_a_finding() {
    let (_folder, bed) = bed("");
    bed.snapshot("full");
    has(&status(&bed, 0), "unscheduled", "books", "warning");
}

#[test]
fn metrics_match_the_status() {
    let (_folder, bed) = bed(JOBS);
    set(&bed, "metrics_file = \"out/bkp.prom\"");
    let before = now();
    bed.run(&["run"]).done();
    let found = parse(&fs::read_to_string(bed.path("out/bkp.prom")).unwrap());
    let last = found["bkp_last_success_timestamp_seconds{job=\"nightly\",source=\"books\"}"];
    #[expect(clippy::cast_possible_truncation, reason = "seconds")]
    let last = last as i64;
    assert!((before.unix_timestamp()..=now().unix_timestamp()).contains(&last));
    let is = |series: &str, value: f64| {
        assert!((found[series] - value).abs() < f64::EPSILON, "{series}: {found:?}");
    };
    is("bkp_last_run_exit_code{job=\"nightly\",source=\"books\"}", 0.0);
    is("bkp_backups{source=\"books\",store=\"main\"}", 1.0);
    is("bkp_store_up{store=\"main\"}", 1.0);
    is("bkp_outbox_events", 0.0);
    is("bkp_critical_age_seconds{job=\"nightly\",source=\"books\"}", 172_800.0);
    assert_eq!(fs::read_dir(bed.path("out")).unwrap().count(), 1, "no draft is left");
}

/// A store that lost everything, or whose disk is not mounted, is not well, however young its jobs are; and
/// neither is a host that lost its key.
#[test]
fn an_emptied_store_and_a_lost_key_are_critical() {
    let (_folder, bed) = bed(JOBS);
    bed.run(&["run"]).done();
    let (store, aside) = (bed.path("store"), bed.path("aside"));
    fs::rename(&store, &aside).unwrap();
    fs::create_dir(&store).unwrap();
    let report = status(&bed, 18);
    has(&report, "missing", "books", "critical");
    fs::remove_dir(&store).unwrap();
    fs::rename(&aside, &store).unwrap();
    status(&bed, 0);
    fs::rename(bed.path("key"), bed.path("key-away")).unwrap();
    let report = status(&bed, 18);
    assert!(findings(&report).keys().any(|(rule, _)| rule == "key"), "{report:#}");
}

/// A backup that was made by a clock that was ahead is not the newest until that time comes: others are
/// restored and verified before it.
#[test]
fn a_backup_dated_in_the_future_is_not_the_newest() {
    let (_folder, bed) = bed(JOBS);
    let app = bed.app(None);
    let ahead = plant(&bed, &app, &Seed::at(now() + Duration::days(300))).id.to_string();
    let made = bed.snapshot("full");
    for words in [&["verify", "books"][..], &["restore", "books", "--to", "r", "--yes"]] {
        let run = bed.run(words).done();
        assert!(run.stdout.contains(&made), "{}", run.stdout);
        assert!(run.stderr.contains(&ahead), "{}", run.stderr);
    }
}

/// A first store without backups is not all there is.
#[test]
fn an_empty_list_names_the_other_stores() {
    let (folder, bed) = bed("");
    let other = folder.path().join("other");
    fs::create_dir(&other).unwrap();
    crate::support::jobs::add(
        &bed,
        &format!("[store.second]\nurl = \"file://{}\"", other.display()),
    );
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    let both = "[source.books]\nstore = [\"main\", \"second\"]\n";
    fs::write(bed.path("bkp.toml"), config.replace("[source.books]\n", both)).unwrap();
    let listed = bed.run(&["list", "books"]).done().stdout;
    assert!(listed.contains("other stores: second"), "{listed}");
}

/// A store that has a manifest and not what it names has no backup: what is missing of the newest one, or of
/// what it builds on, is seen without reading a byte of it.
#[test]
fn an_incomplete_backup_is_a_finding() {
    let (_folder, bed) = bed(JOBS);
    bed.run(&["run"]).done();
    let base = bed.json(&["list"])["backups"][0]["id"].as_str().unwrap().to_owned();
    bed.snapshot("incremental");
    status(&bed, 0);
    for ending in ["tar.zst.enc", "manifest.json"] {
        let object = bed.object(&base, ending);
        let (aside, rubbish) = (object.with_extension("aside"), bed.path("rubbish"));
        fs::rename(&object, &aside).unwrap();
        has(&status(&bed, 18), "damage", "books", "critical");
        fs::write(&rubbish, "rubbish").unwrap();
        fs::rename(&rubbish, &object).unwrap();
        has(&status(&bed, 18), "damage", "books", "critical");
        fs::rename(&aside, &object).unwrap();
        status(&bed, 0);
    }
}
