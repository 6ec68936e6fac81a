//! A child process that outlives bkp if need be, and then cleans up after it.

use std::ffi::OsStr;
use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Stdio};

use crate::process;

/// What `/bin/sh -c` does to become a program: it tells the watchdog, which its output goes to, its number before that.
/// Were we to tell, a kill in between would leave a program that nobody knows of. What the program writes goes to
/// its standard error.
pub(crate) const TELL_AND_BECOME: &str = "echo \"$$\"; exec \"$0\" \"$@\" >&2";

/// Waits with a pipe in its hand: should we die, however that happens, the pipe closes and it does
/// what it was told to.
#[derive(Debug)]
pub(crate) struct Watchdog(Child);

impl Watchdog {
    /// Starts one. `script` is what it does if we die; it sees `words` as `$1` and so on, and `$told`
    /// as the last line that came in through [`Watchdog::input`]. `meanwhile` is a command that it runs at its beginning,
    /// and whose children end with it.
    ///
    /// # Errors
    /// If `/bin/sh` cannot be started.
    pub(crate) fn begin(
        meanwhile: &str,
        script: &str,
        words: &[&OsStr],
    ) -> std::io::Result<Watchdog> {
        let script = format!(
            "trap '' INT TERM HUP; {meanwhile} told=; while read -r line; do [ \"$line\" = done ] && kill -KILL 0; told=$line; done; {script}"
        );
        let child = process::helper_command("/bin/sh")
            .args(["-c", &script, "bkp-watchdog"])
            .args(words)
            // A group of its own: what stops or suspends ours must not reach it.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Watchdog(child))
    }

    /// Where a child of ours can tell it a word by itself, a line of its own, so that no kill comes
    /// between the child's beginning and our telling. The watchdog does not act while anybody holds this.
    ///
    /// # Errors
    /// If the process is out of file descriptors.
    pub(crate) fn input(&self) -> std::io::Result<OwnedFd> {
        let pipe = self.0.stdin.as_ref().ok_or(std::io::ErrorKind::BrokenPipe)?;
        pipe.as_fd().try_clone_to_owned()
    }
}

impl Drop for Watchdog {
    /// Ends it, and what it began with, without doing anything.
    fn drop(&mut self) {
        if let Some(mut pipe) = self.0.stdin.take() {
            // Fails only if the child was killed; then there is nothing to end.
            let _ended = pipe.write_all(b"done\n");
        }
        let _status = self.0.wait();
    }
}
