//! The programs of one version of PostgreSQL.

use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use super::account::Account;
use crate::ctx::Ctx;
use crate::error::{Fault, Kind};
use crate::process::{self, KillScope};
use crate::source::SourceError;

/// The pause between two looks at a program.
const PAUSE: Duration = Duration::from_millis(50);
/// What is read of a program's output, bytes.
const OUTPUT_BYTES_MAX: u64 = 16 << 20;
/// What an error shows of it, characters.
const TAIL_CHARS: usize = 600;

/// The programs of a version, found and asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Programs {
    /// Where they are; none for `PATH`.
    folder: Option<PathBuf>,
    /// What `postgres --version` says, as `18.6`.
    pub(crate) version: String,
}

/// A program that is run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Task<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    /// What it is told.
    pub(crate) words: &'a [&'a str],
    /// What it finds in its environment.
    pub(crate) variables: &'a [(&'a str, &'a str)],
}

impl Programs {
    /// Finds those of a major version: in the folder that is configured, else where Debian and Red Hat put
    /// them, else in `PATH`.
    ///
    /// # Errors
    /// [`Kind::Config`] if there are none, or the configured folder has another version.
    pub(crate) fn find(major: u8, configured: Option<&Path>) -> Result<Programs, Fault> {
        if let Some(folder) = configured {
            let version = version(Some(folder)).map_err(|why| {
                Fault::new(Kind::Config, why)
                    .hint("correct the folder: it is the one with `postgres` in it")
            })?;
            if major_of(&version) != Some(major) {
                let message = format!(
                    "{} has PostgreSQL {version}, the backup is of PostgreSQL {major}",
                    folder.display()
                );
                return Err(Fault::new(Kind::Config, message)
                    .hint(format!("configure a folder with the programs of PostgreSQL {major}")));
            }
            return Ok(Programs { folder: Some(folder.to_owned()), version });
        }
        let usual = [
            Some(PathBuf::from(format!("/usr/lib/postgresql/{major}/bin"))),
            Some(PathBuf::from(format!("/usr/pgsql-{major}/bin"))),
            None,
        ];
        let found = usual.into_iter().find_map(|folder| {
            let version = version(folder.as_deref()).ok()?;
            (major_of(&version) == Some(major)).then_some(Programs { folder, version })
        });
        found.ok_or_else(|| {
            let message = format!("there is no PostgreSQL {major} on this machine");
            Fault::new(Kind::Config, message).hint(format!(
                "install the server of PostgreSQL {major}, or configure the folder that has it; or verify with --level decode"
            ))
        })
    }

    /// The path of one of them.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.as_deref().map_or_else(|| PathBuf::from(name), |folder| folder.join(name))
    }

    /// Whether one is there: packages differ in what they bring.
    pub(crate) fn has(&self, name: &str) -> bool {
        let output = process::helper_command(self.path(name)).arg("--version").output();
        output.is_ok_and(|output| output.status.success())
    }

    /// Runs one as `account`, in the folder `scratch`, until it has ended, and returns what it wrote. It gets
    /// nothing of our environment but `PATH`.
    ///
    /// # Errors
    /// [`SourceError::Engine`] if it does not start, or ends with anything but success: with what it said. That the
    /// run is to stop; it is killed then.
    pub(crate) fn run(
        &self,
        task: &Task<'_>,
        account: &Account,
        scratch: &Path,
        ctx: &Ctx,
    ) -> anyhow::Result<String> {
        account.let_through(scratch)?;
        let path = self.path(task.name);
        let failed = |reason: String| SourceError::Engine {
            what: path.display().to_string(),
            reason,
            hint: format!("run `{} {}` by hand", task.name, task.words.join(" ")),
        };
        let (mut said, mut told) = (unnamed(scratch)?, unnamed(scratch)?);
        let mut command = process::helper_command(&path);
        command.args(task.words).env("LC_ALL", "C").envs(task.variables.iter().copied());
        command.current_dir(scratch).process_group(0);
        command.stdin(Stdio::null()).stdout(said.try_clone()?).stderr(told.try_clone()?);
        let spawned = account.apply(&mut command).spawn();
        let child = spawned.map_err(|error| failed(format!("cannot be started: {error}")))?;
        let status = await_end(child, ctx)?;
        let said = text(&mut said)?;
        if status.success() {
            return Ok(said);
        }
        let all = format!("{said}\n{}", text(&mut told)?);
        Err(failed(format!("{status}: {}", tail(&all))).into())
    }
}

/// The end of what was said, in one line.
pub(crate) fn tail(said: &str) -> String {
    let skipped = said.trim().chars().count().saturating_sub(TAIL_CHARS);
    let tail: String = said.trim().chars().skip(skipped).collect();
    if tail.is_empty() { "it said nothing".to_owned() } else { tail.replace('\n', " | ") }
}

/// Waits until it has ended; kills it and what it started if the run is to stop.
fn await_end(mut child: Child, ctx: &Ctx) -> anyhow::Result<ExitStatus> {
    loop {
        let ended = process::has_ended(&child)?;
        let going_on = if ended { Ok(()) } else { ctx.pause(PAUSE) };
        if ended || going_on.is_err() {
            let (status, _late) =
                process::wait_or_kill(&mut child, Duration::ZERO, KillScope::Group)?;
            going_on?;
            return Ok(status);
        }
    }
}

/// A file without a name: nobody has to remove it.
fn unnamed(folder: &Path) -> Result<File, Fault> {
    let path = folder.join(format!("output-{}", uuid::Uuid::now_v7().simple()));
    let made = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path);
    let made = made.and_then(|file| std::fs::remove_file(&path).map(|()| file));
    made.map_err(|error| {
        let message = format!("cannot create a file in {}: {error}", folder.display());
        Fault::new(Kind::Failed, message).hint("make room, or make the folder writable")
    })
}

/// What a file has, the first [`OUTPUT_BYTES_MAX`] of it.
fn text(file: &mut File) -> io::Result<String> {
    file.rewind()?;
    let mut bytes = Vec::new();
    file.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What `postgres --version` says in a folder, or in `PATH`; an error says why it says nothing.
fn version(folder: Option<&Path>) -> Result<String, String> {
    let path = folder.map_or_else(|| PathBuf::from("postgres"), |folder| folder.join("postgres"));
    let output = process::helper_command(&path).arg("--version").stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("cannot start {}: {error}", path.display()))?;
    let said = String::from_utf8_lossy(&output.stdout);
    // postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)
    let found = said.split_whitespace().skip_while(|word| *word != "(PostgreSQL)").nth(1);
    let found = found.filter(|_| output.status.success()).map(str::to_owned);
    found.ok_or_else(|| format!("{} does not say its version: {}", path.display(), said.trim()))
}

/// The major version: before a release it is followed by letters.
fn major_of(version: &str) -> Option<u8> {
    let digits = version.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}
