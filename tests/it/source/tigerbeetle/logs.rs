//! The change log: whatever happens while it is shipped, every moment in its windows restores, and
//! what does not restore is refused.
//!
//! `BKP_TEST_ROUNDS` sets the number of random moments, and of random operations, that are restored
//! (default 10), `BKP_TEST_SEED` what happens in between: `BKP_TEST_ROUNDS=20 BKP_TEST_SEED=3 tests/run.sh
//! every_moment_restores a_cluster_comes_back`.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::bed::Bed;
use crate::support::books::{self, Books};
use crate::support::logs::{PATIENCE, bed, numbers, restore_at, spelled, window, with_server};
use crate::support::tb;
use crate::support::wait::pause;

fn rounds() -> u64 {
    std::env::var("BKP_TEST_ROUNDS").map_or(10, |text| text.parse().unwrap())
}

/// A number of this run, in place of one that is the same in every run.
fn seeded(number: u64) -> u64 {
    let seed = std::env::var("BKP_TEST_SEED").map_or(0, |text| text.parse::<u64>().unwrap());
    number + 1_000 * seed
}

/// One replica, both modes, a restart in the middle, several checkpoints: random moments of either mode
/// and random operations.
#[test]
fn every_moment_restores() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = tb::Server::solo(folder.path());
    let address = server.address().to_owned();
    let bed = bed(server.data_file(), &address, "");
    bed.snapshot("full");
    let mut ledger = Books::begin(&address, seeded(11));
    let mut moments = Vec::new();
    for (round, more) in (0..rounds()).zip(numbers(seeded(17), 60)) {
        (0..more).for_each(|_| ledger.step());
        tb::fill(&address, &folder.path().join("record"), 20, 6_000);
        (0..60 - more).for_each(|_| ledger.step());
        moments.push(ledger.moment());
        if round == 4 {
            let data_file = server.stop();
            server = tb::Server::spawn(&data_file, &address, 0);
            assert!(server.wait_ready());
            bed.snapshot("incremental");
        }
        if round == 7 {
            ledger.let_expire();
        }
        (0..3).for_each(|_| ledger.step());
        for source in ["books", "asked"] {
            let report = bed.json(&["logs", source]);
            assert_eq!(report["shipped"], true, "{report}");
        }
    }
    let original = ledger.transfers();
    let window = window(&bed, "books");
    let (first, last) = (window["first_op"].as_u64().unwrap(), window["last_op"].as_u64().unwrap());
    assert!(last > 300 * rounds(), "{window}");
    let verified = bed.json(&["verify", "books", "--logs"]);
    let segments = rounds().into();
    assert_eq!((&verified["ok"], &verified["segments"]), (&true.into(), &segments), "{verified}");
    bed.run(&["verify", "asked", "--logs"]).done();
    bed.run(&["verify", "--all", "--level", "decode"]).done();

    for moment in &moments {
        let at = ["--at", &spelled(moment.at)];
        let (file, report) = restore_at(&bed, "books", &at);
        assert_eq!(report["timestamp"].as_u64(), Some(moment.at), "{report}");
        assert_eq!(report["differences"], Value::Array(vec![]));
        assert!(report["notes"][0].as_str().unwrap().contains("expire"), "{report}");
        with_server(&file, |books| books::assert_same(books, &original, moment));
        let (file, report) = restore_at(&bed, "asked", &at);
        assert!(!report["differences"].as_array().unwrap().is_empty(), "{report}");
        with_server(&file, |books| books::assert_replayed(books, &original, moment));
    }
    let refused = ledger.refused.unwrap();
    let said = ledger.says_to(refused);
    assert!(said.contains("IdAlreadyFailed") || seeded(0) != 0, "{said}");
    let ops = numbers(seeded(5), last - first + 1).map(|number| first + number);
    let count = usize::try_from(rounds()).unwrap();
    let ops = ops.take(count).chain([last]);
    let mut starts = 0;
    for op in ops {
        let (file, report) = restore_at(&bed, "books", &["--op", &op.to_string()]);
        assert_eq!(report["op"].as_u64(), Some(op), "{report}");
        starts += report["server_starts"].as_u64().unwrap();
        let at = report["timestamp"].as_u64().unwrap();
        with_server(&file, |books| {
            books::assert_same_transfers(books, &original, at);
            if op == last {
                assert_eq!(books.says_to(refused), said);
            }
        });
    }
    assert!(starts > 0, "no restore went over a checkpoint");
}

