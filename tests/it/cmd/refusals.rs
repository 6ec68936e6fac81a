//! Failure is honest: every failure has its exit code, names its subject, and leaves nothing behind.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Signal};

use crate::support::bed::{Bed, Run, bare};
use crate::support::tb;

/// A data file with a few checkpoints in it, and no server.
fn quiet_file(folder: &Path) -> PathBuf {
    let server = tb::Server::solo(folder);
    tb::fill(server.address(), &folder.join("record"), 100, 250_000);
    server.stop()
}

#[test]
fn a_missing_data_file_is_a_source_error() {
    let folder = tempfile::tempdir().unwrap();
    let bed = Bed::new(&folder.path().join("absent.tigerbeetle"), "");
    bed.run(&["snapshot", "books"]).failed(15, "absent.tigerbeetle");
    assert_eq!(bed.stored(), Vec::<PathBuf>::new());
}

#[test]
fn a_file_that_is_no_data_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, vec![7; 4 << 20]).unwrap();
    let bed = Bed::new(&path, "");
    bed.run(&["snapshot", "books"]).failed(15, "not a TigerBeetle data file");
}

#[test]
fn files_of_other_layouts_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("0_0.tigerbeetle");
    tb::format(&file, 0, 1);
    let bed = Bed::new(&file, "");
    bed.run(&["snapshot", "books"]).done();
    tb::rewrite_superblock(&file, &[(708, &(15_u32 << 8 | 3).to_le_bytes())]);
    bed.run(&["snapshot", "books"]).failed(15, "0.15.3");
    tb::rewrite_superblock(&file, &[(708, &(18_u32 << 8).to_le_bytes())]);
    bed.run(&["snapshot", "books"]).failed(15, "0.18.0");
    tb::rewrite_superblock(&file, &[(34, &3_u16.to_le_bytes())]);
    bed.run(&["snapshot", "books"]).failed(15, "superblock version 3");
}

/// A block map grows with the addresses in it, so none outside of the file is believed.
#[test]
fn references_out_of_the_file_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("0_0.tigerbeetle");
    let address = (1_u64 << 50).to_le_bytes();
    for fields in [&[(656, &address[..]), (704, &[1, 0, 0, 0])][..], &[(624, &address)]] {
        drop(fs::remove_file(&file));
        tb::format(&file, 0, 1);
        tb::rewrite_superblock(&file, fields);
        let bed = Bed::new(&file, "");
        bed.run(&["snapshot", "books"]).failed(15, "beyond its end");
    }
}

#[test]
fn a_file_of_another_cluster_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("0_0.tigerbeetle");
    tb::format(&file, 0, 1);
    let bed = Bed::with(&file, "", "cluster = \"8\"");
    bed.run(&["snapshot", "books"]).failed(15, "cluster 7");
}

/// Spoils every grid block of a file, so that none is what its reference says.
fn spoil_blocks(bed: &Bed, file: &Path) {
    let id = bed.snapshot("full");
    let listed = bed.json(&["list", "--id", &id, "--long"]);
    let blocks = listed["backups"][0]["manifest"]["capture"]["blocks"].as_u64().unwrap();
    assert!(blocks > 20, "{blocks} blocks are too few to test with");
    let open = File::options().read(true).write(true).open(file).unwrap();
    for address in 0..fs::metadata(file).unwrap().len().saturating_sub(1_141_374_976) / 524_288 {
        open.write_all_at(&[0xff], 1_141_374_976 + address * 524_288 + 300).unwrap();
    }
}

/// A file that was not seen at rest is taken for one that moves.
#[test]
fn a_file_that_moves_too_fast_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let file = quiet_file(folder.path());
    let bed = Bed::with(&file, "", "attempts = 2");
    spoil_blocks(&bed, &file);
    let run = bed.run(&["snapshot", "books", "--scope", "full"]);
    run.failed(15, "no consistent capture in 2 attempts").failed(15, "--mode reflink");
    assert_eq!(bed.stored().len(), 3, "nothing new is in the store");
}

#[test]
fn a_damaged_block_is_called_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let file = quiet_file(folder.path());
    let bed = Bed::new(&file, "");
    spoil_blocks(&bed, &file);
    for mode in ["online", "stopped"] {
        let words = ["snapshot", "books", "--scope", "full", "--mode", mode];
        bed.run(&words).failed(15, "is damaged: block ").failed(15, "inspect integrity");
    }
    assert_eq!(bed.stored().len(), 3, "nothing new is in the store");
}

