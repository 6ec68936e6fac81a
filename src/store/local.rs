//! A store in a local folder: `file:///absolute/path`.
//!
//! A key is a path below the root. What the root contains is untrusted: folders are opened one
//! component at a time without following links, so that no key can lead out of the root, and
//! whatever is neither a folder nor a regular file does not exist. The root itself is the
//! operator's word: it may be a link, and it is opened once, so that a disk that is unmounted or
//! replaced during a run cannot be mistaken for an empty store.
//!
//! - `root`: the folder, and how keys lead to what is in it.
//! - `upload`: how an object is written: without a name until it is whole, durable and confirmed.
//! - `walk`: how a listing is read, one folder at a time.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

use rustix::fs::{AtFlags, Stat};
use rustix::io::{Errno, retry_on_intr};
use sha2::{Digest as _, Sha256};

use crate::domain::health::Space;
use crate::fs::staged_file::{StagedFile, sync_folder};
use crate::table::ConfigError;

use super::{
    AppendStore, Declared, Listing, ObjectInfo, ObjectLabels, PruneStore, ReadStore, StoreError,
    StoreKind, Upload,
};

mod root;
mod upload;
mod walk;

pub use self::root::Local;

use self::root::{failed, info, is_absent, object_bytes, path_of, version};

/// Stores of the scheme `file`.
pub const KIND: StoreKind = StoreKind {
    scheme: "file",
    schema: || serde_json::json!({ "type": "object", "properties": {} }),
    check: |place| match path_of(&place.url) {
        Ok(path) => Ok(format!("file://{}", path.display())),
        Err(problem) => Err(ConfigError::invalid(&place.name, problem)),
    },
    lifecycle: |_place| Ok(None),
    read_at: None,
    read: |place, _ctx| Ok(Box::new(Local::open(&place.url)?)),
    append: |place, _ctx| Ok(Box::new(Local::open(&place.url)?)),
    prune: |place, _ctx| Ok(Box::new(Local::open(&place.url)?)),
};

impl ReadStore for Local {
    fn space(&self) -> Option<Space> {
        let found = rustix::fs::fstatvfs(&self.root).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        Some(Space { free_bytes: bytes(found.f_bavail), total_bytes: bytes(found.f_blocks) })
    }

    fn url(&self) -> &str {
        &self.url
    }

    fn contains(&self, path: &Path) -> bool {
        let place = |stat: Stat| (stat.st_dev, stat.st_ino);
        let root = rustix::fs::fstat(&self.root).map(place);
        let path = std::path::absolute(path).unwrap_or_default();
        path.ancestors().any(|above| rustix::fs::stat(above).map(place) == root && root.is_ok())
    }

    fn list(&self, prefix: &str) -> Result<Listing<'_>, StoreError> {
        if !prefix.is_empty() {
            self.check(prefix)?;
        }
        Ok(Box::new(walk::Walk::begin(self, prefix)?))
    }

    fn folders(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        if !prefix.is_empty() {
            self.check(prefix)?;
        }
        walk::folders(self, prefix)
    }

    fn head(&self, key: &str) -> Result<ObjectInfo, StoreError> {
        let (path, name) = self.split(key)?;
        let stat = self.folder(path).and_then(|folder| {
            retry_on_intr(|| rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW))
        });
        match stat {
            Ok(stat) => {
                let bytes = object_bytes(&stat).ok_or_else(|| self.missing(key))?;
                Ok(info(key.to_owned(), bytes, version(&stat)))
            }
            Err(errno) if is_absent(errno) => Err(self.missing(key)),
            Err(errno) => Err(failed(&self.url, "inspect", key, errno)),
        }
    }

    fn open(
        &self,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<Box<dyn Read + Send>, StoreError> {
        let (mut file, bytes) = self.object(key)?;
        let range = range.unwrap_or(0..bytes);
        let start = range.start.min(bytes);
        file.seek(SeekFrom::Start(start)).map_err(|error| failed(&self.url, "read", key, error))?;
        let name = format!("{}: cannot read `{key}`", self.url);
        Ok(Box::new(NamedFile { file, name }.take(range.end.saturating_sub(start))))
    }
}

impl AppendStore for Local {
    fn create(&self, key: &str, _labels: &ObjectLabels) -> Result<Box<dyn Upload>, StoreError> {
        let (path, name) = self.split(key)?;
        let fail = |errno: Errno| failed(&self.url, "create", key, errno);
        let folder = self.folder_made(path).map_err(fail)?;
        match retry_on_intr(|| rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)) {
            Ok(_taken) => Err(StoreError::Exists { store: self.url.clone(), key: key.to_owned() }),
            Err(Errno::NOENT) => {
                let staged = StagedFile::begin(folder).map_err(fail)?;
                Ok(Box::new(upload::LocalUpload::new(staged, &self.url, key, name)))
            }
            Err(errno) => Err(fail(errno)),
        }
    }

    fn self_test(&self) -> Result<Option<String>, StoreError> {
        // What a doctor left that was killed.
        self.delete(PROBE)?;
        let tried = self.probe_overwriting();
        self.delete(PROBE)?;
        let (folder, _name) = self.split(PROBE)?;
        // It may have been there before, and hold something else.
        let _left = rustix::fs::unlinkat(&self.root, folder, AtFlags::REMOVEDIR);
        tried?;
        Ok(Some("wrote an object, which could not be overwritten, and removed it".to_owned()))
    }
}

/// The object that `doctor` writes and removes again.
const PROBE: &str = "doctor/probe";

impl Local {
    /// Writes an object in the way of every other, and tries to write it once more.
    fn probe_overwriting(&self) -> Result<(), StoreError> {
        let write = || {
            let mut upload = self.create(PROBE, &ObjectLabels::default())?;
            upload.write(PROBE.as_bytes())?;
            let sha256 = Sha256::digest(PROBE).into();
            upload.commit(Declared { bytes: PROBE.len() as u64, sha256 })
        };
        // Begun before there is one, so that it is the commit that has to refuse.
        let second = self.create(PROBE, &ObjectLabels::default())?;
        write()?;
        let declared = Declared { bytes: 0, sha256: Sha256::digest([]).into() };
        match second.commit(declared) {
            Err(StoreError::Exists { .. }) => Ok(()),
            Err(error) => Err(error),
            Ok(()) => Err(StoreError::Denied {
                store: self.url.clone(),
                operation: "protect",
                key: PROBE.to_owned(),
                problem: "the file system lets a second writer overwrite the first".into(),
                hint: "put the store on another file system: ext4, XFS, btrfs or NFS".into(),
            }),
        }
    }
}

impl PruneStore for Local {
    fn delete(&self, key: &str) -> Result<(), StoreError> {
        let (path, name) = self.split(key)?;
        let removed = self.folder(path).and_then(|folder| {
            retry_on_intr(|| rustix::fs::unlinkat(&folder, name, AtFlags::empty()))?;
            sync_folder(&folder)
        });
        match removed {
            Ok(()) => Ok(()),
            // A folder of that name is no object.
            Err(errno) if is_absent(errno) || errno == Errno::ISDIR => Ok(()),
            Err(errno) => Err(failed(&self.url, "remove", key, errno)),
        }
    }
}

/// A file whose read errors say which object they happened to.
struct NamedFile {
    file: File,
    name: String,
}

impl Read for NamedFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", self.name));
        self.file.read(buffer).map_err(named)
    }
}
