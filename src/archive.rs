//! The tar archive inside a backup: written entry by entry, read back with every path checked.
//!
//! The format is POSIX ustar with GNU long sizes as the `tar` crate writes them; any tar reads it.
//! Only regular files with plain relative names travel in it.

use std::io::{self, Read, Write};

use tar::{Archive, EntryType, Header};

use crate::ctx::Cancel;
use crate::domain::limits::MEMBER_PATH_BYTES_MAX;
use crate::error::{Fault, FirstError, Kind};
use crate::stage::{ChainStats, Sink};

const TAR_BLOCK_BYTES: usize = 512;

/// Takes the entries of a capture. A later entry supersedes an earlier one of the same name.
pub trait EntrySink {
    /// Adds an entry with all its bytes.
    ///
    /// # Errors
    /// The typed error of the stage or store that failed; the capture must end then.
    fn entry(&mut self, name: &str, bytes: &[u8]) -> anyhow::Result<()>;

    /// Adds an entry of exactly `size` bytes, written by `body`.
    ///
    /// # Errors
    /// As [`EntrySink::entry`].
    fn stream(
        &mut self,
        name: &str,
        size: u64,
        body: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
    ) -> anyhow::Result<()>;
}

/// Writes a tar into a chain.
pub struct ArchiveWriter {
    out: Box<dyn Sink>,
    modified: u64,
    cancel: Cancel,
}

impl std::fmt::Debug for ArchiveWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ArchiveWriter").finish_non_exhaustive()
    }
}

impl ArchiveWriter {
    /// Begins an archive whose members have this modification time (Unix seconds). It takes no more
    /// members once `cancel` is raised.
    #[must_use]
    pub fn new(out: Box<dyn Sink>, modified: u64, cancel: Cancel) -> Self {
        ArchiveWriter { out, modified, cancel }
    }

    /// Ends the archive and the chain behind it. This is the last moment at which a run can be
    /// stopped: what follows is short, and leaves either a whole backup or none.
    ///
    /// # Errors
    /// What the chain fails with, or the wish to stop.
    pub fn finish(mut self) -> anyhow::Result<ChainStats> {
        self.cancel.check()?;
        // Two blocks of zeros end a tar.
        self.out.write(&[0; 2 * TAR_BLOCK_BYTES])?;
        self.out.finish()
    }

    fn header(&mut self, name: &str, size: u64) -> anyhow::Result<()> {
        self.cancel.check()?;
        let mut header = Header::new_ustar();
        header.set_path(name)?;
        header.set_size(size);
        header.set_mode(0o600);
        header.set_mtime(self.modified);
        header.set_entry_type(EntryType::Regular);
        header.set_cksum();
        self.out.write(header.as_bytes())
    }

    fn pad(&mut self, size: u64) -> anyhow::Result<()> {
        let over = usize::try_from(size % TAR_BLOCK_BYTES as u64)?;
        let zeros = [0; TAR_BLOCK_BYTES];
        self.out.write(zeros.get(..(TAR_BLOCK_BYTES - over) % TAR_BLOCK_BYTES).unwrap_or_default())
    }
}

impl EntrySink for ArchiveWriter {
    fn entry(&mut self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let size = bytes.len() as u64;
        self.header(name, size)?;
        self.out.write(bytes)?;
        self.pad(size)
    }

    fn stream(
        &mut self,
        name: &str,
        size: u64,
        body: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
    ) -> anyhow::Result<()> {
        self.header(name, size)?;
        let first_error = FirstError::default();
        let mut writer =
            Body { out: self.out.as_mut(), left: size, first_error: first_error.clone() };
        body(&mut writer).map_err(|error| first_error.or(error))?;
        if writer.left > 0 {
            let message = format!("member `{name}` ended {} bytes early", writer.left);
            return Err(Fault::new(Kind::Failed, message).into());
        }
        self.pad(size)
    }
}

/// Lets a member's body be written through [`Write`], exactly as long as announced.
struct Body<'a> {
    out: &'a mut dyn Sink,
    left: u64,
    first_error: FirstError,
}

impl Write for Body<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let size = bytes.len() as u64;
        self.left = self.left.checked_sub(size).ok_or(io::ErrorKind::WriteZero)?;
        self.out.write(bytes).map_err(|error| self.first_error.note(error))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Shows every member of the tar in `input` to `visit`, in order, with its name and size.
///
/// # Errors
/// [`Kind::Integrity`] for anything that bkp does not write: a member that is no regular file, or
/// whose name is absolute, has `..` in it or is too long. Else what `visit` or `input` failed with;
/// `first_error` knows the typed error of the chain below.
pub fn read(
    input: impl Read,
    first_error: &FirstError,
    visit: &mut dyn FnMut(&str, u64, &mut dyn Read) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut archive = Archive::new(input);
    for entry in archive.entries().map_err(|error| broken(first_error, &error))? {
        let mut entry = entry.map_err(|error| broken(first_error, &error))?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if entry.header().entry_type() != EntryType::Regular || !is_plain(&name) {
            let message = format!("the backup has an unknown member `{}`", name.escape_debug());
            return Err(Fault::new(Kind::Integrity, message).into());
        }
        let size = entry.size();
        visit(&name, size, &mut entry)?;
        // What the visitor left unread is still authenticated and hashed.
        io::copy(&mut entry, &mut io::sink()).map_err(|error| broken(first_error, &error))?;
    }
    Ok(())
}

