//! Reading the superblock, which alone says what the rest of a file means: the newest one that enough of its
//! copies agree on.

use std::path::Path;
use std::time::Duration;

use super::superblock::{Release, SUPERBLOCK_VERSION, Superblock};
use super::zones::{
    BLOCK_BYTES, GRID_AT, NUMBER_MAX, SUPERBLOCK_BYTES, SUPERBLOCK_COPIES, SUPERBLOCK_STRIDE,
};
use crate::ctx::Ctx;
use crate::domain::limits::TIGERBEETLE_FILE_BYTES_MAX;
use crate::source::SourceError;
use crate::source::device::{Buffer, Device};
use crate::source::tigerbeetle::attempt_error::{AttemptError, torn};

/// Copies that must agree before a superblock is believed: what TigerBeetle calls verified.
pub(crate) const SUPERBLOCK_QUORUM: usize = 3;
/// Copies with which TigerBeetle opens a file: enough where nobody writes the others.
pub(crate) const SUPERBLOCK_QUORUM_OPEN: usize = 2;

/// Reads of the superblock before an attempt gives up: the four copies are rewritten one by one,
/// which takes a few milliseconds.
const SUPERBLOCK_TRIES: u32 = 200;

/// Reads of a live superblock before it counts as damaged, and the pause between two of them: its four
/// copies are rewritten within milliseconds, once in seconds.
const LIVE_READS_MAX: u32 = 20;
const LIVE_READ_PAUSE: Duration = Duration::from_millis(50);

/// What is said of a superblock without a quorum.
pub(crate) const DISAGREE: &str = "the superblock copies do not agree";

/// The superblock of a file that may be live: it is looked at again while its copies are being
/// rewritten.
pub(crate) fn read_live_superblock(path: &Path, ctx: &Ctx) -> anyhow::Result<Superblock> {
    let device = Device::open(path)?;
    for attempt in 1..=LIVE_READS_MAX {
        // Nobody writes a file that stays between two states; then what opens it is enough.
        let quorum =
            if attempt == LIVE_READS_MAX { SUPERBLOCK_QUORUM_OPEN } else { SUPERBLOCK_QUORUM };
        match read_superblock(&device, quorum) {
            Ok(superblock) => return Ok(superblock),
            Err(AttemptError::Fatal(error)) => return Err(error),
            Err(AttemptError::Again(..)) => ctx.pause(LIVE_READ_PAUSE)?,
        }
    }
    Err(damaged(&device, DISAGREE, false).into())
}

/// A file that holds still and is not whole; `several` replicas repair each other.
pub(crate) fn damaged(device: &Device, reason: &str, several: bool) -> SourceError {
    let hint = if several {
        "a replica repairs this from its cluster while it runs: run bkp again later, or beside another replica"
    } else {
        "check it with `tigerbeetle inspect integrity`, and keep the file and its backups"
    };
    SourceError::Damaged {
        what: device.path().display().to_string(),
        reason: reason.into(),
        hint: hint.into(),
    }
}

/// The newest superblock that `quorum` copies agree on, of a layout that this bkp knows.
///
/// # Errors
/// A [`AttemptError`] that is torn while the copies are being rewritten; [`SourceError::Unsupported`] if none of
/// them is a superblock at all, or of another layout.
pub(crate) fn read_superblock(device: &Device, quorum: usize) -> Result<Superblock, AttemptError> {
    let mut buffer = Buffer::new(SUPERBLOCK_BYTES);
    let mut any = false;
    for _try in 0..SUPERBLOCK_TRIES {
        let mut copies: Vec<Superblock> = Vec::new();
        for copy in 0..SUPERBLOCK_COPIES {
            let offset = u64::from(copy) * SUPERBLOCK_STRIDE;
            let bytes = device.read(&mut buffer, offset, SUPERBLOCK_BYTES)?;
            // A copy in another copy's place is a misdirected write and does not count.
            copies.extend(Superblock::parse(bytes).filter(|found| found.copy() == copy));
        }
        any |= !copies.is_empty();
        let agreed = |one: &&Superblock| {
            copies.iter().filter(|other| other.checksum() == one.checksum()).count() >= quorum
        };
        if let Some(newest) = copies.iter().filter(agreed).max_by_key(|copy| copy.sequence()) {
            check_supported(device, newest)?;
            return Ok(newest.clone());
        }
        if !any {
            break;
        }
        std::thread::yield_now();
    }
    if any {
        return Err(torn(DISAGREE));
    }
    Err(AttemptError::Fatal(
        SourceError::Unsupported {
            what: device.path().display().to_string(),
            reason: "not a TigerBeetle data file: it has no superblock".into(),
        }
        .into(),
    ))
}

/// Refuses files whose layout is not the known one.
fn check_supported(device: &Device, superblock: &Superblock) -> Result<(), AttemptError> {
    let unsupported = |reason: String| {
        let what = device.path().display().to_string();
        Err(AttemptError::Fatal(SourceError::Unsupported { what, reason }.into()))
    };
    let storage_bytes = superblock.storage_bytes();
    if superblock.version() != SUPERBLOCK_VERSION {
        let version = superblock.version();
        return unsupported(format!(
            "superblock version {version}; this bkp knows version {SUPERBLOCK_VERSION}"
        ));
    }
    if !superblock.release().is_known() {
        return unsupported(format!(
            "TigerBeetle release {}; this bkp knows {} and later releases of 0.16 and 0.17",
            superblock.release(),
            Release::OLDEST,
        ));
    }
    let whole =
        storage_bytes >= GRID_AT && (storage_bytes - GRID_AT).is_multiple_of(BLOCK_BYTES as u64);
    let counted = superblock.commit_max() < NUMBER_MAX
        && superblock.checkpoint().is_counted()
        && superblock.view_headers().all(|header| header.is_counted());
    let known = whole && counted && superblock.replica().is_some();
    if !known || storage_bytes > TIGERBEETLE_FILE_BYTES_MAX {
        return unsupported("the superblock does not match the layout known to this bkp".into());
    }
    Ok(())
}
