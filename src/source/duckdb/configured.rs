//! A configured database: its settings and operations.

use std::io::Read;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::capture::CaptureRun;
use super::engine::SessionOptions;
use super::export::ExportContext;
use crate::archive::EntrySink;
use crate::ctx::Ctx;
use crate::domain::manifest::Identity;
use crate::error::{Fault, Kind};
use crate::pipeline::objects::ObjectSink;
use crate::source::duckdb::capture::private_copy;
use crate::source::duckdb::capture::retry_attempts::retry_capture as retry_attempts;
use crate::source::duckdb::data_file::database::{self, Database, Mode};
use crate::source::duckdb::data_file::format::Headers;
use crate::source::duckdb::data_file::layout::{Layout, LayoutFile as _};
use crate::source::duckdb::engine::limits;
use crate::source::duckdb::engine::limits::EngineLimits;
use crate::source::duckdb::restore::place::check_unused;
use crate::source::duckdb::schema::table_filter::TableFilter;
use crate::source::{
    CaptureRequest, Captured, Check, DrillTools, ExportRequest, Held, Opened, ResourceLimits,
    RestoreRequest, Source, SourceError, is_sealed, on_this_host,
};
use crate::table::units::size;
use crate::table::{ConfigError, parse_table};

/// Attempts of a capture if the configuration does not say otherwise. Under the heaviest load
/// measured 8 were needed.
const ATTEMPTS_DEFAULT: u32 = 64;

/// The keys of a `[source.NAME]` table with `kind = "duckdb"`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    /// The database file.
    #[schemars(extend("format" = "path"))]
    path: PathBuf,
    /// How to capture: online, reflink or stopped. By default reflink where the file system can, else
    /// online.
    #[serde(default)]
    mode: Option<String>,
    /// Attempts of a capture before it gives up. Default 64.
    #[serde(default)]
    attempts: Option<u32>,
    /// Tables that an export has, as patterns of SCHEMA.TABLE in which * stands for anything; one
    /// without a schema is of main. All of them by default.
    #[serde(default)]
    tables: Vec<String>,
    /// Tables that an export leaves out, as such patterns.
    #[serde(default)]
    exclude: Vec<String>,
    /// Whether the tables of an export are sealed: aes256-gcm (default), or none, so that every
    /// program that may read the store reads them as they are. Keys and hashes of rows, and
    /// snapshots, are sealed in any case.
    #[serde(default)]
    encryption: Option<String>,
    /// Memory that DuckDB may take in exports, restores and drills of exports, with its unit: 4GiB.
    /// Default 512MiB for an export, and three fifths of the machine's for the others, since the index
    /// of a primary key has to fit into it.
    #[serde(default)]
    memory: Option<String>,
    /// Threads that DuckDB may start for them. By default as many as there are processors, if each gets
    /// 128MiB of that memory.
    #[serde(default)]
    threads: Option<u32>,
}

/// The least memory that can be configured: with less DuckDB does not read one group of rows.
const MEMORY_BYTES_MIN: u64 = 64 << 20;

/// A configured database.
#[derive(Debug)]
struct Configured {
    path: PathBuf,
    /// `None` takes what the file system can.
    mode: Option<Mode>,
    attempts: u32,
    wanted: TableFilter,
    /// Whether the tables of exports are sealed.
    sealed: bool,
    share: ResourceLimits,
}

pub(super) fn open(name: &str, table: toml::Table) -> Opened {
    let place = format!("source.{name}");
    let table: Table = parse_table(&place, table)?;
    let invalid = |key: &str, problem: String, hint: String| ConfigError::Invalid {
        place: format!("{place}.{key}"),
        problem,
        hint: Some(hint),
    };
    let parse = |text: &str| {
        Mode::parse(text).ok_or_else(|| {
            let hint = format!("modes: {}", Mode::NAMES.join(", "));
            invalid("mode", format!("no mode `{text}`"), hint)
        })
    };
    let mode = table.mode.as_deref().map(parse).transpose()?;
    let attempts = table.attempts.unwrap_or(ATTEMPTS_DEFAULT);
    if attempts == 0 {
        let problem = "0 attempts cannot capture anything".to_owned();
        return Err(invalid("attempts", problem, "use at least 1".into()));
    }
    let sealed = is_sealed(&place, table.encryption.as_deref())?;
    let wanted = TableFilter::new(&table.tables, &table.exclude);
    let share = share(&place, table.memory.as_deref(), table.threads)?;
    Ok(Box::new(Configured { path: table.path, mode, attempts, wanted, sealed, share }))
}

