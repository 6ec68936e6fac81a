//! Any moment of a server: whatever is restored has exactly what was committed by then, over failovers and
//! forks of its history, and what cannot be is refused before anything is touched.
//!
//! `BKP_TEST_ROUNDS` sets the number of random moments of each version (default 4), and how often a follower
//! is killed (default 2): `BKP_TEST_ROUNDS=40 tests/run.sh pitr`.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};

use serde_json::Value;

use crate::support::logs::{numbers, spelled};
use crate::support::postgres::access::{Access, REPLICATOR};
use crate::support::postgres::bed::{NO_ARCHIVE, PostgresBed, recovered, rounds, switched, system};
use crate::support::postgres::load::{Load, check};
use crate::support::postgres::{Options, Postgres, Stop, Version, place};
use crate::support::s3::usual;
use crate::support::wait::until;

/// When each commit was under way, nanoseconds since 1970: at the time of one, all before it were committed, and it
/// was not itself.
fn commits(server: &Access) -> Vec<(u64, u64)> {
    let told = server.sql_in(
        "load",
        "select n, (extract(epoch from at) * 1000000)::bigint from commits order by n",
    );
    let number = |text: &str| text.parse::<u64>().unwrap();
    let read = |line: &str| {
        let (n, at) = line.split_once('|').unwrap();
        (number(n), number(at) * 1000)
    };
    told.lines().map(read).collect()
}

/// Restores to a moment and starts what came back; the number of its last commit.
#[track_caller]
fn found_at(bed: &PostgresBed, version: Version, what: &[&str]) -> u64 {
    let home = bed.restore(&[&["pg"], what].concat());
    let restored = recovered(version, &home, &Options::of(NO_ARCHIVE)).unwrap();
    assert!(!home.join("data/pg_wal/bkp").exists(), "the log that was brought is not removed");
    check(&restored, "load").unwrap().max_n
}

fn windows(bed: &PostgresBed) -> Value {
    bed.json(&["list", "pg", "--windows"])
}

/// From when to when anything restores.
fn ends(bed: &PostgresBed) -> (u64, u64) {
    let listed = windows(bed);
    let rows = listed["windows"].as_array().unwrap();
    let of = |key: &str| rows.iter().map(|row| row[key].as_u64().unwrap()).collect::<Vec<_>>();
    let from = of("from_nanoseconds").into_iter().min();
    (from.unwrap(), of("until_nanoseconds").into_iter().max().unwrap())
}

/// Nothing is at the target of a restore that does not work.
#[track_caller]
fn refused(bed: &PostgresBed, what: &[&str], code: i32, naming: &str) -> String {
    let home = place::home();
    let data = home.join("data");
    let words = [&["restore", "pg", "--yes", "--to", data.to_str().unwrap()], what].concat();
    let run = bed.run(&words).failed(code, naming);
    assert_eq!(fs::read_dir(&home).unwrap().count(), 0, "{}", run.stderr);
    run.stderr
}

#[test]
fn every_moment_has_what_was_committed_by_then() {
    for version in Version::even() {
        let (server, bed) = PostgresBed::archiving(version, "");
        server.tablespace("beside");
        let load = Load::start(&server, "load");
        load.more(50);
        let oldest = bed.snapshot("full");
        for round in 0..4 {
            load.more(100);
            bed.archived(&server);
            if round == 1 {
                bed.ship();
            }
        }
        bed.snapshot("incremental");
        load.more(100);
        let last = load.stop();
        bed.archived(&server);
        bed.ship();
        let (from, until) = ends(&bed);
        let all = commits(&server);
        let within: Vec<_> = all.iter().filter(|(_, at)| (from..until).contains(at)).collect();
        assert!(within.len() > 300, "{version:?}: {} of {}", within.len(), all.len());
        let picked = numbers(u64::from(version.number()), within.len() as u64);
        for pick in picked.take(rounds(4)) {
            let (n, at) = within[usize::try_from(pick).unwrap()];
            let found = found_at(&bed, version, &["--at", &spelled(*at)]);
            assert_eq!(found, n - 1, "{version:?} at {}", spelled(*at));
        }
        assert_eq!(found_at(&bed, version, &["--at", "latest"]), last);
        let base = oldest["id"].as_str().unwrap();
        assert_eq!(found_at(&bed, version, &["--at", "latest", "--base", base]), last);
        let (n, at) = within.last().unwrap();
        let found = found_at(&bed, version, &["--at", &spelled(*at), "--base", base]);
        assert_eq!(found, n - 1);
        let listed = windows(&bed);
        for at in [from - 3_600_000_000_000, until + 3_600_000_000_000] {
            let said = refused(&bed, &["--at", &spelled(at)], 14, "outside the restorable windows");
            for window in listed["windows"].as_array().unwrap() {
                assert!(said.contains(window["until"].as_str().unwrap()), "{said}");
            }
        }
        bed.run(&["verify", "pg", "--logs"]).done();
    }
}

