//! Leases: of any number of runs of a job, on any number of hosts, one proceeds, with and without a
//! ledger; a killed run frees its job, and one whose lease expired writes nothing.
//!
//! `BKP_TEST_ROUNDS` sets the number of rounds (default 2): `BKP_TEST_ROUNDS=50 tests/run.sh lease::`
//! is the long version.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::bed::{Bed, Run};
use crate::support::tb;

/// Runs that begin at once: more than a cluster has client sessions.
const STARTS: usize = 100;
/// How long a lease of three seconds may take to end on a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);

/// Who keeps the leases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keeper {
    Ledger,
    Store,
}

struct LedgerBed {
    folder: TempDir,
    server: Option<tb::Server>,
    bed: Bed,
}

impl LedgerBed {
    /// A source that takes a moment to capture, and no server that writes it.
    fn new(keeper: Keeper, lease: &str) -> LedgerBed {
        let folder = tempfile::tempdir().unwrap();
        let server = tb::Server::solo(folder.path());
        tb::fill(server.address(), &folder.path().join("record"), 100, 250_000);
        let data_file = folder.path().join("books.tigerbeetle");
        fs::rename(server.stop(), &data_file).unwrap();
        let bed = Bed::new(&data_file, "");
        let server = (keeper == Keeper::Ledger).then(|| tb::Server::solo(folder.path()));
        // A hundred clients on two processors take their time.
        let more = "deadline = \"2m\"";
        bed.set_ledger(server.as_ref().map_or("", tb::Server::address), lease, more);
        LedgerBed { folder, server, bed }
    }

    fn data_file(&self) -> PathBuf {
        self.folder.path().join("books.tigerbeetle")
    }

