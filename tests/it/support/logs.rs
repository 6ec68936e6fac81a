//! Beds with a change log, and restores to a moment.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::bed::Bed;
use super::books::{self, Books};
use super::tb;

/// A second source: the same cluster, asked instead of read.
pub(crate) const ASKED: &str = "[source.asked.logs]\nmode = \"query\"\n";

/// How long something may take that is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

/// A bed with the sources `books`, whose ring is read, and `asked`.
pub(crate) fn bed(data_file: &Path, addresses: &str, logs: &str) -> Bed {
    let list: Vec<String> = addresses.split(',').map(|one| format!("{one:?}")).collect();
    let list = list.join(", ");
    let more = format!(
        "[source.books.logs]\n{logs}\n[source.asked]\nkind = \"tigerbeetle\"\ndata_file = {data_file:?}\naddresses = [{list}]\n{ASKED}"
    );
    Bed::with(data_file, addresses, &more)
}

/// Restores `source` to a moment and returns the place and the report.
#[track_caller]
pub(crate) fn restore_at(bed: &Bed, source: &str, moment: &[&str]) -> (PathBuf, Value) {
    let name = format!("{source}-{}", moment.join("").replace([':', '-'], ""));
    let target = bed.path(&format!("{name}.tigerbeetle"));
    let words = [&["restore", source, "--yes", "--to", target.to_str().unwrap()], moment].concat();
    (target.clone(), bed.json(&words))
}

/// A time in nanoseconds as the command line takes it.
pub(crate) fn spelled(at: u64) -> String {
    bkp::domain::timestamp::spelled(at).unwrap()
}

/// The only window of a mode.
#[track_caller]
pub(crate) fn window(bed: &Bed, source: &str) -> Value {
    let listed = bed.json(&["list", source, "--windows"]);
    let windows = listed["windows"].as_array().unwrap();
    assert_eq!(windows.len(), 1, "{listed}");
    windows[0].clone()
}

/// Numbers that look random and are the same in every run.
pub(crate) fn numbers(seed: u64, below: u64) -> impl Iterator<Item = u64> {
    let next = |number: &u64| Some(number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99));
    std::iter::successors(Some(seed), next).skip(1).map(move |number| (number >> 33) % below)
}

/// The address of a restored server, which is the only one of its cluster.
pub(crate) fn with_server<T>(data_file: &Path, work: impl FnOnce(&Books) -> T) -> T {
    let server = tb::Server::start_existing(data_file);
    let found = work(&books::open(server.address()));
    std::fs::remove_file(server.stop()).unwrap();
    found
}
