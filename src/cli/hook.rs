//! The exit codes of hooks: a server that starts one reads them in its own way.
//!
//! PostgreSQL hands a file over again when `archive_command` ends with 1 to 125; above that its archiver ends, and
//! its counter of failures does not count it. What `restore_command` ends with 1 to 125 it takes for "there is no
//! such file", ends its recovery there and lets the server be written to: whatever is not proven to be missing has
//! to end with more than 125.

use std::ffi::{OsStr, OsString};

use crate::error::Kind;
use crate::exit;

/// A file that is wanted is proven not to be archived.
const ABSENT: u8 = 1;
/// It is not known whether it is, or it cannot be brought.
const UNKNOWN: u8 = 126;
/// The largest code that `archive_command` may end with.
const AGAIN_MAX: u8 = 125;

/// A hook that a server starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// `archive_command`.
    Push,
    /// `restore_command`.
    Fetch,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// With a report, and the code that it stands for.
    Done(u8),
    /// With an error, and its code.
    Failed(u8),
}

impl Hook {
    /// The hook that a command line asks for, also if something is wrong with the rest of it.
    #[must_use]
    pub fn of(words: impl Iterator<Item = OsString>) -> Option<Hook> {
        let words: Vec<OsString> = words.collect();
        let has = |flag: &str| {
            words.iter().any(|word| {
                let rest = word.as_encoded_bytes().strip_prefix(flag.as_bytes());
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"="))
            })
        };
        let is_logs = words.iter().any(|word| word == OsStr::new("logs"));
        let fetch = has("--fetch").then_some(Hook::Fetch);
        fetch.or(has("--push").then_some(Hook::Push)).filter(|_hook| is_logs)
    }

    /// What the server is told.
    #[must_use]
    pub fn code(self, ended: Ended) -> u8 {
        match (self, ended) {
            (_, Ended::Done(exit::DONE)) => exit::DONE,
            (Hook::Push, Ended::Done(code) | Ended::Failed(code)) if code <= AGAIN_MAX => code,
            (Hook::Push, _) => exit::code(Kind::Thawing),
            (Hook::Fetch, Ended::Done(code)) if code == exit::code(Kind::NotFound) => ABSENT,
            (Hook::Fetch, _) => UNKNOWN,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Option<Hook> {
        Hook::of(line.split(' ').map(OsString::from))
    }

    #[test]
    fn a_hook_is_known_by_its_flag() {
        assert_eq!(of("bkp logs pg --push pg_wal/1"), Some(Hook::Push));
        assert_eq!(of("bkp logs pg --fetch 1 pg_wal/1 --no-such-flag"), Some(Hook::Fetch));
        assert_eq!(of("bkp --json logs pg --fetch=1 2"), Some(Hook::Fetch));
        assert_eq!(of("bkp logs pg --follow"), None);
        assert_eq!(of("bkp restore pg --fetches"), None);
    }

    #[test]
    fn only_a_file_that_is_proven_absent_is_said_to_be_absent() {
        for kind in Kind::ALL {
            let code = exit::code(kind);
            assert_eq!(Hook::Fetch.code(Ended::Failed(code)), UNKNOWN, "{kind:?}");
            let told = Hook::Fetch.code(Ended::Done(code));
            assert_eq!(told == ABSENT, kind == Kind::NotFound, "{kind:?}");
            assert!(told == ABSENT || told == UNKNOWN, "{kind:?}");
            assert!((1..=AGAIN_MAX).contains(&Hook::Push.code(Ended::Failed(code))), "{kind:?}");
        }
        assert_eq!(Hook::Fetch.code(Ended::Done(0)), 0);
        assert_eq!(Hook::Push.code(Ended::Done(0)), 0);
    }
}
