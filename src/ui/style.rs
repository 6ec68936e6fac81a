//! The style of output: progress, detail, colours.

use std::io::{self, IsTerminal, Write};

use crate::ops::report::Warning;

/// How to print for the operator.
#[expect(clippy::struct_excessive_bools, reason = "independent answers, not states of one machine")]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Style {
    /// Objects for programs instead of text for people.
    pub json: bool,
    /// Do not show progress.
    pub quiet: bool,
    /// How much detail to print: how often `-v` was given.
    pub verbose: u8,
    /// Standard error is a terminal.
    pub terminal: bool,
    /// Somebody can answer: standard input is a terminal too.
    pub interactive: bool,
    /// Colours on standard error.
    pub colour: bool,
}

impl Style {
    /// How to speak to whoever started this process.
    #[must_use]
    pub fn of_process(json: bool, quiet: bool, verbose: u8, no_color: bool) -> Self {
        let terminal = io::stderr().is_terminal();
        Style {
            json,
            quiet,
            verbose,
            terminal,
            interactive: terminal && io::stdin().is_terminal(),
            colour: terminal && !no_color && !json,
        }
    }
}

/// Writes a line to standard error. There is nobody to tell if that fails.
pub(super) fn print_line(line: &str) {
    let _nobody_listens = writeln!(io::stderr().lock(), "{line}");
}

/// A warning as `style` wants it.
pub(super) fn warning(style: Style, message: &str) -> String {
    if style.json {
        return serde_json::json!(Warning { schema: Warning::SCHEMA, message }).to_string();
    }
    let word = if style.colour { "\x1b[33mwarning\x1b[0m" } else { "warning" };
    format!("{word}: {message}")
}
