//! The ways to read a database file that another process may hold, and what is seen of it at one
//! moment.
//!
//! DuckDB locks its file with a POSIX record lock for as long as a process has it open. No lock is
//! ever taken here, only looked at: one that bkp held would keep the application from opening its
//! own file.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode as FileMode, OFlags};
use rustix::io::Errno;
use rustix::process::{Flock, FlockOffsetType, FlockType, fcntl_getlk};

use crate::source::SourceError;
use crate::source::duckdb::attempt_error::{AttemptError, Cause, again};
use crate::source::duckdb::data_file::format::{BLOCKS_AT, HeaderError, Headers};
use crate::source::duckdb::data_file::wal;
use crate::source::duckdb::data_file::wal::Scan;

/// How a file is captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// While another process writes it.
    Online,
    /// From clones that the file system makes in an instant.
    Reflink,
    /// While no process has it open for writing.
    Stopped,
}

impl Mode {
    /// Every mode.
    const ALL: [Mode; 3] = [Mode::Online, Mode::Reflink, Mode::Stopped];

    /// The words for [`Mode::ALL`].
    pub(crate) const NAMES: &'static [&'static str] = &["online", "reflink", "stopped"];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Mode::Online => "online",
            Mode::Reflink => "reflink",
            Mode::Stopped => "stopped",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Mode> {
        Mode::ALL.into_iter().find(|mode| mode.name() == text)
    }

    /// A failure that belongs to this mode.
    pub(crate) fn refuse(self, path: &Path, reason: String, hint: &str) -> SourceError {
        SourceError::Mode {
            what: path.display().to_string(),
            mode: self.name(),
            reason,
            hint: hint.into(),
        }
    }
}

/// A path with more at its end, as DuckDB names the files beside a database.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// What cannot be read.
pub(crate) fn unreadable(path: &Path, source: io::Error) -> SourceError {
    SourceError::Unreadable { what: path.display().to_string(), source }
}

/// Opens a file for reading; `None` if there is none.
fn open_if_there(path: &Path) -> Result<Option<File>, SourceError> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(path, error)),
    }
}

/// Whether some other process has the file open in DuckDB; `for_writing` asks for writers only.
///
/// # Errors
/// What the system says of the file's lock.
pub(crate) fn is_held(file: &File, for_writing: bool) -> io::Result<bool> {
    let typ = if for_writing { FlockType::ReadLock } else { FlockType::WriteLock };
    let wanted = Flock { start: 0, length: 0, pid: None, typ, offset_type: FlockOffsetType::Set };
    Ok(fcntl_getlk(file, &wanted)?.is_some())
}

/// A database file and its log, opened for reading.
#[derive(Debug)]
pub(crate) struct Database {
    /// The path, for messages and for the names of the files beside it.
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    state: State,
    /// Whether a checkpoint was broken off that nobody goes on with: then everything that there is of it is
    /// captured as it is, for the engine to put in order.
    pub(crate) broken_off: Cell<bool>,
}

/// Where file and log are.
#[derive(Debug)]
enum State {
    /// In their place, where others change them.
    Live,
    /// Cloned, the log too if there was one.
    Cloned(Option<File>),
}

/// What tells whether anybody works on the files: the headers, and inode and length of file and logs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct FileFingerprint {
    pub(crate) headers: Option<Vec<u8>>,
    pub(crate) files: [Option<(u64, u64)>; 3],
}

/// What was seen of a file and its log at one moment.
#[derive(Debug)]
pub(crate) struct Observation {
    pub(crate) headers: Headers,
    /// The log, if there is one, and how much of it a capture can use.
    pub(crate) log: Option<(File, Scan)>,
    /// The log for commits of a checkpoint that was broken off, and its length.
    pub(crate) next: Option<(File, u64)>,
    pub(crate) file_bytes: u64,
}

impl Observation {
    /// Bytes of the log, of which there is a copy, and of the one for a checkpoint behind it.
    pub(crate) fn log_bytes(&self) -> (u64, u64) {
        let own = self.log.as_ref().map_or(0, |(_, scan)| scan.committed);
        (own, self.next.as_ref().map_or(0, |(_, length)| *length))
    }

    /// Reads a part of both.
    pub(crate) fn read_logs(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        let (own, _) = self.log_bytes();
        let here = usize::try_from(own.saturating_sub(at)).unwrap_or(usize::MAX);
        let (first, rest) = buffer.split_at_mut(here.min(buffer.len()));
        if let Some((log, _)) = &self.log {
            log.read_exact_at(first, at)?;
        }
        match &self.next {
            Some((next, _)) if !rest.is_empty() => next.read_exact_at(rest, at.max(own) - own),
            Some(_) | None => Ok(()),
        }
    }
}

