//! The test bed: a folder with a configuration, a store and a key, in which the real program runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use bkp::config::settings::Flags;
use bkp::config::{Environment, Settings};
use bkp::ctx::{Cancel, Ctx, NullMonitor};
use bkp::store::layer::StoreLayer;
use bkp::wire::AppContext;
use serde_json::Value;
use tempfile::TempDir;

use super::fault::FaultPlan;

/// Owns everything that a test writes.
#[derive(Debug)]
pub(crate) struct Bed {
    folder: TempDir,
}

/// What a run of the program left.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Bed {
    /// A bed whose source `books` is the replica that writes `data_file`.
    pub(crate) fn new(data_file: &Path, addresses: &str) -> Bed {
        Bed::with(data_file, addresses, "")
    }

    /// The same with more lines in the source's table.
    pub(crate) fn with(data_file: &Path, addresses: &str, more: &str) -> Bed {
        Bed::of_source(&Bed::tables(data_file, addresses, more))
    }

    fn tables(data_file: &Path, addresses: &str, more: &str) -> String {
        let addresses: Vec<String> =
            addresses.split(',').filter(|a| !a.is_empty()).map(|a| format!("{a:?}")).collect();
        format!(
            "[tools]\ntigerbeetle = {program:?}\n[source.books]\nkind = \"tigerbeetle\"\ndata_file = {data_file:?}\naddresses = [{addresses}]\n{more}\n",
            program = super::tb::program(),
            addresses = addresses.join(", "),
        )
    }

    /// The same in memory, where the system has such a place: for tests that write very many files and in
    /// which nothing depends on what a disk does.
    pub(crate) fn in_memory(data_file: &Path) -> Bed {
        let memory = Path::new("/dev/shm");
        let folder =
            if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        Bed::in_folder(folder.unwrap(), &Bed::tables(data_file, "", ""))
    }

    /// A bed with these tables beside those of the store and the key.
    pub(crate) fn of_source(tables: &str) -> Bed {
        Bed::in_folder(tempfile::tempdir().unwrap(), tables)
    }

    fn in_folder(folder: TempDir, tables: &str) -> Bed {
        let bed = Bed { folder };
        let config = format!(
            "state_dir = \"state\"\n[store.main]\nurl = \"file://{store}\"\n[keys]\nrecipients = [\"file:key\"]\n{tables}",
            store = bed.path("store").display(),
        );
        fs::write(bed.path("bkp.toml"), config).unwrap();
        // It may hold the URLs of channels, which are secrets. Whoever writes it again keeps the mode.
        bed.chmod("bkp.toml", 0o600);
        fs::create_dir(bed.path("store")).unwrap();
        bed.run(&["keys", "generate"]).done();
        bed
    }

    /// Puts another store in place of the folder, given as the lines of its table.
    pub(crate) fn store_is(&self, table: &str) {
        let config = fs::read_to_string(self.path("bkp.toml")).unwrap();
        let url = format!("url = \"file://{}\"", self.path("store").display());
        assert!(config.contains(&url), "{config}");
        fs::write(self.path("bkp.toml"), config.replace(&url, table)).unwrap();
    }

    /// Seals what comes for these recipients, not for the key file.
    pub(crate) fn recipients_are(&self, recipients: &[&str]) {
        let config = fs::read_to_string(self.path("bkp.toml")).unwrap();
        let before = config.lines().find(|line| line.starts_with("recipients = ")).unwrap();
        let now = format!("recipients = {recipients:?}");
        fs::write(self.path("bkp.toml"), config.replace(before, &now)).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The program with this bed's configuration and nothing else of the environment.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = bare(self.folder.path(), words);
        command.env("BKP_CONFIG", self.path("bkp.toml"));
        command
    }

    /// What commands work with in this bed, for tests that call them directly.
    pub(crate) fn app(&self, faults: Option<FaultPlan>) -> AppContext {
        let config = self.path("bkp.toml");
        let environment = Environment::of([("BKP_CONFIG", config.to_str().unwrap())]);
        let settings = Settings::load(&Flags::default(), &environment).unwrap();
        let ctx = Ctx::new(Cancel::default(), Arc::new(NullMonitor));
        let layer = faults.map(|plan| Arc::new(plan) as Arc<dyn StoreLayer>);
        let ask = Arc::new(|_: &str, _: &str| Ok(None));
        AppContext { settings, ctx, confirm: Arc::new(|_| Ok(())), ask, layer }
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

    /// Takes a snapshot and returns its id.
    #[track_caller]
    pub(crate) fn snapshot(&self, scope: &str) -> String {
        let report = self.json(&["snapshot", "books", "--scope", scope]);
        report["manifest"]["id"].as_str().unwrap().to_owned()
    }

    /// Restores a backup to a new place and returns that place.
    #[track_caller]
    pub(crate) fn restore(&self, id: &str) -> PathBuf {
        let target = self.path(&format!("restored-{id}.tigerbeetle"));
        self.run(&["restore", "--id", id, "--to", target.to_str().unwrap(), "--yes"]).done();
        target
    }

    /// The path of the only file of a backup whose name ends so.
    #[track_caller]
    pub(crate) fn object(&self, id: &str, ending: &str) -> PathBuf {
        let ending = format!("{id}.{ending}");
        let mut found = files(&self.path("store")).into_iter();
        found.find(|path| path.to_str().unwrap().ends_with(&ending)).unwrap()
    }

    /// Every file in the store, hidden ones too, but no leases and nothing about what was done: a run
    /// leaves those whatever it does.
    pub(crate) fn stored(&self) -> Vec<PathBuf> {
        let mut found = files(&self.path("store"));
        let aside = ["store/leases", "store/audit"].map(|folder| self.path(folder));
        found.retain(|path| !aside.iter().any(|folder| path.starts_with(folder)));
        found
    }

    /// What the store has on record of this, besides runs of jobs.
    pub(crate) fn noted(&self, what: &str) -> Vec<PathBuf> {
        let mut found = files(&self.path("store/audit"));
        let name = format!("{what}-");
        found.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&name));
        found
    }

    /// Adds a ledger, and a time for leases.
    pub(crate) fn set_ledger(&self, addresses: &str, lease: &str, more: &str) {
        let config = fs::read_to_string(self.path("bkp.toml")).unwrap();
        let config = config.split("[ledger]").next().unwrap();
        let config = config.split_once("state_dir").unwrap().1;
        let ledger = format!(
            "[ledger]\ncluster = \"{}\"\naddresses = [{addresses:?}]\n{more}\n",
            super::tb::CLUSTER
        );
        let ledger = if addresses.is_empty() { "" } else { &ledger };
        let text = format!("lease = \"{lease}\"\nstate_dir{config}{ledger}");
        fs::write(self.path("bkp.toml"), text).unwrap();
    }

    /// The program as another host would run it: the same configuration, a state directory of its
    /// own.
    pub(crate) fn on_host(&self, host: usize, words: &[&str]) -> Command {
        let name = format!("host-{host}.toml");
        let config = fs::read_to_string(self.path("bkp.toml")).unwrap();
        let state = format!("state_dir = \"state-{host}\"");
        fs::write(self.path(&name), config.replace("state_dir = \"state\"", &state)).unwrap();
        self.chmod(&name, 0o600);
        let mut command = self.command(words);
        command.env("BKP_CONFIG", self.path(&name));
        command
    }
}

