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
use crate::support::postgres::access::{Access, PASSWORD};
use crate::support::postgres::bed::{PostgresBed, rounds};
use crate::support::postgres::tenants::{self, MESS, OWNER, rows_of, shared_rows};
use crate::support::postgres::{Postgres, Version};
use crate::support::schema::wrong;

/// A server with three tenants, and a bed that makes exports and base backups of it.
fn shared_database(version: Version) -> (Postgres, PostgresBed) {
    let bed = PostgresBed::new();
    let server = Postgres::start(version, &bed.options());
    tenants::make(&server);
    let source = format!("conninfo = {:?}\n{}", server.conninfo(), tenants::map());
    bed.source(&source);
    let config = std::fs::read_to_string(bed.path("bkp.toml")).unwrap();
    let program = version.program("postgres");
    let folder = program.parent().unwrap().display();
    bed.write("bkp.toml", &format!("{config}\n[tools]\npostgres = \"{folder}\"\n"));
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
    ("create rule r as on delete to g4 do nothing", "drop rule r on g4", 14, "public.g4 has rules"),
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
        "is another one today: its key was 1",
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
        "audit.log refer to rows of public.account that go",
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
        assert!(
            refused.stderr.contains("nothing was changed")
                || refused.stderr.contains("has what it had before"),
            "{}",
            refused.stderr
        );
        assert_eq!(state(), before, "{naming}");
        for statement in undoing.split("; ") {
            server.sql_in("app", statement);
        }
    }
    restore(&bed, server.port(), &["--from-export", "--tenant", "nobody"])
        .failed(10, "the backup has no tenant nobody");
    restore(&bed, server.port(), &["--tenant", "acme"]).failed(2, "which earlier rows are meant");
    restore(&bed, server.port(), &[&acme[..], &["--mode", "replica"]].concat())
        .failed(1, "permission denied to set parameter");
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
