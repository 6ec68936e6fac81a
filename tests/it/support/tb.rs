//! Real `TigerBeetle` servers for tests: started on loopback in a temporary folder, loaded, checked
//! with `ledgerload` (see `examples/`), and stopped by their own process id when dropped.
//!
//! The server's program comes from `BKP_TEST_TIGERBEETLE`, which `tests/run.sh` sets. Without it a
//! test that needs a server fails: a test that is skipped for want of a server must be red.
#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail as tests do; clippy sees tests only in marked functions"
)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use super::wait::{ended, pause};
use super::{headroom, ports};

/// The cluster id of every server here.
pub(crate) const CLUSTER: u128 = 7;
/// How long a server may take until it is ready; opening reads 1 GiB of log on a busy machine.
const READY_SECONDS: u64 = 120;
/// How long `ledgerload` waits for an answer: a change of view on a busy machine can take minutes.
const ANSWER_SECONDS: u64 = 300;
/// What a server takes less memory with than the 2.4 GiB, all of it touched at once, that it takes with
/// its defaults: many run at a time here. None of it changes what a server writes.
const SMALL: [&str; 4] = [
    "--experimental",
    "--cache-grid=64MiB",
    "--cache-accounts=1MiB",
    "--memory-lsm-manifest=16MiB",
];
/// What a test with one server takes of memory, KiB: 1.9 GiB for it, 2.3 GiB for one of bkp's beside it, which
/// restores or drills, and as much for their files, which may be in memory.
const SOLO_KIB: u64 = 6 << 20;
/// The same of a test with a cluster of three, KiB.
const CLUSTER_KIB: u64 = 11 << 20;
/// Times that a server is started anew because another program took its port.
const PORT_TRIES: u32 = 5;

/// A replica that runs. Dropping it kills it; its data file stays.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    data_file: PathBuf,
    addresses: String,
    log: PathBuf,
}

impl Server {
    /// Formats a data file for a cluster of one in `folder` and starts the server on it.
    pub(crate) fn solo(folder: &Path) -> Server {
        let data_file = folder.join("0_0.tigerbeetle");
        format(&data_file, 0, 1);
        Server::start_existing(&data_file)
    }

    /// Starts a server on a data file of a cluster of one, and waits until it is ready.
    pub(crate) fn start_existing(data_file: &Path) -> Server {
        for _ in 1..PORT_TRIES {
            let mut server = Server::spawn(data_file, &free_addresses(1), 0);
            if server.wait_ready() {
                return server;
            }
            let log = server.log_text();
            assert!(log.contains("AddressInUse"), "the server does not start: {}", tail(&log));
        }
        panic!("no free port for {}", data_file.display());
    }

    /// Starts a server and does not wait for it: to see it fail, or as one of several replicas.
    pub(crate) fn spawn(data_file: &Path, addresses: &str, replica: usize) -> Server {
        let log = data_file.with_extension(format!("{replica}.log"));
        let output = File::create(&log).unwrap();
        headroom::take(SOLO_KIB);
        let child = Command::new(program())
            .arg("start")
            .args(SMALL)
            .arg(format!("--addresses={addresses}"))
            .arg(data_file)
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        let (data_file, addresses) = (data_file.to_owned(), addresses.to_owned());
        Server { child, data_file, addresses, log }
    }

    /// Starts a server on a file that may be broken; `None` if it ends or is not ready in `patience`.
    pub(crate) fn start_broken(data_file: &Path, patience: Duration) -> Option<Server> {
        let mut server = Server::spawn(data_file, &free_addresses(1), 0);
        let began = Instant::now();
        while began.elapsed() < patience && server.child.try_wait().unwrap().is_none() {
            if server.log_text().contains("transition_to_normal") {
                return Some(server);
            }
            pause();
        }
        None
    }

