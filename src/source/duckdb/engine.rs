//! The linked DuckDB, opened on files of ours only: never on a file that another process may have
//! open.

use std::io::{PipeReader, Read as _, Write};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use duckdb::arrow::array::UInt64Array;
use duckdb::arrow::record_batch::RecordBatch;
use duckdb::{Config, Connection};

use super::format::Headers;
use super::means::{self, Means};
use super::sql;
use super::watch::Watch;
use crate::ctx::Ctx;
use crate::error::{Fault, Kind};
use crate::source::Share;

/// What a database of ours is called: a schema of that name would make names of two parts ambiguous.
pub(super) const CATALOGUE: &str = "bkp_6f3a90c1";

/// An empty database in memory, where names lead to nothing of the database: see [`Session::step_out`].
const OUTSIDE: &str = "bkp_6f3a90c1_outside";

/// Bytes taken from DuckDB at once.
const PIPE_BYTES: usize = 256 << 10;

/// How Parquet is written.
const PARQUET: &str = "FORMAT parquet, COMPRESSION zstd, PARQUET_VERSION v2, USE_TMP_FILE false";

/// What is different for keys and hashes: hardly a value of theirs comes up twice, so that looking for
/// those that do is wasted.
const UNIQUE: &str = "COMPRESSION_LEVEL 1, DICTIONARY_SIZE_LIMIT 1024";

/// Why the linked engine cannot open a file with these headers; `None` if it can.
pub(super) fn cannot_read(headers: &Headers) -> Option<String> {
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

/// More rows of a query, added to those given; false once there are none.
pub(super) type Numbers<'a, R> = &'a mut dyn FnMut(&mut Vec<R>) -> anyhow::Result<bool>;

/// A row of which every value is text.
pub(super) type TextRow = Vec<Option<String>>;

/// How a database is opened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Opening<'a> {
    /// A folder of ours for what does not fit into memory.
    pub(super) spill: &'a Path,
    /// What a failure means.
    pub(super) kind: Kind,
    /// What the engine may take.
    pub(super) means: Means,
    /// The run, whose end is also that of a statement.
    pub(super) ctx: Option<&'a Ctx>,
}

/// Where a database is.
#[derive(Debug, Clone, Copy)]
struct Place<'a> {
    /// The file, and whether it may be written; in memory if there is none.
    file: Option<(&'a Path, bool)>,
    /// No statement gets to other files or programs.
    confined: bool,
}

/// A database of ours, open in the linked engine. Texts of times with a time zone are in UTC.
pub(super) struct Session {
    connection: Connection,
    /// What it is, for messages.
    what: String,
    kind: Kind,
    means: Means,
    spill: PathBuf,
    watch: Option<Watch>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("what", &self.what).finish_non_exhaustive()
    }
}

impl Session {
    /// Opens a database: the file `path`, or one in memory. What does not fit into memory is spilled
    /// to the folder `spill`. A failure has this kind.
    ///
    /// # Errors
    /// What the engine says.
    pub(super) fn open(
        path: Option<&Path>,
        write: bool,
        spill: &Path,
        kind: Kind,
    ) -> anyhow::Result<Session> {
        let means = Means::modest(Share::default());
        Session::opened(path, write, &Opening { spill, kind, means, ctx: None })
    }

    /// The same in every detail. Whatever it is, it is called [`CATALOGUE`].
    ///
    /// # Errors
    /// What the engine says.
    pub(super) fn opened(
        path: Option<&Path>,
        write: bool,
        opening: &Opening<'_>,
    ) -> anyhow::Result<Session> {
        let config = Config::default().with("temp_directory", opening.spill.to_string_lossy());
        let place = Place { file: path.map(|path| (path, write)), confined: false };
        Session::made(config, place, opening)
    }

    /// Opens a database, the file `path` or one in memory, from which no statement gets to other files or
    /// programs.
    ///
    /// # Errors
    /// What the engine says.
    pub(super) fn confined(path: Option<&Path>, kind: Kind) -> anyhow::Result<Session> {
        let means = Means::modest(Share::default());
        let opening = Opening { spill: Path::new(""), kind, means, ctx: None };
        let place = Place { file: path.map(|path| (path, true)), confined: true };
        Session::made(Ok(Config::default()), place, &opening)
    }

