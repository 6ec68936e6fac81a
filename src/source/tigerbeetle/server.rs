//! A private server: started on loopback with a file of bkp's own, and killed when no longer needed.

use std::fs::File;
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::cluster::address::{Presence, probe};
use crate::ctx::Ctx;
use crate::error::{Fault, Kind};
use crate::process;
use crate::source::SourceError;
use crate::source::watchdog::{TELL_AND_BECOME, Watchdog};

/// What is said of a server that no longer runs; [`Server::failed`] adds how it ended.
pub(crate) const ENDED: &str = "the server ended";
/// What a failed start shows of the server's log, characters.
const LOG_TAIL_CHARS: usize = 600;
/// The server's cache: its default of 1 GiB may be more than a machine for drills has.
const CACHE: &str = "--cache-grid=256MiB";

/// The pause between two looks at a server that starts.
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// Times that a server is started because another program took its port.
pub(crate) const PORT_TRIES: u32 = 5;

/// What the watchdog does: the process that it was told last is killed, and the folder that it was given
/// is removed. A killed run leaves neither a server nor the books in the clear. A server makes a file of
/// its own beside the data file when it starts, and may do so while the folder is being emptied: hence
/// more than one try.
pub(crate) const CLEAN_UP: &str = "[ -z \"$told\" ] || kill -KILL \"$told\"; n=0; until rm -rf -- \"$@\" || [ \"$n\" -ge 100 ]; do n=$((n+1)); sleep 0.1; done";

/// A server of ours; killed when dropped, or, by the watchdog, when we are.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) address: String,
    log: PathBuf,
    /// The watchdog's.
    watchdog_input: File,
}

impl Server {
    /// Starts one on a port that is free. It listens a while later.
    pub(crate) fn start(
        program: &Path,
        data_file: &Path,
        watchdog: &Watchdog,
    ) -> anyhow::Result<Server> {
        // The listener is closed before the server binds the port; nothing else is told of it.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let address = format!("127.0.0.1:{port}");
        let log = log_path(data_file);
        let output = File::create(&log)?;
        require_program(program)?;
        let watchdog_input = File::from(watchdog.input()?);
        let child = watched_command(program, &watchdog_input)?
            .args(["start", CACHE])
            .arg(format!("--addresses={address}"))
            .arg(data_file)
            .stderr(output)
            .spawn()?;
        Ok(Server { child, address, log, watchdog_input })
    }

    /// Waits until it takes connections.
    ///
    /// # Errors
    /// As [`Server::failed`] if it ends instead, or takes longer than `deadline`; that the run is to stop.
    pub(crate) fn await_listening(
        &mut self,
        work: &str,
        deadline: Duration,
        ctx: &Ctx,
    ) -> anyhow::Result<()> {
        let began = Instant::now();
        while probe(&self.address) != Presence::There {
            if self.child.try_wait()?.is_some() {
                return Err(self.failed(work, ENDED));
            }
            if began.elapsed() > deadline {
                return Err(self.failed(work, "the server did not start listening in time"));
            }
            ctx.pause(LOOK_PAUSE)?;
        }
        Ok(())
    }

