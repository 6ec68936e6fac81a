//! Copies that are sealed anew, with a ledger, with logs, for a public key, and beside a key set.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::bed::{Bed, Run};
use crate::support::books::{Books, assert_same_transfers};
use crate::support::logs::{numbers, restore_at, with_server};
use crate::support::postgres::bed::{NO_ARCHIVE, PostgresBed, recovered, system};
use crate::support::postgres::load::{Load, check};
use crate::support::postgres::{Options, Version, place};
use crate::support::s3::usual;
use crate::support::sealed::{generate, on};
use crate::support::second::{
    assert_opens_alone, database, empty, listed, stored, with_second, with_table,
};
use crate::support::tb;

const RESEAL: [&str; 6] = ["replicate", "--to", "off", "--reseal", "--key", "file:key"];

/// Has backups made for a new key from now on.
fn rotate(bed: &Bed) {
    bed.run(&["keys", "generate", "new"]).done();
    bed.recipients_are(&["file:new"]);
}

fn report(run: &Run) -> Value {
    serde_json::from_str(&run.stdout).unwrap()
}

/// Events of copies are told apart from the backup's own, and the balances stay right, whichever copy is left.
#[test]
fn the_ledger_balances_for_each_store() {
    let folder = tempfile::tempdir().unwrap();
    let server = tb::Server::solo(folder.path());
    let file = folder.path().join("books.tigerbeetle");
    tb::format(&file, 0, 1);
    let bed = Bed::new(&file, "");
    let service = usual();
    let table = service.table_at(&service.endpoint(), "backups", "");
    with_table(&bed, &format!("[store.off]\n{table}\n"));
    fs::create_dir(bed.path("third")).unwrap();
    // Its name comes before that of the first store.
    let third = format!("[store.again]\nurl = \"file://{}\"\n", bed.path("third").display());
    with_table(&bed, &third);
    bed.set_ledger(server.address(), "2m", "");
    bed.snapshot("full");
    bed.snapshot("incremental");
    rotate(&bed);
    let words = [&RESEAL[..], &["--from", "main"]].concat();
    bed.run(&words).done();
    fs::rename(bed.path("key"), bed.path("lost.key")).unwrap();
    bed.run(&["verify", "--all", "--store", "off", "--level", "decode"]).done();
    bed.run(&["verify", "--ledger"]).done();
    let events = bed.json(&["list", "--from-ledger"]);
    let events = events["events"].as_array().unwrap();
    assert_eq!(
        events.iter().filter(|event| event["status"] == "resealed").count(),
        2,
        "{events:?}"
    );

    // A copy that the ledger was not told of is named, and recorded once a key proves it.
    bed.set_ledger("", "2m", "");
    bed.run(&["replicate", "--to", "again", "--from", "off", "--reseal"]).done();
    bed.set_ledger(server.address(), "2m", "");
    let run = bed.run(&["verify", "--ledger"]);
    assert_eq!(run.code, Some(13), "{}", run.stdout);
    assert!(run.stdout.contains("UNRECORDED") && !run.stdout.contains("BALANCE"), "{}", run.stdout);
    bed.run(&["verify", "--ledger", "--record"]).done();
    bed.run(&["verify", "--ledger"]).done();
    // Only copies are left.
    let store = bed.path("store/tigerbeetle");
    fs::rename(&store, bed.path("gone")).unwrap();
    bed.run(&["verify", "--ledger"]).done();
    // What somebody puts in the place of one is no copy that bkp made.
    let third = bed.path("third");
    let keys = stored(&third).into_keys();
    for key in keys.filter(|key| key.ends_with(".manifest.json")).take(1) {
        let text = fs::read_to_string(third.join(&key)).unwrap();
        fs::write(third.join(&key), text.replace("\"host\":", "\"host\": ")).unwrap();
        let run = bed.run(&["verify", "--ledger"]);
        assert_eq!(run.code, Some(13), "{}", run.stdout);
        fs::write(third.join(&key), text).unwrap();
    }
    bed.run(&["verify", "--ledger"]).done();
}

