//! A dump into an empty database: of the server that a restore is for, or of one of ours.

use std::fs::File;
use std::io::Write as _;
use std::num::NonZero;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::selection::Selected;
use super::unpack::UnpackedDump;
use crate::error::{Fault, Kind};

/// Most connections that a restore uses at a time, where nobody says otherwise.
const JOBS_MAX: usize = 4;

/// How a dump is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LoadMethod {
    /// In one transaction: a failure leaves the database as it was.
    OneTransaction,
    /// Over several connections: whoever made the database drops it after a failure.
    Parallel,
}

/// Loads what was selected of a dump. `run` runs a program that finds the server by itself, with these words.
///
/// # Errors
/// What `run` fails with: at the first error. [`Kind::Failed`] if the list of entries cannot be written.
pub(crate) fn load(
    dump: &UnpackedDump,
    selected: &Selected<'_>,
    (dbname, method): (&str, LoadMethod),
    with_tablespaces: bool,
    run: &dyn Fn(&str, &[&str]) -> anyhow::Result<String>,
) -> anyhow::Result<()> {
    let list = dump.path.with_extension("list");
    let mut words = vec![
        format!("--dbname={dbname}"),
        "--no-password".to_owned(),
        "--exit-on-error".to_owned(),
    ];
    words.push(match method {
        LoadMethod::OneTransaction => "--single-transaction".to_owned(),
        LoadMethod::Parallel => format!("--jobs={}", jobs()),
    });
    if !with_tablespaces {
        words.push("--no-tablespaces".to_owned());
    }
    if !selected.is_all {
        write_list(&list, &selected.list())?;
        words.push(format!("--use-list={}", list.display()));
    }
    words.push(dump.path.display().to_string());
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    run("pg_restore", &words).map(drop)
}

fn jobs() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get).min(JOBS_MAX)
}

fn write_list(path: &Path, list: &str) -> Result<(), Fault> {
    // The program may run as another user; the list is nothing but numbers.
    let opened = File::options().write(true).create(true).truncate(true).mode(0o644).open(path);
    opened.and_then(|mut file| file.write_all(list.as_bytes())).map_err(|error| {
        Fault::new(Kind::Failed, format!("cannot write {}: {error}", path.display()))
            .hint("make room in state_dir")
    })
}
