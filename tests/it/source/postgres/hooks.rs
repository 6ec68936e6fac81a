//! `archive_command` and `restore_command`: nothing is lost, nothing is overwritten, and no server is promoted
//! because a file could not be brought.
//!
//! `BKP_TEST_ROUNDS` sets how often a hook is killed (default 6): `BKP_TEST_ROUNDS=60 tests/run.sh hooks`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::bed::Run;
use crate::support::kms::{REGIONS, kms, new_key, recipient};
use crate::support::logs::numbers;
use crate::support::postgres::bed::{
    NO_ARCHIVE, PostgresBed, files, recovered, rounds, switched, system,
};
use crate::support::postgres::load::{Load, check};
use crate::support::postgres::{Options, Postgres, Version, place, shared};
use crate::support::s3::proxy::{Fault, Proxy, Rule};
use crate::support::s3::usual;
use crate::support::wait::until;

/// A folder like that of a server, with its control file and no more.
struct Folder {
    data: PathBuf,
    system: String,
}

impl Folder {
    fn of(server: &Postgres) -> Folder {
        let data = place::home();
        fs::create_dir_all(data.join("global")).unwrap();
        fs::create_dir_all(data.join("pg_wal/archive_status")).unwrap();
        let control = server.data().join("global/pg_control");
        fs::copy(control, data.join("global/pg_control")).unwrap();
        place::own(&data);
        Folder { data, system: system(server) }
    }

    fn put(&self, file: &str, bytes: &[u8]) {
        let path = self.path(file);
        fs::write(&path, bytes).unwrap();
        place::own(&path);
    }

    fn path(&self, file: &str) -> PathBuf {
        self.data.join("pg_wal").join(file)
    }

    fn push(&self, bed: &PostgresBed, file: &str) -> Run {
        bed.push(&self.data, &format!("pg_wal/{file}"))
    }

    /// What a recovery would get; its code if it got nothing.
    fn fetch(&self, bed: &PostgresBed, file: &str) -> Result<Vec<u8>, i32> {
        let target = self.path("RECOVERYXLOG");
        let _earlier = fs::remove_file(&target);
        let run = bed.fetch(&self.data, file, "pg_wal/RECOVERYXLOG");
        match run.code {
            Some(0) => Ok(fs::read(target).unwrap()),
            code => {
                assert!(!target.exists(), "{file}: {code:?}, and a file is there");
                Err(code.unwrap())
            }
        }
    }

    /// Forgets what was fetched ahead.
    fn forget(bed: &PostgresBed) {
        let _none = fs::remove_dir_all(bed.path("state/log-files"));
    }
}

/// Segments of a server that it has finished, with their names, oldest first.
fn segments(server: &Postgres, count: usize) -> Vec<(String, Vec<u8>)> {
    let take = |_| {
        let name = switched(server);
        let bytes = fs::read(server.data().join("pg_wal").join(&name)).unwrap();
        (name, bytes)
    };
    (0..count).map(take).collect()
}

/// A name that is so much later.
fn later(name: &str, more: u64) -> String {
    let (timeline, rest) = name.split_at(8);
    let number = u64::from_str_radix(&rest[..8], 16).unwrap() * 256
        + u64::from_str_radix(&rest[8..], 16).unwrap()
        + more;
    format!("{timeline}{:08X}{:08X}", number / 256, number % 256)
}

