//! One tenant comes back in a database that three share, and nothing else in it changes.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use bkp::cmd::schema::REPORTS;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::bed::Run;
use crate::support::postgres::access::{Access, PASSWORD, SUPERUSER};
use crate::support::postgres::bed::{PostgresBed, rounds};
use crate::support::postgres::tenants::{self, MESS, OWNER, rows_of, shared_rows};
use crate::support::postgres::{Options, Postgres, Version};
use crate::support::schema::wrong;

/// A server with three tenants, and a bed that makes exports and base backups of it.
fn shared_database(version: Version) -> (Postgres, PostgresBed) {
    let bed = PostgresBed::new();
    let server = Postgres::start(version, &bed.options());
    tenants::make(&server);
    let source = format!("conninfo = {:?}\n{}", server.conninfo(), tenants::map());
    bed.source(&source);
    let config = std::fs::read_to_string(bed.path("bkp.toml")).unwrap();
    bed.write(
        "bkp.toml",
        &format!(
            "{config}
{}",
            tools(version)
        ),
    );
    (server, bed)
}

/// The address of the database, for the owner of the tables.
fn address(port: u16) -> String {
    format!("postgresql://{OWNER}@127.0.0.1:{port}/app?sslmode=disable")
}

fn restore(bed: &PostgresBed, port: u16, what: &[&str]) -> Run {
    let into = address(port);
    let words = [&["restore", "pg", "--yes", "--into", &into], what].concat();
    Run::of(&bed.command(&words).env("PGPASSWORD", PASSWORD).output().unwrap())
}

/// What it printed, which has the shape that it says.
#[track_caller]
fn report(run: Run) -> Value {
    let report: Value = serde_json::from_str(&run.done().stdout).unwrap();
    let shape = REPORTS.iter().find(|shape| report["schema"] == shape.schema).unwrap();
    let schema = shape.json_schema();
    assert_eq!(wrong(&schema, &schema, &report, ""), Vec::<String>::new());
    report
}

fn changes<'v>(report: &'v Value, table: &str) -> &'v Value {
    let tables = report["tables"].as_array().unwrap();
    tables.iter().find(|found| found["table"] == table).unwrap()
}

/// What others write while a tenant is restored: each row counts once it was committed.
struct Writer {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<u64>,
}

impl Writer {
    fn start(server: &Access) -> Writer {
        server.sql_in(
            "app",
            "insert into event select 2, 'written', null from generate_series(1, 1)",
        );
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, server) = (Arc::clone(&stop), server.clone());
        let thread = thread::spawn(move || {
            let mut committed = 1;
            while !stopped.load(Ordering::Relaxed) {
                server.sql_in("app", "begin;\ninsert into event values (2, 'written', null);\nupdate g1 set v = v || '.' where tenant_id = 3 and id = 2;\ncommit");
                committed += 1;
            }
            committed
        });
        Writer { stop, thread }
    }

    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// What triggers have written.
fn logged(server: &Access) -> String {
    server.sql_in("app", "select count(*), max(id) from audit.log")
}

/// What of the others is not written to.
fn quiet_rows(server: &Access) -> Vec<String> {
    let rows = [2, 3, 0].map(|tenant| rows_of(server, tenant)).concat();
    let written = |line: &&str| !line.starts_with("event|") && !line.starts_with("g1|");
    rows.lines().filter(written).map(str::to_owned).chain([shared_rows(server)]).collect()
}

