//! Asking before something is replaced or brought back.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::{Style, tell};
use crate::ctx::Cancel;
use crate::error::{Fault, Kind};
use crate::wire::Confirm;

/// How long an operator has for second thoughts.
const COUNTDOWN: Duration = Duration::from_secs(5);

/// How often the wish to stop is looked at meanwhile.
const POLL: Duration = Duration::from_millis(50);

/// What commands ask with. On a terminal the summary is shown and a countdown runs, which any
/// signal stops; where nobody can answer, only `--yes` lets the command go on.
#[must_use]
pub fn confirm(style: Style, yes: bool, cancel: Cancel) -> Confirm {
    Arc::new(move |summary| decide(style, yes, &cancel, summary, COUNTDOWN))
}

fn decide(
    style: Style,
    yes: bool,
    cancel: &Cancel,
    summary: &str,
    countdown: Duration,
) -> anyhow::Result<()> {
    if yes {
        return Ok(());
    }
    if !style.interactive || style.json {
        let first = summary.lines().next().unwrap_or_default();
        let message = format!("nobody is there to confirm: {first}");
        return Err(Fault::new(Kind::Refused, message).hint("add `--yes`").into());
    }
    tell(summary);
    tell(&format!("Going on in {} s; Ctrl-C stops it.", countdown.as_secs()));
    let began = Instant::now();
    while began.elapsed() < countdown {
        cancel.check()?;
        thread::park_timeout(POLL);
    }
    cancel.check()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::diagnose;
    use std::sync::atomic::Ordering;

    fn ask(interactive: bool, yes: bool, cancel: &Cancel) -> anyhow::Result<()> {
        let style = Style { interactive, ..Style::default() };
        decide(style, yes, cancel, "replace /a", Duration::ZERO)
    }

    #[test]
    fn yes_needs_nobody_and_nobody_needs_yes() {
        let cancel = Cancel::default();
        assert!(ask(false, true, &cancel).is_ok());
        assert!(ask(true, false, &cancel).is_ok());
        let error = ask(false, false, &cancel).expect_err("refused");
        assert_eq!(diagnose(&error).kind, Kind::Refused);
        assert_eq!(error.to_string(), "nobody is there to confirm: replace /a");
    }

    #[test]
    fn a_signal_stops_the_countdown() {
        let cancel = Cancel::default();
        cancel.cell().store(2, Ordering::Relaxed);
        let error = ask(true, false, &cancel).expect_err("stopped");
        assert_eq!(diagnose(&error).kind, Kind::Interrupted);
    }
}