    /// Waits until it listens and is ready to take part; false if it ended instead.
    ///
    /// Its log says both; the port is asked as well, because that is what clients will do.
    pub(crate) fn wait_ready(&mut self) -> bool {
        let began = Instant::now();
        loop {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            let log = self.log_text();
            let listening = log.split_once(": listening on ").map(|(_, rest)| rest);
            if let Some(address) = listening.and_then(|rest| rest.lines().next())
                && log.contains("transition_to_normal")
                && TcpStream::connect(address.trim()).is_ok()
            {
                return true;
            }
            let waited = began.elapsed();
            assert!(waited.as_secs() < READY_SECONDS, "not ready in time: {}", tail(&log));
            pause();
        }
    }

    /// Its process.
    pub(crate) fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    /// The data file; it stays when the server is gone.
    pub(crate) fn data_file(&self) -> &Path {
        &self.data_file
    }

    /// The addresses of the cluster, as `--addresses` and bkp's configuration take them.
    pub(crate) fn address(&self) -> &str {
        &self.addresses
    }

    /// What the server has said so far.
    pub(crate) fn log_text(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap()).into_owned()
    }

    /// Kills it and waits until it is gone. `TigerBeetle` has no other way to be stopped: its data
    /// file is in order at any moment.
    pub(crate) fn stop(mut self) -> PathBuf {
        self.end();
        self.data_file.clone()
    }

    fn end(&mut self) {
        // Fails only if the server ended already; then there is nothing left to do.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// A cluster of three replicas.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// The replicas, by index.
    pub(crate) replicas: Vec<Server>,
}

impl Cluster {
    /// Formats three data files in `folder` and starts the replicas.
    pub(crate) fn of_three(folder: &Path) -> Cluster {
        let files: Vec<PathBuf> =
            (0..3).map(|replica| folder.join(format!("0_{replica}.tigerbeetle"))).collect();
        for (replica, file) in files.iter().enumerate() {
            format(file, replica, 3);
        }
        Cluster::start_existing(&files)
    }

    /// Starts one replica on each of the data files, in the order of their replica numbers.
    pub(crate) fn start_existing(files: &[PathBuf]) -> Cluster {
        headroom::take(CLUSTER_KIB);
        for _ in 1..PORT_TRIES {
            let addresses = free_addresses(files.len());
            let spawn =
                |(replica, file): (usize, &PathBuf)| Server::spawn(file, &addresses, replica);
            let mut replicas: Vec<Server> = files.iter().enumerate().map(spawn).collect();
            let Some(failed) = replicas.iter_mut().position(|replica| !replica.wait_ready()) else {
                return Cluster { replicas };
            };
            let log = replicas[failed].log_text();
            assert!(log.contains("AddressInUse"), "replica {failed} fails: {}", tail(&log));
        }
        panic!("no free ports for {files:?}");
    }

    /// The addresses of all replicas.
    pub(crate) fn address(&self) -> &str {
        self.replicas[0].address()
    }
}

/// A data file as the server formats it; `replica_count` is that of its cluster.
///
/// The server reserves 1.1 GiB for it, of which it writes 5 MiB. The rest are holes here, so that a hundred of them
/// take no room; each is formatted once and copied then.
pub(crate) fn format(data_file: &Path, replica: usize, replica_count: usize) {
    static FORMATTED: Mutex<BTreeMap<(usize, usize), PathBuf>> = Mutex::new(BTreeMap::new());
    let sparse_copy = |from: &Path, to: &Path| {
        let mut copy = Command::new("cp");
        let status = copy.args(["--sparse=always", "--"]).args([from, to]).status().unwrap();
        assert!(status.success(), "cp: {status}");
    };
    let mut formatted = FORMATTED.lock().unwrap();
    let template = formatted.entry((replica, replica_count)).or_insert_with(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("formatted");
        fs::create_dir_all(&folder).unwrap();
        let template = folder.join(format!("{replica}-of-{replica_count}.tigerbeetle"));
        let new = data_file.with_extension("new");
        format_anew(&new, replica, replica_count);
        // Another process may look for it now.
        let copied = folder.join(std::process::id().to_string());
        sparse_copy(&new, &copied);
        fs::rename(copied, &template).unwrap();
        fs::remove_file(new).unwrap();
        template
    });
    sparse_copy(template, data_file);
}

