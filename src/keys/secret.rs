//! References to secrets, so that no configuration has to contain one.
//!
//! | reference | the secret is |
//! | --- | --- |
//! | `file:PATH` | the content of a file that only its owner can read |
//! | `env:NAME` | the value of an environment variable |
//! | `credential:NAME` | a credential that systemd passed to the service |
//! | `cmd:COMMAND` | what a shell command prints within 30 s (5 min at a terminal) |
//!
//! One newline at the end is not part of the secret. An empty secret is refused.

use std::fs::File;
use std::io::{Error, ErrorKind, IsTerminal as _, Read};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::KeyError;
use crate::ctx::Cancel;
use crate::domain::limits::SECRET_BYTES_MAX;
use crate::process::{self, KillScope};

/// How long a command may take that prints a secret, and where it may ask somebody at a terminal.
const DEADLINE: Duration = Duration::from_secs(30);
const DEADLINE_AT_TERMINAL: Duration = Duration::from_mins(5);

/// How often the wish to stop is looked at while it runs.
const POLL_EVERY: Duration = Duration::from_millis(50);

/// Reads the secret that `reference` points to.
///
/// # Errors
/// [`KeyError::Unusable`]; it never carries the secret, nor a reference that might be one. A command is
/// ended when the run is to stop: [`KeyError::Stopped`].
pub fn read(reference: &str, cancel: &Cancel) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let origin = origin(reference);
    let fail = |problem: String, hint: Option<&str>| KeyError::Unusable {
        origin: origin.clone(),
        problem,
        hint: hint.map(str::to_owned),
    };
    let mut secret = match reference.split_once(':') {
        Some(("file", path)) => read_private(Path::new(path), &origin)?,
        Some(("env", name)) => {
            from_environment(name).ok_or_else(|| fail("the variable is not set".into(), None))?
        }
        Some(("credential", name)) => read_credential(name, &origin)?,
        Some(("cmd", command)) => {
            let printed = from_command(command, cancel);
            cancel.check().map_err(KeyError::Stopped)?;
            printed.map_err(|problem| fail(problem, None))?
        }
        Some(_) | None => {
            let hint = "write file:PATH, env:NAME, credential:NAME or cmd:COMMAND";
            return Err(fail("not a reference to a secret".into(), Some(hint)));
        }
    };
    if secret.last() == Some(&b'\n') {
        secret.pop();
        if secret.last() == Some(&b'\r') {
            secret.pop();
        }
    }
    if secret.is_empty() {
        return Err(fail("the secret is empty".into(), None));
    }
    Ok(secret)
}

/// Whether `text` refers to a secret, instead of being one.
#[must_use]
pub fn is_reference(text: &str) -> bool {
    let kinds = ["file", "env", "credential", "cmd"];
    text.split_once(':').is_some_and(|(kind, what)| kinds.contains(&kind) && !what.is_empty())
}

/// The reference as messages may show it: a command may contain a secret, and so may a text that is
/// no reference.
#[must_use]
pub fn origin(reference: &str) -> String {
    match reference.split_once(':') {
        Some(("file" | "env" | "credential", _)) => reference.to_owned(),
        Some(("cmd", command)) => {
            format!("cmd:{} ...", command.split_whitespace().next().unwrap_or_default())
        }
        Some(_) | None => "(not shown)".to_owned(),
    }
}

/// Reads a file that must be readable by its owner only; `origin` names it in messages.
///
/// # Errors
/// [`KeyError::Unusable`] if it cannot be read, is too long, or others can read it.
pub(crate) fn read_private(path: &Path, origin: &str) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let (content, mode) = read_file(path, origin)?;
    if mode & 0o077 != 0 {
        return Err(KeyError::Unusable {
            origin: origin.to_owned(),
            problem: format!("accessible to others (mode {:03o})", mode & 0o777),
            hint: Some(format!("chmod 600 {}", path.display())),
        });
    }
    Ok(content)
}

/// Content and mode of a file of bounded size.
fn read_file(path: &Path, origin: &str) -> Result<(Zeroizing<Vec<u8>>, u32), KeyError> {
    let fail = |problem, hint| KeyError::Unusable { origin: origin.to_owned(), problem, hint };
    let io = |error: Error| fail(error.to_string(), hint_for(&error, path));
    let file = File::open(path).map_err(io)?;
    // Of the file that is open, not of what stands at the path by now.
    let mode = file.metadata().map_err(io)?.permissions().mode();
    let content = read_bounded(file).map_err(|problem| fail(problem, None))?;
    Ok((content, mode))
}

/// What to do about a file with a secret that cannot be read.
fn hint_for(error: &Error, path: &Path) -> Option<String> {
    let path = path.display();
    let hints = [
        (ErrorKind::NotFound, format!("write the secret to {path} with mode 600")),
        (
            ErrorKind::PermissionDenied,
            format!("run bkp as the owner of {path}, or change its owner: chown USER {path}"),
        ),
    ];
    hints.into_iter().find(|(kind, _)| *kind == error.kind()).map(|(_, hint)| hint)
}

/// Reads the credential `name` that systemd passed to this service.
///
/// # Errors
/// [`KeyError::Unusable`] if there is none of that name.
pub(crate) fn read_credential(name: &str, origin: &str) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let path = credential_path(name).ok_or_else(|| KeyError::Unusable {
        origin: origin.to_owned(),
        problem: "no credentials were passed to this process".to_owned(),
        hint: Some("start bkp as a systemd service with LoadCredential=".to_owned()),
    })?;
    Ok(read_file(&path, origin)?.0)
}