#[test]
fn a_file_is_archived_once_and_never_overwritten() {
    for version in Version::all() {
        let server = shared(version);
        let bed = PostgresBed::of(server, "");
        let folder = Folder::of(server);
        let (name, bytes) = segments(server, 1).remove(0);
        folder.put(&name, &bytes);
        folder.push(&bed, &name).done();
        let object = bed.object(&folder.system, &name);
        let stored = fs::read(&object).unwrap();
        folder.push(&bed, &name).done();
        assert_eq!(fs::read(&object).unwrap(), stored);
        // The last bytes of a segment that was ended early are zeros that nothing checks.
        let mut other = bytes.clone();
        *other.last_mut().unwrap() ^= 1;
        folder.put(&name, &other);
        folder.push(&bed, &name).failed(14, &name);
        assert_eq!(fs::read(&object).unwrap(), stored);
        assert_eq!(folder.fetch(&bed, &name).unwrap(), bytes);
        let history = b"1\t0/3000000\tno recovery target specified\n".as_slice();
        let label = format!("{name}.00000028.backup");
        let partial = format!("{name}.partial");
        for (file, content, other) in [
            ("00000002.history", history, b"1\t0/4000000\tanother\n".as_slice()),
            (&label, b"START WAL LOCATION: 0/28".as_slice(), b"another"),
            (&partial, &bytes, &other),
        ] {
            folder.put(file, content);
            folder.push(&bed, file).done();
            folder.push(&bed, file).done();
            assert_eq!(folder.fetch(&bed, file).unwrap(), content, "{file}");
            folder.put(file, other);
            folder.push(&bed, file).failed(14, file);
            assert_eq!(folder.fetch(&bed, file).unwrap(), content, "{file}");
        }
        // What is no such file, or has the name of another one.
        folder.put("postgresql.conf", b"x");
        assert_eq!(folder.push(&bed, "postgresql.conf").code, Some(2));
        folder.put(&later(&name, 7), &bytes);
        folder.push(&bed, &later(&name, 7)).failed(14, &later(&name, 7));
        assert_eq!(folder.push(&bed, &later(&name, 8)).code, Some(15));
    }
}

#[test]
fn a_file_of_another_cluster_is_refused() {
    for version in Version::all() {
        let server = shared(version);
        let bed = PostgresBed::of(server, "");
        let folder = Folder::of(server);
        let (name, bytes) = segments(server, 1).remove(0);
        let other = Postgres::start(version, &Options::default());
        let of_other = Folder::of(&other);
        of_other.put(&name, &bytes);
        of_other.push(&bed, &name).failed(14, &of_other.system);
        assert!(files(&bed.path("store/postgres")).is_empty());
        folder.put(&name, &bytes);
        folder.push(&bed, &name).done();
    }
}

/// A server goes on handing a file over, and counts that, until the store is back.
#[test]
fn a_store_that_is_away_delays_and_loses_nothing() {
    for version in Version::all() {
        let (server, bed) = PostgresBed::archiving(version, "");
        let first = bed.archived(&server);
        let (store, away) = (bed.path("store"), bed.path("away"));
        fs::rename(&store, &away).unwrap();
        fs::write(&store, "not a folder").unwrap();
        let name = switched(&server);
        let failed = "select failed_count >= 3 from pg_stat_archiver";
        until("three failures are counted", || server.sql(failed) == "t");
        let folder = Folder::of(&server);
        folder.put(&name, &fs::read(server.data().join("pg_wal").join(&name)).unwrap());
        let code = folder.push(&bed, &name).code.unwrap();
        assert!((1..=125).contains(&code), "{code}");
        assert_eq!(folder.fetch(&bed, &name), Err(126));
        assert_eq!(folder.fetch(&bed, &later(&name, 100)), Err(126));
        let archiver = "select count(*) from pg_stat_activity where backend_type = 'archiver'";
        assert_eq!(server.sql(archiver), "1");
        fs::remove_file(&store).unwrap();
        assert_eq!(folder.fetch(&bed, &first), Err(126));
        fs::rename(&away, &store).unwrap();
        // It looks again when there is more, or once a minute.
        switched(&server);
        let object = bed.object(&folder.system, &name);
        until("it is archived when the store is back", || object.exists());
        let done = format!("select last_archived_wal >= '{name}' from pg_stat_archiver");
        until("the server knows", || server.sql(&done) == "t");
        let bytes = fs::read(server.data().join("pg_wal").join(&name)).unwrap();
        assert_eq!(folder.fetch(&bed, &name).unwrap(), bytes);
    }
}

