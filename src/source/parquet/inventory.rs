//! The files of a moment, and which object of which backup holds each of them.
//!
//! Every replica has an object with the role `map`: lines of JSON that say what changed since the replica
//! that it builds on. The first is the [`Head`]; each of the others is a [`Change`]. Put together over a
//! chain they are the [`Inventory`] of the newest.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Read, Write};

use serde::{Deserialize, Serialize};

use super::path::RelativePath;
use super::walk::FileStat;
use crate::ctx::Ctx;
use crate::domain::id::BackupId;
use crate::error::{Fault, Kind};
use crate::pipeline::BackupReader;
use crate::source::Chain;

/// The schema this version writes and reads.
const SCHEMA: &str = "bkp.inventory/1";

/// Longest line, bytes: a path of 4096 bytes, each of which may be written as six, and the rest.
const LINE_BYTES_MAX: u64 = 32 << 10;

/// Most files of a folder: each takes some hundred bytes of memory, and several times its path.
pub(super) const FILES_MAX: usize = 10_000_000;

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    schema: String,
    /// How many files there are, all changes made.
    files: u64,
    /// Sum of their sizes, bytes.
    bytes: u64,
}

/// Any other line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Change {
    /// A file that is new, or not as it was.
    File {
        /// Where it is.
        path: RelativePath,
        /// What is known of it.
        #[serde(flatten)]
        file: HeldFile,
    },
    /// A file that was there and is not any more.
    Deleted {
        /// Where it was.
        path: RelativePath,
    },
}

/// A file as a backup has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HeldFile {
    /// Size, bytes.
    pub(super) bytes: u64,
    /// SHA-256 of its content, hex.
    pub(super) sha256: String,
    /// Rows, as its Parquet footer says; none for other files, and where the footer is encrypted or broken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) rows: Option<u64>,
    /// The backup that has its object.
    pub(super) backup: BackupId,
    /// What the object's key has after the backup's id.
    pub(super) object: String,
    /// What the system said of it.
    pub(super) stat: FileStat,
    /// Whether any later change would show in that.
    pub(super) settled: bool,
}

/// The files of a moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Inventory(pub(super) BTreeMap<RelativePath, HeldFile>);

impl Inventory {
    /// Of the newest backup of a chain; empty for an empty chain.
    ///
    /// # Errors
    /// [`Kind::Integrity`] if the chain's changes do not fit together; as [`BackupReader::map`].
    pub(super) fn of(chain: &Chain<'_>, ctx: &Ctx) -> anyhow::Result<Inventory> {
        let inventory = Inventory::default().followed_by(chain, ctx)?;
        let ids: Vec<BackupId> = chain.iter().map(|link| link.manifest().id).collect();
        match inventory.0.iter().find(|(_, file)| !ids.contains(&file.backup)) {
            Some((path, file)) => {
                Err(broken(&format!("`{path}` is in {}, which it does not build on", file.backup)))
            }
            None => Ok(inventory),
        }
    }

    /// After the changes of further links.
    ///
    /// # Errors
    /// As [`Inventory::of`].
    pub(super) fn followed_by(mut self, links: &Chain<'_>, ctx: &Ctx) -> anyhow::Result<Inventory> {
        for link in links {
            link.map(ctx, &mut |input| self.change(input, link))?;
        }
        Ok(self)
    }

    /// Makes the changes that `input` says.
    fn change(&mut self, input: &mut dyn Read, of: &BackupReader<'_>) -> anyhow::Result<()> {
        let (mut input, mut line) = (BufReader::new(input), Vec::new());
        let mut next = |line: &mut Vec<u8>| -> anyhow::Result<bool> {
            line.clear();
            let count = input.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', line)?;
            Ok(count > 0)
        };
        next(&mut line)?;
        let head: Head = parse(&line)?;
        if head.schema != SCHEMA {
            let message =
                format!("the inventory of {} has schema `{}`", of.manifest().id, head.schema);
            return Err(Fault::new(Kind::Refused, message)
                .hint("use a newer version of bkp")
                .into());
        }
        while next(&mut line)? {
            match parse(&line)? {
                Change::File { path, file } => drop(self.0.insert(path, file)),
                Change::Deleted { path } => drop(self.0.remove(&path)),
            }
            if self.0.len() > FILES_MAX {
                return Err(broken(&format!("it has more than {FILES_MAX} files")));
            }
        }
        if (head.files, head.bytes) != (self.0.len() as u64, self.bytes()) {
            return Err(broken("its files are not as many as it says"));
        }
        Ok(())
    }

