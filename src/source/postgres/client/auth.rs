//! Shows the server who is there.

use bytes::BytesMut;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{
    ChannelBinding as Binding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256,
};
use postgres_protocol::message::frontend;
use zeroize::Zeroizing;

use super::connection::Connection;
use super::conninfo::ChannelBinding;
use super::error::ClientError;
use super::message::{Challenge, Garbled, challenge};

/// Who is there.
pub(super) struct Login {
    pub(super) user: String,
    pub(super) password: Option<Zeroizing<Vec<u8>>>,
    pub(super) channel_binding: ChannelBinding,
}

/// How far the server has proved itself by SCRAM.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Proof {
    None,
    /// It knows the password.
    Scram,
    /// It knows the password, and nobody stands in between.
    Bound,
}

/// What a request of the server asks for, taken out of the buffer.
enum Request {
    Done,
    Cleartext,
    Md5([u8; 4]),
    Sasl(Vec<String>),
    Other(String),
}

/// Answers what the server asks until it lets us in.
///
/// # Errors
/// [`ClientError::Server`] if it does not; [`ClientError::Refused`] for what must not be sent, and for a server
/// that cannot prove that it knows the password.
pub(super) fn authenticate(connection: &mut Connection, login: &Login) -> Result<(), ClientError> {
    let mut proof = Proof::None;
    loop {
        match request(connection)? {
            Request::Done => break,
            Request::Cleartext if connection.stream.is_confidential() => {
                let mut message = BytesMut::new();
                let password = password(connection, login)?;
                let built = frontend::password_message(&password, &mut message);
                built.map_err(|error| connection.protocol(error.to_string()))?;
                let sent = connection.stream.write_all(&message);
                message.fill(0);
                sent?;
            }
            Request::Cleartext => {
                return Err(refused(
                    connection,
                    "the server asks for the password in clear over a connection without TLS",
                    "write sslmode=verify-full in `conninfo`, or scram-sha-256 in pg_hba.conf",
                ));
            }
            Request::Md5(salt) => {
                let password = password(connection, login)?;
                let hash = Zeroizing::new(md5_hash(login.user.as_bytes(), &password, salt));
                let mut message = BytesMut::new();
                let built = frontend::password_message(hash.as_bytes(), &mut message);
                built.map_err(|error| connection.protocol(error.to_string()))?;
                connection.stream.write_all(&message)?;
            }
            Request::Sasl(mechanisms) => proof = scram(connection, login, &mechanisms)?,
            Request::Other(what) => {
                return Err(refused(
                    connection,
                    &format!("the server asks for {what}"),
                    "write scram-sha-256, md5, password, cert, peer or trust in pg_hba.conf",
                ));
            }
        }
    }
    if login.channel_binding == ChannelBinding::Require && proof != Proof::Bound {
        return Err(refused(
            connection,
            "channel_binding=require, but the server let us in without it",
            "write scram-sha-256 in pg_hba.conf, and have the server use TLS",
        ));
    }
    Ok(())
}

fn request(connection: &mut Connection) -> Result<Request, ClientError> {
    let (tag, range) = connection.receive()?;
    if tag != b'R' {
        return Err(connection.unexpected(tag));
    }
    let found = challenge(connection.body(range));
    Ok(match found.map_err(|Garbled| connection.garbled("a request for authentication"))? {
        Challenge::Done => Request::Done,
        Challenge::Cleartext => Request::Cleartext,
        Challenge::Md5(salt) => Request::Md5(salt),
        Challenge::Sasl(names) => Request::Sasl(names.into_iter().map(str::to_owned).collect()),
        Challenge::SaslContinue(_) | Challenge::SaslFinal(_) => {
            return Err(connection.protocol("an answer in an exchange that was not begun"));
        }
        Challenge::Other(6) => Request::Other("SCM credentials".to_owned()),
        Challenge::Other(7..=9) => Request::Other("Kerberos (gss or sspi)".to_owned()),
        Challenge::Other(number) => Request::Other(format!("authentication of kind {number}")),
    })
}

