//! Suspending a server while its data file is captured.

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::mode::{CaptureMode, refuse};
use crate::ctx::Ctx;
use crate::source::SourceError;
use crate::source::watchdog::Watchdog;

/// How long a server is suspended at most, whatever becomes of us: then it goes on, and the capture
/// does as it would online.
const PAUSE_SECONDS_MAX: u32 = 60;

/// A suspended server; it goes on when this is dropped, or when we die.
#[derive(Debug)]
pub(super) struct Pause {
    /// The process itself, whoever has its number by now.
    server: OwnedFd,
    _watchdog: Watchdog,
}

/// What the watchdog does to let the server `$1` go on: if its number is that of another process by now,
/// which began at another time than `$2`, nothing. What stands before the last bracket may be anything.
const LET_GO_ON: &str = "go_on() { read -r stat <\"/proc/$1/stat\" && begun=$2 && set -- ${stat##*) } && [ \"${20}\" = \"$begun\" ] && kill -CONT \"${stat%% *}\"; }";

impl Pause {
    pub(super) fn begin(path: &Path, file: &File, ctx: &Ctx) -> Result<Pause, SourceError> {
        let refuse = |reason: &str, hint: &str| refuse(path, CaptureMode::Pause, reason, hint);
        let lost = |error: std::io::Error| {
            refuse(&format!("cannot find the server: {error}"), "use --mode online")
        };
        let (pid, server) = holder(file)
            .map_err(lost)?
            .ok_or_else(|| refuse("no server holds the data file", "use --mode stopped"))?;
        let number = pid.as_raw_nonzero().to_string();
        let begun = process_start_time(pid).map_err(lost)?;
        let limit = format!("{LET_GO_ON}; (sleep {PAUSE_SECONDS_MAX}; go_on \"$1\" \"$2\") &");
        let words = [number.as_ref(), begun.as_ref()];
        let watchdog = Watchdog::begin(&limit, "go_on \"$1\" \"$2\"", &words);
        let watchdog = watchdog.map_err(|error| {
            refuse(&format!("cannot start /bin/sh: {error}"), "use --mode online")
        })?;
        // From here on dropping `pause` lets the server go on.
        let pause = Pause { server, _watchdog: watchdog };
        ctx.monitor.warn(&format!(
            "pausing the server (process {number}) for at most {PAUSE_SECONDS_MAX} s"
        ));
        pidfd_send_signal(&pause.server, Signal::STOP).map_err(|error| {
            refuse(
                &format!("cannot pause the server: {error}"),
                "run bkp as the server's user or as root",
            )
        })?;
        Ok(pause)
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        // Fails only if the server is gone. The watchdog, which is dropped after this, watches until
        // the signal was sent.
        let _gone = pidfd_send_signal(&self.server, Signal::CONT);
    }
}

/// The process that holds this file, and a descriptor that stays that process's.
fn holder(file: &File) -> std::io::Result<Option<(Pid, OwnedFd)>> {
    let Some(pid) = lock_holder(file)? else { return Ok(None) };
    let server = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(server) => server,
        // It ended since we looked.
        Err(Errno::SRCH) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    // If it still has the lock now, it had the number when the descriptor was made.
    let still = lock_holder(file)? == Some(pid) && has_open(pid, file)?;
    Ok(still.then_some((pid, server)))
}

/// Whether a process has this file open. A lock belongs to whoever took it although others may have
/// inherited it, and then its number may be a stranger's. Where the system lets us not see, the lock has
/// to do.
fn has_open(pid: Pid, file: &File) -> std::io::Result<bool> {
    let own = file.metadata()?;
    let open = match std::fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero())) {
        Ok(open) => open,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    // What was closed meanwhile is not the data file.
    let mut found = open.filter_map(|item| std::fs::metadata(item.ok()?.path()).ok());
    Ok(found.any(|one| (one.dev(), one.ino()) == (own.dev(), own.ino())))
}

/// When a process began, as the kernel counts: with its number, nobody else's.
fn process_start_time(pid: Pid) -> std::io::Result<String> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()))?;
    // Its name may have spaces and brackets in it.
    let fields = stat.rsplit_once(") ").map(|(_, fields)| fields).unwrap_or_default();
    let begun = fields.split_whitespace().nth(19).map(str::to_owned);
    begun.ok_or_else(|| ErrorKind::InvalidData.into())
}

/// The process that holds a `flock` on this file, from the kernel's table of locks.
fn lock_holder(file: &File) -> std::io::Result<Option<Pid>> {
    let metadata = file.metadata()?;
    let device = metadata.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let place = format!("{major:02x}:{minor:02x}:{}", metadata.ino());
    let locks = std::fs::read_to_string("/proc/locks")?;
    Ok(locks.lines().find_map(|line| {
        // 1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF
        let fields: Vec<&str> = line.split_whitespace().collect();
        match fields.as_slice() {
            [_, "FLOCK", "ADVISORY", "WRITE", pid, at, ..] if *at == place => {
                pid.parse().ok().and_then(Pid::from_raw)
            }
            _ => None,
        }
    }))
}
