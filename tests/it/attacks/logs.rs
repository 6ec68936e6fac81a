//! Replayed logs, and other users of the machine during the replay.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::bed::Bed;
use crate::support::books::Books;
use crate::support::logs::{PATIENCE, bed, spelled, window};
use crate::support::tb;

/// A restore of a log of mode query that takes a while, and the folder that its result goes to.
struct Replay {
    _folder: tempfile::TempDir,
    _server: tb::Server,
    bed: Bed,
}

fn replay() -> Replay {
    let folder = tempfile::tempdir().unwrap();
    let server = tb::Server::solo(folder.path());
    let address = server.address().to_owned();
    let bed = bed(server.data_file(), &address, "");
    let mut ledger = Books::begin(&address, 5);
    (0..20).for_each(|_| ledger.step());
    tb::fill(&address, &folder.path().join("record"), 8_000, 400_000);
    bed.run(&["logs", "asked"]).done();
    fs::create_dir(bed.path("restored")).unwrap();
    Replay { _folder: folder, _server: server, bed }
}

impl Replay {
    fn command(&self) -> Command {
        let until = window(&self.bed, "asked")["until_nanoseconds"].as_u64().unwrap();
        let target = self.bed.path("restored/file");
        let words = ["restore", "asked", "--at", &spelled(until), "--yes", "--json", "--to"];
        let mut command = self.bed.command(&[&words[..], &[target.to_str().unwrap()]].concat());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// The server's process and address, as soon as it runs.
    fn server(&self, restore: &mut Child) -> (String, String) {
        let folder = self.bed.path("restored");
        let began = Instant::now();
        loop {
            assert!(began.elapsed() < PATIENCE && restore.try_wait().unwrap().is_none());
            if let Some(found) = server_in(&folder) {
                return found;
            }
        }
    }
}

/// The process and the address of a server whose data file is in `folder`.
fn server_in(folder: &Path) -> Option<(String, String)> {
    for process in fs::read_dir("/proc").unwrap() {
        let path = process.unwrap().path();
        let words = fs::read(path.join("cmdline")).unwrap_or_default();
        let words: Vec<String> =
            String::from_utf8_lossy(&words).split('\0').map(str::to_owned).collect();
        let address = words.iter().find_map(|word| word.strip_prefix("--addresses="));
        if let Some(address) = address.filter(|_| {
            words.iter().any(|word| Path::new(word).starts_with(folder)) && words[1] == "start"
        }) {
            return Some((
                path.file_name().unwrap().to_str().unwrap().to_owned(),
                address.to_owned(),
            ));
        }
    }
    None
}

/// A client that adds an account and a transfer to whatever answers at an address, run by `runner`.
fn write_to(runner: &[&str], address: &str, folder: &Path) -> std::process::Output {
    let test = std::env::current_exe().unwrap();
    let load = test.parent().unwrap().parent().unwrap().join("examples/ledgerload");
    let record = folder.join("foreign");
    let words =
        ["load", "--cluster", &tb::CLUSTER.to_string(), "--addresses", address, "--timeout", "20"];
    let record = [
        "--record",
        record.to_str().unwrap(),
        "--batch",
        "1",
        "--clients",
        "1",
        "--transfers",
        "1",
    ];
    let words = [runner, &[load.to_str().unwrap()], &words, &record].concat();
    Command::new(words[0]).args(&words[1..]).stdin(Stdio::null()).output().unwrap()
}

/// Whoever may connect to loopback ports does not reach the server of a replay.
#[test]
fn nobody_else_reaches_the_server_of_a_replay() {
    let replay = replay();
    let mut restore = replay.command().spawn().unwrap();
    let (_, address) = replay.server(&mut restore);
    let began = Instant::now();
    while restore.try_wait().unwrap().is_none() {
        assert!(std::net::TcpStream::connect(&address).is_err(), "reached at {address}");
        assert!(began.elapsed() < PATIENCE);
    }
    let output = restore.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["notes"], Value::Array(vec![]), "{report}");
}

/// Whether somebody answers at an address before long.
fn listens(address: &str) -> bool {
    (0..50).any(|_| {
        std::thread::sleep(Duration::from_millis(100));
        std::net::TcpStream::connect(address).is_ok()
    })
}

/// What somebody adds who got there all the same is found, and nothing is restored.
#[test]
fn what_somebody_else_adds_to_a_replay_is_refused() {
    let replay = replay();
    // Without `unshare` there is no private network, and every user gets there.
    let folder = replay.bed.path("bin");
    fs::create_dir(&folder).unwrap();
    let mut command = replay.command();
    let tools = ["sh", "rm", "sleep"].map(|tool| (tool, Path::new("/bin").join(tool)));
    for (tool, path) in tools {
        std::os::unix::fs::symlink(path, folder.join(tool)).unwrap();
    }
    let mut restore = command.env("PATH", &folder).spawn().unwrap();
    let pid = restore.id().to_string();
    let tell = |signal: &str| {
        let told = Command::new("kill").args([signal, &pid]).status();
        assert!(told.unwrap().success());
    };
    // However long it takes to get in, the replay is not over before. A server whose port another test took is
    // started again by bkp, which has to run for that.
    let address = loop {
        let (_, address) = replay.server(&mut restore);
        tell("-STOP");
        if listens(&address) {
            break address;
        }
        tell("-CONT");
    };
    let written = write_to(&[], &address, replay.bed.path("").as_path());
    tell("-CONT");
    let output = restore.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
    assert_eq!(output.status.code(), Some(14), "{said}");
    assert!(said.contains("another client wrote"), "{said}");
    assert_eq!(fs::read_dir(replay.bed.path("restored")).unwrap().count(), 0);
}

/// Whoever gives the id of a segment, or of the snapshot before it, to something of another scope changes no
/// moment that is restored, and nothing of what is shipped next.
#[test]
fn a_second_name_for_an_id_changes_no_moment() {
    let folder = tempfile::tempdir().unwrap();
    let server = tb::Server::solo(folder.path());
    let address = server.address().to_owned();
    let bed = bed(server.data_file(), &address, "");
    let record = folder.path().join("record");
    bed.snapshot("full");
    for _ in 0..2 {
        tb::fill(&address, &record, 20, 2_000);
        bed.run(&["logs", "books"]).done();
    }
    let latest = |to: &str| {
        let words = ["restore", "books", "--at", "latest", "--yes", "--to", to];
        bed.json(&words)["op"].as_u64().unwrap()
    };
    let before = latest("before");
    for path in bed.stored() {
        let path = path.to_str().unwrap();
        if !path.ends_with(".manifest.json") {
            continue;
        }
        let own = if path.contains("/full/") { "full" } else { "incremental" };
        let text = fs::read_to_string(path).unwrap();
        for other in ["full", "incremental", "differential"].into_iter().filter(|one| *one != own) {
            let copy = path.replace(&format!("/{own}/"), &format!("/{other}/"));
            fs::create_dir_all(Path::new(&copy).parent().unwrap()).unwrap();
            let altered = text.replace(own, other);
            fs::write(copy, if other == "differential" { "{}".to_owned() } else { altered })
                .unwrap();
        }
    }
    assert_eq!(latest("after"), before);
    tb::fill(&address, &record, 20, 2_000);
    let shipped = bed.json(&["logs", "books"]);
    assert_eq!(shipped["shipped"], true, "{shipped}");
    assert_eq!(shipped["gap"], Value::Null, "{shipped}");
    assert!(latest("next") > before);
}
