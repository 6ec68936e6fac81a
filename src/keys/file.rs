//! Recipient `file:PATH`: a random key in a text file; `credential:NAME`: the same in a credential
//! of systemd.
//!
//! Lines that begin with `#` are comments; one line is the key: `BKP-KEY-1-` and 32 bytes in
//! base64. The key's id is the beginning of a hash of it, so two copies of a file are one key.

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::{DataKey, Effort, KeyError, KeyProvider, RecipientKind, secret, wrap};
use crate::ctx::Cancel;
use crate::domain::id::BackupId;
use crate::domain::key_facts::{KeyFacts, KeyState};
use crate::domain::manifest::hex;
use crate::domain::recipient::Recipient;

/// The line of [`super::kinds::RECIPIENTS`].
pub const KIND: RecipientKind = RecipientKind { prefix: "file", check: |_text| Ok(()), open };

const LINE_PREFIX: &str = "BKP-KEY-1-";
const ID_CONTEXT: &[u8] = b"bkp key id";
const ID_BYTES: usize = 8;
const KEY_BYTES: usize = 32;

/// A key that was read from a file.
struct KeyFile {
    origin: String,
    id: String,
    key: Zeroizing<[u8; KEY_BYTES]>,
    /// When the file was written.
    created: Option<OffsetDateTime>,
}

/// The same from a systemd credential, which is private by other means than its mode.
pub const CREDENTIAL: RecipientKind =
    RecipientKind { prefix: "credential", check: |_text| Ok(()), open: open_credential };

fn open(path: &str, _cancel: &Cancel) -> Result<Box<dyn KeyProvider>, KeyError> {
    let origin = format!("file:{path}");
    let text = secret::read_private(Path::new(path), &origin).map_err(|error| match error {
        KeyError::Unusable { origin, problem, hint: _ } if !Path::new(path).exists() => {
            let hint = format!(
                "put it there; `bkp keys generate {path}` creates a new key file, which opens no existing backup"
            );
            KeyError::Unusable { origin, problem, hint: Some(hint) }
        }
        other @ (KeyError::Unusable { .. } | KeyError::Unknown { .. } | KeyError::Forbidden { .. } | KeyError::Away { .. } | KeyError::Spent { .. } | KeyError::Wrong { .. } | KeyError::NoneFits { .. } | KeyError::Sealed { .. } | KeyError::Random | KeyError::Stopped(_)) => other,
    })?;
    let written = Path::new(path).metadata().and_then(|found| found.modified());
    read(&text, origin, written.ok().map(OffsetDateTime::from))
}

fn open_credential(name: &str, _cancel: &Cancel) -> Result<Box<dyn KeyProvider>, KeyError> {
    let origin = format!("credential:{name}");
    let text = secret::read_credential(name, &origin)?;
    read(&text, origin, None)
}

fn read(
    text: &[u8],
    origin: String,
    created: Option<OffsetDateTime>,
) -> Result<Box<dyn KeyProvider>, KeyError> {
    let Some(key) = parse(text, LINE_PREFIX) else {
        let hint =
            "restore this file from a copy; `bkp keys generate` creates a new one".to_owned();
        let problem = format!("not a key file: it needs one line `{LINE_PREFIX}...`");
        return Err(KeyError::Unusable { origin, problem, hint: Some(hint) });
    };
    Ok(Box::new(KeyFile { origin, id: id(&key), key, created }))
}

/// The one line of a file with a key that is not empty and no comment; `None` if there are several.
pub(super) fn only_line(text: &[u8]) -> Option<&str> {
    let lines = str::from_utf8(text).ok()?.lines().map(str::trim);
    let mut lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.next().filter(|_| lines.next().is_none())
}

/// The key in a key file whose line has this prefix; `None` unless there is exactly one and nothing else but
/// comments.
pub(super) fn parse(text: &[u8], prefix: &str) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
    let line = only_line(text)?.strip_prefix(prefix)?;
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    // `decode_slice` wants room for a whole group beyond the key.
    let mut decoded = Zeroizing::new([0; KEY_BYTES + 4]);
    let length = BASE64.decode_slice(line, decoded.as_mut_slice()).ok()?;
    if length != KEY_BYTES {
        return None;
    }
    key.copy_from_slice(decoded.get(..KEY_BYTES)?);
    Some(key)
}

fn id(key: &[u8; KEY_BYTES]) -> String {
    let hash = Sha256::new().chain_update(ID_CONTEXT).chain_update(key).finalize();
    hex(hash.get(..ID_BYTES).unwrap_or_default())
}

