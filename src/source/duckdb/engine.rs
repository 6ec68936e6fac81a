//! The linked DuckDB, in a process of its own: see [`crate::source::duckdb::engine::serve`] for what that may do. It opens files of
//! ours only, never one that another process may have open.

use std::cell::{Cell, RefCell};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use self::engine_process::ENDED;
use self::engine_process::{EngineProcess, NOT_STARTED};
pub(crate) use self::target::{DatabaseTarget, SessionOptions};
use crate::ctx::Ctx;
pub(crate) use crate::domain::text::plain;
use crate::error::{Fault, Kind};
use crate::source::ResourceLimits;
use crate::source::duckdb::data_file::format::Headers;
use crate::source::duckdb::engine::groups::Groups;
use crate::source::duckdb::engine::limits::EngineLimits;
use crate::source::duckdb::engine::protocol::{
    Answer, Base, Compare, CompareOutcome, DEFINITION, EngineCommand, HERE, LogMerge, OUTPUT, Open,
    TallyStatement, WORK,
};
pub(crate) use crate::source::duckdb::engine::protocol::{CATALOG, OUTSIDE, TextRow};
use crate::source::duckdb::schema::sql;

mod clock;
pub(crate) mod confine;
pub(crate) mod diff;
mod engine_process;
pub(crate) mod groups;
pub(crate) mod limits;
pub(crate) mod parser;
pub(crate) mod protocol;
pub(crate) mod raw;
pub(crate) mod row_hash;
pub(crate) mod sequences;
pub(crate) mod serve;
mod siphash;
pub(crate) mod state_merge;
pub(crate) mod tally;
mod target;

/// What is to be done where the engine's process does not start.
const LIBRARY: &str = "libduckdb.so must be beside bkp, or in ../lib/bkp from there: the engine gets no environment, and so no LD_LIBRARY_PATH";

/// The table of a session with its database's macros: see [`Session::leave_user_schema`].
pub(crate) const MACROS: &str = "temp.main.bkp_macros";

/// Characters of what the engine says that are handed on.
const WORDS_CHARS_MAX: usize = 2000;

/// How Parquet is written.
const PARQUET: &str = "FORMAT parquet, COMPRESSION zstd, PARQUET_VERSION v2, USE_TMP_FILE false";

/// Why the linked engine cannot open a file with these headers; `None` if it can.
pub(crate) fn cannot_read(headers: &Headers) -> Option<String> {
    let Some(version) = headers.storage_version() else {
        return Some("it is encrypted".into());
    };
    let engine = crate::version::duckdb();
    let mut numbers = engine.split('.').map(|part| part.parse::<u32>().unwrap_or_default());
    let linked = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    let mut numbers = version.trim_start_matches('v').split('.').map(str::parse::<u32>);
    let wanted = numbers.next().zip(numbers.next());
    let wanted = wanted.and_then(|(major, minor)| Some((major.ok()?, minor.ok()?)))?;
    (wanted > linked).then(|| {
        format!("its storage version is {version}, and bkp links DuckDB {engine}, which reads up to its own")
    })
}

/// A database of ours, open in an engine of its own. Texts of times with a time zone are in UTC.
pub(crate) struct Session {
    process: EngineProcess,
    /// What it is, for messages.
    what: String,
    kind: Kind,
    limits: EngineLimits,
    folder: Option<PathBuf>,
    /// Why the last statement was refused, if it was.
    refusal: RefCell<Option<String>>,
    /// Whether the last [`Session::leave_user_schema`] found names that stand for others.
    is_hidden: Cell<bool>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("what", &self.what).finish_non_exhaustive()
    }
}

impl Session {
    /// Opens the file `path`, of which no statement gets to another file. A failure has this kind.
    ///
    /// # Errors
    /// What the engine says.
    pub(crate) fn open(path: &Path, write: bool, kind: Kind) -> anyhow::Result<Session> {
        // What is written is a log, and reading it takes what it takes.
        let share = ResourceLimits::default();
        let limits = if write { EngineLimits::ample(share) } else { EngineLimits::modest(share) };
        let options = SessionOptions { folder: Some(folder_of(path)), kind, limits, ctx: None };
        let place =
            DatabaseTarget { file: Some(path), write, settle: write, ..DatabaseTarget::default() };
        Session::opened(place, &options)
    }

