//! Waiting with an end: for what must become true, and for programs that must end. A test that waits without
//! one would take the whole run with it and leave no name behind.
#![expect(
    clippy::disallowed_methods,
    clippy::panic,
    clippy::unwrap_used,
    reason = "another process has no event to wait for; helpers of tests fail as tests do"
)]

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{Write as _, stderr};
use std::process::{Child, ExitStatus};
use std::sync::Once;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getpid, kill_process};

const POLL_EVERY: Duration = Duration::from_millis(50);
/// For what another program does within seconds when nothing else runs.
const PATIENCE: Duration = Duration::from_mins(5);
/// How long a program may run that ends by itself, far longer than any of these tests needs.
const LONGEST: Duration = Duration::from_mins(12);
const WATCH_EVERY: Duration = Duration::from_secs(10);
/// Programs that end by themselves; servers and loads do not, and tests stop those.
const ENDING: &[&str] =
    &["bkp", "psql", "pg_basebackup", "initdb", "pg_amcheck", "pg_verifybackup"];

pub(crate) fn pause() {
    thread::sleep(POLL_EVERY);
}

/// Waits until `done` is true.
#[track_caller]
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < PATIENCE, "not yet: {what}");
        pause();
    }
}

/// Waits for the end of a process that was told to end. If it does not, it is killed and the test fails.
#[track_caller]
pub(crate) fn ended(child: &mut Child, what: &str) -> ExitStatus {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if began.elapsed() >= PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{what} was told to end and does not");
        }
        thread::sleep(POLL_EVERY / 10);
    }
}

/// Kills, from now on, every program under this process that runs far too long, and says which: the test that
/// waits for it fails then, instead of waiting for ever.
pub(crate) fn watch() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        thread::spawn(|| {
            let mut seen: HashMap<(Pid, String), Instant> = HashMap::new();
            loop {
                let now = Instant::now();
                let running = descendants(getpid()).into_iter().filter_map(|pid| {
                    let status = State::of(pid)?;
                    ENDING.contains(&&*status.name).then_some((pid, status.started))
                });
                let running: Vec<_> = running.collect();
                seen.retain(|one, _| running.contains(one));
                for one in running {
                    let began = *seen.entry(one.clone()).or_insert(now);
                    if now - began >= LONGEST {
                        kill(one.0);
                    }
                }
                thread::sleep(WATCH_EVERY);
            }
        });
    });
}

/// Kills a program and says what it was doing, past the test runner's capture, which would keep that from the log.
fn kill(pid: Pid) {
    let of = |path: &str| {
        let text = fs::read(format!("/proc/{}/{path}", pid.as_raw_nonzero())).unwrap_or_default();
        String::from_utf8_lossy(&text).replace('\0', " ")
    };
    let mut told = format!("watch: killed after {LONGEST:?}: {}\n", of("cmdline"));
    let tasks = fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero()));
    for task in tasks.into_iter().flatten().flatten() {
        let task = format!("task/{}", task.file_name().display());
        let (name, at) = (of(&format!("{task}/comm")), of(&format!("{task}/wchan")));
        writeln!(told, "watch:   thread {} in {at}", name.trim()).unwrap();
    }
    let _said = stderr().write_all(told.as_bytes());
    let _gone = kill_process(pid, Signal::ABORT);
}

/// What the system says of a process.
struct State {
    name: String,
    /// `Z` for one that has ended.
    letter: String,
    parent: i32,
    /// In the system's ticks since it began; with the number it names one process for ever.
    started: String,
}

impl State {
    /// `None` if the process is gone.
    fn of(pid: Pid) -> Option<State> {
        let line = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
        // The name in parentheses may hold anything.
        let (head, rest) = line.rsplit_once(')')?;
        let words: Vec<&str> = rest.split_whitespace().collect();
        Some(State {
            name: head.split_once('(')?.1.to_owned(),
            letter: (*words.first()?).to_owned(),
            parent: words.get(1)?.parse().ok()?,
            started: (*words.get(19)?).to_owned(),
        })
    }
}

pub(crate) fn is_alive(pid: Pid) -> bool {
    State::of(pid).is_some_and(|state| state.letter != "Z")
}

/// All processes that this one has started, and those that they have.
pub(crate) fn descendants(ancestor: Pid) -> Vec<Pid> {
    let items = fs::read_dir("/proc").unwrap().flatten();
    let names = items.filter_map(|item| item.file_name().into_string().ok());
    let pids = names.filter_map(|name| Pid::from_raw(name.parse().ok()?));
    let parents: Vec<(Pid, i32)> =
        pids.filter_map(|pid| Some((pid, State::of(pid)?.parent))).collect();
    let mut found = vec![ancestor];
    let mut at = 0;
    while let Some(parent) = found.get(at).map(|pid| pid.as_raw_nonzero().get()) {
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    found.split_off(1)
}