impl KeyProvider for KeyFile {
    fn kind(&self) -> &'static str {
        KIND.prefix
    }

    fn origin(&self) -> &str {
        &self.origin
    }

    fn facts(&self) -> Result<KeyFacts, KeyError> {
        let (id, created) = (Some(self.id.clone()), self.created);
        Ok(KeyFacts { id, created, state: KeyState::Usable })
    }

    fn wrap(&self, key: &DataKey, id: BackupId, _source: &str) -> Result<Recipient, KeyError> {
        Ok(Recipient {
            kind: KIND.prefix.to_owned(),
            id: self.id.clone(),
            wrapped: wrap::wrap(&self.key, key, id)?,
            parameters: serde_json::Map::new(),
        })
    }

    fn matches(&self, recipient: &Recipient) -> bool {
        recipient.kind == KIND.prefix && recipient.id == self.id
    }

    fn open(
        &self,
        recipient: &Recipient,
        id: BackupId,
        _effort: Effort,
    ) -> Result<DataKey, KeyError> {
        wrap::unwrap(&self.key, &recipient.wrapped, id, &self.origin)
    }
}

impl fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyFile").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Makes a new key file at `path`, mode 0600, and returns the key's id. A missing folder is made,
/// mode 0700. Both are durable when this returns.
///
/// # Errors
/// [`KeyError::Unusable`] if something stands at `path` (a key is never overwritten) or it cannot
/// be written; [`KeyError::Random`].
pub fn generate(path: &Path) -> Result<String, KeyError> {
    let key = DataKey::generate()?;
    let key_id = id(&key.0);
    let encoded = Zeroizing::new(BASE64.encode(key.0));
    let text = Zeroizing::new(format!(
        "# bkp key {key_id}\n\
         # Whoever has this line can open every backup that was sealed for it. Without a copy in a\n\
         # second place, losing this file loses those backups.\n\
         {LINE_PREFIX}{}\n",
        encoded.as_str()
    ));
    create_key(path, text.as_bytes())?;
    Ok(key_id)
}

/// Makes a new file of this content with a key in it, mode 0600, durably.
///
/// # Errors
/// As [`generate`].
pub(super) fn create_key(path: &Path, content: &[u8]) -> Result<(), KeyError> {
    create(path, content).map_err(|error| KeyError::Unusable {
        origin: format!("file:{}", path.display()),
        problem: error.to_string(),
        hint: (error.kind() == io::ErrorKind::AlreadyExists)
            .then(|| "keys are never overwritten: use this one, or choose another path".to_owned()),
    })
}

fn create(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or_else(|| Path::new("."));
    let made: Vec<&Path> = folder.ancestors().take_while(|above| !above.exists()).collect();
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    if let Err(error) = written {
        // A file without a whole key must not be taken for one later. It is ours: it is new.
        let _best_effort = std::fs::remove_file(path);
        return Err(error);
    }
    // The entry of the file, then those of the folders that were made for it.
    File::open(folder)?.sync_all()?;
    for above in made.into_iter().filter_map(Path::parent) {
        let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
        File::open(above)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;
    use time::macros::datetime;

    #[test]
    fn a_generated_key_is_private_and_wraps() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/key");
        let made = generate(&path).unwrap();
        assert_eq!(made.len(), 16);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(path.parent().unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o700);

        let provider =
            super::super::kinds::open(&format!("file:{}", path.display()), &Cancel::default())
                .unwrap();
        let id = BackupId::new(datetime!(2026-11-21 02:00:00 UTC));
        let key = DataKey([4; 32]);
        let recipient = provider.wrap(&key, id, "books").unwrap();
        assert_eq!((recipient.kind.as_str(), &recipient.id), ("file", &made));
        assert!(provider.matches(&recipient));
        assert_eq!(provider.unwrap(&recipient, id).unwrap().0, key.0);
    }

    #[test]
    fn a_key_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        generate(&path).unwrap();
        let before = std::fs::read(&path).unwrap();
        assert!(matches!(generate(&path), Err(KeyError::Unusable { hint: Some(_), .. })));
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }

    #[test]
    fn only_one_whole_key_is_a_key_file() {
        let line = format!("{LINE_PREFIX}{}", BASE64.encode([1; 32]));
        assert!(parse(format!("# c\n\n  {line}\r\n").as_bytes(), LINE_PREFIX).is_some());
        let short = format!("{LINE_PREFIX}{}", BASE64.encode([1; 31]));
        let long = format!("{LINE_PREFIX}{}", BASE64.encode([1; 33]));
        for text in [
            String::new(),
            "# c".into(),
            format!("{line}\n{line}"),
            format!("x\n{line}"),
            short,
            long,
        ] {
            assert!(parse(text.as_bytes(), LINE_PREFIX).is_none(), "{text}");
        }
        assert!(parse(&[0xFF, 0xFE], LINE_PREFIX).is_none());
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        generate(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let error =
            super::super::kinds::open(&format!("file:{}", path.display()), &Cancel::default())
                .err()
                .unwrap();
        assert!(
            matches!(error, KeyError::Unusable { hint: Some(hint), .. } if hint.contains("chmod 600"))
        );
    }
}