    /// From here on functions are the engine's own, and tables are found by their full names only. Macros
    /// of the database may have the names of functions, and would be taken for them.
    ///
    /// # Errors
    /// What the engine says.
    pub(super) fn step_out(&self) -> anyhow::Result<()> {
        self.run(&format!("USE {OUTSIDE}.main"))
    }

    /// From here on statements are read as those of the database were, as at the beginning.
    ///
    /// # Errors
    /// What the engine says.
    pub(super) fn step_in(&self) -> anyhow::Result<()> {
        self.run(&format!("USE {CATALOGUE}.main"))
    }

    fn made(
        config: duckdb::Result<Config>,
        place: Place<'_>,
        opening: &Opening<'_>,
    ) -> anyhow::Result<Session> {
        let Opening { spill, kind, means, ctx } = *opening;
        let what = place
            .file
            .map_or("a database in memory".into(), |(path, _)| path.display().to_string());
        let memory = format!("{}KiB", means.memory_bytes >> 10);
        let opened = config
            .and_then(|config| config.enable_autoload_extension(false))
            .and_then(|config| config.with("memory_limit", memory))
            .and_then(|config| config.with("threads", means.threads.to_string()))
            .and_then(Connection::open_in_memory_with_flags)
            .and_then(|connection| {
                settle_in(&connection, place)?;
                Ok(connection)
            });
        let connection =
            opened.map_err(|error| refused(kind, &format!("open {what}"), &error, means, spill))?;
        let interrupt = connection.interrupt_handle();
        let watch = ctx.map(|ctx| Watch::begin(ctx.cancel.clone(), move || interrupt.interrupt()));
        let watch = watch.transpose()?;
        Ok(Session { connection, what, kind, means, spill: spill.to_owned(), watch })
    }

    fn failed(&self, sql: &str, error: &duckdb::Error) -> anyhow::Error {
        let short: String = sql.chars().take(300).collect();
        let what = format!("run `{short}` in {}", self.what);
        refused(self.kind, &what, error, self.means, &self.spill)
    }

    /// Runs statements.
    ///
    /// # Errors
    /// What the engine says.
    pub(super) fn run(&self, sql: &str) -> anyhow::Result<()> {
        self.connection.execute_batch(sql).map_err(|error| self.failed(sql, &error))
    }

    /// Runs a statement that may be refused; the refusal in the engine's words.
    pub(super) fn attempt(&self, sql: &str) -> Result<(), String> {
        self.connection.execute_batch(sql).map_err(|error| words(&error))
    }

    /// The rows of a query as text, and the names of their columns.
    ///
    /// # Errors
    /// What the engine says.
    pub(super) fn table(&self, query: &str) -> anyhow::Result<(Vec<String>, Vec<TextRow>)> {
        let sql = format!("SELECT CAST(COLUMNS(*) AS VARCHAR) FROM (\n{query}\n)");
        let failed = |error| self.failed(query, &error);
        let mut statement = self.connection.prepare(&sql).map_err(failed)?;
        let mut rows = statement.query([]).map_err(failed)?;
        let columns = rows.as_ref().map(duckdb::Statement::column_names).unwrap_or_default();
        let mut found = Vec::new();
        while let Some(row) = rows.next().map_err(failed)? {
            let row = (0..columns.len()).map(|index| row.get(index)).collect::<Result<_, _>>();
            found.push(row.map_err(failed)?);
        }
        Ok((columns, found))
    }

    /// The rows of a query as text.
    ///
    /// # Errors
    /// What the engine says.
    pub(super) fn rows(&self, query: &str) -> anyhow::Result<Vec<TextRow>> {
        Ok(self.table(query)?.1)
    }

    /// Adds rows of text to a table, which converts them.
    ///
    /// # Errors
    /// What the engine says.
    pub(super) fn insert(&self, table: &str, rows: &[TextRow]) -> anyhow::Result<()> {
        let Some(width) = rows.first().map(Vec::len) else { return Ok(()) };
        let sql = format!("INSERT INTO {table} VALUES ({})", vec!["?"; width].join(", "));
        let failed = |error| self.failed(&sql, &error);
        let mut statement = self.connection.prepare(&sql).map_err(failed)?;
        for row in rows {
            statement.execute(duckdb::params_from_iter(row)).map_err(failed)?;
        }
        Ok(())
    }

