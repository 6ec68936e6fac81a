//! Hooks: programs of the operator that run around a job. Each gets a JSON object on its standard
//! input.

use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{ChildStderr, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;

use crate::process::{self, KillScope};

/// How long it is listened to what a program has said after its end: another one that it started, and
/// that left its group, may hold its output open for ever.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How much of what it says is kept for a message, bytes.
const SAID_BYTES_MAX: u64 = 4096;

/// Runs a program with `input` on its standard input, for at most `patience`; then it and what it
/// started are killed.
///
/// # Errors
/// If it cannot be started, takes too long, or does not end with 0; with the end of what it wrote to
/// its standard error.
pub fn run(words: &[String], input: &[u8], patience: Duration) -> anyhow::Result<()> {
    let (program, arguments) = words.split_first().context("the hook names no program")?;
    let mut command = process::operator_command(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    // A group of its own, so that all of it can be ended.
    command.process_group(0);
    let mut child = command.spawn().with_context(|| format!("cannot start `{program}`"))?;
    let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
    let input = input.to_vec();
    thread::spawn(move || {
        // A program that does not read it is no failure.
        let _unread = stdin.map(|mut stdin| stdin.write_all(&input));
    });
    let (say, hear) = mpsc::channel();
    thread::spawn(move || listen(stderr, &say));
    // What it left in the background goes with it: it must not hold its output open.
    let (status, late) = process::wait_or_kill(&mut child, patience, KillScope::Group)?;
    let said = hear.recv_timeout(LAST_WORDS).unwrap_or_default();
    if late {
        anyhow::bail!("`{program}` was killed after {} s", patience.as_secs());
    }
    if status.success() {
        return Ok(());
    }
    let ended = format!("`{program}` failed: {status}");
    // What it said is a cause of its own, so that it can be kept apart.
    match String::from_utf8_lossy(&said).trim() {
        "" => anyhow::bail!(ended),
        said => Err(anyhow::anyhow!("{said}").context(ended)),
    }
}

/// Passes on the beginning of what a program says, once that is enough or all.
fn listen(stderr: Option<ChildStderr>, say: &mpsc::Sender<Vec<u8>>) {
    let Some(mut stderr) = stderr else { return };
    let mut said = Vec::new();
    let _unheard = stderr.by_ref().take(SAID_BYTES_MAX).read_to_end(&mut said);
    let _nobody_waits = say.send(said);
    // It may go on talking; nobody listens, but it must not wait.
    let _drained = std::io::copy(&mut stderr, &mut std::io::sink());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, patience: u64) -> Result<(), String> {
        let words = ["sh", "-c", script].map(str::to_owned);
        run(&words, b"{\"a\":1}", Duration::from_secs(patience))
            .map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn a_hook_gets_its_input_and_is_believed() {
        assert_eq!(shell("test \"$(cat)\" = '{\"a\":1}'", 60), Ok(()));
        assert_eq!(shell("exit 0", 60), Ok(()), "it need not read");
        let failed = shell("echo no space >&2; exit 3", 60).expect_err("it failed");
        assert!(failed.contains("exit status: 3") && failed.contains("no space"), "{failed}");
        let late = shell("sleep 600", 0).expect_err("it is late");
        assert!(late.contains("was killed after"), "{late}");
        assert_eq!(
            shell("sleep 600 & exit 0", 60),
            Ok(()),
            "what it leaves behind is not waited for"
        );
        assert_eq!(shell("setsid sleep 5 & exit 0", 60), Ok(()), "even if it left its group");
        let loud = "i=0; while [ $i -lt 20000 ]; do echo loud-loud-loud >&2; i=$((i+1)); done";
        assert_eq!(shell(loud, 60), Ok(()), "it may say more than is kept");
        assert!(
            run(&["/no/such".to_owned()], b"", PATIENCE).is_err()
                && run(&[], b"", PATIENCE).is_err()
        );
    }

    const PATIENCE: Duration = Duration::from_secs(1);
}
