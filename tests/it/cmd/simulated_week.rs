//! A week in a minute: every interval is shorter, everything else is real. A server that is written to,
//! a bucket and a folder, ticks from two hosts, faults in between, and notifications about them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::{Child, Stdio};

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::support::bed::Bed;
use crate::support::planted::now;
use crate::support::s3::usual;
use crate::support::tb;
use crate::support::web::Web;

/// Runs of the books' snapshot that the week has at least.
const RUNS: usize = 8;

const JOBS: &str = r#"
[job.books]
run = "snapshot"
source = "books"
every = "3s"
retry_after = "1s"
warn_after = "10m"
critical_after = "20m"
retention = { keep_last = 3, max_removed_percent = 100 }
[job.more]
run = "snapshot"
source = "more"
every = "5s"
warn_after = "10m"
retention = { keep_last = 2, max_removed_percent = 100 }
[job.check]
run = "verify"
source = "books"
level = "decode"
every = "7s"
warn_after = "10m"
after = ["books"]
[job.tidy]
run = "cleanup"
every = "11s"
warn_after = "10m"
after = ["books", "more"]
[run]
parallel = 4
[status]
min_free_percent = 0
metrics_file = "bkp.prom"
"#;

/// One run, as the stores have it on record.
#[derive(Debug, Clone)]
struct Run {
    job: String,
    started: OffsetDateTime,
    ended: OffsetDateTime,
    code: u64,
}

/// Every run on record, in the order of their beginnings; of one run that two stores have the worse.
fn runs(bed: &Bed) -> Vec<Run> {
    let mut found = BTreeMap::<_, Run>::new();
    for run in ["main", "second"].into_iter().flat_map(|store| runs_in(bed, store)) {
        let known = found.entry((run.started, run.job.clone())).or_insert_with(|| run.clone());
        known.code = known.code.max(run.code);
    }
    found.into_values().collect()
}

fn runs_in(bed: &Bed, store: &str) -> Vec<Run> {
    let store = bed.app(None).store_named(store).unwrap();
    let mut found = Vec::new();
    for object in store.list("runs").unwrap() {
        let key = object.unwrap().key;
        let body: Value = serde_json::from_reader(store.open(&key, None).unwrap()).unwrap();
        let time =
            |field: &str| OffsetDateTime::parse(body[field].as_str().unwrap(), &Rfc3339).unwrap();
        found.push(Run {
            job: body["job"].as_str().unwrap().to_owned(),
            started: time("started"),
            ended: time("ended"),
            code: body["exit_code"].as_u64().unwrap(),
        });
    }
    found
}

/// Starts a tick of a host, unless its last one goes on.
fn tick(bed: &Bed, host: usize, running: &mut Option<Child>) {
    if running.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none()) {
        return;
    }
    let mut command = bed.on_host(host, &["run", "-q"]);
    *running = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
}

/// Ticks until `done`.
fn ticks(bed: &Bed, what: &str, done: impl Fn(&[Run]) -> bool) {
    tick_until(bed, what, || done(&runs(bed)));
}

fn tick_until(bed: &Bed, what: &str, done: impl Fn() -> bool) {
    let began = now();
    let mut hosts = [None, None];
    loop {
        for (host, running) in hosts.iter_mut().enumerate() {
            tick(bed, host, running);
        }
        if done() {
            break;
        }
        assert!(
            now() - began < time::Duration::minutes(8),
            "{what} does not happen: {:#?}",
            runs_in(bed, "main")
        );
        std::thread::park_timeout(std::time::Duration::from_millis(300));
    }
    for mut child in hosts.into_iter().flatten() {
        child.wait().unwrap();
    }
}

/// Somebody who is told what is wrong, and keeps it: rule, what it is about, and whether it is over.
struct Person {
    web: Web,
    heard: RefCell<BTreeSet<(String, String, bool)>>,
}

impl Person {
    fn hears(&self, rule: &str, subject: &str, over: bool) -> bool {
        for (_, body) in self.web.heard() {
            let news: Value = serde_json::from_str(&body).unwrap();
            for alert in news["alerts"].as_array().unwrap() {
                let text = |field: &str| alert[field].as_str().unwrap().to_owned();
                let what = (text("rule"), text("subject"), alert["recovered"] == true);
                self.heard.borrow_mut().insert(what);
            }
        }
        self.heard.borrow().contains(&(rule.into(), subject.into(), over))
    }

    /// Forgets what was heard, which was about nothing else than these, or that it is over.
    #[track_caller]
    fn heard_only_of(&self, subjects: &[&str]) {
        let heard = self.heard.take();
        let other =
            heard.iter().find(|(_, about, over)| !over && !subjects.contains(&about.as_str()));
        assert_eq!(other, None, "nothing is wrong with it: {heard:?}");
    }
}

fn good<'r>(runs: &'r [Run], job: &'r str) -> impl Iterator<Item = &'r Run> {
    runs.iter().filter(move |run| run.job == job && run.code == 0)
}

