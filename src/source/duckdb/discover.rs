//! Databases of DuckDB that a process has open.

use std::path::Path;

use crate::domain::names::BackupType;
use crate::source::discovery::candidate::{Candidate, absolute, name_of};
use crate::source::discovery::finder::Finder;
use crate::source::discovery::processes::Process;

pub(super) const FINDER: Finder = Finder { place: "FILE", find, at };

fn at(path: &str) -> Candidate {
    Candidate::new(BackupType::Duckdb, &name_of(path, "analytics"), "path", absolute(path))
}

fn find(processes: &[Process]) -> Vec<Candidate> {
    let of = |process: &Process| {
        let databases = process.files.iter().filter(|path| is_database(path));
        let found = databases.filter_map(|path| {
            let evidence = Some(format!("open in process {}", process.id));
            Some(Candidate { evidence, ..at(path.to_str()?) })
        });
        found.collect::<Vec<_>>()
    };
    processes.iter().flat_map(of).collect()
}

/// The names that DuckDB's own documentation gives to its files.
fn is_database(path: &Path) -> bool {
    path.is_absolute() && path.extension().is_some_and(|end| end == "duckdb" || end == "ddb")
}
