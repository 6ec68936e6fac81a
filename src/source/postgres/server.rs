//! A throw-away server on a restored folder: nobody but us reaches it, and nothing of it is left.
//!
//! - [`programs`]: where the programs of a version are, and how one is run.
//! - [`account`]: the user that they run as, never root, and the folders that this user is given.
//! - [`server_log`]: what the server says.
//! - [`controldata`]: what the folder says of the server that it is from.
//!
//! The folder is a copy that nobody needs later: the server writes to it, and bkp removes its
//! `postgresql.auto.conf`. No other setting of the restored server counts, so no program that it would start is
//! started, and nothing is archived.

pub(crate) mod account;
pub(crate) mod controldata;
pub(crate) mod programs;
pub(crate) mod server_log;

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use self::account::{Account, PrivateFolder, check_links};
use self::controldata::ControlData;
use self::programs::{Programs, Task};
use self::server_log::ServerLog;
use crate::ctx::Ctx;
use crate::error::{Fault, Kind};
use crate::process;
use crate::source::postgres::client::{Connection, Conninfo, Purpose, Surroundings};
use crate::source::watchdog::{TELL_AND_BECOME, Watchdog};

/// The pause between two looks at the server.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a server may take that is told to drop everything; it kills its own processes after 5 s.
const QUIT_SECONDS: u64 = 8;
/// The longest path of a socket that the system takes, bytes.
const SOCKET_PATH_MAX: usize = 107;
/// The number in the socket's name. Its folder is the server's alone.
const PORT: u16 = 5432;

/// What a server says that does not recover any more; one that does says "read-only connections".
const IS_PRIMARY: &str = "database system is ready to accept connections";

/// What the watchdog does if we are killed: the server is told to drop everything, then killed, and the folders are
/// removed. The server may make files while that is being done: hence more than one try.
const CLEAN_UP: &str = "if [ -n \"$told\" ]; then kill -QUIT \"$told\"; n=0; while kill -0 \"$told\" && [ \"$n\" -lt 80 ]; do n=$((n+1)); sleep 0.1; done; kill -KILL \"$told\"; fi; n=0; until rm -rf -- \"$@\" || [ \"$n\" -ge 100 ]; do n=$((n+1)); sleep 0.1; done";

/// What a server is started with.
#[derive(Debug)]
pub(crate) struct StartRequest<'a> {
    /// The programs, of the major version that the folder is from.
    pub(crate) programs: &'a Programs,
    /// Who runs them.
    pub(crate) account: &'a Account,
    /// The restored folder. It has the signal file of a recovery if there shall be one; it, and the folders of its
    /// tablespaces, are below `scratch`.
    pub(crate) data: &'a Path,
    /// A folder of ours. If bkp is killed it is removed with everything in it.
    pub(crate) scratch: &'a Path,
    /// A superuser of the restored cluster, by the name that was recorded at capture.
    pub(crate) superuser: &'a str,
    /// Settings in addition, such as those of the recovery. They go before what bkp would set.
    pub(crate) settings: &'a [(String, String)],
}

/// How a recovery ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recovery {
    /// The server goes on as a primary.
    Finished,
    /// It waits at the target, and can be read from.
    Paused,
    /// It stopped itself at the target, as `recovery_target_action = shutdown` says.
    ShutDown,
}

/// A server of ours. It is stopped when this is dropped, or, by the watchdog, when we are killed.
#[derive(Debug)]
pub(crate) struct ThrowAway<'a> {
    request: StartRequest<'a>,
    child: Child,
    log: ServerLog,
    sockets: PrivateFolder,
    /// Whether the child was reaped: its number may be another's then.
    ended: Option<ExitStatus>,
    watchdog_input: File,
    /// Ended last, when nothing is left to be removed by it.
    _watchdog: Watchdog,
}

