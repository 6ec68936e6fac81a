//! No two runs of one job on one host: a kernel lock that dies with its process.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use anyhow::Context as _;
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use time::format_description::well_known::Rfc3339;

use crate::ctx::Ctx;
use crate::error::{Fault, Kind};

/// A held lock; dropping it lets go.
#[derive(Debug)]
pub struct Lock {
    _file: File,
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
                "let the user that runs bkp write to the state directory, or set another `state_dir`",
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
            Err(Errno::WOULDBLOCK) => return Err(busy(job, &mut file).into()),
            Err(error) => return Err(error).with_context(hint),
        }
        // For the message of whoever comes second; the lock itself is the kernel's.
        let now = ctx.now().replace_nanosecond(0)?.format(&Rfc3339)?;
        let note = format!("process {} since {now}", std::process::id());
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(note.as_bytes())?;
        Ok(Lock { _file: file })
    }
}

fn busy(job: &str, file: &mut File) -> Fault {
    let mut note = String::new();
    let read = file.read_to_string(&mut note).is_ok() && !note.is_empty();
    let holder = if read { note.as_str() } else { "another process" };
    Fault::new(Kind::Busy, format!("`{job}` is running already: {holder}"))
        .hint("wait for it to end; the lock goes with its process, nothing needs to be cleared")
}
