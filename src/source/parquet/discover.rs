//! Folders of Parquet files. Nothing tells one that matters from another: it has to be named.

use crate::domain::names::BackupType;
use crate::source::discovery::candidate::{Candidate, absolute, name_of};
use crate::source::discovery::finder::Finder;

pub(super) const FINDER: Finder = Finder { place: "FOLDER", find: |_processes| Vec::new(), at };

fn at(path: &str) -> Candidate {
    Candidate::new(BackupType::Parquet, &name_of(path, "files"), "path", absolute(path))
}