#[test]
fn a_tenant_comes_back_from_an_export_and_from_a_moment() {
    for version in Version::all() {
        let (server, bed) = shared_database(version);
        bed.snapshot("full");
        let before = rows_of(&server, 1);
        bed.run(&["export", "pg"]).done();
        let moment = server.sql("select pg_sleep(0.01);\nselect to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')");
        let moment = moment.trim();
        for (round, from) in [&["--from-export"][..], &["--at", moment]].into_iter().enumerate() {
            server.sql_in("app", MESS.trim());
            bed.archived(&server);
            bed.ship();
            let (broken, others) = (rows_of(&server, 1), quiet_rows(&server));
            let differ = before.lines().zip(broken.lines()).filter(|(was, is)| was != is);
            assert_eq!(differ.count(), 19, "{broken}");
            let noted = logged(&server);
            let writer = Writer::start(&server);
            // Whoever holds a row keeps nobody from looking.
            let mode = if round % 2 == 0 { "fk" } else { "replica" };
            if mode == "replica" {
                server.sql(&format!("grant set on parameter session_replication_role to {OWNER}"));
            }
            let words = [from, &["--tenant", "acme", "--mode", mode, "--json"]].concat();
            let planned =
                report(restore(&bed, server.port(), &[&words[..], &["--dry-run"]].concat()));
            assert_eq!(rows_of(&server, 1), broken, "a dry run changes nothing");
            let done = report(restore(&bed, server.port(), &words));
            let written = writer.stop();
            assert_eq!(rows_of(&server, 1), before, "{version:?} {from:?}: {done:#}");
            assert_eq!(quiet_rows(&server), others, "{version:?} {from:?}");
            let kept = server.sql_in("app", "select count(*) from event where what = 'written'");
            assert_eq!(kept, written.to_string());
            assert_eq!(planned["tables"], done["tables"]);
            assert_eq!((&planned["key"], &done["mode"]), (&"1".into(), &mode.into()));
            let account = changes(&done, "public.account");
            assert_eq!(account["removed"], 5, "{done:#}");
            assert!(account["added"].as_u64() >= Some(11) && account["changed"].as_u64() > Some(0));
            let quiet = done["quiet_triggers"].as_array().unwrap().len();
            assert_eq!(quiet, if mode == "fk" { 5 } else { 1 }, "{done:#}");
            assert_eq!(logged(&server), noted, "no trigger fired");
            server.sql_in("app", "delete from event where what = 'written'");
            let again =
                report(restore(&bed, server.port(), &[&words[..], &["--dry-run"]].concat()));
            assert!(
                again["tables"].as_array().unwrap().iter().all(|table| {
                    ["added", "changed", "removed"].iter().all(|count| table[*count] == 0)
                }),
                "{again:#}"
            );
        }
        // Even one of whom nothing is left.
        let gone = "set session_replication_role = replica;\n";
        let gone = (1..=22).fold(gone.to_owned(), |text, n| {
            text + &format!("delete from g{n} where tenant_id = 1;\n")
        });
        let more = "delete from note where slug = 'acme';\ndelete from tenant where id = 1;";
        server.sql_in("app", &(gone + more));
        report(restore(&bed, server.port(), &["--from-export", "--tenant", "acme", "--json"]));
        assert_eq!(rows_of(&server, 1), before);
    }
}

/// What is done to the database after its export and undone again, and what a restore says then.
const UNSAFE: &[(&str, &str, i32, &str)] = &[
    ("create table extra (x int)", "drop table extra", 14, "public.extra is neither mapped"),
    (
        "alter table task add column more int",
        "alter table task drop column more",
        14,
        "public.task: column more is not in the backup",
    ),
    (
        "alter table g3 alter column v type varchar(9)",
        "alter table g3 alter column v type text",
        14,
        "public.g3: column v was text, and is character varying(9)",
    ),
    (
        "create rule r as on delete to g4 do nothing",
        "drop rule r on g4",
        14,
        "public.g4 has rewrite rules",
    ),
    (
        "create table heir () inherits (g5)",
        "drop table heir",
        14,
        "public.g5 has tables that inherit",
    ),
    (
        "alter table secured force row level security",
        "alter table secured no force row level security",
        14,
        "public.secured has rows that row security hides",
    ),
    (
        "alter table plan rename to planned",
        "alter table planned rename to plan",
        14,
        "there is no table public.plan",
    ),
    (
        "alter table task rename constraint task_tenant_id_project_fkey to x",
        "alter table task rename constraint x to task_tenant_id_project_fkey",
        14,
        "public.task has no foreign key task_tenant_id_project_fkey",
    ),
    (
        "update tenant set slug = 'other' where id = 1; insert into tenant values (9, 'acme')",
        "delete from tenant where id = 9; update tenant set slug = 'acme' where id = 1",
        14,
        "acme belongs to a different tenant now: in the backup its key was 1, today it is 9",
    ),
    // Somebody else has taken the key of a row that went.
    (
        "insert into note values (3, 'bolt', 'mine')",
        "delete from note where id = 3",
        1,
        "duplicate key value violates unique constraint \"note_pkey\"",
    ),
    // A row of another tenant stands in the way of one that goes.
    (
        "insert into comment (account, body) select max(id), 'x' from account where tenant_id = 2; insert into attachment select md5('x')::uuid, max(id), null from comment; update comment set account = (select max(id) from account where tenant_id = 1) where body = 'x'; insert into g2 (tenant_id, v, up) select 2, 'cross', max(id) from g1 where tenant_id = 1",
        "delete from g2 where v = 'cross'; delete from attachment where id = md5('x')::uuid; delete from comment where body = 'x'",
        1,
        "violates foreign key constraint",
    ),
    (
        "insert into audit.log (account, what) select max(id), 'of a row that goes' from account where tenant_id = 1",
        "delete from audit.log where what = 'of a row that goes'",
        14,
        "audit.log refer to rows of public.account that would be deleted",
    ),
    (
        "delete from account where country = 'at' and tenant_id = 1 and id not in (select account from comment where account is not null); update account set country = null; delete from country where code = 'at'",
        "insert into country values ('at', 'Austria')",
        1,
        "account_country_fkey",
    ),
];

