//! What a connection string says of TLS.

use std::path::{Path, PathBuf};

use crate::error::{Fault, Kind};

/// Whether the connection is encrypted, and how sure the client has to be of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SslMode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// Whom the client believes who the server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RootCert {
    /// Everybody: the connection is encrypted, but to whom is not known.
    Unchecked,
    /// The certificates in a file.
    File(PathBuf),
    /// Those that the system trusts.
    System,
}

/// What a connection string says of TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TlsSettings {
    pub(super) mode: SslMode,
    /// TLS from the first byte on, without the server being asked.
    pub(super) direct: bool,
    pub(super) root: RootCert,
    /// The client's own certificate, and its key.
    pub(super) own: Option<(PathBuf, PathBuf)>,
    /// Whether the server is told the name that it is called by.
    pub(super) names_server: bool,
    /// Whether TLS 1.2 will do, and 1.3.
    pub(super) versions: [bool; 2],
}

/// Reads the values of the keywords that are about TLS; `home` is where libpq has its files.
///
/// # Errors
/// [`Kind::Config`] for values that are none, and for a file that is missing.
pub(super) fn read<'v>(
    value: &dyn Fn(&str) -> Option<&'v str>,
    home: Option<&Path>,
) -> Result<TlsSettings, Fault> {
    let system = value("sslrootcert") == Some("system");
    let mode = match value("sslmode") {
        None if system => SslMode::VerifyFull,
        Some("disable") => SslMode::Disable,
        Some("allow") => SslMode::Allow,
        None | Some("prefer") => SslMode::Prefer,
        Some("require") => SslMode::Require,
        Some("verify-ca") => SslMode::VerifyCa,
        Some("verify-full") => SslMode::VerifyFull,
        Some(other) => {
            let allowed = "disable, allow, prefer, require, verify-ca or verify-full";
            return Err(invalid("sslmode", other, allowed));
        }
    };
    if system && mode != SslMode::VerifyFull {
        let message = "sslrootcert=system with a weaker sslmode than verify-full";
        let hint = "anybody can have a certificate of such a root: write sslmode=verify-full";
        return Err(Fault::new(Kind::Config, message).hint(hint));
    }
    let direct = match value("sslnegotiation") {
        None | Some("postgres") => false,
        Some("direct") if mode >= SslMode::Require => true,
        Some("direct") => {
            return Err(invalid(
                "sslnegotiation",
                "direct",
                "postgres where sslmode is weaker than require",
            ));
        }
        Some(other) => return Err(invalid("sslnegotiation", other, "postgres or direct")),
    };
    let in_home = |name: &str| home.map(|home| home.join(".postgresql").join(name));
    Ok(TlsSettings {
        mode,
        direct,
        root: root(value("sslrootcert"), mode, in_home("root.crt"))?,
        own: own(value("sslcert"), value("sslkey"), &in_home),
        names_server: value("sslsni") != Some("0"),
        versions: versions(value)?,
    })
}

/// As libpq does: a file that is there is believed in every mode, and those that verify need one.
fn root(named: Option<&str>, mode: SslMode, default: Option<PathBuf>) -> Result<RootCert, Fault> {
    let path = match named {
        Some("system") => return Ok(RootCert::System),
        Some(path) => Some(PathBuf::from(path)),
        None => default,
    };
    if let Some(path) = path.as_ref().filter(|path| path.exists()) {
        return Ok(RootCert::File(path.clone()));
    }
    if mode < SslMode::VerifyCa {
        return Ok(RootCert::Unchecked);
    }
    let place = path.map_or("~/.postgresql/root.crt".to_owned(), |path| path.display().to_string());
    let message =
        format!("no root certificate at {place}, which sslmode=verify-ca and verify-full need");
    let hint = "name one with sslrootcert=PATH, or write sslrootcert=system";
    Err(Fault::new(Kind::Config, message).hint(hint))
}

fn own(
    cert: Option<&str>,
    key: Option<&str>,
    in_home: &dyn Fn(&str) -> Option<PathBuf>,
) -> Option<(PathBuf, PathBuf)> {
    let default = || in_home("postgresql.crt").filter(|path| path.exists());
    let cert = cert.map(PathBuf::from).or_else(default)?;
    let key = key.map(PathBuf::from).or_else(|| in_home("postgresql.key"));
    Some((cert, key?))
}

fn versions<'v>(value: &dyn Fn(&str) -> Option<&'v str>) -> Result<[bool; 2], Fault> {
    let (lowest, highest) = ("ssl_min_protocol_version", "ssl_max_protocol_version");
    let with_12 = match value(lowest) {
        None | Some("TLSv1" | "TLSv1.1" | "TLSv1.2") => true,
        Some("TLSv1.3") => false,
        Some(other) => return Err(invalid(lowest, other, "TLSv1.2 or TLSv1.3")),
    };
    let with_13 = match value(highest) {
        None | Some("TLSv1.3") => true,
        Some("TLSv1.2") if with_12 => false,
        Some(other) => {
            return Err(invalid(
                highest,
                other,
                "TLSv1.2 or TLSv1.3, and no older than the lowest",
            ));
        }
    };
    Ok([with_12, with_13])
}

/// `value` is none of those that `keyword` has.
pub(super) fn invalid(keyword: &str, value: &str, allowed: &str) -> Fault {
    Fault::new(Kind::Config, format!("`{value}` is no value of {keyword} in a connection string"))
        .hint(format!("{keyword} is {allowed}"))
}
