//! A load that keeps an invariant, and the check of it in whatever came back from a backup.
//!
//! Amounts move between accounts, whose balances sum to zero. Each transaction first takes the next number,
//! from a row that it holds until it commits: so the numbers in `commits` have no holes and grow in the order
//! of commits. Meanwhile tables of known content are made, moved, emptied and dropped, in transactions that
//! write down in `tables` what they did.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail as tests do; clippy sees tests only in marked functions"
)]

use std::fs;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use super::access::Access;
use super::{literal, place};
use crate::support::wait::{pause, until};

/// Accounts that amounts move between, and sessions that move them.
const ACCOUNTS: u32 = 500;
const SESSIONS: &str = "3";

const TABLES: &str = "
create table accounts (id int primary key, balance bigint not null default 0, note text);
create table number (n bigint not null);
create table commits (
    n bigint primary key,
    at timestamptz not null default clock_timestamp(),
    lsn pg_lsn not null default pg_current_wal_insert_lsn());
create table entries (
    n bigint not null, account int not null references accounts, amount bigint not null,
    primary key (n, account));
create index entries_account on entries (account);
create table tables (name text primary key, rows bigint not null, digest text);
create table heap (n bigint, filler text);
insert into tables values ('heap', 0, null);
insert into number values (0);
create procedure transfer() language plpgsql as $$
declare
    number bigint;
    payer int := 1 + floor(random() * ACCOUNTS);
    payee int := 1 + (payer + floor(random() * (ACCOUNTS - 1))::int) % ACCOUNTS;
    amount bigint := 1 + floor(random() * 1000);
begin
    update number set n = n + 1 returning n into number;
    insert into commits (n) values (number);
    insert into entries values (number, payer, -amount), (number, payee, amount);
    update accounts set balance = balance - amount, note = repeat(md5(amount::text), 4) where id = payer;
    update accounts set balance = balance + amount where id = payee;
end $$;
";

/// Whatever is wrong, a line each.
const WRONG: &str = "
select 'balances sum to ' || sum(balance) from accounts having sum(balance) <> 0;
select 'accounts: ' || count(*) from accounts having count(*) <> ACCOUNTS;
select 'commits: ' || count(*) || ' from ' || coalesce(min(n), 1) || ' to ' || coalesce(max(n), 0)
    || ', the counter is ' || (select n from number)
    from commits having count(*) <> coalesce(max(n), 0) or coalesce(min(n), 1) <> 1
    or coalesce(max(n), 0) <> (select n from number);
select 'commit ' || n || ' is before the last in time or log' from (
    select n, at < lag(at) over w or lsn < lag(lsn) over w as back from commits window w as (order by n)
) as commits where back limit 3;
select 'entries of commit ' || n from commits full join entries using (n)
    group by n having count(amount) <> 2 or sum(amount) <> 0 limit 3;
select 'account ' || id || ' has ' || balance || ', its entries say ' || coalesce(sum(amount), 0)
    from accounts left join entries on account = id
    group by id having balance <> coalesce(sum(amount), 0) limit 3;
select 'table ' || coalesce(relname, name) || ' is not where it should be'
    from (select relname from pg_class where relkind = 'r' and relname ~ '^(t[0-9]+|heap)$') as found
    full join tables on relname = name where relname is null or name is null;
";

/// Whether indexes say what the tables do, without any extension.
const BY_INDEX: &str = "
set enable_seqscan = off;
select count(*), sum(n), min(n), max(n) from commits where n > 0;
select sum(n), sum(amount) from entries where account > 0;
set enable_seqscan = on; set enable_indexscan = off; set enable_indexonlyscan = off; set enable_bitmapscan = off;
select count(*), sum(n), min(n), max(n) from commits where n > 0;
select sum(n), sum(amount) from entries where account > 0;
";

/// A load that runs until it is stopped, over restarts of its server too.
#[derive(Debug)]
pub(crate) struct Load {
    access: Access,
    database: String,
    stop: Arc<AtomicBool>,
    /// Each ends with what it failed of, which is nothing if its server was away.
    threads: Vec<JoinHandle<Result<(), String>>>,
}

/// What a check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Checked {
    /// The number of the last commit, and of all.
    pub(crate) max_n: u64,
    /// The balances together.
    pub(crate) sum: i64,
    /// Tables besides those of accounts.
    pub(crate) tables: u64,
}

