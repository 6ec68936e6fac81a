//! Logs that a source's server hands over file by file, through hooks that it starts.
//!
//! A server knows two words of such a hook: done, and not done. What it makes of the second one differs: a file
//! that is not archived stays where it is and is handed over again; a file that is *not there* ends a recovery,
//! and with it everything that stood in later files. So only what is proven absent is said to be absent.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::pipeline::log_files::Content;

/// A file that a server hands over, looked at.
#[derive(Debug)]
pub struct ExaminedFile {
    /// What is in it.
    pub content: Content,
    /// Its size, bytes.
    pub bytes: u64,
    /// SHA-256 of its content.
    pub sha256: [u8; 32],
    /// What it is a log of, by the name that the engine gives it.
    pub stream: String,
    /// What is worth knowing of it before it is read: kept in its header.
    pub facts: Value,
}

/// Where a missing file would stand if it had been archived.
#[derive(Debug, Clone)]
pub struct Neighbours {
    /// The folder of the stream where files stand that come after it.
    pub folder: String,
    /// Whether the file of this name can only be there if the missing one was made, too.
    pub implies: fn(missing: &str, other: &str) -> bool,
}

/// Where in its stream a file belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FilePlace {
    /// Beside the folders.
    Root,
    /// In this folder.
    Folder(String),
}

impl FilePlace {
    /// The folder, if it is in one.
    #[must_use]
    pub fn folder(&self) -> Option<&str> {
        match self {
            FilePlace::Root => None,
            FilePlace::Folder(folder) => Some(folder),
        }
    }
}

/// What is known of the files of a kind of log.
pub struct LogFileKind {
    /// Where in its stream a file of this name belongs; `None` for a name that no such file has.
    pub place: fn(&str) -> Option<FilePlace>,
    /// Looks at a file that is to be archived under this name. Of a running server, its data folder tells what it
    /// is a log of where the file itself does not.
    pub examine: fn(&Path, &str) -> anyhow::Result<ExaminedFile>,
    /// What the server writes a log of that wants a file at this path.
    pub stream_at: fn(&Path) -> anyhow::Result<String>,
    /// Other files that wait to be archived beside this one, oldest first, no more than so many.
    pub waiting: fn(&Path, usize) -> Vec<PathBuf>,
    /// Files that are likely to be wanted after the one of this name, no more than so many.
    pub following: fn(&str, usize) -> Vec<String>,
    /// Whether the file of this name ends before what the manifest with this `capture` record is about.
    pub is_before: fn(&str, &Value) -> bool,
    /// Whether the manifest with this `capture` record shows that the file of this name was archived.
    pub is_shipped: fn(&str, &Value) -> bool,
    /// Where files stand that come after the one of this name.
    pub neighbours: fn(&str) -> Option<Neighbours>,
}

impl std::fmt::Debug for LogFileKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogFileKind").finish_non_exhaustive()
    }
}