/// Whatever is not safe is refused with its name, and changes nothing.
#[test]
fn what_cannot_come_back_safely_is_refused_by_name() {
    let Some(version) = Version::any() else { return };
    let (server, bed) = shared_database(version);
    bed.run(&["export", "pg"]).done();
    server.sql_in("app", MESS.trim());
    let state = || [1, 2, 3, 0].map(|tenant| rows_of(&server, tenant)).concat();
    let acme = ["--from-export", "--tenant", "acme"];
    for (doing, undoing, code, naming) in UNSAFE {
        for statement in doing.split("; ") {
            server.sql_in("app", statement);
        }
        let before = state();
        let refused = restore(&bed, server.port(), &acme).failed(*code, naming);
        assert!(refused.stderr.contains("nothing was changed"), "{}", refused.stderr);
        assert_eq!(state(), before, "{naming}");
        for statement in undoing.split("; ") {
            server.sql_in("app", statement);
        }
    }
    restore(&bed, server.port(), &["--from-export", "--tenant", "nobody"])
        .failed(10, "the backup has no tenant nobody");
    restore(&bed, server.port(), &["--tenant", "acme"]).failed(2, "which earlier rows are meant");
    restore(&bed, server.port(), &[&acme[..], &["--mode", "replica"]].concat())
        .failed(14, "may not set session_replication_role");
    let with_password = format!("postgresql://{OWNER}:secret@127.0.0.1:{}/app", server.port());
    let words = ["restore", "pg", "--yes", "--into", &with_password];
    let refused = bed.run(&[&words[..], &acme].concat()).failed(2, "--into has a password in it");
    assert!(!refused.stderr.contains("secret"), "{}", refused.stderr);
    restore(&bed, server.port(), &acme).done();
}

#[test]
fn a_replica_mode_restore_leaves_no_row_without_its_parent() {
    let Some(version) = Version::any() else { return };
    let (server, bed) = shared_database(version);
    bed.run(&["export", "pg"]).done();
    server.sql(&format!("grant set on parameter session_replication_role to {OWNER}"));
    server.sql_in("app", "update account set country = null");
    server.sql_in("app", "delete from country where code = 'at'");
    let before = rows_of(&server, 1);
    let words = ["--from-export", "--tenant", "acme", "--mode", "replica"];
    restore(&bed, server.port(), &words).failed(
        14,
        "30 row(s) of public.account would refer to nothing (foreign key account_country_fkey)",
    );
    assert_eq!(rows_of(&server, 1), before);
    server.sql_in("app", "insert into country values ('at', 'Austria')");
    restore(&bed, server.port(), &words).done();
}