impl<'a> ThrowAway<'a> {
    /// Starts one. It answers a while later: see [`ThrowAway::wait_until_recovered`].
    ///
    /// # Errors
    /// [`Kind::Refused`] if the folder leads out of `scratch`; [`Kind::Failed`] if files cannot be made there;
    /// what starting the programs fails with.
    pub(crate) fn start(request: StartRequest<'a>, ctx: &Ctx) -> anyhow::Result<ThrowAway<'a>> {
        let StartRequest { programs, account, data, scratch, .. } = request;
        check_links(data, scratch)?;
        let watchdog = Watchdog::begin("", CLEAN_UP, &[scratch.as_os_str()])?;
        prepare(data)?;
        account.let_through(scratch)?;
        account.give(data)?;
        account.give_tablespaces(data)?;
        let control = ControlData::read(programs, account, data, scratch, ctx)?;
        let sockets = socket_folder(scratch)?;
        let config = write_settings(&request, &control, sockets.path())?;
        account.give(sockets.path())?;
        let log = ServerLog::create(scratch.join("server.log"))?;
        let watchdog_input = File::from(watchdog.input()?);
        let mut command = process::helper_command("/bin/sh");
        command.args(["-c", TELL_AND_BECOME]).arg(programs.path("postgres"));
        command.arg("-D").arg(data);
        command.arg("-c").arg(format!("config_file={}", config.display()));
        // Signals of our terminal are not for it.
        command.env("LC_ALL", "C").current_dir(scratch).process_group(0);
        command.stdin(Stdio::null()).stdout(watchdog_input.try_clone()?).stderr(log.output()?);
        let child = account.apply(&mut command).spawn()?;
        Ok(ThrowAway {
            request,
            child,
            log,
            sockets,
            ended: None,
            watchdog_input,
            _watchdog: watchdog,
        })
    }

    /// Waits until its recovery is at its end.
    ///
    /// # Errors
    /// What it says if it ends instead, or does not get there before `deadline`; that the run is to stop.
    pub(crate) fn wait_until_recovered(
        &mut self,
        deadline: Duration,
        ctx: &Ctx,
    ) -> anyhow::Result<Recovery> {
        self.wait("end its recovery", deadline, ctx, |server| {
            if server.ended.is_some_and(|status| status.success()) {
                return server.log.has("shutdown at recovery target").then_some(Recovery::ShutDown);
            }
            if server.log.has(IS_PRIMARY) {
                return Some(Recovery::Finished);
            }
            server.log.has("pausing at the end of recovery").then_some(Recovery::Paused)
        })
    }

    /// Looks at it until `found` says something, it ends or `deadline` is over.
    fn wait<T>(
        &mut self,
        what: &str,
        deadline: Duration,
        ctx: &Ctx,
        found: impl Fn(&ThrowAway<'a>) -> Option<T>,
    ) -> anyhow::Result<T> {
        let began = Instant::now();
        loop {
            let ended = self.has_ended()?;
            if let Some(found) = found(self) {
                return Ok(found);
            }
            // Then it waits for ever.
            if self.log.has("hot standby is not possible because of insufficient parameter") {
                return Err(self.log.failure("the restored server needs higher settings").into());
            }
            if let Some(status) = ended {
                return Err(self
                    .log
                    .failure(&format!("the restored server ended: {status}"))
                    .into());
            }
            if began.elapsed() > deadline {
                let seconds = deadline.as_secs();
                let late = format!("the restored server did not {what} in {seconds} s");
                return Err(self.log.failure(&late).into());
            }
            ctx.pause(PAUSE)?;
        }
    }

    /// How it ended, if it did.
    fn has_ended(&mut self) -> std::io::Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait()?;
            if self.ended.is_some() {
                self.forget();
            }
        }
        Ok(self.ended)
    }

    /// Has the watchdog forget its number, which may be another's now.
    fn forget(&mut self) {
        // Fails only if the watchdog is gone, and then nobody remembers.
        let _forgotten = self.watchdog_input.write_all(b"\n");
    }

    /// How libpq connects to it: by the socket, as a superuser, without a password.
    fn conninfo(&self, database: &str) -> String {
        let quoted = |text: &str| text.replace('\\', "\\\\").replace('\'', "\\'");
        let host = quoted(&self.sockets.path().display().to_string());
        let (user, database) = (quoted(self.request.superuser), quoted(database));
        format!("host='{host}' port={PORT} user='{user}' dbname='{database}'")
    }

    /// A connection to a database of it, which may say nothing for as long as `silence`.
    ///
    /// # Errors
    /// What the server or the connection fails with.
    pub(crate) fn connect(
        &self,
        database: &str,
        silence: Duration,
        ctx: &Ctx,
    ) -> anyhow::Result<Connection> {
        let surroundings = Surroundings { variable: &|_| None, home: None, user: String::new() };
        let conninfo = Conninfo::parse(&self.conninfo(database), &surroundings)?;
        let purpose = Purpose { replication: false, database: None, silence };
        Ok(Connection::connect(&conninfo, &purpose, ctx)?)
    }

    /// Runs a program beside it, such as `pg_amcheck`, that finds it by itself; returns what it wrote.
    ///
    /// # Errors
    /// As [`Programs::run`].
    pub(crate) fn run(&self, name: &str, words: &[&str], ctx: &Ctx) -> anyhow::Result<String> {
        let port = PORT.to_string();
        let host = self.sockets.path().display().to_string();
        let variables = [
            ("PGHOST", host.as_str()),
            ("PGPORT", &port),
            ("PGUSER", self.request.superuser),
            ("PGDATABASE", "postgres"),
        ];
        let task = Task { name, words, variables: &variables };
        self.request.programs.run(&task, self.request.account, self.request.scratch, ctx)
    }

