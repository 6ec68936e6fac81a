//! Key sets: files that may come from anywhere.

use std::path::PathBuf;
use std::sync::LazyLock;

use bkp::ctx::Cancel;
use bkp::domain::id::BackupId;
use bkp::keys::envelope::{self, Envelope};
use bkp::keys::key_set::{self, END_SCHEMA, End, HEAD_SCHEMA, Head};
use bkp::keys::keyring::Keyring;
use bkp::keys::{self, DataKey, Effort};
use tempfile::TempDir;

/// A recovery key and the one data key that was wrapped for it.
struct Keys {
    keyring: Keyring,
    key: DataKey,
    line: Vec<u8>,
    _folder: TempDir,
}

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("key");
    keys::file::generate(&path).unwrap();
    let text = format!("file:{}", path.display());
    let keyring = Keyring::new(vec![keys::kinds::open(&text, &Cancel::default()).unwrap()]);
    let (id, key) = (BackupId::new(super::now()), DataKey::generate().unwrap());
    let recipient = keyring.providers()[0].as_ref();
    let wrapped = envelope::wrap(recipient, &key, (id, "books")).unwrap();
    let envelope = Envelope::new(id, &[0; 32], vec![wrapped], super::now());
    let line = envelope.encode_line(&key, None).unwrap();
    Keys { keyring, key, line, _folder: folder }
});

/// An entry stands where it is said to, and gives the data key that was wrapped or none.
pub(crate) fn run(data: &[u8]) {
    let (mut entries, cancel) = (0, Cancel::default());
    let contents = key_set::read(&mut &*data, &mut |entry| {
        entries += 1;
        let at = usize::try_from(entry.at).unwrap();
        assert_eq!(data.get(at..at + entry.line.len()), Some(entry.line));
        let with = (&KEYS.keyring, Effort::Usual);
        if let Ok(Some(_)) = envelope::open(entry.line, (entry.id, &[0; 32]), with, &cancel) {
            assert!(!envelope::recipients(entry.line, entry.id, &KEYS.key).is_empty());
        }
        Ok(())
    });
    if let Some(contents) = contents.unwrap() {
        assert_eq!(contents.entries, entries);
        assert!(!contents.is_whole() || data.ends_with(b"\n"));
    }
}

/// A whole one, one that is cut off, one of two lines of the same backup, and one with others between them.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let head = Head { schema: HEAD_SCHEMA.into(), at: super::now(), host: "there".into() };
    let head = key_set::line(&head).unwrap();
    let end = |entries| key_set::line(&End { schema: END_SCHEMA.into(), entries }).unwrap();
    let (line, none) = (&KEYS.line, b"{}\n");
    vec![
        [head.as_slice(), line, &end(1)].concat(),
        [head.as_slice(), &line[..line.len() / 2]].concat(),
        [head.as_slice(), line, line, &end(2)].concat(),
        [head.as_slice(), none, line, &end(1), line].concat(),
    ]
}
