//! Real `PostgreSQL` servers for tests, of every version that bkp knows.
//!
//! They listen on a socket of their own and on loopback, run as a user who is not root, and are stopped by
//! their own process id when dropped; what still runs when the tests end, is stopped then (`place`).
//! `examples/prepare.sh` gets the programs. Without them a test fails: a test that is skipped for want of a
//! server must be red.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail as tests do; clippy sees tests only in marked functions"
)]

use std::fmt::Write as _;
use std::fs::{self, File};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

pub(crate) mod access;
pub(crate) mod bed;
pub(crate) mod load;
pub(crate) mod place;
pub(crate) mod tenants;
pub(crate) mod tls;

use self::access::{Access, PASSWORD, REPLICATOR, SUPERUSER};
use super::machine::excused;
use super::ports;
use super::s3::tools;
use super::wait::{descendants, ended, is_alive, pause, until};

/// How long a server may take until it is ready, on a busy machine with much to replay.
const READY: Duration = Duration::from_mins(10);
/// Times that a server is started anew because another program took its port.
const PORT_TRIES: u32 = 5;
/// What every server is set to, unless the test says otherwise. Nothing here survives a failure of the whole
/// machine, which no test makes.
const SETTINGS: &[(&str, &str)] = &[
    ("wal_level", "replica"),
    ("max_wal_senders", "10"),
    ("max_wal_size", "64MB"),
    ("min_wal_size", "32MB"),
    // What a test reads right after it was written is still there.
    ("wal_keep_size", "256MB"),
    ("shared_buffers", "32MB"),
    ("fsync", "off"),
    ("log_checkpoints", "on"),
    ("timezone", "UTC"),
];

/// The versions, oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    V15 = 15,
    V16 = 16,
    V17 = 17,
    V18 = 18,
}

impl Version {
    pub(crate) const ALL: [Version; 4] = [Version::V15, Version::V16, Version::V17, Version::V18];

    /// All of them; one is left out only where the machine is excused from it.
    #[track_caller]
    pub(crate) fn all() -> Vec<Version> {
        Version::ALL.into_iter().filter(|version| version.is_here()).collect()
    }

    /// Every other one, for tests that take minutes; those beside them take [`Version::even`]. In long rounds all.
    #[track_caller]
    pub(crate) fn odd() -> Vec<Version> {
        Version::all()
            .into_iter()
            .filter(|version| is_long() || version.number() % 2 == 1)
            .collect()
    }

    /// The others.
    #[track_caller]
    pub(crate) fn even() -> Vec<Version> {
        Version::all()
            .into_iter()
            .filter(|version| is_long() || version.number() % 2 == 0)
            .collect()
    }

    /// The oldest, for tests of what no version does in its own way; `None` where the machine is excused from all.
    #[track_caller]
    pub(crate) fn any() -> Option<Version> {
        Version::ALL.into_iter().find(|version| version.is_here())
    }

    /// Whether its programs are there; fails if not, unless `BKP_TEST_WITHOUT` names `postgres-16` or the like.
    #[track_caller]
    pub(crate) fn is_here(self) -> bool {
        let program = tools().join(format!("postgres/{}/bin/postgres", self.number()));
        if !program.exists() {
            let why = format!("{} is missing: run tests/run.sh, which gets it", program.display());
            excused(&format!("postgres-{}", self.number()), &why);
        }
        program.exists()
    }

    pub(crate) fn number(self) -> u32 {
        self as u32
    }

    /// Whether it was built with TLS; two of the packages are not.
    pub(crate) fn has_tls(self) -> bool {
        matches!(self, Version::V15 | Version::V17)
    }

    /// Whether its package brings the extension that `pg_amcheck` needs.
    pub(crate) fn has_amcheck(self) -> bool {
        self != Version::V16
    }

    /// Whether it can tell which blocks have changed.
    pub(crate) fn summarizes(self) -> bool {
        self >= Version::V17
    }

    /// One of its programs, where the servers' user can run it.
    pub(crate) fn program(self, name: &str) -> PathBuf {
        place::installed(&self.number().to_string()).join("bin").join(name)
    }
}

fn is_long() -> bool {
    std::env::var_os("BKP_TEST_ROUNDS").is_some()
}

/// How a server differs from the usual one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    /// Settings, in the words of `postgresql.conf`. Of a new server they stand there, so that copies of it
    /// have them; to one that exists they are told when it is started, and its files stay as they are.
    pub(crate) settings: Vec<(String, String)>,
    /// More words for `initdb`.
    pub(crate) initdb: Vec<String>,
    /// Lines that `pg_hba.conf` begins with.
    pub(crate) hba: String,
    /// Whether it is reached by the loopback address with TLS, and not without.
    pub(crate) tls: bool,
}

