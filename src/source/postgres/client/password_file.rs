//! libpq's password file: lines of `host:port:database:user:password`, in which `*` stands for anything and a
//! backslash takes the next character as it is.

use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use zeroize::Zeroizing;

use crate::error::{Fault, Kind};

/// More than any password file has, bytes.
const BYTES_MAX: u64 = 1 << 20;

/// The content of a password file.
#[derive(Clone)]
pub(super) struct PasswordFile(Zeroizing<Vec<u8>>);

impl fmt::Debug for PasswordFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordFile")
    }
}

impl PasswordFile {
    /// Reads the file; `None` if there is none.
    ///
    /// # Errors
    /// [`Kind::Config`] if others than its owner can read it, or bkp cannot.
    pub(super) fn read(path: &Path) -> Result<Option<PasswordFile>, Fault> {
        let fail = |problem: String, hint: &str| {
            let message = format!("password file {}: {problem}", path.display());
            Err(Fault::new(Kind::Config, message).hint(hint))
        };
        let opened = File::open(path).and_then(|file| Ok((file.metadata()?, file)));
        let (found, file) = match opened {
            Ok(opened) => opened,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return fail(error.to_string(), "let bkp read it, or name another one"),
        };
        if !found.is_file() {
            // /dev/null is how others say that there is none.
            return Ok(None);
        }
        let mode = found.permissions().mode();
        if mode & 0o077 != 0 {
            let problem = format!("accessible to others (mode {:03o})", mode & 0o777);
            return fail(problem, &format!("chmod 600 {}", path.display()));
        }
        // Room for all of it at once, so that no copy is left behind.
        let room = usize::try_from(found.len().min(BYTES_MAX)).unwrap_or(0);
        let mut content = Zeroizing::new(Vec::with_capacity(room + 1));
        match file.take(BYTES_MAX).read_to_end(&mut content) {
            Ok(_) => Ok(Some(PasswordFile(content))),
            Err(error) => fail(error.to_string(), "see that the file can be read"),
        }
    }

    /// The password of the first line that fits host, port, database and user.
    pub(super) fn find(&self, login: [&str; 4]) -> Option<Zeroizing<Vec<u8>>> {
        let mut lines = self.0.split(|byte| *byte == b'\n');
        lines.find_map(|line| {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.starts_with(b"#") {
                return None;
            }
            let rest = login.iter().try_fold(line, |rest, wanted| {
                rest.strip_prefix(b"*:").or_else(|| after_field(rest, wanted.as_bytes()))
            })?;
            let password = unescaped(rest);
            (!password.is_empty()).then_some(password)
        })
    }
}

/// What follows the field that `line` begins with and its colon, if the field is `wanted`.
fn after_field<'l>(line: &'l [u8], wanted: &[u8]) -> Option<&'l [u8]> {
    let mut rest = line;
    for byte in wanted {
        rest = match rest {
            [b'\\', escaped, after @ ..] if escaped == byte => after,
            [b'\\' | b':', ..] => return None,
            [plain, after @ ..] if plain == byte => after,
            _ => return None,
        };
    }
    rest.strip_prefix(b":")
}

/// The last field, up to the next colon that is not escaped.
fn unescaped(mut rest: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut password = Zeroizing::new(Vec::with_capacity(rest.len()));
    loop {
        let (byte, after) = match rest {
            [] | [b':', ..] => return password,
            [b'\\', byte, after @ ..] | [byte, after @ ..] => (byte, after),
        };
        password.push(*byte);
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "files of a test need not be durable")]

    use super::*;
    use proptest::prelude::*;
    use std::fs;

    fn found(text: &str, login: [&str; 4]) -> Option<String> {
        let file = PasswordFile(Zeroizing::new(text.as_bytes().to_vec()));
        file.find(login).map(|password| String::from_utf8(password.to_vec()).unwrap())
    }

    #[test]
    fn the_first_line_that_fits_counts() {
        let text = "#h:1:d:u:no\nh:1:other:u:a\nh:1:*:u:b\\:c\\\\d\r\n*:*:*:*:z:rest\n";
        assert_eq!(found(text, ["h", "1", "d", "u"]).as_deref(), Some("b:c\\d"));
        assert_eq!(found(text, ["h", "2", "d", "u"]).as_deref(), Some("z"));
        assert_eq!(found("fe80\\:\\:1:1:d:u:p", ["fe80::1", "1", "d", "u"]).as_deref(), Some("p"));
        assert_eq!(found("h:1:d:u:", ["h", "1", "d", "u"]), None);
        assert_eq!(found("ho:1:d:u:p", ["h", "1", "d", "u"]), None);
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pgpass");
        assert!(PasswordFile::read(&path).unwrap().is_none());
        fs::write(&path, "*:*:*:*:hunter2\n").unwrap();
        for (mode, fine) in [(0o600, true), (0o640, false), (0o604, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let read = PasswordFile::read(&path);
            assert_eq!(read.is_ok(), fine);
            assert!(!format!("{read:?}").contains("hunter2"));
        }
    }

    proptest! {
        #[test]
        fn an_escaped_password_comes_back(password in "[^\\n\\r\\pC]+", user in "[^\\n\\r\\pC]+") {
            let escape = |text: &str| text.replace('\\', "\\\\").replace(':', "\\:");
            let line = format!("*:*:*:{}:{}", escape(&user), escape(&password));
            prop_assert_eq!(found(&line, ["h", "1", "d", &user]), Some(password));
        }

        #[test]
        fn no_file_is_too_strange(text in any::<Vec<u8>>()) {
            let _any = PasswordFile(Zeroizing::new(text)).find(["h", "1", "d", "u"]);
        }
    }
}