/// Three replicas, one of which is gone for a while again and again: the log of one of them goes on over
/// the changes of view and its own restarts, and all three come back from it.
#[test]
fn a_cluster_comes_back_at_a_moment() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = tb::Cluster::of_three(folder.path());
    let address = cluster.address().to_owned();
    let bed = bed(cluster.replicas[1].data_file(), &address, "");
    bed.snapshot("full");
    let mut ledger = Books::begin(&address, seeded(23));
    let mut moments = Vec::new();
    for (round, more) in (0..rounds().max(6)).zip(numbers(seeded(29), 30)) {
        (0..more).for_each(|_| ledger.step());
        tb::fill(&address, &folder.path().join("record"), 20, 6_000);
        (0..30 - more).for_each(|_| ledger.step());
        // The primary of view 0, then of what came after it; in longer runs the source itself, too.
        if round > 1 && round % 2 == 0 {
            let gone = [0, 2, 1][usize::try_from(round / 2 - 1).unwrap() % 3];
            let stopped = cluster.replicas.remove(gone).stop();
            (0..30).for_each(|_| ledger.step());
            tb::fill(&address, &folder.path().join("record"), 20, 2_000);
            let mut back = tb::Server::spawn(&stopped, &address, gone);
            assert!(back.wait_ready());
            cluster.replicas.insert(gone, back);
        }
        moments.push(ledger.moment());
        for source in ["books", "asked"] {
            bed.run(&["logs", source]).done();
        }
    }
    let original = ledger.transfers();
    // What was acknowledged last is in the log, although nothing came after it.
    let last = moments.last().unwrap();
    let until = window(&bed, "books")["until_nanoseconds"].as_u64().unwrap();
    assert!(until >= last.at, "{until} {}", last.at);
    bed.run(&["verify", "books", "--logs"]).done();
    let at = spelled(last.at);
    bed.run(&["restore", "books", "--at", &at, "--to", "x", "--yes"]).failed(14, "3 replicas");
    drop(cluster);
    // Three of a short run, all of a long one.
    let every = if std::env::var_os("BKP_TEST_ROUNDS").is_some() { 0 } else { 2 };
    for moment in moments.iter().skip(every).step_by(every.max(1)).chain([last]) {
        let (file, _) = restore_at(&bed, "asked", &["--at", &spelled(moment.at)]);
        with_server(&file, |books| books::assert_replayed(books, &original, moment));
        let restore = |replica: usize| {
            let moment = ["--replica", &replica.to_string(), "--at", &spelled(moment.at)];
            restore_at(&bed, "books", &moment).0
        };
        let files: Vec<PathBuf> = (0..3).map(restore).collect();
        let restored = tb::Cluster::start_existing(&files);
        let mut books = books::open(restored.address());
        books::assert_same(&books, &original, moment);
        // It takes new ones, too.
        (0..10).for_each(|_| books.step());
        drop(restored);
        for file in files {
            std::fs::remove_file(file).unwrap();
        }
    }
}

/// Killed again and again while it ships, it loses nothing and ships nothing twice.
#[test]
fn a_killed_run_loses_and_repeats_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let server = tb::Server::solo(folder.path());
    let address = server.address().to_owned();
    let bed = bed(server.data_file(), &address, "");
    bed.snapshot("full");
    let mut ledger = Books::begin(&address, 31);
    for millis in numbers(3, 60).take(24) {
        (0..10).for_each(|_| ledger.step());
        for source in ["books", "asked"] {
            let mut child = bed
                .command(&["logs", source])
                .stderr(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            let began = Instant::now();
            while began.elapsed() < Duration::from_millis(millis)
                && child.try_wait().unwrap().is_none()
            {}
            drop(child.kill());
            child.wait().unwrap();
        }
    }
    let moment = ledger.moment();
    let original = ledger.transfers();
    for source in ["books", "asked"] {
        // The lease of the last one that was killed ends by itself, or with its lock.
        let began = Instant::now();
        while bed.run(&["logs", source]).code != Some(0) {
            assert!(began.elapsed() < PATIENCE);
            pause();
        }
        bed.run(&["verify", source, "--logs"]).done();
    }
    let at = ["--at", &spelled(moment.at)];
    with_server(&restore_at(&bed, "asked", &at).0, |books| {
        books::assert_replayed(books, &original, &moment);
    });
    let op = window(&bed, "books")["last_op"].as_u64().unwrap().to_string();
    with_server(&restore_at(&bed, "books", &["--op", &op]).0, |books| {
        books::assert_same(books, &original, &moment);
    });
}

/// Of many hosts that ship at once each operation is shipped by one.
#[test]
fn hosts_do_not_ship_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let server = tb::Server::solo(folder.path());
    let address = server.address().to_owned();
    let bed = bed(server.data_file(), &address, "");
    let mut ledger = Books::begin(&address, 61);
    for _ in 0..5 {
        (0..10).for_each(|_| ledger.step());
        let start = |host: usize| {
            let source = ["books", "asked"][host % 2];
            let mut command = bed.on_host(host, &["logs", source, "-q"]);
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        };
        let children: Vec<_> = (0..8).map(start).collect();
        for mut child in children {
            let code = child.wait().unwrap().code();
            assert!([Some(0), Some(11)].contains(&code), "{code:?}");
        }
    }
    for source in ["books", "asked"] {
        let verified = bed.json(&["verify", source, "--logs"]);
        assert_eq!((&verified["ok"], &verified["strays"]), (&true.into(), &Value::Array(vec![])));
        assert!(verified["segments"].as_u64().unwrap() >= 5, "{verified}");
    }
}