    /// Writes the rows of a query, keys and hashes, as a Parquet file.
    ///
    /// # Errors
    /// What the engine says.
    pub(super) fn save(&self, query: &str, path: &Path) -> anyhow::Result<()> {
        let path = sql::text(&path.display().to_string());
        self.run(&format!("COPY (\n{query}\n) TO {path} ({PARQUET}, {UNIQUE})"))
    }

    /// Memory that the engine may take, bytes.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.means.memory_bytes
    }

    /// Gives the rows of two queries to `work`, which takes of each as it likes; nothing of them is held
    /// but what is on its way. Their columns are four of type UBIGINT, none of which is null.
    ///
    /// # Errors
    /// What the engine says, and `work`.
    pub(super) fn side_by_side<R: From<[u64; 4]>, T>(
        &self,
        [one, other]: [&str; 2],
        work: impl FnOnce(Numbers<'_, R>, Numbers<'_, R>) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let failed = |query| move |error| self.failed(query, &error);
        // A connection has one result at a time. The other one has the time zone of this machine.
        let second = self.connection.try_clone().map_err(failed(other))?;
        second.execute_batch(&format!("USE {OUTSIDE}.main")).map_err(failed(other))?;
        let mut ones = self.connection.prepare(one).map_err(failed(one))?;
        let mut others = second.prepare(other).map_err(failed(other))?;
        let mut ones = ones.stream_arrow([]).map_err(failed(one))?;
        let mut others = others.stream_arrow([]).map_err(failed(other))?;
        let next = |query, stream: &mut duckdb::ArrowStream<'_>, into: &mut Vec<R>| {
            let batch = stream.next().transpose().map_err(failed(query))?;
            into.extend(batch.iter().flat_map(numbers));
            anyhow::Ok(batch.is_some())
        };
        work(&mut |into| next(one, &mut ones, into), &mut |into| next(other, &mut others, into))
    }

    /// Gives each row of such a query to `take`, until that has enough.
    ///
    /// # Errors
    /// What the engine says.
    pub(super) fn numbers(
        &self,
        query: &str,
        take: &mut dyn FnMut([u64; 4]) -> bool,
    ) -> anyhow::Result<()> {
        let failed = |error| self.failed(query, &error);
        let mut statement = self.connection.prepare(query).map_err(failed)?;
        for batch in statement.stream_arrow([]).map_err(failed)? {
            if !numbers(&batch.map_err(failed)?).all(&mut *take) {
                break;
            }
        }
        Ok(())
    }

    /// Makes a temporary table with these columns, of numbers, anew and fills it.
    ///
    /// # Errors
    /// What the engine says.
    pub(super) fn fill<const N: usize>(
        &self,
        name: &str,
        columns: &str,
        rows: impl Iterator<Item = [u64; N]>,
    ) -> anyhow::Result<()> {
        let sql = format!("CREATE OR REPLACE TEMP TABLE {name} ({columns})");
        self.run(&sql)?;
        let fill = || -> duckdb::Result<()> {
            let mut appender = self.connection.appender_to_catalog_and_db(name, "temp", "main")?;
            for row in rows {
                appender.append_row(duckdb::appender_params_from_iter(row))?;
            }
            appender.flush()
        };
        fill().map_err(|error| self.failed(&sql, &error))
    }

    /// Streams the rows of a query as Parquet into `out`.
    ///
    /// # Errors
    /// What `out` fails with, a cancellation, or what the engine says.
    pub(super) fn stream(
        &mut self,
        query: &str,
        out: &mut dyn Write,
        ctx: &Ctx,
    ) -> anyhow::Result<()> {
        let (mut reader, writer) = std::io::pipe()?;
        // The engine opens the pipe by its name; this end keeps it open until the engine is done.
        let path = format!("/proc/self/fd/{}", writer.as_raw_fd());
        let sql = format!("COPY (\n{query}\n) TO '{path}' ({PARQUET})");
        let interrupt = self.connection.interrupt_handle();
        let connection = &mut self.connection;
        let statement = sql.as_str();
        let (pumped, copied) = std::thread::scope(|scope| {
            let copy = std::thread::Builder::new().name("parquet".into());
            let copy = copy.spawn_scoped(scope, move || {
                let copied = connection.execute_batch(statement);
                drop(writer);
                copied
            })?;
            let pumped = pump(&mut reader, out, ctx);
            drop(reader);
            if pumped.is_err() {
                interrupt.interrupt();
            }
            std::io::Result::Ok((pumped, copy.join()))
        })?;
        pumped?;
        let ended = |_panic| Fault::new(Kind::Failed, "the thread that writes Parquet ended");
        copied.map_err(ended)?.map_err(|error| self.failed(&sql, &error))
    }

    /// Lets the engine put the log into the file, which then stands alone, and closes it.
    ///
    /// # Errors
    /// What the engine says.
    pub(super) fn settle(self) -> anyhow::Result<()> {
        self.run(&format!("CHECKPOINT {CATALOGUE}"))?;
        self.close()
    }

    /// Closes the database.
    ///
    /// # Errors
    /// What the engine says.
    pub(super) fn close(self) -> anyhow::Result<()> {
        let Session { connection, what, kind, means, spill, watch } = self;
        drop(watch);
        let closed = connection.close();
        closed.map_err(|(_, error)| refused(kind, &format!("close {what}"), &error, means, &spill))
    }
}