    /// Opens a database, which is called [`CATALOG`] whatever it is.
    ///
    /// # Errors
    /// What the engine says.
    pub(crate) fn opened(
        place: DatabaseTarget<'_>,
        options: &SessionOptions<'_>,
    ) -> anyhow::Result<Session> {
        let settle = if place.settle { LogMerge::Attached } else { LogMerge::Not };
        match Session::start(place, options, settle)? {
            Ok(session) => Ok(session),
            // DuckDB 1.5.6 ends its process where it cannot go on with some logs, instead of refusing them;
            // what it leaves of the file is what any crash leaves.
            Err((why, _)) if place.write && why.starts_with(ENDED) => {
                let again = Session::start(place, options, LogMerge::Own)?;
                again.map_err(|(why, session)| session.open_error(&why))
            }
            Err((why, session)) => Err(session.open_error(&why)),
        }
    }

    /// Starts an engine and has it open the databases: the session, or why it refused and whose session
    /// that was.
    fn start(
        place: DatabaseTarget<'_>,
        options: &SessionOptions<'_>,
        settle: LogMerge,
    ) -> anyhow::Result<Result<Session, (String, Session)>> {
        let SessionOptions { folder, kind, limits, ctx } = *options;
        let session = Session {
            process: EngineProcess::open(folder.unwrap_or(Path::new("/")), ctx)?,
            what: place.described(),
            kind,
            limits,
            folder: folder.map(Path::to_owned),
            refusal: RefCell::default(),
            is_hidden: Cell::default(),
        };
        let open = session.open_command(place, settle);
        let opened = session.ask(EngineCommand::Open(open), WORK, None)?;
        Ok(match opened {
            Ok(_) => Ok(session),
            Err(why) => Err((why, session)),
        })
    }

    /// Closes the database and opens this one instead, with the same engine: to start another takes longer than
    /// most of what is asked.
    ///
    /// # Errors
    /// What the engine says.
    pub(crate) fn reopen(mut self, place: DatabaseTarget<'_>) -> anyhow::Result<Session> {
        let open = self.open_command(place, LogMerge::Not);
        let opened = self.ask(EngineCommand::Reopen(open), WORK, None)?;
        opened.map_err(|why| self.open_error(&why))?;
        self.what = place.described();
        self.is_hidden.set(false);
        Ok(self)
    }

    fn open_command(&self, place: DatabaseTarget<'_>, settle: LogMerge) -> Open {
        let base = |name: &str, path: &Path, write| Base {
            name: name.to_owned(),
            path: self.path(path),
            write,
            storage_version: place.storage_version.map(str::to_owned),
            settle: if write { settle } else { LogMerge::Not },
        };
        Open {
            database: place.file.map(|path| base(CATALOG, path, place.write)),
            beside: place.beside.iter().map(|(name, path)| base(name, path, true)).collect(),
            files: place.files,
            folder: self.folder.is_some(),
            memory_bytes: self.limits.memory_bytes,
            threads: self.limits.threads,
        }
    }

    /// Why a database could not be opened.
    fn open_error(&self, why: &str) -> anyhow::Error {
        if why.starts_with(NOT_STARTED) {
            let message = format!("cannot start bkp as the DuckDB engine: {why}");
            return Fault::new(Kind::Failed, message).hint(LIBRARY).into();
        }
        self.refused(&format!("open {}", self.what), why)
    }

    /// A path as the engine knows it, in quotes if it is put into a statement.
    pub(crate) fn path(&self, path: &Path) -> String {
        let folder = self.folder.as_deref();
        let inside = folder.and_then(|folder| path.strip_prefix(folder).ok());
        let path = inside.map_or(path.to_owned(), |inside| Path::new(HERE).join(inside));
        path.display().to_string()
    }