/// The same over S3: base backup, archiver, manifests and the way back.
#[test]
fn a_bucket_brings_a_moment_back() {
    let Some(version) = Version::any() else { return };
    let bed = PostgresBed::new();
    let server = Postgres::start(version, &bed.options().and(&[("archive_command", "false")]));
    bed.serve(&server, "");
    bed.move_to_bucket(usual(), &usual().endpoint());
    server.sql(&format!("alter system set archive_command = '{}'", bed.hook("--push %p")));
    server.sql("select pg_reload_conf()");
    let load = Load::start(&server, "load");
    load.more(50);
    bed.snapshot("full");
    load.more(100);
    let last = load.stop();
    let newest = switched(&server);
    let archived = format!("select last_archived_wal >= '{newest}' from pg_stat_archiver");
    until("a bucket has it", || server.sql(&archived) == "t");
    bed.ship();
    let (from, until) = ends(&bed);
    let all = commits(&server);
    let within: Vec<_> = all.iter().filter(|(_, at)| (from..until).contains(at)).collect();
    let (n, at) = within[within.len() / 2];
    assert_eq!(found_at(&bed, version, &["--at", &spelled(*at)]), n - 1);
    assert_eq!(found_at(&bed, version, &["--at", "latest"]), last);
    bed.run(&["verify", "pg", "--logs"]).done();
    assert_eq!(bed.json(&["status"])["logs"][0]["source"], "pg");
    assert!(fs::read_dir(bed.path("store")).unwrap().next().is_none(), "the folder was used");
}

/// Amounts that move in a server that the load does not know.
fn transfers(server: &Access, count: usize) {
    server.sql_in("load", &"call transfer();\n".repeat(count));
}

/// How many complete files of the log are not archived yet.
const WAITING: &str = "select count(*) from pg_ls_archive_statusdir() where name like '%.ready'";

/// A base backup of before a failover leads to moments after it, and between.
#[test]
fn a_failover_is_followed() {
    for (version, stop) in
        Version::odd().into_iter().zip([Stop::Fast, Stop::Immediate].into_iter().cycle())
    {
        let (mut primary, bed) = PostgresBed::archiving(version, "");
        let load = Load::start(&primary, "load");
        load.more(50);
        bed.snapshot("full");
        let standby = primary.standby(&Options::default());
        load.more(50);
        bed.archived(&primary);
        bed.ship();
        load.more(50);
        let last = load.stop();
        standby.catch_up(&primary);
        // A crash takes along what is complete and not yet archived; the standby holds it, but archives only
        // what it writes itself.
        until("what is complete is archived", || primary.sql(WAITING) == "0");
        primary.stop(stop);
        standby.promote();
        transfers(&standby, 20);
        bed.archived(&standby);
        transfers(&standby, 20);
        bed.archived(&standby);
        assert!(bed.object(&system(&standby), "00000002.history").exists());
        bed.ship();
        let all = commits(&standby);
        assert_eq!(all.len() as u64, last + 40);
        let at = |n: u64| spelled(all[usize::try_from(n).unwrap() - 1].1);
        assert_eq!(found_at(&bed, version, &["--at", "latest"]), last + 40, "{stop:?}");
        for n in [last + 30, last + 2, last, last - 5] {
            assert_eq!(found_at(&bed, version, &["--at", &at(n)]), n - 1, "{stop:?}");
        }
        assert_eq!(windows(&bed)["gaps"].as_array().unwrap().len(), 0);
        // What is made of the new primary goes on.
        bed.serve(&standby, "");
        bed.snapshot("full");
        transfers(&standby, 5);
        bed.archived(&standby);
        bed.ship();
        assert_eq!(found_at(&bed, version, &["--at", "latest"]), last + 45);
    }
}

