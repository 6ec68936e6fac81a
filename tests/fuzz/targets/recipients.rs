//! Wrapped data keys, as they stand in manifests and headers: tried before anything is authentic.

use std::path::PathBuf;
use std::sync::LazyLock;

use bkp::ctx::Cancel;
use bkp::domain::id::BackupId;
use bkp::domain::recipient::Recipient;
use bkp::error::{Kind, diagnose};
use bkp::keys::keyring::{self, Keyring};
use bkp::keys::{self, DataKey};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A key file that no recipient here was wrapped for, and a passphrase.
struct Keys {
    providers: Keyring,
    _folder: TempDir,
}

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| -> PathBuf { folder.path().join(name) };
    keys::file::generate(&path("key")).unwrap();
    keys::file::generate(&path("words")).unwrap();
    let open = |text: String| keys::kinds::open(&text, &Cancel::default()).unwrap();
    let providers = Keyring::new(vec![
        open(format!("file:{}", path("key").display())),
        open(format!("passphrase:file:{}", path("words").display())),
    ]);
    Keys { providers, _folder: folder }
});

/// Whether a passphrase would be derived for it, which takes a good part of a second by design.
fn is_costly(recipient: &Recipient) -> bool {
    let rounds = recipient.parameters.get("rounds").and_then(Value::as_u64);
    recipient.kind == "passphrase" && rounds.is_some_and(|rounds| rounds >= 600_000)
}

/// A recipient reads the same after it was printed, and opens nothing.
pub(crate) fn run(data: &[u8]) {
    let Ok(recipients) = serde_json::from_slice::<Vec<Recipient>>(data) else { return };
    let printed = serde_json::to_vec(&recipients).unwrap();
    let again = serde_json::from_slice::<Vec<Recipient>>(&printed).unwrap();
    assert_eq!(again.len(), recipients.len());
    let id: BackupId = "01935a3c-7a00-7abc-8def-0123456789ab".parse().unwrap();
    let cheap: Vec<Recipient> =
        recipients.into_iter().filter(|recipient| !is_costly(recipient)).collect();
    match keyring::unwrap_any(&KEYS.providers, &cheap, id, &Cancel::default()) {
        Ok(_) => panic!("it opened a key that nobody wrapped"),
        Err(error) => assert_eq!(diagnose(&error).kind, Kind::Key, "{error:#}"),
    }
}

/// Recipients of every kind, and the key file's own id with a key that it did not wrap.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let file = &KEYS.providers.providers()[0];
    let key = DataKey::generate().unwrap();
    let other: BackupId = "01935a3c-7a01-7abc-8def-0123456789ab".parse().unwrap();
    let wrapped = file.wrap(&key, other, "books").unwrap();
    let passphrase = |salt: &str, rounds: u64| {
        json!({
            "kind": "passphrase", "id": "passphrase", "wrapped": wrapped.wrapped,
            "kdf": "pbkdf2-hmac-sha256", "salt": salt, "rounds": rounds,
        })
    };
    let kms = json!({
        "kind": "kms", "id": "arn:aws:kms:eu-central-1:111122223333:key/1", "wrapped": "AAAA",
        "region": "eu-central-1",
    });
    [
        json!([wrapped]),
        json!([passphrase("AQEBAQEBAQEBAQEBAQEBAQ==", 599_999), passphrase("", 0)]),
        json!([kms, wrapped, passphrase("AQEBAQEBAQEBAQEBAQEBAQ==", 1)]),
        json!([]),
    ]
    .map(|value| serde_json::to_vec(&value).unwrap())
    .to_vec()
}