/// A log with a hole in it is no shorter log: what is behind the hole was acknowledged.
#[test]
fn a_damaged_log_is_not_captured_as_a_shorter_one() {
    let folder = tempfile::tempdir().unwrap();
    let server = tb::Server::solo(folder.path());
    tb::fill(server.address(), &folder.path().join("record"), 100, 40_000);
    let file = server.stop();
    let bed = Bed::new(&file, "");
    bed.run(&["snapshot", "books", "--scope", "full"]).done();
    let open = File::options().write(true).open(&file).unwrap();
    open.write_all_at(&[0xff], 360_448 + 200 * 1_048_576 + 300).unwrap();
    for mode in ["online", "stopped"] {
        let words = ["snapshot", "books", "--scope", "full", "--mode", mode];
        bed.run(&words).failed(15, "is damaged: op 200 of the log");
    }
}

/// A server that dies while it writes an op leaves a torn one that it never acknowledged. It opens
/// the file without it, and so does the restored copy.
#[test]
fn an_op_that_was_never_written_whole_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("0_0.tigerbeetle");
    tb::format(&file, 0, 1);
    let record = folder.path().join("record");
    let load = |transfers| {
        let server = tb::Server::start_existing(&file);
        tb::fill(server.address(), &record, 100, transfers);
        server.stop();
    };
    // Once round the ring of headers and a bit, so that every slot has an older header.
    load(150_000);
    let mut older = vec![0; 1024 * 256];
    File::open(&file).unwrap().read_exact_at(&mut older, 98_304).unwrap();
    load(40_000);
    let bed = Bed::new(&file, "");
    let position = |bed: &Bed, id: &str| {
        let listed = bed.json(&["list", "--id", id, "--long"]);
        listed["backups"][0]["manifest"]["capture"]["position"]["head_op"].as_u64().unwrap()
    };
    let torn = position(&bed, &bed.snapshot("full"));
    let slot = torn % 1024;
    let open = File::options().write(true).open(&file).unwrap();
    open.write_all_at(&[0xff; 8], 360_448 + slot * 1_048_576).unwrap();
    let header = &older[usize::try_from(slot).unwrap() * 256..][..256];
    open.write_all_at(header, 98_304 + slot * 256).unwrap();
    let mut totals: Vec<serde_json::Value> = Vec::new();
    for mode in ["online", "stopped"] {
        let words = ["snapshot", "books", "--scope", "full", "--mode", mode];
        let id = bed.json(&words)["manifest"]["id"].as_str().unwrap().to_owned();
        assert_eq!(position(&bed, &id), torn - 1, "{mode}");
        let copy = tb::Server::start_existing(&bed.restore(&id));
        totals.push(tb::totals(copy.address()));
    }
    let original = tb::Server::start_existing(&file);
    totals.push(tb::totals(original.address()));
    assert!(totals.windows(2).all(|pair| pair[0] == pair[1]), "{totals:?}");
}

/// TigerBeetle opens a file with two copies of its superblock.
#[test]
fn two_whole_superblock_copies_are_enough_when_nobody_writes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("0_0.tigerbeetle");
    tb::format(&file, 0, 1);
    let bed = Bed::new(&file, "");
    let open = File::options().write(true).open(&file).unwrap();
    let spoil = |copy: u64| open.write_all_at(&[0xff], copy * 24_576 + 100).unwrap();
    spoil(0);
    spoil(1);
    for mode in ["online", "stopped"] {
        bed.run(&["snapshot", "books", "--scope", "full", "--mode", mode]).done();
    }
    bed.run(&["doctor"]).done();
    spoil(2);
    bed.run(&["snapshot", "books", "--scope", "full"]).failed(15, "is damaged: the superblock");
}

#[test]
fn a_full_store_is_a_store_error_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let bed = Bed::new(&quiet_file(folder.path()), "");
    // A file system of 4 MiB of our own, in a mount namespace where that is allowed.
    let script = "mount -t tmpfs -o size=4m tmpfs store && \"$0\" snapshot books; code=$?; find store \\( -path store/leases -o -path store/audit \\) -prune -o -type f -print; exit $code";
    let mut command = Command::new("unshare");
    command.args(if rustix::process::geteuid().is_root() { &["-m"][..] } else { &["-r", "-m"] });
    command.args(["sh", "-c", script, env!("CARGO_BIN_EXE_bkp")]);
    command.current_dir(bed.path("")).env("BKP_CONFIG", bed.path("bkp.toml"));
    let run = Run::of(&command.output().unwrap()).failed(16, "no space left");
    assert_eq!(run.stdout, "", "nothing is left in the store");
}

