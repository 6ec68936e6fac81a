//! The connection to the engine process: questions and answers in frames on a socket, streams on a
//! pipe.

use std::cell::RefCell;
use std::io::{ErrorKind, Read as _, Write};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::ctx::{Cancel, Ctx};
use crate::error::{Fault, Kind};
use crate::source::duckdb::engine::protocol::{Answer, EngineCommand, Frame, Question, WORD, send};

/// Bytes taken from DuckDB at once.
const PIPE_BYTES: usize = 256 << 10;

/// How often the wish to stop is looked at.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// How much longer than its own limit the engine may take to say that it was too long.
const LATE: Duration = Duration::from_secs(30);

/// What is said of an engine whose process did not start.
pub(crate) const NOT_STARTED: &str = "a required library was not found";

/// What is said of an engine that is gone.
pub(crate) const ENDED: &str = "the engine exited unexpectedly";

/// An engine's process, and the line to it.
pub(crate) struct EngineProcess {
    child: RefCell<Child>,
    socket: UnixStream,
    output: RefCell<ChildStdout>,
    /// The wish to stop, which is also the end of a statement.
    cancel: Option<Cancel>,
}

impl Drop for EngineProcess {
    fn drop(&mut self) {
        // It may have ended, and nothing of it is wanted.
        let child = self.child.get_mut();
        let (_killed, _ended) = (child.kill(), child.wait());
    }
}

impl EngineProcess {
    /// Starts an engine that lives in this folder; it opens nothing before it is asked.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn open(folder: &Path, ctx: Option<&Ctx>) -> anyhow::Result<EngineProcess> {
        let (socket, theirs) = UnixStream::pair()?;
        let mut child = Command::new("/proc/self/exe")
            .arg0("bkp")
            .arg(WORD)
            .env_clear()
            .env("TZ", "UTC")
            .current_dir(folder)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| Fault::new(Kind::Failed, format!("cannot start DuckDB: {error}")))?;
        let output = child.stdout.take();
        let output = output.ok_or_else(|| Fault::new(Kind::Failed, "DuckDB has no output"))?;
        Ok(EngineProcess {
            child: RefCell::new(child),
            socket,
            output: RefCell::new(output),
            cancel: ctx.map(|ctx| ctx.cancel.clone()),
        })
    }

    /// Asks the engine, and hands what it streams meanwhile to `out`; a refusal is in the engine's words just
    /// as they are.
    ///
    /// # Errors
    /// A cancellation, what `out` fails with, and what the system says.
    pub(crate) fn ask(
        &self,
        asked: EngineCommand,
        limit: Duration,
        mut out: Option<(&mut dyn Write, &Ctx)>,
    ) -> anyhow::Result<Result<Answer, String>> {
        let late = Instant::now().checked_add(limit + LATE);
        let question = Question { seconds: limit.as_secs(), asked };
        match send(&self.socket, &question) {
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                return Ok(Err(error.to_string()));
            }
            // What it said last, if it has ended, is still to be read.
            Ok(()) | Err(_) => {}
        }
        let mut frame = Frame::default();
        let mut buffer = vec![0; PIPE_BYTES];
        let mut output = self.output.borrow_mut();
        loop {
            if let Some(cancel) = &self.cancel {
                cancel.check()?;
            }
            if late.is_some_and(|late| Instant::now() > late) {
                // Its answer would be taken for that to the next question.
                return Ok(Err(format!(
                    "{}; no answer within {} s",
                    self.ended(),
                    limit.as_secs()
                )));
            }
            let mut watched = [
                PollFd::new(&self.socket, PollFlags::IN),
                PollFd::from_borrowed_fd(output.as_fd(), PollFlags::IN),
            ];
            let waited = if out.is_some() { &mut watched[..] } else { &mut watched[..1] };
            match poll(waited, Some(&LOOK)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => continue,
                Ok(_) => {}
                Err(error) => return Err(std::io::Error::from(error).into()),
            }
            let [line, streamed] = watched.map(|fd| !fd.revents().is_empty());
            if streamed
                && let Some((out, ctx)) = &mut out
                && pump(&mut output, &mut buffer, *out, ctx)?
            {
                continue;
            }
            if !line {
                continue;
            }
            let missing = frame.missing().min(buffer.len());
            match (&self.socket).read(buffer.get_mut(..missing).unwrap_or_default()) {
                Ok(0) => return Ok(Err(self.ended())),
                Ok(count) => frame.add(buffer.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Ok(Err(self.ended())),
            }
            if let Some(answer) = frame.take()? {
                if let Some((out, ctx)) = &mut out {
                    // Everything that it wrote is on its way.
                    while rustix::io::ioctl_fionread(&*output)? > 0 {
                        pump(&mut output, &mut buffer, *out, ctx)?;
                    }
                }
                return Ok(if let Answer::Refused(why) = answer { Err(why) } else { Ok(answer) });
            }
        }
    }

    /// How the engine came to its end, in words.
    fn ended(&self) -> String {
        let mut child = self.child.borrow_mut();
        // It closes its line a moment before it ends; and an engine that only did that is ended.
        let _killed = child.kill();
        match child.wait() {
            // The dynamic linker's code for a library that it does not find.
            Ok(status) if status.code() == Some(127) => format!("{NOT_STARTED} ({status})"),
            Ok(status) => format!("{ENDED} ({status})"),
            Err(error) => format!("{ENDED}: {error}"),
        }
    }

    /// Waits until the process has ended.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn wait(&self) -> anyhow::Result<()> {
        self.child.borrow_mut().wait()?;
        Ok(())
    }
}

/// Hands on what the engine wrote; whether there was anything.
fn pump(
    output: &mut ChildStdout,
    buffer: &mut [u8],
    out: &mut dyn Write,
    ctx: &Ctx,
) -> anyhow::Result<bool> {
    let count = output.read(buffer)?;
    out.write_all(buffer.get(..count).unwrap_or_default())?;
    ctx.monitor.advance(count as u64);
    Ok(count > 0)
}