#[test]
#[expect(clippy::too_many_lines, reason = "one story, told in the order in which it happens")]
fn every_due_run_happens_none_overlap_and_faults_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let server = tb::Server::solo(folder.path());
    let record = folder.path().join("record");
    tb::fill(server.address(), &record, 200, 4_000);
    let before = tb::unix_time();
    let other = folder.path().join("other");
    fs::create_dir(&other).unwrap();
    let (more, gone) = (other.join("0_0.tigerbeetle"), other.join("gone"));
    tb::format(&more, 0, 1);
    let bed = Bed::new(server.data_file(), server.address());
    bed.store_is(&usual().table_at(&usual().endpoint(), "backups", ""));
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    let second =
        format!("[store.second]\nurl = \"file://{}\"\n[keys]", bed.path("store").display());
    let config = config.replace("[keys]", &second);
    let config = config.replace(
        "kind = \"tigerbeetle\"\n",
        "kind = \"tigerbeetle\"\nstore = [\"main\", \"second\"]\n",
    );
    let source = format!(
        "[source.more]\nkind = \"tigerbeetle\"\nstore = \"second\"\ndata_file = {more:?}\n"
    );
    let hook = format!(
        "[job.more.hooks]\nfailed = [\"sh\", \"-c\", \"cat >>{0}; echo >>{0}\"]\n",
        bed.path("failed").display()
    );
    let person = Person { web: Web::start(), heard: RefCell::default() };
    let notify =
        format!("[notify.hook]\nkind = \"webhook\"\nurl = \"{}\"\n", person.web.url("alerts"));
    fs::write(bed.path("bkp.toml"), config + &source + JOBS + &hook + &notify).unwrap();

    ticks(&bed, "the first days", |runs| {
        good(runs, "books").count() >= 3
            && good(runs, "check").count() >= 1
            && good(runs, "tidy").count() >= 1
    });
    // What the first tick found missing is there.
    assert_eq!(bed.json(&["status"])["health"], "info");
    person.hears("", "", false);
    person.heard.take();
    // A source goes away for a while.
    fs::rename(&more, &gone).unwrap();
    ticks(&bed, "a failure", |runs| runs.iter().any(|run| run.job == "more" && run.code == 15));
    let status = bed.run(&["status", "--json"]);
    assert!(
        status.stdout.contains("\"rule\":\"failing\",\"subject\":\"more\""),
        "{}",
        status.stdout
    );
    tick_until(&bed, "the news of it", || person.hears("failing", "more", false));
    let failed = fs::read_to_string(bed.path("failed")).unwrap();
    assert!(failed.lines().count() > 0, "the hook heard of nothing");
    assert!(failed.lines().all(|line| line.contains("\"exit_code\":15")), "{failed}");
    fs::rename(&gone, &more).unwrap();
    let mended = now();
    ticks(&bed, "its return", |runs| {
        good(runs, "more").any(|run| run.started > mended)
            && good(runs, "tidy").any(|run| run.started > mended)
    });
    tick_until(&bed, "the news of it", || person.hears("failing", "more", true));
    person.heard_only_of(&["more", "tidy"]);
    // A store goes away; what has its other store goes on, in part, and nothing has recovered.
    fs::rename(bed.path("store"), bed.path("away")).unwrap();
    let broke = now();
    tick_until(&bed, "a run in part", || {
        let main = runs_in(&bed, "main");
        main.iter().any(|run| run.job == "books" && run.code == 3 && run.started > broke)
    });
    tick_until(&bed, "the news of it", || person.hears("store", "second", false));
    fs::rename(bed.path("away"), bed.path("store")).unwrap();
    let mended = now();
    ticks(&bed, "the rest of the week", |runs| {
        good(runs, "books").count() >= RUNS
            && good(runs, "books").any(|run| run.started > mended)
            && good(runs, "more").any(|run| run.started > mended)
            && good(runs, "tidy").any(|run| run.started > mended)
    });

    let runs = runs(&bed);
    // Of one job no two runs overlap, nor do two snapshots of one source; and none began before its time.
    for (job, every) in [("books", 3), ("more", 5), ("check", 7), ("tidy", 11)] {
        let mine: Vec<&Run> = runs.iter().filter(|run| run.job == job && run.code != 11).collect();
        assert!(!mine.is_empty(), "{job} never ran");
        for pair in mine.windows(2) {
            assert!(pair[0].ended <= pair[1].started, "they overlap: {pair:?}");
            let apart = pair[1].started - pair[0].started;
            let early = pair[0].code == 0 && apart < time::Duration::seconds(every);
            assert!(!early, "too early: {pair:?}");
        }
    }
    tick_until(&bed, "the news of it", || person.hears("store", "second", true));
    person.heard_only_of(&["second", "books", "more", "check", "tidy"]);
    // What is wrong is over, and what is left is what retention says, whole, and restores.
    let status = bed.json(&["status"]);
    assert!(!status.to_string().contains("\"failing\""), "{status}");
    bed.run(&["cleanup"]).done();
    for store in ["main", "second"] {
        bed.run(&["verify", "--all", "--store", store]).done();
    }
    let id = bed.json(&["list", "books", "--store", "main", "--limit", "1"]);
    let (id, target) = (id["backups"][0]["id"].as_str().unwrap(), bed.path("restored"));
    let to = target.to_str().unwrap();
    bed.run(&["restore", "--id", id, "--store", "main", "--to", to, "--yes"]).done();
    drop(server.stop());
    let server = tb::Server::start_existing(&target);
    tb::check(server.address(), &record, before, tb::Ids::Every);
}