/// Segments name the one before as it was made, so a log goes on from its copy.
#[test]
fn a_log_of_tigerbeetle_goes_on_from_its_copy() {
    let folder = tempfile::tempdir().unwrap();
    let server = tb::Server::solo(folder.path());
    let mut books = Books::begin(server.address(), 23);
    let bed = Bed::new(server.data_file(), server.address());
    with_second(&bed, "");
    let step = |books: &mut Books| (0..20).for_each(|_| books.step());
    step(&mut books);
    bed.snapshot("full");
    for _ in 0..2 {
        step(&mut books);
        bed.run(&["logs", "books"]).done();
    }
    rotate(&bed);
    let done = report(&bed.run(&[&RESEAL[..], &["--json"]].concat()).done());
    assert_eq!(done["copied"], 3, "{done}");
    fs::rename(bed.path("key"), bed.path("lost.key")).unwrap();
    assert_opens_alone(&bed.path("off"), &bed.path("new"), &bed.path("lost.key"));
    bed.run(&["verify", "books", "--logs", "--store", "off"]).done();
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    fs::write(bed.path("bkp.toml"), config.replace("store = \"main\"", "store = \"off\"")).unwrap();
    step(&mut books);
    let moment = books.moment();
    step(&mut books);
    let original = books.transfers();
    let shipped = bed.json(&["logs", "books"]);
    assert_eq!(shipped["gap"], Value::Null, "{shipped}");
    bed.run(&["verify", "books", "--logs"]).done().failed_in_text(0, "unbroken");
    // Sealed anew once more, with what was shipped since.
    let third = bed.path("third");
    fs::create_dir(&third).unwrap();
    let url = format!("file://{}", third.display());
    bed.run(&["replicate", "--from", "off", "--to", &url, "--reseal"]).done();
    bed.run(&["verify", "books", "--logs", "--store", &url]).done().failed_in_text(0, "unbroken");
    drop(server);
    fs::remove_dir_all(bed.path("store")).unwrap();
    let at = bkp::domain::timestamp::spelled(moment.at).unwrap();
    let (restored, _) = restore_at(&bed, "books", &["--at", &at]);
    with_server(&restored, |restored| assert_same_transfers(restored, &original, moment.at));
}

/// Files of a log have a seal each, and a moment restores from the copies with the new key alone.
#[test]
fn a_log_of_postgres_opens_with_the_new_key_alone() {
    let Some(version) = Version::any() else { return };
    let (server, bed) = PostgresBed::archiving(version, "");
    let off = bed.path("off");
    fs::create_dir(&off).unwrap();
    place::own(&off);
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    let table = format!("[store.off]\nurl = \"file://{}\"\n[keys]", off.display());
    let config = config
        .replace("[keys]", &table)
        .replace("kind = \"postgres\"", "kind = \"postgres\"\nstore = \"main\"");
    bed.write("bkp.toml", &config);
    let load = Load::start(&server, "load");
    load.more(30);
    bed.snapshot("full");
    load.more(50);
    let last = load.stop();
    bed.archived(&server);
    bed.ship();
    bed.run(&["keys", "generate", "new"]).done();
    let line = config.lines().find(|line| line.starts_with("recipients = ")).unwrap();
    bed.write("bkp.toml", &config.replace(line, "recipients = [\"file:new\"]"));
    let words = [&RESEAL[..], &["--json"]].concat();
    let first = report(&bed.run(&words).done());
    let files = first["log_files"].as_u64().unwrap();
    assert!(files > 3, "{first}");
    let (here, there) = (stored(&bed.path("store")), stored(&off));
    assert!(here.keys().eq(there.keys()), "{:?} {:?}", here.keys(), there.keys());
    assert!(here.values().zip(there.values()).all(|(here, there)| here != there));
    // A run that seals anew, and one that does not, find all of it there.
    assert_eq!(report(&bed.run(&words).done())["log_files"], 0);
    let plain = ["replicate", "--to", "off", "--key", "file:key", "--key", "file:new", "--json"];
    let again = report(&bed.run(&plain).done());
    assert_eq!((&again["log_files"], &again["copied"]), (&0.into(), &0.into()), "{again}");

    // What is gone is filled; what was cut or is another one's is named.
    let wal = off.join(format!("postgres/pg/wal/{}/00000001", system(&server)));
    let mut files: Vec<PathBuf> =
        fs::read_dir(&wal).unwrap().map(|item| item.unwrap().path()).collect();
    files.sort();
    fs::remove_file(&files[0]).unwrap();
    assert_eq!(report(&bed.run(&words).done())["log_files"], 1);
    let sealed = fs::read(&files[1]).unwrap();
    fs::write(&files[1], &sealed[..sealed.len() - 1]).unwrap();
    let cut = bed.run(&plain);
    assert_eq!(cut.code, Some(3), "{}", cut.stdout);
    let origin = bed.path("store").join(files[1].strip_prefix(&off).unwrap());
    fs::copy(&origin, &files[1]).unwrap();
    place::own(&files[1]);
    let run = bed.run(&words);
    assert_eq!(run.code, Some(3), "{}", run.stdout);
    assert!(run.stdout.contains("sealed for keys that are not configured"), "{}", run.stdout);
    // One that is damaged where it comes from gets no seal.
    fs::remove_file(&files[1]).unwrap();
    let original = fs::read(&origin).unwrap();
    let mut wrong = original.clone();
    *wrong.last_mut().unwrap() ^= 1;
    fs::write(&origin, wrong).unwrap();
    assert_eq!(bed.run(&words).code, Some(3));
    assert!(!files[1].exists());
    fs::write(&origin, original).unwrap();
    assert_eq!(report(&bed.run(&words).done())["log_files"], 1);

    fs::rename(bed.path("key"), bed.path("lost.key")).unwrap();
    assert_opens_alone(&off, &bed.path("new"), &bed.path("lost.key"));
    bed.run(&["verify", "pg", "--logs", "--store", "off"]).done();
    let home = bed.restore(&["pg", "--at", "latest", "--store", "off"]);
    let restored = recovered(version, &home, &Options::of(NO_ARCHIVE)).unwrap();
    assert_eq!(check(&restored, "load").unwrap().max_n, last);
}