/// Of two servers that were promoted to the same timeline, the first has it, and the other learns that.
#[test]
fn two_servers_on_one_timeline_do_not_mix() {
    for version in Version::even() {
        let (mut primary, bed) = PostgresBed::archiving(version, "");
        let load = Load::start(&primary, "load");
        load.more(50);
        bed.snapshot("full");
        let (first, second) =
            (primary.standby(&Options::default()), primary.standby(&Options::default()));
        load.more(20);
        load.stop();
        first.catch_up(&primary);
        second.catch_up(&primary);
        primary.stop(Stop::Fast);
        first.promote();
        transfers(&first, 10);
        let name = bed.archived(&first);
        let last = first.sql_in("load", "select n from number").parse::<u64>().unwrap();
        let object = bed.object(&system(&first), &name);
        let stored = fs::read(&object).unwrap();
        second.promote();
        transfers(&second, 13);
        let failed = "select failed_count >= 2 from pg_stat_archiver";
        switched(&second);
        until("the second is refused", || second.sql(failed) == "t");
        assert!(second.log_text().contains("with other content"), "{}", second.log_text());
        assert_eq!(fs::read(&object).unwrap(), stored);
        bed.ship();
        assert_eq!(found_at(&bed, version, &["--at", "latest"]), last);
    }
}

/// Ships everything; what was said meanwhile, and the codes.
fn ship_all(bed: &PostgresBed) -> (Vec<i32>, String) {
    let (mut codes, mut said) = (Vec::new(), String::new());
    loop {
        let run = bed.run(&["logs", "pg", "--json"]);
        codes.extend(run.code);
        said += &run.stdout;
        said += &run.stderr;
        let report: Value = serde_json::from_str(&run.stdout).unwrap_or_default();
        if report["shipped"] != true || codes.len() > 20 {
            return (codes, said);
        }
    }
}

/// What was restored to an earlier moment and went on is a branch; the log says so, and both restore.
#[test]
fn a_branch_is_told_and_both_histories_restore() {
    for version in Version::odd() {
        let (mut server, bed) = PostgresBed::archiving(version, "");
        let load = Load::start(&server, "load");
        load.more(50);
        bed.snapshot("full");
        for _ in 0..3 {
            load.more(60);
            bed.archived(&server);
        }
        let last = load.stop();
        bed.archived(&server);
        bed.ship();
        let all = commits(&server);
        let at = |n: u64| spelled(all[usize::try_from(n).unwrap() - 1].1);
        server.stop(Stop::Fast);
        // Whole segments of the old timeline come before it, and one after it.
        let fork = last - 40;
        let home = bed.restore(&["pg", "--at", &at(fork)]);
        // A copy does not archive unless somebody lets it.
        let archives = Options::of(&[("archive_mode", "on")]);
        let branch = recovered(version, &home, &archives).unwrap();
        assert_eq!(check(&branch, "load").unwrap().max_n, fork - 1);
        transfers(&branch, 30);
        bed.archived(&branch);
        transfers(&branch, 30);
        bed.archived(&branch);
        let (codes, said) = ship_all(&bed);
        assert!(codes.contains(&3), "{codes:?} {said}");
        assert!(said.contains("timeline 2 branches off"), "{said}");
        let of_branch = commits(&branch);
        let there = |n: u64| spelled(of_branch[usize::try_from(n).unwrap() - 1].1);
        assert_eq!(found_at(&bed, version, &["--at", "latest"]), fork + 59);
        assert_eq!(found_at(&bed, version, &["--at", &there(fork + 40)]), fork + 39);
        assert_eq!(found_at(&bed, version, &["--at", &at(fork + 30)]), fork + 29);
        assert_eq!(found_at(&bed, version, &["--at", &at(fork - 10)]), fork - 11);
        bed.run(&["verify", "pg", "--logs"]).done();
    }
}

/// A file that is gone from the archive is named, wherever that is seen.
#[test]
fn a_hole_is_named_and_nothing_is_restored_over_it() {
    for version in Version::even() {
        let (server, bed) = PostgresBed::archiving(version, "");
        let load = Load::start(&server, "load");
        load.more(50);
        bed.snapshot("full");
        load.more(50);
        let middle = bed.archived(&server);
        let before = commits(&server).len();
        load.more(50);
        bed.archived(&server);
        let last = load.stop();
        let end = bed.archived(&server);
        bed.ship();
        let all = commits(&server);
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
            let verified = bed.run(&["verify", "pg", "--logs"]);
            assert_eq!(verified.code, Some(13), "{}{}", verified.stdout, verified.stderr);
            let said = format!("{}{}", verified.stdout, verified.stderr);
            assert!(said.contains(&middle), "{said}");
            refused(&bed, &["--at", "latest"], 13, &middle);
            refused(&bed, &["--at", &spelled(all[before + 20].1)], 13, &middle);
        }
        fs::write(&object, &whole).unwrap();
        place::own(&bed.path("store"));
        assert_eq!(found_at(&bed, version, &["--at", "latest"]), last);
        // One that is missing before it was shipped may still come: what is behind it waits.
        let missing = bed.archived(&server);
        let after = bed.archived(&server);
        assert!(end < missing && missing < after);
        let (object, until) = (bed.object(&system(&server), &missing), ends(&bed).1);
        let whole = fs::read(&object).unwrap();
        fs::remove_file(&object).unwrap();
        bed.ship();
        assert_eq!(ends(&bed).1, until);
        fs::write(&object, whole).unwrap();
        place::own(&bed.path("store"));
        bed.ship();
        assert!(ends(&bed).1 > until);
        assert_eq!(windows(&bed)["gaps"].as_array().unwrap().len(), 0);
    }
}