/// What is the same in every session: the time zone, in which values become text and are hashed, and
/// that the database, a file that may be written or not or one in memory, is an attached one. Opened as
/// the engine's own it could not read every log: what the log's statements refer to, like functions in
/// defaults, is looked up in a catalogue that is not there yet. Nothing can be set after it.
fn settle_in(connection: &Connection, place: Place<'_>) -> duckdb::Result<()> {
    // An engine without time zones has no such setting, and writes UTC.
    const KNOWN: &str = "SELECT count(*) FROM duckdb_settings() WHERE name = 'TimeZone'";
    let known: i64 = connection.query_row(KNOWN, [], |row| row.get(0))?;
    if known > 0 {
        connection.execute_batch("SET TimeZone = 'UTC'")?;
    }
    let attach = match place.file {
        None => format!("ATTACH ':memory:' AS {CATALOGUE}"),
        Some((path, write)) => {
            let path = sql::text(&path.display().to_string());
            let mode = if write { "READ_WRITE" } else { "READ_ONLY" };
            format!("ATTACH {path} AS {CATALOGUE} (TYPE duckdb, {mode})")
        }
    };
    // The engine's own is called `memory`, as a schema may be.
    connection.execute_batch(&format!(
        "ATTACH ':memory:' AS {OUTSIDE}; {attach}; USE {CATALOGUE}.main; DETACH memory"
    ))?;
    if place.confined {
        connection.execute_batch("SET enable_external_access = false")?;
    }
    connection.execute_batch("SET lock_configuration = true")
}

/// The rows of a batch of numbers; none if a column is of another type, which shows in the sums that are
/// made of them.
fn numbers<R: From<[u64; 4]>>(batch: &RecordBatch) -> impl Iterator<Item = R> {
    let column = |index: usize| {
        let column = batch.columns().get(index);
        let column = column.and_then(|column| column.as_any().downcast_ref::<UInt64Array>());
        column.map(|column| &**column.values()).unwrap_or_default()
    };
    let rows = column(0).iter().zip(column(1)).zip(column(2)).zip(column(3));
    rows.map(|(((a, b), c), d)| R::from([*a, *b, *c, *d]))
}

/// Hands on what the engine writes, until it closes the pipe.
fn pump(reader: &mut PipeReader, out: &mut dyn Write, ctx: &Ctx) -> anyhow::Result<()> {
    let mut buffer = vec![0; PIPE_BYTES];
    loop {
        ctx.cancel.check()?;
        let count = reader.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        out.write_all(buffer.get(..count).unwrap_or_default())?;
        ctx.monitor.advance(count as u64);
    }
}

fn refused(
    kind: Kind,
    what: &str,
    error: &duckdb::Error,
    means: Means,
    spill: &Path,
) -> anyhow::Error {
    let message = format!("DuckDB {} cannot {what}", crate::version::duckdb());
    means::fault(kind, &message, &words(error), means, spill).into()
}

/// What the engine says, without where in its code that is.
fn words(error: &duckdb::Error) -> String {
    let words = error.to_string();
    words.split("\n\nStack Trace:").next().unwrap_or_default().trim_end().to_owned()
}