/// A host that seals for a public key opens none of its copies, and continues them all the same.
#[test]
fn copies_for_a_public_key_are_continued_and_open_elsewhere() {
    let (_folder, _file, bed) = database("");
    let public = generate(&bed, "--age", "identity");
    let signer = generate(&bed, "--signing", "signing.key");
    bed.recipients_are(&[&public]);
    bed.run(&RESEAL).failed(78, "backups have to be signed");
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    let signing = "[keys]\nsigning_key = \"file:signing.key\"";
    fs::write(bed.path("bkp.toml"), config.replace("[keys]", signing)).unwrap();
    let began = Instant::now();
    bed.run(&RESEAL).done();
    let usual = u64::try_from(began.elapsed().as_micros()).unwrap();
    empty(&bed);
    let mut kills = 0;
    for after in numbers(11, usual).take(8) {
        if kills % 4 == 3 {
            empty(&bed);
        }
        let mut child =
            bed.command(&[&RESEAL[..], &["--wait-lock", "5m"]].concat()).spawn().unwrap();
        std::thread::park_timeout(Duration::from_micros(after));
        child.kill().unwrap();
        kills += u64::from(child.wait().unwrap().code().is_none());
    }
    assert!(kills > 0);
    bed.run(&[&RESEAL[..], &["--wait-lock", "5m"]].concat()).done();
    assert_eq!(listed(&bed, "off"), listed(&bed, "main"));
    let kept = fs::read_dir(bed.path("state/resealing")).unwrap().count();
    assert_eq!(kept, 0, "nothing is kept of copies that are whole");
    let words = ["verify", "--all", "--store", "off", "--level", "decode"];
    assert_eq!(bed.run(&words).code, Some(12), "this host has no key for them");
    let lines = |trust: &str| format!("recipients = [\"age:file:identity\"]\ntrust = [{trust}]");
    let reader =
        |trust: &str| Run::of(&on(&bed, "reader", &lines(trust), &words).output().unwrap());
    reader(&format!("{signer:?}")).done();
    assert_eq!(reader("").code, Some(14), "nobody vouches for them");
}

