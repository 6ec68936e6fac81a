//! Servers of PostgreSQL, by the sockets that they listen on: `/proc/net/unix` shows them to everybody.

use std::fs;

use crate::domain::names::BackupType;
use crate::source::discovery::candidate::Candidate;
use crate::source::discovery::finder::Finder;
use crate::source::discovery::processes::Process;

pub(super) const FINDER: Finder = Finder { place: "CONNINFO", find, at };

/// The role that backups connect as; bkp-postgres(7) says how it is made.
const ROLE: &str = "bkp";
const PORT: u16 = 5432;

fn at(conninfo: &str) -> Candidate {
    Candidate::new(BackupType::Postgres, "pg", "conninfo", conninfo)
}

fn find(_processes: &[Process]) -> Vec<Candidate> {
    // Without it nothing is found, which is all there is to say.
    let sockets = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let mut paths: Vec<&str> = sockets.lines().filter_map(socket_path).collect();
    paths.sort_unstable();
    paths.dedup();
    paths.into_iter().filter_map(server).collect()
}

/// The path at the end of a line of `/proc/net/unix`, which may contain spaces.
fn socket_path(line: &str) -> Option<&str> {
    line.find('/').and_then(|at| line.get(at..))
}

fn server(path: &str) -> Option<Candidate> {
    let (folder, port) = path.split_once("/.s.PGSQL.")?;
    let port: u16 = port.parse().ok()?;
    // /var/run is /run; the first is what PostgreSQL's own documentation and packages say.
    let port = if port == PORT { String::new() } else { format!(" port={port}") };
    let conninfo = format!("host={}{port} user={ROLE}", quoted(folder));
    Some(Candidate { evidence: Some(format!("socket {path}")), ..at(&conninfo) })
}

/// A value as libpq reads it.
fn quoted(value: &str) -> String {
    if value.chars().all(|c| !c.is_whitespace() && !matches!(c, '\'' | '\\')) {
        return value.to_owned();
    }
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_told_by_its_socket() {
        let line =
            "0000000000000000: 00000002 00000000 00010000 0001 01 31 /run/my pg/.s.PGSQL.5433";
        let found = server(socket_path(line).expect("a path")).expect("a server");
        assert_eq!(found.place(), "host='/run/my pg' port=5433 user=bkp");
        assert_eq!(server("/run/pg/.s.PGSQL.5432").expect("one").place(), "host=/run/pg user=bkp");
        for other in ["/run/pg/.s.PGSQL.5432.lock", "/run/systemd/notify"] {
            assert_eq!(server(other), None);
        }
    }
}