impl Options {
    /// With these settings.
    pub(crate) fn of(settings: &[(&str, &str)]) -> Options {
        Options::default().and(settings)
    }

    /// With more settings.
    pub(crate) fn and(mut self, settings: &[(&str, &str)]) -> Options {
        let more = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.settings.extend(more);
        self
    }
}

/// How a server is stopped.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stop {
    /// Ends sessions, writes a checkpoint and archives what is left.
    Fast,
    /// Ends at once; the next start has to recover.
    Immediate,
}

/// A server. It may be stopped and started again; dropping it stops it and removes its folder.
#[derive(Debug)]
pub(crate) struct Postgres {
    access: Access,
    child: Option<Child>,
    /// Settings that it is told when it is started.
    told: Vec<(String, String)>,
}

impl Deref for Postgres {
    type Target = Access;

    fn deref(&self) -> &Access {
        &self.access
    }
}

/// The server of a version that tests share: they make databases and roles of their own in it, change no
/// setting and do not stop it.
pub(crate) fn shared(version: Version) -> &'static Postgres {
    static SERVERS: [OnceLock<Postgres>; 4] = [const { OnceLock::new() }; 4];
    let at = Version::ALL.iter().position(|one| *one == version).unwrap();
    SERVERS.get(at).unwrap().get_or_init(|| Postgres::start(version, &Options::default()))
}

impl Postgres {
    /// Makes a new server and starts it.
    pub(crate) fn start(version: Version, options: &Options) -> Postgres {
        let mut server = Postgres::at(version, place::home());
        let mut words = vec!["--pgdata", "data", "--username", SUPERUSER, "--encoding", "UTF8"];
        words.extend(["--data-checksums", "--auth", "trust", "--no-sync", "--no-instructions"]);
        words.extend(options.initdb.iter().map(String::as_str));
        server.run("initdb", &words).unwrap();
        server.configure(options);
        server.launch().unwrap_or_else(|log| panic!("{version:?} does not start: {log}"));
        server.sql(&format!(
            "create role {REPLICATOR} login replication password {}",
            literal(PASSWORD)
        ));
        server
    }

    /// Starts a server on what is in `home/data`, a folder from [`place::home`], after giving it to the user
    /// that servers run as. The log, if it does not start.
    pub(crate) fn try_adopt(
        version: Version,
        home: &Path,
        options: &Options,
    ) -> Result<Postgres, String> {
        place::own(home);
        let mut server = Postgres::at(version, home.to_owned());
        server.told.clone_from(&options.settings);
        server.launch()?;
        Ok(server)
    }

    #[track_caller]
    pub(crate) fn adopt(version: Version, home: &Path, options: &Options) -> Postgres {
        let server = Postgres::try_adopt(version, home, options);
        server.unwrap_or_else(|log| panic!("{version:?} does not start: {log}"))
    }

    fn at(version: Version, home: PathBuf) -> Postgres {
        let access = Access { version, home, port: ports::reserved() };
        Postgres { access, child: None, told: Vec::new() }
    }

    fn configure(&self, options: &Options) {
        let mut settings = String::new();
        let usual = SETTINGS.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let summaries = ("summarize_wal".to_owned(), "on".to_owned());
        let summaries = self.version.summarizes().then_some(summaries);
        let tls = if options.tls { tls::settings(&self.home) } else { Vec::new() };
        let all = usual.chain(summaries).chain(tls).chain(options.settings.iter().cloned());
        for (name, value) in all {
            writeln!(settings, "{name} = {}", in_file(&value)).unwrap();
        }
        append(&self.data().join("postgresql.conf"), &settings);
        let by_address = if options.tls { tls::HBA } else { HBA };
        let hba = format!("{}local all,replication all trust\n{by_address}", options.hba);
        write(&self.data().join("pg_hba.conf"), &hba);
    }

    /// Starts it on its folder and waits until it takes connections. The log, if it ends instead.
    pub(crate) fn launch(&mut self) -> Result<(), String> {
        for _ in 1..PORT_TRIES {
            self.spawn();
            match self.wait_ready() {
                Err(log) if log.contains("could not bind") && log.contains("in use") => {
                    self.access.port = ports::reserved();
                }
                outcome => return outcome,
            }
        }
        panic!("no free port for {}", self.home.display())
    }