impl Load {
    /// Makes a database in a server and writes to it. Tablespaces of the server are used too.
    pub(crate) fn start(access: &Access, database: &str) -> Load {
        access.sql(&format!("create database {database}"));
        if access.version().has_amcheck() {
            access.sql_in(database, "create extension amcheck");
        }
        access.sql_in(database, &TABLES.replace("ACCOUNTS", &ACCOUNTS.to_string()));
        let accounts = "insert into accounts select generate_series(1, ACCOUNTS)";
        access.sql_in(database, &accounts.replace("ACCOUNTS", &ACCOUNTS.to_string()));
        let (access, database) = (access.clone(), database.to_owned());
        let mut load = Load { access, database, stop: Arc::default(), threads: Vec::new() };
        load.go(transfers);
        load.go(definitions);
        load
    }

    fn go(&mut self, work: fn(&Access, &str, &AtomicBool) -> Result<(), String>) {
        let (access, database) = (self.access.clone(), self.database.clone());
        let stop = Arc::clone(&self.stop);
        self.threads.push(std::thread::spawn(move || {
            let outcome = work(&access, &database, &stop);
            if let Err(error) = &outcome {
                eprintln!("the load of {database} failed: {error}");
            }
            outcome
        }));
    }

    /// The number of the last commit by now.
    pub(crate) fn committed(&self) -> u64 {
        let answer = self.access.sql_in(&self.database, "select n from number");
        answer.parse().unwrap()
    }

    /// Waits until this number is committed.
    pub(crate) fn reach(&self, number: u64) {
        until(&format!("commit {number}"), || {
            let committed = self.committed() >= number;
            assert!(
                committed || !self.threads.iter().any(JoinHandle::is_finished),
                "the load has ended"
            );
            committed
        });
    }

    /// Waits for this many more commits.
    pub(crate) fn more(&self, commits: u64) {
        self.reach(self.committed() + commits);
    }

    /// Ends it; the number of the last commit. Nothing has failed in it, but for want of a server.
    pub(crate) fn stop(mut self) -> u64 {
        self.end().unwrap();
        // A session goes on for a moment when its client is gone.
        let sessions = format!(
            "select count(*) from pg_stat_activity where application_name = 'pgbench' and datname = {}",
            literal(&self.database)
        );
        until("the sessions of the load are gone", || self.access.sql(&sessions) == "0");
        self.committed()
    }

    fn end(&mut self) -> Result<(), String> {
        self.stop.store(true, Ordering::Relaxed);
        let ends: Vec<_> = self.threads.drain(..).map(|thread| thread.join().unwrap()).collect();
        ends.into_iter().find(Result::is_err).unwrap_or(Ok(()))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // A test that fails has its own complaint.
        let _outcome = self.end();
    }
}

/// Checks the invariant in a server that nobody writes to, wherever it came from; what is wrong otherwise.
pub(crate) fn check(access: &Access, database: &str) -> Result<Checked, String> {
    let wrong = WRONG.replace("ACCOUNTS", &ACCOUNTS.to_string());
    let wrong = access.try_sql(database, &wrong)?;
    if !wrong.is_empty() {
        return Err(wrong);
    }
    for line in access.try_sql(database, "select name, rows, digest from tables")?.lines() {
        let mut told = line.splitn(2, '|');
        let (name, content) = (told.next().unwrap(), told.next().unwrap());
        let found = format!("select count(*), {DIGEST} from {name}");
        let found = access.try_sql(database, &found)?;
        if found != content {
            return Err(format!("table {name} has {found}, not {content}"));
        }
    }
    by_index(access, database)?;
    if access.version().has_amcheck() {
        access.run("pg_amcheck", &["--heapallindexed", "--database", database])?;
    }
    let found = "select (select n from number), (select sum(balance) from accounts), (select count(*) from tables)";
    let found = access.try_sql(database, found)?;
    let mut numbers = found.split('|');
    let mut next = || numbers.next().unwrap();
    Ok(Checked {
        max_n: next().parse().unwrap(),
        sum: next().parse().unwrap(),
        tables: next().parse().unwrap(),
    })
}

fn by_index(access: &Access, database: &str) -> Result<(), String> {
    let answers = access.try_sql(database, BY_INDEX)?;
    let lines: Vec<&str> = answers.lines().collect();
    let (by_index, by_table) = lines.split_at(lines.len() / 2);
    if by_index == by_table { Ok(()) } else { Err(format!("indexes and tables differ: {lines:?}")) }
}

