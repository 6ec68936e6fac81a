//! Keeps two runs of one job apart on one host: a kernel lock that is released with its process.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use anyhow::Context as _;
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::ctx::Ctx;
use crate::error::{Fault, Kind};
use crate::fs::staged_file::StagedFile;

/// A held lock; dropping it lets go.
#[derive(Debug)]
pub struct Lock {
    _file: File,
    place: u64,
}

impl Lock {
    /// Takes the lock of `job` in `state_dir`, without waiting.
    ///
    /// # Errors
    /// [`Kind::Busy`] if another process holds it: names that process and since when;
    /// [`Kind::Config`] if the state directory cannot be written.
    pub fn take(state_dir: &Path, job: &str, ctx: &Ctx) -> anyhow::Result<Lock> {
        let folder = state_dir.join("locks");
        let path = folder.join(format!("{job}.lock"));
        let hint = || {
            Fault::new(Kind::Config, format!("cannot write the lock {}", path.display())).hint(
                "make the state directory writable for the user who runs bkp, with some free space, or set another `state_dir`",
            )
        };
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .with_context(hint)?;
        let mut options = File::options();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .with_context(hint)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(busy(job, &mut file, ctx).into()),
            Err(error) => return Err(error).with_context(hint),
        }
        // For the message of whoever comes second; the lock itself is the kernel's.
        let note = format!("{} {}", std::process::id(), ctx.now().unix_timestamp());
        file.set_len(0).and_then(|()| file.rewind()).with_context(hint)?;
        file.write_all(note.as_bytes()).with_context(hint)?;
        let place = place(&state_dir.join("place")).with_context(hint)?;
        Ok(Lock { _file: file, place })
    }

    /// A number that belongs to the state directory on this host: as long as this lock is held, no other
    /// process can hold the lock of the same job at the same place. A copy of the directory, and one
    /// that several hosts share, where kernel locks may not reach, are other places.
    #[must_use]
    pub fn place(&self) -> u64 {
        self.place
    }
}

/// The number in `path`, mixed with what tells this host and this file from others.
fn place(path: &Path) -> anyhow::Result<u64> {
    let number = number(path)?;
    // Without one, for instance in a container, the name of the host has to do.
    let machine = std::fs::read("/etc/machine-id").unwrap_or_default();
    let host = rustix::system::uname();
    let file = std::fs::metadata(path)?.ino();
    let digest = Sha256::new()
        .chain_update(number.to_be_bytes())
        .chain_update(file.to_be_bytes())
        .chain_update(machine)
        .chain_update(host.nodename().to_bytes())
        .finalize();
    Ok(digest.iter().take(8).fold(0, |place, byte| place << 8 | u64::from(*byte)))
}

/// Reads the number in `path`; draws one first if there is none. Of several that draw at once one
/// wins, and the others read that one's.
fn number(path: &Path) -> anyhow::Result<u64> {
    for _ in 0..2 {
        match std::fs::read_to_string(path) {
            Ok(text) => {
                let number = u64::from_str_radix(text.trim(), 16);
                return number.with_context(|| format!("{} is damaged; remove it", path.display()));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        let number = getrandom::u64()?;
        let staged = StagedFile::beside(path)?;
        let mut file = staged.file();
        file.write_all(format!("{number:016x}\n").as_bytes())?;
        file.sync_all()?;
        match staged.publish("place") {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    anyhow::bail!("{} keeps appearing and disappearing", path.display())
}

fn busy(job: &str, file: &mut File, ctx: &Ctx) -> Fault {
    let mut note = String::new();
    // Unread or half written, it names nobody.
    let _unread = file.read_to_string(&mut note);
    let parsed = note.split_once(' ').and_then(|(process, since)| {
        let since = OffsetDateTime::from_unix_timestamp(since.parse().ok()?).ok()?;
        let age = (ctx.now() - since).whole_seconds().max(0);
        let since = since.format(&Rfc3339).ok()?;
        Some(format!("process {process} on this host, for {age} s, since {since}"))
    });
    let holder = parsed.unwrap_or_else(|| "another process".to_owned());
    Fault::new(Kind::Busy, format!("`{job}` is already running: {holder}")).hint(
        "wait for it to end; the lock is released with its process, no manual cleanup is needed",
    )
}