/// What the engine may take, as the table at `place` says.
fn share(
    place: &str,
    memory: Option<&str>,
    threads: Option<u32>,
) -> Result<ResourceLimits, ConfigError> {
    let at = format!("{place}.memory");
    let memory_bytes = memory.map(|text| size(&at, text)).transpose()?;
    if memory_bytes.is_some_and(|bytes| bytes < MEMORY_BYTES_MIN) {
        let problem = "the engine needs at least 64MiB".to_owned();
        return Err(ConfigError::invalid(at, problem).suggest("use 512MiB"));
    }
    if threads == Some(0) {
        let problem = "at least 1 thread is needed".to_owned();
        return Err(ConfigError::invalid(format!("{place}.threads"), problem).suggest("use 1"));
    }
    Ok(ResourceLimits { memory_bytes, threads })
}

pub(super) fn read_map(input: &mut dyn Read) -> anyhow::Result<Held> {
    Ok(Layout::read(input)?.into_held())
}

/// Refuses a restore onto a database that is in use, before anything is read.
pub(super) fn guard(_record: &Value, request: &RestoreRequest) -> anyhow::Result<Vec<String>> {
    if request.replica.is_some() {
        let fault = Fault::new(Kind::Refused, "a DuckDB database has no replicas");
        return Err(fault.hint("omit --replica").into());
    }
    check_unused(&request.target)?;
    Ok(Vec::new())
}

impl Configured {
    /// Whether a backup with this `capture` record is of another database. Only files since storage
    /// version v1.3.0 have an id.
    fn is_other_database(record: &Value, headers: &Headers) -> bool {
        let recorded = record.get("database_id").and_then(Value::as_str);
        recorded.zip(headers.database_id()).is_some_and(|(recorded, id)| *recorded != id)
    }

    /// Whether the file is still the one that a backup with this `capture` record is of.
    fn check_same(&self, record: Option<&Value>, headers: &Headers) -> Result<(), SourceError> {
        if !record.is_some_and(|record| Configured::is_other_database(record, headers)) {
            return Ok(());
        }
        let reason = "the file was replaced by another one".to_owned();
        Err(SourceError::Unsupported { what: self.path.display().to_string(), reason })
    }

    /// The file's headers, read as often as it takes.
    fn headers(&self, ctx: &Ctx) -> anyhow::Result<Headers> {
        let database = Database::open(&self.path)?;
        let read = retry_attempts(&database, self.attempts, ctx, &mut || database.headers());
        Ok(read?.0)
    }

    /// The mode that was asked for, or the configured one, if any.
    fn mode_of(&self, asked: Option<&str>) -> Result<Option<Mode>, Fault> {
        let Some(text) = asked else { return Ok(self.mode) };
        let mode = Mode::parse(text).ok_or_else(|| {
            Fault::new(Kind::Usage, format!("a duckdb source has no mode `{text}`"))
                .hint(format!("modes: {}", Mode::NAMES.join(", ")))
        })?;
        Ok(Some(mode))
    }

    /// The file as `mode` reads it, or in the best way that there is; and that mode.
    fn hold(&self, mode: Option<Mode>, ctx: &Ctx) -> anyhow::Result<(Database, Mode)> {
        if let Some(mode) = mode {
            return Ok((self.hold_as(mode, ctx)?, mode));
        }
        let file = std::fs::File::open(&self.path).ok();
        if file.is_some_and(|file| database::may_clone(&file)) {
            match self.hold_as(Mode::Reflink, ctx) {
                Ok(cloned) => return Ok((cloned, Mode::Reflink)),
                Err(error) => ctx.monitor.detail(&format!("{error:#}; continuing without a clone")),
            }
        }
        Ok((self.hold_as(Mode::Online, ctx)?, Mode::Online))
    }