#[test]
fn a_backlog_drains_several_files_at_a_time() {
    for version in Version::all() {
        let bed = PostgresBed::new();
        let off = bed.options().and(&[("archive_command", "false")]);
        let server = Postgres::start(version, &off);
        bed.serve(&server, "");
        let made = segments(&server, 9);
        let first = &made[0].0;
        let system = system(&server);
        bed.push(&server.data(), &format!("pg_wal/{first}")).done();
        let there = |name: &str| bed.object(&system, name).exists();
        let count = made.iter().filter(|(name, _)| there(name)).count();
        assert!(count >= 8, "{version:?}: {count} of 9");
        let push = bed.hook("--push %p");
        server.sql(&format!("alter system set archive_command = '{push}'"));
        server.sql("select pg_reload_conf()");
        let last = &made[8].0;
        let done = format!("select last_archived_wal >= '{last}' from pg_stat_archiver");
        until("the server knows all of them", || server.sql(&done) == "t");
        assert_eq!(server.sql("select pg_reload_conf() is not null"), "t");
        let folder = Folder::of(&server);
        for (name, bytes) in made {
            assert_eq!(folder.fetch(&bed, &name).unwrap(), bytes, "{name}");
        }
    }
}

/// What was archived ahead is known when it is handed over, unless it was written to in between.
#[test]
fn a_file_that_changed_after_it_was_archived_ahead_is_refused() {
    let server = shared(Version::V17);
    let bed = PostgresBed::of(server, "");
    let folder = Folder::of(server);
    let made = segments(server, 3);
    for (name, bytes) in &made {
        folder.put(name, bytes);
        folder.put(&format!("archive_status/{name}.ready"), b"");
    }
    // A file that was written to just now may be written to again without another time.
    std::thread::sleep(Duration::from_secs(4));
    folder.push(&bed, &made[0].0).done();
    let notes = || fs::read_dir(bed.path("state/log-files/pg").join(&folder.system).join("pushed"));
    assert_eq!(notes().unwrap().count(), 2);
    for (name, _) in &made {
        assert!(bed.object(&folder.system, name).exists(), "{name}");
    }
    // A store that has joined since, and is away, has none of it.
    let away = bed.path("away");
    let joined =
        format!("store = [\"main\", \"away\"]\n[store.away]\nurl = \"file://{}\"", away.display());
    bed.serve(server, &joined);
    assert_ne!(folder.push(&bed, &made[1].0).code, Some(0));
    bed.serve(server, "");
    folder.push(&bed, &made[1].0).done();
    let (name, bytes) = &made[2];
    let mut other = bytes.clone();
    *other.last_mut().unwrap() ^= 1;
    // The same file, as long as before.
    folder.put(name, &other);
    folder.push(&bed, name).failed(14, name);
    assert_eq!(folder.fetch(&bed, name).unwrap(), *bytes);
    folder.put(name, bytes);
    folder.push(&bed, name).done();
}

