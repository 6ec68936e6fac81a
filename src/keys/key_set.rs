//! A key set: the data keys of many backups in one file, each wrapped for recovery recipients.
//!
//! The file is lines of JSON: a head, an [envelope](super::envelope) in each line, and an end that counts them. No
//! data key stands in it in the clear. Nothing in it is believed before the data key that an envelope gave has
//! verified that envelope, so it may come from anywhere.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use super::KeyError;
use crate::domain::hex::hex;
use crate::domain::id::BackupId;
use crate::domain::limits::{KEY_SET_ENTRIES_MAX, MARK_BYTES_MAX};

/// The schema of the first line.
pub const HEAD_SCHEMA: &str = "bkp.keyset/1";
/// The schema of the last line.
pub const END_SCHEMA: &str = "bkp.keyset-end/1";
/// The schema of the lines between them.
pub const ENTRY_SCHEMA: &str = "bkp.wrapped/1";

/// How many envelopes of one backup are looked at: bkp writes one.
const PER_BACKUP_MAX: usize = 64;

/// The first line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Head {
    /// [`HEAD_SCHEMA`].
    pub schema: String,
    /// When it was written.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// Name of the host that wrote it.
    pub host: String,
}

/// The last line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct End {
    /// [`END_SCHEMA`].
    pub schema: String,
    /// How many envelopes stand before it.
    pub entries: u64,
}

/// A value as a line.
///
/// # Errors
/// Never for a head or an end.
pub fn line(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(value)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// A line that looks like an envelope; whether it is one shows only its data key.
#[derive(Debug)]
pub struct Entry<'a> {
    /// The backup that it claims to be of.
    pub id: BackupId,
    /// Where the line begins, bytes from the start of the file.
    pub at: u64,
    /// The line, with its end.
    pub line: &'a [u8],
}

/// What a key set consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contents {
    /// Lines that look like envelopes.
    pub entries: u64,
    /// Lines that are nothing that bkp writes.
    pub broken: u64,
    /// What its last line says that there are; `None` if it is not there.
    pub promised: Option<u64>,
}

impl Contents {
    /// Whether it has all that its writer put in, and nothing else.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.broken == 0 && self.promised == Some(self.entries)
    }
}

/// What tells one kind of line from another.
#[derive(Deserialize)]
struct Kind {
    schema: String,
    backup: Option<BackupId>,
    entries: Option<u64>,
}

