//! Two stores of which one fails: missing copies are found, and an unreachable store is not healthy.

use std::fs;
use std::path::Path;

use serde_json::Value;
use time::Duration;

use crate::support::bed::Bed;
use crate::support::jobs::{add, bed as of_jobs, code, with};
use crate::support::planted::{Seed, now, plant_below, record_below};
use crate::support::status::{findings, has, parse, set, status};
use crate::support::web::Web;

/// A bed whose source goes to two folders.
fn bed(jobs: &str) -> (tempfile::TempDir, Bed) {
    let (folder, bed) = of_jobs(jobs);
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    fs::create_dir(bed.path("second")).unwrap();
    let second =
        format!("[store.second]\nurl = \"file://{}\"\n[keys]", bed.path("second").display());
    let both = "kind = \"tigerbeetle\"\nstore = [\"main\", \"second\"]";
    let config = config.replace("[keys]", &second).replace("kind = \"tigerbeetle\"", both);
    fs::write(bed.path("bkp.toml"), config).unwrap();
    (folder, bed)
}

fn finding<'r>(report: &'r Value, rule: &str) -> Vec<&'r Value> {
    let all = report["findings"].as_array().unwrap().iter();
    all.filter(|finding| finding["rule"] == rule).collect()
}

const NIGHTLY: &str = "[job.nightly]\nrun = \"snapshot\"\nsource = \"books\"\nevery = \"6h\"\nretention = { keep_daily = 7 }\n[job.tidy]\nrun = \"cleanup\"\nenabled = true\n";

#[test]
fn a_store_without_copies_is_named_although_runs_are_partial() {
    let (_folder, bed) = bed(NIGHTLY);
    let app = bed.app(None);
    let began = now();
    for days in 0..4 {
        let at = began - Duration::days(days) - Duration::minutes(1);
        let seed = Seed::at(at);
        plant_below(&bed, "store", &app, &seed);
        if days == 3 {
            plant_below(&bed, "second", &app, &seed);
        }
        for store in ["store", "second"] {
            record_below(&bed, store, "nightly", at, if days == 3 { 0 } else { 3 });
        }
    }
    record_below(&bed, "store", "tidy", began - Duration::minutes(1), 0);
    let report = status(&bed, 18);
    has(&report, "copy", "nightly", "critical");
    has(&report, "partial", "nightly", "critical");
    has(&report, "frozen", "nightly", "warning");
    let copy = finding(&report, "copy");
    assert_eq!((copy.len(), &copy[0]["store"]), (1, &"second".into()), "{report:#}");
    assert!(finding(&report, "late").is_empty(), "{report:#}");
    let text = bed.run(&["status"]).stdout;
    assert!(
        text.contains("critical: nightly in second: last success in `second` was 72 h"),
        "{text}"
    );
}

#[test]
fn no_series_is_there_twice_whatever_is_wrong_in_two_stores() {
    let (_folder, bed) = bed("[job.books]\nrun = \"cleanup\"\n");
    set(&bed, "metrics_file = \"bkp.prom\"");
    let app = bed.app(None);
    let began = now();
    // Several findings of one level about one source in both, and a job of the source's name.
    for folder in ["store", "second"] {
        for days in [70, 60, 50, 40, 2] {
            let bytes = if days == 2 { 90_000 } else { 10_000 };
            let seed = Seed { bytes, ..Seed::at(began - Duration::days(days)) };
            plant_below(&bed, folder, &app, &seed);
        }
        plant_below(&bed, folder, &app, &Seed::at(began + Duration::days(1)));
    }
    let report = status(&bed, 18);
    assert!(finding(&report, "growth").len() + finding(&report, "size").len() >= 2, "{report:#}");
    assert_eq!(finding(&report, "future").len(), 2);
    let metrics = parse(&fs::read_to_string(bed.path("bkp.prom")).unwrap());
    for store in ["main", "second"] {
        let series = format!(
            "bkp_finding{{rule=\"future\",subject=\"books\",store=\"{store}\",level=\"warning\"}}"
        );
        assert!(metrics.contains_key(&series), "{series}: {metrics:?}");
        let series = format!("bkp_cost_per_month_in_a_year{{source=\"books\",store=\"{store}\"}}");
        assert!(metrics.contains_key(&series), "{series}: {metrics:?}");
    }
}

/// What a channel was told, as level, rule, subject and whether it is over.
fn told(web: &Web) -> Vec<(String, String, bool)> {
    let bodies = web.heard().into_iter().map(|(_, body)| body);
    let alerts = bodies.flat_map(|body| {
        let news: Value = serde_json::from_str(&body).unwrap();
        news["alerts"].as_array().unwrap().clone()
    });
    let text = |alert: &Value, field: &str| alert[field].as_str().unwrap_or_default().to_owned();
    let alerts = alerts.map(|alert| {
        let about = format!("{} {}", text(&alert, "subject"), text(&alert, "store"));
        (text(&alert, "rule"), about, alert["recovered"] == true)
    });
    let mut told: Vec<_> = alerts.collect();
    told.sort();
    told
}