    /// Starts a run on a host of its own.
    fn start(&self, host: usize) -> Child {
        let mut command = self.bed.on_host(host, &["snapshot", "books", "--scope", "full", "-q"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Starts a run on a host, and stops it with SIGSTOP in the middle of its work.
    fn start_and_stop(&self, host: usize) -> Child {
        let mut child = self.start(host);
        while !works(&child, &self.data_file()) {
            assert!(child.try_wait().unwrap().is_none(), "it ended before it could be stopped");
            std::thread::yield_now();
        }
        signal(&child, Signal::STOP);
        child
    }

    fn run(&self, host: usize) -> Run {
        end(self.start(host))
    }

    /// Runs on a host until that is not busy any more.
    fn run_until_free(&self, host: usize) -> Run {
        let began = Instant::now();
        loop {
            let run = self.run(host);
            if run.code != Some(11) {
                return run;
            }
            assert!(began.elapsed() < PATIENCE, "{}", run.stderr);
        }
    }

    fn backups(&self) -> usize {
        let stored = self.bed.stored();
        stored.iter().filter(|path| path.to_str().unwrap().ends_with(".manifest.json")).count()
    }
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

fn end(child: Child) -> Run {
    Run::of(&child.wait_with_output().unwrap())
}

/// Whether a run has opened the data file: then it has its lease.
fn works(child: &Child, data_file: &Path) -> bool {
    let Ok(items) = fs::read_dir(format!("/proc/{}/fd", child.id())) else { return false };
    let mut links = items.filter_map(|item| fs::read_link(item.ok()?.path()).ok());
    links.any(|link| link == data_file)
}

fn rounds() -> usize {
    std::env::var("BKP_TEST_ROUNDS").map_or(2, |text| text.parse().unwrap())
}

/// The one that works is stopped until all others have given up, so that none of them can come when
/// it has ended already.
fn exactly_one(ledger_bed: &LedgerBed, round: usize) {
    let before = ledger_bed.backups();
    let (mut children, mut winner) = (Vec::new(), None);
    for host in 0..STARTS {
        children.push(ledger_bed.start(host));
        winner = winner.or_else(|| stop_the_one(ledger_bed, &children));
    }
    let began = Instant::now();
    while winner.is_none() {
        assert!(began.elapsed() < PATIENCE, "nobody works");
        winner = stop_the_one(ledger_bed, &children);
    }
    let winner = children.remove(winner.unwrap());
    let name = format!("process {} on ", winner.id());
    for child in children {
        let run = end(child).failed(11, "`books` is already running");
        assert!(
            run.stderr.contains(&name) && run.stderr.contains(" s, since 20"),
            "{}",
            run.stderr
        );
    }
    signal(&winner, Signal::CONT);
    end(winner).done();
    assert_eq!(ledger_bed.backups(), before + 1, "round {round}");
    assert_eq!(ledger_bed.bed.noted("skipped").len(), (round + 1) * (STARTS - 1), "round {round}");
    eprintln!("round {round}: ok");
}

fn stop_the_one(ledger_bed: &LedgerBed, children: &[Child]) -> Option<usize> {
    let found = children.iter().position(|child| works(child, &ledger_bed.data_file()))?;
    signal(&children[found], Signal::STOP);
    Some(found)
}

#[test]
fn of_a_hundred_concurrent_runs_one_proceeds_with_a_ledger() {
    let ledger_bed = LedgerBed::new(Keeper::Ledger, "1h");
    (0..rounds()).for_each(|round| exactly_one(&ledger_bed, round));
    ledger_bed.bed.run(&["verify", "--ledger"]).done();
}

#[test]
fn of_a_hundred_concurrent_runs_one_proceeds_without_a_ledger() {
    let ledger_bed = LedgerBed::new(Keeper::Store, "1h");
    (0..rounds()).for_each(|round| exactly_one(&ledger_bed, round));
}

/// On one host the kernel's lock is enough, and the ledger is not even asked.
#[test]
fn a_second_run_on_the_same_host_is_told_of_the_first() {
    let ledger_bed = LedgerBed::new(Keeper::Store, "1h");
    let first = ledger_bed.start_and_stop(1);
    let name = format!("process {} on this host, for ", first.id());
    ledger_bed.run(1).failed(11, &name);
    signal(&first, Signal::CONT);
    end(first).done();
    let skipped = ledger_bed.bed.noted("skipped");
    let [line] = skipped.as_slice() else { panic!("{skipped:?}") };
    let line: Value = serde_json::from_slice(&fs::read(line).unwrap()).unwrap();
    assert_eq!((&line["source"], &line["exit_code"]), (&json!("books"), &json!(11)), "{line}");
    assert!(line["why"].as_str().unwrap().contains(&name), "{line}");
}

fn a_killed_holder_frees_its_job(keeper: Keeper) {
    let ledger_bed = LedgerBed::new(keeper, "3s");
    let mut holder = ledger_bed.start_and_stop(1);
    let name = format!("process {} on ", holder.id());
    ledger_bed.run(2).failed(11, &name);
    holder.kill().unwrap();
    end(holder);
    ledger_bed.run_until_free(2).done();
    assert_eq!(ledger_bed.backups(), 1);
}

#[test]
fn a_killed_holder_frees_its_job_within_its_lease_with_a_ledger() {
    a_killed_holder_frees_its_job(Keeper::Ledger);
}

#[test]
fn a_killed_holder_frees_its_job_within_its_lease_without_a_ledger() {
    a_killed_holder_frees_its_job(Keeper::Store);
}

/// A run that takes longer than its lease keeps it.
#[test]
fn a_lease_is_renewed_while_its_run_works() {
    for keeper in [Keeper::Ledger, Keeper::Store] {
        let ledger_bed = LedgerBed::new(keeper, "2s");
        let config = fs::read_to_string(ledger_bed.bed.path("bkp.toml")).unwrap();
        let slow = config.replace("kind = \"tigerbeetle\"", "kind = \"tigerbeetle\"\nlevel = 15");
        fs::write(ledger_bed.bed.path("bkp.toml"), slow).unwrap();
        let mut first = ledger_bed.start(1);
        while !works(&first, &ledger_bed.data_file()) {
            assert!(first.try_wait().unwrap().is_none(), "it ended too early");
            std::thread::yield_now();
        }
        let (began, mut late_refusals) = (Instant::now(), 0);
        loop {
            let overdue = began.elapsed() > Duration::from_secs(2);
            let run = ledger_bed.run(2);
            if run.code == Some(0) {
                assert!(first.try_wait().unwrap().is_some(), "two runs at once");
                break;
            }
            run.failed(11, "is already running");
            late_refusals += usize::from(overdue);
        }
        assert!(late_refusals > 0, "the run was too short to show anything");
        end(first).done();
    }
}

/// What was begun with the ledger ends without it, and the ledger learns it later.
#[test]
fn a_ledger_lost_during_a_run_costs_no_backup() {
    let mut ledger_bed = LedgerBed::new(Keeper::Ledger, "1h");
    let config = fs::read_to_string(ledger_bed.bed.path("bkp.toml")).unwrap();
    fs::write(
        ledger_bed.bed.path("bkp.toml"),
        config.replace("deadline = \"2m\"", "deadline = \"3s\""),
    )
    .unwrap();
    let run = ledger_bed.start_and_stop(1);
    let ledger = ledger_bed.server.take().unwrap().stop();
    signal(&run, Signal::CONT);
    let run = end(run);
    assert_eq!(run.code, Some(17), "{}", run.stderr);
    assert!(run.stderr.contains("the event waits in the outbox"), "{}", run.stderr);
    assert_eq!(ledger_bed.backups(), 1);
    // Nobody gave the lease back, but its own host knows better.
    let server = tb::Server::start_existing(&ledger);
    ledger_bed.bed.set_ledger(server.address(), "1h", "");
    ledger_bed.run(2).failed(11, "is already running");
    ledger_bed.run(1).done();
    ledger_bed.bed.run(&["verify", "--ledger"]).done();
}

/// A run that finds the ledger away keeps apart from one that began when it was there.
#[test]
fn a_run_without_the_ledger_meets_the_one_that_has_it() {
    let mut ledger_bed = LedgerBed::new(Keeper::Ledger, "1h");
    let config = fs::read_to_string(ledger_bed.bed.path("bkp.toml")).unwrap();
    fs::write(
        ledger_bed.bed.path("bkp.toml"),
        config.replace("deadline = \"2m\"", "deadline = \"1s\""),
    )
    .unwrap();
    let first = ledger_bed.start_and_stop(1);
    let name = format!("process {} on ", first.id());
    ledger_bed.server.take().unwrap().stop();
    ledger_bed.run(2).failed(11, &name);
    signal(&first, Signal::CONT);
    assert_eq!(end(first).code, Some(17));
    assert_eq!(ledger_bed.run(2).code, Some(17));
    assert_eq!(ledger_bed.backups(), 2);
}

/// A copy of a state directory is not the same place: its kernel locks are others.
#[test]
fn a_copied_state_directory_is_another_host() {
    let ledger_bed = LedgerBed::new(Keeper::Store, "1h");
    let first = ledger_bed.start_and_stop(1);
    fs::create_dir(ledger_bed.bed.path("state-2")).unwrap();
    fs::copy(ledger_bed.bed.path("state-1/place"), ledger_bed.bed.path("state-2/place")).unwrap();
    ledger_bed.run(2).failed(11, "is already running: process");
    signal(&first, Signal::CONT);
    end(first).done();
}

/// Its own host knows at once that it is gone.
#[test]
fn the_host_of_a_killed_holder_does_not_wait_for_its_lease() {
    for keeper in [Keeper::Ledger, Keeper::Store] {
        let ledger_bed = LedgerBed::new(keeper, "1h");
        let mut holder = ledger_bed.start_and_stop(1);
        holder.kill().unwrap();
        end(holder);
        ledger_bed.run(2).failed(11, "is already running");
        ledger_bed.run(1).done();
        ledger_bed.run(2).done();
    }
}

fn a_fenced_run_writes_no_manifest(keeper: Keeper) {
    let ledger_bed = LedgerBed::new(keeper, "3s");
    let late = ledger_bed.start_and_stop(1);
    ledger_bed.run_until_free(2).done();
    signal(&late, Signal::CONT);
    end(late).failed(11, "expired during its run");
    assert_eq!(ledger_bed.backups(), 1);
    if keeper == Keeper::Ledger {
        ledger_bed.bed.run(&["verify", "--ledger"]).done();
        let events = ledger_bed.bed.json(&["list", "--from-ledger"]);
        let mut words: Vec<&str> = events["events"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| event["status"].as_str().unwrap())
            .collect();
        words.sort_unstable();
        assert_eq!(words, ["completed", "failed", "started", "started"]);
    }
    // It took nothing with it.
    ledger_bed.run(1).done();
}

#[test]
fn a_fenced_run_writes_no_manifest_with_a_ledger() {
    a_fenced_run_writes_no_manifest(Keeper::Ledger);
}

#[test]
fn a_fenced_run_writes_no_manifest_without_a_ledger() {
    a_fenced_run_writes_no_manifest(Keeper::Store);
}

/// Who can write to the store can write leases; none of them blocks a job for ever, or breaks a run.
#[test]
fn leases_that_no_run_can_have_written_are_named() {
    let ledger_bed = LedgerBed::new(Keeper::Store, "1h");
    let folder = ledger_bed.bed.path("store/leases/books");
    fs::create_dir_all(&folder).unwrap();
    let last = folder.join("00000000000000000007");
    fs::write(&last, "{}").unwrap();
    let named = ledger_bed.run(1).done();
    assert!(named.stderr.contains("leases/books/00000000000000000007"), "{}", named.stderr);
    fs::write(
        folder.join("00000000000000000100"),
        r#"{"schema":"bkp.lease/1","job":"books","run":"01935a3c-7a00-7abc-8def-0123456789ab","host":"h","process":1,"place":"0","begun":"2026-11-21T00:00:00Z","until":"2999-11-21T00:00:00Z"}"#,
    )
    .unwrap();
    let named = ledger_bed.run(1).done();
    assert!(named.stderr.contains("no lease lasts that long"), "{}", named.stderr);
    fs::remove_file(&last).unwrap();
    fs::write(folder.join("7"), "not a term").unwrap();
    ledger_bed.run(1).done();
}
