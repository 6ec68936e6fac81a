//! Beds with jobs, what a run of them reports, and their records.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;

use super::bed::Bed;
use super::tb;

/// A bed whose source is a data file that nobody writes, with these jobs.
pub(crate) fn bed(jobs: &str) -> (TempDir, Bed) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("0_0.tigerbeetle");
    tb::format(&file, 0, 1);
    let bed = Bed::new(&file, "");
    // The disk of the machine that runs the tests is nobody's business here.
    add(&bed, &format!("{jobs}\n[status]\nmin_free_percent = 0"));
    (folder, bed)
}

pub(crate) fn add(bed: &Bed, tables: &str) {
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    fs::write(bed.path("bkp.toml"), format!("{config}\n{tables}\n")).unwrap();
}

/// The jobs of a report with this outcome.
pub(crate) fn with(report: &Value, outcome: &str) -> Vec<String> {
    let jobs = report["jobs"].as_array().unwrap().iter();
    let found = jobs.filter(|job| job["outcome"] == outcome);
    found.map(|job| job["job"].as_str().unwrap().to_owned()).collect()
}

/// Names of the records of the runs of a job, without their folders, oldest first.
pub(crate) fn records(bed: &Bed, job: &str) -> Vec<String> {
    let folder = bed.path("store/runs").join(job);
    let stored = bed.stored().into_iter().filter(|path| path.starts_with(&folder));
    let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    let mut names: Vec<String> = stored.map(name).collect();
    names.sort();
    names
}

/// The exit code of a record, as its name has it.
pub(crate) fn code(record: &str) -> &str {
    record.rsplit('-').nth(1).unwrap()
}

pub(crate) const SNAPSHOT: &str =
    "[job.nightly]\nrun = \"snapshot\"\nsource = \"books\"\nevery = \"6h\"\nretry_after = \"1s\"\n";

/// A hook that notes who begins in a file, and waits until another file is there.
pub(crate) fn gate(bed: &Bed, job: &str) -> String {
    let (log, gate) = (bed.path("begun"), bed.path(&format!("go-{job}")));
    format!(
        "[job.{job}.hooks]\nbefore = [\"sh\", \"-c\", \"echo {job} >>{}; until [ -e {} ]; do sleep 0.02; done\"]\ntimeout = \"10m\"\n",
        log.display(),
        gate.display()
    )
}

pub(crate) fn begun(bed: &Bed) -> Vec<String> {
    let log = fs::read_to_string(bed.path("begun")).unwrap_or_default();
    log.lines().map(str::to_owned).collect()
}

/// Takes the source away; the answer brings it back.
pub(crate) fn hide(folder: &std::path::Path) -> impl FnOnce() + use<> {
    let (file, gone) = (folder.join("0_0.tigerbeetle"), folder.join("gone"));
    fs::rename(&file, &gone).unwrap();
    move || fs::rename(&gone, &file).unwrap()
}
