//! The programs of one version of PostgreSQL.

use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, ExitStatus, Stdio};
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
        let found = usual(major).into_iter().find_map(|folder| {
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

    /// Finds a program that talks with a server of a major version, and those beside it: in the folder that is
    /// configured, else those of this version where Debian and Red Hat put them, else in `PATH`. It may be newer than
    /// the server, not older.
    ///
    /// # Errors
    /// [`SourceError::Engine`] if it is older; [`Kind::Config`] if there is none.
    pub(crate) fn client(
        name: &str,
        major: u8,
        configured: Option<&Path>,
    ) -> anyhow::Result<Programs> {
        let in_folder = |folder: Option<PathBuf>| -> Result<Programs, String> {
            let version = version_of(name, folder.as_deref())?;
            Ok(Programs { folder, version })
        };
        let found = match configured {
            Some(folder) => in_folder(Some(folder.to_owned())).map_err(|why| {
                let hint = format!("correct the folder: it is the one with `{name}` in it");
                Fault::new(Kind::Config, why).hint(hint)
            })?,
            None => usual(major).into_iter().find_map(|folder| in_folder(folder).ok()).ok_or_else(
                || {
                    let message = format!("there is no `{name}` on this machine");
                    Fault::new(Kind::Config, message).hint(format!(
                        "install the client programs of PostgreSQL {major}, or name their folder in [tools] postgres"
                    ))
                },
            )?,
        };
        if major_of(&found.version).is_some_and(|own| own >= major) {
            return Ok(found);
        }
        let reason = format!(
            "is of PostgreSQL {}, which is older than the server: PostgreSQL {major}",
            found.version
        );
        Err(SourceError::Engine {
            what: found.path(name).display().to_string(),
            reason,
            hint: format!(
                "install the client programs of PostgreSQL {major}, and name their folder in [tools] postgres"
            ),
        }
        .into())
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
        let mut said = unnamed(scratch)?;
        let running = self.start(task, account, scratch, said.try_clone()?.into())?;
        let outcome = running.wait(ctx);
        let said = text(&mut said)?;
        outcome.map_err(|failure| failure.with(&said))?;
        Ok(said)
    }

    /// Starts one as `account`, in the folder `scratch`, with its output going to `output`.
    ///
    /// # Errors
    /// [`SourceError::Engine`] if it does not start.
    pub(crate) fn start(
        &self,
        task: &Task<'_>,
        account: &Account,
        scratch: &Path,
        output: Stdio,
    ) -> anyhow::Result<RunningProgram> {
        account.let_through(scratch)?;
        let path = self.path(task.name);
        let complaints = unnamed(scratch)?;
        let mut command = process::helper_command(&path);
        command.args(task.words).env("LC_ALL", "C").envs(task.variables.iter().copied());
        command.current_dir(scratch).process_group(0);
        command.stdin(Stdio::null()).stdout(output).stderr(complaints.try_clone()?);
        let by_hand = format!("run `{} {}` by hand", task.name, task.words.join(" "));
        let what = path.display().to_string();
        match account.apply(&mut command).spawn() {
            Ok(child) => Ok(RunningProgram { child: Some(child), what, by_hand, complaints }),
            Err(error) => {
                let reason = format!("cannot be started: {error}");
                Err(SourceError::Engine { what, reason, hint: by_hand }.into())
            }
        }
    }
}

/// A program that was started. It is killed, with what it started, when this is dropped.
#[derive(Debug)]
pub(crate) struct RunningProgram {
    child: Option<Child>,
    what: String,
    by_hand: String,
    complaints: File,
}

/// How a program failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It was stopped, or could not be waited for.
    Stopped(anyhow::Error),
    /// It ended with anything but success.
    Ended { what: String, status: ExitStatus, complaints: String, hint: String },
}