/// What a member of a tar of another program is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForeignKind {
    /// A file.
    File,
    /// A folder.
    Folder,
    /// A link, or anything else that is neither.
    Other,
}

/// A member of a tar that another program writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignMember {
    /// Its name, whatever it may be.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: ForeignKind,
    /// Its size, bytes.
    pub bytes: u64,
}

/// Shows every member of a tar that another program writes to `visit`, in order.
///
/// # Errors
/// [`Kind::Source`] if it is no tar; what `visit` or `input` failed with; `first_error` knows the typed error of
/// whatever is below.
pub fn read_foreign(
    input: impl Read,
    first_error: &FirstError,
    visit: &mut dyn FnMut(&ForeignMember, &mut dyn Read) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let unreadable = |error: &io::Error| {
        let message = format!("the tar that is sent cannot be read: {error}");
        first_error.or(Fault::new(Kind::Source, message))
    };
    let mut archive = Archive::new(input);
    for entry in archive.entries().map_err(|error| unreadable(&error))? {
        let mut entry = entry.map_err(|error| unreadable(&error))?;
        let entry_type = entry.header().entry_type();
        let kind = if entry_type.is_file() || entry_type.is_contiguous() {
            ForeignKind::File
        } else if entry_type.is_dir() {
            ForeignKind::Folder
        } else {
            ForeignKind::Other
        };
        let path = entry.path_bytes().into_owned();
        let member = ForeignMember { path, kind, bytes: entry.size() };
        visit(&member, &mut entry).map_err(|error| first_error.or(error))?;
    }
    Ok(())
}

/// Whether a name can be that of a member.
#[must_use]
pub fn is_member_name(name: &str) -> bool {
    is_plain(name)
}

/// A tar that cannot be parsed although every byte of it is authentic was not written by bkp.
fn broken(first_error: &FirstError, error: &io::Error) -> anyhow::Error {
    let unreadable =
        Fault::new(Kind::Integrity, format!("the backup's tar cannot be read: {error}"));
    first_error.or(unreadable)
}

/// Whether a member's name stays below where it is unpacked, whatever unpacks it.
fn is_plain(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let component =
        |part: &str| !part.is_empty() && part != "." && part != ".." && part.chars().all(plain);
    name.len() <= MEMBER_PATH_BYTES_MAX && name.split('/').all(component)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::diagnose;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Bytes(Arc<Mutex<Vec<u8>>>);

    impl Sink for Bytes {
        fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(())
        }

        fn finish(self: Box<Self>) -> anyhow::Result<ChainStats> {
            Ok(ChainStats::default())
        }
    }

    fn members(bytes: &[u8]) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
        let mut found = Vec::new();
        read(bytes, &FirstError::default(), &mut |name, _size, body| {
            let mut content = Vec::new();
            body.read_to_end(&mut content)?;
            found.push((name.to_owned(), content));
            Ok(())
        })?;
        Ok(found)
    }

    #[test]
    fn members_come_back_in_order() {
        let bytes = Bytes::default();
        let mut writer = ArchiveWriter::new(Box::new(bytes.clone()), 1, Cancel::default());
        writer.entry("grid/1", &[1; 700]).unwrap();
        writer.stream("layout.json", 5, &mut |out| out.write_all(b"12345")).unwrap();
        writer.entry("grid/1", &[]).unwrap();
        writer.finish().unwrap();
        let tar = bytes.0.lock().unwrap().clone();
        let expected =
            [("grid/1", vec![1; 700]), ("layout.json", b"12345".to_vec()), ("grid/1", vec![])];
        let expected = expected.map(|(name, content)| (name.to_owned(), content));
        assert_eq!(members(&tar).unwrap(), expected);
    }

    #[test]
    fn a_body_of_another_length_is_an_error() {
        let mut writer = ArchiveWriter::new(Box::new(Bytes::default()), 1, Cancel::default());
        assert!(writer.stream("a", 5, &mut |out| out.write_all(b"1234")).is_err());
        assert!(writer.stream("a", 3, &mut |out| out.write_all(b"1234")).is_err());
    }

    #[test]
    fn members_that_could_escape_are_refused() {
        for name in ["../x", "/etc/passwd", "a/../../b", "a//b", "a\\b", "./a"] {
            let mut header = Header::new_ustar();
            let field = &mut header.as_mut_bytes()[..name.len()];
            field.copy_from_slice(name.as_bytes());
            header.set_size(0);
            header.set_entry_type(EntryType::Regular);
            header.set_cksum();
            let error = members(header.as_bytes()).expect_err(name);
            assert_eq!(diagnose(&error).kind, Kind::Integrity, "{name}");
        }
        let mut link = Header::new_ustar();
        link.set_path("a").unwrap();
        link.set_entry_type(EntryType::Symlink);
        link.set_link_name("/etc/passwd").unwrap();
        link.set_size(0);
        link.set_cksum();
        assert!(members(link.as_bytes()).is_err());
    }
}