/// A database of its own: how it is made, whose row is whose, what happens to it, what a restore is asked for, and
/// what shows that all is as it was; or what it is refused with.
struct Scenario {
    name: &'static str,
    setup: &'static str,
    map: &'static str,
    mess: &'static str,
    mode: &'static str,
    refused: Option<(i32, &'static str)>,
}

const BACK: Scenario =
    Scenario { name: "", setup: "", map: "", mess: "", mode: "fk", refused: None };

const TENANT: &str =
    "create table tenant (id citext primary key); insert into tenant values ('1'), ('2');";

const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "a partition that the backup has not",
        setup: "create schema archive;
            create table m (tenant_id citext not null references tenant, at date not null, v int) partition by range (at);
            create table m_new partition of m for values from ('2026-01-01') to (maxvalue);
            create table archive.m_old partition of m for values from (minvalue) to ('2026-01-01');
            insert into m values ('1', '2025-01-01', 1), ('1', '2026-02-01', 2), ('2', '2025-01-01', 3);",
        map: "\"public.m\" = { column = \"tenant_id\" }",
        mess: "update m set v = 99 where tenant_id = '1' and v = 2;",
        refused: Some((14, "partition archive.m_old has rows of the tenant")),
        ..BACK
    },
    Scenario {
        name: "a row outside that refers to one made again",
        setup: "create table t (id bigint generated by default as identity primary key, tenant_id citext references tenant, email text unique);
            create table log (id serial primary key, email text references t (email) on delete cascade, what text);
            insert into t (tenant_id, email) values ('1', 'a'), ('2', 'b'); insert into log (email) values ('a'), ('b');",
        map: "\"public.t\" = { column = \"tenant_id\" }",
        mess: "delete from t where email = 'a'; insert into t (tenant_id, email) values ('1', 'a'); insert into log (email, what) values ('a', 'since');",
        refused: Some((14, "1 row(s) of public.log refer to rows of public.t that would be deleted")),
        ..BACK
    },
    Scenario {
        name: "rows that go with one that is made again",
        setup: "create table t (id bigint generated by default as identity primary key, tenant_id citext references tenant, email text unique);
            create table pref (id int primary key, email text not null references t (email) on delete cascade, what text);
            insert into t (tenant_id, email) values ('1', 'a'), ('2', 'b'); insert into pref values (1, 'a', 'x'), (2, 'b', 'y');",
        map: "\"public.t\" = { column = \"tenant_id\" }\n\"public.pref\" = { via = \"pref_email_fkey\" }",
        mess: "delete from t where email = 'a'; insert into t (tenant_id, email) values ('1', 'a');",
        ..BACK
    },
    Scenario {
        name: "positions that moved up and two that were exchanged",
        setup: "create table t (id int primary key, tenant_id citext references tenant, pos int not null, unique (tenant_id, pos));
            create table child (id int primary key, t int references t on delete set null);
            insert into t select n, '1', n from generate_series(1, 9) n; insert into t values (20, '2', 1);
            insert into child select n, n from generate_series(1, 9) n; insert into child values (20, 20);",
        map: "\"public.t\" = { column = \"tenant_id\" }\n\"public.child\" = { via = \"child_t_fkey\" }",
        mess: "delete from child where id = 1; delete from t where id = 1; do $$ begin for n in 2..9 loop update t set pos = pos - 1 where id = n; end loop; end $$;
            update t set pos = 100 where id = 5; update t set pos = 4 where id = 6; update t set pos = 5 where id = 5;",
        ..BACK
    },
    Scenario {
        name: "a key that is equal and not the same",
        setup: "create table t (email citext primary key, tenant_id citext references tenant, v int); insert into t values ('Ann', '1'), ('b', '2');",
        map: "\"public.t\" = { column = \"tenant_id\" }",
        mess: "update t set email = 'ann' where tenant_id = '1';",
        ..BACK
    },
    Scenario {
        name: "a tenant whose key is written in two ways",
        setup: "update tenant set id = 'a' where id = '1'; insert into tenant values ('X1'); alter table tenant add column name text; update tenant set name = '1' where id = 'X1';
            create table t (id int primary key, tenant_id citext references tenant, v text); insert into t values (1, 'X1', 'x'), (2, 'x1', 'y'), (3, '2', 'z');",
        map: "\"public.t\" = { column = \"tenant_id\" }",
        mess: "update t set v = 'broken' where tenant_id = 'x1';",
        ..BACK
    },
    Scenario {
        name: "a key that is computed",
        setup: "create table t (a int not null, tenant_id citext references tenant, b int generated always as (a * 2) stored primary key); insert into t values (1, '1'), (2, '2');",
        map: "\"public.t\" = { column = \"tenant_id\" }",
        mess: "update t set a = 5 where tenant_id = '1';",
        ..BACK
    },
    Scenario {
        name: "collations that differ",
        setup: "create table p (code text collate \"C\" primary key, tenant_id citext references tenant); create table t (id int primary key, code text collate \"POSIX\" references p);
            insert into p values ('a', '1'), ('b', '2'); insert into t values (1, 'a'), (2, 'b');",
        map: "\"public.p\" = { column = \"tenant_id\" }\n\"public.t\" = { via = \"t_code_fkey\" }",
        mess: "delete from t where id = 1;",
        ..BACK
    },
    Scenario {
        name: "a value that is unique at the end",
        setup: "create table t (id int primary key, tenant_id citext references tenant, place int not null, unique (place) deferrable); insert into t values (1, '1', 10), (2, '2', 20);",
        map: "\"public.t\" = { column = \"tenant_id\" }",
        mess: "delete from t where id = 1; update t set place = 10 where id = 2;",
        mode: "replica",
        refused: Some((14, "values of public.t would occur twice (t_place_key)")),
    },
    Scenario {
        name: "one orphan for another",
        setup: "create table p (id int primary key, tenant_id citext references tenant); create table t (id int primary key, tenant_id citext references tenant, p int references p);
            insert into p values (1, '1'), (2, '2'); insert into t values (1, '1', 1), (2, '2', 2), (3, '2', 1);",
        map: "\"public.p\" = { column = \"tenant_id\" }\n\"public.t\" = { column = \"tenant_id\" }",
        mess: "insert into p values (9, '1'); update t set p = 9 where id = 3; set session_replication_role = replica; delete from p where id = 1;",
        mode: "replica",
        refused: Some((14, "other rows of public.t would lose or gain")),
    },
    Scenario {
        name: "a rule that is none",
        setup: "create table t (id int primary key, owner text); insert into t values (1, '1');",
        map: "\"public.t\" = { where = \"ownr = $tenant\" }",
        mess: "",
        refused: Some((14, "the rule of public.t: column \"ownr\" does not exist")),
        ..BACK
    },
    Scenario {
        name: "a key that another tenant has today",
        setup: "alter table tenant add column name text; update tenant set name = id; create table t (id int primary key, tenant_id citext references tenant); insert into t values (1, '1'), (2, '2');",
        map: "\"public.t\" = { column = \"tenant_id\" }",
        mess: "update tenant set name = 'zeta' where id = '1'; insert into t values (10, '1');",
        refused: Some((14, "the key 1 of tenant 1 belongs to zeta today")),
        ..BACK
    },
];