/// A restore that is killed leaves no server, no file and no books in the clear.
#[test]
fn a_killed_restore_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let server = tb::Server::solo(folder.path());
    let address = server.address().to_owned();
    let bed = bed(server.data_file(), &address, "");
    bed.snapshot("full");
    let record = folder.path().join("record");
    for _ in 0..3 {
        tb::fill(&address, &record, 20, 14_000);
        bed.run(&["logs", "books"]).done();
    }
    bed.run(&["logs", "asked"]).done();
    let target = bed.path("restored");
    std::fs::create_dir(&target).unwrap();
    let left = || {
        std::fs::read_dir(&target)
            .unwrap()
            .map(|item| item.unwrap().file_name())
            .collect::<Vec<_>>()
    };
    let file = target.join("file");
    let start = |source: &str| {
        let until = spelled(window(&bed, source)["until_nanoseconds"].as_u64().unwrap());
        let words = ["restore", source, "--at", &until, "--yes", "--to", file.to_str().unwrap()];
        let mut child =
            bed.command(&words).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        // Its server is running when there is a log of it. Whatever it makes is in one hidden folder.
        let began = Instant::now();
        let mut log = None;
        while log.is_none_or(|log: PathBuf| !log.is_file()) {
            let now = left();
            let folder = now.first().map(|name| target.join(name));
            assert!(now.len() < 2 && folder.iter().all(|folder| folder.is_dir()), "{now:?}");
            log = folder.map(|folder| folder.join("restored.log"));
            assert!(began.elapsed() < PATIENCE && child.try_wait().unwrap().is_none());
        }
        child
    };
    for source in ["books", "asked"] {
        let mut child = start(source);
        child.kill().unwrap();
        child.wait().unwrap();
        let began = Instant::now();
        while !left().is_empty() || !served(&target).is_empty() {
            assert!(began.elapsed() < PATIENCE, "{:?}", left());
            pause();
        }
    }
    // Where the one that cleans up is killed, too, the next run does it.
    let mut child = start("asked");
    let began = Instant::now();
    while !served(&target).is_empty() {
        // None of them gets to do anything about the end of another: bkp's own end, which comes last, would
        // let the others go on.
        for signal in [Signal::STOP, Signal::KILL] {
            let mut processes = served(&target);
            processes.sort_by_key(|process| *process == Pid::from_child(&child));
            for process in processes {
                let _gone = kill_process(process, signal);
            }
        }
        assert!(began.elapsed() < PATIENCE);
    }
    // It did not end by itself.
    assert_eq!(child.wait().unwrap().code(), None);
    assert_eq!(left().len(), 1);
    restore_to(&bed, "asked", &file);
    assert_eq!(left(), ["file"]);
}

/// The system may kill the server that a restore has started, for want of memory above all. Nobody answers then,
/// and the restore does not wait for an answer.
#[test]
fn a_restore_whose_server_is_killed_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let server = tb::Server::solo(folder.path());
    let address = server.address().to_owned();
    let bed = bed(server.data_file(), &address, "");
    for _ in 0..3 {
        tb::fill(&address, &folder.path().join("record"), 20, 14_000);
    }
    bed.run(&["logs", "asked"]).done();
    let target = bed.path("restored");
    std::fs::create_dir(&target).unwrap();
    let file = target.join("file");
    let until = spelled(window(&bed, "asked")["until_nanoseconds"].as_u64().unwrap());
    let words = ["restore", "asked", "--at", &until, "--yes", "--to", file.to_str().unwrap()];
    let mut child = bed.command(&words);
    let child = child.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let began = Instant::now();
    let is_listening = || {
        let folders = std::fs::read_dir(&target).unwrap().flatten();
        let mut logs = folders.map(|folder| folder.path().join("restored.log"));
        logs.any(|log| std::fs::read_to_string(log).is_ok_and(|log| log.contains("listening")))
    };
    while !is_listening() {
        assert!(began.elapsed() < PATIENCE);
    }
    let is_server = |process: &Pid| {
        let words = std::fs::read(format!("/proc/{}/cmdline", process.as_raw_nonzero()));
        words.is_ok_and(|words| words.windows(7).any(|word| word == b"\0start\0"))
    };
    let servers: Vec<Pid> = served(&target).into_iter().filter(is_server).collect();
    assert_eq!(servers.len(), 1);
    kill_process(servers[0], Signal::KILL).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(15), "{said}");
    assert!(said.contains("the server ended"), "{said}");
    assert_eq!(std::fs::read_dir(&target).unwrap().count(), 0);
}