/// The program in an empty environment, in `folder`.
pub(crate) fn bare(folder: &Path, words: &[&str]) -> Command {
    super::wait::watch();
    let mut command = Command::new(env!("CARGO_BIN_EXE_bkp"));
    command.args(words).current_dir(folder).env_clear().stdin(Stdio::null());
    command.env("HOME", folder).env("PATH", "/usr/bin:/bin");
    command
}

/// `bkp init` in `folder`, for the user who runs the tests.
pub(crate) fn init(folder: &Path, words: &[&str]) -> Command {
    let mut words = [&["init"], words].concat();
    if rustix::process::geteuid().is_root() {
        words.extend(["--user", "root"]);
    }
    let mut command = bare(folder, &words);
    command.env("STATE_DIRECTORY", folder.join("state"));
    command
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(items) = fs::read_dir(folder) else { return Vec::new() };
    let mut found = Vec::new();
    for item in items {
        let path = item.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

impl Run {
    pub(crate) fn of(output: &Output) -> Run {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        Run { code: output.status.code(), stdout, stderr }
    }

    /// It succeeded.
    #[track_caller]
    pub(crate) fn done(self) -> Run {
        assert_eq!(self.code, Some(0), "{}{}", self.stdout, self.stderr);
        self
    }

    /// It ended with this code and said so in its report.
    #[track_caller]
    pub(crate) fn failed_in_text(self, code: i32, naming: &str) -> Run {
        assert_eq!(self.code, Some(code), "{}{}", self.stdout, self.stderr);
        assert!(self.stdout.contains(naming), "`{naming}` is not in: {}", self.stdout);
        self
    }

    /// It failed with this code, named this thing, and gave a hint.
    #[track_caller]
    pub(crate) fn failed(self, code: i32, naming: &str) -> Run {
        assert_eq!(self.code, Some(code), "{}{}", self.stdout, self.stderr);
        assert!(self.stderr.contains(naming), "`{naming}` is not in: {}", self.stderr);
        assert!(self.stderr.contains("hint:"), "no hint in: {}", self.stderr);
        self
    }
}

impl Bed {
    /// As [`Bed::restore`], replacing an earlier restore of the same backup.
    #[track_caller]
    pub(crate) fn restore_again(&self, id: &str) -> PathBuf {
        let target = self.path(&format!("restored-{id}.tigerbeetle"));
        if target.exists() {
            fs::remove_file(&target).unwrap();
        }
        self.restore(id)
    }

    pub(crate) fn chmod(&self, name: &str, mode: u32) {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }
}