/// What reviewers found to be lost or wrong, each in a database of its own.
#[test]
fn nothing_is_lost_where_databases_are_odd() {
    let Some(version) = Version::all().into_iter().find(|version| version.has_amcheck()) else {
        return;
    };
    let server = Postgres::start(version, &Options::default());
    let bed = PostgresBed::new();
    for (number, scenario) in SCENARIOS.iter().enumerate() {
        let database = format!("odd{number}");
        server.sql(&format!("create database {database}"));
        server.sql_in(&database, "create extension citext");
        server.sql_in(&database, &format!("{TENANT}\n{}", scenario.setup));
        let name = if scenario.setup.contains("column name") { "name = \"name\"\n" } else { "" };
        let has_log = scenario.setup.contains("table log");
        let excluded = if has_log { "excluded = [\"public.log\"]\n" } else { "" };
        bed.source(&format!(
            "conninfo = {:?}\ndatabases = [{database:?}]\nexclude = [\"archive\"]\n[source.pg.tenants]\nroot = \"public.tenant\"\n{name}{excluded}[source.pg.tenants.tables]\n{}\n{}",
            server.conninfo(),
            scenario.map,
            tools(version),
        ));
        bed.run(&["export", "pg"]).done();
        let rows = || {
            let tables = "select string_agg(format('select %L, count(*), md5(string_agg(t::text, ''|'' order by t::text)) from %s t', c.oid::regclass, c.oid::regclass), ' union all ' order by c.oid) from pg_class c where relkind = 'r' and relnamespace <> 'pg_catalog'::regnamespace and relnamespace <> 'information_schema'::regnamespace";
            server.sql_in(&database, &server.sql_in(&database, tables))
        };
        let before = rows();
        server.sql_in(&database, scenario.mess);
        let broken = rows();
        let conninfo = server.conninfo();
        let home = conninfo.split_whitespace().next().unwrap().trim_start_matches("host=");
        let into =
            format!("postgresql://{SUPERUSER}@/{database}?host={home}&port={}", server.port());
        let words = ["restore", "pg", "--yes", "--from-export", "--tenant", "1", "--into", &into];
        let run = bed.run(&[&words[..], &["--mode", scenario.mode]].concat());
        if let Some((code, naming)) = scenario.refused {
            run.failed(code, naming);
            assert_eq!(rows(), broken, "{}", scenario.name);
        } else {
            run.done();
            assert_eq!(rows(), before, "{}", scenario.name);
        }
    }
}

