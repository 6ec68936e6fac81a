//! A drill starts the real server on what was restored; and a restore ends with the transaction, at the name or at
//! the position that it is told, or right before it.

use std::fs;

use crate::support::postgres::access::Access;
use crate::support::postgres::bed::{NO_ARCHIVE, PostgresBed, recovered};
use crate::support::postgres::{Options, Version};

/// What a server has after a restore to this end.
#[track_caller]
fn rows_at(bed: &PostgresBed, version: Version, end: &[&str]) -> String {
    let home = bed.restore(&[&["pg"], end].concat());
    let restored = recovered(version, &home, &Options::of(NO_ARCHIVE)).unwrap();
    restored.sql("select string_agg(i::text, ',' order by i) from n")
}

/// Names the folder of the version's programs for drills.
fn tools(bed: &PostgresBed, version: Version) {
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    let program = version.program("postgres");
    let folder = program.parent().unwrap().display();
    bed.write("bkp.toml", &format!("{config}\n[tools]\npostgres = \"{folder}\"\n"));
}

fn filled(server: &Access) -> (String, String) {
    server.sql("insert into n values (1)");
    server.sql("select pg_create_restore_point('here')");
    let xid = server.sql("insert into n values (2) returning txid_current()");
    let lsn = server.sql("select pg_current_wal_lsn()");
    server.sql("insert into n values (3)");
    (xid.lines().next().unwrap().to_owned(), lsn)
}

#[test]
fn drills_start_the_server_and_restores_end_where_they_are_told() {
    for version in Version::all() {
        let (server, bed) = PostgresBed::archiving(version, "");
        tools(&bed, version);
        server.tablespace("beside");
        server.sql("create table n(i int) tablespace beside");
        bed.snapshot("full");
        let (xid, lsn) = filled(&server);
        bed.snapshot("incremental");
        bed.archived(&server);
        bed.ship();
        for words in [&["verify", "--latest", "pg"][..], &["verify", "pg", "--logs"]] {
            let drilled = bed.run(&[words, &["--level", "drill"]].concat()).done().stdout;
            assert!(drilled.contains("the restored server replays the log"), "{drilled}");
            assert!(drilled.contains("checksums of all pages: nothing wrong"), "{drilled}");
            let checked = drilled.contains("(pg_amcheck): nothing wrong");
            assert_eq!(checked, version.has_amcheck(), "{drilled}");
        }
        let rows = |end: &[&str]| rows_at(&bed, version, end);
        assert_eq!(rows(&["--name", "here"]), "1");
        assert_eq!(rows(&["--xid", &xid]), "1,2");
        assert_eq!(rows(&["--xid", &xid, "--exclusive"]), "1");
        assert_eq!(rows(&["--lsn", &lsn]), "1,2");
        assert_eq!(rows(&["--at", "latest"]), "1,2,3");
        let to = ["--to", "/nonexistent/x", "--yes"];
        let absent = [&["restore", "pg", "--name", "nowhere"], &to[..]].concat();
        bed.run(&absent).failed(10, "nowhere");
    }
}

/// A drill without the programs of the version says which folder it was told.
#[test]
fn a_drill_without_its_programs_says_so() {
    let Some(version) = Version::any() else { return };
    let (server, bed) = PostgresBed::archiving(version, "");
    tools(&bed, version);
    server.sql("create table n(i int)");
    bed.snapshot("full");
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    let folder = version.program("postgres").parent().unwrap().display().to_string();
    bed.write("bkp.toml", &config.replace(&folder, "/nonexistent"));
    bed.run(&["verify", "--latest", "pg", "--level", "drill"]).failed(78, "/nonexistent");
}