/// A follower, killed when dropped.
struct Follower(Child);

impl Follower {
    fn start(bed: &PostgresBed) -> Follower {
        let log = fs::File::options().create(true).append(true).open(bed.path("log")).unwrap();
        let mut command = bed.command(&["logs", "pg", "--follow"]);
        command.stdout(log.try_clone().unwrap()).stderr(log).stdin(Stdio::null());
        Follower(command.spawn().unwrap())
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        self.0.wait().unwrap();
    }
}

const FOLLOWED: &str =
    "[source.pg.logs]\nslot = \"follower\"\nswitch_after = \"1s\"\nevery = \"1s\"\n";

/// Waits until the window reaches a commit.
#[track_caller]
fn reaches(bed: &PostgresBed, server: &Access, n: u64) {
    let at = commits(server)[usize::try_from(n).unwrap() - 1].1;
    let log = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    let covers = || {
        let listed = windows(bed);
        let mut rows = listed["windows"].as_array().unwrap().iter();
        rows.any(|row| row["until_nanoseconds"].as_u64().unwrap() >= at)
    };
    until(&format!("commit {n} is shipped: {}", log(&bed.path("log"))), covers);
}

#[test]
fn a_follower_ships_within_seconds_and_over_its_own_death() {
    for version in Version::odd() {
        let server = Postgres::start(version, &Options::default());
        server.sql(&format!("grant execute on function pg_switch_wal() to {REPLICATOR}"));
        let bed = PostgresBed::of(&server, FOLLOWED);
        let load = Load::start(&server, "load");
        load.more(20);
        // Its slot keeps what comes after it began; a base backup of before would have a hole behind it.
        let mut follower = Follower::start(&bed);
        let slot =
            "select count(*) from pg_replication_slots where slot_name = 'follower' and active";
        until("it follows", || server.sql(slot) == "1");
        bed.snapshot("full");
        load.more(50);
        for _ in 0..rounds(2) {
            drop(follower);
            load.more(30);
            follower = Follower::start(&bed);
            load.more(30);
        }
        let last = load.stop();
        reaches(&bed, &server, last);
        assert_eq!(windows(&bed)["gaps"].as_array().unwrap().len(), 0);
        // One commit alone is shipped, too, without any load that would fill its segment.
        transfers(&server, 1);
        reaches(&bed, &server, last + 1);
        drop(follower);
        assert_eq!(found_at(&bed, version, &["--at", "latest"]), last + 1);
        bed.run(&["verify", "pg", "--logs"]).done();
    }
}

#[test]
fn a_promoted_server_is_followed_to_its_timeline() {
    for version in Version::even() {
        let mut primary = Postgres::start(version, &Options::of(&[("wal_keep_size", "1GB")]));
        primary.sql(&format!("grant execute on function pg_switch_wal() to {REPLICATOR}"));
        let load = Load::start(&primary, "load");
        load.more(20);
        let standby = primary.standby(&Options::default());
        let bed = PostgresBed::of(&standby, FOLLOWED);
        let follower = Follower::start(&bed);
        let slot =
            "select count(*) from pg_replication_slots where slot_name = 'follower' and active";
        until("it follows", || standby.sql(slot) == "1");
        let low = load.committed();
        standby.catch_up(&primary);
        let base = bed.snapshot("full");
        let high = load.committed();
        let home = bed.restore(&["--id", base["id"].as_str().unwrap()]);
        let copy = recovered(version, &home, &Options::of(NO_ARCHIVE)).unwrap();
        let found = check(&copy, "load").unwrap().max_n;
        assert!((low..=high).contains(&found), "{low} {found} {high}");
        load.more(50);
        let last = load.stop();
        standby.catch_up(&primary);
        primary.stop(Stop::Fast);
        standby.promote();
        transfers(&standby, 20);
        reaches(&bed, &standby, last + 20);
        drop(follower);
        assert!(bed.object(&system(&standby), "00000002.history").exists());
        assert_eq!(found_at(&bed, version, &["--at", "latest"]), last + 20);
        let at = commits(&standby)[usize::try_from(last).unwrap() - 1].1;
        assert_eq!(found_at(&bed, version, &["--at", &spelled(at)]), last - 1);
    }
}