/// Whenever a hook is killed, a file is in the archive whole or not at all, and the next try works.
#[test]
fn a_killed_hook_loses_nothing() {
    for version in Version::all() {
        let server = shared(version);
        let bed = PostgresBed::of(server, "");
        let folder = Folder::of(server);
        let usual = {
            let (name, bytes) = segments(server, 1).remove(0);
            folder.put(&name, &bytes);
            let began = Instant::now();
            folder.push(&bed, &name).done();
            u64::try_from(began.elapsed().as_millis()).unwrap()
        };
        let mut moments = numbers(u64::from(version.number()), usual + 5);
        let mut killed = |words: &[&str]| {
            let mut command = bed.command_in(&folder.data, words);
            command.stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            std::thread::sleep(Duration::from_millis(moments.next().unwrap()));
            child.kill().unwrap();
            child.wait().unwrap();
        };
        for (name, bytes) in segments(server, rounds(6)) {
            folder.put(&name, &bytes);
            killed(&["logs", "pg", "--push", &format!("pg_wal/{name}")]);
            if bed.object(&folder.system, &name).exists() {
                Folder::forget(&bed);
                assert_eq!(folder.fetch(&bed, &name).unwrap(), bytes, "{name}");
            }
            folder.push(&bed, &name).done();
            let target = folder.path("RECOVERYXLOG");
            let _earlier = fs::remove_file(&target);
            killed(&["logs", "pg", "--fetch", &name, "pg_wal/RECOVERYXLOG"]);
            if target.exists() {
                assert_eq!(fs::read(&target).unwrap(), bytes, "{name}");
            }
            assert_eq!(folder.fetch(&bed, &name).unwrap(), bytes, "{name}");
        }
    }
}

#[test]
fn a_file_is_absent_only_when_that_is_proven() {
    for version in Version::all() {
        let server = shared(version);
        let bed = PostgresBed::of(server, "");
        let folder = Folder::of(server);
        let made = segments(server, 5);
        let name = |at: usize| made[at].0.as_str();
        // Nothing was ever archived: that is the end of a log, too.
        assert_eq!(folder.fetch(&bed, name(0)), Err(1));
        for (name, bytes) in &made {
            folder.put(name, bytes);
            folder.push(&bed, name).done();
        }
        for (name, bytes) in &made {
            assert_eq!(&folder.fetch(&bed, name).unwrap(), bytes);
        }
        assert_eq!(folder.fetch(&bed, &later(name(4), 1)), Err(1));
        assert_eq!(folder.fetch(&bed, &later(name(4), 300)), Err(1));
        assert_eq!(
            folder.fetch(&bed, &later(name(0), 0).replacen("00000001", "00000002", 1)),
            Err(1)
        );
        assert_eq!(folder.fetch(&bed, "00000002.history"), Err(1));
        assert_eq!(folder.fetch(&bed, "00000001.history"), Err(1), "there is none");
        // Of another one there is, as soon as it has segments.
        let of_next = bed.object(&folder.system, name(0));
        let of_next = of_next.to_str().unwrap().replace("/00000001", "/00000002");
        fs::create_dir_all(Path::new(&of_next).parent().unwrap()).unwrap();
        fs::write(&of_next, "a segment").unwrap();
        place::own(&bed.path("store"));
        assert_eq!(folder.fetch(&bed, "00000002.history"), Err(126));
        fs::remove_file(&of_next).unwrap();
        Folder::forget(&bed);
        let object = |at: usize| bed.object(&folder.system, name(at));
        let whole = fs::read(object(2)).unwrap();
        fs::remove_file(object(2)).unwrap();
        assert_eq!(folder.fetch(&bed, name(2)), Err(126));
        assert_eq!(folder.fetch(&bed, name(1)).unwrap(), made[1].1);
        for place in [whole.len() / 2, 40, whole.len() - 3] {
            let mut flipped = whole.clone();
            flipped[place] ^= 1;
            fs::write(object(2), &flipped).unwrap();
            Folder::forget(&bed);
            assert_eq!(folder.fetch(&bed, name(2)), Err(126), "byte {place}");
        }
        fs::write(object(2), &whole[..whole.len() / 2]).unwrap();
        assert_eq!(folder.fetch(&bed, name(2)), Err(126));
        // Another one in its place.
        fs::copy(object(3), object(2)).unwrap();
        Folder::forget(&bed);
        assert_eq!(folder.fetch(&bed, name(2)), Err(126));
        fs::write(object(2), &whole).unwrap();
        place::own(&bed.path("store"));
        assert_eq!(folder.fetch(&bed, name(2)).unwrap(), made[2].1);
    }
}

