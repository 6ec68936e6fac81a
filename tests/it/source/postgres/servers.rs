//! The servers that tests work with do what tests count on, in every version.

use std::fs;
use std::time::{Duration, Instant};

use crate::support::postgres::access::{PASSWORD, REPLICATOR};
use crate::support::postgres::load::{Load, check};
use crate::support::postgres::tls::{CERTIFIED, Certificates, certificates};
use crate::support::postgres::{Options, Postgres, Stop, Version, place, shared};

/// A copy that the server's own tools made under load holds the invariant, and goes on by itself.
#[test]
fn a_copy_under_load_holds_what_was_committed() {
    for version in Version::all() {
        let server = Postgres::start(version, &Options::default());
        server.tablespace("beside");
        let load = Load::start(&server, "load");
        load.more(500);
        let low = load.committed();
        let home = server.copy(&[]);
        let high = load.committed();
        let copy = Postgres::adopt(version, &home, &Options::default());
        let found = check(&copy, "load").unwrap();
        assert!((low..=high).contains(&found.max_n), "{version:?}: {low} {found:?} {high}");
        assert_eq!(found.sum, 0);
        assert!(found.tables > 1, "{found:?}");
        // The one goes on and the other does not know of it.
        load.more(50);
        let last = load.stop();
        assert_eq!(check(&server, "load").unwrap().max_n, last);
        assert_eq!(check(&copy, "load").unwrap(), found);
    }
}

#[test]
fn a_standby_follows_and_is_promoted() {
    for version in Version::all() {
        let mut primary = Postgres::start(version, &Options::of(&[("wal_keep_size", "1GB")]));
        primary.tablespace("beside");
        let load = Load::start(&primary, "load");
        let standby = primary.standby(&Options::default());
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(2) {
            load.more(20);
        }
        let last = load.stop();
        standby.catch_up(&primary);
        assert_eq!(check(&standby, "load").unwrap().max_n, last);
        primary.stop(Stop::Fast);
        standby.promote();
        standby.sql_in("load", "call transfer()");
        assert_eq!(check(&standby, "load").unwrap().max_n, last + 1);
        assert!(standby.data().join("pg_wal/00000002.history").exists());
    }
}

/// A load goes on over restarts, and nothing that was committed is lost by a kill.
#[test]
fn a_killed_server_comes_back_with_all_commits() {
    for version in Version::all() {
        let mut server = Postgres::start(version, &Options::default());
        let load = Load::start(&server, "load");
        load.more(100);
        let low = load.committed();
        server.kill();
        assert!(server.try_sql("postgres", "select 1").is_err());
        server.launch().unwrap();
        assert!(server.log_text().contains("redo starts"), "{}", server.log_text());
        load.more(100);
        server.restart(Stop::Immediate, &[("wal_keep_size", "64MB")]);
        assert_eq!(server.sql("show wal_keep_size"), "64MB");
        load.more(100);
        let last = load.stop();
        assert!(last >= low + 200);
        assert_eq!(check(&server, "load").unwrap().max_n, last);
    }
}

/// The check sees what a load never does.
#[test]
fn a_broken_invariant_is_seen() {
    let Some(version) = Version::any() else { return };
    let server = Postgres::start(version, &Options::default());
    let load = Load::start(&server, "load");
    load.more(50);
    load.stop();
    check(&server, "load").unwrap();
    for (broken, naming) in [
        ("update accounts set balance = balance + 1 where id = 1", "balances sum to 1"),
        ("delete from commits where n = 7", "commits: "),
        ("update commits set at = at - interval '1 day' where n = 9", "commit 9 is before"),
        ("delete from entries where n = 8", "entries of commit 8"),
        ("update entries set account = 1 + account % 500 where n = 6 and amount > 0", "account "),
        ("create table t999999 (n int)", "table t999999"),
        ("update tables set digest = 'x' where name = 'heap'", "table heap has"),
    ] {
        server.sql("create database broken template load");
        server.sql_in("broken", broken);
        let wrong = check(&server, "broken").unwrap_err();
        assert!(wrong.contains(naming), "{broken}: {wrong}");
        server.sql("drop database broken");
    }
}

/// The role without a password's help is not let in by address, and settings and archives are the caller's.
#[test]
fn roles_and_archives_are_as_set() {
    for version in Version::all() {
        let home = place::home();
        let archive = format!("cp %p {}/%f", home.display());
        let options = Options::of(&[("archive_mode", "on"), ("archive_command", &archive)]);
        let server = Postgres::start(version, &options);
        let user = server.run("psql", &["-Atc", "select current_user", &server.conninfo()]);
        assert_eq!(user.unwrap(), "postgres");
        let told = server.conninfo_by_password();
        let refused = server.run("psql", &["-w", "-c", "select 1", &told]).unwrap_err();
        assert!(refused.contains("password"), "{refused}");
        let mut command = server.program("psql");
        command.env("PGPASSWORD", PASSWORD).args(["-Atc", "select current_user", &told]);
        let output = command.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), REPLICATOR);
        let name =
            server.sql("select pg_walfile_name(pg_current_wal_lsn());\nselect pg_switch_wal()");
        let name = name.lines().next().unwrap();
        while !home.join(name).exists() {
            std::thread::yield_now();
        }
        assert_eq!(server.sql("show data_checksums"), "on");
        let summarized = server.try_sql("postgres", "show summarize_wal");
        assert_eq!(summarized.is_ok_and(|on| on == "on"), version.summarizes());
        fs::remove_dir_all(home).unwrap();
    }
}

/// bkp itself can be what a server starts, whoever the server runs as.
#[test]
fn a_server_can_run_the_program() {
    let Some(version) = Version::any() else { return };
    let server = shared(version);
    let said = server.sql(&format!(
        "create temp table said (line text);\ncopy said from program '{} --version';\nselect line from said limit 1",
        place::bkp().display()
    ));
    assert!(said.starts_with("bkp "), "{said}");
    assert_eq!(server.port(), shared(version).port());
}

#[test]
fn certificates_are_asked_for_and_checked() {
    for version in Version::all().into_iter().filter(|version| version.has_tls()) {
        let options = Options { tls: true, ..Options::default() };
        let server = Postgres::start(version, &options);
        server.sql(&format!("create role {CERTIFIED} login replication"));
        let address =
            format!("host=localhost hostaddr=127.0.0.1 dbname=postgres port={}", server.port());
        let ask = |role: &str, more: &str| {
            let told = format!("{address} user={role} {more}");
            let mut command = server.program("psql");
            command.env("PGPASSWORD", PASSWORD);
            let query = "select ssl, client_dn from pg_stat_ssl where pid = pg_backend_pid()";
            let output = command.args(["-w", "-Atc", query, &told]).output().unwrap();
            let said = if output.status.success() { output.stdout } else { output.stderr };
            String::from_utf8_lossy(&said).trim().to_owned()
        };
        let trusted = |of: &Certificates| {
            format!("sslmode=verify-full sslrootcert={}", of.authority().display())
        };
        let trust = trusted(certificates());
        assert_eq!(ask(REPLICATOR, &trust), "t|");
        assert!(ask(REPLICATOR, "sslmode=disable").contains("no pg_hba.conf entry"));
        assert!(
            ask(REPLICATOR, &trusted(&Certificates::new())).contains("certificate verify failed")
        );
        let (certificate, key) = certificates().of(CERTIFIED);
        let mine = format!("{trust} sslcert={} sslkey={}", certificate.display(), key.display());
        assert_eq!(ask(CERTIFIED, &mine), "t|/CN=certified");
        assert!(ask(CERTIFIED, &trust).contains("valid client certificate"));
    }
}