fn refused(connection: &Connection, problem: &str, hint: &str) -> ClientError {
    let host = connection.host().to_owned();
    ClientError::Refused { host, problem: problem.to_owned(), hint: hint.to_owned() }
}

fn password(connection: &Connection, login: &Login) -> Result<Zeroizing<Vec<u8>>, ClientError> {
    login.password.clone().ok_or_else(|| {
        let problem =
            format!("the server asks for the password of {}, and there is none", login.user);
        refused(connection, &problem, "set `password` of the source, PGPASSFILE or ~/.pgpass")
    })
}

/// The exchange by which each side proves that it knows the password, without sending it.
fn scram(
    connection: &mut Connection,
    login: &Login,
    mechanisms: &[String],
) -> Result<Proof, ClientError> {
    let (mechanism, binding) = choose(connection, login.channel_binding, mechanisms)?;
    let proof = if mechanism == SCRAM_SHA_256_PLUS { Proof::Bound } else { Proof::Scram };
    let mut exchange = ScramSha256::new(&password(connection, login)?, binding);
    let mut message = BytesMut::new();
    frontend::sasl_initial_response(mechanism, exchange.message(), &mut message)
        .map_err(|error| connection.protocol(error.to_string()))?;
    connection.stream.write_all(&message)?;

    let impostor = |connection: &Connection, problem: std::io::Error| {
        refused(
            connection,
            &format!(
                "the server does not prove that it knows the password of {}: {problem}",
                login.user
            ),
            "see that `password` is right, and that this is the server it claims to be",
        )
    };
    let first = sasl_answer(connection, false)?;
    exchange.update(&first).map_err(|problem| impostor(connection, problem))?;
    message.clear();
    frontend::sasl_response(exchange.message(), &mut message)
        .map_err(|error| connection.protocol(error.to_string()))?;
    connection.stream.write_all(&message)?;
    let last = sasl_answer(connection, true)?;
    exchange.finish(&last).map_err(|problem| impostor(connection, problem))?;
    Ok(proof)
}

/// With channel binding if both sides can, and saying so where only the server cannot: then a server that could
/// notices that somebody in between took the offer away.
fn choose(
    connection: &Connection,
    wish: ChannelBinding,
    mechanisms: &[String],
) -> Result<(&'static str, Binding), ClientError> {
    let offers = |name: &str| mechanisms.iter().any(|offer| offer == name);
    let end_point = connection.stream.end_point().filter(|_| wish != ChannelBinding::Disable);
    match end_point {
        Some(hash) if offers(SCRAM_SHA_256_PLUS) => {
            Ok((SCRAM_SHA_256_PLUS, Binding::tls_server_end_point(hash)))
        }
        _ if wish == ChannelBinding::Require => Err(refused(
            connection,
            "channel_binding=require, but the server does not offer it on this connection",
            "have the server use TLS with a certificate that is signed with SHA-2, and write sslmode=require or more",
        )),
        Some(_) if offers(SCRAM_SHA_256) => Ok((SCRAM_SHA_256, Binding::unrequested())),
        None if offers(SCRAM_SHA_256) => Ok((SCRAM_SHA_256, Binding::unsupported())),
        _ => Err(refused(
            connection,
            &format!("the server asks for {}", mechanisms.join(" or ")),
            "write scram-sha-256 in pg_hba.conf",
        )),
    }
}

/// The server's next part of the exchange.
fn sasl_answer(connection: &mut Connection, is_last: bool) -> Result<Vec<u8>, ClientError> {
    let (tag, range) = connection.receive()?;
    if tag != b'R' {
        return Err(connection.unexpected(tag));
    }
    match challenge(connection.body(range)) {
        Ok(Challenge::SaslContinue(bytes)) if !is_last => Ok(bytes.to_vec()),
        Ok(Challenge::SaslFinal(bytes)) if is_last => Ok(bytes.to_vec()),
        _ => Err(connection.protocol("an answer that does not fit the exchange of SCRAM")),
    }
}