/// Restores the end of a log to a place.
#[track_caller]
fn restore_to(bed: &Bed, source: &str, target: &Path) {
    let until = spelled(window(bed, source)["until_nanoseconds"].as_u64().unwrap());
    let words = ["restore", source, "--at", &until, "--yes", "--to", target.to_str().unwrap()];
    bed.run(&words).done();
}

/// The processes that have a path below `folder` among their words.
fn served(folder: &Path) -> Vec<Pid> {
    let folder = folder.to_str().unwrap();
    let processes = std::fs::read_dir("/proc").unwrap().map(|process| process.unwrap().path());
    let named = processes.filter(|process| {
        let words = std::fs::read(process.join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&words).contains(folder)
    });
    let number = |path: PathBuf| path.file_name()?.to_str()?.parse().ok().and_then(Pid::from_raw);
    named.filter_map(number).collect()
}

/// Operations that left the ring before they were shipped are a gap: said, listed, and not restored.
#[test]
fn a_gap_is_reported_and_mended() {
    let folder = tempfile::tempdir().unwrap();
    let server = tb::Server::solo(folder.path());
    let address = server.address().to_owned();
    let bed = bed(server.data_file(), &address, "on_gap = \"snapshot\"");
    let record = folder.path().join("record");
    bed.snapshot("full");
    tb::fill(&address, &record, 20, 2_000);
    bed.run(&["logs", "books"]).done();
    tb::fill(&address, &record, 20, 40_000);
    let run = bed.run(&["logs", "books", "--json"]);
    assert_eq!(run.code, Some(3), "{}", run.stderr);
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert!(report["gap"].as_str().unwrap().contains("overwritten"), "{report}");
    assert!(report["snapshot"].is_string(), "{report}");
    tb::fill(&address, &record, 20, 2_000);
    bed.run(&["logs", "books"]).done();
    let listed = bed.json(&["list", "books", "--windows"]);
    let windows = listed["windows"].as_array().unwrap();
    assert_eq!((windows.len(), listed["gaps"].as_array().unwrap().len()), (2, 1), "{listed}");
    assert_eq!(listed["gaps"][0]["damage"], false);
    // It is news, and what the log will take up is in the forecast.
    let logs =
        "[job.ship]\nrun = \"logs\"\nsource = \"books\"\n[status]\nprices = { LOCAL = 1048576.0 }";
    crate::support::jobs::add(&bed, logs);
    let status: Value = serde_json::from_str(&bed.run(&["status", "--json"]).stdout).unwrap();
    let gap = status["findings"].as_array().unwrap().iter().find(|found| found["rule"] == "gap");
    assert_eq!(gap.unwrap()["level"], "warning", "a snapshot followed: {status}");
    let books = status["sources"].as_array().unwrap().iter().find(|row| row["source"] == "books");
    let cost = |field: &str| books.unwrap()[field].as_f64().unwrap();
    assert!(cost("cost_per_month_in_a_year") > cost("cost_per_month") * 2.0, "{status}");
    let between = windows[0]["last_op"].as_u64().unwrap() + 1;
    let restore =
        |op: u64| bed.run(&["restore", "books", "--op", &op.to_string(), "--to", "x", "--yes"]);
    restore(between).failed(14, &format!("op {between} is outside the restorable"));
    restore(between).failed(14, windows[0]["until"].as_str().unwrap());
    let at = spelled(windows[1]["until_nanoseconds"].as_u64().unwrap() + 1);
    bed.run(&["restore", "books", "--at", &at, "--to", "x", "--yes"])
        .failed(14, "is outside the restorable");
    assert!(!bed.path("x").exists());
    let verified = bed.json(&["verify", "books", "--logs"]);
    assert_eq!(verified["ok"], true, "{verified}");
    restore(windows[1]["last_op"].as_u64().unwrap()).done();
    // The ordinary commands go on to mean snapshots.
    bed.run(&["verify", "books", "--level", "decode"]).done();
    bed.run(&["restore", "books", "--to", "y", "--yes"]).done();
}

