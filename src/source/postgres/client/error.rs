//! What can go wrong between bkp and a server.

use std::fmt;
use std::io;

use crate::error::{Classify, Fault, Kind, diagnosed};

/// What the server says is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PgError {
    /// `ERROR`, `FATAL` or `PANIC`; of notices also `WARNING`, `NOTICE` and so on. Never translated.
    pub severity: String,
    /// The five characters of the SQLSTATE.
    pub sqlstate: String,
    /// The message, in the language of the server.
    pub message: String,
    /// The rest of it.
    pub detail: Option<String>,
    /// What the server suggests.
    pub server_hint: Option<String>,
    /// The host that says it, as messages name it.
    pub host: String,
    /// Who asked for it.
    pub user: String,
    /// The warnings that came before it in the same command, the first few: they name damaged pages.
    pub warnings: Vec<String>,
}

impl PgError {
    /// Whether the server ends the connection with it.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        self.severity != "ERROR"
    }
}

impl fmt::Display for PgError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PgError { severity, sqlstate, message, host, user, .. } = self;
        write!(f, "PostgreSQL at {host} answers {user}: {severity}: {message} ({sqlstate})")?;
        if let Some(detail) = &self.detail {
            write!(f, "; {}", detail.replace('\n', "; "))?;
        }
        Ok(())
    }
}

impl std::error::Error for PgError {}

/// Why a server could not be asked, or what it answered with.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server refuses.
    #[error(transparent)]
    Server(Box<PgError>),
    /// There is no connection.
    #[error("cannot connect to PostgreSQL at {host}: {problem}")]
    Unreachable {
        /// The host.
        host: String,
        /// What the system says.
        problem: io::Error,
    },
    /// The connection broke.
    #[error("the connection to PostgreSQL at {host} broke: {problem}")]
    Lost {
        /// The host.
        host: String,
        /// What the system says.
        problem: io::Error,
    },
    /// Nothing came, or nothing was taken, for too long.
    #[error("PostgreSQL at {host} has been silent for {seconds} s")]
    Silent {
        /// The host.
        host: String,
        /// For how long.
        seconds: u64,
    },
    /// The server does not speak the protocol, or not in this order.
    #[error("PostgreSQL at {host}: {problem}")]
    Protocol {
        /// The host.
        host: String,
        /// What is wrong with the answer.
        problem: String,
    },
    /// The client's own settings forbid to go on.
    #[error("PostgreSQL at {host}: {problem}")]
    Refused {
        /// The host.
        host: String,
        /// What is forbidden.
        problem: String,
        /// What to do.
        hint: String,
    },
    /// What is to be sent could not be read.
    #[error("cannot read what is sent to PostgreSQL at {host}: {problem}")]
    Input {
        /// The host.
        host: String,
        /// What the reader says.
        problem: io::Error,
    },
    /// The run is to stop.
    #[error(transparent)]
    Stopped(#[from] Fault),
}

impl ClientError {
    /// The server's SQLSTATE, if it is the server who refuses.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        if let ClientError::Server(error) = self { Some(&error.sqlstate) } else { None }
    }

    /// Whether the same might work a little later: the server is away, starting, full or silent.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            ClientError::Server(error) => {
                let states = ["57P01", "57P02", "57P03", "53300", "55006", "08006"];
                states.contains(&&*error.sqlstate)
            }
            ClientError::Unreachable { .. }
            | ClientError::Lost { .. }
            | ClientError::Silent { .. } => true,
            ClientError::Protocol { .. }
            | ClientError::Refused { .. }
            | ClientError::Input { .. }
            | ClientError::Stopped(_) => false,
        }
    }

    /// What `host` sent is not what the protocol says.
    pub(super) fn protocol(host: &str, problem: impl Into<String>) -> ClientError {
        ClientError::Protocol { host: host.to_owned(), problem: problem.into() }
    }
}

impl Classify for ClientError {
    fn kind(&self) -> Kind {
        if let ClientError::Stopped(fault) = self { fault.kind() } else { Kind::Source }
    }