/// Reads to the end into a buffer that never moves, so that no copy is left behind.
fn read_bounded(reader: impl Read) -> Result<Zeroizing<Vec<u8>>, String> {
    let most = usize::try_from(SECRET_BYTES_MAX).unwrap_or(usize::MAX);
    let mut content = Zeroizing::new(Vec::with_capacity(most + 1));
    let mut limited = reader.take(SECRET_BYTES_MAX + 1);
    limited.read_to_end(&mut content).map_err(|error| error.to_string())?;
    if content.len() > most {
        return Err(format!("longer than {SECRET_BYTES_MAX} bytes"));
    }
    Ok(content)
}

#[expect(clippy::disallowed_methods, reason = "a reference names a variable; nothing else is read")]
fn from_environment(name: &str) -> Option<Zeroizing<Vec<u8>>> {
    // An empty name, or one with `=`, would be a panic on some systems.
    let valid = !name.is_empty() && !name.contains(['=', '\0']);
    let value = valid.then(|| std::env::var_os(name)).flatten()?;
    Some(Zeroizing::new(value.into_vec()))
}

/// Where systemd put the credential. It guards that folder itself, with access lists that look
/// like group permissions, so the mode of the file says nothing.
#[expect(clippy::disallowed_methods, reason = "the place is part of systemd's protocol")]
fn credential_path(name: &str) -> Option<PathBuf> {
    let plain = !name.is_empty() && name != "." && name != ".." && !name.contains('/');
    let folder = std::env::var_os("CREDENTIALS_DIRECTORY").filter(|_| plain)?;
    Some(Path::new(&folder).join(name))
}

/// What a shell command prints; its errors go where ours go.
fn from_command(command: &str, cancel: &Cancel) -> Result<Zeroizing<Vec<u8>>, String> {
    let at_terminal = std::io::stderr().is_terminal();
    let (patience, kill_scope) = if at_terminal {
        (DEADLINE_AT_TERMINAL, KillScope::Itself)
    } else {
        (DEADLINE, KillScope::Group)
    };
    let began = Instant::now();
    let mut shell = process::operator_command("sh");
    shell.arg("-c").arg(command).stdin(Stdio::null()).stdout(Stdio::piped());
    // At a terminal it stays in our process group: in another one it could not ask anybody there. Elsewhere
    // what it started ends with it.
    if !at_terminal {
        shell.process_group(0);
    }
    let mut child = shell.spawn().map_err(|error| format!("cannot start sh: {error}"))?;
    let printed = child.stdout.take().ok_or("the command has no output")?;
    let (say, hear) = mpsc::channel();
    // The pipe is closed when this has read enough, so a command that prints for ever ends.
    thread::spawn(move || say.send(read_bounded(printed)));
    let heard = loop {
        let heard = hear.recv_timeout(POLL_EVERY);
        let is_over = began.elapsed() >= patience || cancel.check().is_err();
        if is_over || heard != Err(RecvTimeoutError::Timeout) {
            break heard;
        }
    };
    let stopped = cancel.check().is_err();
    let rest = if stopped { Duration::ZERO } else { patience.saturating_sub(began.elapsed()) };
    let ended = process::wait_or_kill(&mut child, rest, kill_scope);
    let (status, late) = ended.map_err(|error| error.to_string())?;
    if late {
        return Err(format!("the command was killed after {} s", patience.as_secs()));
    }
    let secret =
        heard.map_err(|_silence| "the command exited but something holds its output open")??;
    if status.success() { Ok(secret) } else { Err(format!("the command failed: {status}")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write as _;

    fn read_now(reference: &str) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        read(reference, &Cancel::default())
    }

    fn problem(reference: &str) -> String {
        read_now(reference).expect_err("refused").to_string()
    }

    #[test]
    fn commands_give_what_they_print() {
        assert_eq!(read_now("cmd:printf 'a b\\n'").unwrap().as_slice(), b"a b");
        assert_eq!(read_now("cmd:printf 'a\\n\\n'").unwrap().as_slice(), b"a\n");
        assert_eq!(read_now("cmd:printf 'a\\r'").unwrap().as_slice(), b"a\r");
        assert!(problem("cmd:exit 3").contains("exit status: 3"));
        assert!(problem("cmd:yes").contains("longer than"));
        assert!(problem("cmd:true").contains("empty"));
    }

    #[test]
    fn messages_do_not_show_what_may_be_secret() {
        assert!(!problem("hunter2").contains("hunter2"));
        assert!(!problem("hunter2:and more").contains("hunter2"));
        assert!(!problem("cmd:false hunter2").contains("hunter2"));
        assert!(problem("file:/no/such/file").contains("/no/such/file"));
        assert!(problem("env:BKP_NO_SUCH_VARIABLE").contains("not set"));
        assert!(problem("env:").contains("not set"));
        assert!(problem("credential:../x").contains("credentials"));
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_with_a_hint() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pass");
        let mut file = File::create(&path).unwrap();
        file.write_all(b"secret\r\n").unwrap();
        let reference = format!("file:{}", path.display());
        for (mode, fine) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            match read_now(&reference) {
                Ok(secret) => assert!(fine && secret.as_slice() == b"secret"),
                Err(KeyError::Unusable { hint, .. }) => {
                    assert!(!fine && hint.unwrap().starts_with("chmod 600 "));
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
}
