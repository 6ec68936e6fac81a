//! Errors: one line that names the thing, the causes that add something, and an instruction.

use anyhow::Error;
use serde_json::json;

use super::style::{Style, print_line};
use crate::error::{Kind, diagnose};
use crate::exit;
use crate::ops::report::Failure;

/// Prints an error and returns its exit code.
#[must_use]
pub fn fail(style: Style, error: &Error) -> u8 {
    print_line(&render(style, error));
    exit::code(diagnose(error).kind)
}

/// Prints what is wrong with the command line and returns the exit code. `text` is what clap says,
/// `summary` its first line.
#[must_use]
pub fn mistake(style: Style, text: &str, summary: &str) -> u8 {
    if style.json {
        print_line(&object(Kind::Usage, summary, &[], Kind::Usage.hint()));
    } else {
        print_line(text.trim_end());
    }
    exit::code(Kind::Usage)
}

fn render(style: Style, error: &Error) -> String {
    let diagnosis = diagnose(error);
    let (message, causes) = lines(error);
    if style.json {
        return object(diagnosis.kind, &message, &causes, &diagnosis.hint);
    }
    let word = if style.colour { "\x1b[1;31merror\x1b[0m" } else { "error" };
    let mut text = format!("{word}: {message}");
    for cause in causes {
        text.push_str("\n  caused by: ");
        text.push_str(&cause);
    }
    text.push_str("\nhint: ");
    text.push_str(&diagnosis.hint);
    text
}

fn object(kind: Kind, message: &str, causes: &[String], hint: &str) -> String {
    let (schema, exit_code, kind) = (Failure::SCHEMA, exit::code(kind), kind.name());
    json!(Failure { schema, exit_code, kind, message, causes, hint }).to_string()
}

/// The first line, and the causes whose text the line above them does not contain already.
fn lines(error: &Error) -> (String, Vec<String>) {
    let mut above = flat(&error.to_string());
    let message = above.clone();
    let mut causes = Vec::new();
    for cause in error.chain().skip(1) {
        let text = flat(&cause.to_string());
        if !above.contains(&text) {
            causes.push(text.clone());
            above = text;
        }
    }
    (message, causes)
}

/// One line, without control characters: a name in a store or a file system could hold any, and a
/// terminal would obey them.
fn flat(text: &str) -> String {
    let line =
        text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
    line.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::SourceError;

    fn sample() -> Error {
        let source = std::io::Error::other("disk is on fire");
        let error = SourceError::Unreadable { what: "/a".into(), source };
        Error::new(error).context("snapshot of books: cannot read /a")
    }

    #[test]
    fn causes_that_add_nothing_are_left_out() {
        let text = render(Style::default(), &sample());
        let lines: Vec<&str> = text.lines().collect();
        let [message, cause, hint] = lines[..] else { panic!("{text}") };
        assert_eq!(message, "error: snapshot of books: cannot read /a");
        assert_eq!(cause, "  caused by: disk is on fire");
        assert!(hint.starts_with("hint: check the disk"), "{hint}");
    }

    #[test]
    fn programs_get_one_line_with_every_field() {
        let text = render(Style { json: true, ..Style::default() }, &sample());
        assert_eq!(text.lines().count(), 1);
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(value["schema"], "bkp.error/1");
        assert_eq!(value["exit_code"], 15);
        assert_eq!(value["kind"], "source");
        assert_eq!(value["causes"], serde_json::json!(["disk is on fire"]));
    }

    #[test]
    fn a_terminal_is_not_told_what_to_do() {
        assert_eq!(flat("a\n\nb\x1b[2J"), "a; b\u{fffd}[2J");
    }
}
