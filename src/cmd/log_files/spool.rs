//! What hooks leave for the next hook: files that were fetched ahead, and the names of those that were archived
//! ahead. Only ever a short cut; without it the store is asked.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::wire::AppContext;

/// A note on a file that was archived before the server handed it over.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct PushedNote {
    sha256: String,
    stores: Vec<String>,
}

/// The folder of one log in the state directory.
#[derive(Debug)]
pub(super) struct Spool {
    folder: PathBuf,
}

impl Spool {
    /// That of the log with this stream.
    pub(super) fn of(app: &AppContext, source: &str, stream: &str) -> Spool {
        let folder = app.settings.state_dir.join("log-files").join(source).join(stream);
        Spool { folder }
    }

    /// The folder for files that were fetched ahead; made if need be.
    pub(super) fn fetched(&self) -> std::io::Result<PathBuf> {
        let folder = self.folder.join("fetched");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        Ok(folder)
    }

    fn note(&self, file: &str) -> PathBuf {
        self.folder.join("pushed").join(file)
    }

    /// Whether this host has archived a file of this content in all of these stores.
    pub(super) fn was_pushed(&self, file: &str, sha256: &str, stores: &[String]) -> bool {
        let note = fs::read(self.note(file)).ok();
        let note = note.and_then(|bytes| serde_json::from_slice::<PushedNote>(&bytes).ok());
        note.is_some_and(|note| note.sha256 == sha256 && note.stores == stores)
    }

    /// Notes that a file is archived. If that fails, the store is asked when the server hands it over.
    pub(super) fn note_pushed(&self, file: &str, sha256: &str, stores: &[String]) {
        let note = PushedNote { sha256: sha256.to_owned(), stores: stores.to_vec() };
        let Ok(text) = serde_json::to_vec(&note) else { return };
        let path = self.note(file);
        let made = path
            .parent()
            .map(|folder| fs::DirBuilder::new().recursive(true).mode(0o700).create(folder));
        if let Some(Ok(())) = made {
            // Half a note is none.
            let _missed = fs::write(path, text);
        }
    }

    /// Forgets a file that the server knows to be archived.
    pub(super) fn forget_pushed(&self, file: &str) {
        let _never_noted = fs::remove_file(self.note(file));
    }
}