/// A segment that is missing, or in another's place, is found before anything is restored.
#[test]
fn a_damaged_log_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let server = tb::Server::solo(folder.path());
    let address = server.address().to_owned();
    let bed = bed(server.data_file(), &address, "");
    let record = folder.path().join("record");
    bed.snapshot("full");
    let mut ids = Vec::new();
    for _ in 0..4 {
        tb::fill(&address, &record, 20, 2_000);
        let report = bed.json(&["logs", "books"]);
        ids.push(report["manifest"]["id"].as_str().unwrap().to_owned());
    }
    let last = window(&bed, "books")["last_op"].as_u64().unwrap().to_string();
    let restore = || bed.run(&["restore", "books", "--op", &last, "--to", "x", "--yes"]);
    // No segment is a state by itself.
    bed.run(&["restore", "--id", &ids[1], "--to", "x", "--yes"]).failed(14, "a segment of a log");
    bed.run(&["verify", "--id", &ids[1], "--level", "drill"]).done();

    let manifest = bed.object(&ids[1], "manifest.json");
    let away = bed.path("away");
    std::fs::rename(&manifest, &away).unwrap();
    let run = bed.run(&["verify", "books", "--logs", "--json"]);
    assert_eq!(run.code, Some(13), "{}", run.stdout);
    assert!(run.stdout.contains("is missing"), "{}", run.stdout);
    restore().failed(13, "is missing");
    assert_eq!(bed.run(&["list", "books", "--windows"]).code, Some(13));
    std::fs::rename(&away, &manifest).unwrap();
    bed.run(&["verify", "books", "--logs"]).done();

    // One that is not authentic does not stop the log: what it should hold is shipped again.
    let newest = bed.object(&ids[3], "manifest.json");
    let whole = std::fs::read_to_string(&newest).unwrap();
    std::fs::remove_file(&newest).unwrap();
    std::fs::write(&newest, whole.replace("\"bkp 0.1.0\"", "\"bkp 0.9.0\"")).unwrap();
    let run = bed.run(&["logs", "books", "-v"]).done();
    assert!(run.stderr.contains("which is unusable"), "{}", run.stderr);
    assert_eq!(bed.run(&["verify", "books", "--logs"]).code, Some(13));
    std::fs::remove_file(&newest).unwrap();
    bed.run(&["verify", "books", "--logs"]).done();

    // Bytes of another segment under this one's name.
    let object = bed.object(&ids[1], "tar.zst.enc");
    let bytes = std::fs::read(&object).unwrap();
    std::fs::remove_file(&object).unwrap();
    std::fs::copy(bed.object(&ids[2], "tar.zst.enc"), &object).unwrap();
    assert_eq!(bed.run(&["verify", "books", "--logs"]).code, Some(13));
    assert_eq!(restore().code, Some(13));
    std::fs::remove_file(&object).unwrap();
    std::fs::write(&object, bytes).unwrap();
    assert!(!bed.path("x").exists());
    restore().done();
}

/// What runs by itself finds it, too: a verification of everything, a job of its own, and `status`. What a
/// verification found is looked into.
#[test]
fn a_lost_segment_is_found_by_what_runs_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let server = tb::Server::solo(folder.path());
    let address = server.address().to_owned();
    let bed = bed(server.data_file(), &address, "");
    let record = folder.path().join("record");
    bed.snapshot("full");
    let mut ids = Vec::new();
    for _ in 0..4 {
        tb::fill(&address, &record, 20, 2_000);
        let report = bed.json(&["logs", "books"]);
        ids.push(report["manifest"]["id"].as_str().unwrap().to_owned());
    }
    let jobs = "[job.all]\nrun = \"verify\"\nsource = \"books\"\nlevel = \"exists\"\nall = true\n[job.log]\nrun = \"verify\"\nsource = \"books\"\nlogs = true";
    crate::support::jobs::add(&bed, jobs);
    let lost = || {
        let status = bed.run(&["status", "--json"]);
        let status: Value = serde_json::from_str(&status.stdout).unwrap();
        let found = status["findings"].as_array().unwrap().iter();
        let lost =
            found.filter(|found| found["message"].as_str().unwrap().contains("the log is missing"));
        lost.map(|found| found["message"].to_string()).collect::<Vec<_>>()
    };
    assert!(lost().is_empty());
    bed.run(&["verify", "--all", "--level", "exists"]).done();
    bed.run(&["run", "log"]).done();
    bed.run(&["run", "all"]).done();

    let manifest = bed.object(&ids[1], "manifest.json");
    std::fs::rename(&manifest, bed.path("away")).unwrap();
    bed.run(&["verify", "--all", "--level", "decode"]).failed_in_text(13, "is missing");
    for job in ["all", "log"] {
        assert_eq!(bed.run(&["run", job]).code, Some(13), "{job}");
    }
    let found = lost();
    assert!(found.len() == 1 && found[0].contains(&ids[1]), "{found:?}");
    std::fs::rename(bed.path("away"), &manifest).unwrap();
    assert!(lost().is_empty());
    bed.run(&["verify", "--all", "--level", "decode"]).done();

    // Damage that was found is on the list, and nothing is built on it.
    let object = bed.object(&ids[3], "tar.zst.enc");
    let mut bytes = std::fs::read(&object).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::remove_file(&object).unwrap();
    std::fs::write(&object, &bytes).unwrap();
    assert_eq!(bed.run(&["verify", "--id", &ids[3], "--level", "decode"]).code, Some(13));
    bed.run(&["list", "books", "--windows"]).failed_in_text(13, &ids[3]);
    tb::fill(&address, &record, 20, 200);
    let run = bed.run(&["logs", "books", "--json", "-v"]).done();
    assert!(run.stderr.contains("which is unusable"), "{}", run.stderr);
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(report["manifest"]["parent"], ids[2].as_str());
}

