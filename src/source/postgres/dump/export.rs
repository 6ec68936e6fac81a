//! From a server into the chain: a dump of each database and one of what all of them share.

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{ChildStdout, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::custom_format::{Contents, Flaw};
use super::facts::{ServerState, facts_of, server_state};
use super::index::{Database, Index, SCHEMA, Table};
use super::selection::plain;
use crate::ctx::Ctx;
use crate::error::{Fault, Kind};
use crate::pipeline::objects::ObjectSink;
use crate::source::postgres::client::{Connection, Conninfo};
use crate::source::postgres::configured::Server;
use crate::source::postgres::server::account::Account;
use crate::source::postgres::server::programs::{Programs, RunningProgram, Task};
use crate::source::{Captured, ExportRequest, MapWriter, SourceError};

/// The database that every server has, for what all of them share.
const DATABASE: &str = "postgres";
/// How long the server may say nothing to a question about a catalogue, which may be large.
const SILENCE: Duration = Duration::from_mins(10);
/// How often it is looked whether a program that says nothing may go on.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
/// The line at the end of what `pg_dumpall` writes.
const GLOBALS_END: &[u8] = b"-- PostgreSQL database cluster dump complete";
/// Bytes of its end that are kept to look for that.
const END_BYTES: usize = 1024;
/// Characters of a database's name in the name of its object.
const NAME_CHARS_MAX: usize = 60;

/// Dumps the databases of a server that are wanted.
///
/// # Errors
/// [`SourceError`] if a database cannot be dumped completely; what `out` fails with.
pub(in crate::source::postgres) fn export(
    server: &Server,
    request: &ExportRequest<'_>,
    out: &mut dyn ObjectSink,
    ctx: &Ctx,
) -> anyhow::Result<Captured> {
    if let Some(mode) = &request.mode {
        let message = format!("an export of PostgreSQL has no mode `{mode}`");
        return Err(Fault::new(Kind::Usage, message).hint("omit --mode").into());
    }
    let conninfo = server.reach(ctx)?;
    let mut sql = server.connect(DATABASE, SILENCE, ctx)?;
    let state = server_state(&mut sql, server)?;
    let major = u8::try_from(state.version_number / 10_000)?;
    let programs = Programs::client("pg_dump", major, request.tools.postgres.as_deref())?;
    let dumper = Dumper { server, conninfo, programs, scratch: request.scratch, ctx };
    let mut index = Index {
        schema: SCHEMA.to_owned(),
        version: state.version.clone(),
        version_number: state.version_number,
        client: dumper.programs.version.clone(),
        passwords: state.reads_passwords,
        tablespaces: state.tablespaces.clone(),
        databases: Vec::new(),
        left_out: state.left_out.clone(),
    };
    for left_out in &index.left_out {
        ctx.monitor.warn(&format!("not dumped: {}", plain(left_out)));
    }
    let mut lost = Vec::new();
    dumper.globals(&sql, &state, out)?;
    for (number, name) in state.databases.iter().enumerate() {
        ctx.cancel.check()?;
        let database = dumper.database(number + 1, name, out)?;
        let subscriptions = database.facts.subscriptions.len();
        if subscriptions > 0 && !state.is_superuser {
            lost.push(format!(
                "{subscriptions} subscription(s) of database {}: only a superuser can dump them",
                plain(name)
            ));
        }
        index.databases.push(database);
    }
    let record = index.record(&state.system);
    let encoded = serde_json::to_vec(&index)?;
    let map: MapWriter = Box::new(move |out| out.write_all(&encoded));
    Ok(Captured { record, map: Some(map), lost })
}

/// What dumps are made with.
struct Dumper<'a> {
    server: &'a Server,
    conninfo: Conninfo,
    programs: Programs,
    scratch: &'a Path,
    ctx: &'a Ctx,
}