impl Database {
    /// Opens the file at `path`. Behind a link it is known by its true path, as to DuckDB: its log is
    /// beside that.
    ///
    /// # Errors
    /// [`SourceError::Unreadable`].
    pub(crate) fn open(path: &Path) -> Result<Database, SourceError> {
        let path = &path.canonicalize().map_err(|error| unreadable(path, error))?;
        let file = File::open(path).map_err(|error| unreadable(path, error))?;
        let kind = file.metadata().map_err(|error| unreadable(path, error))?.file_type();
        if !kind.is_file() {
            return Err(unreadable(path, ErrorKind::IsADirectory.into()));
        }
        Ok(Database {
            path: path.to_owned(),
            file,
            state: State::Live,
            broken_off: Cell::default(),
        })
    }

    /// Whether nobody can change it any more.
    pub(crate) fn is_clone(&self) -> bool {
        matches!(self.state, State::Cloned(_))
    }

    /// Reads the headers.
    ///
    /// # Errors
    /// An [`AttemptError`] if they are torn; [`SourceError::Unsupported`] if it is another kind of file.
    pub(crate) fn headers(&self) -> Result<Headers, AttemptError> {
        let mut raw = vec![0; usize::try_from(BLOCKS_AT).unwrap_or_default()];
        let count = self.read(&mut raw, 0)?;
        Headers::parse(raw.get(..count).unwrap_or_default()).map_err(|wrong| match wrong {
            HeaderError::Torn(why) => AttemptError::Again(Cause::Torn, why),
            HeaderError::Foreign(reason) => {
                SourceError::Unsupported { what: self.path.display().to_string(), reason }.into()
            }
        })
    }

    /// Looks at the files from outside.
    pub(crate) fn fingerprint(&self) -> FileFingerprint {
        let headers = self.headers().ok().map(|headers| headers.raw().to_vec());
        let look = |suffix: &str| {
            let found = std::fs::metadata(beside(&self.path, suffix)).ok()?;
            Some((found.ino(), found.len()))
        };
        FileFingerprint { headers, files: ["", ".wal", ".wal.checkpoint"].map(look) }
    }

    /// Reads at `offset`, as much as there is.
    ///
    /// # Errors
    /// [`SourceError::Unreadable`].
    pub(crate) fn read(&self, buffer: &mut [u8], offset: u64) -> Result<usize, SourceError> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(unreadable(&self.path, error)),
            }
        }
        Ok(filled)
    }

    /// Looks at headers and log; the log's prefix is there before any block that it needs is read.
    ///
    /// # Errors
    /// An [`AttemptError`] while a checkpoint is under way, or if something is torn.
    pub(crate) fn observe(&self) -> Result<Observation, AttemptError> {
        let headers = self.headers()?;
        self.check_no_checkpoint()?;
        let log = match self.log()? {
            None => None,
            Some(file) => {
                let mut scan = self.scan(&file, u64::MAX)?;
                // Whether what stands before the marker is in the file already, only the engine can tell.
                scan.committed = scan.committed.max(scan.marked);
                if let Some(at) = scan.broken {
                    let why = format!("its log has a wrong checksum at byte {at}");
                    return Err(AttemptError::Again(Cause::Torn, why));
                }
                check_owner(&headers, &scan)?;
                Some((file, scan))
            }
        };
        let file_bytes = self.file.metadata().map_err(|error| unreadable(&self.path, error))?.len();
        let next = self.next_log()?;
        Ok(Observation { headers, log, next, file_bytes })
    }

    /// Whether what was read since `before` belongs together: no checkpoint has ended, the log has
    /// only grown, and nothing was freed that it needs.
    ///
    /// # Errors
    /// An [`AttemptError`] if it does not.
    pub(crate) fn recheck(&self, before: &Observation) -> Result<(), AttemptError> {
        let headers = self.headers()?;
        if headers != before.headers {
            return Err(again("a checkpoint ended meanwhile"));
        }
        if self.is_clone() {
            return Ok(());
        }
        self.check_no_checkpoint()?;
        let now = std::fs::metadata(&self.path).map_err(|error| unreadable(&self.path, error))?;
        let opened = self.file.metadata().map_err(|error| unreadable(&self.path, error))?;
        if (now.dev(), now.ino()) != (opened.dev(), opened.ino()) {
            let reason = "the file was replaced by another one".to_owned();
            return Err(
                SourceError::Unsupported { what: self.path.display().to_string(), reason }.into()
            );
        }
        let next_bytes = self.next_log()?.map(|(_, length)| length);
        if next_bytes != before.next.as_ref().map(|(_, length)| *length) {
            return Err(again("another process continues the checkpoint"));
        }
        let Some((log, scan)) = &before.log else {
            // A log that appeared holds later commits, and blocks that a header refers to are not
            // freed by them; those that none refers to are not in this capture.
            return Ok(());
        };
        let path = beside(&self.path, ".wal");
        let metadata = |file: &File| file.metadata().map_err(|error| unreadable(&path, error));
        let now = self.log()?.ok_or_else(|| again("the log was removed meanwhile"))?;
        let (then, there) = (metadata(log)?, metadata(&now)?);
        if then.ino() != there.ino() || there.len() < scan.committed {
            return Err(again("the log was replaced meanwhile"));
        }
        if scan.opaque && there.len() != scan.committed {
            return Err(again("the encrypted log has grown meanwhile"));
        }
        if self.scan(&now, scan.committed)?.freeing {
            return Err(again("a table was dropped or altered meanwhile"));
        }
        Ok(())
    }

    /// The log of now, if there is one.
    fn log(&self) -> Result<Option<File>, AttemptError> {
        let path = beside(&self.path, ".wal");
        match &self.state {
            State::Live => Ok(open_if_there(&path)?),
            State::Cloned(None) => Ok(None),
            State::Cloned(Some(file)) => {
                let copy = file.try_clone().map_err(|error| unreadable(&path, error))?;
                Ok(Some(copy))
            }
        }
    }

    /// Reads a log to its end and looks for entries that free blocks from `tail` on.
    fn scan(&self, file: &File, tail: u64) -> Result<Scan, AttemptError> {
        let path = beside(&self.path, ".wal");
        let length = file.metadata().map_err(|error| unreadable(&path, error))?.len();
        let scan = match wal::scan(file, length, tail) {
            Ok(scan) => scan,
            // It was made shorter while it was read.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                return Err(again("the log was truncated meanwhile"));
            }
            Err(error) => return Err(unreadable(&path, error).into()),
        };
        if scan.checkpoint && !self.broken_off.get() {
            return Err(checkpoint());
        }
        Ok(scan)
    }

    /// The log for commits of a checkpoint that was broken off, if there is one, with its length.
    fn next_log(&self) -> Result<Option<(File, u64)>, AttemptError> {
        if !self.broken_off.get() {
            return Ok(None);
        }
        let path = beside(&self.path, ".wal.checkpoint");
        let Some(file) = open_if_there(&path)? else { return Ok(None) };
        let length = file.metadata().map_err(|error| unreadable(&path, error))?.len();
        Ok(Some((file, length)))
    }

    /// While a checkpoint is under way, commits go to a log of their own.
    fn check_no_checkpoint(&self) -> Result<(), AttemptError> {
        let path = beside(&self.path, ".wal.checkpoint");
        match path.symlink_metadata() {
            _ if self.is_clone() || self.broken_off.get() => Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(unreadable(&path, error).into()),
            Ok(_) => Err(checkpoint()),
        }
    }

    /// Clones log and file, in this order, into files without names.
    ///
    /// # Errors
    /// An [`AttemptError`] if they changed between the two; [`SourceError::Mode`] where the file system cannot.
    pub(crate) fn clone_both(&self) -> Result<Database, AttemptError> {
        if self.broken_off.get() {
            let reason = "the remains of an interrupted checkpoint are not cloned".to_owned();
            return Err(Mode::Reflink.refuse(&self.path, reason, "use --mode online").into());
        }
        let before = self.observe()?;
        let log = before.log.as_ref().map(|(file, _)| clone(file, &self.path)).transpose()?;
        let file = clone(&self.file, &self.path)?;
        self.recheck(&before)?;
        let broken_off = Cell::default();
        Ok(Database { path: self.path.clone(), file, state: State::Cloned(log), broken_off })
    }
}

