//! Whether a server is who it says, as libpq decides it.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};

use super::certificate::lone_common_name;

/// The certificates that are believed.
#[derive(Debug)]
pub(super) struct Roots {
    pub(super) chain: Arc<WebPkiServerVerifier>,
    /// The certificates themselves: a server may show one of them, which no chain leads to.
    pub(super) certificates: Vec<CertificateDer<'static>>,
}

/// What is asked of a server's certificate. That the server has its key is checked in any case.
#[derive(Debug)]
pub(super) struct ServerCheck {
    /// `None`: anything will do.
    pub(super) roots: Option<Roots>,
    /// Whether the certificate has to be for the name that the server is called by.
    pub(super) checks_name: bool,
    pub(super) provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ServerCheck {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(roots) = &self.roots else { return Ok(ServerCertVerified::assertion()) };
        if !roots.certificates.iter().any(|root| root == end_entity) {
            let found = roots.chain.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            );
            // The chain comes first: who is told that the name is wrong knows that the rest is right.
            match found {
                Err(Error::InvalidCertificate(
                    CertificateError::NotValidForName
                    | CertificateError::NotValidForNameContext { .. },
                )) => {}
                other => return other,
            }
        }
        if !self.checks_name {
            return Ok(ServerCertVerified::assertion());
        }
        let name = lone_common_name(end_entity);
        if name.is_some_and(|name| is_name(server_name, name)) {
            return Ok(ServerCertVerified::assertion());
        }
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Whether `common_name` is the server's name, or stands for it with a `*` in place of its first label.
fn is_name(server_name: &ServerName<'_>, common_name: &str) -> bool {
    let name = server_name.to_str();
    let rest = name.split_once('.').map(|(_, rest)| rest).filter(|rest| rest.contains('.'));
    let is_dns = matches!(server_name, ServerName::DnsName(_));
    let wildcard = common_name.strip_prefix("*.").filter(|_| is_dns);
    name.eq_ignore_ascii_case(common_name)
        || wildcard.zip(rest).is_some_and(|(pattern, rest)| pattern.eq_ignore_ascii_case(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_one_label() {
        let is =
            |server: &str, common: &str| is_name(&ServerName::try_from(server).unwrap(), common);
        assert!(is("db.example.org", "DB.example.org") && is("db.example.org", "*.example.org"));
        assert!(!is("a.db.example.org", "*.example.org") && !is("example.org", "*.org"));
        assert!(!is("db", "*") && is("127.0.0.1", "127.0.0.1"));
    }
}
