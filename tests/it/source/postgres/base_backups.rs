//! Base backups of servers at work: whatever the version and however increments are made, each one restores
//! to what was committed when it ended, and nothing is visible of one that failed.
//!
//! `BKP_TEST_ROUNDS` sets how many are made of each server (default 6), and how often a run is killed
//! (default 4): `BKP_TEST_ROUNDS=20 tests/run.sh base_backups`.

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::logs::numbers;
use crate::support::postgres::access::{Access, REPLICATOR};
use crate::support::postgres::bed::{NO_ARCHIVE, PostgresBed, files, recovered, rounds};
use crate::support::postgres::load::{Load, check};
use crate::support::postgres::{Options, Postgres, Stop, Version, place, shared};

/// Backups of one chain.
const LINKS: usize = 5;

/// What the server's own tool says of a restored folder.
#[track_caller]
fn verified(server: &Access, home: &Path) {
    let data = home.join("data");
    place::own(home);
    server.run("pg_verifybackup", &["--no-parse-wal", data.to_str().unwrap()]).unwrap();
}

#[track_caller]
fn started(server: &Access, home: &Path) -> Postgres {
    recovered(server.version(), home, &Options::of(NO_ARCHIVE)).unwrap()
}

fn id(manifest: &Value) -> &str {
    manifest["id"].as_str().unwrap()
}

/// Makes backups of every scope under load, and restores each of them.
fn chains(version: Version, incremental: &str, how: &str) {
    let server = Postgres::start(version, &Options::default());
    let folder = server.tablespace("beside");
    let bed = PostgresBed::of(&server, &format!("incremental = {incremental:?}"));
    let load = Load::start(&server, "load");
    let mut made = Vec::new();
    for number in 0..rounds(LINKS + 1) {
        load.more(100);
        let scope = match number % (LINKS + 1) {
            0 => "full",
            LINKS => "differential",
            _ => "incremental",
        };
        let low = load.committed();
        let manifest = bed.snapshot(scope);
        let high = load.committed();
        assert_eq!(manifest["scope"], scope, "{manifest}");
        assert_eq!(manifest["capture"]["increments"], how, "{manifest}");
        made.push((manifest, low, high));
    }
    load.stop();
    bed.run(&["verify", "pg", "--level", "decode"]).done();
    for (manifest, low, high) in made {
        let home = bed.restore(&["--id", id(&manifest)]);
        verified(&server, &home);
        let spaces = fs::read_dir(home.join("data/pg_tblspc")).unwrap();
        for link in spaces.map(|link| fs::read_link(link.unwrap().path()).unwrap()) {
            assert!(link.starts_with(&home) && link != folder, "{}", link.display());
        }
        let restored = started(&server, &home);
        let found = check(&restored, "load").unwrap();
        assert!((low..=high).contains(&found.max_n), "{version:?}: {low} {found:?} {high}");
    }
}

#[test]
fn chains_of_changes_that_the_server_tells_restore() {
    for version in Version::all().into_iter().filter(|version| version.summarizes()) {
        chains(version, "auto", "native");
    }
}

#[test]
fn chains_of_changed_blocks_restore() {
    for version in Version::odd() {
        chains(version, if version.summarizes() { "blocks" } else { "auto" }, "blocks");
    }
}

/// Everything below a folder but what a server changes by itself, by path.
fn odd(data: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let of = |path: &PathBuf| path.strip_prefix(data).unwrap().as_os_str().as_bytes().to_vec();
    let is_odd = |path: &PathBuf| of(path).starts_with(b"odd") || of(path).starts_with(b"\xffodd");
    let found = files(data).into_iter().filter(is_odd);
    found
        .map(|path| (path.strip_prefix(data).unwrap().to_owned(), fs::read(&path).unwrap()))
        .collect()
}