/// A key set is refused by name, since its keys open no copy; one that is taken afterwards opens both.
#[test]
fn a_key_set_is_taken_anew() {
    let (_folder, _file, bed) = database("");
    bed.run(&["keys", "generate", "recovery.key"]).done();
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    let set = "[source.recovery]\nkind = \"keys\"\nstore = \"main\"\n  recipients = [\"file:recovery.key\"]\n";
    fs::write(bed.path("bkp.toml"), config + set).unwrap();
    bed.run(&["snapshot", "recovery"]).done();
    rotate(&bed);
    let run = bed.run(&[&RESEAL[..], &["--json"]].concat());
    let done = report(&run);
    assert_eq!(
        (run.code, &done["copied"], &done["failed"]),
        (Some(3), &4.into(), &1.into()),
        "{done}"
    );
    assert!(done["items"].to_string().contains("bkp snapshot recovery"), "{done}");
    bed.run(&["replicate", "analytics", "--to", "off", "--reseal", "--key", "file:key"]).done();
    let both = ["--key", "file:key", "--key", "file:new"];
    let made = bed.json(&[&["snapshot", "recovery"], &both[..]].concat());
    assert_eq!(made["manifest"]["capture"]["backups"], 8, "{made}");
    let file = bed.path("keyset.jsonl");
    let words = ["--key", "file:recovery.key", "restore", "recovery", "--yes", "--to"];
    bed.run(&[&words[..], &[file.to_str().unwrap()]].concat()).done();
    for key in ["key", "new"] {
        fs::rename(bed.path(key), bed.path(&format!("lost-{key}"))).unwrap();
    }
    for store in ["main", "off"] {
        for id in listed(&bed, store).iter().take(4) {
            let words = ["verify", "--id", id, "--store", store, "--level", "decode"];
            let with = ["--key", "file:recovery.key", "--with-keyset", "keyset.jsonl"];
            bed.run(&[&words[..], &with].concat()).done();
        }
    }
}

/// A backup of more objects than its manifest has room for; what is not sealed is copied byte for byte, and what an
/// earlier run made of it is taken over, its list of objects too.
#[test]
fn a_replica_of_many_files_is_taken_over() {
    for encryption in ["aes256-gcm", "none"] {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..1100 {
            fs::write(folder.path().join(format!("{number}")), number.to_string()).unwrap();
        }
        let path = folder.path();
        let bed = Bed::of_source(&format!(
            "[source.tier]\nkind = \"parquet\"\nstore = \"main\"\npath = {path:?}\nfiles = [\"**/*\"]\nencryption = {encryption:?}\n"
        ));
        with_second(&bed, "");
        bed.run(&["replicate", "tier"]).done();
        fs::write(path.join("7"), "more").unwrap();
        bed.run(&["replicate", "tier"]).done();
        rotate(&bed);
        bed.run(&RESEAL).done();
        let (here, there) = (stored(&bed.path("store")), stored(&bed.path("off")));
        assert!(here.keys().eq(there.keys()) && here.len() > 1100);
        let same = here.iter().filter(|(key, bytes)| there.get(*key) == Some(bytes)).count();
        assert_eq!(same > 1000, encryption == "none", "{same} of {}", here.len());
        // Killed right before the manifests.
        for key in there.keys().filter(|key| key.ends_with(".manifest.json")) {
            fs::remove_file(bed.path("off").join(key)).unwrap();
        }
        bed.run(&RESEAL).done();
        let again = stored(&bed.path("off"));
        for (key, bytes) in again.iter().filter(|(key, _)| !key.ends_with(".manifest.json")) {
            assert!(there.get(key) == Some(bytes), "{key}");
        }
        fs::rename(bed.path("key"), bed.path("lost.key")).unwrap();
        assert_opens_alone(&bed.path("off"), &bed.path("new"), &bed.path("lost.key"));
        bed.run(&["verify", "--all", "--store", "off", "--level", "decode"]).done();
        let home = bed.path("home");
        let words = ["restore", "tier", "--store", "off", "--yes", "--to"];
        bed.run(&[&words[..], &[home.to_str().unwrap()]].concat()).done();
        assert_eq!(fs::read_to_string(home.join("7")).unwrap(), "more");
        assert_eq!(fs::read_to_string(home.join("1099")).unwrap(), "1099");
    }
}