fn format_anew(data_file: &Path, replica: usize, replica_count: usize) {
    let output = Command::new(program())
        .arg("format")
        .arg(format!("--cluster={CLUSTER}"))
        .arg(format!("--replica={replica}"))
        .arg(format!("--replica-count={replica_count}"))
        .arg(data_file)
        .output()
        .unwrap();
    assert!(output.status.success(), "format: {}", String::from_utf8_lossy(&output.stderr));
}

/// Changes fields of the superblock in every copy, and makes the checksum right again.
pub(crate) fn rewrite_superblock(path: &Path, fields: &[(usize, &[u8])]) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    for copy in 0..4_u64 {
        let mut header = vec![0; 8192];
        file.read_exact_at(&mut header, copy * 24576).unwrap();
        for (at, bytes) in fields {
            header[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        let hasher = aegis::aegis128l::Aegis128L::<16>::new(&[0; 16], &[0; 16]);
        let (_, sum) = hasher.encrypt(&[], &header[34..]);
        header[..16].copy_from_slice(&sum);
        file.write_all_at(&header, copy * 24576).unwrap();
    }
}

/// What a load writes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Volume {
    /// Transfers per batch, at most 8189. Small batches make many checkpoints.
    pub(crate) batch: u32,
    /// Clients at the same time. Each takes one of the cluster's 64 sessions for good.
    pub(crate) clients: u32,
    /// Transfers of all clients together; `None` until it is stopped.
    pub(crate) transfers: Option<u64>,
}

/// A load that runs in the background. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Load {
    child: Child,
}

/// Starts a load that appends what was acknowledged to `record`, and returns when the first batch
/// was.
pub(crate) fn load(addresses: &str, record: &Path, volume: Volume) -> Load {
    let mut command = ledgerload("load", addresses);
    command.arg("--record").arg(record);
    command.args(["--batch", &volume.batch.to_string()]);
    command.args(["--clients", &volume.clients.to_string()]);
    match volume.transfers {
        Some(transfers) => command.args(["--transfers", &transfers.to_string()]),
        None => command.args(["--seconds", "3600"]),
    };
    let size = || fs::metadata(record).map_or(0, |metadata| metadata.len());
    let size_before = size();
    let mut load = Load { child: command.stdout(Stdio::null()).spawn().unwrap() };
    while size() == size_before {
        if let Some(status) = load.child.try_wait().unwrap() {
            assert!(status.success(), "ledgerload load: {status}");
            break;
        }
        pause();
    }
    load
}

impl Load {
    /// Asks it to finish its batches and to end, and waits for that.
    pub(crate) fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        if self.child.try_wait().unwrap().is_none() {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        }
        let status = ended(&mut self.child, "ledgerload");
        assert!(status.success(), "ledgerload load: {status}");
    }

    /// Waits until it has written all its transfers.
    pub(crate) fn wait(mut self) {
        let status = self.child.wait().unwrap();
        assert!(status.success(), "ledgerload load: {status}");
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // Fails only if the load ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Writes that many transfers in batches of that size by two clients, and waits for it.
pub(crate) fn fill(addresses: &str, record: &Path, batch: u32, transfers: u64) {
    load(addresses, record, Volume { batch, clients: 2, transfers: Some(transfers) }).wait();
}

/// Which ids a check looks up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ids {
    /// The last one and 200 random earlier ones of each stream.
    Sample,
    /// All of them.
    Every,
}

