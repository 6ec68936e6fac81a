//! The engine process: bkp started once more, with the linked DuckDB and nothing else.
//!
//! It has no key, no credential, no environment and no privilege, lives in one folder of ours, and answers
//! questions on its standard input, which is a socket. It ends when that does. After it has closed its databases
//! it can be asked to open others in the same folder.

use std::ffi::OsString;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

use duckdb::{Config, Connection};

use crate::source::duckdb::engine::clock::Clock;
use crate::source::duckdb::engine::confine;
use crate::source::duckdb::engine::diff;
use crate::source::duckdb::engine::parser;
use crate::source::duckdb::engine::protocol::{
    Answer, Base, CATALOG, Compare, CompareOutcome, EngineCommand, HERE, LogMerge, OUTPUT, OUTSIDE,
    Open, Question, RowSum, TallyStatement, TextRow, WORD, receive, send,
};
use crate::source::duckdb::engine::raw::RawDatabase;
use crate::source::duckdb::engine::row_hash;
use crate::source::duckdb::engine::row_hash::RowKeys;
use crate::source::duckdb::engine::sequences;
use crate::source::duckdb::engine::tally;
use crate::source::duckdb::engine::tally::Tallies;
use crate::source::duckdb::schema::sql;

/// What a refused question is told.
type ErrorText = String;

/// Runs the engine until nobody asks any more, if these words of a command line ask for one.
pub(crate) fn serve(words: &[OsString]) -> Option<ExitCode> {
    words.get(1).is_some_and(|word| word == WORD).then(engine)
}

fn engine() -> ExitCode {
    // It closes every file beyond the standard ones.
    let confined = confine::confine();
    let Ok(line) = rustix::io::dup(rustix::stdio::stdin()).map(UnixStream::from) else {
        return ExitCode::FAILURE;
    };
    match confined.and_then(|()| answer_all(&line)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            // Nobody may be there to hear it.
            let _told = send(&line, &Answer::Refused(why));
            ExitCode::FAILURE
        }
    }
}

fn answer_all(line: &UnixStream) -> Result<(), ErrorText> {
    let Some(Question { asked: EngineCommand::Open(mut open), .. }) = next(line)? else {
        return Ok(());
    };
    confine::enclose(open.folder, open.memory_bytes)?;
    let mut clock = None;
    loop {
        let engine = Engine::open(&open)?;
        let clock = match &mut clock {
            Some(clock) => clock,
            none => none.insert(Clock::begin(line).map_err(|error| error.to_string())?),
        };
        clock.watch(Some(engine.connection.interrupt_handle()));
        tell(line, &Answer::Done)?;
        match answer_until_closed(line, engine, clock)? {
            Some(next) => open = next,
            None => return tell(line, &Answer::Done),
        }
    }
}

/// Answers questions to an open engine, and closes it; what is to be opened instead, if that is why.
fn answer_until_closed(
    line: &UnixStream,
    engine: Engine,
    clock: &Clock,
) -> Result<Option<Open>, ErrorText> {
    let mut other = None;
    while let Some(Question { seconds, asked }) = next(line)? {
        clock.set(Some(Duration::from_secs(seconds)));
        if let EngineCommand::Reopen(open) = asked {
            other = Some(open);
            break;
        }
        let answer =
            if matches!(asked, EngineCommand::Close) { break } else { engine.answer(asked) };
        clock.set(None);
        tell(line, &answer.unwrap_or_else(Answer::Refused))?;
    }
    let Engine { connection, database, .. } = engine;
    let closed = connection.close().map_err(|(_, error)| error_text(&error));
    drop(database);
    clock.set(None);
    clock.watch(None);
    closed.map(|()| other)
}

fn next(line: &UnixStream) -> Result<Option<Question>, ErrorText> {
    receive::<Question>(line).map_err(|error| error.to_string())
}

fn tell(line: &UnixStream, answer: &Answer) -> Result<(), ErrorText> {
    send(line, answer).map_err(|error| error.to_string())
}

struct Engine {
    connection: Connection,
    /// What the connection is to; it is closed after that.
    database: RawDatabase,
    tallies: Tallies,
}

impl Engine {
    fn open(open: &Open) -> Result<Engine, ErrorText> {
        let database = RawDatabase::open(&settings(open))?;
        let connection = database.connect().map_err(|error| error_text(&error))?;
        configure(&connection, open).map_err(|error| error_text(&error))?;
        Ok(Engine { connection, database, tallies: Tallies::default() })
    }

