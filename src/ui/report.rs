//! Reports and answers on standard output.

use std::io::{self, ErrorKind, Write};

use super::style::Style;
use crate::domain::text::is_mark;
use crate::ops::report::Report;

/// Prints a report: text for people, or one JSON object.
///
/// # Errors
/// If standard output cannot be written, a full disk for instance. That the reader has gone is not
/// an error: `bkp list | head` is fine.
pub fn report(style: Style, report: &Report) -> io::Result<()> {
    if report.is_routine && style.quiet && !style.json && report.outcome.is_none() {
        return Ok(());
    }
    // Much of a text may come from a store, which anybody may have written to: no terminal is to obey it.
    let text = if style.json { report.value.to_string() } else { plain(&report.text) };
    answer(&text)
}

/// A text without characters that a terminal acts upon or that turn the direction of text around, ends of
/// lines and tabs apart.
fn plain(text: &str) -> String {
    let acts = |c: char| (c.is_control() && !matches!(c, '\n' | '\t')) || is_mark(c);
    text.chars().map(|c| if acts(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Prints a text and ends its last line.
///
/// # Errors
/// As [`report`].
pub fn answer(text: &str) -> io::Result<()> {
    print(&mut io::stdout().lock(), text)
}

fn print(out: &mut dyn Write, text: &str) -> io::Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    let end = if text.ends_with('\n') { "" } else { "\n" };
    let written = write!(out, "{text}{end}").and_then(|()| out.flush());
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fails(ErrorKind);

    impl Write for Fails {
        fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_has_gone_is_no_error_and_a_full_disk_is_one() {
        assert!(print(&mut Fails(ErrorKind::BrokenPipe), "x").is_ok());
        assert!(print(&mut Fails(ErrorKind::StorageFull), "x").is_err());
    }

    #[test]
    fn the_last_line_is_ended_once() {
        for text in ["a\nb", "a\nb\n"] {
            let mut out = Vec::new();
            print(&mut out, text).expect("written");
            assert_eq!(out, b"a\nb\n");
        }
    }
}