/// Shows the lines between head and end to `visit`; `None` if the input has no head.
///
/// # Errors
/// What reading or `visit` fails with.
pub fn read(
    input: &mut dyn BufRead,
    visit: &mut dyn FnMut(&Entry<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<Option<Contents>> {
    let (mut line, mut at) = (Vec::new(), 0);
    next(input, &mut line)?;
    if !serde_json::from_slice(&line).is_ok_and(|head: Head| head.schema == HEAD_SCHEMA) {
        return Ok(None);
    }
    let mut contents = Contents { entries: 0, broken: 0, promised: None };
    loop {
        at += line.len() as u64;
        if next(input, &mut line)? == 0 {
            return Ok(Some(contents));
        }
        let kind = serde_json::from_slice::<Kind>(&line).ok().filter(|_| line.ends_with(b"\n"));
        match kind {
            // Only at its end is it an end.
            _ if contents.promised.is_some() => contents.broken += 1,
            Some(Kind { schema, backup: Some(id), .. }) if schema == ENTRY_SCHEMA => {
                contents.entries += 1;
                visit(&Entry { id, at, line: &line })?;
            }
            Some(Kind { schema, entries: Some(entries), .. }) if schema == END_SCHEMA => {
                contents.promised = Some(entries);
            }
            Some(_) | None => contents.broken += 1,
        }
    }
}

/// The next line, or so much of it as an envelope may have.
fn next(input: &mut dyn BufRead, line: &mut Vec<u8>) -> io::Result<usize> {
    line.clear();
    input.take(MARK_BYTES_MAX).read_until(b'\n', line)
}

/// A key set in a file, by the ids of its backups.
pub struct KeySet {
    file: File,
    origin: String,
    contents: Contents,
    /// Sorted. 32 bytes an entry.
    index: Vec<(BackupId, u64, u32)>,
    /// Of its envelopes.
    sha256: [u8; 32],
}

impl std::fmt::Debug for KeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeySet").field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl KeySet {
    /// Reads through a file and notes where each envelope stands.
    ///
    /// # Errors
    /// [`KeyError::Unusable`] if it cannot be read, is no key set or is larger than any.
    pub fn open(path: &Path) -> Result<KeySet, KeyError> {
        let origin = path.display().to_string();
        let unusable = |problem: String, hint: Option<&str>| {
            let hint = hint.map(str::to_owned);
            KeyError::Unusable { origin: format!("set {origin}"), problem, hint }
        };
        // Opening a named pipe would wait for a writer.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = rustix::fs::open(path, flags, Mode::empty()).map_err(io::Error::from);
        let opened = opened.and_then(|file| {
            let file = File::from(file);
            Ok((file.metadata()?.is_file(), file))
        });
        let (is_file, file) = opened.map_err(|error| {
            let hint = "--with-keyset names a file that `bkp restore` made of a key set";
            unusable(error.to_string(), Some(hint))
        })?;
        if !is_file {
            let hint = "it is read more than once: write it to a file first";
            return Err(unusable("not a regular file".into(), Some(hint)));
        }
        let (mut index, mut hasher) = (Vec::new(), Sha256::new());
        let read = read(&mut BufReader::new(&file), &mut |entry| {
            if index.len() >= KEY_SET_ENTRIES_MAX {
                anyhow::bail!("it has more than {KEY_SET_ENTRIES_MAX} entries");
            }
            hasher.update(entry.line);
            index.push((entry.id, entry.at, u32::try_from(entry.line.len())?));
            Ok(())
        });
        let contents = read.map_err(|error| unusable(format!("{error:#}"), None))?;
        let hint = "restore one: bkp restore KEYSET --to keyset.jsonl";
        let contents = contents.ok_or_else(|| unusable("not a key set".into(), Some(hint)))?;
        index.sort_unstable();
        let sha256 = hasher.finalize().into();
        Ok(KeySet { file, origin, contents, index, sha256 })
    }

    /// Where it is, for messages.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// What it consists of.
    #[must_use]
    pub fn contents(&self) -> Contents {
        self.contents
    }

    /// Which one it is: what it did not open is not tried with it again.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        format!("keyset {}", hex(&self.sha256))
    }

    /// The envelopes of a backup.
    ///
    /// # Errors
    /// What reading the file fails with.
    pub fn of(&self, id: BackupId) -> io::Result<Vec<Vec<u8>>> {
        let from = self.index.partition_point(|(other, ..)| *other < id);
        let found = self.index.iter().skip(from).take_while(|(other, ..)| *other == id);
        let lines = found.take(PER_BACKUP_MAX).map(|(_, at, bytes)| {
            let mut line = vec![0; usize::try_from(*bytes).unwrap_or_default()];
            self.file.read_exact_at(&mut line, *at)?;
            Ok(line)
        });
        lines.collect()
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn sample(ids: &[BackupId]) -> Vec<u8> {
        let (at, host) = (datetime!(2026-11-24 02:00:00 UTC), "ledger-1".to_owned());
        let mut text = line(&Head { schema: HEAD_SCHEMA.into(), at, host }).expect("a head");
        for id in ids {
            let entry = serde_json::json!({ "schema": ENTRY_SCHEMA, "backup": id, "mac": "" });
            text.extend(line(&entry).expect("an entry"));
        }
        let end = End { schema: END_SCHEMA.into(), entries: ids.len() as u64 };
        text.extend(line(&end).expect("an end"));
        text
    }

    fn contents(text: &[u8]) -> Option<Contents> {
        read(&mut &*text, &mut |_| Ok(())).expect("read")
    }

    fn id(second: i64) -> BackupId {
        BackupId::new(datetime!(2026-11-21 02:00:00 UTC) + time::Duration::seconds(second))
    }

    #[test]
    fn entries_are_found_by_their_backup() {
        let (first, twice) = (id(3), id(1));
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keyset.jsonl");
        crate::cache::replace(&path, &sample(&[first, twice, id(2), twice]), 0o600)
            .expect("written");
        let set = KeySet::open(&path).expect("a key set");
        assert!(set.contents().is_whole());
        assert_eq!(set.of(twice).expect("read").len(), 2);
        let [line] = set.of(first).expect("read").try_into().expect("one");
        assert!(String::from_utf8(line).expect("text").contains(&first.to_string()));
        assert!(set.of(id(9)).expect("read").is_empty());
    }

    #[test]
    fn what_is_missing_or_added_is_noticed() {
        let text = sample(&[id(1), id(2)]);
        assert!(contents(&text).expect("a key set").is_whole());
        for end in 0..text.len() {
            let part = contents(text.get(..end).expect("a part"));
            assert!(part.is_none_or(|contents| !contents.is_whole()), "{end}");
        }
        for more in ["x", "\n", "{}\n", "{\"schema\":\"bkp.wrapped/1\"}\n"] {
            let more = [text.as_slice(), more.as_bytes()].concat();
            assert!(!contents(&more).expect("a key set").is_whole());
        }
        let long = [b"{".repeat(1 << 20), text].concat();
        assert_eq!(contents(&long), None);
    }
}
