//! How a server is reached, whether it runs or not: its own programs, and where it listens.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail as tests do; clippy sees tests only in marked functions"
)]

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use super::Version;
use super::place::as_user;

/// The role that may all, through the socket without a password.
pub(crate) const SUPERUSER: &str = "postgres";
/// The role that may copy the server, and its password, which it needs on the loopback address.
pub(crate) const REPLICATOR: &str = "replicator";
pub(crate) const PASSWORD: &str = "pass word'\\ä";

/// One server's door.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    pub(super) version: Version,
    /// The folder of the server; its socket is there.
    pub(super) home: PathBuf,
    pub(super) port: u16,
}

impl Access {
    pub(crate) fn version(&self) -> Version {
        self.version
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// For the superuser, through the socket.
    pub(crate) fn conninfo(&self) -> String {
        let home = self.home.display();
        format!("host={home} port={} user={SUPERUSER} dbname=postgres", self.port)
    }

    /// For the role that needs [`PASSWORD`], by the loopback address; the password is not in it.
    pub(crate) fn conninfo_by_password(&self) -> String {
        format!("host=127.0.0.1 port={} user={REPLICATOR} dbname=postgres", self.port)
    }

    /// One of the programs of the server's version; it reaches the server unless it is told otherwise.
    pub(crate) fn program(&self, name: &str) -> Command {
        let mut command = as_user(&self.version.program(name), &self.home);
        command.env("PGHOST", &self.home).env("PGPORT", self.port.to_string());
        command.env("PGUSER", SUPERUSER).env("PGDATABASE", "postgres");
        command
    }

    /// Runs a program; what it printed, or what it complained of.
    pub(crate) fn run(&self, name: &str, words: &[&str]) -> Result<String, String> {
        answer(&self.program(name).args(words).output().unwrap())
    }

    /// Runs statements in `database`, one after the other; the rows, columns with `|` between them.
    pub(crate) fn try_sql(&self, database: &str, statements: &str) -> Result<String, String> {
        let mut command = self.program("psql");
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", database]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut psql = command.spawn().unwrap();
        // Fails only if psql has ended already, and then it says why.
        let _told = psql.stdin.take().unwrap().write_all(statements.as_bytes());
        answer(&psql.wait_with_output().unwrap())
    }

    #[track_caller]
    pub(crate) fn sql_in(&self, database: &str, statements: &str) -> String {
        let answer = self.try_sql(database, statements);
        answer.unwrap_or_else(|error| panic!("{statements}: {error}"))
    }

    #[track_caller]
    pub(crate) fn sql(&self, statements: &str) -> String {
        self.sql_in("postgres", statements)
    }
}

fn answer(output: &Output) -> Result<String, String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}