    fn answer(&self, asked: EngineCommand) -> Result<Answer, ErrorText> {
        match asked {
            EngineCommand::Open(_) | EngineCommand::Reopen(_) | EngineCommand::Close => {
                Err("it is open already".to_owned())
            }
            EngineCommand::RowKeys(keys) => {
                let keys = RowKeys::from_hex(&keys).ok_or("invalid keys")?;
                row_hash::register(&self.database, &keys)?;
                tally::register(&self.database, &self.tallies).map(|()| Answer::Done)
            }
            EngineCommand::Run(sql) => self.run(&sql).map(|()| Answer::Done),
            EngineCommand::Tally(what) => self.tally(&what),
            EngineCommand::Define { begins, sql } => {
                self.define(&begins, &sql).map(|()| Answer::Done)
            }
            EngineCommand::Table(query) => {
                self.table(&query).map(|(columns, rows)| Answer::Table { columns, rows })
            }
            EngineCommand::Insert { table, rows } => {
                self.insert(&table, &rows).map(|()| Answer::Done)
            }
            EngineCommand::Compare(compare) => self.compare(&compare).map(Answer::Compared),
        }
    }

    /// Also a statement of ours has names and types of the database in it.
    fn check(&self, sql: &str) -> Result<(), ErrorText> {
        // What does not parse the engine refuses in its own words.
        match parser::count(&self.database, sql) {
            None | Some(1) => Ok(()),
            Some(count) => Err(format!("it is {count} statements, not one")),
        }
    }

    fn run(&self, sql: &str) -> Result<(), ErrorText> {
        self.check(sql)?;
        self.connection.execute_batch(sql).map_err(|error| error_text(&error))
    }

    fn tally(&self, what: &TallyStatement) -> Result<Answer, ErrorText> {
        self.check(what.sql())?;
        self.tallies.take();
        let rows = match what {
            TallyStatement::Copy(sql) => self.connection.execute(sql, []).map(|rows| rows as u64),
            TallyStatement::Count(sql) => self.connection.query_row(sql, [], |row| row.get(0)),
        };
        let rows = rows.map_err(|error| error_text(&error))?;
        Ok(Answer::Tallied { rows, groups: self.tallies.take().into_iter().collect() })
    }

    fn define(&self, begins: &[String], sql: &str) -> Result<(), ErrorText> {
        if !begins.iter().any(|begin| sql.starts_with(begin.as_str())) {
            let expected = begins.join(" or ");
            return Err(format!("not a statement that begins with {expected}"));
        }
        if parser::count(&self.database, sql).is_some() && !parser::is_one(&self.database, sql) {
            return Err("it is more than one statement".to_owned());
        }
        self.connection.execute_batch(sql).map_err(|error| error_text(&error))
    }

    fn table(&self, query: &str) -> Result<(Vec<String>, Vec<TextRow>), ErrorText> {
        let sql = format!("SELECT CAST(COLUMNS(*) AS VARCHAR) FROM (\n{query}\n)");
        self.check(&sql)?;
        let read = || -> duckdb::Result<_> {
            let mut statement = self.connection.prepare(&sql)?;
            let mut rows = statement.query([])?;
            let columns = rows.as_ref().map(duckdb::Statement::column_names).unwrap_or_default();
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                let row = (0..columns.len()).map(|index| row.get(index)).collect::<Result<_, _>>();
                found.push(row?);
            }
            Ok((columns, found))
        };
        read().map_err(|error| error_text(&error))
    }

    fn insert(&self, table: &str, rows: &[TextRow]) -> Result<(), ErrorText> {
        let Some(width) = rows.first().map(Vec::len) else { return Ok(()) };
        let sql = format!("INSERT INTO {table} VALUES ({})", vec!["?"; width].join(", "));
        self.check(&sql)?;
        let insert = || -> duckdb::Result<()> {
            let mut statement = self.connection.prepare(&sql)?;
            for row in rows {
                statement.execute(duckdb::params_from_iter(row))?;
            }
            Ok(())
        };
        insert().map_err(|error| error_text(&error))
    }

    fn compare(&self, compare: &Compare) -> Result<Option<CompareOutcome>, ErrorText> {
        let queries = compare.later.iter().chain([&compare.base, &compare.now]);
        queries.into_iter().try_for_each(|query| self.check(query))?;
        let found = sequences::differences(&self.connection, compare);
        let found = found.map_err(|error| match error.downcast_ref::<duckdb::Error>() {
            Some(error) => error_text(error),
            None => format!("{error:#}"),
        });
        let Some(found) = found? else {
            return Ok(None);
        };
        let rows = found.rows.iter().map(|place| [*place]);
        self.fill(&compare.rows, "bkp_r BIGINT", rows)?;
        let gone = found.gone.iter().map(|(key, other)| [*key, *other]);
        self.fill(&compare.gone, "bkp_a UBIGINT, bkp_b UBIGINT", gone)?;
        let sum = |total: diff::Total| RowSum { rows: total.rows, sum: total.sum.to_string() };
        Ok(Some(CompareOutcome {
            rows: found.rows.len() as u64,
            gone: found.gone.len() as u64,
            before: sum(found.before),
            now: sum(found.now),
        }))
    }

    /// Makes a temporary table with these columns, of numbers, anew and fills it.
    fn fill<const N: usize>(
        &self,
        name: &str,
        columns: &str,
        rows: impl Iterator<Item = [u64; N]>,
    ) -> Result<(), ErrorText> {
        self.run(&format!("CREATE OR REPLACE TEMP TABLE {name} ({columns})"))?;
        let fill = || -> duckdb::Result<()> {
            let mut appender = self.connection.appender_to_catalog_and_db(name, "temp", "main")?;
            for row in rows {
                appender.append_row(duckdb::appender_params_from_iter(row))?;
            }
            appender.flush()
        };
        fill().map_err(|error| error_text(&error))
    }
}