/// Names that hardly anything can have, in data folders too, and what changes in such files.
#[test]
fn odd_names_and_empty_folders_come_back() {
    for version in Version::even() {
        for incremental in ["auto", "blocks"] {
            let server = Postgres::start(version, &Options::default());
            let bed = PostgresBed::of(&server, &format!("incremental = {incremental:?}"));
            let data = server.data();
            let put = |name: &[u8], bytes: Vec<u8>| {
                let path = data.join(std::ffi::OsStr::from_bytes(name));
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(&path, bytes).unwrap();
                place::own(&data);
            };
            put(b"odd a file", vec![b'a'; 50_000]);
            put(b"\xffodd\xfe\n", vec![b'b'; 50_000]);
            put(b"odd/plain", vec![b'c'; 50_000]);
            put(b"odd/a folder/\xc3", vec![b'd'; 50_000]);
            put(b"odd/nothing", Vec::new());
            fs::create_dir_all(data.join("odd/empty/below")).unwrap();
            place::own(&data);
            let mut states = vec![(bed.snapshot("full"), odd(&data))];
            // Others of the same kind come and go, and a block of one is another one.
            fs::remove_file(data.join("odd a file")).unwrap();
            put(b"odd b file", vec![b'a'; 50_000]);
            put(b"\xffodd\xfe\n", [vec![b'b'; 20_000], vec![b'x'; 30_000]].concat());
            put(b"odd/a folder/\xc3", vec![b'd'; 9_000]);
            put(b"odd/a folder/new", vec![b'e'; 10]);
            states.push((bed.snapshot("incremental"), odd(&data)));
            put(b"odd a file", vec![b'z'; 70_000]);
            put(b"odd/plain", [vec![b'c'; 9_000], vec![b'y'; 9_000]].concat());
            states.push((bed.snapshot("incremental"), odd(&data)));
            for (manifest, before) in states {
                let home = bed.restore(&["--id", id(&manifest)]);
                verified(&server, &home);
                assert_eq!(odd(&home.join("data")), before, "{version:?} {incremental}");
                assert!(home.join("data/odd/empty/below").is_dir());
                started(&server, &home);
            }
        }
    }
}

/// A page that does not fit its checksum: the server says so at the very end, and nothing is kept.
/// A server's messages, for instance, which many keep in the data folder.
#[test]
fn a_file_longer_than_any_table_comes_back() {
    for version in [Version::V15, Version::V17] {
        let server = Postgres::start(version, &Options::default());
        let bed = PostgresBed::of(&server, "incremental = \"blocks\"");
        let path = server.data().join("messages");
        let long = File::create(&path).unwrap();
        long.set_len((1 << 30) - 8192).unwrap();
        long.write_all_at(b"begin", 0).unwrap();
        place::own(&path);
        bed.snapshot("full");
        // Longer than what is compared by blocks, then changed, then short again.
        let ends = [(1_u64 << 30) + 100_000, (1 << 30) + 200_000, 50_000];
        for (number, end) in ends.into_iter().enumerate() {
            long.set_len(end).unwrap();
            long.write_all_at(format!("{number}").as_bytes(), end - 10).unwrap();
            let manifest = bed.snapshot("incremental");
            let home = bed.restore(&["--id", id(&manifest)]);
            verified(&server, &home);
            let restored = File::open(home.join("data/messages")).unwrap();
            assert_eq!(restored.metadata().unwrap().len(), end);
            let mut bytes = [0; 10];
            restored.read_exact_at(&mut bytes, end - 10).unwrap();
            assert!(bytes.starts_with(format!("{number}").as_bytes()), "{version:?}: {bytes:?}");
        }
    }
}

#[test]
fn a_damaged_page_leaves_nothing_behind() {
    for version in Version::all() {
        let mut server = Postgres::start(version, &Options::default());
        let bed = PostgresBed::of(&server, "");
        server.sql("create table t as select n, md5(n::text) from generate_series(1, 20000) n");
        let whole = bed.snapshot("full");
        let before = bed.manifests();
        let relation = server.sql("checkpoint;\nselect pg_relation_filepath('t')");
        server.stop(Stop::Fast);
        let path = server.data().join(&relation);
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let (place, mut byte) = (5 * 8192 + 3000, [0]);
        file.read_exact_at(&mut byte, place).unwrap();
        file.write_all_at(&[byte[0] ^ 0x40], place).unwrap();
        server.launch().unwrap();
        bed.serve(&server, "");
        for scope in ["full", "incremental"] {
            let run = bed.run(&["snapshot", "pg", "--scope", scope]);
            // What only changed blocks are sent of, an increment does not look at.
            let is_blind = scope == "incremental" && version.summarizes();
            if is_blind && run.code == Some(0) {
                continue;
            }
            run.failed(15, "checksum");
            assert_eq!(bed.manifests(), before, "{version:?}");
        }
        let home = bed.restore(&["--id", id(&whole)]);
        let restored = started(&server, &home);
        assert_eq!(restored.sql("select count(*), count(distinct md5) from t"), "20000|20000");
    }
}