impl Failure {
    /// The error, with what the program said besides.
    pub(crate) fn with(self, said: &str) -> anyhow::Error {
        match self {
            Failure::Stopped(error) => error,
            Failure::Ended { what, status, complaints, hint } => {
                let all = format!("{said}\n{complaints}");
                let reason = format!("{status}: {}", tail(&all));
                SourceError::Engine { what, reason, hint }.into()
            }
        }
    }
}

impl RunningProgram {
    /// Its path, for messages.
    pub(crate) fn name(&self) -> &str {
        &self.what
    }

    /// What it writes, where its output is a pipe; nothing the second time.
    pub(crate) fn output(&mut self) -> Option<ChildStdout> {
        self.child.as_mut()?.stdout.take()
    }

    /// Looks whether it may go on.
    ///
    /// # Errors
    /// That the run is to stop; that it complains of more than anybody would read.
    pub(crate) fn check(&self, ctx: &Ctx) -> anyhow::Result<()> {
        ctx.cancel.check()?;
        if self.complaints.metadata()?.len() <= OUTPUT_BYTES_MAX {
            return Ok(());
        }
        let reason = format!("complains of more than {OUTPUT_BYTES_MAX} bytes");
        let (what, hint) = (self.what.clone(), self.by_hand.clone());
        Err(SourceError::Engine { what, reason, hint }.into())
    }

    /// Waits until it has ended with success; kills it and what it started if the run is to stop.
    ///
    /// # Errors
    /// [`Failure`].
    pub(crate) fn wait(mut self, ctx: &Ctx) -> Result<(), Failure> {
        let stopped = |error: io::Error| Failure::Stopped(error.into());
        let Some(child) = &mut self.child else { return Ok(()) };
        let status = await_end(child, ctx).map_err(Failure::Stopped)?;
        self.child = None;
        if status.success() {
            return Ok(());
        }
        let complaints = text(&mut self.complaints).map_err(stopped)?;
        let (what, hint) = (self.what.clone(), self.by_hand.clone());
        Err(Failure::Ended { what, status, complaints, hint })
    }
}

impl Drop for RunningProgram {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Whoever drops it has an error already.
            let _status = process::wait_or_kill(child, Duration::ZERO, KillScope::Group);
        }
    }
}

/// Where packages put the programs of a major version; none for `PATH`.
fn usual(major: u8) -> [Option<PathBuf>; 3] {
    [
        Some(PathBuf::from(format!("/usr/lib/postgresql/{major}/bin"))),
        Some(PathBuf::from(format!("/usr/pgsql-{major}/bin"))),
        None,
    ]
}

/// The end of what was said, in one line.
pub(crate) fn tail(said: &str) -> String {
    let skipped = said.trim().chars().count().saturating_sub(TAIL_CHARS);
    let tail: String = said.trim().chars().skip(skipped).collect();
    let plain: String = tail.replace('\n', " | ").chars().flat_map(escaped).collect();
    if plain.is_empty() { "it said nothing".to_owned() } else { plain }
}

/// A character as it can be shown: a name in a database may hold those that steer a terminal.
fn escaped(c: char) -> impl Iterator<Item = char> {
    let shown = (!c.is_control()).then_some(c);
    shown.into_iter().chain(c.escape_debug().filter(move |_| shown.is_none()))
}

/// Waits until it has ended; kills it and what it started if the run is to stop.
fn await_end(child: &mut Child, ctx: &Ctx) -> anyhow::Result<ExitStatus> {
    loop {
        let ended = process::has_ended(child)?;
        let going_on = if ended { Ok(()) } else { ctx.pause(PAUSE) };
        if ended || going_on.is_err() {
            let (status, _late) = process::wait_or_kill(child, Duration::ZERO, KillScope::Group)?;
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
    version_of("postgres", folder)
}

/// The same of any other of the programs.
fn version_of(name: &str, folder: Option<&Path>) -> Result<String, String> {
    let path = folder.map_or_else(|| PathBuf::from(name), |folder| folder.join(name));
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
