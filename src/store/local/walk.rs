//! A listing of a local store: a walk that holds one folder per level.

use std::vec;

use rustix::fs::{AtFlags, Dir, FileType};
use rustix::io::{Errno, retry_on_intr};

use super::super::{ObjectInfo, StoreError, Version, is_key};
use super::root::{Local, failed, info, is_absent, object_bytes, version};

/// Every object below a folder, sorted by key. Whatever could not be a key, is not a regular file
/// or is reached through a link is left out; the length of keys bounds the depth.
///
/// Folders are read whole and closed again, so that a deep store cannot use up file descriptors.
pub(super) struct Walk<'a> {
    store: &'a Local,
    levels: Vec<vec::IntoIter<Entry>>,
}

/// A key, or the path of a folder with a slash at its end: then sorting the entries of a folder by
/// their bytes sorts all keys below it (`a-b/x` comes before `a/x`, since `-` sorts before `/`).
struct Entry {
    path: String,
    /// Of an object.
    found: Option<(u64, Version)>,
}

impl<'a> Walk<'a> {
    /// Reads the first folder at once, so that a store that is away is known before anything else
    /// happens.
    pub(super) fn begin(store: &'a Local, prefix: &str) -> Result<Self, StoreError> {
        let mut walk = Walk { store, levels: Vec::new() };
        walk.enter(&above(prefix))?;
        Ok(walk)
    }

    fn enter(&mut self, path: &str) -> Result<(), StoreError> {
        self.levels.push(read_folder(self.store, path)?.into_iter());
        Ok(())
    }
}

/// The folders directly below `prefix`.
pub(super) fn folders(store: &Local, prefix: &str) -> Result<Vec<String>, StoreError> {
    let entries = read_folder(store, &above(prefix))?.into_iter();
    Ok(entries.filter_map(|entry| entry.path.strip_suffix('/').map(str::to_owned)).collect())
}

/// `prefix` as [`entries`] takes it.
fn above(prefix: &str) -> String {
    if prefix.is_empty() { String::new() } else { format!("{prefix}/") }
}

/// What is in a folder, which may be there or not.
fn read_folder(store: &Local, path: &str) -> Result<Vec<Entry>, StoreError> {
    match entries(store, path) {
        Ok(entries) => Ok(entries),
        // Not there, or not a folder, or removed while we looked elsewhere.
        Err(errno) if is_absent(errno) => Ok(Vec::new()),
        Err(errno) => Err(failed(&store.url, "list", path, errno)),
    }
}

impl Iterator for Walk<'_> {
    type Item = Result<ObjectInfo, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some(entry) = self.levels.last_mut()?.next() else {
                self.levels.pop();
                continue;
            };
            if let Some((bytes, version)) = entry.found {
                return Some(Ok(info(entry.path, bytes, version)));
            }
            if let Err(error) = self.enter(&entry.path) {
                self.levels.clear();
                return Some(Err(error));
            }
        }
    }
}

/// The objects and folders in the folder at `above` (`""` or with a slash at its end), sorted.
fn entries(store: &Local, above: &str) -> Result<Vec<Entry>, Errno> {
    let folder = store.folder(above)?;
    let mut found = Vec::new();
    for item in Dir::read_from(&folder)? {
        let item = item?;
        // Bytes that are no text are no key.
        let Ok(name) = item.file_name().to_str() else {
            continue;
        };
        let mut path = format!("{above}{name}");
        if !is_key(&path) {
            continue;
        }
        let look = || rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW);
        let stat = match retry_on_intr(look) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(errno),
        };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            path.push('/');
            found.push(Entry { path, found: None });
        } else if let Some(bytes) = object_bytes(&stat) {
            found.push(Entry { path, found: Some((bytes, version(&stat))) });
        }
    }
    found.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}