#[test]
fn whatever_is_wrong_with_the_archive_ends_no_recovery() {
    let Some(version) = Version::any() else { return };
    let server = shared(version);
    let bed = PostgresBed::of(server, "");
    let folder = Folder::of(server);
    let (name, bytes) = segments(server, 1).remove(0);
    folder.put(&name, &bytes);
    folder.push(&bed, &name).done();
    // Not at their end either, which is where a lost archive would promote.
    let absent = later(&name, 9);
    let both = |code: i32, why: &str| {
        Folder::forget(&bed);
        assert_eq!(folder.fetch(&bed, &name), Err(code), "{why}");
        assert_eq!(folder.fetch(&bed, &absent), Err(code), "{why}, of what is absent");
    };
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    let key = fs::read_to_string(bed.path("key")).unwrap();
    bed.write("bkp.toml", &config.replace("[source.pg]", "[source.other]"));
    both(126, "unknown source");
    bed.write("bkp.toml", &format!("{config}\nnonsense ="));
    both(126, "broken configuration");
    bed.write("bkp.toml", &config.replace("file:key", "file:gone"));
    both(126, "no key");
    bed.write("bkp.toml", &config);
    fs::rename(bed.path("key"), bed.path("own-key")).unwrap();
    bed.run(&["keys", "generate"]).done();
    assert_ne!(fs::read_to_string(bed.path("key")).unwrap(), key);
    Folder::forget(&bed);
    assert_eq!(folder.fetch(&bed, &name), Err(126), "another key");
    fs::rename(bed.path("own-key"), bed.path("key")).unwrap();
    let timeline = bed.object(&folder.system, &name).parent().unwrap().to_owned();
    let mode = |path: &Path, mode: u32| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    for closed in [&timeline, &bed.path("store")] {
        mode(closed, 0o000);
        both(126, "a store that cannot be read");
        mode(closed, 0o700);
    }
    fs::rename(bed.path("store"), bed.path("away")).unwrap();
    both(126, "no store");
    fs::rename(bed.path("away"), bed.path("store")).unwrap();
    for words in [
        vec!["logs", "pg", "--fetch", &absent, "pg_wal/RECOVERYXLOG", "--no-such-flag"],
        vec!["logs", "pg", "--fetch", &absent],
        vec!["logs", "--fetch", &absent, "pg_wal/RECOVERYXLOG"],
        vec!["logs", "pg", "--fetch", "not-a-name", "pg_wal/RECOVERYXLOG"],
        vec!["logs", "pg", "--fetch", &absent, "pg_wal/RECOVERYXLOG", "--store", "nowhere"],
    ] {
        let output = bed.command_in(&folder.data, &words).output().unwrap();
        assert_eq!(output.status.code(), Some(126), "{words:?}: {output:?}");
    }
    assert_eq!(folder.fetch(&bed, &absent), Err(1));
    fs::remove_file(folder.data.join("global/pg_control")).unwrap();
    both(126, "no control file");
}

