//! This process and the programs it starts: what others can learn about it, and what its children
//! inherit.
//!
//! Programs of the operator (hooks, `cmd:` secrets), shells, and the servers of drills get none of bkp's
//! capabilities, and no secret that stands in its environment. Only bkp itself, started again for a
//! job, gets what bkp has.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;
use std::process::{Child, Command, ExitStatus};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    DumpableBehavior, Pid, Resource, Rlimit, Signal, WaitId, WaitIdOptions, kill_process_group,
    set_dumpable_behavior, setrlimit, waitid,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_ambient_set,
    clear_ambient_capability_set, configure_capability_in_ambient_set, set_capabilities,
};

/// How often a child is polled.
const POLL_EVERY: Duration = Duration::from_millis(10);

/// The same while its output is read.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// How long what a child has written is read after it has ended.
const REST: Duration = Duration::from_secs(2);

/// Variables with secrets that no configuration names: bkp takes them from its environment by itself.
const SECRETS: [&str; 5] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
];

/// Variables with secrets that the configuration names.
static NAMED: OnceLock<Vec<String>> = OnceLock::new();
/// The ambient capabilities that this process was started with.
static AMBIENT: OnceLock<CapabilitySet> = OnceLock::new();

/// Makes sure that the memory of this process, which holds keys, gets neither into a core dump nor to
/// another process of the same user, and that programs it starts do not inherit its capabilities. It
/// keeps them itself. To be called before there is a second thread: those have their own.
///
/// # Errors
/// What the system says: if it forbids any of that, nothing should be done here.
pub fn harden() -> io::Result<()> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none)?;
    let sets = capabilities(None)?;
    let both = sets.permitted & sets.inheritable;
    let mut ambient = CapabilitySet::empty();
    for one in each(both) {
        // A kernel that does not know this one has nobody who holds it.
        if capability_is_in_ambient_set(one).unwrap_or(false) {
            ambient |= one;
        }
    }
    if !ambient.is_empty() {
        clear_ambient_capability_set()?;
    }
    if !sets.inheritable.is_empty() {
        set_capabilities(None, CapabilitySets { inheritable: CapabilitySet::empty(), ..sets })?;
    }
    let _first = AMBIENT.set(ambient);
    // Last: a change of capabilities may undo it.
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// Every capability of a set by itself.
fn each(set: CapabilitySet) -> impl Iterator<Item = CapabilitySet> {
    let bits = (0..u64::BITS).map(|bit| CapabilitySet::from_bits_retain(1 << bit));
    bits.filter(move |one| set.contains(*one))
}

/// Tells which variables of the environment hold secrets, so that programs do not get them. Only the
/// first call counts.
pub fn hide_variables(names: Vec<String>) {
    let _first = NAMED.set(names);
}

/// A program of the operator: it gets the environment without what is secret in it.
#[must_use]
pub fn operator_command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    let named = NAMED.get().into_iter().flatten().map(String::as_str);
    for name in SECRETS.into_iter().chain(named) {
        command.env_remove(name);
    }
    command
}

/// A variable of the environment that another program's conventions give a meaning, such as libpq's.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "not bkp's own configuration")]
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// A shell or a server of bkp's own: of the environment it gets only where programs are.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "what is passed on, not what is configured")]
pub fn helper_command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear();
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
}

/// Starts bkp itself, which gets the capabilities that this process was started with.
///
/// # Errors
/// What the system says.
pub fn spawn_own(command: &mut Command) -> io::Result<Child> {
    let ambient = AMBIENT.get().copied().unwrap_or(CapabilitySet::empty());
    if ambient.is_empty() {
        return command.spawn();
    }
    // These are this thread's alone, so that no other one starts a program with them meanwhile.
    let sets = capabilities(None)?;
    set_capabilities(None, CapabilitySets { inheritable: ambient, ..sets })?;
    let raised = each(ambient).try_for_each(|one| configure_capability_in_ambient_set(one, true));
    let child = raised.map_err(io::Error::from).and_then(|()| command.spawn());
    clear_ambient_capability_set()?;
    set_capabilities(None, sets)?;
    child
}

