//! The processes of this machine, as far as `/proc` shows them to this user.

use std::fs;
use std::path::{Path, PathBuf};

/// A process.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    pub(in crate::source) id: u32,
    /// Its command line.
    pub(in crate::source) words: Vec<String>,
    /// Its working folder, its program, and the files it has open, if this user may know.
    pub(in crate::source) folder: Option<PathBuf>,
    pub(in crate::source) program: Option<PathBuf>,
    pub(in crate::source) files: Vec<PathBuf>,
}

impl Process {
    /// The name of its program, as its command line has it.
    pub(in crate::source) fn name(&self) -> &str {
        let first = self.words.first().map(String::as_str).unwrap_or_default();
        first.rsplit('/').next().unwrap_or(first)
    }

    /// A path of its command line, from the root; `None` if it is relative to a folder that this user may
    /// not know.
    pub(in crate::source) fn path(&self, word: &str) -> Option<PathBuf> {
        let path = Path::new(word);
        if path.is_absolute() {
            return Some(path.to_owned());
        }
        Some(self.folder.as_ref()?.join(path))
    }

    #[cfg(test)]
    pub(in crate::source) fn of(id: u32, line: &str) -> Process {
        let words = line.split(' ').map(str::to_owned).collect();
        Process { id, words, folder: None, program: None, files: Vec::new() }
    }
}

/// Every process. One that ends meanwhile, or that belongs to another user, shows less or nothing: that is
/// no error of who looks.
pub(in crate::source) fn running() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let ids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let mut found: Vec<Process> = ids.filter_map(process).collect();
    found.sort_by_key(|process| process.id);
    found
}

fn process(id: u32) -> Option<Process> {
    let place = PathBuf::from(format!("/proc/{id}"));
    let line = fs::read(place.join("cmdline")).ok()?;
    let words =
        line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
    let mut words: Vec<String> = words.collect();
    // Every word ends with a zero byte.
    words.pop();
    let open = fs::read_dir(place.join("fd")).into_iter().flatten();
    let files = open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok()).collect();
    Some(Process {
        id,
        words,
        folder: fs::read_link(place.join("cwd")).ok(),
        program: fs::read_link(place.join("exe")).ok(),
        files,
    })
}