/// The same for an archive in a bucket, whatever happens on the way to it.
#[test]
fn a_bucket_that_fails_delays_and_ends_no_recovery() {
    let Some(version) = Version::any() else { return };
    let server = shared(version);
    let proxy = Proxy::before(usual().port);
    let bed = PostgresBed::of(server, "");
    bed.move_to_bucket(usual(), &proxy.endpoint());
    let folder = Folder::of(server);
    let made = segments(server, 3);
    for (name, bytes) in &made {
        folder.put(name, bytes);
    }
    let always = |method, target, fault| Rule::new(method, target, u32::MAX, fault);
    let slow_down = Fault::Status(503, "SlowDown");
    for rule in [
        always("PUT", "", slow_down),
        always("PUT", "", Fault::Status(403, "AccessDenied")),
        always("PUT", "", Fault::ResetBefore),
    ] {
        proxy.plan(&[rule]);
        let run = folder.push(&bed, &made[0].0);
        assert!(run.code.is_some_and(|code| (1..=125).contains(&code)), "{run:?}");
        proxy.happened();
        assert_eq!(folder.fetch(&bed, &made[0].0), Err(1), "nothing of it is there");
    }
    // The object was made, and nobody heard of it.
    proxy.plan(&[Rule::new("PUT", "", 1, Fault::ResetAfter)]);
    for (name, _) in &made {
        folder.push(&bed, name).done();
    }
    proxy.happened();
    let absent = later(&made[2].0, 1);
    for fault in [slow_down, Fault::Status(403, "AccessDenied"), Fault::ResetBefore] {
        proxy.plan(&[always("GET", "", fault), always("HEAD", "", fault)]);
        for name in [&made[0].0, &absent] {
            Folder::forget(&bed);
            assert_eq!(folder.fetch(&bed, name), Err(126), "{name}: {fault:?}");
        }
        assert!(proxy.met() > 0, "{fault:?}");
    }
    // Others say that it must be there.
    let missing = Fault::Status(404, "NoSuchKey");
    for fault in [Fault::Flip, Fault::Cut(100), missing] {
        proxy.plan(&[always("GET", ".enc", fault), always("HEAD", ".enc", missing)]);
        Folder::forget(&bed);
        assert_eq!(folder.fetch(&bed, &made[0].0), Err(126), "{fault:?}");
        assert!(proxy.met() > 0, "{fault:?}");
    }
    proxy.plan(&[Rule::new("GET", ".enc", 1, Fault::Stall(10))]);
    Folder::forget(&bed);
    assert_eq!(folder.fetch(&bed, &made[0].0).unwrap(), made[0].1);
    proxy.happened();
    Folder::forget(&bed);
    assert_eq!(folder.fetch(&bed, &absent), Err(1));
}

/// Segments that only a key of a KMS opens; where it does not answer nothing is archived, and nobody promoted.
#[test]
fn a_kms_that_is_away_ends_no_recovery() {
    let Some(version) = Version::any() else { return };
    let server = shared(version);
    let bed = PostgresBed::of(server, "");
    let folder = Folder::of(server);
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    let own = recipient(&new_key(REGIONS[0]));
    bed.write("bkp.toml", &config.replace("file:key", &own));
    let hook = |words: &[&str]| {
        let mut command = bed.command_in(&folder.data, &[&["logs", "pg"], words].concat());
        command.env("AWS_ACCESS_KEY_ID", "host").env("AWS_SECRET_ACCESS_KEY", "secret");
        command.output().unwrap().status.code()
    };
    let made = segments(server, 2);
    for (name, bytes) in &made {
        folder.put(name, bytes);
    }
    let path = |at: usize| format!("pg_wal/{}", made[at].0);
    assert_eq!(hook(&["--push", &path(0)]), Some(0));
    assert_eq!(hook(&["--fetch", &made[0].0, "pg_wal/RECOVERYXLOG"]), Some(0));
    assert_eq!(fs::read(folder.path("RECOVERYXLOG")).unwrap(), made[0].1);
    let away = own.replace(&kms().endpoint(), "http://127.0.0.1:1");
    bed.write("bkp.toml", &config.replace("file:key", &away));
    Folder::forget(&bed);
    assert!(hook(&["--push", &path(1)]).is_some_and(|code| (1..=125).contains(&code)));
    assert!(!bed.object(&folder.system, &made[1].0).exists());
    assert_eq!(hook(&["--fetch", &made[0].0, "pg_wal/RECOVERYXLOG"]), Some(126));
}

/// Has a restored folder recover as a server does by itself.
fn recover_by_hook(bed: &PostgresBed, home: &Path) {
    let data = home.join("data");
    let fetch = bed.hook("--fetch %f %p").replace('\'', "''");
    let auto = data.join("postgresql.auto.conf");
    let text = fs::read_to_string(&auto).unwrap();
    fs::write(&auto, format!("{text}\nrestore_command = '{fetch}'\n")).unwrap();
    fs::write(data.join("recovery.signal"), "").unwrap();
    place::own(home);
}