/// A disk that is not mounted must not be mistaken for an empty store.
#[test]
fn a_store_that_is_not_there_is_not_made() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("0_0.tigerbeetle");
    tb::format(&file, 0, 1);
    let bed = Bed::new(&file, "");
    fs::remove_dir(bed.path("store")).unwrap();
    for words in [
        &["snapshot", "books"][..],
        &["list"],
        &["verify", "books"],
        &["restore", "books", "--to", "x", "--yes"],
    ] {
        bed.run(words).failed(10, "no store at file://").failed(10, "mkdir -p -m 700");
    }
    assert_eq!(bed.run(&["doctor"]).code, Some(10));
    assert!(!bed.path("store").exists());
}

/// A folder that had backups and is empty now is a disk that is not mounted.
#[test]
fn a_store_that_lost_everything_is_not_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("0_0.tigerbeetle");
    tb::format(&file, 0, 1);
    let bed = Bed::new(&file, "");
    bed.snapshot("full");
    fs::rename(bed.path("store"), bed.path("disk")).unwrap();
    fs::create_dir(bed.path("store")).unwrap();
    let run = bed.run(&["snapshot", "books"]).failed(14, "is the disk mounted?");
    assert_eq!(bed.stored(), Vec::<PathBuf>::new());
    // The hint works when it is followed.
    let note = run.stderr.split("rm ").last().unwrap().trim();
    fs::remove_file(bed.path(note)).unwrap();
    bed.run(&["snapshot", "books"]).done();
}

/// It is parsed before it can be authenticated, so it must be small.
#[test]
fn a_huge_manifest_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("0_0.tigerbeetle");
    tb::format(&file, 0, 1);
    let bed = Bed::new(&file, "");
    let id = bed.snapshot("full");
    let path = bed.object(&id, "manifest.json");
    let manifest = fs::read_to_string(&path).unwrap();
    let capture = format!("\"capture\": {{\"x\": [{}[0]], ", "[0],".repeat(300_000));
    fs::write(&path, manifest.replacen("\"capture\": {", &capture, 1)).unwrap();
    bed.run(&["verify", "books"]).failed(13, "larger than 1048576 bytes");
    // What cannot be built on is begun anew.
    assert_eq!(bed.json(&["snapshot", "books"])["manifest"]["scope"], "full");
}

#[test]
fn a_wrong_key_is_a_key_error() {
    let folder = tempfile::tempdir().unwrap();
    let bed = Bed::new(&quiet_file(folder.path()), "");
    bed.snapshot("full");
    bed.run(&["keys", "generate", "other"]).done();
    for words in [&["verify", "books"][..], &["restore", "books", "--to", "x", "--yes"]] {
        let words: Vec<&str> = words.iter().copied().chain(["--key", "file:other"]).collect();
        bed.run(&words).failed(12, "other");
    }
    assert!(!bed.path("x").exists());
}

#[test]
fn a_manifest_of_a_later_schema_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let bed = Bed::new(&quiet_file(folder.path()), "");
    let id = bed.snapshot("full");
    let path = bed.object(&id, "manifest.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("bkp.manifest/1", "bkp.manifest/2")).unwrap();
    bed.run(&["verify", "books"]).failed(14, "bkp.manifest/2");
    let listed = bed.run(&["list", "--long"]);
    assert_eq!(listed.code, Some(14), "{listed:?}");
    assert!(listed.stdout.contains("bkp.manifest/2"), "the row says why: {listed:?}");
    bed.run(&["restore", "books", "--to", "x", "--yes"]).failed(14, "bkp.manifest/2");
}

