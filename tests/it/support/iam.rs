//! An account of AWS on loopback where policies hold (see `iam/server.py`), with the roles of `examples/aws`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::s3::{Service, tool};

/// The account, and the credentials of its roles.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) service: Service,
    told: Value,
    folder: TempDir,
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

impl Account {
    /// Starts one, with the bucket `acme-backups`, a key, and every role.
    pub(crate) fn start() -> Account {
        let service = Service::start(|port, _folder| {
            let mut command = Command::new(tool("moto/bin/python"));
            command.arg(file("tests/it/support/iam/server.py"));
            command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
            command
        });
        let folder = tempfile::tempdir().unwrap();
        let mut account = Account { service, told: Value::Null, folder };
        let examples = file("examples/aws");
        account.told = account.script(&["set-up", examples.to_str().unwrap()]);
        fs::write(account.folder.path().join("told"), account.told.to_string()).unwrap();
        account
    }

    fn script(&self, words: &[&str]) -> Value {
        let mut command = Command::new(tool("moto/bin/python"));
        command.arg(file("tests/it/support/iam/account.py")).arg(self.service.port.to_string());
        let output = command.args(words).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// What a role can do of all that a thief would try: the names of the attempts that were not refused.
    pub(crate) fn can_do(&self, role: &str) -> Vec<String> {
        let told = self.folder.path().join("told");
        let tried = self.script(&["try", role, told.to_str().unwrap()]);
        let done = tried.as_object().unwrap().iter().filter(|(name, outcome)| {
            assert!(["done", "refused"].contains(&outcome.as_str().unwrap()), "{name}: {outcome}");
            *outcome == "done"
        });
        done.map(|(name, _outcome)| name.clone()).collect()
    }

    /// The key of the backups, as a recipient.
    pub(crate) fn recipient(&self) -> String {
        let key = self.told["key"].as_str().unwrap();
        format!("kms:{key}?endpoint={}", self.service.endpoint())
    }

    /// The lines of a file of the AWS command line for a role.
    pub(crate) fn profile(&self, role: &str) -> String {
        let secret = |at: usize| self.told["roles"][role][at].as_str().unwrap();
        let (id, key, token) = (secret(0), secret(1), secret(2));
        format!(
            "[default]\naws_access_key_id = {id}\naws_secret_access_key = {key}\naws_session_token = {token}\n"
        )
    }
}
