//! Trying again, for as long as it can help: a file in use is often not to be had at the first try.

use std::time::{Duration, Instant};

use super::mode::{Database, Mode, is_held, unreadable};
use super::{Cause, Setback};
use crate::ctx::Ctx;
use crate::source::SourceError;

/// How long to wait after the first attempt; longer after each further one.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(2);
/// The longest time to wait between two attempts.
const ATTEMPT_PAUSE_MAX: Duration = Duration::from_millis(100);
/// How long a checkpoint may take that keeps a capture from beginning.
const CHECKPOINT_PATIENCE: Duration = Duration::from_mins(10);
/// Attempts in a row that find the same damage under the same headers before it counts as such.
const REPEATS_MAX: u32 = 3;

/// Repeats `attempt` until it succeeds, cannot succeed, or was made `attempts_max` times.
pub(super) fn persist<T>(
    database: &Database,
    attempts_max: u32,
    ctx: &Ctx,
    attempt: &mut dyn FnMut() -> Result<T, Setback>,
) -> anyhow::Result<(T, u32)> {
    let began = Instant::now();
    let (mut attempts, mut repeats) = (0, 0);
    let mut last = String::new();
    while attempts < attempts_max {
        ctx.cancel.check()?;
        let (cause, why) = match attempt() {
            Ok(done) => return Ok((done, attempts + 1)),
            Err(Setback::Fatal(error)) => return Err(error),
            Err(Setback::Again(cause, why)) => (cause, why),
        };
        ctx.monitor.detail(&format!("attempt {}: {why}", attempts + 1));
        repeats = if why == last { repeats + 1 } else { 1 };
        if cause == Cause::Torn && repeats >= REPEATS_MAX {
            return Err(damaged(database, why).into());
        }
        if cause == Cause::Checkpoint {
            await_checkpoint(database, began)?;
        } else {
            attempts += 1;
        }
        last = why;
        ctx.pause(ATTEMPT_PAUSE_MAX.min(ATTEMPT_PAUSE * (attempts + 1)))?;
    }
    let reason = format!(
        "no consistent capture in {attempts_max} attempts; the last one ended with: {last}"
    );
    let hint = "run it at a quieter time, keep the database on XFS or btrfs and use --mode reflink, or close it and use --mode stopped";
    Err(Mode::Online.refuse(&database.path, reason, hint).into())
}

/// A checkpoint that nobody is at work on does not end.
fn await_checkpoint(database: &Database, began: Instant) -> Result<(), SourceError> {
    let path = &database.path;
    let held = is_held(&database.file, true);
    let held = held.map_err(|error| unreadable(path, error))?;
    if held && began.elapsed() < CHECKPOINT_PATIENCE {
        return Ok(());
    }
    let (reason, hint) = if held {
        ("a checkpoint has been under way for too long", "run it again when it has ended")
    } else {
        (
            "a process was killed in the middle of a checkpoint",
            "open the database with DuckDB and close it again: that puts it in order",
        )
    };
    Err(SourceError::Engine {
        what: path.display().to_string(),
        reason: reason.into(),
        hint: hint.into(),
    })
}

fn damaged(database: &Database, reason: String) -> SourceError {
    SourceError::Damaged {
        what: database.path.display().to_string(),
        reason,
        hint: "check the disk; bring back a good backup with `bkp restore`, or save what DuckDB still reads with EXPORT DATABASE".into(),
    }
}
