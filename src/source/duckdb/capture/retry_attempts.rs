//! Retries captures while that can help: a file in use often cannot be captured at the first attempt.

use std::time::{Duration, Instant};

use crate::ctx::Ctx;
use crate::source::SourceError;
use crate::source::duckdb::attempt_error::{AttemptError, Cause};
use crate::source::duckdb::data_file::database::{
    Database, FileFingerprint, Mode, is_held, unreadable,
};

/// How long to wait after the first attempt; longer after each further one.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(2);
/// The longest time to wait between two attempts.
const ATTEMPT_PAUSE_MAX: Duration = Duration::from_millis(100);
/// How long a checkpoint may take that keeps an attempt from its end.
const CHECKPOINT_PATIENCE: Duration = Duration::from_mins(10);
/// For how long a checkpoint that no process is seen to be at work on has to look the same before it
/// counts as broken off: a process that ends gives up its lock a moment after its checkpoint.
const BROKEN_OFF: Duration = Duration::from_millis(300);
/// Attempts in a row that find the same damage before it counts as such.
const REPEATS_MAX: u32 = 3;

/// Repeats `attempt` until it succeeds, cannot succeed, or was made `attempts_max` times.
pub(crate) fn retry_capture<T>(
    database: &Database,
    attempts_max: u32,
    ctx: &Ctx,
    attempt: &mut dyn FnMut() -> Result<T, AttemptError>,
) -> anyhow::Result<(T, u32)> {
    let (mut attempts, mut repeats) = (0, 0);
    let mut last = String::new();
    let mut checkpoint_wait = CheckpointWait::default();
    while attempts < attempts_max {
        ctx.cancel.check()?;
        let (cause, why) = match attempt() {
            Ok(done) => return Ok((done, attempts + 1)),
            Err(AttemptError::Fatal(error)) => return Err(error),
            Err(AttemptError::Again(cause, why)) => (cause, why),
        };
        ctx.monitor.detail(&format!("attempt {}: {why}", attempts + 1));
        repeats = if why == last { repeats + 1 } else { 1 };
        match cause {
            Cause::Torn if repeats >= REPEATS_MAX => return Err(damaged(database, why).into()),
            Cause::Foreign if repeats >= REPEATS_MAX => return Err(foreign(database, why).into()),
            Cause::Checkpoint if await_checkpoint(database, &mut checkpoint_wait)? => {
                ctx.monitor.warn(&format!(
                    "{}: a process was killed during a checkpoint: file and logs are captured as they are, and DuckDB recovers a restored copy when opening it",
                    database.path.display()
                ));
                database.broken_off.set(true);
            }
            Cause::Checkpoint => {}
            Cause::Moved | Cause::Torn | Cause::Foreign => {
                checkpoint_wait = CheckpointWait::default();
                attempts += 1;
            }
        }
        last = why;
        ctx.pause(ATTEMPT_PAUSE_MAX.min(ATTEMPT_PAUSE * (attempts + 1)))?;
    }
    let reason = format!(
        "no consistent capture in {attempts_max} attempts; the last one ended with: {last}"
    );
    let hint = "run it at a quieter time, use --mode reflink with the database on XFS or btrfs, or close the database and use --mode stopped";
    Err(Mode::Online.refuse(&database.path, reason, hint).into())
}

/// How long one and the same checkpoint has been waited for: an attempt that ends in another way
/// begins anew.
#[derive(Debug, Default)]
struct CheckpointWait {
    /// Since when attempts in a row met a checkpoint.
    since: Option<Instant>,
    /// What is there although no process has the database open, and since when.
    deserted: Option<(Instant, FileFingerprint)>,
}

/// What to think of a checkpoint.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Wait,
    TooLong,
    BrokenOff,
}

