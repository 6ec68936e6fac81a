//! Backup types, scopes, and the grammar of keys in a store.
//!
//! ```text
//! <type>/<source>/<scope>/<YYYY>/<MM>/<DD>/<type>-<kind>-<id>.<extension>
//! ```
//!
//! Dates are UTC and are those in the id. `manifest.json` is the extension of the sidecar
//! manifest; every other object of a backup differs from it only in the extension.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::Date;

use super::id::BackupId;

/// What kind of system a backup came from.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum BackupType {
    /// A TigerBeetle replica.
    Tigerbeetle,
    /// A DuckDB database.
    Duckdb,
    /// A directory of Parquet files.
    Parquet,
    /// A PostgreSQL server.
    Postgres,
    /// A set of wrapped data keys.
    Kms,
}

impl BackupType {
    /// Every type.
    pub const ALL: [BackupType; 5] = [
        BackupType::Tigerbeetle,
        BackupType::Duckdb,
        BackupType::Parquet,
        BackupType::Postgres,
        BackupType::Kms,
    ];

    /// The word in keys and manifests.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            BackupType::Tigerbeetle => "tigerbeetle",
            BackupType::Duckdb => "duckdb",
            BackupType::Parquet => "parquet",
            BackupType::Postgres => "postgres",
            BackupType::Kms => "kms",
        }
    }

    /// The `kind` of such a source in a configuration.
    #[must_use]
    pub fn source_kind(self) -> &'static str {
        match self {
            BackupType::Kms => "keys",
            BackupType::Tigerbeetle
            | BackupType::Duckdb
            | BackupType::Parquet
            | BackupType::Postgres => self.as_str(),
        }
    }
}

/// How much of the source a backup holds by itself.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Everything.
    Full,
    /// What changed since the previous backup.
    Incremental,
    /// What changed since the last full backup.
    Differential,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Scope; 3] = [Scope::Full, Scope::Incremental, Scope::Differential];

    /// The word in keys, manifests and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Scope::Full => "full",
            Scope::Incremental => "incremental",
            Scope::Differential => "differential",
        }
    }

    /// The word with its article, for messages.
    #[must_use]
    pub fn with_article(self) -> &'static str {
        match self {
            Scope::Full => "a full",
            Scope::Incremental => "an incremental",
            Scope::Differential => "a differential",
        }
    }
}

/// The text is none of the words that the grammar knows in this place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {what}")]
pub struct UnknownWord {
    what: &'static str,
    text: String,
}

impl FromStr for BackupType {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        let found = BackupType::ALL.into_iter().find(|kind| kind.as_str() == text);
        found.ok_or_else(|| UnknownWord { what: "backup type", text: text.to_owned() })
    }
}

impl FromStr for Scope {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        let found = Scope::ALL.into_iter().find(|scope| scope.as_str() == text);
        found.ok_or_else(|| UnknownWord { what: "scope", text: text.to_owned() })
    }
}

impl fmt::Display for BackupType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Extension of a manifest.
pub const MANIFEST_EXTENSION: &str = "manifest.json";

/// A small object beside a backup that says something of it without being a part of it. Nothing in a
/// store is ever overwritten, so each is a new one. A listing shows that something was said; what counts
/// of it, only what stands in it can tell: `crate::ops::annotations`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mark {
    /// No retention may remove it: `pin-<id>.json`.
    Pin(MarkNumber),
    /// It may again: `unpin-<id>.json`.
    Unpin(MarkNumber),
    /// Somebody has written something about it: `note-<id>.json`.
    Note(MarkNumber),
    /// A verification has found it damaged: `damaged-<id>.json`.
    Damaged(MarkNumber),
    /// A later one has found it whole: `sound-<id>.json`.
    Sound(MarkNumber),
    /// Its data key, wrapped for further recipients: `wrapped-<id>.json`.
    Wrapped(MarkNumber),
    /// It is being removed: `deleting.json`.
    Deleting,
}

/// Which of the marks of one kind, in the order in which they were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MarkNumber {
    /// Those of earlier versions count, with four digits: whoever took the last number ended that.
    Number(u16),
    /// Made at a time, and like no other.
    Made(BackupId),
}

impl fmt::Display for MarkNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MarkNumber::Number(number) => write!(f, "{number:04}"),
            MarkNumber::Made(id) => id.fmt(f),
        }
    }
}

impl FromStr for MarkNumber {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        let number = || text.parse().ok().map(MarkNumber::Number);
        let found = text.parse().ok().map(MarkNumber::Made).or_else(number);
        found.ok_or_else(|| UnknownWord { what: "number of a mark", text: text.to_owned() })
    }
}