    fn hint(&self) -> Option<String> {
        match self {
            ClientError::Server(error) => error.hint(),
            ClientError::Unreachable { host, problem } => Some(unreachable_hint(host, problem)),
            ClientError::Lost { host, .. } => Some(format!(
                "look into the log of the server at {host}: it was stopped, or the network was cut; run the same command again"
            )),
            ClientError::Silent { host, .. } => Some(format!(
                "see whether the server at {host} hangs, or something between drops packets; run the same command again"
            )),
            ClientError::Protocol { host, .. } => Some(format!(
                "see that {host} is a PostgreSQL server from 15 to 18 itself, and no pooler: those do not pass replication on"
            )),
            ClientError::Refused { hint, .. } => Some(hint.clone()),
            ClientError::Input { .. } => None,
            ClientError::Stopped(fault) => fault.hint(),
        }
    }
}

diagnosed!(ClientError);

impl Classify for PgError {
    fn kind(&self) -> Kind {
        Kind::Source
    }

    fn hint(&self) -> Option<String> {
        let PgError { host, user, .. } = self;
        let own = match &*self.sqlstate {
            "28P01" => format!("see that `password` is that of the role {user} at {host}"),
            "28000" => format!(
                "see that pg_hba.conf of {host} has a line for the role {user} and this host, for the database `replication` too, and that the role may log in: ALTER ROLE {} LOGIN REPLICATION; a line with `cert` needs sslcert and sslkey in `conninfo`",
                quote_identifier(user)
            ),
            "42501" => format!(
                "as a superuser run: ALTER ROLE {} REPLICATION; for queries also: GRANT pg_monitor TO {0}",
                quote_identifier(user)
            ),
            "3D000" => "name a database that exists with dbname= in `conninfo`".to_owned(),
            "53300" => format!(
                "raise max_wal_senders or max_connections of {host}, or stop what uses them up"
            ),
            "53400" => {
                format!("raise max_replication_slots of {host}, or drop a slot that nobody uses")
            }
            "57P03" => {
                format!("wait until the server at {host} is up, and run the same command again")
            }
            "57P01" | "57P02" => {
                format!("the server at {host} was stopped; start it and run the same command again")
            }
            "58P01" => format!(
                "{host} no longer has this file of its log: make a base backup, and let it keep more (max_slot_wal_keep_size, wal_keep_size)"
            ),
            "XX001" | "XX002" => self.damage_hint(),
            _ => return self.server_hint.clone(),
        };
        Some(own)
    }
}

impl PgError {
    fn damage_hint(&self) -> String {
        let pages = self.warnings.join("; ");
        let which = if pages.is_empty() { String::new() } else { format!(" ({pages})") };
        format!(
            "a page on the server's disk is damaged{which}: look at that disk, and restore the newest backup that is whole beside the server before anything else is written"
        )
    }
}

diagnosed!(PgError);

/// An identifier as SQL has it.
#[must_use]
pub fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn unreachable_hint(host: &str, problem: &io::Error) -> String {
    let hints = [
        (
            io::ErrorKind::ConnectionRefused,
            format!(
                "see that the server at {host} runs and listens there (listen_addresses, port)"
            ),
        ),
        (
            io::ErrorKind::NotFound,
            format!(
                "see that the server runs, and that {host} is where it is (for a socket: unix_socket_directories)"
            ),
        ),
        (
            io::ErrorKind::TimedOut,
            format!(
                "see that nothing between drops packets to {host}, or raise connect_timeout in `conninfo`"
            ),
        ),
        (
            io::ErrorKind::PermissionDenied,
            format!("run bkp as a user that may open {host}, or connect over TCP"),
        ),
    ];
    let fitting = hints.into_iter().find(|(kind, _)| *kind == problem.kind());
    let any = || format!("see that {host} is spelt right, and can be reached from here");
    fitting.map_or_else(any, |(_, hint)| hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::diagnose;

    #[test]
    fn hints_fit_what_the_server_says() {
        let error = |sqlstate: &str| PgError {
            severity: "ERROR".into(),
            sqlstate: sqlstate.into(),
            host: "db1:5432".into(),
            user: "bkp".into(),
            warnings: vec!["checksum verification failed in file \"base/5/1\", block 3".into()],
            ..PgError::default()
        };
        for (state, part) in [
            ("28P01", "role bkp at db1:5432"),
            ("42501", "ALTER ROLE \"bkp\" REPLICATION"),
            ("XX001", "base/5/1\", block 3"),
        ] {
            let found = diagnose(&ClientError::Server(Box::new(error(state))).into());
            assert_eq!(found.kind, Kind::Source);
            assert!(found.hint.contains(part), "{}", found.hint);
        }
    }
}
