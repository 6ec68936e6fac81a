//! What is in the folder. Folders are opened one below the other and no symbolic link is followed, so that
//! nothing outside is read, whatever is renamed meanwhile.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::path::RelativePath;
use crate::ctx::Cancel;
use crate::source::SourceError;

/// How deep folders are looked into.
const DEPTH_MAX: usize = 128;

/// What the system says of a file. As long as it stays the same, so has the content, unless somebody changed it
/// within the resolution of the system's clock: see [`FileStat::is_settled`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileStat {
    /// Device and inode.
    pub(super) inode: (u64, u64),
    /// Size, bytes.
    pub(super) bytes: u64,
    /// When the content was changed, nanoseconds since 1970.
    pub(super) modified: i64,
    /// When content, name or rights were changed, nanoseconds since 1970. Only the system sets it.
    pub(super) changed: i64,
}

/// For so long after a change a file may be changed again without its times showing it, nanoseconds: kernels
/// take the time from a clock that ticks every 10 ms, network file systems every 1 s, FAT every 2 s.
const SETTLED_AFTER: i64 = 3_000_000_000;

impl FileStat {
    fn of(stat: &Stat) -> FileStat {
        let nanos =
            |seconds: i64, nanos: i64| seconds.saturating_mul(1_000_000_000).saturating_add(nanos);
        #[expect(clippy::cast_possible_wrap, reason = "below 10^9")]
        FileStat {
            inode: (stat.st_dev, stat.st_ino),
            bytes: u64::try_from(stat.st_size).unwrap_or(0),
            modified: nanos(stat.st_mtime, stat.st_mtime_nsec as i64),
            changed: nanos(stat.st_ctime, stat.st_ctime_nsec as i64),
        }
    }

    /// Of an open file.
    pub(super) fn of_file(file: &File) -> Result<FileStat, Errno> {
        Ok(FileStat::of(&rustix::fs::fstat(file)?))
    }

    /// Whether a change after the time `now`, nanoseconds since 1970, would show.
    pub(super) fn is_settled(&self, now: i64) -> bool {
        now.saturating_sub(self.changed.max(self.modified)) > SETTLED_AFTER
    }
}

/// Which files are meant.
#[derive(Debug, Clone)]
pub(super) struct Patterns {
    /// Files that are meant,
    pub(super) wanted: GlobSet,
    /// but for these.
    pub(super) excluded: GlobSet,
}

/// Reads patterns in which `*` stands for anything but `/`, and `**` for any folders. An error says what is wrong
/// with one.
pub(super) fn glob_set(patterns: &[String]) -> Result<GlobSet, String> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let glob = GlobBuilder::new(pattern).literal_separator(true).backslash_escape(true).build();
        set.add(glob.map_err(|error| format!("`{pattern}`: {}", error.kind()))?);
    }
    set.build().map_err(|error| error.to_string())
}

impl Patterns {
    fn is_match(&self, path: &RelativePath) -> bool {
        self.wanted.is_match(path.as_path()) && !self.excluded.is_match(path.as_path())
    }
}

/// What was found in the folder.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// The files that are meant, in the order of their paths.
    pub(super) files: Vec<(RelativePath, FileStat)>,
    /// Symbolic links and other things that are no files, whose names fit.
    pub(super) others: Vec<RelativePath>,
    /// Folders that cannot be read, and why. What is in them is not known.
    pub(super) unreadable: Vec<(RelativePath, String)>,
    /// What has a path that is longer than the system takes at once, in words.
    pub(super) unnamed: Vec<String>,
}

/// Opens the folder itself; behind a link, if that is how it was configured.
///
/// # Errors
/// [`SourceError::Unreadable`].
pub(super) fn open_root(path: &Path) -> Result<OwnedFd, SourceError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|error| SourceError::Unreadable {
        what: path.display().to_string(),
        source: error.into(),
    })
}

/// Opens a file below the folder for reading, through folders that are no links.
pub(super) fn open_file(root: &OwnedFd, path: &RelativePath) -> Result<File, Errno> {
    let mut names: Vec<&[u8]> = path.names().collect();
    let name = names.pop().ok_or(Errno::NOENT)?;
    let mut folder: Option<OwnedFd> = None;
    for name in names {
        let at = folder.as_ref().unwrap_or(root);
        folder = Some(open_folder(at, name)?);
    }
    let at = folder.as_ref().unwrap_or(root);
    // Without NONBLOCK a pipe of that name would be waited for.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(at, name, flags, Mode::empty())?);
    let is_file = FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode).is_file();
    if is_file { Ok(file) } else { Err(Errno::ISDIR) }
}

pub(super) fn open_folder(at: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, name, flags, Mode::empty())
}

/// Lists the files below `root`.
///
/// # Errors
/// [`SourceError::Unreadable`] if the folder itself cannot be read; that the run is to stop.
pub(super) fn list(
    root: &OwnedFd,
    shown: &Path,
    patterns: &Patterns,
    cancel: &Cancel,
) -> anyhow::Result<Listing> {
    let mut listing = Listing::default();
    let walk = Walk { patterns, cancel };
    walk.folder(root, None, 0, &mut listing)?.map_err(|why| SourceError::Unreadable {
        what: shown.display().to_string(),
        source: std::io::Error::other(why),
    })?;
    listing.files.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    Ok(listing)
}

struct Walk<'a> {
    patterns: &'a Patterns,
    cancel: &'a Cancel,
}

impl Walk<'_> {
    /// Looks at everything in a folder. The inner error says why the folder cannot be read.
    fn folder(
        &self,
        folder: &OwnedFd,
        path: Option<&RelativePath>,
        depth: usize,
        listing: &mut Listing,
    ) -> anyhow::Result<Result<(), String>> {
        self.cancel.check()?;
        if depth > DEPTH_MAX {
            return Ok(Err(format!("more than {DEPTH_MAX} folders in each other")));
        }
        let items = match Dir::read_from(folder) {
            Ok(items) => items,
            Err(error) => return Ok(Err(error.to_string())),
        };
        for item in items {
            let item = match item {
                Ok(item) => item,
                Err(error) => return Ok(Err(error.to_string())),
            };
            let name = item.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            match RelativePath::join(path, name) {
                Some(path) => self.item(folder, name, path, depth, listing)?,
                None => listing.unnamed.push(format!(
                    "`…/{}`, whose path is longer than 4096 bytes",
                    name.escape_ascii()
                )),
            }
        }
        Ok(Ok(()))
    }

    fn item(
        &self,
        folder: &OwnedFd,
        name: &[u8],
        path: RelativePath,
        depth: usize,
        listing: &mut Listing,
    ) -> anyhow::Result<()> {
        let stat = match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            // Gone since it was listed.
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => {
                listing.unreadable.push((path, error.to_string()));
                return Ok(());
            }
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind.is_dir() {
            let read = match open_folder(folder, name) {
                Ok(inner) => self.folder(&inner, Some(&path), depth + 1, listing)?,
                Err(Errno::NOENT) => Ok(()),
                Err(error) => Err(error.to_string()),
            };
            if let Err(why) = read {
                listing.unreadable.push((path, why));
            }
        } else if self.patterns.is_match(&path) {
            if kind.is_file() {
                listing.files.push((path, FileStat::of(&stat)));
            } else {
                listing.others.push(path);
            }
        }
        Ok(())
    }
}
