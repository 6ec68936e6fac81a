//! A child process that outlives us if need be, and then puts right what we can no longer.

use std::ffi::OsStr;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

/// Waits with a pipe in its hand: should we die, however that happens, the pipe closes and it does
/// what it was told to.
#[derive(Debug)]
pub(super) struct Watchdog(Child);

impl Watchdog {
    /// Starts one. `script` is what it does if we die; it sees `words` as `$1` and so on, and `$told`
    /// as what [`Watchdog::tell`] said last. `meanwhile` is a command that it runs at its beginning,
    /// and whose children end with it.
    ///
    /// # Errors
    /// If `/bin/sh` cannot be started.
    pub(super) fn begin(
        meanwhile: &str,
        script: &str,
        words: &[&OsStr],
    ) -> std::io::Result<Watchdog> {
        let script = format!(
            "trap '' INT TERM HUP; {meanwhile} told=; while read -r line; do [ \"$line\" = done ] && kill -KILL 0; told=$line; done; {script}"
        );
        let child = Command::new("/bin/sh")
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

    /// Tells it a word that was not known when it began.
    pub(super) fn tell(&mut self, word: &str) {
        if let Some(pipe) = &mut self.0.stdin {
            // Fails only if the child was killed; then nobody watches, and we go on.
            let _watched = writeln!(pipe, "{word}");
        }
    }
}

impl Drop for Watchdog {
    /// Ends it, and what it began with, without doing anything.
    fn drop(&mut self) {
        self.tell("done");
        drop(self.0.stdin.take());
        let _status = self.0.wait();
    }
}