    fn spawn(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let log = File::create(self.home.join("log")).unwrap();
        let mut command = self.program("postgres");
        command.arg("-D").arg(self.data());
        // Not in its files: a copy of them is another server.
        let own = [
            ("listen_addresses", "127.0.0.1".to_owned()),
            ("port", self.port.to_string()),
            ("unix_socket_directories", self.home.display().to_string()),
            ("external_pid_file", self.home.join("pid").display().to_string()),
        ];
        let own = own.map(|(name, value)| (name.to_owned(), value));
        for (name, value) in own.iter().chain(&self.told) {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    fn wait_ready(&mut self) -> Result<(), String> {
        let began = Instant::now();
        loop {
            if self.child.as_mut().unwrap().try_wait().unwrap().is_some() {
                self.child = None;
                return Err(self.log_text());
            }
            // Its eighth line says in which state the server is.
            let status = fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
            let is_own = status.lines().next() == Some(&*self.pid().as_raw_nonzero().to_string());
            if is_own && status.lines().nth(7).is_some_and(|line| line.trim() == "ready") {
                return Ok(());
            }
            assert!(began.elapsed() < READY, "not ready in time: {}", self.log_text());
            pause();
        }
    }

    /// The process of a server that runs; it has started all others.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(self.child.as_ref().unwrap())
    }

    /// The folder with its data.
    pub(crate) fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    /// What the server has said since it was last started.
    pub(crate) fn log_text(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.home.join("log")).unwrap()).into_owned()
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| child.try_wait().unwrap().is_some())
    }

    /// Stops it and waits for its end.
    pub(crate) fn stop(&mut self, how: Stop) {
        let signal = match how {
            Stop::Fast => Signal::INT,
            Stop::Immediate => Signal::QUIT,
        };
        let Some(mut child) = self.child.take() else { return };
        if child.try_wait().unwrap().is_none() {
            kill_process(Pid::from_child(&child), signal).unwrap();
        }
        ended(&mut child, &format!("the server in {}", self.home.display()));
    }

    /// Kills a server that runs with everything that it has started, as a failure of the machine would.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        let family = descendants(Pid::from_child(&child));
        child.kill().unwrap();
        child.wait().unwrap();
        for pid in &family {
            // Most end by themselves when the first of them is gone.
            let _gone = kill_process(*pid, Signal::KILL);
        }
        until("its processes are gone", || !family.iter().any(|pid| is_alive(*pid)));
    }

    /// Stops it and starts it again with these settings besides those that it has.
    pub(crate) fn restart(&mut self, how: Stop, settings: &[(&str, &str)]) {
        self.stop(how);
        self.told.extend(settings.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())));
        self.launch().unwrap_or_else(|log| panic!("it does not start again: {log}"));
    }

    /// Ends its recovery: a standby becomes a server with a timeline of its own.
    #[track_caller]
    pub(crate) fn promote(&self) {
        assert_eq!(self.sql("select pg_promote(true, 600)"), "t", "{}", self.log_text());
    }

    /// Makes a folder of the servers' user and a tablespace in it.
    pub(crate) fn tablespace(&self, name: &str) -> PathBuf {
        let folder = self.home.join(name);
        fs::create_dir(&folder).unwrap();
        place::own(&folder);
        self.sql(&format!("create tablespace {name} location {}", quoted(&folder)));
        folder
    }

    /// Copies it with its own tools to a new folder, where [`Postgres::adopt`] starts the copy.
    pub(crate) fn copy(&self, words: &[&str]) -> PathBuf {
        let home = place::home();
        let data = home.join("data");
        let mut all = vec!["--checkpoint=fast".to_owned(), "--no-sync".to_owned()];
        all.push(format!("--pgdata={}", data.display()));
        let spaces =
            "select pg_tablespace_location(oid) from pg_tablespace where spcname !~ '^pg_'";
        for space in self.sql(spaces).lines() {
            let name = Path::new(space).file_name().unwrap();
            all.push(format!("--tablespace-mapping={space}={}", home.join(name).display()));
        }
        all.extend(words.iter().map(|word| (*word).to_owned()));
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        self.run("pg_basebackup", &all).unwrap();
        home
    }

    /// A server that follows this one.
    pub(crate) fn standby(&self, options: &Options) -> Postgres {
        Postgres::adopt(self.version, &self.copy(&["--write-recovery-conf"]), options)
    }

    /// Waits until this standby has replayed all that `primary` has written by now.
    pub(crate) fn catch_up(&self, primary: &Access) {
        let end = primary.sql("select pg_current_wal_flush_lsn()");
        let reached = format!("select pg_last_wal_replay_lsn() >= '{end}'");
        until(&format!("the standby is at {end}"), || self.sql(&reached) == "t");
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop(Stop::Immediate);
        let _removed = fs::remove_dir_all(&self.home);
    }
}

/// Who may come by the loopback address.
const HBA: &str = "host all,replication all 127.0.0.1/32 scram-sha-256\n";

/// A literal of SQL.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A value in `postgresql.conf`.
fn in_file(text: &str) -> String {
    literal(&text.replace('\\', "\\\\"))
}

fn quoted(path: &Path) -> String {
    literal(path.to_str().unwrap())
}

fn append(path: &Path, text: &str) {
    write(path, &(fs::read_to_string(path).unwrap() + text));
}

/// Writes a file of the servers' user.
fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    place::own(path);
}