    /// From here on functions and types are the engine's own, and tables are found by their full names only.
    /// Macros and types of the database may have their names, and would be taken for them. Where none has,
    /// nothing is changed: what a table computes itself by a macro is found from within only. Returns whether
    /// the session is outside now. What the engine says of the database's macros is in [`MACROS`] from here on.
    ///
    /// # Errors
    /// What the engine says.
    pub(crate) fn leave_user_schema(&self) -> anyhow::Result<bool> {
        self.run(&format!("USE {OUTSIDE}.main"))?;
        // To list the functions, of which the engine has thousands, takes longer than most other questions.
        self.run(&format!("CREATE OR REPLACE TEMP TABLE bkp_macros AS SELECT database_name, schema_name, function_name, function_type, function_oid, parameters, macro_definition, comment FROM duckdb_functions() WHERE NOT internal AND database_name = '{CATALOG}' AND function_type IN ('macro', 'table_macro')"))?;
        let has_macros = !self.rows(&format!("SELECT 1 FROM {MACROS} LIMIT 1"))?.is_empty();
        let hidden_by_macro = format!(
            "SELECT 1 FROM duckdb_functions() WHERE internal AND lower(function_name) IN (SELECT lower(function_name) FROM {MACROS}) LIMIT 1"
        );
        let hidden_by_type = format!(
            "SELECT 1 FROM duckdb_types() WHERE internal OR database_name = '{CATALOG}' GROUP BY lower(type_name) HAVING bool_or(internal) AND bool_or(NOT internal AND database_name = '{CATALOG}') LIMIT 1"
        );
        let is_hidden = has_macros && !self.rows(&hidden_by_macro)?.is_empty()
            || !self.rows(&hidden_by_type)?.is_empty();
        if !is_hidden {
            self.enter_user_schema()?;
        }
        self.is_hidden.set(is_hidden);
        Ok(is_hidden)
    }

    /// As [`Session::leave_user_schema`], after an [`Session::enter_user_schema`] since which nothing was created: what
    /// was found before holds.
    ///
    /// # Errors
    /// What the engine says.
    pub(crate) fn leave_user_schema_again(&self) -> anyhow::Result<()> {
        if self.is_hidden.get() { self.run(&format!("USE {OUTSIDE}.main")) } else { Ok(()) }
    }

    /// From here on statements are read as those of the database were, as at the beginning.
    ///
    /// # Errors
    /// What the engine says.
    pub(crate) fn enter_user_schema(&self) -> anyhow::Result<()> {
        self.run(&format!("USE {CATALOG}.main"))
    }

    fn refused(&self, what: &str, why: &str) -> anyhow::Error {
        let message = format!("DuckDB {} cannot {what}", crate::version::duckdb());
        let spill = self.folder.as_deref().unwrap_or(Path::new(""));
        limits::fault(self.kind, &message, why, self.limits, spill).into()
    }

    /// Why the last statement was refused for what it is, in the first line of the engine's words: not because
    /// memory or disk were full, or the engine has ended.
    pub(crate) fn refusal_of_rows(&self) -> Option<String> {
        let why = self.refusal.take()?;
        let is_machine = limits::is_no_room(&why) || why.contains("Out of Memory");
        let line = why.lines().next().unwrap_or_default().to_owned();
        (!is_machine && !why.starts_with(ENDED)).then_some(line)
    }

    fn failed(&self, sql: &str, why: &str) -> anyhow::Error {
        let short: String = plain(sql).chars().take(300).collect();
        self.refused(&format!("run `{short}` in {}", self.what), why)
    }

    /// What the engine said, with nothing in it that a terminal would obey, and with its folder by name.
    fn error_text(&self, why: &str) -> String {
        let folder = self.folder.as_deref().map(|folder| folder.display().to_string());
        let why = why.replace(HERE, folder.as_deref().unwrap_or("/"));
        let lines = why.lines().map(plain).collect::<Vec<_>>().join("\n");
        let mut cut: String = lines.chars().take(WORDS_CHARS_MAX).collect();
        if cut.len() < lines.len() {
            cut.push('…');
        }
        cut
    }