/// The table that says where the programs of a version are.
fn tools(version: Version) -> String {
    let program = version.program("postgres");
    format!("[tools]\npostgres = \"{}\"\n", program.parent().unwrap().display())
}

/// A map that is proposed is one that works.
#[test]
fn a_map_is_proposed_from_foreign_keys_and_checked() {
    let Some(version) = Version::any() else { return };
    let (server, bed) = shared_database(version);
    let words =
        ["config", "tenants", "pg", "--root", "public.tenant", "--database", "app", "--json"];
    let proposed = report(bed.run(&words));
    assert_eq!(proposed["configured"], false);
    let problems = proposed["problems"].to_string();
    for naming in ["public.note", "audit.log", "public.country"] {
        assert!(problems.contains(naming), "{naming}: {problems}");
    }
    let map = proposed["map"].as_str().unwrap();
    for line in [
        "\"public.task\" = { via = \"task_tenant_id_project_fkey\" }",
        "\"public.attachment\" = { via = \"attachment_comment_fkey\" }",
        "\"public.g7\" = { column = \"tenant_id\" }",
        "\"public.egg\" = { via = \"egg_hen_fkey\" }",
    ] {
        assert!(map.contains(line), "{line}: {map}");
    }
    bed.run(&["config", "tenants", "pg"]).done();
    let config = std::fs::read_to_string(bed.path("bkp.toml")).unwrap();
    let wrong = config.replace("via = \"egg_hen_fkey\"", "via = \"egg_fkey\"");
    bed.write("bkp.toml", &wrong);
    let unfit = bed.run(&["config", "tenants", "pg"]);
    assert_eq!(unfit.code, Some(78), "{}", unfit.stdout);
    let doctor = bed.run(&["doctor"]).stdout;
    assert!(doctor.contains("public.egg has no foreign key egg_fkey"), "{doctor}");
    assert!(unfit.stdout.contains("public.egg has no foreign key egg_fkey"), "{}", unfit.stdout);
    // The proposal in the place of the map.
    let (before, rest) = config.split_once("\n[source.pg.tenants]").unwrap();
    let (_, tools) = rest.split_once("\n[tools]").unwrap();
    let map =
        map.replacen("root = \"public.tenant\"", "root = \"public.tenant\"\nname = \"slug\"", 1);
    bed.write("bkp.toml", &format!("{before}\n{map}\n[tools]{tools}"));
    bed.run(&["config", "tenants", "pg"]).done();
    bed.run(&["export", "pg"]).done();
    let accounts = "select md5(string_agg(a::text, '|' order by id)) from account a";
    let was = server.sql_in("app", accounts);
    server.sql_in("app", "update account set email = 'changed' || id where id < 9");
    restore(&bed, server.port(), &["--from-export", "--tenant", "acme"]).done();
    assert_eq!(server.sql_in("app", accounts), was);
}