/// A restore without a moment says what it leaves out: a log that goes on, a newer backup that is not whole,
/// block maps that the next snapshot needs.
#[test]
fn a_plain_restore_says_what_it_leaves_out() {
    let folder = tempfile::tempdir().unwrap();
    let server = tb::Server::solo(folder.path());
    let address = server.address().to_owned();
    let bed = bed(server.data_file(), &address, "");
    let record = folder.path().join("record");
    tb::fill(&address, &record, 20, 2_000);
    let full = bed.snapshot("full");
    let restore = |to: &str| bed.run(&["restore", "books", "--to", to, "--yes"]).done().stderr;
    let said = restore("a");
    assert!(!said.contains("continues after") && !said.contains("has no manifest"), "{said}");
    tb::fill(&address, &record, 20, 2_000);
    bed.run(&["logs", "books"]).done();
    let said = restore("b");
    assert!(said.contains("the log of `books` continues after this backup"), "{said}");
    let child = bed.snapshot("incremental");
    let said = restore("c");
    assert!(!said.contains("continues after"), "{said}");
    let map = bed.object(&full, "map.json.zst.enc");
    let whole = std::fs::read(&map).unwrap();
    let mut rotten = whole.clone();
    let middle = rotten.len() / 2;
    rotten[middle] ^= 1;
    let put = |bytes: &[u8]| {
        std::fs::remove_file(&map).unwrap();
        std::fs::write(&map, bytes).unwrap();
    };
    put(&rotten);
    let said = restore("d");
    assert!(said.contains(&format!("the block map of backup {full} is damaged")), "{said}");
    // Of the backup that is restored, too, and if it has none any more.
    std::fs::remove_file(&map).unwrap();
    let of_base = ["restore", "--id", &full, "--to", "base", "--yes"];
    let said = bed.run(&of_base).done().stderr;
    assert!(said.contains("the restore does not need it"), "{said}");
    std::fs::write(&map, &whole).unwrap();
    let newest = bed.snapshot("full");
    std::fs::remove_file(bed.object(&newest, "manifest.json")).unwrap();
    let said = restore("e");
    assert!(
        said.contains(&format!("{newest} is newer than {child} but has no manifest")),
        "{said}"
    );
}

/// The last moment has a name: nobody has to copy one of nanoseconds.
#[test]
fn the_latest_moment_restores() {
    let folder = tempfile::tempdir().unwrap();
    let server = tb::Server::solo(folder.path());
    let address = server.address().to_owned();
    let bed = bed(server.data_file(), &address, "");
    let mut ledger = Books::begin(&address, 5);
    bed.snapshot("full");
    (0..30).for_each(|_| ledger.step());
    let (moment, original) = (ledger.moment(), ledger.transfers());
    for source in ["books", "asked"] {
        bed.run(&["logs", source]).done();
    }
    with_server(&restore_at(&bed, "asked", &["--at", "latest"]).0, |books| {
        books::assert_replayed(books, &original, &moment);
    });
    let (target, report) = restore_at(&bed, "books", &["--at", "latest"]);
    assert!(report["segments"].as_u64().unwrap() > 0, "{report}");
    with_server(&target, |books| books::assert_same(books, &original, &moment));
    // A snapshot that is later than the log is the latest there is.
    (0..10).for_each(|_| ledger.step());
    bed.snapshot("incremental");
    let words = ["restore", "books", "--at", "latest", "--to", "later", "--yes"];
    bed.run(&words).failed(14, "is newer than the end of its log");
}

/// A full disk at the target is no failure that nobody classified, and leaves nothing.
#[test]
fn a_full_disk_at_the_target_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let server = tb::Server::solo(folder.path());
    let address = server.address().to_owned();
    let bed = bed(server.data_file(), &address, "");
    tb::fill(&address, &folder.path().join("record"), 8_000, 80_000);
    bed.snapshot("full");
    tb::fill(&address, &folder.path().join("record"), 20, 1_000);
    bed.run(&["logs", "books"]).done();
    let op = window(&bed, "books")["last_op"].as_u64().unwrap().to_string();
    let small = bed.path("small");
    std::fs::create_dir(&small).unwrap();
    for moment in [vec![], vec!["--op", &op]] {
        let bkp = env!("CARGO_BIN_EXE_bkp");
        let script = "mount -t tmpfs -o size=4m none \"$0\" && \"$@\"; code=$?; ls -A \"$0\" >&2; exit $code";
        let words = ["restore", "books", "--yes", "--to"];
        let mut command = std::process::Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]).arg(&small);
        command.arg(bkp).args(words).arg(small.join("file")).args(&moment);
        command.env("BKP_CONFIG", bed.path("bkp.toml")).current_dir(bed.path(""));
        let run = crate::support::bed::Run::of(&command.output().unwrap());
        assert!(!run.stderr.contains(".bkp-tmp"), "{}", run.stderr);
        run.failed(14, "cannot write").failed(14, "free space there");
    }
}