/// Whether a log belongs to the file, and is one that can be understood.
///
/// # Errors
/// An [`AttemptError`] if not: between two looks a checkpoint may have ended.
fn check_owner(headers: &Headers, scan: &Scan) -> Result<(), AttemptError> {
    let foreign = |why: String| Err(AttemptError::Again(Cause::Foreign, why));
    if headers.is_encrypted() {
        return Ok(());
    }
    if scan.opaque {
        return foreign("its log has a format unknown to this bkp".into());
    }
    let (Some(owner), Some(id)) = (scan.owner, headers.database_id()) else { return Ok(()) };
    if crate::domain::manifest::hex(&owner.database_id) != id {
        return foreign("the log beside it belongs to another database".into());
    }
    let (log, file) = (owner.iteration, headers.iteration());
    if log != file {
        return foreign(format!(
            "the log beside it continues checkpoint {log}, but the file is at checkpoint {file}"
        ));
    }
    Ok(())
}

/// Magic numbers of file systems that clone a file in an instant.
const CLONING: [u64; 2] = [0x5846_5342, 0x9123_683e];

/// Whether a file is on XFS or btrfs, which may clone it.
pub(crate) fn may_clone(file: &File) -> bool {
    let found = rustix::fs::fstatfs(file);
    found.is_ok_and(|found| u64::try_from(found.f_type).is_ok_and(|magic| CLONING.contains(&magic)))
}

fn checkpoint() -> AttemptError {
    AttemptError::Again(Cause::Checkpoint, "a checkpoint is under way".into())
}

/// Clones a file into one without a name, which disappears with its descriptor.
fn clone(from: &File, path: &Path) -> Result<File, SourceError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let failed = |error: Errno| {
        Mode::Reflink.refuse(
            path,
            format!("cannot clone the file here: {error}"),
            "use --mode online, or keep the database on XFS or btrfs, in a folder writable by bkp",
        )
    };
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file: File =
        rustix::fs::open(folder, flags, FileMode::RUSR | FileMode::WUSR).map_err(failed)?.into();
    rustix::fs::ioctl_ficlone(&file, from).map_err(failed)?;
    Ok(file)
}