/// A door to a server that kills whoever comes in with so many statements.
struct Door {
    port: u16,
    seen: Arc<AtomicU64>,
}

impl Door {
    /// Opens one: `limit` statements pass, and with the next one the process whose number is in `victim` is killed.
    fn open(to: u16, limit: u64, victim: &Arc<AtomicU64>) -> Door {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(AtomicU64::new(0));
        let (counted, victim) = (Arc::clone(&seen), Arc::clone(victim));
        thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(server)) =
                    (client, TcpStream::connect((Ipv4Addr::LOCALHOST, to)))
                else {
                    return;
                };
                let (mut back, mut from) =
                    (client.try_clone().unwrap(), server.try_clone().unwrap());
                thread::spawn(move || std::io::copy(&mut from, &mut back));
                let (counted, victim) = (Arc::clone(&counted), Arc::clone(&victim));
                thread::spawn(move || pass(client, server, limit, &counted, &victim));
            }
        });
        Door { port, seen }
    }
}

/// Passes messages on, whole ones.
fn pass(
    mut client: TcpStream,
    mut server: TcpStream,
    limit: u64,
    seen: &AtomicU64,
    victim: &AtomicU64,
) -> Option<()> {
    let mut has_begun = false;
    loop {
        let mut head = vec![0; if has_begun { 5 } else { 4 }];
        client.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes(head.last_chunk::<4>().copied()?);
        let mut body = vec![0; length as usize - 4];
        client.read_exact(&mut body).ok()?;
        if has_begun && head.first() == Some(&b'Q') && seen.fetch_add(1, Ordering::SeqCst) >= limit
        {
            let number = i32::try_from(victim.load(Ordering::SeqCst)).ok()?;
            kill_process(Pid::from_raw(number)?, Signal::KILL).ok()?;
            // As the system does when a process is gone; the other direction would keep it open.
            server.shutdown(Shutdown::Both).ok()?;
            return None;
        }
        has_begun = true;
        server.write_all(&head).ok()?;
        server.write_all(&body).ok()?;
    }
}

/// Wherever it is killed, the tenant has all that it had, or all that it had earlier.
#[test]
fn a_restore_that_is_killed_at_any_statement_has_done_nothing_or_all() {
    let Some(version) = Version::any() else { return };
    let (server, bed) = shared_database(version);
    bed.run(&["export", "pg"]).done();
    let before = rows_of(&server, 1);
    server.sql_in("app", MESS.trim());
    let (broken, others) = (rows_of(&server, 1), quiet_rows(&server));
    let victim = Arc::new(AtomicU64::new(0));
    let attempt = |limit: u64, more: &[&str]| {
        let door = Door::open(server.port(), limit, &victim);
        let into = address(door.port);
        let words =
            ["restore", "pg", "--yes", "--from-export", "--tenant", "acme", "--into", &into];
        let mut command = bed.command(&[&words[..], more].concat());
        command.env("PGPASSWORD", PASSWORD).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        victim.store(child.id().into(), Ordering::SeqCst);
        let status = child.wait().unwrap();
        (status.success(), door.seen.load(Ordering::SeqCst))
    };
    let (done, looking) = attempt(u64::MAX, &["--dry-run"]);
    assert!(done && looking > 100, "{looking}");
    let count = rounds(6) as u64;
    let mut killed = 0;
    for round in 0.. {
        // Most of them in the transaction, which comes last.
        let limit = looking + round * (220 / count).max(1);
        let (done, _) = attempt(limit, &[]);
        let rows = rows_of(&server, 1);
        assert_eq!(quiet_rows(&server), others, "killed at statement {limit}");
        if done {
            assert_eq!(rows, before);
            break;
        }
        killed += 1;
        assert_eq!(rows, broken, "killed at statement {limit}");
    }
    assert!(killed > 3, "{killed}");
}