    /// Asks the engine, and hands what it streams meanwhile to `out`. A refusal is one that can be shown.
    fn ask(
        &self,
        asked: EngineCommand,
        limit: Duration,
        out: Option<(&mut dyn Write, &Ctx)>,
    ) -> anyhow::Result<Result<Answer, String>> {
        self.refusal.take();
        let answer = self.process.ask(asked, limit, out)?.map_err(|why| self.error_text(&why));
        self.refusal.replace(answer.as_ref().err().cloned());
        Ok(answer)
    }

    /// Has rows hashed with these keys, as an index has them; without any the session has no such functions.
    ///
    /// # Errors
    /// That these are no keys.
    pub(crate) fn take_row_keys(&self, keys: Option<&str>) -> anyhow::Result<()> {
        let Some(keys) = keys else { return Ok(()) };
        let done = self.ask(EngineCommand::RowKeys(keys.to_owned()), WORK, None)?;
        done.map(drop).map_err(|why| self.refused("hash rows", &why))
    }

    /// Runs a statement.
    ///
    /// # Errors
    /// What the engine says.
    pub(crate) fn run(&self, sql: &str) -> anyhow::Result<()> {
        let done = self.ask(EngineCommand::Run(sql.to_owned()), WORK, None)?;
        done.map(drop).map_err(|why| self.failed(sql, &why))
    }

    /// Runs a statement of ours that may be refused; the refusal in the engine's words.
    pub(crate) fn attempt(&self, sql: &str) -> Result<(), String> {
        let done = self.ask(EngineCommand::Run(sql.to_owned()), WORK, None);
        done.map_err(|error| format!("{error:#}"))?.map(drop)
    }