impl Dumper<'_> {
    /// Starts a program that connects to the place where `sql` is connected.
    fn start(
        &self,
        name: &str,
        database: &str,
        sql: &Connection,
        words: &[&str],
    ) -> anyhow::Result<RunningProgram> {
        let variables = self.conninfo.variables(sql.endpoint(), database)?;
        let variables: Vec<(&str, &str)> =
            variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let dbname = format!("--dbname={}", self.conninfo.words(database));
        let words = [&[dbname.as_str(), "--no-password"], words].concat();
        let task = Task { name, words: &words, variables: &variables };
        self.programs.start(&task, &Account::own(), self.scratch, Stdio::piped())
    }

    /// Dumps roles, their memberships and settings, and tablespaces.
    fn globals(
        &self,
        sql: &Connection,
        state: &ServerState,
        out: &mut dyn ObjectSink,
    ) -> anyhow::Result<()> {
        let mut words = vec!["--globals-only"];
        if !state.reads_passwords {
            words.push("--no-role-passwords");
        }
        out.compressed("globals", "globals.sql", &mut |out| {
            let running = self.start("pg_dumpall", DATABASE, sql, &words)?;
            let mut end = Vec::new();
            self.pass_on(running, out, &mut |input| {
                let mut chunk = vec![0; 64 << 10];
                loop {
                    let count = input.read(&mut chunk)?;
                    if count == 0 {
                        break;
                    }
                    end.extend_from_slice(chunk.get(..count).unwrap_or_default());
                    end.drain(..end.len().saturating_sub(END_BYTES));
                }
                let has_end = end.windows(GLOBALS_END.len()).any(|part| part == GLOBALS_END);
                let cut = || Flaw::Format("its last line is missing".to_owned());
                has_end.then_some(()).ok_or_else(cut)
            })
        })
    }

    /// Dumps a database as it is at one moment.
    fn database(
        &self,
        number: usize,
        name: &str,
        out: &mut dyn ObjectSink,
    ) -> anyhow::Result<Database> {
        let mut sql = self.server.connect(name, SILENCE, self.ctx)?;
        sql.query(&format!(
            "SET idle_in_transaction_session_timeout = 0; SET statement_timeout = 0; SET lock_timeout = {}; SET search_path = ''",
            self.server.dumps.lock_timeout.as_millis()
        ))?;
        if sql.server_version()? >= 170_000 {
            sql.query("SET transaction_timeout = 0")?;
        }
        sql.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")?;
        let snapshot = sql.query_value("SELECT pg_catalog.pg_export_snapshot()")?;
        let (facts, moment, lsn) = facts_of(&mut sql)?;
        let object = object_name(number, name);
        let words = self.words(&snapshot);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.ctx.monitor.detail(&format!("dumps database {} as of {moment}", plain(name)));
        let mut contents = Contents::default();
        out.compressed("database", &object, &mut |out| {
            let running = self.start("pg_dump", name, &sql, &words)?;
            self.pass_on(running, out, &mut |input| {
                contents = Contents::read(input)?;
                Ok(())
            })
        })?;
        // Until here the snapshot was needed. What became of the transaction besides is of no matter.
        let _ended = sql.query("ROLLBACK");
        let tables = contents.tables().map(|(schema, name, rows)| Table {
            schema: schema.to_owned(),
            name: name.to_owned(),
            rows,
        });
        Ok(Database {
            name: name.to_owned(),
            object: format!("{object}.zst.enc"),
            moment,
            lsn,
            facts,
            tables: tables.collect(),
            large_objects: contents.large_objects,
        })
    }

    fn words(&self, snapshot: &str) -> Vec<String> {
        let dumps = &self.server.dumps;
        let mut words = vec![
            "--format=custom".to_owned(),
            "--compress=0".to_owned(),
            format!("--snapshot={snapshot}"),
            format!("--lock-wait-timeout={}", dumps.lock_timeout.as_millis()),
        ];
        words.extend(dumps.exclude.iter().map(|pattern| {
            let kind = if pattern.contains('.') { "table" } else { "schema" };
            format!("--exclude-{kind}={pattern}")
        }));
        words
    }

    /// Passes on what a program writes, while `read` looks at it, and makes sure that the program ends well.
    fn pass_on(
        &self,
        mut running: RunningProgram,
        out: &mut dyn Write,
        read: &mut dyn FnMut(&mut dyn Read) -> Result<(), Flaw>,
    ) -> anyhow::Result<()> {
        let what = running.name().to_owned();
        let pipe = running.output();
        let pipe = pipe.ok_or_else(|| Fault::new(Kind::Failed, "a program without an output"))?;
        let mut tee = Tee { pipe, out, running: &running, ctx: self.ctx, failed: None };
        let looked = read(&mut tee);
        let Tee { failed, pipe, .. } = tee;
        if let Some(error) = failed {
            return Err(error);
        }
        if let Err(flaw) = &looked
            && !flaw.is_end()
            && !matches!(flaw, Flaw::Format(text) if text == "its last line is missing")
        {
            // It still writes, and nobody wants it.
            return Err(cut(&what, flaw));
        }
        drop(pipe);
        running.wait(self.ctx).map_err(|failure| failure.with(""))?;
        looked.map_err(|flaw| cut(&what, &flaw))
    }
}

/// What a program wrote is not complete, although it says so.
fn cut(what: &str, flaw: &Flaw) -> anyhow::Error {
    SourceError::Engine {
        what: what.to_owned(),
        reason: format!("what it wrote is not a complete dump: {flaw}"),
        hint: "run it by hand; if the dump is good, report this message".to_owned(),
    }
    .into()
}

/// What a program writes, which also goes to `out` as it is read.
struct Tee<'a> {
    pipe: ChildStdout,
    out: &'a mut dyn Write,
    running: &'a RunningProgram,
    ctx: &'a Ctx,
    /// What is wrong besides the program.
    failed: Option<anyhow::Error>,
}

impl Tee<'_> {
    fn read_and_write(&mut self, buffer: &mut [u8]) -> anyhow::Result<usize> {
        loop {
            self.running.check(self.ctx)?;
            let mut watched = [PollFd::new(&self.pipe, PollFlags::IN)];
            match poll(&mut watched, Some(&LOOK)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => break,
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
        let count = self.pipe.read(buffer)?;
        self.out.write_all(buffer.get(..count).unwrap_or_default())?;
        self.ctx.monitor.advance(count as u64);
        Ok(count)
    }
}

impl Read for Tee<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_and_write(buffer).map_err(|error| {
            self.failed = Some(error);
            io::Error::other("stopped")
        })
    }
}

/// The end of an object's name: a number, and so much of the database's name as any store can carry.
fn object_name(number: usize, database: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    let safe: String = database.chars().take(NAME_CHARS_MAX).map(plain).collect();
    format!("{number:04}-{safe}.dump")
}
