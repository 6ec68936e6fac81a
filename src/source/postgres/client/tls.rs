//! What rustls is told for one server.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::{self, CryptoProvider};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};

use super::server_check::{Roots, ServerCheck};
use super::tls_settings::{RootCert, SslMode, TlsSettings};

/// What TLS from the first byte on has to agree on.
pub(super) const ALPN: &[u8] = b"postgresql";

/// What is wrong, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TlsProblem {
    pub(super) problem: String,
    pub(super) hint: String,
}

impl TlsProblem {
    fn new(problem: impl Into<String>, hint: impl Into<String>) -> TlsProblem {
        TlsProblem { problem: problem.into(), hint: hint.into() }
    }
}

/// The client's side of a connection with the server that is called `host`; nothing is sent yet.
pub(super) fn session(settings: &TlsSettings, host: &str) -> Result<ClientConnection, TlsProblem> {
    let name = server_name(settings, host)?;
    let config = config(settings)?;
    ClientConnection::new(Arc::new(config), name)
        .map_err(|error| TlsProblem::new(error.to_string(), "see the settings of TLS"))
}

/// The name that the certificate has to have. Where names are of no matter, one that is none will do.
fn server_name(settings: &TlsSettings, host: &str) -> Result<ServerName<'static>, TlsProblem> {
    match ServerName::try_from(host.to_owned()) {
        Ok(name) => Ok(name),
        Err(_odd) if settings.mode < SslMode::VerifyFull => {
            Ok(ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into()))
        }
        Err(_odd) => Err(TlsProblem::new(
            format!("`{host}` is a name that no certificate can have"),
            "connect by a name of the domain name system, or by an address",
        )),
    }
}

fn config(settings: &TlsSettings) -> Result<ClientConfig, TlsProblem> {
    let provider = Arc::new(crypto::ring::default_provider());
    let known: [&'static SupportedProtocolVersion; 2] = [&TLS12, &TLS13];
    let chosen = known.into_iter().zip(settings.versions).filter(|(_, is_chosen)| *is_chosen);
    let versions: Vec<_> = chosen.map(|(version, _)| version).collect();
    let check = ServerCheck {
        roots: roots(&settings.root, &provider)?,
        checks_name: settings.mode == SslMode::VerifyFull,
        provider: Arc::clone(&provider),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions)
        .map_err(|error| TlsProblem::new(error.to_string(), "see ssl_min_protocol_version"))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(check));
    let mut config = match &settings.own {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let (chain, secret) = (certificates(certificate)?, private_key(key)?);
            builder.with_client_auth_cert(chain, secret).map_err(|error| {
                let pair = format!("{} and {}", certificate.display(), key.display());
                TlsProblem::new(
                    format!("{pair}: {error}"),
                    "see that sslkey is the key of the certificate in sslcert",
                )
            })?
        }
    };
    config.enable_sni = settings.names_server;
    if settings.direct {
        config.alpn_protocols = vec![ALPN.to_vec()];
    }
    Ok(config)
}

fn roots(chosen: &RootCert, provider: &Arc<CryptoProvider>) -> Result<Option<Roots>, TlsProblem> {
    let (found, place) = match chosen {
        RootCert::Unchecked => return Ok(None),
        RootCert::File(path) => (certificates(path)?, path.display().to_string()),
        RootCert::System => {
            (rustls_native_certs::load_native_certs().certs, "the system's store".to_owned())
        }
    };
    let mut store = RootCertStore::empty();
    let (added, _ignored) = store.add_parsable_certificates(found.iter().cloned());
    let build = WebPkiServerVerifier::builder_with_provider(store.into(), Arc::clone(provider));
    let chain = build.build().map_err(|error| {
        TlsProblem::new(
            format!("{added} usable certificates in {place}: {error}"),
            "see that the certificates of sslrootcert are in PEM, and of version 3",
        )
    })?;
    // What the system trusts are authorities, and no server.
    let certificates = if *chosen == RootCert::System { Vec::new() } else { found };
    Ok(Some(Roots { chain, certificates }))
}

/// The certificates in a PEM file.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsProblem> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let found: Vec<_> = read.map_err(|error| unreadable(path, error))?;
    if found.is_empty() {
        return Err(unreadable(path, "there is no certificate in it"));
    }
    Ok(found)
}

/// The key in a PEM file, which nobody but its owner may read; the group may if the owner is root.
fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsProblem> {
    let found = std::fs::metadata(path).map_err(|error| unreadable(path, error))?;
    let forbidden = if found.uid() == 0 { 0o037 } else { 0o077 };
    if found.mode() & forbidden != 0 {
        return Err(TlsProblem::new(
            format!("{}: accessible to others (mode {:03o})", path.display(), found.mode() & 0o777),
            format!("chmod 600 {}", path.display()),
        ));
    }
    PrivateKeyDer::from_pem_file(path).map_err(|error| unreadable(path, error))
}

fn unreadable(path: &Path, problem: impl std::fmt::Display) -> TlsProblem {
    let path = path.display();
    TlsProblem::new(
        format!("{path}: {problem}"),
        format!(
            "see that {path} is there, in PEM, and that bkp may read it; keys with a passphrase are not read"
        ),
    )
}