impl Mark {
    /// The extension of its key.
    #[must_use]
    pub fn extension(self) -> String {
        match self {
            Mark::Pin(nth) => format!("pin-{nth}.json"),
            Mark::Unpin(nth) => format!("unpin-{nth}.json"),
            Mark::Note(nth) => format!("note-{nth}.json"),
            Mark::Damaged(nth) => format!("damaged-{nth}.json"),
            Mark::Sound(nth) => format!("sound-{nth}.json"),
            Mark::Wrapped(nth) => format!("wrapped-{nth}.json"),
            Mark::Deleting => "deleting.json".to_owned(),
        }
    }

    /// Reads an extension; `None` if it is not that of a mark.
    #[must_use]
    pub fn parse(extension: &str) -> Option<Mark> {
        let stem = extension.strip_suffix(".json")?;
        let mark = match stem.split_once('-') {
            None if stem == "deleting" => Mark::Deleting,
            Some(("pin", nth)) => Mark::Pin(nth.parse().ok()?),
            Some(("unpin", nth)) => Mark::Unpin(nth.parse().ok()?),
            Some(("note", nth)) => Mark::Note(nth.parse().ok()?),
            Some(("damaged", nth)) => Mark::Damaged(nth.parse().ok()?),
            Some(("sound", nth)) => Mark::Sound(nth.parse().ok()?),
            Some(("wrapped", nth)) => Mark::Wrapped(nth.parse().ok()?),
            _ => return None,
        };
        (mark.extension() == extension).then_some(mark)
    }

    /// Whether the last word of `marks` about it is a pin. Of two that were said at once, the pin counts.
    /// That is what the names say, and whoever can write to the store can write names.
    #[must_use]
    pub fn pin(marks: &[Mark]) -> bool {
        let pin = |mark| if let Mark::Pin(nth) = mark { Some(nth) } else { None };
        let unpin = |mark| if let Mark::Unpin(nth) = mark { Some(nth) } else { None };
        counts(marks, pin, unpin)
    }

    /// Whether the last word of `marks` about it is that it is damaged. Of two that were said at once,
    /// the damage counts. That is what the names say, as with [`Mark::pin`].
    #[must_use]
    pub fn damage(marks: &[Mark]) -> bool {
        let damaged = |mark| if let Mark::Damaged(nth) = mark { Some(nth) } else { None };
        let sound = |mark| if let Mark::Sound(nth) = mark { Some(nth) } else { None };
        counts(marks, damaged, sound)
    }
}

/// Whether the last one of one kind is not before that of its opposite.
fn counts(
    marks: &[Mark],
    one: impl Fn(Mark) -> Option<MarkNumber>,
    opposite: impl Fn(Mark) -> Option<MarkNumber>,
) -> bool {
    let one = marks.iter().copied().filter_map(one).max();
    one.is_some() && one >= marks.iter().copied().filter_map(opposite).max()
}

/// Folders of a store that hold no backups, but what bkp writes about its runs.
pub const FOLDERS: [&str; 4] = ["leases", "runs", "audit", "doctor"];

/// Whether a key is one that only bkp would use: that of a backup's object, or in one of
/// [`FOLDERS`].
#[must_use]
pub fn is_of_bkp(key: &str) -> bool {
    let folder = key.split('/').next().unwrap_or_default();
    FOLDERS.contains(&folder) || BackupName::parse(key).is_some()
}

/// Whether `name` may be the name of a source or store: 1 to 64 of `a-z 0-9 _ -`, first a letter
/// or digit. Everything else could collide with a separator or a file system's rules.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let tail = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
    let head = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=64).contains(&name.len())
        && name.bytes().all(tail)
        && name.bytes().next().is_some_and(head)
}

/// What the name of a backup's objects says, without having read any of them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackupName {
    /// Time-ordered, so that sorting names sorts by time.
    pub id: BackupId,
    /// The type.
    pub backup_type: BackupType,
    /// The source's name in the configuration of its host.
    pub source: String,
    /// The scope.
    pub scope: Scope,
    /// What made it: `snapshot`, `log`, `export`.
    pub kind: String,
}

impl BackupName {
    /// The folder of one day (UTC).
    #[must_use]
    pub fn day(backup_type: BackupType, source: &str, scope: Scope, date: Date) -> String {
        let (year, month, day) = (date.year(), u8::from(date.month()), date.day());
        format!("{backup_type}/{source}/{scope}/{year:04}/{month:02}/{day:02}")
    }

    /// The key of the object with `extension` (no leading dot).
    #[must_use]
    pub fn key(&self, extension: &str) -> String {
        let day =
            BackupName::day(self.backup_type, &self.source, self.scope, self.id.created().date());
        let BackupName { id, backup_type, kind, .. } = self;
        format!("{day}/{backup_type}-{kind}-{id}.{extension}")
    }

    /// The key of the manifest.
    #[must_use]
    pub fn manifest_key(&self) -> String {
        self.key(MANIFEST_EXTENSION)
    }