/// What a table of known content holds, as `tables` has it.
const DIGEST: &str = "md5(string_agg(n || filler, ',' order by n))";

/// Whether a complaint is only of a server that was stopped, is not there yet, or is gone.
fn is_away(complaint: &str) -> bool {
    let signs = [
        "connection to server",
        "server closed the connection",
        "terminating connection",
        "the database system is",
        "server process",
        "no connection to the server",
        "the backend died",
        "could not receive data",
    ];
    signs.iter().any(|sign| complaint.contains(sign))
}

/// Moves amounts.
fn transfers(access: &Access, database: &str, stop: &AtomicBool) -> Result<(), String> {
    let script = place::home().join("transfer.sql");
    fs::write(&script, "call transfer();\n").unwrap();
    while !stop.load(Ordering::Relaxed) {
        let log = script.with_extension("log");
        let mut command = access.program("pgbench");
        command.args([
            "-n",
            "-T",
            "3600",
            "-c",
            SESSIONS,
            "-f",
            script.to_str().unwrap(),
            database,
        ]);
        command.stdout(Stdio::null()).stderr(fs::File::create(&log).unwrap());
        let mut child = command.spawn().unwrap();
        if runs_until(&mut child, stop) {
            return Ok(());
        }
        let complaint = fs::read_to_string(&log).unwrap();
        if !is_away(&complaint) {
            return Err(complaint);
        }
        pause();
    }
    Ok(())
}

/// Waits for the end of a process, or ends it when it is to stop; whether it was stopped.
fn runs_until(child: &mut Child, stop: &AtomicBool) -> bool {
    while child.try_wait().unwrap().is_none() {
        if stop.load(Ordering::Relaxed) {
            child.kill().unwrap();
            child.wait().unwrap();
            return true;
        }
        pause();
    }
    false
}

/// Makes, moves, empties and drops tables, indexes and databases.
fn definitions(access: &Access, database: &str, stop: &AtomicBool) -> Result<(), String> {
    let spaces = "select spcname from pg_tablespace where spcname !~ '^pg_' limit 1";
    let space = access.try_sql(database, spaces)?;
    let space = if space.is_empty() { "pg_default" } else { &space };
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        match access.try_sql(database, &turn(database, number, space)) {
            Err(complaint) if !is_away(&complaint) => return Err(complaint),
            Err(_) => pause(),
            Ok(_) => {}
        }
    }
    Ok(())
}

/// The statements of one turn. Any of them may be the last before the server is gone.
fn turn(database: &str, number: u64, space: &str) -> String {
    let table = format!("t{number}");
    // Those of the last two turns.
    let emptied = format!("t{}", number.saturating_sub(1));
    let dropped = format!("t{}", number.saturating_sub(2));
    let (made, gone) = (format!("{database}_{number}"), format!("{database}_{}", number - 1));
    let strategy = if number.is_multiple_of(2) { "wal_log" } else { "file_copy" };
    let exists = |name: &str| format!("exists (select from tables where name = {})", literal(name));
    let heap = "update tables set rows = (select count(*) from heap), digest = (select DIGEST from heap) where name = 'heap'";
    let heap = heap.replace("DIGEST", DIGEST);
    format!(
        "begin;
        create table {table} as select n, md5(n::text) as filler from generate_series(1, 3000) as n;
        insert into tables select '{table}', count(*), {DIGEST} from {table};
        commit;
        create index on {table} (n);
        alter table {table} set tablespace {space};
        begin;
        insert into heap select n, repeat(md5(n::text), 8) from generate_series(1, 15000) as n;
        {heap};
        commit;
        vacuum full accounts;
        select {emptied_exists} as emptied, {dropped_exists} as dropped \\gset
        \\if :emptied
        alter table {emptied} set tablespace pg_default;
        vacuum full {emptied};
        begin;
        truncate {emptied};
        update tables set rows = 0, digest = null where name = '{emptied}';
        commit;
        \\endif
        \\if :dropped
        begin;
        drop table {dropped};
        delete from tables where name = '{dropped}';
        commit;
        \\endif
        begin;
        delete from heap;
        {heap};
        commit;
        vacuum heap;
        drop database if exists {gone};
        create database {made} strategy {strategy};
        \\connect {made}
        create table inside as select 1 as one;
        ",
        emptied_exists = exists(&emptied),
        dropped_exists = exists(&dropped),
    )
}
