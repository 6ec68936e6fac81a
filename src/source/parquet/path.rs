//! Paths below the folder, as bytes: names of files need not be UTF-8.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::domain::hex::{hex, unhex};

/// Longest path, bytes: the system's own limit.
const PATH_BYTES_MAX: usize = 4096;
/// Longest name of a file or folder, bytes: what common file systems allow.
const NAME_BYTES_MAX: usize = 255;

/// A path relative to the folder, which cannot lead out of it: names joined by `/`, none of them empty,
/// `.` or `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub(super) struct RelativePath(Vec<u8>);

/// How it is written down: as text where it is text.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Text(String),
    Bytes { hex: String },
}

/// A path that no folder can have, or that leads elsewhere.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a path below a folder")]
pub(super) struct BadPath(String);

impl RelativePath {
    /// Takes a path if it is one below a folder.
    pub(super) fn new(bytes: Vec<u8>) -> Result<RelativePath, BadPath> {
        let is_name = |name: &[u8]| {
            !name.is_empty() && name != b"." && name != b".." && name.len() <= NAME_BYTES_MAX
        };
        let is_path = bytes.len() <= PATH_BYTES_MAX && !bytes.contains(&0);
        if is_path && bytes.split(|byte| *byte == b'/').all(is_name) {
            return Ok(RelativePath(bytes));
        }
        Err(BadPath(bytes.escape_ascii().to_string()))
    }

    /// The path of `name` in the folder with this path; `None` if there is no such path.
    pub(super) fn join(folder: Option<&RelativePath>, name: &[u8]) -> Option<RelativePath> {
        let bytes = match folder {
            Some(folder) => [&folder.0, b"/".as_slice(), name].concat(),
            None => name.to_vec(),
        };
        RelativePath::new(bytes).ok()
    }

    /// The path for the system.
    pub(super) fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// The names of the folders, then that of the file.
    pub(super) fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'/')
    }

    /// The folders that it is in, each as the names that lead to it, the outermost first.
    pub(super) fn folders(&self) -> impl Iterator<Item = Vec<&[u8]>> {
        let names: Vec<&[u8]> = self.names().collect();
        let ends = 1..names.len();
        ends.map(move |end| names.iter().take(end).copied().collect())
    }

    /// Whether it is in the folder with that path.
    pub(super) fn is_in(&self, folder: &RelativePath) -> bool {
        self.0.strip_prefix(folder.0.as_slice()).is_some_and(|rest| rest.first() == Some(&b'/'))
    }

    /// The last name, with nothing but what a key in a store may have: ASCII letters, digits, `-`, `_` and `.`.
    pub(super) fn plain_name(&self) -> String {
        const LONGEST: usize = 80;
        let name = self.names().last().unwrap_or_default();
        let end = name.get(name.len().saturating_sub(LONGEST)..).unwrap_or_default();
        let plain = |byte: &u8| {
            let is_plain = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
            if is_plain { char::from(*byte) } else { '_' }
        };
        end.iter().map(plain).collect()
    }
}

impl TryFrom<Written> for RelativePath {
    type Error = BadPath;

    fn try_from(written: Written) -> Result<RelativePath, BadPath> {
        match written {
            Written::Text(text) => RelativePath::new(text.into_bytes()),
            Written::Bytes { hex } => match unhex(hex.as_bytes()) {
                Some(bytes) => RelativePath::new(bytes),
                None => Err(BadPath(hex)),
            },
        }
    }
}

impl From<RelativePath> for Written {
    fn from(path: RelativePath) -> Written {
        match String::from_utf8(path.0) {
            Ok(text) => Written::Text(text),
            Err(bytes) => Written::Bytes { hex: hex(bytes.as_bytes()) },
        }
    }
}

impl fmt::Display for RelativePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match str::from_utf8(&self.0) {
            Ok(text) => write!(f, "{}", text.escape_debug()),
            Err(_) => write!(f, "{}", self.0.escape_ascii()),
        }
    }
}

impl fmt::Debug for RelativePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        for path in ["", "/a", "a/", "a//b", ".", "..", "a/../b", "../a", "a/./b", "a\0b"] {
            assert!(RelativePath::new(path.into()).is_err(), "{path:?}");
            let json = serde_json::to_string(path).unwrap();
            assert!(serde_json::from_str::<RelativePath>(&json).is_err(), "{path:?}");
        }
        assert!(RelativePath::new(vec![b'a'; 256]).is_err());
        assert!(serde_json::from_str::<RelativePath>(r#"{"hex":"2e2e2f61"}"#).is_err());
    }

    #[test]
    fn odd_names_survive_being_written_down() {
        for path in [&b"a/b.parquet"[..], b"a b/\xff\xfe", "ä\n\"".as_bytes(), b"...", b"{\"hex\"}"]
        {
            let path = RelativePath::new(path.to_vec()).unwrap();
            let json = serde_json::to_string(&path).unwrap();
            assert_eq!(serde_json::from_str::<RelativePath>(&json).unwrap(), path);
        }
    }

    #[test]
    fn folders_come_from_the_outside() {
        let path = RelativePath::new(b"a/b/c".to_vec()).unwrap();
        let folders: Vec<_> = path.folders().collect();
        assert_eq!(folders, [vec![&b"a"[..]], vec![&b"a"[..], b"b"]]);
        assert!(path.is_in(&RelativePath::new(b"a/b".to_vec()).unwrap()));
        assert!(!path.is_in(&RelativePath::new(b"a/bc".to_vec()).unwrap()));
        assert!(!path.is_in(&path));
    }
}