    /// Reads a key; `None` for everything that [`BackupName::key`] would not have printed.
    #[must_use]
    pub fn parse(key: &str) -> Option<(BackupName, &str)> {
        let (folder, file) = key.rsplit_once('/')?;
        let mut parts = folder.split('/');
        let backup_type: BackupType = parts.next()?.parse().ok()?;
        let source = parts.next().filter(|name| is_name(name))?.to_owned();
        let scope: Scope = parts.next()?.parse().ok()?;
        let rest = file.strip_prefix(backup_type.as_str())?.strip_prefix('-')?;
        let (kind, rest) = rest.split_once('-')?;
        if kind.is_empty() || !kind.bytes().all(|byte| byte.is_ascii_lowercase()) {
            return None;
        }
        let (id, extension) = rest.split_once('.')?;
        let name =
            BackupName { id: id.parse().ok()?, backup_type, source, scope, kind: kind.to_owned() };
        // The date is redundant; printing the name again checks it and everything else.
        (name.key(extension) == key && !extension.is_empty()).then_some((name, extension))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use time::OffsetDateTime;

    #[test]
    fn a_key_reads_as_documented() {
        let name = BackupName {
            id: "01935a3c-7a00-7abc-8def-0123456789ab".parse().expect("valid id"),
            backup_type: BackupType::Tigerbeetle,
            source: "books".into(),
            scope: Scope::Full,
            kind: "snapshot".into(),
        };
        assert_eq!(
            name.key("tar.zst.enc"),
            "tigerbeetle/books/full/2024/11/23/tigerbeetle-snapshot-01935a3c-7a00-7abc-8def-0123456789ab.tar.zst.enc"
        );
    }

    fn names() -> impl Strategy<Value = BackupName> {
        let times = 0_i64..4_102_444_800;
        let types = proptest::sample::select(&BackupType::ALL[..]);
        let scopes = proptest::sample::select(&Scope::ALL[..]);
        (times, types, scopes, "[a-z0-9][a-z0-9_-]{0,63}", "[a-z]{1,12}").prop_map(
            |(seconds, backup_type, scope, source, kind)| BackupName {
                id: BackupId::new(OffsetDateTime::from_unix_timestamp(seconds).expect("in range")),
                backup_type,
                source,
                scope,
                kind,
            },
        )
    }

    #[test]
    fn the_last_word_counts() {
        let n = MarkNumber::Number;
        let pinned = Mark::pin;
        assert!(!pinned(&[]));
        assert!(!pinned(&[Mark::Note(n(9)), Mark::Damaged(n(9)), Mark::Deleting]));
        assert!(pinned(&[Mark::Pin(n(1))]) && !pinned(&[Mark::Pin(n(1)), Mark::Unpin(n(2))]));
        assert!(pinned(&[Mark::Pin(n(1)), Mark::Pin(n(3)), Mark::Unpin(n(2))]));
        assert!(pinned(&[Mark::Pin(n(2)), Mark::Unpin(n(2))]), "said at once");
        let later = BackupId::new(OffsetDateTime::UNIX_EPOCH);
        assert!(pinned(&[Mark::Unpin(n(u16::MAX)), Mark::Pin(MarkNumber::Made(later))]));
        let damaged = Mark::damage;
        assert!(!damaged(&[]) && !damaged(&[Mark::Sound(n(1)), Mark::Pin(n(9))]));
        assert!(damaged(&[Mark::Damaged(n(1))]));
        assert!(!damaged(&[Mark::Damaged(n(1)), Mark::Sound(n(2))]));
        assert!(damaged(&[Mark::Damaged(n(1)), Mark::Sound(n(2)), Mark::Damaged(n(3))]));
        assert!(damaged(&[Mark::Sound(n(2)), Mark::Damaged(n(2))]), "said at once");
    }

    proptest! {
        #[test]
        fn keys_parse_what_they_print(name in names(), extension in "[a-z]{1,5}(\\.[a-z]{1,5}){0,3}") {
            let key = name.key(&extension);
            prop_assert_eq!(BackupName::parse(&key), Some((name, extension.as_str())));
        }

        #[test]
        fn marks_are_read_as_they_are_written(
            number in 0_u16..=u16::MAX, is_number: bool, kind in 0..7
        ) {
            let at = OffsetDateTime::UNIX_EPOCH + time::Duration::minutes(number.into());
            let nth = if is_number { MarkNumber::Number(number) } else { MarkNumber::Made(BackupId::new(at)) };
            let mark = match kind {
                0 => Mark::Pin(nth),
                1 => Mark::Unpin(nth),
                2 => Mark::Note(nth),
                3 => Mark::Damaged(nth),
                4 => Mark::Sound(nth),
                5 => Mark::Wrapped(nth),
                _ => Mark::Deleting,
            };
            prop_assert_eq!(Mark::parse(&mark.extension()), Some(mark));
        }

        #[test]
        fn anything_else_is_no_backup(key in "[a-z0-9/.-]{0,120}") {
            if let Some((name, extension)) = BackupName::parse(&key) {
                prop_assert_eq!(name.key(extension), key);
            }
        }
    }
}