/// Checks that a server holds everything that was acknowledged before `before` (Unix seconds), that
/// its books balance and that it takes a write; returns what was found.
#[track_caller]
pub(crate) fn check(addresses: &str, record: &Path, before: f64, ids: Ids) -> Value {
    let mut command = ledgerload("check", addresses);
    command.arg("--record").arg(record).args(["--before", &before.to_string()]);
    if ids == Ids::Every {
        command.arg("--every");
    }
    let (status, found) = answer(&mut command);
    assert!(status.success(), "ledgerload check: {status}: {found}\n{}", servers());
    found
}

/// As [`check`], but returns what was found even if it is wrong: for tests of broken copies.
pub(crate) fn try_check(addresses: &str, record: &Path, before: f64) -> (ExitStatus, Value) {
    let mut command = ledgerload("check", addresses);
    answer(command.arg("--record").arg(record).args(["--before", &before.to_string()]))
}

/// Sums over all accounts: `accounts`, `debits_posted`, `credits_posted` and the pending ones.
#[track_caller]
pub(crate) fn totals(addresses: &str) -> Value {
    let (status, found) = answer(&mut ledgerload("totals", addresses));
    assert!(status.success(), "ledgerload totals: {status}: {found}\n{}", servers());
    found
}

/// The time now in Unix seconds, for the `before` of a check.
#[expect(clippy::disallowed_methods, reason = "compared with what another process recorded")]
pub(crate) fn unix_time() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64()
}

/// What runs beside a test that failed, and how much memory is left: a server that does not answer may have been
/// ended by the system.
fn servers() -> String {
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let told = |line: &&str| line.starts_with("MemAvailable:") || line.starts_with("Shmem:");
    let mut found: Vec<String> = memory.lines().filter(told).map(str::to_owned).collect();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let words = fs::read_to_string(process.path().join("cmdline")).unwrap_or_default();
        if words.contains("tigerbeetle") && words.contains("start") {
            let pid = process.file_name().to_string_lossy().into_owned();
            found.push(format!("{pid}: {}", words.replace('\0', " ")));
        }
    }
    found.join("\n")
}

/// Runs `ledgerload` and reads the line of JSON that it prints; `null` if it printed none.
fn answer(command: &mut Command) -> (ExitStatus, Value) {
    let output = command.output().unwrap();
    let found = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| {
        Value::String(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    });
    (output.status, found)
}

fn ledgerload(task: &str, addresses: &str) -> Command {
    let test = std::env::current_exe().unwrap();
    // The test is in `deps`, and cargo puts examples in `examples` beside it.
    let path = test.parent().and_then(Path::parent).unwrap().join("examples/ledgerload");
    assert!(path.is_file(), "{} is missing: run tests/run.sh", path.display());
    let mut command = Command::new(path);
    command.args([task, "--addresses", addresses, "--cluster", &CLUSTER.to_string()]);
    command.args(["--timeout", &ANSWER_SECONDS.to_string()]).stdin(Stdio::null());
    command
}

/// The server's program.
#[expect(clippy::disallowed_methods, reason = "tests are told of their tools by the environment")]
pub(crate) fn program() -> PathBuf {
    let Some(path) = std::env::var_os("BKP_TEST_TIGERBEETLE") else {
        panic!(
            "BKP_TEST_TIGERBEETLE is not set, and this test needs a TigerBeetle server: run the \
             tests with tests/run.sh, which builds one"
        )
    };
    let path = PathBuf::from(path);
    assert!(path.is_file(), "BKP_TEST_TIGERBEETLE: no such file: {}", path.display());
    path
}

/// Addresses that are free, and stay so while the servers on them are stopped.
fn free_addresses(count: usize) -> String {
    let address = |_| format!("{}:{}", Ipv4Addr::LOCALHOST, ports::reserved());
    (0..count).map(address).collect::<Vec<_>>().join(",")
}

/// The end of a log, for messages.
fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}

/// A replica with some history, so that captures take longer than an instant.
pub(crate) fn busy_replica(folder: &Path) -> (Server, PathBuf) {
    let server = Server::solo(folder);
    let record = folder.join("record");
    fill(server.address(), &record, 1000, 200_000);
    (server, record)
}