#[test]
fn a_taken_target_is_refused_and_with_force_kept_aside() {
    let folder = tempfile::tempdir().unwrap();
    let bed = Bed::new(&quiet_file(folder.path()), "");
    bed.snapshot("full");
    fs::write(bed.path("target"), "precious").unwrap();
    let words = ["restore", "books", "--to", "target", "--yes"];
    bed.run(&words).failed(14, "target already exists");
    let nowhere = ["restore", "books", "--to", "nowhere/target", "--yes"];
    bed.run(&nowhere).failed(14, "folder nowhere does not exist");
    assert_eq!(fs::read_to_string(bed.path("target")).unwrap(), "precious");
    let words = ["restore", "books", "--to", "target", "--yes", "--force"];
    bed.run(&words).done();
    assert_eq!(fs::read_to_string(bed.path("target.before-restore-1")).unwrap(), "precious");
    assert!(fs::metadata(bed.path("target")).unwrap().len() > 1 << 30);
    bed.run(&words).done();
    assert!(fs::metadata(bed.path("target.before-restore-2")).unwrap().len() > 1 << 30);
    assert_eq!(fs::read_to_string(bed.path("target.before-restore-1")).unwrap(), "precious");
}

/// Only a file is ever moved aside: whoever names a folder means a place in it.
#[test]
fn a_target_that_is_no_file_is_refused_even_with_force() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("0_0.tigerbeetle");
    tb::format(&file, 0, 1);
    let bed = Bed::new(&file, "");
    bed.snapshot("full");
    fs::create_dir(bed.path("data")).unwrap();
    fs::write(bed.path("data/precious"), "precious").unwrap();
    std::os::unix::fs::symlink("data/precious", bed.path("link")).unwrap();
    let restore = |target: &str| bed.run(&["restore", "books", "--to", target, "--yes", "--force"]);
    for target in ["data", "data/"] {
        restore(target).failed(14, "is a folder").failed(14, "--to data/restored.tigerbeetle");
    }
    restore("link").failed(14, "symbolic link");
    restore("/dev/null").failed(14, "exists and is not a regular file");
    restore("store").failed(14, "inside the store");
    restore("store/new").failed(14, "inside the store");
    assert_eq!(fs::read_to_string(bed.path("data/precious")).unwrap(), "precious");
    assert_eq!(fs::read_dir(bed.path("data")).unwrap().count(), 1);
    assert_eq!(bed.stored().len(), 3);
    restore("data/new").done();
}

#[test]
fn the_data_file_of_a_running_server_is_never_moved_aside() {
    let folder = tempfile::tempdir().unwrap();
    let server = tb::Server::solo(folder.path());
    let bed = Bed::new(server.data_file(), server.address());
    bed.snapshot("full");
    let target = server.data_file().to_str().unwrap();
    bed.run(&["restore", "books", "--to", target, "--yes", "--force"])
        .failed(14, "a running server holds");
    tb::totals(server.address());
}

#[test]
fn a_restore_without_a_terminal_needs_yes() {
    let folder = tempfile::tempdir().unwrap();
    let bed = Bed::new(&quiet_file(folder.path()), "");
    bed.snapshot("full");
    bed.run(&["restore", "books", "--to", "x"]).failed(14, "--yes");
    bed.run(&["restore", "books", "--to", "x", "--dry-run"]).done();
    assert!(!bed.path("x").exists());
}

#[test]
fn what_does_not_exist_is_not_found() {
    let folder = tempfile::tempdir().unwrap();
    let bed = Bed::new(&quiet_file(folder.path()), "");
    bed.run(&["snapshot", "cooks"]).failed(10, "cooks");
    bed.run(&["snapshot", "books", "--mode", "magic"]).failed(2, "magic");
    bed.run(&["snapshot", "books", "--scope", "incremental"]).failed(10, "build on");
    bed.snapshot("full");
    bed.run(&["verify", "--id", "ffff"]).failed(10, "ffff");
    bed.run(&["restore", "books", "--at", "2020-01-01T00:00:00Z", "--to", "x", "--yes"])
        .failed(10, "2020-01-01");
    bed.run(&["list", "--store", "elsewhere"]).failed(10, "elsewhere");
    bed.run(&["list", "cooks"]).failed(10, "cooks");
    Run::of(&bare(folder.path(), &["snapshot", "books"]).output().unwrap())
        .failed(78, "/etc/bkp/bkp.toml");
}

#[test]
fn a_second_run_of_a_job_is_busy() {
    let folder = tempfile::tempdir().unwrap();
    let bed = Bed::new(&quiet_file(folder.path()), "");
    bed.snapshot("full");
    let lock = File::options().read(true).write(true).open(bed.path("state/locks/books.lock"));
    let lock = lock.unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    bed.run(&["snapshot", "books"]).failed(11, "books");
    drop(lock);
    bed.run(&["snapshot", "books"]).done();
}