/// The server's own recovery brings all rows; with a hole or a flipped byte it never becomes one that can be
/// written to.
#[test]
fn a_recovery_by_the_hook_is_whole_or_does_not_end() {
    for version in Version::all() {
        let (server, bed) = PostgresBed::archiving(version, "");
        server.tablespace("beside");
        let load = Load::start(&server, "load");
        load.more(50);
        let manifest = bed.snapshot("full");
        let id = manifest["id"].as_str().unwrap();
        load.more(100);
        let middle = bed.archived(&server);
        load.more(100);
        let last = load.stop();
        bed.archived(&server);
        let off = Options::of(NO_ARCHIVE);
        let home = bed.restore(&["--id", id]);
        recover_by_hook(&bed, &home);
        let restored = recovered(version, &home, &off).unwrap();
        assert_eq!(check(&restored, "load").unwrap().max_n, last, "{}", restored.log_text());
        drop(restored);
        let object = bed.object(&system(&server), &middle);
        let whole = fs::read(&object).unwrap();
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 1;
        for broken in [None, Some(flipped)] {
            match &broken {
                None => fs::remove_file(&object).unwrap(),
                Some(bytes) => fs::write(&object, bytes).unwrap(),
            }
            place::own(&bed.path("store"));
            Folder::forget(&bed);
            let home = bed.restore(&["--id", id]);
            recover_by_hook(&bed, &home);
            let log = recovered(version, &home, &off).unwrap_err();
            let fatal = format!("FATAL:  could not restore file \"{middle}\" from archive");
            assert!(log.contains(&fatal), "{log}");
        }
    }
}

#[test]
fn a_host_with_a_public_key_archives_what_only_the_private_key_reads() {
    let server = shared(Version::V18);
    let bed = PostgresBed::of(server, "");
    let folder = Folder::of(server);
    let id = |words: &[&str]| {
        let report = bed.json(&[&["keys", "generate"], words].concat());
        report["keys"][0]["id"].as_str().unwrap().to_owned()
    };
    let public = id(&["--age", bed.path("identity").to_str().unwrap()]);
    let signer = id(&["--signing", bed.path("signing.key").to_str().unwrap()]);
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    let recipients = "recipients = [\"file:key\"]";
    let with = |lines: &str| {
        assert!(config.contains(recipients));
        bed.write("bkp.toml", &config.replace(recipients, lines));
    };
    let seals = format!("recipients = [{public:?}]\nsigning_key = \"file:signing.key\"");
    with(&seals);
    let (name, bytes) = segments(server, 1).remove(0);
    folder.put(&name, &bytes);
    folder.push(&bed, &name).done();
    // The signature tells the host that it is the same, and that another one is not.
    Folder::forget(&bed);
    folder.push(&bed, &name).done();
    let mut other = bytes.clone();
    *other.last_mut().unwrap() ^= 1;
    folder.put(&name, &other);
    Folder::forget(&bed);
    folder.push(&bed, &name).failed(14, &name);
    assert!(folder.fetch(&bed, &name).is_err(), "it cannot read it");
    // Increments need the map of the last backup only.
    let full = bed.snapshot("full");
    let next = bed.snapshot("incremental");
    assert_eq!(next["parent"], full["id"]);

    let reads = "recipients = [\"age:file:identity\"]\n";
    with(reads);
    Folder::forget(&bed);
    assert!(folder.fetch(&bed, &name).is_err(), "nobody vouches for it");
    with(&format!("{reads}trust = [{signer:?}]"));
    Folder::forget(&bed);
    assert_eq!(folder.fetch(&bed, &name).unwrap(), bytes);
    let id = next["id"].as_str().unwrap();
    bed.run(&["verify", "--id", id, "--level", "decode"]).done();
}
