//! Holds a data file still, or not, depending on the mode.

use std::fs::File;
use std::path::Path;

use rustix::fs::{FlockOperation, Mode as FileMode, OFlags};
use rustix::io::Errno;

use super::mode::{CaptureMode, refuse};
use super::pause::Pause;
use crate::ctx::Ctx;
use crate::source::SourceError;
use crate::source::device::Device;

/// A data file made ready for reading in some mode. Dropping it undoes what the mode did.
#[derive(Debug)]
pub(crate) struct HeldFile {
    pub(crate) device: Device,
    /// Lets the server go on when dropped.
    _pause: Option<Pause>,
}

/// Opens `path` in `mode`.
pub(crate) fn hold(path: &Path, mode: CaptureMode, ctx: &Ctx) -> Result<HeldFile, SourceError> {
    let device = Device::open(path)?;
    match mode {
        CaptureMode::Online => Ok(HeldFile { device, _pause: None }),
        CaptureMode::Reflink => Ok(HeldFile { device: clone(&device)?, _pause: None }),
        CaptureMode::Stopped => {
            // The lock stays with the open file until the capture is over; a server that starts
            // meanwhile finds it held and does not write.
            let lock = rustix::fs::flock(device.file(), FlockOperation::NonBlockingLockShared);
            lock.map_err(|error| match error {
                Errno::WOULDBLOCK => refuse(
                    path,
                    CaptureMode::Stopped,
                    "a server holds the data file",
                    "stop the server first, or use --mode online",
                ),
                other => {
                    let reason = format!("cannot lock it: {other}");
                    refuse(path, CaptureMode::Stopped, &reason, "use --mode online")
                }
            })?;
            Ok(HeldFile { device, _pause: None })
        }
        CaptureMode::Pause => {
            let pause = Pause::begin(path, device.file(), ctx)?;
            Ok(HeldFile { device, _pause: Some(pause) })
        }
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
            CaptureMode::Reflink,
            &reason,
            "use --mode online, or keep the data file on XFS or btrfs, in a folder writable by bkp",
        )
    };
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file: File =
        rustix::fs::open(folder, flags, FileMode::RUSR | FileMode::WUSR).map_err(failed)?.into();
    rustix::fs::ioctl_ficlone(&file, device.file()).map_err(failed)?;
    Ok(Device::from_file(file, path))
}
