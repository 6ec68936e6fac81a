//! Positions in the write-ahead log.

use std::fmt;
use std::str::FromStr;

use crate::source::postgres::wal::lsn;

/// A position in a server's write-ahead log: bytes since its beginning. Written as `16/B374D848`, the upper and
/// the lower half in hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

/// A text that is no position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no position in a write-ahead log, such as 16/B374D848")]
pub struct NotAnLsn(String);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&lsn::text(self.0))
    }
}

impl FromStr for Lsn {
    type Err = NotAnLsn;

    fn from_str(text: &str) -> Result<Lsn, NotAnLsn> {
        lsn::parse(text).map(Lsn).ok_or_else(|| NotAnLsn(text.chars().take(40).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn it_is_read_as_the_server_reads_it() {
        assert_eq!("16/B374D848".parse(), Ok(Lsn(0x16_B374_D848)));
        assert_eq!("0/0".parse(), Ok(Lsn(0)));
        for wrong in ["", "/", "1", "1/", "/1", "1/+2", "123456789/0", "0/1 ", "g/0", "0x1/0"] {
            assert!(wrong.parse::<Lsn>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(position in any::<u64>()) {
            prop_assert_eq!(Lsn(position).to_string().parse(), Ok(Lsn(position)));
        }

        #[test]
        fn no_text_is_too_strange(text in "\\PC*") {
            let _any = text.parse::<Lsn>();
        }
    }
}
