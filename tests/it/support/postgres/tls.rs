//! Certificates for servers that are reached with TLS: made anew in each run, by `openssl`.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail as tests do; clippy sees tests only in marked functions"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::place::{home, own};

/// The role that is let in with a client's certificate, and only so; a test creates it.
pub(crate) const CERTIFIED: &str = "certified";
/// Who may come by the loopback address to a server with TLS.
pub(super) const HBA: &str = "hostssl all,replication certified 127.0.0.1/32 cert\n\
    hostssl all,replication all 127.0.0.1/32 scram-sha-256\n";
/// One name for each kind of thing that a client may compare with.
const SERVER: &str = "subjectAltName=DNS:localhost,IP:127.0.0.1\n";

/// What an authority has signed; `NAME.crt` and `NAME.key` in a folder.
#[derive(Debug)]
pub(crate) struct Certificates {
    folder: PathBuf,
}

/// Those that every server with TLS has: `ca`, `server` and `certified`.
pub(crate) fn certificates() -> &'static Certificates {
    static CERTIFICATES: OnceLock<Certificates> = OnceLock::new();
    CERTIFICATES.get_or_init(Certificates::new)
}

impl Certificates {
    /// Of a new authority, which no server knows.
    pub(crate) fn new() -> Certificates {
        let made = Certificates { folder: home() };
        made.openssl("req -x509 -new -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 -subj /CN=authority -days 3 -keyout ca.key -out ca.crt");
        made.sign("server", SERVER);
        made.sign(CERTIFIED, "extendedKeyUsage=clientAuth\n");
        made
    }

    /// Signs a certificate for a name, with an extension of it.
    pub(crate) fn sign(&self, name: &str, extension: &str) {
        fs::write(self.folder.join("extension"), extension).unwrap();
        self.openssl(&format!("req -new -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 -subj /CN={name} -keyout {name}.key -out {name}.csr"));
        self.openssl(&format!("x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 3 -extfile extension -out {name}.crt"));
        own(&self.folder);
    }

    fn openssl(&self, words: &str) {
        let mut command = Command::new("openssl");
        let output = command.args(words.split(' ')).current_dir(&self.folder).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {words}: {said}");
    }

    /// What a client is told to trust.
    pub(crate) fn authority(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }

    /// The certificate of a name, and its key, which only the servers' user may read.
    pub(crate) fn of(&self, name: &str) -> (PathBuf, PathBuf) {
        (self.folder.join(format!("{name}.crt")), self.folder.join(format!("{name}.key")))
    }
}

/// Puts the server's certificate into its folder; the settings that say so.
pub(super) fn settings(folder: &Path) -> Vec<(String, String)> {
    let certificates = certificates();
    let (certificate, key) = certificates.of("server");
    let files = [
        ("ssl_cert_file", certificate),
        ("ssl_key_file", key),
        ("ssl_ca_file", certificates.authority()),
    ];
    let mut settings = vec![("ssl".to_owned(), "on".to_owned())];
    for (name, from) in files {
        let to = folder.join(from.file_name().unwrap());
        fs::copy(from, &to).unwrap();
        own(&to);
        settings.push((name.to_owned(), to.display().to_string()));
    }
    settings
}
