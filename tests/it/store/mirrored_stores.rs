//! One run, several stores: stores fail independently, and increments build only on backups that all of
//! them have.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::bed::{Bed, Run, bare};
use crate::support::s3::proxy::{Fault, Proxy, Rule};
use crate::support::s3::{strict, usual};
use crate::support::tb::{self, Ids};

/// A bed whose source goes to two folders, `store` and `second`.
fn bed(data_file: &Path) -> Bed {
    let bed = Bed::new(data_file, "");
    second_is(&bed, &format!("url = \"file://{}\"", bed.path("second").display()));
    fs::create_dir(bed.path("second")).unwrap();
    bed
}

/// Adds the second store, given as the lines of its table, and has the source go there too.
fn second_is(bed: &Bed, table: &str) {
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    let config = config.replace("[keys]", &format!("[store.second]\n{table}\n[keys]"));
    let kind = "kind = \"tigerbeetle\"\n";
    let config = config.replace(kind, &format!("{kind}store = [\"main\", \"second\"]\n"));
    fs::write(bed.path("bkp.toml"), config).unwrap();
}

/// A small data file.
fn data_file(folder: &Path) -> std::path::PathBuf {
    let file = folder.join("0_0.tigerbeetle");
    tb::format(&file, 0, 1);
    file
}

/// A snapshot of which one store has no copy: its report.
#[track_caller]
fn partial(bed: &Bed, naming: &str) -> Value {
    let run = bed.run(&["snapshot", "books", "--json"]);
    let run = run.failed_in_text(3, naming);
    assert!(run.stderr.contains("continuing without store"), "{}", run.stderr);
    serde_json::from_str(&run.stdout).unwrap()
}

fn ids(bed: &Bed, store: &str) -> Vec<String> {
    let listing = bed.json(&["list", "--store", store]);
    let backups = listing["backups"].as_array().unwrap().iter();
    let mut ids: Vec<String> =
        backups.map(|backup| backup["id"].as_str().unwrap().to_owned()).collect();
    ids.sort();
    ids
}

#[test]
fn one_pass_makes_the_same_backup_in_every_store() {
    let folder = tempfile::tempdir().unwrap();
    let server = tb::Server::solo(folder.path());
    let record = folder.path().join("record");
    tb::fill(server.address(), &record, 1000, 20_000);
    let before = tb::unix_time();
    let bed = bed(&server.stop());
    let full = bed.snapshot("full");
    let report = bed.json(&["snapshot", "books"]);
    let id = report["manifest"]["id"].as_str().unwrap();
    assert_eq!(report["manifest"]["parent"], full.as_str(), "{report}");
    let urls = ["store", "second"].map(|name| format!("file://{}", bed.path(name).display()));
    assert_eq!(report["manifest"]["copies"], serde_json::json!(urls));
    let copies = report["copies"].as_array().unwrap();
    assert!(copies.len() == 2 && copies.iter().all(|copy| copy["ok"] == true), "{report}");
    // Each store alone is enough, without a configuration.
    let key = format!("file:{}", bed.path("key").display());
    for (index, url) in urls.iter().enumerate() {
        let target = bed.path(&format!("restored-{index}"));
        let words = ["restore", "--id", id, "--yes", "--store", url, "--key", &key, "--to"];
        let words = [&words[..], &[target.to_str().unwrap()]].concat();
        Run::of(&bare(folder.path(), &words).output().unwrap()).done();
        let server = tb::Server::start_existing(&target);
        tb::check(server.address(), &record, before, Ids::Every);
        drop(server.stop());
    }
    bed.run(&["verify", "--id", id, "--store", "second", "--store", "main"]).failed(2, "reads one");
    bed.run(&["list", "books"]).done();
    bed.run(&["verify", "--latest", "books"]).done();
}

