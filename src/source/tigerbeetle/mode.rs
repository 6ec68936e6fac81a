//! The ways to hold a data file still, or not to.

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{FlockOperation, Mode as FileMode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::watchdog::Watchdog;
use crate::ctx::Ctx;
use crate::source::SourceError;
use crate::source::device::Device;

/// How long a server is suspended at most, whatever becomes of us: then it goes on, and the capture
/// does as it would online.
const PAUSE_SECONDS_MAX: u32 = 60;

/// How a data file is captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// While the replica writes it.
    Online,
    /// From a clone that the file system makes in an instant.
    Reflink,
    /// While no server holds it.
    Stopped,
    /// While the server is suspended.
    Pause,
}

impl Mode {
    /// Every mode, the default first.
    pub(super) const ALL: [Mode; 4] = [Mode::Online, Mode::Reflink, Mode::Stopped, Mode::Pause];

    /// The words for [`Mode::ALL`].
    pub(super) const NAMES: &'static [&'static str] = &["online", "reflink", "stopped", "pause"];

    pub(super) fn name(self) -> &'static str {
        match self {
            Mode::Online => "online",
            Mode::Reflink => "reflink",
            Mode::Stopped => "stopped",
            Mode::Pause => "pause",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Mode> {
        Mode::ALL.into_iter().find(|mode| mode.name() == text)
    }

    /// Attempts that make sense: a file that holds still either reads in a few or never.
    pub(super) fn attempts_max(self, configured: u32) -> u32 {
        match self {
            Mode::Online => configured,
            Mode::Reflink | Mode::Stopped | Mode::Pause => 3,
        }
    }
}

/// A data file made ready for reading in some mode. Dropping it undoes what the mode did.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) device: Device,
    /// Lets the server go on when dropped.
    _pause: Option<Pause>,
}

/// Opens `path` in `mode`.
pub(super) fn hold(path: &Path, mode: Mode, ctx: &Ctx) -> Result<Held, SourceError> {
    let device = Device::open(path)?;
    match mode {
        Mode::Online => Ok(Held { device, _pause: None }),
        Mode::Reflink => Ok(Held { device: clone(&device)?, _pause: None }),
        Mode::Stopped => {
            // The lock stays with the open file until the capture is over; a server that starts
            // meanwhile finds it held and does not write.
            let lock = rustix::fs::flock(device.file(), FlockOperation::NonBlockingLockShared);
            lock.map_err(|error| match error {
                Errno::WOULDBLOCK => refuse(
                    path,
                    Mode::Stopped,
                    "a server holds the data file",
                    "stop the server first, or use --mode online",
                ),
                other => {
                    let reason = format!("its lock cannot be taken: {other}");
                    refuse(path, Mode::Stopped, &reason, "use --mode online")
                }
            })?;
            Ok(Held { device, _pause: None })
        }
        Mode::Pause => {
            let pause = Pause::begin(path, device.file(), ctx)?;
            Ok(Held { device, _pause: Some(pause) })
        }
    }
}

fn refuse(path: &Path, mode: Mode, reason: &str, hint: &str) -> SourceError {
    SourceError::Mode {
        what: path.display().to_string(),
        mode: mode.name(),
        reason: reason.into(),
        hint: hint.into(),
    }
}

/// Clones the file into one without a name, which disappears with its descriptor.
fn clone(device: &Device) -> Result<Device, SourceError> {
    let path = device.path();
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let failed = |error: Errno| {
        let reason = format!("cannot clone the file here: {error}");
        refuse(
            path,
            Mode::Reflink,
            &reason,
            "use --mode online, or keep the data file on XFS or btrfs, in a folder that bkp may write to",
        )
    };
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file: File =
        rustix::fs::open(folder, flags, FileMode::RUSR | FileMode::WUSR).map_err(failed)?.into();
    rustix::fs::ioctl_ficlone(&file, device.file()).map_err(failed)?;
    Ok(Device::from_file(file, path))
}

/// A suspended server; it goes on when this is dropped, or when we die.
#[derive(Debug)]
struct Pause {
    /// The process itself, whoever has its number by now.
    server: OwnedFd,
    _watchdog: Watchdog,
}

/// What the watchdog does to let the server `$1` go on: if its number is that of another process by now,
/// which began at another time than `$2`, nothing. What stands before the last bracket may be anything.
const LET_GO_ON: &str = "go_on() { read -r stat <\"/proc/$1/stat\" && begun=$2 && set -- ${stat##*) } && [ \"${20}\" = \"$begun\" ] && kill -CONT \"${stat%% *}\"; }";

impl Pause {
    fn begin(path: &Path, file: &File, ctx: &Ctx) -> Result<Pause, SourceError> {
        let refuse = |reason: &str, hint: &str| refuse(path, Mode::Pause, reason, hint);
        let lost = |error: std::io::Error| {
            refuse(&format!("cannot find the server: {error}"), "use --mode online")
        };
        let (pid, server) = holder(file)
            .map_err(lost)?
            .ok_or_else(|| refuse("no server holds the data file", "use --mode stopped"))?;
        let number = pid.as_raw_nonzero().to_string();
        let begun = begun(pid).map_err(lost)?;
        let limit = format!("{LET_GO_ON}; (sleep {PAUSE_SECONDS_MAX}; go_on \"$1\" \"$2\") &");
        let words = [number.as_ref(), begun.as_ref()];
        let watchdog = Watchdog::begin(&limit, "go_on \"$1\" \"$2\"", &words);
        let watchdog = watchdog.map_err(|error| {
            refuse(&format!("cannot start /bin/sh: {error}"), "use --mode online")
        })?;
        // From here on dropping `pause` lets the server go on.
        let pause = Pause { server, _watchdog: watchdog };
        ctx.monitor.warn(&format!(
            "pausing the server (process {number}), for {PAUSE_SECONDS_MAX} s at most"
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
fn begun(pid: Pid) -> std::io::Result<String> {
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