#[test]
fn an_unreachable_store_is_not_a_recovery() {
    let web = Web::start();
    let jobs = "[job.nightly]\nrun = \"snapshot\"\nsource = \"books\"\nevery = \"6h\"\n[job.tick]\nrun = \"verify\"\nsource = \"books\"\nlevel = \"exists\"\nenabled = false\n";
    let (_folder, bed) = bed(jobs);
    bed.run(&["run"]).done();
    // A backup in the second store has lost its objects.
    let gone = fs::read_dir(bed.path("second/tigerbeetle/books/full")).unwrap();
    drop(gone);
    let lost = lose(&bed.path("second/tigerbeetle"));
    assert!(lost > 0);
    add(&bed, &format!("[notify.hook]\nkind = \"webhook\"\nurl = \"{}\"\n", web.url("alerts")));
    // A run on demand, so that people are told.
    let tell = || drop(bed.run(&["run", "tick"]));
    tell();
    let damage = ("damage".to_owned(), "books second".to_owned(), false);
    assert!(told(&web).contains(&damage));
    fs::rename(bed.path("second"), bed.path("away")).unwrap();
    tell();
    let heard = told(&web);
    assert!(heard.contains(&("store".into(), "second ".into(), false)), "{heard:?}");
    assert!(!heard.iter().any(|(_, _, recovered)| *recovered), "{heard:?}");
    fs::rename(bed.path("away"), bed.path("second")).unwrap();
    tell();
    let heard = told(&web);
    assert!(heard.contains(&("store".into(), "second ".into(), true)), "{heard:?}");
    assert!(!heard.iter().any(|(rule, _, _)| rule == "damage"), "it is still so: {heard:?}");
}

/// Removes every object of every backup, but no manifest.
fn lose(folder: &Path) -> usize {
    let mut lost = 0;
    for item in fs::read_dir(folder).unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() {
            lost += lose(&path);
        } else if !path.to_str().unwrap().ends_with(".manifest.json") {
            fs::remove_file(path).unwrap();
            lost += 1;
        }
    }
    lost
}

#[test]
fn every_store_is_verified_and_has_its_own_outcome() {
    let jobs = "[job.nightly]\nrun = \"snapshot\"\nsource = \"books\"\nevery = \"6h\"\n[job.check]\nrun = \"verify\"\nsource = \"books\"\nlevel = \"digest\"\nall = true\nretries = 0\nafter = [\"nightly\"]\n";
    let (_folder, bed) = bed(jobs);
    bed.snapshot("full");
    bed.run(&["run", "nightly"]).done();
    bed.run(&["run", "check"]).done();
    let verified = |report: &Value| -> Vec<bool> {
        let rows = report["sources"].as_array().unwrap().iter();
        rows.map(|row| row["last_verify"].is_string()).collect()
    };
    assert_eq!(verified(&status(&bed, 0)), [true, true]);
    // A byte of the older backup, in the second store alone.
    let mut objects = Vec::new();
    data(&bed.path("second/tigerbeetle"), &mut objects);
    objects.sort();
    let mut bytes = fs::read(&objects[0]).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&objects[0], bytes).unwrap();
    let run = bed.run(&["run", "check", "--json"]);
    assert_eq!(run.code, Some(13), "{}{}", run.stdout, run.stderr);
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(with(&report, "failed"), ["check"]);
    assert_eq!((last_code(&bed, "store"), last_code(&bed, "second")), ("0".into(), "13".into()));
    has(&status(&bed, 18), "damage", "check", "critical");
    // Chosen on the command line, too.
    let both = ["run", "check", "--store", "main", "--store", "second"];
    assert_eq!(bed.run(&both).code, Some(13));
    bed.run(&["run", "check", "--store", "main"]).done();
    let found = findings(&status(&bed, 18));
    assert!(found.contains_key(&("damage".into(), "check".into())), "{found:?}");
}

/// Every data object.
fn data(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for item in fs::read_dir(folder).unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() {
            data(&path, found);
        } else if path.to_str().unwrap().ends_with(".tar.zst.enc") {
            found.push(path);
        }
    }
}

/// The exit code of the newest run of `check`, as a store has it on record.
fn last_code(bed: &Bed, store: &str) -> String {
    let mut names = Vec::new();
    let mut folders = vec![bed.path(store).join("runs/check")];
    while let Some(folder) = folders.pop() {
        for item in fs::read_dir(folder).unwrap() {
            let path = item.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                names.push(path.file_name().unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    names.sort();
    code(names.last().unwrap()).to_owned()
}