#[test]
fn another_cluster_of_the_same_name_begins_a_chain() {
    for version in Version::all() {
        let first = shared(version);
        let bed = PostgresBed::of(first, "");
        let full = bed.snapshot("full");
        let second = Postgres::start(version, &Options::default());
        second.sql("create table only_here as select 1 as one");
        bed.serve(&second, "");
        let other = bed.snapshot("auto");
        assert_eq!(other["scope"], "full", "{other}");
        assert_ne!(other["capture"]["system"], full["capture"]["system"]);
        let next = bed.snapshot("incremental");
        assert_eq!(next["base"], other["id"], "{next}");
        let home = bed.restore(&["pg"]);
        assert_eq!(started(&second, &home).sql("select one from only_here"), "1");
        let home = bed.restore(&["--id", id(&full)]);
        assert!(started(first, &home).try_sql("postgres", "select one from only_here").is_err());
    }
}

/// What keeps a backup from being made is said with the server's address.
#[test]
fn whoever_is_not_let_in_learns_why() {
    for version in Version::all() {
        let server = shared(version);
        server.sql(
            "drop role if exists no_copies;\ncreate role no_copies login password 'secret word'",
        );
        let bed = PostgresBed::of(server, "");
        let source = |port: u16, role: &str, password: &str| {
            bed.write("other", password);
            let address = format!("host=127.0.0.1 port={port} user={role}");
            bed.source(&format!("conninfo = {address:?}\npassword = \"file:other\"\n"));
            bed.run(&["snapshot", "pg"])
        };
        let place = format!("127.0.0.1:{}", server.port());
        let no_right = source(server.port(), "no_copies", "secret word").failed(15, &place);
        assert!(no_right.stderr.to_lowercase().contains("replication"), "{}", no_right.stderr);
        let wrong = source(server.port(), REPLICATOR, "not it").failed(15, &place);
        assert!(wrong.stderr.contains(REPLICATOR), "{}", wrong.stderr);
        assert!(!format!("{}{}", wrong.stderr, wrong.stdout).contains("not it"));
        source(1, REPLICATOR, "not it").failed(15, "127.0.0.1:1");
        assert!(bed.manifests().is_empty());
    }
}

/// Runs a command and kills it after some time; whether that ended it.
#[track_caller]
fn killed_after(bed: &PostgresBed, words: &[&str], time: Duration) -> bool {
    // What was killed holds the lease of its store for a while.
    let _none = fs::remove_dir_all(bed.path("store/leases"));
    let mut command = bed.command(words);
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut child = command.spawn().unwrap();
    std::thread::sleep(time);
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert!(status.success() || status.signal() == Some(9), "{status}");
    !status.success()
}

#[test]
fn killed_backups_and_restores_are_whole_or_not_there() {
    for version in Version::odd() {
        let server = Postgres::start(version, &Options::default());
        server.tablespace("beside");
        let bed = PostgresBed::of(&server, "");
        let load = Load::start(&server, "load");
        load.more(100);
        let began = Instant::now();
        let full = bed.snapshot("full");
        let usual = u64::try_from(began.elapsed().as_millis()).unwrap();
        let mut moments = numbers(u64::from(version.number()), usual + 1);
        for _ in 0..rounds(4) {
            let before = bed.manifests().len();
            let time = Duration::from_millis(moments.next().unwrap());
            let ended = killed_after(&bed, &["snapshot", "pg", "--scope", "incremental"], time);
            assert!(ended || bed.manifests().len() > before, "{version:?} after {time:?}");
        }
        // One that was killed after its last word is there; whatever is there is whole.
        bed.run(&["verify", "--all", "--level", "decode"]).done();
        load.more(50);
        let low = load.committed();
        let report = bed.json(&["snapshot", "pg", "--scope", "incremental", "--wait-lock", "10m"]);
        load.stop();
        let target = place::home();
        let data = target.join("data");
        let newest = id(&report["manifest"]).to_owned();
        let words = ["restore", "--id", &newest, "--yes", "--to", data.to_str().unwrap()];
        for _ in 0..rounds(4) {
            let time = Duration::from_millis(moments.next().unwrap() / 2);
            let ended = killed_after(&bed, &words, time);
            assert!(ended || data.exists(), "{version:?} after {time:?}");
            if data.exists() {
                verified(&server, &target);
                fs::remove_dir_all(&target).unwrap();
                fs::create_dir(&target).unwrap();
                place::own(&target);
            }
        }
        bed.run(&words).done();
        verified(&server, &target);
        let restored = started(&server, &target);
        assert!(check(&restored, "load").unwrap().max_n >= low);
        bed.run(&["verify", "--id", id(&full), "--level", "decode"]).done();
    }
}