    /// Sum of the sizes, bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.0.values().fold(0, |sum, file| sum.saturating_add(file.bytes))
    }

    /// Sum of the rows that are known.
    pub(super) fn rows(&self) -> u64 {
        self.0.values().filter_map(|file| file.rows).fold(0, u64::saturating_add)
    }

    /// What leads from `before` to this.
    pub(super) fn since(&self, before: &Inventory) -> Vec<Change> {
        let gone = before.0.keys().filter(|path| !self.0.contains_key(*path));
        let gone = gone.map(|path| Change::Deleted { path: path.clone() });
        let changed = self.0.iter().filter(|(path, file)| before.0.get(*path) != Some(file));
        let changed =
            changed.map(|(path, file)| Change::File { path: path.clone(), file: file.clone() });
        gone.chain(changed).collect()
    }

    /// Writes what [`Inventory::since`] says leads to this.
    pub(super) fn write(&self, changes: &[Change], out: &mut dyn Write) -> io::Result<()> {
        let (schema, files) = (SCHEMA.to_owned(), self.0.len() as u64);
        line(out, &Head { schema, files, bytes: self.bytes() })?;
        changes.iter().try_for_each(|change| line(out, change))
    }
}

fn line(out: &mut dyn Write, value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    // What cannot be read again must not become a backup.
    if line.len() as u64 > LINE_BYTES_MAX {
        return Err(io::Error::other("a line of the inventory is longer than any that is read"));
    }
    out.write_all(&line)
}

fn parse<'l, T: Deserialize<'l>>(line: &'l [u8]) -> anyhow::Result<T> {
    serde_json::from_slice(line).map_err(|error| broken(&format!("it cannot be read: {error}")))
}

/// An inventory that bkp did not write, although every byte of it is authentic.
pub(super) fn broken(why: &str) -> anyhow::Error {
    Fault::new(Kind::Integrity, format!("the inventory of the replica is broken: {why}")).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(bytes: u64, settled: bool) -> HeldFile {
        let stat = FileStat { inode: (1, 2), bytes, modified: -1, changed: i64::MAX };
        HeldFile {
            bytes,
            sha256: format!("{bytes:064x}"),
            rows: bytes.is_multiple_of(2).then_some(bytes),
            backup: "01935a3c-7a00-7abc-8def-0123456789ab".parse().unwrap(),
            object: "00001.x.parquet.enc".into(),
            stat,
            settled,
        }
    }

    fn inventory() -> impl Strategy<Value = Inventory> {
        let path = prop::collection::vec(1_u8.., 1..6)
            .prop_filter_map("path", |bytes| RelativePath::new(bytes).ok());
        let file = (0..5_u64, any::<bool>()).prop_map(|(bytes, settled)| file(bytes, settled));
        prop::collection::btree_map(path, file, 0..12).prop_map(Inventory)
    }

    /// Every path that a folder can have makes a line that is read again.
    #[test]
    fn the_longest_paths_are_read_again() {
        for byte in [1, b'"', 0xff, b'a'] {
            let name = vec![byte; 255];
            let path: Vec<u8> = vec![name; 16].join(&b'/');
            assert!(path.len() > 4090);
            let path = RelativePath::new(path).unwrap();
            let inventory = Inventory([(path, file(1, true))].into());
            let mut text = Vec::new();
            inventory.write(&inventory.since(&Inventory::default()), &mut text).unwrap();
            let mut made = Inventory::default();
            apply(&mut made, &text);
            assert_eq!(made.0, inventory.0);
        }
    }

    fn apply(inventory: &mut Inventory, text: &[u8]) {
        for line in text.split_inclusive(|byte| *byte == b'\n').skip(1) {
            match parse(line).unwrap() {
                Change::File { path, file } => drop(inventory.0.insert(path, file)),
                Change::Deleted { path } => drop(inventory.0.remove(&path)),
            }
        }
    }

    proptest! {
        /// Written down and read again, the changes lead from one to the other.
        #[test]
        fn changes_lead_from_one_to_the_other(before in inventory(), after in inventory()) {
            let changes = after.since(&before);
            let mut text = Vec::new();
            after.write(&changes, &mut text).unwrap();
            let mut made = before.clone();
            apply(&mut made, &text);
            prop_assert_eq!(&made.0, &after.0);
            prop_assert!(after.since(&made).is_empty());
        }
    }
}