#[test]
fn a_store_that_was_away_is_built_on_again_from_what_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let bed = bed(&data_file(folder.path()));
    let full = bed.snapshot("full");
    let away = bed.path("away");
    fs::rename(bed.path("second"), &away).unwrap();
    let report = partial(&bed, "no store at");
    let alone = report["manifest"]["id"].as_str().unwrap().to_owned();
    assert_eq!(report["manifest"]["parent"], full.as_str());
    assert_eq!(report["manifest"].get("copies"), None, "there is one copy: {report}");
    assert_eq!(report["copies"][1]["ok"], false);
    assert!(report["store"].as_str().unwrap().ends_with("/store"), "{report}");

    fs::rename(&away, bed.path("second")).unwrap();
    let report = bed.json(&["snapshot", "books"]);
    let next = report["manifest"]["id"].as_str().unwrap().to_owned();
    assert_eq!(report["manifest"]["parent"], full.as_str(), "both stores have that one");
    assert_eq!(ids(&bed, "main"), [full.clone(), alone, next.clone()]);
    assert_eq!(ids(&bed, "second"), [full, next]);
    for store in ["main", "second"] {
        bed.run(&["verify", "--all", "--store", store, "--level", "decode"]).done();
    }

    // A folder that has lost everything is a disk that is not mounted, not an empty store.
    fs::rename(bed.path("second"), &away).unwrap();
    fs::create_dir(bed.path("second")).unwrap();
    partial(&bed, "is the disk mounted?");
    // The last store fails the run.
    fs::rename(bed.path("store"), bed.path("gone")).unwrap();
    fs::remove_dir_all(bed.path("second")).unwrap();
    bed.run(&["snapshot", "books"]).failed(10, "no store at");
}

#[test]
fn a_store_that_fails_on_the_way_leaves_the_other_its_backup() {
    let folder = tempfile::tempdir().unwrap();
    let file = data_file(folder.path());
    let proxy = Proxy::before(usual().port);
    let bed = Bed::with(&file, "", "compression = \"none\"");
    let more = "part_mib = 5\nretry_seconds = 1";
    second_is(&bed, &usual().table_at(&proxy.endpoint(), "backups", more));
    let always = |target| Rule::new("PUT", target, u32::MAX, Fault::Status(503, "SlowDown"));
    for rule in [always(".tar"), always("manifest.json"), always("leases")] {
        let target = rule.target;
        proxy.plan(&[rule]);
        let report = partial(&bed, "SlowDown");
        proxy.happened();
        let id = report["manifest"]["id"].as_str().unwrap();
        assert!(ids(&bed, "main").contains(&id.to_owned()), "{target}");
        assert!(!ids(&bed, "second").contains(&id.to_owned()), "{target}");
        bed.run(&["verify", "--id", id, "--store", "main", "--level", "decode"]).done();
    }
    let report = bed.json(&["snapshot", "books"]);
    assert_eq!(report["manifest"]["parent"], Value::Null, "nothing is in both: {report}");
    bed.run(&["verify", "--latest", "books", "--store", "second", "--level", "decode"]).done();
}

/// What one store cannot give comes from another one, and is damage all the same.
#[test]
fn what_one_store_cannot_give_comes_from_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let bed = bed(&data_file(folder.path()));
    let id = bed.snapshot("full");
    let data = bed.object(&id, "tar.zst.enc");
    fs::rename(&data, data.with_extension("kept")).unwrap();
    let target = bed.path("target");
    let words = ["restore", "books", "--yes", "--to", target.to_str().unwrap()];
    let run = bed.run(&words).done();
    assert!(run.stderr.contains("trying the copy in store `second`"), "{}", run.stderr);
    bed.run(&["verify", "books"]).failed(13, "store `second` has a copy");
    fs::remove_file(&target).unwrap();
    bed.run(&[&words[..], &["--store", "main"]].concat()).failed(13, &id);
    bed.run(&[&words[..], &["--store", "second"]].concat()).done();
    // Sources that agree on their first store need not be told it.
    let listing = bed.json(&["list"]);
    assert_eq!(listing["backups"][0]["id"], id.as_str());
    bed.run(&["verify", "--all"]).failed_in_text(13, &id);
    bed.run(&["doctor"]).done();
}

