//! Drills: the real server on a restored copy, and nothing of it left behind.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::bed::Bed;
use crate::support::tb::{self, busy_replica};

#[test]
fn a_drill_starts_the_server_and_compares_totals() {
    let folder = tempfile::tempdir().unwrap();
    let (server, _record) = busy_replica(folder.path());
    let bed = Bed::new(server.data_file(), server.address());
    bed.snapshot("full");
    bed.snapshot("incremental");
    let report = bed.json(&["verify", "--latest", "books", "--level", "drill"]);
    let checks = report["drill"]["checks"].as_array().unwrap();
    let compared =
        checks.iter().find(|check| check["found"].as_str().unwrap().contains("recorded:"));
    assert!(compared.is_some_and(|check| check["ok"] == true), "{report}");
    assert_eq!(report["drill"]["compared"], "equal", "{report}");
    assert!(report["drill"]["rto_seconds"].as_f64().unwrap() > 0.0);
    assert!(fs::read_dir(bed.path("state/drill")).unwrap().next().is_none(), "scratch is gone");
}

/// Processes that were started with this path on their command line.
fn processes_of(path: &Path) -> Vec<String> {
    let path = path.to_str().unwrap().as_bytes();
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").unwrap() {
        let line = fs::read(process.unwrap().path().join("cmdline")).unwrap_or_default();
        if line.windows(path.len()).any(|window| window == path) {
            found.push(String::from_utf8_lossy(&line).replace('\0', " "));
        }
    }
    found
}

#[track_caller]
fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_mins(2), "{what}: not in time");
        std::thread::yield_now();
    }
}

#[test]
fn a_killed_drill_leaves_neither_server_nor_scratch() {
    let folder = tempfile::tempdir().unwrap();
    let (server, _record) = busy_replica(folder.path());
    let bed = Bed::new(server.data_file(), server.address());
    bed.snapshot("full");
    let words = ["verify", "books", "--level", "drill", "-q"];
    let mut drill = bed.command(&words).spawn().unwrap();
    let scratch = bed.path("state/drill");
    let starts = || processes_of(&scratch).iter().any(|line| line.contains(" start "));
    wait_until("the drill's server starts", starts);
    kill_process(Pid::from_child(&drill), Signal::KILL).unwrap();
    drill.wait().unwrap();
    let gone =
        || processes_of(&scratch).is_empty() && fs::read_dir(&scratch).unwrap().next().is_none();
    wait_until("everything is gone", gone);
    // And while it still writes the copy: those are the books in the clear.
    let mut drill = bed.command(&words).spawn().unwrap();
    wait_until("the drill writes its copy", || {
        let folder = fs::read_dir(&scratch).unwrap().next();
        folder.is_some_and(|folder| folder.unwrap().path().join("drill.tigerbeetle").exists())
    });
    kill_process(Pid::from_child(&drill), Signal::KILL).unwrap();
    drill.wait().unwrap();
    wait_until("the copy is gone", gone);
}

/// A server of another release that does not start says nothing of the backup.
#[test]
fn a_drill_with_another_release_is_no_damage() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("0_0.tigerbeetle");
    tb::format(&file, 0, 1);
    let bed = Bed::new(&file, "");
    bed.snapshot("full");
    let drill = |script: &str| {
        let program = bed.path("tigerbeetle");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
        let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
        let ours = format!("{:?}", tb::program());
        fs::write(bed.path("bkp.toml"), config.replace(&ours, &format!("{program:?}"))).unwrap();
        bed.run(&["verify", "books", "--level", "drill"])
    };
    let report = bed.json(&["verify", "books", "--level", "drill"]);
    assert_eq!(report["drill"]["compared"], "nothing", "{report}");
    drill("[ $1 = version ] && echo TigerBeetle version 0.16.79+abc; exit 1")
        .failed(15, "is release 0.16.79, the backup is of 0.16.78");
    // Neither does one that cannot run here; one that says that the file is broken does.
    let same = "[ $1 = version ] && echo TigerBeetle version 0.16.78+abc";
    let began = Instant::now();
    drill(&format!("{same}; exit 1")).failed(15, "it logged nothing");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    drill(&format!("{same}; echo out of order; exit 1")).failed(15, "out of order");
    drill(&format!("{same}; echo error: WALCorrupt; exit 1")).failed(13, "WALCorrupt");
}
