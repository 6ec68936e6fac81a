//! Replicas that run here: `tigerbeetle start --addresses=… FILE`.

use super::cluster::address::loopback_address;
use crate::domain::names::BackupType;
use crate::source::discovery::candidate::{Candidate, absolute};
use crate::source::discovery::finder::Finder;
use crate::source::discovery::processes::Process;

pub(super) const FINDER: Finder = Finder { place: "DATA-FILE", find, at };

const NAME: &str = "books";

fn at(path: &str) -> Candidate {
    Candidate::new(BackupType::Tigerbeetle, NAME, "data_file", absolute(path))
}

fn find(processes: &[Process]) -> Vec<Candidate> {
    processes.iter().filter_map(replica).collect()
}

fn replica(process: &Process) -> Option<Candidate> {
    if process.name() != "tigerbeetle" || process.words.get(1)? != "start" {
        return None;
    }
    let file = process.words.last().filter(|word| !word.starts_with("--"))?;
    let path = process.path(file)?;
    let mut found = at(path.to_str()?);
    let addresses = process.words.iter().find_map(|word| word.strip_prefix("--addresses="))?;
    let addresses: Option<Vec<String>> = addresses.split(',').map(loopback_address).collect();
    if let Some(addresses) = addresses {
        found.keys.insert("addresses".to_owned(), addresses.into());
    }
    if let Some(program) = process.program.as_ref().and_then(|program| program.to_str()) {
        // So the kernel marks a program that was replaced since.
        let program = program.trim_end_matches(" (deleted)");
        found.tools.insert("tigerbeetle".to_owned(), program.into());
    }
    found.evidence = Some(format!("process {}", process.id));
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_is_told_by_its_command_line() {
        let line = "/usr/bin/tigerbeetle start --addresses=0.0.0.0:3001,10.0.0.2 --cache-grid=1GiB /d/0_0.tigerbeetle";
        let found = replica(&Process::of(1, line)).expect("a replica");
        assert_eq!(found.place(), "/d/0_0.tigerbeetle");
        assert_eq!(found.keys["addresses"].to_string(), "[\"127.0.0.1:3001\", \"10.0.0.2:3001\"]");
        for other in [
            "tigerbeetle repl --addresses=3001 --cluster=0",
            "tigerbeetle start --addresses=3001 0_0.tigerbeetle",
            "vim start /d/0_0.tigerbeetle",
            "tigerbeetle",
        ] {
            assert_eq!(replica(&Process::of(1, other)), None, "{other}");
        }
    }
}