    /// Stops it as an operator would, and looks whether it left the folder as a stopped server does. Programs
    /// that need such a folder, as `pg_checksums`, run after this.
    ///
    /// # Errors
    /// What it says if it does not end, or not well; that the run is to stop.
    pub(crate) fn stop_clean(&mut self, deadline: Duration, ctx: &Ctx) -> anyhow::Result<()> {
        if self.has_ended()?.is_none() {
            self.signal(Signal::INT);
        }
        let began = Instant::now();
        while self.has_ended()?.is_none() {
            if began.elapsed() > deadline {
                let late = format!("the restored server did not stop in {} s", deadline.as_secs());
                return Err(self.log.failure(&late).into());
            }
            ctx.pause(PAUSE)?;
        }
        if let Some(status) = self.ended.filter(|status| !status.success()) {
            return Err(self.log.failure(&format!("the restored server ended: {status}")).into());
        }
        let StartRequest { programs, account, data, scratch, .. } = self.request;
        let state = ControlData::read(programs, account, data, scratch, ctx)?.state;
        if ["shut down", "shut down in recovery"].contains(&state.as_str()) {
            return Ok(());
        }
        let message = format!("the restored server stopped, but its folder says `{state}`");
        Err(self.log.failure(&message).into())
    }

    /// Sends it a signal, if it was not reaped.
    fn signal(&self, signal: Signal) {
        if self.ended.is_none() {
            // Fails only if it has ended, and whoever waits for it sees that.
            let _sent = kill_process(Pid::from_child(&self.child), signal);
        }
    }
}

impl Drop for ThrowAway<'_> {
    fn drop(&mut self) {
        // Its processes are groups of their own, which it ends itself if it is told to drop everything.
        self.signal(Signal::QUIT);
        let patience = Duration::from_secs(QUIT_SECONDS);
        if self.ended.is_none() {
            let _status =
                process::wait_or_kill(&mut self.child, patience, process::KillScope::Group);
            self.forget();
        }
    }
}

/// Makes the folder of the socket: in `scratch`, or in the system's folder for temporary files where the path
/// would be too long for a socket.
fn socket_folder(scratch: &Path) -> Result<PrivateFolder, Fault> {
    let room = SOCKET_PATH_MAX - "/.s.PGSQL.5432.lock".len();
    let name = format!("bkp-{}", uuid::Uuid::now_v7().simple());
    let (near, far) = (scratch.join("socket"), Path::new("/tmp").join(name));
    // A comma would separate two folders.
    let is_good = near.as_os_str().len() <= room && !near.display().to_string().contains(',');
    PrivateFolder::create(if is_good { near } else { far })
}

/// Writes the settings of the server, and of who may connect: everybody who reaches the socket.
fn write_settings(
    request: &StartRequest<'_>,
    control: &ControlData,
    sockets: &Path,
) -> anyhow::Result<PathBuf> {
    let path = |name: &str| request.scratch.join(name);
    let (hba, ident) = (path("server.hba"), path("server.ident"));
    let own = [
        ("hba_file", hba.display().to_string()),
        ("ident_file", ident.display().to_string()),
        ("listen_addresses", String::new()),
        ("unix_socket_directories", sockets.display().to_string()),
        ("unix_socket_permissions", "0700".to_owned()),
        ("port", PORT.to_string()),
        ("archive_mode", "off".to_owned()),
        ("autovacuum", "off".to_owned()),
        ("fsync", "off".to_owned()),
        ("hot_standby", "on".to_owned()),
        ("lc_messages", "C".to_owned()),
        ("log_line_prefix", String::new()),
        ("logging_collector", "off".to_owned()),
        ("restart_after_crash", "off".to_owned()),
    ];
    let own = own.into_iter().map(|(name, value)| (name.to_owned(), value));
    // The last one counts.
    let all = own.chain(control.limits.iter().cloned()).chain(request.settings.iter().cloned());
    let lines = all.map(|(name, value)| format!("{name} = {}\n", quoted(&value)));
    let config = path("server.conf");
    write_private(&config, &lines.collect::<String>())?;
    write_private(&hba, "local all all trust\n")?;
    write_private(&ident, "")?;
    for file in [&config, &hba, &ident] {
        request.account.give(file)?;
    }
    Ok(config)
}

/// Makes the folder private, as the server wants it, and removes the settings that go before all others: they would
/// bring back what the restored server was told to do.
fn prepare(data: &Path) -> Result<(), Fault> {
    let mode = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(data, mode).map_err(|error| cannot("make private", data, &error))?;
    let settings = data.join("postgresql.auto.conf");
    match std::fs::remove_file(&settings) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(cannot("remove", &settings, &error))
        }
        _ => Ok(()),
    }
}

/// A value as the file of settings has it.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

/// Writes a file of ours that nobody else reads.
fn write_private(path: &Path, text: &str) -> Result<(), Fault> {
    let mut options = File::options();
    let opened = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    let written = opened.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| cannot("write", path, &error))
}

fn cannot(what: &str, path: &Path, error: &std::io::Error) -> Fault {
    let message = format!("cannot {what} {}: {error}", path.display());
    Fault::new(Kind::Failed, message).hint("make room, or make the folder writable for this user")
}

#[cfg(test)]
mod tests;