/// Numbers in messages have units.
#[test]
fn a_duration_out_of_range_is_reported_with_units() {
    let bed = Bed::new(Path::new("none"), "");
    let job = "[job.log]\nrun = \"logs\"\nsource = \"books\"\nevery = \"6h\"\nkeep_log = \"1h\"\n";
    crate::support::jobs::add(&bed, job);
    bed.run(&["config", "check"]).failed(78, "1h is not between 1d and 36525d");
}

/// A drill of the log restores a moment of it and starts the server: in both modes, and of one replica of
/// three; by a job, too. What is on record must fit.
#[test]
fn a_drill_of_the_log_restores_a_moment() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = tb::Cluster::of_three(folder.path());
    let address = cluster.address().to_owned();
    let bed = bed(cluster.replicas[1].data_file(), &address, "");
    bed.snapshot("full");
    let mut ledger = Books::begin(&address, 29);
    for _ in 0..3 {
        (0..30).for_each(|_| ledger.step());
        tb::fill(&address, &folder.path().join("record"), 20, 3_000);
        for source in ["books", "asked"] {
            bed.run(&["logs", source]).done();
        }
    }
    bed.snapshot("full");
    // So that the log goes on to it.
    (0..10).for_each(|_| ledger.step());
    for source in ["books", "asked"] {
        bed.run(&["logs", source]).done();
    }
    drop(cluster);
    for source in ["books", "asked"] {
        for _ in 0..2 {
            let report = bed.json(&["verify", source, "--logs", "--level", "drill"]);
            let drill = &report["drill"];
            assert!(drill["rto_seconds"].as_f64().unwrap() > 0.0, "{report}");
            let checks = drill["checks"].as_array().unwrap();
            assert!(
                checks.len() == 2 && checks.iter().all(|check| check["ok"] == true),
                "{report}"
            );
            let found = checks[1]["found"].as_str().unwrap();
            // The last moments of the log in wal mode lie after the last snapshot.
            assert!(!found.contains("after: nothing") || source == "books", "{found}");
        }
        assert!(std::fs::read_dir(bed.path("state/drill")).unwrap().next().is_none());
    }
    let job =
        "[job.rehearse]\nrun = \"verify\"\nsource = \"asked\"\nlogs = true\nlevel = \"drill\"";
    crate::support::jobs::add(&bed, job);
    bed.run(&["run", "rehearse"]).done();
}

/// Where the newest snapshot is not whole an older one leads to the same op, by itself where that can be
/// told from the store's listing, else by choice.
#[test]
fn an_incomplete_snapshot_is_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let server = tb::Server::solo(folder.path());
    let address = server.address().to_owned();
    let bed = bed(server.data_file(), &address, "");
    let record = folder.path().join("record");
    let mut ids = Vec::new();
    for _ in 0..2 {
        let report = bed.json(&["snapshot", "books", "--scope", "full"]);
        ids.push(report["manifest"]["id"].as_str().unwrap().to_owned());
        tb::fill(&address, &record, 20, 2_000);
        bed.json(&["logs", "books"]);
    }
    let (older, newer) = (ids[0].clone(), ids[1].clone());
    let last = window(&bed, "books")["last_op"].as_u64().unwrap().to_string();
    let from = |base: &str, to: &str| {
        bed.run(&["restore", "books", "--op", &last, "--base", base, "--to", to, "--yes"])
    };
    let plan = ["restore", "books", "--op", &last, "--to", "x", "--dry-run"];
    assert_eq!(bed.json(&plan)["base"], newer.as_str());
    let object = bed.object(&newer, "tar.zst.enc");
    let mut rotten = std::fs::read(&object).unwrap();
    std::fs::rename(&object, bed.path("away")).unwrap();
    from(&newer, "x").failed(13, &newer);
    let words = ["restore", "books", "--op", &last, "--to", "older", "--yes", "--json"];
    let run = bed.run(&words).done();
    assert!(run.stderr.contains(&format!("skipping snapshot {newer}")), "{}", run.stderr);
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((&report["base"], report["op"].to_string()), (&older.as_str().into(), last.clone()));
    // Damage that shows only when it is read is told with the way around it.
    let middle = rotten.len() / 2;
    rotten[middle] ^= 1;
    std::fs::write(&object, rotten).unwrap();
    from(&newer, "x").failed(13, "--base");
    from(&older, "chosen").done();
    assert!(!bed.path("x").exists());
    let read = |path: &str| std::fs::read(bed.path(path)).unwrap();
    assert!(read("older") == read("chosen"));
    from("2020", "x").failed(10, "no snapshot 2020");
    let run = bed.run(&["restore", "books", "--base", &older, "--to", "x", "--yes"]);
    assert_eq!(run.code, Some(2), "without a moment: {}", run.stderr);
}