    /// Why a query is refused, in the engine's words just as they are; nothing if it is not.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn refusal(&self, query: &str) -> anyhow::Result<Option<String>> {
        Ok(self.process.ask(EngineCommand::Table(query.to_owned()), WORK, None)?.err())
    }

    /// Runs a statement that is not ours, if it is exactly one that begins with one of these; else, or if
    /// it is refused, why.
    pub(crate) fn define(&self, begins: &[&str], sql: &str, long: bool) -> Result<(), String> {
        let begins = begins.iter().map(|begin| (*begin).to_owned()).collect();
        let limit = if long { WORK } else { DEFINITION };
        let done = self.ask(EngineCommand::Define { begins, sql: sql.to_owned() }, limit, None);
        done.map_err(|error| format!("{error:#}"))?.map(drop)
    }

    /// The rows of a query as text, and the names of their columns.
    ///
    /// # Errors
    /// What the engine says.
    pub(crate) fn table(&self, query: &str) -> anyhow::Result<(Vec<String>, Vec<TextRow>)> {
        match self.ask(EngineCommand::Table(query.to_owned()), WORK, None)? {
            Ok(Answer::Table { columns, rows }) => Ok((columns, rows)),
            Ok(_) => Err(self.failed(query, "it answered something else")),
            Err(why) => Err(self.failed(query, &why)),
        }
    }

    /// The rows of a query as text.
    ///
    /// # Errors
    /// What the engine says.
    pub(crate) fn rows(&self, query: &str) -> anyhow::Result<Vec<TextRow>> {
        Ok(self.table(query)?.1)
    }

    /// Adds rows of text to a table, which converts them.
    ///
    /// # Errors
    /// What the engine says.
    pub(crate) fn insert(&self, table: &str, rows: &[TextRow]) -> anyhow::Result<()> {
        let asked = EngineCommand::Insert { table: table.to_owned(), rows: rows.to_vec() };
        let done = self.ask(asked, WORK, None)?;
        done.map(drop).map_err(|why| self.failed(&format!("INSERT INTO {table}"), &why))
    }

    /// Writes the rows of a query as a Parquet file in the engine's folder.
    ///
    /// # Errors
    /// What the engine says.
    pub(crate) fn save(&self, query: &str, path: &Path) -> anyhow::Result<()> {
        let path = sql::text(&self.path(path));
        self.run(&format!("COPY (\n{query}\n) TO {path} ({PARQUET})"))
    }

    /// Memory that the engine may take, bytes.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.limits.memory_bytes
    }

    /// Looks for what differs between two states of a table and puts it into tables of the session.
    /// Nothing if that cannot be told in one pass.
    ///
    /// # Errors
    /// What the engine says.
    pub(crate) fn compare(&self, compare: Compare) -> anyhow::Result<Option<CompareOutcome>> {
        let now = compare.now.clone();
        match self.ask(EngineCommand::Compare(compare), WORK, None)? {
            Ok(Answer::Compared(outcome)) => Ok(outcome),
            Ok(_) => Err(self.failed(&now, "it answered something else")),
            Err(why) => Err(self.failed(&now, &why)),
        }
    }

    /// Streams the rows of a query as Parquet into `out`.
    ///
    /// # Errors
    /// What `out` fails with, a cancellation, or what the engine says.
    pub(crate) fn stream(&self, query: &str, out: &mut dyn Write, ctx: &Ctx) -> anyhow::Result<()> {
        let sql = as_stream(query);
        let done = self.ask(EngineCommand::Run(sql.clone()), WORK, Some((out, ctx)))?;
        done.map(drop).map_err(|why| self.failed(&sql, &why))
    }

    /// The same of a query that calls `bkp_tally`; returns what was noted, of as many rows as were written.
    ///
    /// # Errors
    /// As [`Session::stream`]; that not every row was noted once.
    pub(crate) fn stream_tallied(
        &self,
        query: &str,
        out: &mut dyn Write,
        ctx: &Ctx,
    ) -> anyhow::Result<Groups> {
        self.tally(TallyStatement::Copy(as_stream(query)), Some((out, ctx)))
    }

    /// Runs a query that counts rows by `bkp_tally`; returns what was noted.
    ///
    /// # Errors
    /// What the engine says; that not every row was noted once.
    pub(crate) fn count_tallied(&self, query: &str) -> anyhow::Result<Groups> {
        self.tally(TallyStatement::Count(query.to_owned()), None)
    }

    fn tally(
        &self,
        what: TallyStatement,
        out: Option<(&mut dyn Write, &Ctx)>,
    ) -> anyhow::Result<Groups> {
        let sql = what.sql().to_owned();
        let (rows, groups) = match self.ask(EngineCommand::Tally(what), WORK, out)? {
            Ok(Answer::Tallied { rows, groups }) => (rows, Groups::new(groups)),
            Ok(_) => return Err(self.failed(&sql, "it answered something else")),
            Err(why) => return Err(self.failed(&sql, &why)),
        };
        let noted = groups.content().rows;
        if noted != rows {
            return Err(
                self.failed(&sql, &format!("there are {rows} rows, but {noted} were recorded"))
            );
        }
        Ok(groups)
    }

    /// Lets the engine put the log into the file, which then stands alone, and closes it.
    ///
    /// # Errors
    /// What the engine says.
    pub(crate) fn merge_log(self) -> anyhow::Result<()> {
        self.run(&format!("CHECKPOINT {CATALOG}"))?;
        self.close()
    }

    /// Closes the database.
    ///
    /// # Errors
    /// What the engine says.
    pub(crate) fn close(self) -> anyhow::Result<()> {
        let closed = self.ask(EngineCommand::Close, WORK, None)?;
        closed.map_err(|why| self.refused(&format!("close {}", self.what), &why))?;
        // A lock on a file ends with its process.
        self.process.wait()
    }
}

/// The rows of a query as a statement that streams them.
fn as_stream(query: &str) -> String {
    format!("COPY (\n{query}\n) TO '{OUTPUT}' ({PARQUET})")
}

/// The folder that a file is in.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