/// An empty folder where a disk should be mounted gets nothing, and `doctor` says so.
#[test]
fn an_unmounted_disk_is_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let bed = bed(&data_file(folder.path()));
    bed.snapshot("full");
    fs::rename(bed.path("second"), bed.path("disk")).unwrap();
    fs::create_dir(bed.path("second")).unwrap();
    partial(&bed, "is the disk mounted?");
    assert_eq!(fs::read_dir(bed.path("second")).unwrap().count(), 0);
    bed.run(&["doctor"]).failed_in_text(14, "is the disk mounted?");
}

#[test]
fn the_ledger_names_a_copy_that_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let server = tb::Server::solo(folder.path());
    let source = tempfile::tempdir().unwrap();
    let bed = bed(&data_file(source.path()));
    bed.set_ledger(server.address(), "1m", "");
    let id = bed.snapshot("full");
    bed.run(&["verify", "--ledger"]).done();
    let second = bed.path("second");
    let kept = bed.path("kept");
    fs::create_dir(&kept).unwrap();
    let manifest = bed.object(&id, "manifest.json");
    let copy = second.join(manifest.strip_prefix(bed.path("store")).unwrap());
    fs::rename(&copy, kept.join("manifest")).unwrap();
    let run = bed.run(&["verify", "--ledger"]).failed_in_text(13, "MISSING COPY");
    assert!(run.stdout.contains(&format!("in file://{}", second.display())), "{}", run.stdout);
    fs::copy(&manifest, &copy).unwrap();
    bed.run(&["verify", "--ledger"]).done();
}

/// A backup that is in one store is said to be, whatever happens to the other.
#[test]
fn a_signal_while_the_manifest_is_published_does_not_cut_it_in_two() {
    let folder = tempfile::tempdir().unwrap();
    let file = data_file(folder.path());
    let proxy = Proxy::before(usual().port);
    let bed = Bed::new(&file, "");
    second_is(&bed, &usual().table_at(&proxy.endpoint(), "backups", "retry_seconds = 600"));
    let failing = Fault::Status(503, "SlowDown");
    proxy.plan(&[Rule::new("PUT", "manifest.json", u32::MAX, failing)]);
    let mut command = bed.command(&["snapshot", "books", "--json"]);
    let run = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let wait_for = |requests: u32| {
        let began = Instant::now();
        while proxy.met() < requests {
            assert!(began.elapsed() < Duration::from_mins(2), "{requests} requests");
            std::thread::park_timeout(Duration::from_millis(20));
        }
    };
    wait_for(1);
    kill_process(Pid::from_child(&run), Signal::TERM).unwrap();
    // It goes on trying although it should stop.
    wait_for(proxy.met() + 3);
    proxy.plan(&[]);
    let run = Run::of(&run.wait_with_output().unwrap()).done();
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    let id = report["manifest"]["id"].as_str().unwrap().to_owned();
    for store in ["main", "second"] {
        assert_eq!(ids(&bed, store), std::slice::from_ref(&id));
    }
}

#[test]
fn one_place_cannot_be_two_stores() {
    let folder = tempfile::tempdir().unwrap();
    let bed = Bed::new(&data_file(folder.path()), "");
    second_is(&bed, &format!("url = \"file://{}\"", bed.path("store").display()));
    bed.run(&["snapshot", "books"]).failed(78, "same location as [store.main]");
}

/// The same bucket and prefix at another endpoint is another store.
#[test]
fn two_services_can_have_buckets_of_one_name() {
    let folder = tempfile::tempdir().unwrap();
    let server = tb::Server::solo(folder.path());
    let source = tempfile::tempdir().unwrap();
    let bed = Bed::new(&data_file(source.path()), "");
    let table = usual().table_at(&usual().endpoint(), "backups", "");
    bed.store_is(&table);
    let place = |text: &str| text.lines().next().unwrap().to_owned();
    let other = strict().table_at(&strict().endpoint(), "backups", "");
    second_is(&bed, &other.replace(&place(&other), &place(&table)));
    bed.set_ledger(server.address(), "1m", "");
    let id = bed.snapshot("full");
    bed.run(&["verify", "--ledger"]).done();
    assert_eq!(ids(&bed, "main"), std::slice::from_ref(&id));
    assert_eq!(ids(&bed, "second"), [id]);
}
