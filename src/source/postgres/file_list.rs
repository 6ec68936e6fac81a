//! The list of files that a server makes for a base backup, `backup_manifest`, as PostgreSQL 13 and later write it
//! (its documentation, "Backup Manifest Format").

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::domain::hex::{hex, unhex};
use crate::error::{Fault, Kind};

/// What stands before the checksum of the whole, which is that of everything before it.
const CHECKSUM_FIELD: &str = "\"Manifest-Checksum\": \"";
/// The only checksum of files that bkp asks a server for.
pub(super) const ALGORITHM: &str = "CRC32C";

/// A file in the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ListedFile {
    /// Its path below the data folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    /// The same in hex, where it is not UTF-8.
    #[serde(rename = "Encoded-Path", default, skip_serializing_if = "Option::is_none")]
    encoded_path: Option<String>,
    /// Its size, bytes.
    pub(super) size: u64,
    #[serde(rename = "Last-Modified")]
    last_modified: String,
    #[serde(rename = "Checksum-Algorithm", default, skip_serializing_if = "Option::is_none")]
    algorithm: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    checksum: Option<String>,
}

/// The list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileList {
    #[serde(rename = "PostgreSQL-Backup-Manifest-Version")]
    version: u32,
    #[serde(rename = "System-Identifier", default, skip_serializing_if = "Option::is_none")]
    system: Option<u64>,
    #[serde(rename = "Files")]
    files: Vec<ListedFile>,
    #[serde(rename = "WAL-Ranges")]
    wal: Value,
}

impl ListedFile {
    /// Its path below the data folder.
    pub(super) fn path(&self) -> Option<Vec<u8>> {
        let encoded = self.encoded_path.as_ref().map(|path| unhex(path.as_bytes()));
        encoded.unwrap_or_else(|| self.path.as_ref().map(|path| path.clone().into_bytes()))
    }

    /// Its CRC-32C, if it has one.
    pub(super) fn crc32c(&self) -> Option<u32> {
        let is_known = self.algorithm.as_deref() == Some(ALGORITHM);
        let bytes = unhex(self.checksum.as_ref().filter(|_sum| is_known)?.as_bytes())?;
        // As the server has it in memory.
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    }

    /// The same file with other content, and under another name.
    pub(super) fn rebuilt(&self, path: &str, size: u64, crc32c: u32) -> ListedFile {
        ListedFile {
            path: Some(path.to_owned()),
            encoded_path: None,
            size,
            last_modified: self.last_modified.clone(),
            algorithm: Some(ALGORITHM.to_owned()),
            checksum: Some(hex(&crc32c.to_le_bytes())),
        }
    }
}

impl FileList {
    /// Reads a list, and checks its own checksum.
    ///
    /// # Errors
    /// [`Kind::Source`] if it is none.
    pub(super) fn parse(bytes: &[u8]) -> Result<FileList, Fault> {
        let wrong = |why: &str| {
            let message = format!("the server's list of files is not valid: {why}");
            Fault::new(Kind::Source, message)
        };
        let list: FileList =
            serde_json::from_slice(bytes).map_err(|error| wrong(&error.to_string()))?;
        if checksum_is_right(bytes) { Ok(list) } else { Err(wrong("its checksum is wrong")) }
    }

    /// The files by their paths.
    pub(super) fn by_path(&self) -> BTreeMap<Vec<u8>, &ListedFile> {
        self.files.iter().filter_map(|file| Some((file.path()?, file))).collect()
    }

    /// The list of these files instead, as a server would write it.
    pub(super) fn of_files(&self, files: &[ListedFile]) -> anyhow::Result<Vec<u8>> {
        let mut text = format!("{{ \"PostgreSQL-Backup-Manifest-Version\": {},\n", self.version);
        if let Some(system) = self.system {
            writeln!(text, "\"System-Identifier\": {system},")?;
        }
        text += "\"Files\": [";
        for (at, file) in files.iter().enumerate() {
            text += if at == 0 { "\n" } else { ",\n" };
            text += &serde_json::to_string(file)?;
        }
        text += "\n],\n\"WAL-Ranges\": ";
        text += &serde_json::to_string(&self.wal)?;
        text += ",\n";
        let sum = hex(&Sha256::digest(text.as_bytes()));
        writeln!(text, "{CHECKSUM_FIELD}{sum}\"}}")?;
        Ok(text.into_bytes())
    }
}

/// Whether a list has the checksum that it says at its end.
fn checksum_is_right(bytes: &[u8]) -> bool {
    let field = CHECKSUM_FIELD.as_bytes();
    let at = bytes.windows(field.len()).rposition(|window| window == field);
    let parts = at.and_then(|at| bytes.split_at_checked(at));
    let Some((covered, rest)) = parts else { return false };
    let sum = rest.strip_prefix(field).and_then(|rest| rest.get(..64));
    sum.is_some_and(|sum| sum == hex(&Sha256::digest(covered)).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> FileList {
        let file = |path: &str, size| {
            ListedFile {
                path: None,
                encoded_path: None,
                size: 0,
                last_modified: "2026-11-22 10:00:00 GMT".into(),
                algorithm: None,
                checksum: None,
            }
            .rebuilt(path, size, 0x1234_5678)
        };
        FileList {
            version: 2,
            system: Some(7),
            files: vec![file("base/5/1", 8192), file("backup_label", 200)],
            wal: serde_json::json!([{"Timeline": 1, "Start-LSN": "0/2000028", "End-LSN": "0/2000120"}]),
        }
    }

    #[test]
    fn a_list_reads_as_it_was_written() {
        let list = list();
        let bytes = list.of_files(&list.files).unwrap();
        let read = FileList::parse(&bytes).unwrap();
        assert_eq!(read, list);
        let files = read.by_path();
        assert_eq!(files[b"base/5/1".as_slice()].crc32c(), Some(0x1234_5678));
        assert_eq!(files.len(), 2);
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            // What stands behind the checksum carries nothing.
            assert!(FileList::parse(&flipped).is_err() || at > bytes.len() - 4, "{at}");
        }
    }

    #[test]
    fn a_path_that_is_no_text_comes_in_hex() {
        let file: ListedFile = serde_json::from_str(
            r#"{"Encoded-Path":"6c6f67ff","Size":1,"Last-Modified":"2026-11-22 10:00:00 GMT"}"#,
        )
        .unwrap();
        assert_eq!((file.path(), file.crc32c()), (Some(b"log\xff".to_vec()), None));
    }
}
