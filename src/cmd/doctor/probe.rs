//! Checks of the system.

use std::io;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{Access, access};

use crate::ctx::Ctx;
use crate::process;

/// How long a program may take to print its version.
const VERSION_DEADLINE: Duration = Duration::from_secs(10);

/// How often a program is asked whether it has ended.
const POLL: Duration = Duration::from_millis(20);

/// What locks and the outbox may need, bytes.
const STATE_BYTES_MIN: u64 = 1 << 20;

/// Most bytes of a version's first line that are shown.
const VERSION_CHARS_MAX: usize = 200;

/// Whether files could be created in `folder`, or `folder` in its nearest ancestor that exists.
/// Creates nothing.
pub(super) fn writable(folder: &Path) -> io::Result<&'static str> {
    let existing = existing(folder);
    if !existing.is_dir() {
        let problem = format!("{} is not a folder", existing.display());
        return Err(io::Error::new(io::ErrorKind::NotADirectory, problem));
    }
    access(existing, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| {
        io::Error::new(
            io::Error::from(error).kind(),
            format!("{}: {}", existing.display(), io::Error::from(error)),
        )
    })?;
    if free_bytes(existing)? < STATE_BYTES_MIN {
        let problem = format!("{} has no free space left", existing.display());
        return Err(io::Error::new(io::ErrorKind::StorageFull, problem));
    }
    Ok(if existing == folder { "writable" } else { "does not exist yet; can be created" })
}

/// `folder`, or its nearest ancestor that exists.
fn existing(folder: &Path) -> &Path {
    folder.ancestors().find(|path| path.exists()).unwrap_or_else(|| Path::new("/"))
}

/// What is free where `folder` is or would be, bytes.
pub(super) fn free_bytes(folder: &Path) -> io::Result<u64> {
    let space = rustix::fs::statvfs(existing(folder))?;
    Ok(space.f_bavail.saturating_mul(space.f_frsize))
}

/// Whether others than its owner can write to `folder`, and with it decide what bkp believes of itself.
pub(super) fn is_shared(folder: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    folder.metadata().is_ok_and(|found| found.permissions().mode() & 0o022 != 0)
}

/// The first line that `PROGRAM version` prints. Waits no longer than [`VERSION_DEADLINE`] and no
/// longer than nobody wants to stop.
pub(super) fn version_of(program: &Path, ctx: &Ctx) -> io::Result<String> {
    let mut child = process::helper_command(program)
        .arg("version")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let ended = wait(&mut child, ctx);
    if ended.is_err() {
        // It did not end by itself; a failure here means that it just did.
        let _gone = child.kill();
    }
    let output = child.wait_with_output()?;
    ended?;
    if !output.status.success() {
        return Err(io::Error::other(format!("`version` failed: {}", output.status)));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("printed nothing");
    Ok(line.trim().chars().take(VERSION_CHARS_MAX).collect())
}

fn wait(child: &mut Child, ctx: &Ctx) -> io::Result<()> {
    let began = Instant::now();
    while child.try_wait()?.is_none() {
        if began.elapsed() > VERSION_DEADLINE {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "did not answer in 10 s"));
        }
        ctx.cancel.check().map_err(io::Error::other)?;
        thread::park_timeout(POLL);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::OffsetDateTime;

    #[test]
    fn a_folder_that_can_be_created_is_writable() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(writable(folder.path()).expect("writable"), "writable");
        assert!(writable(&folder.path().join("a/b")).is_ok());
        assert!(!folder.path().join("a").exists());
        std::fs::File::create(folder.path().join("file")).expect("created");
        assert!(writable(&folder.path().join("file/x")).is_err());
    }

    #[test]
    fn a_missing_program_is_reported_as_such() {
        let ctx = Ctx::fixed(|| OffsetDateTime::UNIX_EPOCH);
        let error = version_of(Path::new("/nonexistent/tigerbeetle"), &ctx).expect_err("missing");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