/// Where nothing happens nothing is shipped, also where the ledger of the runs is in the same cluster.
#[test]
fn an_idle_log_stays_idle() {
    let folder = tempfile::tempdir().unwrap();
    let server = tb::Server::solo(folder.path());
    let address = server.address().to_owned();
    let bed = bed(server.data_file(), &address, "");
    bed.set_ledger(&address, "2m", "");
    let mut ledger = Books::begin(&address, 41);
    (0..20).for_each(|_| ledger.step());
    ledger.let_expire();
    let ship = |source: &str| bed.json(&["logs", source])["shipped"] == true;
    // A busy server is late with looking at what expires, which is news. If bkp's own events were, too,
    // no run would ever find none.
    let runs = |source| (0..10).take_while(|_| ship(source)).count();
    let shipped = runs("books") + runs("asked");
    assert!((2..10).contains(&shipped), "own events look like news, {shipped} times");
    let stored = bed.stored();
    assert!(!ship("books"), "own events look like news in the ring");
    assert!(!ship("asked"), "own events look like news in answers");
    assert_eq!(bed.stored(), stored);
    // Those runs are recorded, and nothing is of idle ones.
    let events = bed.json(&["list", "--from-ledger"]);
    let count = |status: &str| {
        let events = events["events"].as_array().unwrap().iter();
        events.filter(|event| event["status"] == status && event["scope"] == "incremental").count()
    };
    assert_eq!(count("completed"), shipped, "{events}");
    bed.run(&["verify", "--ledger"]).done();
    bed.snapshot("full");
    assert!(!ship("books") && !ship("asked"), "events of a snapshot look like news");
    // An operation of the books is news, and takes bkp's own along.
    ledger.moment();
    assert!(ship("books") && ship("asked"));
    bed.run(&["verify", "books", "--logs"]).done();
    let dry = bed.run(&["logs", "books", "--dry-run"]).done();
    assert!(dry.stdout.contains("nothing to ship"), "{}", dry.stdout);
}

/// A cluster that is away ends with 15 within the deadline; a log of mode wal needs none.
#[test]
fn a_cluster_that_is_away_ends_the_run_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let server = tb::Server::solo(folder.path());
    let address = server.address().to_owned();
    tb::fill(&address, &folder.path().join("record"), 20, 1_000);
    let data_file = server.stop();
    let bed = Bed::with(&data_file, &address, "logs = { deadline = \"2s\" }");
    let began = Instant::now();
    bed.run(&["logs", "books", "--mode", "query"]).failed(15, "nothing is listening");
    assert!(began.elapsed() < PATIENCE);
    bed.run(&["logs", "books"]).done();
    bed.run(&["logs", "books", "--mode", "none"]).failed(2, "`none`");
}

/// As a service it goes on through a restart of the server, and keeps nothing back when it is stopped.
#[test]
fn following_ships_within_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let server = tb::Server::solo(folder.path());
    let address = server.address().to_owned();
    let bed = bed(server.data_file(), &address, "every = \"1s\"");
    bed.snapshot("full");
    let mut ledger = Books::begin(&address, 53);
    let follow = |source: &str| {
        let words = ["logs", source, "--follow", "-q"];
        bed.command(&words).stderr(Stdio::null()).spawn().unwrap()
    };
    let mut children = ["books", "asked"].map(follow);
    let wait = |source: &str, at: u64| {
        let began = Instant::now();
        loop {
            let listed = bed.run(&["list", source, "--windows", "--json"]);
            let listed: Value = serde_json::from_str(&listed.stdout).unwrap_or_default();
            let until = listed["windows"][0]["until_nanoseconds"].as_u64();
            if until.is_some_and(|until| until >= at) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "{source}: {listed}");
            pause();
        }
    };
    let mut server = Some(server);
    for round in 0..3 {
        (0..20).for_each(|_| ledger.step());
        let moment = ledger.moment();
        wait("books", moment.at);
        wait("asked", moment.at);
        if round == 0 {
            let data_file = server.take().unwrap().stop();
            let mut again = tb::Server::spawn(&data_file, &address, 0);
            assert!(again.wait_ready());
            server = Some(again);
        }
    }
    // Another host's run does not ship the same.
    let child = |child: &std::process::Child| Pid::from_child(child);
    for running in &mut children {
        kill_process(child(running), Signal::TERM).unwrap();
        assert_eq!(running.wait().unwrap().code(), Some(143));
    }
    bed.run(&["verify", "books", "--logs"]).done();
    bed.run(&["verify", "asked", "--logs"]).done();
    bed.run(&["logs", "books"]).done();
}
