//! Beds with a retention, backups of many days in them, and what a cleanup did with those.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use bkp::domain::manifest::Manifest;
use serde_json::Value;
use time::{Duration, OffsetDateTime};

use super::bed::Bed;
use super::planted::{Seed, plant};

/// A bed with a job that makes snapshots of `books`, of which `retention` says what is kept.
pub(crate) fn bed(retention: &str) -> Bed {
    let bed = Bed::new(Path::new("/nowhere/0_0.tigerbeetle"), "");
    add_job(&bed, retention);
    bed
}

pub(crate) fn add_job(bed: &Bed, retention: &str) {
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    let job = format!(
        "[job.nightly]\nrun = \"snapshot\"\nsource = \"books\"\nevery = \"1d\"\nretention = {{ {retention} }}\n"
    );
    fs::write(bed.path("bkp.toml"), config + &job).unwrap();
}

/// Daily backups up to `end`, oldest first: every seventh is full, the others build on the one
/// before.
pub(crate) fn daily(bed: &Bed, days: i64, end: OffsetDateTime) -> Vec<Manifest> {
    let app = bed.app(None);
    let mut made: Vec<Manifest> = Vec::new();
    for day in 0..days {
        let seed = Seed::at(end - Duration::days(days - 1 - day));
        let seed = match made.last() {
            Some(last) if day % 7 != 0 => seed.built_on(last),
            _ => seed,
        };
        made.push(plant(bed, &app, &seed));
    }
    made
}

pub(crate) fn ids(bed: &Bed) -> BTreeSet<String> {
    let listing = bed.json(&["list"]);
    let backups = listing["backups"].as_array().unwrap().iter();
    backups.map(|backup| backup["id"].as_str().unwrap().to_owned()).collect()
}

/// The ids of the items of a report with this action.
pub(crate) fn with(report: &Value, action: &str) -> BTreeSet<String> {
    let items = report["stores"][0]["items"].as_array().unwrap().iter();
    let found = items.filter(|item| item["action"] == action && item["what"] == "backup");
    found.map(|item| item["id"].as_str().unwrap().to_owned()).collect()
}

pub(crate) fn readable(bed: &Bed) {
    if !ids(bed).is_empty() {
        bed.run(&["verify", "--all", "--level", "digest", "-q"]).done();
    }
}