    fn hold_as(&self, mode: Mode, ctx: &Ctx) -> anyhow::Result<Database> {
        let database = Database::open(&self.path)?;
        match mode {
            Mode::Online => Ok(database),
            Mode::Reflink => {
                let cloned =
                    retry_attempts(&database, self.attempts, ctx, &mut || database.clone_both());
                Ok(cloned?.0)
            }
            Mode::Stopped => {
                let held = database::is_held(&database.file, true);
                if held.map_err(|error| database::unreadable(&self.path, error))? {
                    let reason = "a process has the database open for writing".to_owned();
                    let hint = "close it there, or use --mode online";
                    return Err(mode.refuse(&self.path, reason, hint).into());
                }
                Ok(database)
            }
        }
    }
}

impl Source for Configured {
    fn identity(&self, ctx: &Ctx) -> anyhow::Result<Identity> {
        let database = self.headers(ctx)?.database_id();
        let named = database.map(|id| [("database_id".to_owned(), id)].into());
        Ok(named.unwrap_or_else(|| on_this_host(&self.path)))
    }

    fn check_parent(&self, record: &Value, ctx: &Ctx) -> anyhow::Result<()> {
        if !Configured::is_other_database(record, &self.headers(ctx)?) {
            return Ok(());
        }
        let message = format!("that backup is not of the database {}", self.path.display());
        Err(Fault::new(Kind::Refused, message).hint("take a full backup: --scope full").into())
    }

    fn capture(
        &self,
        request: &CaptureRequest<'_>,
        out: &mut dyn EntrySink,
        ctx: &Ctx,
    ) -> anyhow::Result<Captured> {
        let (database, mode) = self.hold(self.mode_of(request.mode.as_deref())?, ctx)?;
        let parent = request.parent.as_ref();
        let capturing = CaptureRun::new(&database, out, parent.map(|parent| &parent.held), ctx);
        let record = parent.map(|parent| &parent.record);
        let captured = capturing.run(self.attempts, &|headers| self.check_same(record, headers))?;
        let mut record = captured.record;
        if let Value::Object(fields) = &mut record {
            fields.insert("mode".into(), mode.name().into());
        }
        let layout = captured.layout;
        Ok(Captured { record, map: Some(Box::new(move |out| layout.write(out))), lost: Vec::new() })
    }

    fn export(
        &self,
        request: &ExportRequest<'_>,
        out: &mut dyn ObjectSink,
        ctx: &Ctx,
    ) -> anyhow::Result<Captured> {
        let (database, mode) = self.hold(self.mode_of(request.mode.as_deref())?, ctx)?;
        let check = |headers: &Headers| self.check_same(request.record.as_ref(), headers);
        let limits = EngineLimits::modest(self.share);
        let (kind, ctx_of) = (Kind::Source, Some(ctx));
        let options = SessionOptions { folder: Some(request.scratch), kind, limits, ctx: ctx_of };
        let (session, caught) =
            private_copy::open(&database, &options, self.share, self.attempts, &check, ctx)?;
        let storage_version = caught.record.get("storage_version").and_then(Value::as_str);
        let exporting = ExportContext {
            session,
            storage_version: storage_version.unwrap_or_default().to_owned(),
            wanted: &self.wanted,
            file: private_copy::path(request.scratch),
            row_keys: String::new(),
            groups_recorded: 0,
            sealed: self.sealed,
            share: self.share,
            scratch: request.scratch,
            ctx,
        };
        let mut captured = exporting.run(request.chain, out)?;
        let mut record = serde_json::Map::new();
        for part in [caught.record, captured.record] {
            if let Value::Object(fields) = part {
                record.extend(fields);
            }
        }
        record.insert("mode".into(), mode.name().into());
        captured.record = Value::Object(record);
        Ok(captured)
    }

    fn share(&self) -> ResourceLimits {
        self.share
    }

    fn check(&self, _tools: &DrillTools, ctx: &Ctx) -> Vec<Check> {
        let what = format!("database {}", self.path.display());
        let check = match self.headers(ctx) {
            Ok(headers) => {
                let version = headers.storage_version().unwrap_or("unknown, since it is encrypted");
                let found =
                    format!("made by DuckDB {}, storage version {version}", headers.made_by());
                Check { what, ok: true, found, hint: None }
            }
            Err(error) => Check {
                what,
                ok: false,
                found: format!("{error:#}"),
                hint: Some(crate::error::diagnose(&error).hint),
            },
        };
        let found = limits::described(self.share);
        vec![check, Check { what: "limits of DuckDB".into(), ok: true, found, hint: None }]
    }
}
