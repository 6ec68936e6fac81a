//! The test bed of servers: a store, a key and a configuration in a folder of the servers' user, who runs
//! the program there as `archive_command` and as an operator.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::access::{Access, PASSWORD, REPLICATOR};
use super::{Options, Postgres, Version, place};
use crate::support::bed::Run;
use crate::support::s3::Service;
use crate::support::wait::{pause, until, watch};

/// How long something may take that is waited for, on a busy machine.
const PATIENCE: Duration = Duration::from_mins(10);

/// Owns everything that a test writes beside its servers.
#[derive(Debug)]
pub(crate) struct PostgresBed {
    folder: PathBuf,
}

/// What a restored server is not to do: archive what is not its own.
pub(crate) const NO_ARCHIVE: &[(&str, &str)] = &[("archive_mode", "off")];

impl PostgresBed {
    /// A bed without a source, whose hook a server can be given already.
    pub(crate) fn new() -> PostgresBed {
        watch();
        let bed = PostgresBed { folder: place::home() };
        fs::create_dir(bed.path("store")).unwrap();
        bed.configure("");
        bed.write("password", PASSWORD);
        place::own(&bed.folder);
        bed.run(&["keys", "generate"]).done();
        bed
    }

    /// A bed whose source `pg` is this server, with more lines in its table.
    pub(crate) fn of(server: &Access, more: &str) -> PostgresBed {
        let bed = PostgresBed::new();
        bed.serve(server, more);
        bed
    }

    /// A server that archives into a new bed.
    pub(crate) fn archiving(version: Version, more: &str) -> (Postgres, PostgresBed) {
        let bed = PostgresBed::new();
        let server = Postgres::start(version, &bed.options());
        bed.serve(&server, more);
        (server, bed)
    }

    /// What makes a server archive into the bed.
    pub(crate) fn options(&self) -> Options {
        let push = self.hook("--push %p");
        Options::of(&[("archive_mode", "on"), ("archive_command", &push), ("wal_keep_size", "1GB")])
    }

    /// The command of a hook.
    pub(crate) fn hook(&self, words: &str) -> String {
        let (program, config) = (place::bkp(), self.path("bkp.toml"));
        format!("{} --config {} logs pg {words}", program.display(), config.display())
    }

    /// Makes a server the source `pg`: by the role that may only copy it, with a password, at its address.
    pub(crate) fn serve(&self, server: &Access, more: &str) {
        let address = format!("host=127.0.0.1 port={} user={REPLICATOR}", server.port());
        self.source(&format!("conninfo = {address:?}\npassword = \"file:password\"\n{more}"));
    }

    /// Makes `pg` a source with these lines in its table.
    pub(crate) fn source(&self, lines: &str) {
        let fast = if lines.contains("checkpoint") { "" } else { "checkpoint = \"fast\"\n" };
        // What stands last may be a table of its own.
        self.configure(&format!("[source.pg]\nkind = \"postgres\"\n{fast}{lines}\n"));
    }

    fn configure(&self, tables: &str) {
        let store = self.path("store");
        self.write(
            "bkp.toml",
            &format!(
                "state_dir = \"state\"\n[store.main]\nurl = \"file://{}\"\n[keys]\nrecipients = [\"file:key\"]\n{tables}",
                store.display()
            ),
        );
    }

    /// From here on the store is one in a bucket, reached at `endpoint`.
    pub(crate) fn move_to_bucket(&self, service: &Service, endpoint: &str) {
        self.write("credentials", &fs::read_to_string(service.credentials()).unwrap());
        let table = service.table_at(endpoint, "backups", "retry_seconds = 1");
        let theirs = format!("{:?}", service.credentials());
        let table = table.replace(&theirs, &format!("{:?}", self.path("credentials")));
        let config = fs::read_to_string(self.path("bkp.toml")).unwrap();
        let local = format!("url = \"file://{}\"", self.path("store").display());
        assert!(config.contains(&local), "{config}");
        self.write("bkp.toml", &config.replace(&local, &table));
    }