/// The output of a child, which ends with the child: also if somebody else, whom the child left behind,
/// holds its other end open.
#[derive(Debug)]
pub struct ChildOutput<'g, R> {
    pipe: R,
    gone: &'g AtomicBool,
    /// When to stop although something still comes.
    until: Option<Instant>,
}

impl<'g, R: AsFd + io::Read> ChildOutput<'g, R> {
    /// What comes out of `pipe` until the child is `gone` and nothing is left in it.
    pub fn new(pipe: R, gone: &'g AtomicBool) -> Self {
        ChildOutput { pipe, gone, until: None }
    }
}

impl<R: AsFd + io::Read> io::Read for ChildOutput<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.until.is_some_and(|until| Instant::now() >= until) {
                return Ok(0);
            }
            // Looked at first: what was written before it ended is read.
            let gone = self.gone.load(Ordering::Relaxed);
            if gone && self.until.is_none() {
                self.until = Instant::now().checked_add(REST);
            }
            let mut watched = [PollFd::new(&self.pipe, PollFlags::IN)];
            match poll(&mut watched, Some(&LOOK)) {
                Ok(0) if gone => return Ok(0),
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return self.pipe.read(buffer),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Whether a child has ended. It is not reaped: its number stays its own, so that signals still can be
/// sent to what it left behind.
///
/// # Errors
/// What the system says.
pub fn has_ended(child: &Child) -> io::Result<bool> {
    let ended = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    Ok(waitid(WaitId::Pid(Pid::from_child(child)), ended)?.is_some())
}

/// The processes that are killed with a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillScope {
    /// Its process group, which it must be the leader of.
    Group,
    /// No other process.
    Itself,
}

/// Waits until a child has ended, and kills it after `patience`. Whatever is left of its group is killed
/// in any case, before the child is reaped: after that its number, which is the group's, may be another's.
/// Returns how it ended, and whether that had to be enforced.
///
/// # Errors
/// What the system says.
pub fn wait_or_kill(
    child: &mut Child,
    patience: Duration,
    kill_scope: KillScope,
) -> io::Result<(ExitStatus, bool)> {
    let late = exceeds(child, patience);
    if kill_scope == KillScope::Group {
        // Usually there is nothing left.
        let _none_left = kill_process_group(Pid::from_child(child), Signal::KILL);
    }
    if !matches!(late, Ok(false)) {
        child.kill()?;
    }
    let status = child.wait()?;
    Ok((status, late?))
}

/// Waits until a child has ended, but leaves its number to it; whether it takes longer.
fn exceeds(child: &Child, patience: Duration) -> io::Result<bool> {
    let began = Instant::now();
    while !has_ended(child)? {
        if began.elapsed() >= patience {
            return Ok(true);
        }
        thread::park_timeout(POLL_EVERY);
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt as _;
    use std::process::Stdio;

    /// Were it reaped, the number of its group could be that of a stranger by the time it is killed.
    #[test]
    fn a_child_that_has_ended_keeps_its_number_until_its_group_is_gone() {
        let mut child = operator_command("sh")
            .args(["-c", "sleep 600 & echo $!; exit 3"])
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("started");
        assert!(!exceeds(&child, Duration::from_mins(1)).expect("waited"));
        let state = std::fs::read_to_string(format!("/proc/{}/stat", child.id()));
        assert!(state.expect("it is still there").contains(") Z "));
        let (status, late) =
            wait_or_kill(&mut child, Duration::ZERO, KillScope::Group).expect("reaped");
        assert_eq!((status.code(), late), (Some(3), false));
    }

    #[test]
    fn who_takes_too_long_is_killed() {
        let mut child =
            operator_command("sleep").arg("600").process_group(0).spawn().expect("started");
        let (status, late) =
            wait_or_kill(&mut child, Duration::ZERO, KillScope::Group).expect("reaped");
        assert!(late && !status.success());
    }
}