impl CheckpointWait {
    /// Judges what is seen `now`: whether a process has the database open for writing, and files and
    /// headers.
    fn judge(&mut self, now: Instant, held: bool, fingerprint: FileFingerprint) -> Verdict {
        let since = *self.since.get_or_insert(now);
        if held {
            self.deserted = None;
            let patient = now.duration_since(since) < CHECKPOINT_PATIENCE;
            return if patient { Verdict::Wait } else { Verdict::TooLong };
        }
        match &self.deserted {
            Some((since, before)) if *before == fingerprint => {
                let over = now.duration_since(*since) >= BROKEN_OFF;
                if over { Verdict::BrokenOff } else { Verdict::Wait }
            }
            Some(_) | None => {
                self.deserted = Some((now, fingerprint));
                Verdict::Wait
            }
        }
    }
}

/// Whether a checkpoint was broken off: one that nobody is at work on does not end.
fn await_checkpoint(
    database: &Database,
    checkpoint_wait: &mut CheckpointWait,
) -> Result<bool, SourceError> {
    let path = &database.path;
    let held = is_held(&database.file, true);
    let held = held.map_err(|error| unreadable(path, error))?;
    let (reason, hint) = match checkpoint_wait.judge(Instant::now(), held, database.fingerprint()) {
        Verdict::Wait => return Ok(false),
        Verdict::BrokenOff => return Ok(true),
        Verdict::TooLong => (
            "a checkpoint has been under way for too long",
            "run it again once the checkpoint is complete",
        ),
    };
    Err(SourceError::Engine {
        what: path.display().to_string(),
        reason: reason.into(),
        hint: hint.into(),
    })
}

/// The log is not one that belongs to the file.
fn foreign(database: &Database, reason: String) -> SourceError {
    SourceError::Engine {
        what: database.path.display().to_string(),
        reason,
        hint: "DuckDB refuses the pair as well: move the log away if another database left it, or restore the file it belongs to; if DuckDB opens them, use a bkp that knows this format".into(),
    }
}

fn damaged(database: &Database, reason: String) -> SourceError {
    SourceError::Damaged {
        what: database.path.display().to_string(),
        reason,
        hint: "check the disk; restore a good backup with `bkp restore`, or salvage what DuckDB still reads with EXPORT DATABASE".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(began: Instant, milliseconds: u64) -> Instant {
        began + Duration::from_millis(milliseconds)
    }

    /// The first pass over a large file takes longer than any checkpoint: what counts is how long a
    /// checkpoint has been met.
    #[test]
    fn a_wait_begins_with_the_checkpoint() {
        let began = Instant::now();
        let late = at(began, 3_600_000);
        let mut checkpoint_wait = CheckpointWait::default();
        assert_eq!(checkpoint_wait.judge(late, true, FileFingerprint::default()), Verdict::Wait);
        let almost = at(late, 599_999);
        assert_eq!(checkpoint_wait.judge(almost, true, FileFingerprint::default()), Verdict::Wait);
        let over = at(late, 600_000);
        assert_eq!(checkpoint_wait.judge(over, true, FileFingerprint::default()), Verdict::TooLong);
    }

    /// A writer that closes the database gives up its lock after its checkpoint.
    #[test]
    fn one_look_does_not_tell_that_a_process_was_killed() {
        let began = Instant::now();
        let there = FileFingerprint { headers: Some(vec![1]), ..FileFingerprint::default() };
        let moved = FileFingerprint { headers: Some(vec![2]), ..FileFingerprint::default() };
        let mut checkpoint_wait = CheckpointWait::default();
        assert_eq!(checkpoint_wait.judge(began, false, there.clone()), Verdict::Wait);
        assert_eq!(checkpoint_wait.judge(at(began, 299), false, there.clone()), Verdict::Wait);
        // Somebody is at work on it after all.
        assert_eq!(checkpoint_wait.judge(at(began, 400), false, moved.clone()), Verdict::Wait);
        assert_eq!(checkpoint_wait.judge(at(began, 699), false, moved.clone()), Verdict::Wait);
        assert_eq!(checkpoint_wait.judge(at(began, 700), true, moved.clone()), Verdict::Wait);
        assert_eq!(checkpoint_wait.judge(at(began, 800), false, moved.clone()), Verdict::Wait);
        assert_eq!(checkpoint_wait.judge(at(began, 1100), false, moved), Verdict::BrokenOff);
    }
}
