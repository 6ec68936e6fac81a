//! A server of ours in a network that nobody else is in.
//!
//! TigerBeetle knows no passwords: whoever reaches a server's port may write to it, and loopback ports can
//! be reached by every user of a machine. Where the kernel lets an ordinary user make a network namespace,
//! bkp runs itself once more inside of one, with the server and the only client, and asks through a pipe.
//! Where it does not, the server listens on the machine's own loopback.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::replay;
use super::session::{Answer, Failure};
use crate::ctx::{Cancel, Ctx, Silent};
use crate::error::{Fault, Kind, diagnose};
use crate::source::tigerbeetle::server::{CLEAN_UP, speaking};
use crate::source::tigerbeetle::watchdog::Watchdog;

/// The word with which bkp starts itself in there.
const WORD: &str = "serve-replay";
/// What it says first: the network is private.
const HELLO: u8 = b'h';
/// How a frame that answers begins.
const ANSWER: u8 = 0;
const FAILURE: u8 = 1;
/// Largest frame, bytes: a message of the cluster.
const FRAME_BYTES_MAX: u32 = 1 << 20;
/// How long it may take to end its server.
const END_PATIENCE: Duration = Duration::from_secs(30);

/// A question that waits for its answer.
type Awaited = SyncSender<Result<Answer, Failure>>;

/// A bkp in a network of its own, with a server and a session with it.
pub(super) struct Private {
    child: Child,
    questions: Mutex<Option<ChildStdin>>,
    awaited: Arc<Mutex<VecDeque<Awaited>>>,
    ended: Receiver<()>,
    /// The watchdog's.
    ear: File,
    starts: u32,
}

impl std::fmt::Debug for Private {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Private").field("child", &self.child).finish_non_exhaustive()
    }
}

impl Private {
    /// Starts a server on `data_file`, and connects to it. `None` where the system has no private networks
    /// for this user.
    ///
    /// # Errors
    /// What the server does not start for.
    pub(super) fn open(
        program: &Path,
        cluster: u128,
        data_file: &Path,
        watchdog: &Watchdog,
        ctx: &Ctx,
    ) -> anyhow::Result<Option<Private>> {
        let Ok(own) = std::env::current_exe() else { return Ok(None) };
        let mut ear = File::from(watchdog.ear()?);
        let mut child = speaking(Path::new("unshare"), &ear)?
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
            ear.write_all(b"\n")?;
            ctx.monitor.detail("this user cannot make a network namespace");
            return Ok(None);
        }
        let starts = match read_frame(&mut answers) {
            Ok((ANSWER, starts, _)) => u32::try_from(starts).unwrap_or(0),
            other => {
                drop(questions);
                let _status = child.wait();
                ear.write_all(b"\n")?;
                return Err(other
                    .map_or_else(
                        |error| {
                            let message = format!(
                                "the server in its private network does not start: {error}"
                            );
                            Fault::new(Kind::Source, message)
                                .hint("run it again; with -v it says more")
                        },
                        |(_, code, text)| failure(code, &text),
                    )
                    .into());
            }
        };
        let (tell, ended) = mpsc::channel();
        let awaited: Arc<Mutex<VecDeque<Awaited>>> = Arc::default();
        let questions = Mutex::new(Some(questions));
        let private = Private { child, questions, awaited, ended, ear, starts };
        let awaited = Arc::clone(&private.awaited);
        thread::Builder::new().name("replay".into()).spawn(move || {
            deliver(answers, &awaited);
            drop(tell);
        })?;
        Ok(Some(private))
    }

    /// How often the server was started.
    pub(super) fn starts(&self) -> u32 {
        self.starts
    }

    /// Asks, and does not wait.
    pub(super) fn submit(&self, operation: u8, bytes: &[u8], answer: Awaited) -> io::Result<()> {
        let mut questions = self.questions.lock().unwrap_or_else(PoisonError::into_inner);
        let pipe = questions.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner).push_back(answer);
        write_frame(pipe, operation, 0, bytes)
    }
}

impl Drop for Private {
    /// Ends the server: when this returns it does not write any more.
    fn drop(&mut self) {
        drop(self.questions.lock().unwrap_or_else(PoisonError::into_inner).take());
        if self.ended.recv_timeout(END_PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
            let _gone = self.child.kill();
        }
        let _status = self.child.wait();
        // Its number may be another process's from now on.
        let _forgotten = self.ear.write_all(b"\n");
    }
}

/// Takes answers to where they are awaited, in order.
fn deliver(mut answers: ChildStderr, awaited: &Mutex<VecDeque<Awaited>>) {
    while let Ok((kind, number, bytes)) = read_frame(&mut answers) {
        let next = awaited.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let answer = if kind == ANSWER {
            Ok(Answer { bytes, timestamp: number })
        } else {
            Err(Failure::Said(String::from_utf8_lossy(&bytes).into_owned()))
        };
        // Nobody waits any more after a deadline.
        let _awaited = next.map(|next| next.send(answer));
    }
    awaited.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

/// A frame: a byte, a number, and bytes with their length before them.
fn write_frame(out: &mut dyn Write, kind: u8, number: u64, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    out.write_all(&[kind])?;
    out.write_all(&number.to_le_bytes())?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(bytes)?;
    out.flush()
}

fn read_frame(input: &mut dyn Read) -> io::Result<(u8, u64, Vec<u8>)> {
    let (mut kind, mut number, mut length) = ([0], [0; 8], [0; 4]);
    input.read_exact(&mut kind)?;
    input.read_exact(&mut number)?;
    input.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    if length > FRAME_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; length as usize];
    input.read_exact(&mut bytes)?;
    Ok((kind[0], u64::from_le_bytes(number), bytes))
}

