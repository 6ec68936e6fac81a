//! From a connection string to a server that waits for commands.

use std::io;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use postgres_protocol::message::frontend;

use super::auth::{Login, authenticate};
use super::connection::Connection;
use super::conninfo::{Conninfo, Endpoint, TargetSession};
use super::dial::dial;
use super::error::ClientError;
use super::stream::{Heard, Stream};
use super::tls;
use super::tls_settings::SslMode;
use crate::ctx::Ctx;

/// What the connection is for.
#[derive(Debug, Clone)]
pub struct Purpose {
    /// Whether it is for physical replication: base backups, the log, slots, `SHOW`, but no SQL.
    pub replication: bool,
    /// The database, if not that of the connection string; of no matter to replication.
    pub database: Option<String>,
    /// How long the server may say nothing and take nothing before it counts as dead.
    pub silence: Duration,
}

/// Whether a try uses TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cover {
    Plain,
    /// TLS if the server has it.
    Offered,
    Tls,
}

impl Connection {
    /// Connects to the first place of `conninfo` that answers and will do.
    ///
    /// # Errors
    /// Of several places that cannot be reached, [`ClientError::Unreachable`] with what each of them fails with. A
    /// server that refuses the login ends the search, as with libpq: [`ClientError::Server`] or
    /// [`ClientError::Refused`].
    pub fn connect(
        conninfo: &Conninfo,
        purpose: &Purpose,
        ctx: &Ctx,
    ) -> Result<Connection, ClientError> {
        let targets: &[TargetSession] = match conninfo.target {
            TargetSession::PreferStandby => &[TargetSession::Standby, TargetSession::Any],
            TargetSession::Any
            | TargetSession::ReadWrite
            | TargetSession::ReadOnly
            | TargetSession::Primary
            | TargetSession::Standby => &[conninfo.target],
        };
        let mut failures = Vec::new();
        for target in targets {
            failures.clear();
            for place in &conninfo.endpoints {
                let found = open(place, conninfo, purpose, ctx);
                match found.and_then(|connection| fitting(connection, *target)) {
                    Ok(connection) => return Ok(connection),
                    Err(Attempt::Failed(error)) if error.is_transient() => failures.push(error),
                    Err(Attempt::Failed(error)) => return Err(error),
                    Err(Attempt::Unfit(error)) => failures.push(error),
                }
            }
        }
        Err(together(failures, conninfo))
    }
}

/// Why a place was not taken.
enum Attempt {
    Failed(ClientError),
    /// It answers, but is not what is looked for.
    Unfit(ClientError),
}

impl From<ClientError> for Attempt {
    fn from(error: ClientError) -> Attempt {
        Attempt::Failed(error)
    }
}

/// The failures of all places as one. The last kind of error is as good as any; the texts are all there.
fn together(mut failures: Vec<ClientError>, conninfo: &Conninfo) -> ClientError {
    let hosts: Vec<String> = conninfo.endpoints.iter().map(Endpoint::to_string).collect();
    let text = |error: &ClientError| match error {
        ClientError::Unreachable { host, problem } => format!("{host}: {problem}"),
        ClientError::Server(_)
        | ClientError::Lost { .. }
        | ClientError::Silent { .. }
        | ClientError::Protocol { .. }
        | ClientError::Refused { .. }
        | ClientError::Input { .. }
        | ClientError::Stopped(_) => error.to_string(),
    };
    let texts: Vec<String> = failures.iter().map(text).collect();
    let last = failures.pop();
    match last {
        Some(error) if failures.is_empty() => error,
        last => {
            let kind = match last {
                Some(ClientError::Unreachable { problem, .. }) => problem.kind(),
                _ => io::ErrorKind::Other,
            };
            let problem = io::Error::new(kind, texts.join("; "));
            ClientError::Unreachable { host: hosts.join(", "), problem }
        }
    }
}

/// Connects to one place, the ways that sslmode allows, one after the other.
fn open(
    place: &Endpoint,
    conninfo: &Conninfo,
    purpose: &Purpose,
    ctx: &Ctx,
) -> Result<Connection, Attempt> {
    let covers: &[Cover] = match conninfo.tls.mode {
        _ if place.socket().is_some() => &[Cover::Plain],
        SslMode::Disable => &[Cover::Plain],
        SslMode::Allow => &[Cover::Plain, Cover::Tls],
        SslMode::Prefer => &[Cover::Offered, Cover::Plain],
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => &[Cover::Tls],
    };
    let mut first = None;
    for cover in covers {
        match try_open(place, *cover, conninfo, purpose, ctx) {
            Ok(connection) => return Ok(connection),
            // What the other way would not change.
            Err(error) if !is_about_cover(&error) => return Err(first.unwrap_or(error).into()),
            Err(error) => first = first.or(Some(error)),
        }
    }
    let nothing = || ClientError::protocol(&place.to_string(), "no way to connect is allowed");
    Err(first.unwrap_or_else(nothing).into())
}

/// Whether a connection that is encrypted, or one that is not, might fare better.
fn is_about_cover(error: &ClientError) -> bool {
    match error {
        ClientError::Server(error) => error.sqlstate == "28000",
        ClientError::Lost { .. } => true,
        ClientError::Refused { .. }
        | ClientError::Unreachable { .. }
        | ClientError::Silent { .. }
        | ClientError::Protocol { .. }
        | ClientError::Input { .. }
        | ClientError::Stopped(_) => false,
    }
}

