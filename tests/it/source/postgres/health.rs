//! What `status` and `doctor` tell of a server's log: how far its archive is behind, what keeps it back, and what is
//! about to be lost.

use serde_json::Value;

use crate::support::bed::Run;
use crate::support::postgres::access::REPLICATOR;
use crate::support::postgres::bed::{PostgresBed, switched};
use crate::support::postgres::{Postgres, Version};
use crate::support::wait::until;

/// Bytes of a segment.
const SEGMENT: u64 = 16 << 20;

/// The report of a command that may find something critical.
#[track_caller]
fn report(bed: &PostgresBed, command: &str) -> (Run, Value) {
    let run = bed.run(&[command, "--json"]);
    let report = serde_json::from_str(&run.stdout).unwrap();
    (run, report)
}

/// Levels and messages of the findings about the log.
fn findings(status: &Value) -> Vec<(String, String)> {
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
    let found = status["findings"].as_array().unwrap().iter();
    let found = found.filter(|finding| finding["rule"] == "lag");
    found.map(|finding| (text(finding, "level"), text(finding, "message"))).collect()
}

/// One line of `doctor`.
#[track_caller]
fn check(doctor: &Value, what: &str) -> Value {
    let what = format!("source pg: {what}");
    let mut checks = doctor["checks"].as_array().unwrap().iter();
    let found = checks.find(|check| check["what"] == what);
    found.unwrap().clone()
}

#[test]
fn an_archive_that_is_behind_is_seen() {
    for version in Version::all() {
        let bed = PostgresBed::new();
        let server = Postgres::start(version, &bed.options().and(&[("archive_command", "false")]));
        bed.serve(&server, "");
        let made: Vec<String> = (0..12).map(|_| switched(&server)).collect();
        let failing = "select last_failed_wal is not null from pg_stat_archiver";
        until("the archiver fails", || server.sql(failing) == "t");
        // A role that may only copy sees no files that wait.
        let (_, status) = report(&bed, "status");
        let log = &status["logs"][0];
        assert_eq!((&log["source"], &log["waiting"]), (&"pg".into(), &Value::Null), "{status}");
        server.sql(&format!("grant pg_monitor to {REPLICATOR}"));
        let (run, status) = report(&bed, "status");
        let log = &status["logs"][0];
        assert!(log["waiting"].as_u64().unwrap() >= 12, "{log}");
        assert!(log["failures"].as_u64().unwrap() >= 1, "{log}");
        let [(level, message)] = findings(&status).try_into().unwrap();
        assert_eq!(level, "warning", "{message}");
        assert!(message.contains(&format!("fails to archive `{}`", made[0])), "{message}");
        assert!(!run.stdout.contains("critical: pg: the archive"), "{}", run.stdout);
        assert!(bed.run(&["status"]).stdout.contains("FAILURES"));
        let (run, doctor) = report(&bed, "doctor");
        assert_ne!(run.code, Some(0));
        assert_eq!(check(&doctor, "archiver")["ok"], false);
        // They have not waited for a minute yet.
        let waiting = check(&doctor, "files that wait to be archived");
        let count: u64 = waiting["found"].as_str().unwrap().parse().unwrap();
        assert!(waiting["ok"] == true && count >= 12, "{waiting}");
        assert_eq!(check(&doctor, "write-ahead log")["ok"], true);
        server.sql("alter system set archive_command = ''");
        server.sql("select pg_reload_conf()");
        until("it has no command", || server.sql("show archive_command").is_empty());
        let [(_, message)] = findings(&report(&bed, "status").1).try_into().unwrap();
        assert!(message.contains("archive_command is empty"), "{message}");
        assert_eq!(check(&report(&bed, "doctor").1, "write-ahead log")["ok"], false);
        server.sql(&format!("alter system set archive_command = '{}'", bed.hook("--push %p")));
        server.sql("select pg_reload_conf()");
        let last = made.last().unwrap();
        let done = format!("select last_archived_wal >= '{last}' from pg_stat_archiver");
        until("it archives again", || server.sql(&done) == "t");
        let (_, status) = report(&bed, "status");
        assert_eq!(findings(&status), [], "{status}");
        let log = &status["logs"][0];
        assert_eq!((&log["waiting"], &log["seconds"]), (&0.into(), &0.into()), "{log}");
        assert!(log["bytes"].as_u64().unwrap() <= SEGMENT, "{log}");
        assert_eq!(check(&report(&bed, "doctor").1, "archiver")["ok"], true);
    }
}

#[test]
fn a_slot_that_loses_log_is_seen() {
    for version in Version::all() {
        let bed = PostgresBed::new();
        let server = Postgres::start(
            version,
            &bed.options().and(&[
                ("archive_mode", "off"),
                ("wal_keep_size", "0"),
                ("max_wal_size", "32MB"),
            ]),
        );
        bed.serve(&server, "");
        // Neither an archiver nor a follower: there is no archive that could be behind.
        let (_, status) = report(&bed, "status");
        assert_eq!(status.get("logs"), None, "{status}");
        assert_eq!(check(&report(&bed, "doctor").1, "write-ahead log")["ok"], false);
        server.sql("select pg_create_physical_replication_slot('bkp', true)");
        // A follower leaves its slot for a moment again and again.
        assert_eq!(findings(&report(&bed, "status").1), []);
        switched(&server);
        switched(&server);
        let (_, status) = report(&bed, "status");
        let [(level, message)] = findings(&status).try_into().unwrap();
        assert_eq!(level, "warning");
        assert!(message.contains("nobody follows the replication slot `bkp`"), "{message}");
        let slot = check(&report(&bed, "doctor").1, "replication slot");
        assert!(slot["hint"].as_str().unwrap().contains("max_slot_wal_keep_size"), "{slot}");
        server.sql("alter system set max_slot_wal_keep_size = '1MB'");
        server.sql("select pg_reload_conf()");
        let lost = || {
            switched(&server);
            server.sql("checkpoint");
            server.sql("select wal_status from pg_replication_slots") == "lost"
        };
        until("the slot has lost log", lost);
        let (run, status) = report(&bed, "status");
        assert_eq!(run.code, Some(18));
        let found = findings(&status);
        let critical = found.iter().find(|(level, _)| level == "critical").unwrap();
        assert!(critical.1.contains("had not passed on"), "{critical:?}");
        assert_eq!(check(&report(&bed, "doctor").1, "replication slot")["ok"], false);
    }
}

#[test]
fn a_server_that_is_away_hides_no_other_finding() {
    let bed = PostgresBed::new();
    bed.source("conninfo = \"host=127.0.0.1 port=9 user=replicator\"");
    let (run, status) = report(&bed, "status");
    assert_eq!(run.code, Some(18), "it has no backup: {}", run.stdout);
    let [(level, message)] = findings(&status).try_into().unwrap();
    assert_eq!(level, "info");
    assert!(message.contains("unknown"), "{message}");
}
