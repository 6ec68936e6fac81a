//! Progress: a bar on a terminal, a line per interval elsewhere, nothing for programs.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use humansize::{BINARY, format_size};
use indicatif::{ProgressBar, ProgressStyle};

use super::style::{Style, print_line, warning};
use crate::ctx::Monitor;

/// How often a line is written where there is no terminal.
const INTERVAL: Duration = Duration::from_secs(10);

const WITH_TOTAL: &str = "{msg} [{bar:25}] {percent:>3}% {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}";
const WITHOUT_TOTAL: &str = "{msg} {spinner} {binary_bytes} {binary_bytes_per_sec} {elapsed}";

/// Tells the operator how far a run is.
#[derive(Debug)]
pub struct Progress {
    style: Style,
    work: Mutex<Option<Work>>,
}

/// The current piece of work.
#[derive(Debug)]
struct Work {
    what: String,
    total: Option<u64>,
    done: u64,
    began: Instant,
    told: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Progress in this style.
    #[must_use]
    pub fn new(style: Style) -> Self {
        Progress { style, work: Mutex::new(None) }
    }

    fn work(&self) -> MutexGuard<'_, Option<Work>> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether progress is shown at all.
    fn shown(&self) -> bool {
        !self.style.quiet && !self.style.json
    }

    /// Writes a line above the bar, if there is one.
    fn say(&self, line: &str) {
        match self.work().as_ref().and_then(|work| work.bar.as_ref()) {
            Some(bar) => bar.suspend(|| print_line(line)),
            None => print_line(line),
        }
    }
}

impl Monitor for Progress {
    fn begin(&self, what: &str, total: Option<u64>) {
        let bar = (self.shown() && self.style.terminal).then(|| bar(what, total));
        let now = Instant::now();
        let work = Work { what: what.to_owned(), total, done: 0, began: now, told: now, bar };
        if let Some(before) = self.work().replace(work) {
            before.clear();
        }
    }

    fn advance(&self, bytes: u64) {
        let mut guard = self.work();
        let Some(work) = guard.as_mut() else { return };
        work.done = work.done.saturating_add(bytes);
        if let Some(bar) = &work.bar {
            bar.inc(bytes);
        } else if self.shown() && work.told.elapsed() >= INTERVAL {
            work.told = Instant::now();
            print_line(&work.line());
        }
    }

    fn warn(&self, message: &str) {
        self.say(&warning(self.style, message));
    }

    fn detail(&self, message: &str) {
        if self.style.verbose > 0 && self.shown() {
            self.say(message);
        }
    }

    fn end(&self) {
        let Some(work) = self.work().take() else {
            return;
        };
        work.clear();
        if self.style.verbose > 0 && self.shown() {
            print_line(&format!("{}: done", work.line()));
        }
    }
}

impl Work {
    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn line(&self) -> String {
        let done = format_size(self.done, BINARY);
        let of = self.total.map(|total| format!(" of {}", format_size(total, BINARY)));
        let seconds = self.began.elapsed().as_secs();
        // Whole bytes per second are exact enough for people; less than a second counts as one.
        let rate = format_size(self.done / seconds.max(1), BINARY);
        format!("{}: {done}{}, {rate}/s, {seconds} s", self.what, of.unwrap_or_default())
    }
}

/// A bar, or a spinner where the total is not known. Drawn on standard error, at most 20 times a
/// second.
fn bar(what: &str, total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => (ProgressBar::new(total), WITH_TOTAL),
        None => (ProgressBar::new_spinner(), WITHOUT_TOTAL),
    };
    // The template is a constant; should it be wrong, the default style is good enough.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(what.to_owned());
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_valid() {
        for template in [WITH_TOTAL, WITHOUT_TOTAL] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }

    #[test]
    fn a_line_says_what_and_how_much() {
        let progress = Progress::new(Style { quiet: true, ..Style::default() });
        progress.begin("reading", Some(4096));
        progress.advance(1024);
        let line = progress.work().as_ref().expect("work").line();
        assert!(line.starts_with("reading: 1 KiB of 4 KiB, "), "{line}");
        progress.end();
        assert!(progress.work().is_none());
    }
}
