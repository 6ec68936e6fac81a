//! What a base backup consists of beside its files: the last member of its archive.
//!
//! Files are members below `data`, named as PostgreSQL names them below its data folder; those of a tablespace
//! stand below `data/pg_tblspc/<oid>`, where the server has a link. What a tar cannot have in a name, and folders,
//! stand here.

use std::collections::BTreeMap;
use std::io::Read;

use serde::{Deserialize, Serialize};

use crate::archive::is_member_name;
use crate::domain::hex::{hex, unhex};
use crate::error::{Fault, Kind};

/// Name of the last member.
pub(super) const LAYOUT_MEMBER: &str = "layout.json";
/// Name of the member that is the server's own list of files.
pub(super) const MANIFEST_MEMBER: &str = "backup_manifest";
/// What stands before the name of a file.
pub(super) const DATA_PREFIX: &str = "data/";
/// What stands before the blocks of a file that have changed.
pub(super) const BLOCKS_PREFIX: &str = "blocks/";
/// What stands before the number of a file with a name that no member can have.
const OTHER_PREFIX: &str = "other/";
const FORMAT: &str = "bkp.postgres/1";
/// Longest path, bytes: that of the longest name that a tar of PostgreSQL can have, and a tablespace's.
const PATH_BYTES_MAX: usize = 512;
/// Most bytes of the whole text.
const LAYOUT_BYTES_MAX: u64 = 64 << 20;

/// A tablespace of the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tablespace {
    /// Its number.
    pub(super) oid: u32,
    /// Its folder on the server.
    pub(super) location: String,
}

/// What a base backup consists of beside its files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Layout {
    format: String,
    /// Folders below the data folder, parents first.
    pub(super) folders: Vec<String>,
    /// Tablespaces other than the two that every server has.
    pub(super) tablespaces: Vec<Tablespace>,
    /// Folders with names that members cannot have, hex.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    other_folders: Vec<String>,
    /// Names that members cannot have, hex, by the members.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    other: BTreeMap<String, String>,
}

impl Default for Layout {
    fn default() -> Layout {
        Layout {
            format: FORMAT.to_owned(),
            folders: Vec::new(),
            other_folders: Vec::new(),
            tablespaces: Vec::new(),
            other: BTreeMap::new(),
        }
    }
}

impl Layout {
    /// The member for the file at a path below the data folder.
    pub(super) fn member_of(&mut self, path: &[u8]) -> String {
        let plain = std::str::from_utf8(path).ok().map(|path| format!("{DATA_PREFIX}{path}"));
        if let Some(name) = plain.filter(|name| is_member_name(name)) {
            return name;
        }
        let name = format!("{OTHER_PREFIX}{}", self.other.len());
        self.other.insert(name.clone(), hex(path));
        name
    }

    /// Notes a folder.
    pub(super) fn add_folder(&mut self, path: &[u8]) {
        let path = path.strip_suffix(b"/").unwrap_or(path);
        match std::str::from_utf8(path).ok().filter(|path| is_member_name(path)) {
            Some(path) => self.folders.push(path.to_owned()),
            None if is_below(path) => self.other_folders.push(hex(path)),
            // The data folder itself.
            None => {}
        }
    }

    /// All folders below the data folder.
    ///
    /// # Errors
    /// [`Kind::Integrity`] for a path that could lead out of it.
    pub(super) fn all_folders(&self) -> Result<Vec<Vec<u8>>, Fault> {
        let other = self.other_folders.iter().map(|path| {
            let path = unhex(path.as_bytes()).filter(|path| is_below(path));
            path.ok_or_else(|| broken("a folder leads out of the data folder"))
        });
        let plain = self.folders.iter().map(|path| Ok(path.clone().into_bytes()));
        plain.chain(other).collect()
    }

    /// The paths of files that no member has the name of, by their members.
    ///
    /// # Errors
    /// [`Kind::Integrity`] for a path that could lead out of the folder.
    pub(super) fn other_paths(&self) -> Result<BTreeMap<&str, Vec<u8>>, Fault> {
        let paths = self.other.iter().map(|(member, path)| {
            let path = unhex(path.as_bytes()).filter(|path| is_below(path));
            let path = path.ok_or_else(|| broken("a path leads out of the folder"))?;
            Ok((member.as_str(), path))
        });
        paths.collect()
    }

    pub(super) fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Reads what [`Layout::encode`] wrote.
    ///
    /// # Errors
    /// [`Kind::Integrity`] if it is not that.
    pub(super) fn read(input: &mut dyn Read) -> anyhow::Result<Layout> {
        let mut bytes = Vec::new();
        input.take(LAYOUT_BYTES_MAX).read_to_end(&mut bytes)?;
        let layout: Layout =
            serde_json::from_slice(&bytes).map_err(|error| broken(&error.to_string()))?;
        if layout.format != FORMAT {
            return Err(broken(&format!("it has the format `{}`", layout.format)).into());
        }
        if !layout.folders.iter().all(|folder| is_member_name(folder)) {
            return Err(broken("a folder leads out of the data folder").into());
        }
        Ok(layout)
    }
}

fn broken(why: &str) -> Fault {
    Fault::new(Kind::Integrity, format!("the layout of the base backup is not valid: {why}"))
}

/// Whether a path stays below the folder that it starts in.
pub(super) fn is_below(path: &[u8]) -> bool {
    let part =
        |part: &[u8]| !part.is_empty() && part != b"." && part != b".." && !part.contains(&0);
    path.len() <= PATH_BYTES_MAX && path.split(|byte| *byte == b'/').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_names_come_back() {
        let mut layout = Layout::default();
        assert_eq!(layout.member_of(b"base/5/1234_fsm"), "data/base/5/1234_fsm");
        let odd: [&[u8]; 2] = [b"log/postgresql 10:00.log", b"\xff\xfe"];
        let members: Vec<String> = odd.iter().map(|path| layout.member_of(path)).collect();
        layout.add_folder(b"base/5/");
        layout.add_folder(b"log/old ones/");
        layout.add_folder(b"");
        let read = Layout::read(&mut layout.encode().unwrap().as_slice()).unwrap();
        assert_eq!(read, layout);
        assert_eq!(read.all_folders().unwrap(), [b"base/5".to_vec(), b"log/old ones".to_vec()]);
        let paths = read.other_paths().unwrap();
        for (path, member) in odd.iter().zip(&members) {
            assert_eq!(paths[member.as_str()], *path);
        }
    }

    #[test]
    fn paths_that_lead_out_are_refused() {
        for path in ["../x", "/etc/passwd", "a/../b", "a//b", "", "a/."] {
            assert!(!is_below(path.as_bytes()), "{path}");
            let text = format!(
                r#"{{"format":"bkp.postgres/1","folders":[],"tablespaces":[],"other":{{"other/0":"{}"}}}}"#,
                hex(path.as_bytes())
            );
            let layout = Layout::read(&mut text.as_bytes()).unwrap();
            assert!(layout.other_paths().is_err(), "{path}");
        }
        let folder = r#"{"format":"bkp.postgres/1","folders":["../x"],"tablespaces":[]}"#;
        assert!(Layout::read(&mut folder.as_bytes()).is_err());
    }
}
