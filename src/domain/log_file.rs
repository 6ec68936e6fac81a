//! Names of the files of a log that a server hands over one by one.
//!
//! ```text
//! <type>/<source>/wal/<stream>/<folder>/<file>.zst.enc    what there are many of, compressed
//! <type>/<source>/wal/<stream>/<file>.enc                 what there are few of
//! ```
//!
//! Such a file exists if and only if its object does: it has no manifest of its own.

use super::names::{BackupType, is_name};

/// The folder of a source that holds them, beside those of its scopes.
pub const LOG_FILES_FOLDER: &str = "wal";
/// Extension of what lies in a folder of the stream.
const COMPRESSED: &str = ".zst.enc";
/// Extension of what does not.
const PLAIN: &str = ".enc";
/// Longest part of a name, bytes.
const PART_BYTES_MAX: usize = 64;

/// What an archived file of a log is called.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogFileName {
    /// The type of the source.
    pub backup_type: BackupType,
    /// The source's name in the configuration.
    pub source: String,
    /// What it is a log of, by the name that the engine gives it.
    pub stream: String,
    /// The folder within the stream, for files of which there are many.
    pub folder: Option<String>,
    /// The name that the server gives the file.
    pub file: String,
}

impl LogFileName {
    /// The prefix of everything of a source.
    #[must_use]
    pub fn prefix(backup_type: BackupType, source: &str) -> String {
        format!("{backup_type}/{source}/{LOG_FILES_FOLDER}")
    }

    /// The key of its object.
    #[must_use]
    pub fn key(&self) -> String {
        let LogFileName { backup_type, source, stream, folder, file } = self;
        let prefix = LogFileName::prefix(*backup_type, source);
        match folder {
            Some(folder) => format!("{prefix}/{stream}/{folder}/{file}{COMPRESSED}"),
            None => format!("{prefix}/{stream}/{file}{PLAIN}"),
        }
    }

    /// Reads a key; `None` for everything that [`LogFileName::key`] would not have printed.
    #[must_use]
    pub fn parse(key: &str) -> Option<LogFileName> {
        let parts: Vec<&str> = key.split('/').collect();
        let (head, tail) = parts.split_at_checked(4)?;
        let [backup_type, source, LOG_FILES_FOLDER, stream] = head else { return None };
        let (folder, file) = match tail {
            [folder, file] => (Some((*folder).to_owned()), file.strip_suffix(COMPRESSED)?),
            [file] => (None, file.strip_suffix(PLAIN)?),
            _ => return None,
        };
        let is_whole = is_part(stream) && is_part(file) && folder.as_deref().is_none_or(is_part);
        let name = LogFileName {
            backup_type: backup_type.parse().ok()?,
            source: (*source).to_owned(),
            stream: (*stream).to_owned(),
            folder,
            file: file.to_owned(),
        };
        (is_whole && is_name(source) && name.key() == key).then_some(name)
    }

    /// What the header of its object calls it, behind the id: with the source, so that nobody can put the file of one
    /// into the log of another.
    #[must_use]
    pub fn place(&self) -> String {
        let folder = self.folder.as_ref().map(|folder| format!("{folder}/")).unwrap_or_default();
        let prefix = LogFileName::prefix(self.backup_type, &self.source);
        format!("{prefix}/{}/{folder}{}", self.stream, self.file)
    }
}

/// Whether a prefix is in the folder of a source for files of its log.
#[must_use]
pub fn is_of_log_files(prefix: &str) -> bool {
    prefix.split('/').nth(2) == Some(LOG_FILES_FOLDER)
}

/// Whether a text may be a part of such a name.
fn is_part(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    (1..=PART_BYTES_MAX).contains(&text.len())
        && text.bytes().all(plain)
        && text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_reads_as_documented() {
        let name = LogFileName {
            backup_type: BackupType::Postgres,
            source: "pg".into(),
            stream: "7312489563028147712".into(),
            folder: Some("00000001".into()),
            file: "0000000100000000000000A3".into(),
        };
        let key = "postgres/pg/wal/7312489563028147712/00000001/0000000100000000000000A3.zst.enc";
        assert_eq!(name.key(), key);
        assert_eq!(
            name.place(),
            "postgres/pg/wal/7312489563028147712/00000001/0000000100000000000000A3"
        );
        let history = LogFileName { folder: None, file: "00000002.history".into(), ..name };
        assert_eq!(history.key(), "postgres/pg/wal/7312489563028147712/00000002.history.enc");
        for other in ["postgres/pg/full/1/2.enc", "postgres/pg/wal/1/../2.enc", "pg/x/wal/1/2.enc"]
        {
            assert_eq!(LogFileName::parse(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn keys_parse_what_they_print(
            stream in "[0-9]{1,20}", folder in prop::option::of("[0-9A-F]{8}"), file in "[0-9A-F]{24}(\\.[a-z]{3,8})?"
        ) {
            let (backup_type, source) = (BackupType::Postgres, "pg".to_owned());
            let name = LogFileName { backup_type, source, stream, folder, file };
            prop_assert_eq!(LogFileName::parse(&name.key()), Some(name));
        }

        #[test]
        fn no_text_makes_it_fail(text in "(/|[a-z0-9.]{1,9}){0,9}") {
            if let Some(name) = LogFileName::parse(&text) {
                prop_assert_eq!(name.key(), text);
            }
        }
    }
}