/// What an engine is opened with.
fn settings(open: &Open) -> [(&'static str, String); 7] {
    let spill = if open.folder { format!("{HERE}/spill") } else { String::new() };
    [
        ("autoinstall_known_extensions", "false".into()),
        ("autoload_known_extensions", "false".into()),
        ("allow_community_extensions", "false".into()),
        // Two states of a table are compared side by side.
        ("preserve_insertion_order", "true".into()),
        ("temp_directory", spill),
        ("memory_limit", format!("{}KiB", open.memory_bytes >> 10)),
        ("threads", open.threads.to_string()),
    ]
}

fn config(open: &Open) -> duckdb::Result<Config> {
    let settings = settings(open);
    settings.iter().try_fold(Config::default(), |config, (name, value)| config.with(name, value))
}

/// What is the same in every session: the time zone, in which values become text and are hashed, and
/// that the database, a file that may be written or not or one in memory, is an attached one. Opened as
/// the engine's own it could not read every log: what the log's statements refer to, like functions in
/// defaults, is looked up in a catalog that is not there yet. Nothing can be set after it, and no statement
/// gets to files, programs or networks, but to the folder of the process where ours have to.
fn configure(connection: &Connection, open: &Open) -> duckdb::Result<()> {
    // An engine without time zones has no such setting, and writes UTC.
    const KNOWN: &str = "SELECT count(*) FROM duckdb_settings() WHERE name = 'TimeZone'";
    let known: i64 = connection.query_row(KNOWN, [], |row| row.get(0))?;
    if known > 0 {
        connection.execute_batch("SET TimeZone = 'UTC'")?;
    }
    connection.execute_batch(&format!("ATTACH ':memory:' AS {OUTSIDE}"))?;
    if open.database.is_none() {
        connection.execute_batch(&format!("ATTACH ':memory:' AS {CATALOG}"))?;
    }
    for base in open.database.iter().chain(&open.beside) {
        match base.settle {
            LogMerge::Not => {}
            LogMerge::Attached => attach_and_merge_log(base, open)?,
            LogMerge::Own => open_and_merge_log(base, open)?,
        }
        connection.execute_batch(&attach(base)).or_else(|error| {
            if !base.write
                || base.storage_version.is_some()
                || open_and_merge_log(base, open).is_err()
            {
                return Err(error);
            }
            connection.execute_batch(&attach(base))
        })?;
    }
    // The engine's own is called `memory`, as a schema may be.
    connection.execute_batch(&format!("USE {CATALOG}.main; DETACH memory"))?;
    if open.files {
        let folder = sql::text(&format!("{HERE}/"));
        let output = sql::text(OUTPUT);
        connection.execute_batch(&format!(
            "SET allowed_directories = [{folder}]; SET allowed_paths = [{output}]"
        ))?;
    }
    connection.execute_batch("SET enable_external_access = false")?;
    connection.execute_batch("SET lock_configuration = true")
}

/// Puts the log of a database into its file, in a way in which it can be read.
fn attach_and_merge_log(base: &Base, open: &Open) -> duckdb::Result<()> {
    let attached = || -> duckdb::Result<()> {
        let connection = Connection::open_in_memory_with_flags(config(open)?)?;
        connection.execute_batch(&attach(base))?;
        connection.execute_batch(&format!("CHECKPOINT {}", sql::name(&base.name)))?;
        connection.close().map_err(|(_, error)| error)
    };
    // What it says of the first way is what is wrong with most logs.
    attached().or_else(|error| open_and_merge_log(base, open).or(Err(error)))
}

/// Some logs can be read only where the database is the engine's own: names in their indexes are those of no
/// catalog.
fn open_and_merge_log(base: &Base, open: &Open) -> duckdb::Result<()> {
    let own = Connection::open_with_flags(&base.path, config(open)?)?;
    own.execute_batch("SET enable_external_access = false")?;
    own.execute_batch("CHECKPOINT")?;
    own.close().map_err(|(_, error)| error)
}

fn attach(base: &Base) -> String {
    let (path, name) = (sql::text(&base.path), sql::name(&base.name));
    let mode = if base.write { "READ_WRITE" } else { "READ_ONLY" };
    let version = base.storage_version.as_ref();
    // Some types exist since a storage version.
    let version = version.map(|version| format!(", STORAGE_VERSION {}", sql::text(version)));
    format!("ATTACH {path} AS {name} (TYPE duckdb, {mode}{})", version.unwrap_or_default())
}

/// What the engine says, without where in its code that is.
fn error_text(error: &duckdb::Error) -> ErrorText {
    let words = error.to_string();
    words.split("\n\nStack Trace:").next().unwrap_or_default().trim_end().to_owned()
}