fn try_open(
    place: &Endpoint,
    cover: Cover,
    conninfo: &Conninfo,
    purpose: &Purpose,
    ctx: &Ctx,
) -> Result<Connection, ClientError> {
    let patience = conninfo.connect_timeout;
    let io = dial(place, &conninfo.keepalive, patience, ctx)?;
    let mut stream = Stream::new(io, place.to_string(), patience, ctx)?;
    if cover != Cover::Plain {
        stream = encrypted(stream, place, cover, conninfo)?;
    }
    let mut connection = Connection::new(stream, conninfo.user.clone(), place.clone());
    start(&mut connection, place, conninfo, purpose)?;
    connection.set_silence(purpose.silence);
    Ok(connection)
}

/// Asks the server for TLS and begins it.
fn encrypted(
    mut stream: Stream,
    place: &Endpoint,
    cover: Cover,
    conninfo: &Conninfo,
) -> Result<Stream, ClientError> {
    let refused = |problem: String, hint: String| {
        let host = place.to_string();
        ClientError::Refused { host, problem, hint }
    };
    if !conninfo.tls.direct {
        let mut message = BytesMut::new();
        frontend::ssl_request(&mut message);
        stream.write_all(&message)?;
        let mut answer = [0];
        let until = Instant::now() + stream.silence;
        // One byte and no more: what follows it belongs to TLS.
        match (stream.read(&mut answer, until)?, answer) {
            (Heard::Nothing, _) => return Err(stream.silent()),
            (Heard::Bytes(_), [b'S']) => {}
            (Heard::Bytes(_), [b'N']) if cover == Cover::Offered => return Ok(stream),
            (Heard::Bytes(_), [b'N']) => {
                let hint = "set ssl = on and a certificate on the server, or write sslmode=disable if the way to it is safe";
                return Err(refused(
                    "the server has no TLS, which sslmode asks for".into(),
                    hint.into(),
                ));
            }
            (Heard::Bytes(_), _) => {
                return Err(ClientError::protocol(&stream.host, "no answer to the wish for TLS"));
            }
        }
    }
    let session = tls::session(&conninfo.tls, &place.host);
    let session = session.map_err(|tls| refused(tls.problem, tls.hint))?;
    let stream = stream.into_tls(session).map_err(|error| untrusted(error, conninfo))?;
    if conninfo.tls.direct && stream.alpn() != Some(tls::ALPN) {
        return Err(ClientError::protocol(&stream.host, "a TLS server that is not PostgreSQL"));
    }
    Ok(stream)
}

/// A handshake that rustls broke off, said as what it is: nothing that another try would change. Where encryption
/// is only preferred, the connection counts as broken, so that it is tried without.
fn untrusted(error: ClientError, conninfo: &Conninfo) -> ClientError {
    let ClientError::Lost { host, problem } = error else { return error };
    let broken_off = problem.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match broken_off {
        Some(reason) if conninfo.tls.mode >= SslMode::Require => {
            let hint = "see that sslrootcert is the authority of the server's certificate, and that the certificate is for the name in host=";
            ClientError::Refused { host, problem: format!("TLS: {reason}"), hint: hint.to_owned() }
        }
        _ => ClientError::Lost { host, problem },
    }
}

/// Introduces us, and waits until the server waits for a command.
fn start(
    connection: &mut Connection,
    place: &Endpoint,
    conninfo: &Conninfo,
    purpose: &Purpose,
) -> Result<(), ClientError> {
    let database = purpose.database.as_deref().unwrap_or(&conninfo.database);
    let mut parameters = vec![
        ("user", &*conninfo.user),
        ("client_encoding", "UTF8"),
        ("DateStyle", "ISO"),
        ("application_name", "bkp"),
    ];
    parameters.push(if purpose.replication {
        ("replication", "true")
    } else {
        ("database", database)
    });
    parameters.extend(conninfo.options.as_deref().map(|options| ("options", options)));
    let mut message = BytesMut::new();
    frontend::startup_message(parameters, &mut message)
        .map_err(|error| connection.protocol(error.to_string()))?;
    connection.stream.write_all(&message)?;
    let in_file = if purpose.replication { "replication" } else { database };
    let login = Login {
        user: conninfo.user.clone(),
        password: conninfo.password(place, in_file),
        channel_binding: conninfo.channel_binding,
    };
    authenticate(connection, &login)?;
    while !connection.is_ready() {
        match connection.receive()?.0 {
            b'K' | b'Z' | b'v' => {}
            other => return Err(connection.unexpected(other)),
        }
    }
    Ok(())
}

/// Whether the server is what is looked for. All supported versions say so at the start.
fn fitting(connection: Connection, target: TargetSession) -> Result<Connection, Attempt> {
    let is_on = |name: &str| connection.parameter(name) == Some("on");
    let in_recovery = is_on("in_hot_standby");
    let read_only = in_recovery || is_on("default_transaction_read_only");
    let (fits, lacking) = match target {
        TargetSession::Any | TargetSession::PreferStandby => (true, ""),
        TargetSession::ReadWrite => (!read_only, "sessions here may not write"),
        TargetSession::ReadOnly => (read_only, "sessions here may write"),
        TargetSession::Primary => (!in_recovery, "this is a standby"),
        TargetSession::Standby => (in_recovery, "this is no standby"),
    };
    if fits {
        return Ok(connection);
    }
    let hint = "name another host in `conninfo`, or change its target_session_attrs".to_owned();
    let host = connection.host().to_owned();
    Err(Attempt::Unfit(ClientError::Refused { host, problem: lacking.to_owned(), hint }))
}