    /// A descriptor of its process, which becomes readable when that ends.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn pidfd(&self) -> std::io::Result<OwnedFd> {
        Ok(pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty())?)
    }

    /// What it has said so far; nothing if that cannot be read.
    pub(crate) fn log(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Whether it ended because another program took the port between our look and its own.
    pub(crate) fn lost_its_port(&self) -> bool {
        self.log().contains("AddressInUse")
    }

    /// A server that does not do its `work`, with the end of its log. Only if it says itself that the
    /// file is broken is the backup to blame: else it may be the machine.
    pub(crate) fn failed(&mut self, work: &str, reason: &str) -> anyhow::Error {
        // Nobody answers for a server that the system has killed, for want of memory above all.
        let ended = self.child.try_wait().ok().flatten();
        let ended = ended.map(|status| format!("{ENDED}: {status}"));
        let reason = ended.as_deref().unwrap_or(reason);
        let log = self.log();
        let tail: String = log.chars().rev().take(LOG_TAIL_CHARS).collect();
        let tail: String = tail.chars().rev().collect();
        let said = match tail.trim() {
            "" => "it logged nothing".to_owned(),
            tail => format!("its log ends with: {}", tail.replace('\n', " | ")),
        };
        let message = format!("{work}: {reason}; {said}");
        let broken = ["panic", "WALCorrupt", "SuperBlock", "unreachable", "corrupt"];
        if broken.iter().any(|word| log.contains(word)) {
            return Fault::new(Kind::Integrity, message).into();
        }
        Fault::new(Kind::Source, message)
            .hint(format!(
                "make sure the {work} has memory, disk space and an intact `tigerbeetle` binary, and run it again; this says nothing about the backup"
            ))
            .into()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A data file is in order at any moment. Both calls fail only if the server is gone already.
        let _gone = self.child.kill();
        // Once it is reaped its number may be another process's.
        let _forgotten = self.watchdog_input.write_all(b"\n");
        let _status = self.child.wait();
        let _removed = std::fs::remove_file(&self.log);
    }
}

/// As [`TELL_AND_BECOME`], for a program whose answers come through what was the shell's standard error;
/// what it says beside is nobody's.
const TELL_AND_SPEAK: &str = "echo \"$$\"; exec \"$0\" \"$@\" >&2 2>/dev/null";

/// A program that is asked through its standard input and answers through the child's standard error,
/// both of them pipes; the watchdog knows of it before it begins, and ends it with us.
pub(crate) fn watched_pipe(program: &Path, watchdog_input: &File) -> std::io::Result<Command> {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", TELL_AND_SPEAK]).arg(program);
    command.stdin(Stdio::piped()).stdout(watchdog_input.try_clone()?).stderr(Stdio::piped());
    Ok(command)
}

/// A program that the watchdog knows of before it begins, and ends with us.
fn watched_command(program: &Path, watchdog_input: &File) -> std::io::Result<Command> {
    let mut command = process::helper_command("/bin/sh");
    command.args(["-c", TELL_AND_BECOME]).arg(program);
    command.stdin(Stdio::null()).stdout(watchdog_input.try_clone()?);
    Ok(command)
}

/// Makes the data file of an empty cluster of one.
pub(crate) fn format_data_file(
    program: &Path,
    cluster: u128,
    path: &Path,
    watchdog: &Watchdog,
) -> anyhow::Result<()> {
    require_program(program)?;
    let mut watchdog_input = File::from(watchdog.input()?);
    let output = watched_command(program, &watchdog_input)?
        .arg("format")
        .arg(format!("--cluster={cluster}"))
        .args(["--replica=0", "--replica-count=1"])
        .arg(path)
        .output()?;
    // Its number may be another process's from now on.
    watchdog_input.write_all(b"\n")?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(SourceError::Engine {
        what: program.display().to_string(),
        reason: format!("cannot format {}: {}", path.display(), said.trim()),
        hint: "make room (1.1 GiB) in a writable folder, or choose another --to".into(),
    }
    .into())
}

/// Finds out whether there is such a program. A shell would say it in its own way that there is none.
fn require_program(program: &Path) -> Result<(), Fault> {
    let version = process::helper_command(program).arg("version").stdin(Stdio::null()).output();
    version.map(drop).map_err(|error| missing(program, &error))
}

/// The file that a server on `data_file` writes its log to.
fn log_path(data_file: &Path) -> PathBuf {
    data_file.with_extension("log")
}

/// A program that cannot be started.
fn missing(program: &Path, error: &std::io::Error) -> Fault {
    let message = format!("cannot start {}: {error}", program.display());
    Fault::new(Kind::Config, message).hint("install the TigerBeetle release of the backup and set `tigerbeetle` under [tools] in the configuration, or do without a server: verify with --level decode, restore a snapshot")
}