/// A failure that was told through the pipe: the number of its kind and what it says.
fn failure(code: u64, text: &[u8]) -> Fault {
    let kind = usize::try_from(code).ok().and_then(|code| Kind::ALL.get(code)).copied();
    let text = String::from_utf8_lossy(text);
    let (message, hint) = text.split_once('\n').unwrap_or((&text, ""));
    Fault::new(kind.unwrap_or(Kind::Failed), message).hint(hint)
}

/// What bkp does if it was started in a private network; `None` if it was not.
///
/// # Errors
/// What the pipe fails with.
pub fn inside(words: impl Iterator<Item = OsString>) -> Option<io::Result<()>> {
    let words: Vec<OsString> = words.skip(1).collect();
    let [word, program, data_file, cluster] = words.as_slice() else { return None };
    if word != OsStr::new(WORD) {
        return None;
    }
    let cluster = cluster.to_str()?.parse().ok()?;
    Some(serve(&PathBuf::from(program), &PathBuf::from(data_file), cluster))
}

fn serve(program: &Path, data_file: &Path, cluster: u128) -> io::Result<()> {
    raise_loopback()?;
    let mut out = io::stdout().lock();
    out.write_all(&[HELLO])?;
    out.flush()?;
    let ctx = Ctx::new(Cancel::default(), Arc::new(Silent));
    // It ends the server if we are killed; what is to be removed is for whoever started us.
    let watchdog = Watchdog::begin("", CLEAN_UP, &[])?;
    let (server, session, starts) =
        match replay::start(program, cluster, data_file, &watchdog, &ctx) {
            Ok(started) => started,
            Err(error) => {
                let told = diagnose(&error);
                let code = Kind::ALL.iter().position(|kind| *kind == told.kind).unwrap_or(0);
                let text = format!("{error:#}\n{}", told.hint);
                return write_frame(&mut out, FAILURE, code as u64, text.as_bytes());
            }
        };
    write_frame(&mut out, ANSWER, starts.into(), &[])?;
    let mut input = io::stdin().lock();
    // Until whoever asks has ended.
    while let Ok((operation, _, bytes)) = read_frame(&mut input) {
        match session.ask(operation, bytes, &ctx) {
            Ok(answer) => write_frame(&mut out, ANSWER, answer.timestamp, &answer.bytes)?,
            Err(error) => write_frame(&mut out, FAILURE, 0, format!("{error:#}").as_bytes())?,
        }
    }
    drop((session, server, watchdog));
    Ok(())
}

/// Lets the loopback interface of a new network work: asks the kernel by netlink (rtnetlink(7)).
fn raise_loopback() -> io::Result<()> {
    const LENGTH: u32 = 32;
    const SET_LINK: u16 = 16;
    const REQUEST_AND_ACKNOWLEDGE: u16 = 1 | 4;
    const LOOPBACK: i32 = 1;
    const UP: u32 = 1;
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let mut message = Vec::with_capacity(LENGTH as usize);
    message.extend(LENGTH.to_ne_bytes());
    message.extend(SET_LINK.to_ne_bytes());
    message.extend(REQUEST_AND_ACKNOWLEDGE.to_ne_bytes());
    // A number of ours, and no port.
    message.extend(1_u32.to_ne_bytes());
    message.extend(0_u32.to_ne_bytes());
    // Any family and type; which interface, and of its flags the one.
    message.extend([0; 4]);
    message.extend(LOOPBACK.to_ne_bytes());
    message.extend(UP.to_ne_bytes());
    message.extend(UP.to_ne_bytes());
    rustix::net::send(&socket, &message, SendFlags::empty())?;
    let mut reply = [0; 64];
    let (length, _) = rustix::net::recv(&socket, &mut reply, RecvFlags::empty())?;
    let code = reply.get(..length).and_then(|reply| reply.get(16..20)?.try_into().ok());
    match code.map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(-code)),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Classify as _;

    #[test]
    fn a_frame_reads_back() {
        let mut pipe = Vec::new();
        write_frame(&mut pipe, 7, 1 << 40, b"bytes").expect("written");
        assert_eq!(
            read_frame(&mut pipe.as_slice()).expect("read"),
            (7, 1 << 40, b"bytes".to_vec())
        );
        pipe.pop();
        assert!(read_frame(&mut pipe.as_slice()).is_err());
        assert!(inside(["bkp", "list"].into_iter().map(OsString::from)).is_none());
    }

    #[test]
    fn a_failure_keeps_its_kind() {
        let place = Kind::ALL.iter().position(|kind| *kind == Kind::Integrity).expect("there");
        let fault = failure(place as u64, b"what\nhint");
        assert_eq!((fault.kind(), fault.to_string()), (Kind::Integrity, "what".to_owned()));
    }
}