/// Stops a snapshot in its middle with `signal`; returns its exit code, `None` if it was killed.
fn stop_in_the_middle(bed: &Bed, signal: Signal) -> Option<i32> {
    let mut child = bed
        .command(&["snapshot", "books", "--scope", "full", "-q"])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let pid = Pid::from_child(&child);
    // In its middle: it holds its lock and has begun to read the data file.
    let read = |child: &std::process::Child| {
        let io = fs::read_to_string(format!("/proc/{}/io", child.id())).unwrap_or_default();
        let line = io.lines().find_map(|line| line.strip_prefix("rchar: ").map(str::to_owned));
        line.map_or(0, |bytes| bytes.parse::<u64>().unwrap())
    };
    while child.try_wait().unwrap().is_none() && read(&child) < 20 << 20 {
        std::thread::yield_now();
    }
    assert!(child.try_wait().unwrap().is_none(), "it ended before it could be stopped");
    rustix::process::kill_process(pid, signal).unwrap();
    child.wait().unwrap().code()
}

#[test]
fn a_stopped_run_leaves_nothing_and_the_next_one_works() {
    let folder = tempfile::tempdir().unwrap();
    let server = tb::Server::solo(folder.path());
    // Enough that there is a middle, and no more: the file may be in memory, which others need.
    tb::fill(server.address(), &folder.path().join("record"), 2000, 1_000_000);
    let bed = Bed::new(&server.stop(), "");
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        assert_eq!(stop_in_the_middle(&bed, signal), Some(code), "{signal:?}");
        assert_eq!(bed.stored(), Vec::<PathBuf>::new(), "after {signal:?}");
    }
    // A killed run may have finished an object; without a manifest that is no backup.
    assert_eq!(stop_in_the_middle(&bed, Signal::KILL), None);
    assert!(bed.json(&["list"])["backups"].as_array().unwrap().is_empty());
    assert!(bed.stored().iter().all(|path| !path.to_str().unwrap().contains("manifest")));
    let id = bed.snapshot("full");
    bed.run(&["verify", "--id", &id, "--level", "decode"]).done();
}

/// Objects without a manifest are no backup.
#[test]
fn a_run_killed_before_its_manifest_leaves_no_backup() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("0_0.tigerbeetle");
    tb::format(&file, 0, 1);
    let bed = Bed::new(&file, "");
    let ends = |ending: &str| {
        bed.stored().iter().filter(|path| path.to_str().unwrap().ends_with(ending)).count()
    };
    let hit = (0..200).any(|_| {
        let (objects, manifests) = (ends(".enc"), ends("manifest.json"));
        let mut run = bed.command(&["snapshot", "books", "--scope", "full", "-q"]);
        let mut child = run.stdout(std::process::Stdio::null()).spawn().unwrap();
        while ends(".enc") == objects && child.try_wait().unwrap().is_none() {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        ends(".enc") > objects && ends("manifest.json") == manifests
    });
    assert!(hit, "no run was killed between its objects and its manifest");
    let listed = bed.json(&["list"])["backups"].as_array().unwrap().len();
    assert_eq!(listed, ends("manifest.json"));
    let id = bed.snapshot("full");
    bed.run(&["verify", "--id", &id, "--level", "decode"]).done();
}

#[test]
fn no_secret_is_printed() {
    let folder = tempfile::tempdir().unwrap();
    let bed = Bed::new(&quiet_file(folder.path()), "");
    let key = fs::read_to_string(bed.path("key")).unwrap();
    let secret = key.lines().find_map(|line| line.strip_prefix("BKP-KEY-1-")).unwrap().to_owned();
    let mut log = File::create(bed.path("log")).unwrap();
    let runs: [&[&str]; 6] = [
        &["snapshot", "books", "-v", "-v"],
        &["verify", "books", "--json"],
        &["config", "show", "--json"],
        &["doctor"],
        &["list", "--long", "--json"],
        &["restore", "books", "--to", "bkp.toml", "--yes"],
    ];
    for words in runs {
        let run = bed.run(words);
        write!(log, "{}{}", run.stdout, run.stderr).unwrap();
    }
    for path in [bed.path("log")].into_iter().chain(bed.stored()) {
        let content = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
        assert!(!content.contains(&secret), "the key is in {}", path.display());
    }
}
