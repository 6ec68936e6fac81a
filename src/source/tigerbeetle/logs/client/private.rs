//! A server of bkp's own in a private network namespace.
//!
//! TigerBeetle knows no passwords: whoever reaches a server's port may write to it, and loopback ports can
//! be reached by every user of a machine. Where the kernel lets an ordinary user make a network namespace,
//! bkp runs itself once more inside of one, with the server and the only client, and asks through a pipe.
//! Where it does not, the server listens on the machine's own loopback.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdin};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::answer::{AnswerSender, ClusterAnswer, RequestError};
use super::frame::{ANSWER, HELLO, WORD, read_frame, write_frame};
use crate::ctx::Ctx;
use crate::error::{Fault, Kind};
use crate::source::tigerbeetle::server::watched_pipe;
use crate::source::watchdog::Watchdog;

/// How long it may take to end its server.
const END_PATIENCE: Duration = Duration::from_secs(30);

/// A bkp in a network of its own, with a server and a session with it.
pub(crate) struct PrivateServer {
    child: Child,
    questions: Mutex<Option<ChildStdin>>,
    awaited: Arc<Mutex<VecDeque<AnswerSender>>>,
    ended: Receiver<()>,
    /// The watchdog's.
    watchdog_input: File,
    starts: u32,
}

impl std::fmt::Debug for PrivateServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PrivateLine").field("child", &self.child).finish_non_exhaustive()
    }
}

impl PrivateServer {
    /// Starts a server on `data_file`, and connects to it. `None` where the system has no private networks
    /// for this user.
    ///
    /// # Errors
    /// What the server does not start for.
    pub(crate) fn open(
        program: &Path,
        cluster: u128,
        data_file: &Path,
        watchdog: &Watchdog,
        ctx: &Ctx,
    ) -> anyhow::Result<Option<PrivateServer>> {
        let Ok(own) = std::env::current_exe() else { return Ok(None) };
        let mut watchdog_input = File::from(watchdog.input()?);
        let mut child = watched_pipe(Path::new("unshare"), &watchdog_input)?
            .args(["--user", "--map-root-user", "--net", "--"])
            .arg(own)
            .arg(WORD)
            .args([program, data_file])
            .arg(cluster.to_string())
            .spawn()?;
        let (Some(questions), Some(mut answers)) = (child.stdin.take(), child.stderr.take()) else {
            return Ok(None);
        };
        let mut hello = [0];
        if answers.read_exact(&mut hello).is_err() || hello != [HELLO] {
            let _gone = child.kill();
            let _status = child.wait();
            watchdog_input.write_all(b"\n")?;
            ctx.monitor.detail("this user cannot create a network namespace");
            return Ok(None);
        }
        let starts = match read_frame(&mut answers) {
            Ok((ANSWER, starts, _)) => u32::try_from(starts).unwrap_or(0),
            other => {
                drop(questions);
                let _status = child.wait();
                watchdog_input.write_all(b"\n")?;
                return Err(other
                    .map_or_else(
                        |error| {
                            let message = format!(
                                "the server in its private network does not start: {error}"
                            );
                            Fault::new(Kind::Source, message)
                                .hint("run it again with -v for details")
                        },
                        |(_, code, text)| failure(code, &text),
                    )
                    .into());
            }
        };
        let (tell, ended) = mpsc::channel();
        let awaited: Arc<Mutex<VecDeque<AnswerSender>>> = Arc::default();
        let questions = Mutex::new(Some(questions));
        let private = PrivateServer { child, questions, awaited, ended, watchdog_input, starts };
        let awaited = Arc::clone(&private.awaited);
        thread::Builder::new().name("replay".into()).spawn(move || {
            deliver(answers, &awaited);
            drop(tell);
        })?;
        Ok(Some(private))
    }

    /// How often the server was started.
    pub(crate) fn starts(&self) -> u32 {
        self.starts
    }

    /// Asks, and does not wait.
    pub(crate) fn submit(
        &self,
        operation: u8,
        bytes: &[u8],
        answer: AnswerSender,
    ) -> io::Result<()> {
        let mut questions = self.questions.lock().unwrap_or_else(PoisonError::into_inner);
        let pipe = questions.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner).push_back(answer);
        write_frame(pipe, operation, 0, bytes)
    }
}

impl Drop for PrivateServer {
    /// Ends the server: when this returns it does not write any more.
    fn drop(&mut self) {
        drop(self.questions.lock().unwrap_or_else(PoisonError::into_inner).take());
        if self.ended.recv_timeout(END_PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
            let _gone = self.child.kill();
        }
        let _status = self.child.wait();
        // Its number may be another process's from now on.
        let _forgotten = self.watchdog_input.write_all(b"\n");
    }
}

/// Takes answers to where they are awaited, in order.
fn deliver(mut answers: ChildStderr, awaited: &Mutex<VecDeque<AnswerSender>>) {
    while let Ok((kind, number, bytes)) = read_frame(&mut answers) {
        let next = awaited.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let answer = if kind == ANSWER {
            Ok(ClusterAnswer { bytes, timestamp: number })
        } else {
            Err(RequestError::Text(String::from_utf8_lossy(&bytes).into_owned()))
        };
        // Nobody waits any more after a deadline.
        let _awaited = next.map(|next| next.send(answer));
    }
    awaited.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

/// A failure that was told through the pipe: the number of its kind and what it says.
fn failure(code: u64, text: &[u8]) -> Fault {
    let kind = usize::try_from(code).ok().and_then(|code| Kind::ALL.get(code)).copied();
    let text = String::from_utf8_lossy(text);
    let (message, hint) = text.split_once('\n').unwrap_or((&text, ""));
    Fault::new(kind.unwrap_or(Kind::Failed), message).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Classify as _;

    #[test]
    fn a_failure_keeps_its_kind() {
        let place = Kind::ALL.iter().position(|kind| *kind == Kind::Integrity).expect("there");
        let fault = failure(place as u64, b"what\nhint");
        assert_eq!((fault.kind(), fault.to_string()), (Kind::Integrity, "what".to_owned()));
    }
}
