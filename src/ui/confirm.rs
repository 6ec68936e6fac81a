//! Asks for confirmation before something is replaced or restored, and for what a command has to know.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use super::style::{Style, print_line};
use crate::ctx::Cancel;
use crate::error::{Fault, Kind};
use crate::wire::{Ask, Confirm};

/// How often the wish to stop is looked at while an answer is awaited.
const POLL: Duration = Duration::from_millis(50);

/// What commands ask with. On a terminal the summary is shown and the answer must be `yes`; where
/// nobody can answer, only `--yes` lets the command go on.
#[must_use]
pub fn confirm(style: Style, yes: bool, cancel: Cancel) -> Confirm {
    Arc::new(move |summary| decide(style, yes, &cancel, summary, read_line))
}

fn decide(
    style: Style,
    yes: bool,
    cancel: &Cancel,
    summary: &str,
    read: fn() -> io::Result<String>,
) -> anyhow::Result<()> {
    if yes {
        return Ok(());
    }
    let refuse = |what: &str| {
        let message = format!("{what}: {}", summary.lines().next().unwrap_or_default());
        Fault::new(Kind::Refused, message)
    };
    if !style.interactive || style.json {
        return Err(refuse("not a terminal").hint("pass --yes").into());
    }
    print_line(summary);
    print_line("Type `yes` to continue:");
    let line = answer(cancel, read)?;
    if line.trim().eq_ignore_ascii_case("yes") {
        return Ok(());
    }
    Err(refuse("not confirmed").hint("nothing was done; answer `yes`, or pass --yes").into())
}

/// What commands ask with. Only somebody at a terminal can answer; an empty line stands for the answer
/// that is offered.
#[must_use]
pub fn ask(style: Style, cancel: Cancel) -> Ask {
    Arc::new(move |question, offered| {
        if !style.interactive || style.json {
            return Ok(None);
        }
        let brackets = if offered.is_empty() { String::new() } else { format!(" [{offered}]") };
        print_line(&format!("{question}{brackets}"));
        let line = answer(&cancel, read_line)?;
        let line = line.trim();
        Ok(Some(if line.is_empty() { offered } else { line }.to_owned()))
    })
}

/// The line that `read` gets, or an error as soon as the run should stop.
fn answer(cancel: &Cancel, read: fn() -> io::Result<String>) -> anyhow::Result<String> {
    // A read cannot be interrupted; its thread ends with the process.
    let (answered, answer) = mpsc::channel();
    thread::Builder::new().name("answer".into()).spawn(move || answered.send(read()))?;
    loop {
        cancel.check()?;
        match answer.recv_timeout(POLL) {
            Ok(line) => return Ok(line?),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(String::new()),
        }
    }
}

fn read_line() -> io::Result<String> {
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::diagnose;
    use std::sync::atomic::Ordering;

    fn ask(
        interactive: bool,
        yes: bool,
        cancel: &Cancel,
        read: fn() -> io::Result<String>,
    ) -> anyhow::Result<()> {
        let style = Style { interactive, ..Style::default() };
        decide(style, yes, cancel, "replace /a", read)
    }

    #[test]
    fn yes_needs_nobody_and_nobody_needs_yes() {
        let (cancel, silence) = (Cancel::default(), || Ok(String::new()));
        assert!(ask(false, true, &cancel, silence).is_ok());
        let error = ask(false, false, &cancel, silence).expect_err("refused");
        assert_eq!(diagnose(&error).kind, Kind::Refused);
        assert_eq!(error.to_string(), "not a terminal: replace /a");
    }

    #[test]
    fn only_yes_goes_on() {
        let cancel = Cancel::default();
        assert!(ask(true, false, &cancel, || Ok("YES\n".into())).is_ok());
        for read in [|| Ok("n\n".into()), || Ok("\n".into()), || Ok(String::new())] {
            let error = ask(true, false, &cancel, read).expect_err("refused");
            assert_eq!(error.to_string(), "not confirmed: replace /a");
        }
    }

    #[test]
    fn a_signal_ends_the_wait() {
        let cancel = Cancel::default();
        cancel.cell().store(2, Ordering::Relaxed);
        let error = ask(true, false, &cancel, || Ok("yes".into())).expect_err("stopped");
        assert_eq!(diagnose(&error).kind, Kind::Interrupted);
    }
}