    /// Writes a private file of the servers' user.
    pub(crate) fn write(&self, name: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        place::own(&path);
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The program as the servers' user, in a folder of theirs.
    pub(crate) fn command_in(&self, folder: &Path, words: &[&str]) -> Command {
        let mut command = place::as_user(&place::bkp(), folder);
        command.env("BKP_CONFIG", self.path("bkp.toml")).args(words);
        command
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        self.command_in(&self.folder, words)
    }

    pub(crate) fn run(&self, words: &[&str]) -> Run {
        Run::of(&self.command(words).output().unwrap())
    }

    /// Runs with `--json` and returns the report.
    #[track_caller]
    pub(crate) fn json(&self, words: &[&str]) -> Value {
        let words: Vec<&str> = words.iter().copied().chain(["--json"]).collect();
        serde_json::from_str(&self.run(&words).done().stdout).unwrap()
    }

    /// Takes a base backup and returns its manifest.
    #[track_caller]
    pub(crate) fn snapshot(&self, scope: &str) -> Value {
        self.json(&["snapshot", "pg", "--scope", scope])["manifest"].clone()
    }

    /// Restores a backup, or a moment, to a new folder, which has `data` in it then.
    #[track_caller]
    pub(crate) fn restore(&self, what: &[&str]) -> PathBuf {
        let home = place::home();
        let data = home.join("data");
        let words = [&["restore", "--yes", "--to", data.to_str().unwrap()], what].concat();
        self.run(&words).done();
        home
    }

    /// Runs what a server would run with this `%p`, as it would, in its data folder.
    pub(crate) fn push(&self, data: &Path, path: &str) -> Run {
        let command = self.command_in(data, &["logs", "pg", "--push", path]).output();
        Run::of(&command.unwrap())
    }

    /// Runs what a recovering server would run with these `%f` and `%p`.
    pub(crate) fn fetch(&self, data: &Path, file: &str, path: &str) -> Run {
        let command = self.command_in(data, &["logs", "pg", "--fetch", file, path]).output();
        Run::of(&command.unwrap())
    }

    /// The object of an archived file, whether it is there or not.
    pub(crate) fn object(&self, system: &str, file: &str) -> PathBuf {
        let folder = self.path("store/postgres/pg/wal").join(system);
        if file.ends_with(".history") {
            return folder.join(format!("{file}.enc"));
        }
        folder.join(file.get(..8).unwrap()).join(format!("{file}.zst.enc"))
    }

    /// Has the server finish its segment, and waits until that is archived. Its name.
    #[track_caller]
    pub(crate) fn archived(&self, server: &Access) -> String {
        let name = switched(server);
        let object = self.object(&system(server), &name);
        until("a segment is archived", || object.exists());
        name
    }

    /// Ships what is archived, however many manifests that takes.
    #[track_caller]
    pub(crate) fn ship(&self) {
        while self.json(&["logs", "pg"])["shipped"] == true {}
    }

    /// The manifests of backups in the store.
    pub(crate) fn manifests(&self) -> Vec<PathBuf> {
        let listed = files(&self.path("store")).into_iter();
        listed.filter(|path| path.to_str().is_some_and(|path| path.contains("manifest"))).collect()
    }
}

impl Drop for PostgresBed {
    fn drop(&mut self) {
        let _removed = fs::remove_dir_all(&self.folder);
    }
}

/// Ends the segment that the server writes to, which has something in it. Its name.
#[track_caller]
pub(crate) fn switched(server: &Access) -> String {
    let told = server.sql(
        "select txid_current();\nselect pg_walfile_name(pg_current_wal_insert_lsn());\nselect pg_switch_wal()",
    );
    told.lines().nth(1).unwrap().to_owned()
}

/// The number of a cluster, which its log is called by.
pub(crate) fn system(server: &Access) -> String {
    server.sql("select system_identifier from pg_control_system()")
}

/// Every file below a folder.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(items) = fs::read_dir(folder) else { return Vec::new() };
    let mut found = Vec::new();
    for path in items.map(|item| item.unwrap().path()) {
        if path.is_dir() && !path.is_symlink() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Starts a server on a restored folder and waits until its recovery is over. The log, if it ends instead.
pub(crate) fn recovered(
    version: Version,
    home: &Path,
    options: &Options,
) -> Result<Postgres, String> {
    let mut server = Postgres::try_adopt(version, home, options)?;
    let began = Instant::now();
    loop {
        match server.try_sql("postgres", "select pg_is_in_recovery()") {
            Ok(answer) if answer == "f" => return Ok(server),
            Err(_) if server.has_ended() => return Err(server.log_text()),
            Ok(_) | Err(_) => {}
        }
        assert!(began.elapsed() < PATIENCE, "still in recovery: {}", server.log_text());
        pause();
    }
}

/// How often something random is tried, where nobody says: `BKP_TEST_ROUNDS`.
pub(crate) fn rounds(usual: usize) -> usize {
    std::env::var("BKP_TEST_ROUNDS").map_or(usual, |text| text.parse().unwrap())
}
