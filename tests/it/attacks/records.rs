//! Records of runs and leases, planted by someone who can write to the bucket.

use std::fs;
use std::path::PathBuf;

use bkp::domain::id::BackupId;
use bkp::domain::names::{BackupName, BackupType, Scope};
use bkp::domain::record::Record;
use time::{Duration, OffsetDateTime};

use crate::support::bed::Bed;
use crate::support::jobs::{SNAPSHOT, bed, records, with};
use crate::support::planted::{self, Seed, now, plant};
use crate::support::status::{has, status};

/// Plants an object.
fn put(bed: &Bed, key: &str, bytes: &str) {
    let path: PathBuf = bed.path("store").join(key);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Plants an empty record of a run of a job.
fn plant_record(bed: &Bed, job: &str, at: OffsetDateTime, code: u8) {
    put(bed, &Record { id: BackupId::new(at), job: job.into(), code, seconds: 1 }.key(), "");
}

/// Plants an empty manifest.
fn plant_manifest(bed: &Bed, at: OffsetDateTime) {
    let name = BackupName {
        id: BackupId::new(at),
        backup_type: BackupType::Tigerbeetle,
        source: "books".into(),
        scope: Scope::Full,
        kind: "snapshot".into(),
    };
    put(bed, &name.manifest_key(), "");
}

/// Lets the last run on record have been `ago`.
fn age(bed: &Bed, ago: Duration) {
    let id = BackupId::new(now() - ago);
    let path = bed.path("state/cache/jobs.json");
    let known = fs::read_to_string(&path).unwrap();
    let own = records(bed, "nightly").pop().unwrap();
    let begun = own.get(..36).unwrap();
    fs::write(path, known.replace(begun, &id.to_string())).unwrap();
    for file in bed.stored().iter().filter(|file| file.to_str().unwrap().contains(begun)) {
        fs::remove_file(file).unwrap();
    }
}

#[test]
fn records_and_manifests_without_proof_keep_no_job_from_running() {
    let (_folder, bed) = bed(SNAPSHOT);
    assert_eq!(with(&bed.json(&["run"]), "done"), ["nightly"]);
    let own: Vec<PathBuf> = bed.stored();
    age(&bed, Duration::hours(60));
    for file in own.iter().filter(|file| file.to_str().unwrap().contains("/tigerbeetle/")) {
        fs::remove_file(file).unwrap();
    }
    for minute in 1..=60 {
        plant_record(&bed, "nightly", now() - Duration::minutes(minute), 0);
    }
    plant_manifest(&bed, now() - Duration::minutes(1));
    // Status says so, and that the job is late.
    let report = status(&bed, 18);
    has(&report, "late", "nightly", "critical");
    has(&report, "unproven", "nightly", "warning");
    let planned = bed.json(&["run", "--dry-run"]);
    assert_eq!(with(&planned, "due"), ["nightly"], "{planned}");
    assert_eq!(with(&bed.json(&["run"]), "done"), ["nightly"]);
    assert_eq!(with(&bed.json(&["run"]), "done"), Vec::<String>::new(), "it is done");
    // Another host believes the new run, and the planted ones as little.
    let report: serde_json::Value = serde_json::from_str(
        &crate::support::bed::Run::of(&bed.on_host(1, &["run", "--json"]).output().unwrap()).stdout,
    )
    .unwrap();
    assert_eq!(with(&report, "done"), Vec::<String>::new(), "{report}");
}

#[test]
fn planted_failures_hold_no_job_back() {
    let (_folder, bed) = bed(&SNAPSHOT.replace("retry_after = \"1s\"", "retry_after = \"30d\""));
    for minute in 1..=9 {
        plant_record(&bed, "nightly", now() - Duration::minutes(minute), 16);
    }
    assert_eq!(with(&bed.json(&["run"]), "done"), ["nightly"]);
}

#[test]
fn a_planted_success_ends_no_freeze_and_hides_no_damage() {
    let check = "[job.check]\nrun = \"verify\"\nsource = \"books\"\nevery = \"30d\"\n";
    let keep = format!(
        "{SNAPSHOT}retention = {{ keep_last = 1, min_keep = 1, max_removed_percent = 100 }}\n{check}"
    );
    let (_folder, bed) = bed(&keep);
    let app = bed.app(None);
    for hours in [3, 2, 1] {
        plant(&bed, &app, &Seed::at(now() - Duration::hours(hours)));
    }
    planted::record(&bed, "nightly", now() - Duration::hours(1), 0);
    planted::record(&bed, "check", now() - Duration::minutes(50), 13);
    plant_record(&bed, "check", now() - Duration::minutes(10), 0);
    let report = bed.json(&["cleanup", "--dry-run"]);
    let text = report.to_string();
    assert!(!text.contains("\"remove\""), "{text}");
    assert!(text.contains("found damage"), "{text}");
    has(&status(&bed, 18), "damage", "check", "critical");
    // One that is proven does.
    planted::record(&bed, "check", now() - Duration::minutes(5), 0);
    let text = bed.json(&["cleanup", "--dry-run"]).to_string();
    assert!(text.contains("\"remove\""), "{text}");
}

/// The text of a lease of `books` that another host took, of a clock that is ahead by so many seconds.
fn lease(ahead: i64, seconds: i64) -> String {
    let time =
        |at: OffsetDateTime| at.format(&time::format_description::well_known::Rfc3339).unwrap();
    let begun = now() + Duration::seconds(ahead);
    serde_json::json!({
        "schema": "bkp.lease/1", "job": "books", "run": BackupId::new(begun), "host": "h",
        "process": 1, "place": "0", "begun": time(begun), "until": time(begun + Duration::seconds(seconds)),
    })
    .to_string()
}

#[test]
fn planted_leases_stop_no_job_and_use_up_no_numbers() {
    let (_folder, bed) = bed(SNAPSHOT);
    for job in ["nightly.job", "books", "cleanup.all"] {
        put(&bed, &format!("leases/{job}/18446744073709551615"), "");
        put(&bed, &format!("leases/{job}/18446744073709551614"), &lease(0, 3600));
        put(&bed, &format!("leases/{job}/00000000000000000001"), "");
        put(&bed, &format!("leases/{job}/00000000000000000003"), "[");
    }
    for _ in 0..3 {
        let run = bed.run(&["snapshot", "books"]).done();
        assert!(run.stderr.contains("no run can have written it"), "{}", run.stderr);
        assert_eq!(with(&bed.json(&["run", "nightly"]), "done"), ["nightly"]);
        bed.run(&["cleanup"]).done();
    }
    bed.run(&["doctor"]).failed_in_text(14, "leases/books/18446744073709551615");
}

#[test]
fn a_clock_that_was_ahead_and_was_set_back_stops_nobody() {
    let (_folder, bed) = bed("");
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    fs::write(bed.path("bkp.toml"), format!("lease = \"2s\"\n{config}")).unwrap();
    // Its run has ended.
    put(&bed, "leases/books/00000000000000000001", &lease(18_000_000, 0));
    bed.run(&["snapshot", "books"]).done();
    // Its run may go on, until it would have renewed its lease.
    put(&bed, "leases/books/00000000000000000020", &lease(18_000, 2));
    bed.run(&["doctor"]).failed_in_text(14, "s ahead");
    bed.run(&["snapshot", "books"]).failed(11, "s ahead");
    std::thread::sleep(std::time::Duration::from_secs(4));
    bed.run(&["snapshot", "books"]).done();
    bed.run(&["doctor"]).done();
}

/// An export job that names no scope makes full exports, and counts no others.
#[test]
fn an_omitted_key_of_a_job_is_its_documented_default() {
    let omitted = "[job.tables]\nrun = \"export\"\nsource = \"analytics\"\n";
    let written = format!(
        "{omitted}scope = \"full\"\nevery = \"24h\"\nenabled = true\njitter = \"0s\"\nretries = 2\nretry_after = \"5m\"\ntimeout = \"24h\"\nafter = []\nzone = \"UTC\"\n"
    );
    let keep = "retention = { keep_last = 2, min_keep = 1, max_removed_percent = 100 }\n";
    let others = format!(
        "[job.steps]\nrun = \"export\"\nsource = \"analytics\"\nscope = \"incremental\"\nevery = \"24h\"\n{keep}[job.check]\nrun = \"verify\"\nsource = \"analytics\"\n"
    );
    let explicit =
        others.clone() + "level = \"digest\"\nall = false\nfrom_export = false\nevery = \"24h\"\n";
    let source = "[source.analytics]\nkind = \"duckdb\"\npath = \"analytics.duckdb\"";
    let (_folder, bed) = bed(source);
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    let app = bed.app(None);
    let export = |hours, built_on: Option<&bkp::domain::manifest::Manifest>| {
        let at = now() - Duration::hours(hours);
        let seed = Seed { kind: "export", source: "analytics".into(), ..Seed::at(at) };
        plant(&bed, &app, &built_on.map_or(seed.clone(), |built_on| seed.built_on(built_on)))
    };
    let full: Vec<_> = [90, 80, 70, 60].map(|hours| export(hours, None)).into();
    for hours in [50, 40, 30, 20] {
        export(hours, full.last());
    }
    let mut seen = Vec::new();
    for jobs in [format!("{omitted}{keep}{others}"), format!("{written}{keep}{explicit}")] {
        fs::write(bed.path("bkp.toml"), format!("{config}\n{jobs}")).unwrap();
        let plan = bed.json(&["cleanup", "--dry-run"]);
        let due = bed.json(&["run", "--dry-run"]);
        let mut status: serde_json::Value =
            serde_json::from_str(&bed.run(&["status", "--json"]).stdout).unwrap();
        for row in status["jobs"].as_array_mut().unwrap() {
            for gone in ["next", "age_seconds"] {
                row[gone] = serde_json::Value::Null;
            }
        }
        let jobs = with(&due, "due");
        seen.push((plan, jobs, status["jobs"].clone(), status["sources"].clone()));
    }
    assert_eq!(seen[0], seen[1]);
    // Of the full ones the newest two stay, whatever came after them.
    let kept = |id: &str| -> Option<bool> {
        let items = seen[0].0["stores"][0]["items"].as_array().unwrap().iter();
        let of_it = items.filter(|item| item["id"] == id);
        of_it.map(|item| item["action"] == "keep").reduce(|one, other| one && other)
    };
    assert_eq!(kept(&full[2].id.to_string()), Some(true), "{:#}", seen[0].0);
    assert_eq!(kept(&full[1].id.to_string()), Some(false), "{:#}", seen[0].0);
}

#[test]
fn failed_runs_by_hand_are_on_record_with_their_reason() {
    let (folder, bed) = bed(SNAPSHOT);
    bed.run(&["snapshot", "books"]).done();
    fs::rename(folder.path().join("0_0.tigerbeetle"), folder.path().join("away")).unwrap();
    let failed = bed.run(&["snapshot", "books"]);
    assert_ne!(failed.code, Some(0));
    let ran = bed.run(&["run", "nightly", "--json"]);
    assert_eq!(with(&serde_json::from_str(&ran.stdout).unwrap(), "failed"), ["nightly"]);
    bed.run(&["verify", "books"]).done();
    let runs = bed.json(&["list", "--runs"]);
    let rows = runs["runs"].as_array().unwrap();
    let of = |status: &str| rows.iter().filter(|row| row["status"] == status).collect::<Vec<_>>();
    assert_eq!(of("failed").len(), 2, "{runs:#}");
    assert_eq!(of("verified").len(), 1, "{runs:#}");
    for row in of("failed") {
        assert_eq!(row["trigger"], "manual", "{row}");
        assert_eq!(row["exit_code"].as_i64(), failed.code.map(i64::from), "{row}");
        assert!(row["message"].as_str().unwrap().contains("0_0.tigerbeetle"), "{row}");
        assert!(row["user"].is_string() && row["proven"] == true, "{row}");
    }
    let job = bed.json(&["list", "--runs", "--failed", "--job", "nightly"]);
    assert_eq!(job["runs"].as_array().unwrap().len(), 1, "{job:#}");
    let sql = "SELECT count(*) FROM backup_metadata WHERE status = 'failed'";
    let table = bed.json(&["list", "--sql", sql]);
    assert_eq!(table["rows"][0][0], "2", "{table}");
}
