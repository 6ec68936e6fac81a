//! A private copy of a database, made like a snapshot, for work that needs the engine.
//!
//! The copy is needed because opening the live file would take DuckDB's lock, and keep its owner
//! from opening it for as long as the work goes on.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::archive::EntrySink;
use crate::ctx::Ctx;
use crate::error::{Fault, Kind, diagnose};
use crate::source::duckdb::capture::{CaptureRun, CapturedMoment};
use crate::source::duckdb::data_file::database::{Database, beside, unreadable};
use crate::source::duckdb::data_file::format::{Headers, unit_offset};
use crate::source::duckdb::data_file::layout::{Layout, Member, PIECE_BYTES};
use crate::source::duckdb::engine;
use crate::source::duckdb::engine::limits;
use crate::source::duckdb::engine::limits::EngineLimits;
use crate::source::duckdb::engine::{CATALOG, DatabaseTarget, Session, SessionOptions};
use crate::source::{ResourceLimits, SourceError};

/// What to do about a copy that does not fit.
const NO_ROOM: &str =
    "free space there, or point `state_dir` to a larger file system; nothing was left behind";

/// Columns of a table that is wide.
const COLUMNS_WIDE: usize = 250;

/// A part of a copy on its way to the file or its log: where it goes, and the bytes.
type Part = (Place, Vec<u8>);

/// Where a part of a copy goes, by its offset in bytes.
#[derive(Clone, Copy)]
enum Place {
    File(u64),
    Log(u64),
}

/// Parts that wait to be written: a few units, of 256 KiB each.
const PARTS_WAITING: usize = 8;

/// Hands what a capture pushes to the thread that writes it: one thread reads and checks, the other writes.
struct CopySink {
    parts: SyncSender<Part>,
    /// Buffers that were written and are used again.
    written: Receiver<Vec<u8>>,
}

impl EntrySink for CopySink {
    fn entry(&mut self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let place = match Member::parse(name) {
            Some(Member::Headers) => Place::File(0),
            Some(Member::Unit(unit)) => Place::File(unit_offset(unit)),
            Some(Member::Piece(piece)) => Place::Log(piece * PIECE_BYTES as u64),
            // A copy has none.
            Some(Member::Layout) | None => return Ok(()),
        };
        let mut buffer = self.written.try_recv().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(bytes);
        // The writer says why it ended.
        self.parts.send((place, buffer)).map_err(|_ended| anyhow::anyhow!("the writer ended"))
    }

    fn stream(
        &mut self,
        _name: &str,
        _size: u64,
        _body: &mut dyn FnMut(&mut dyn Write) -> std::io::Result<()>,
    ) -> anyhow::Result<()> {
        Ok(())
    }
}

/// The file of a copy and its log, which are being written.
struct CopyFiles {
    file: File,
    log: File,
    path: PathBuf,
    log_path: PathBuf,
}

impl CopyFiles {
    fn create(path: PathBuf) -> anyhow::Result<CopyFiles> {
        let create = |path: &Path| {
            let created =
                File::options().read(true).write(true).create_new(true).mode(0o600).open(path);
            created.map_err(|error| unreadable(path, error))
        };
        let log_path = beside(&path, ".wal");
        Ok(CopyFiles { file: create(&path)?, log: create(&log_path)?, path, log_path })
    }

    /// Captures `database` into the files.
    fn fill(
        &self,
        database: &Database,
        attempts: u32,
        check: &dyn Fn(&Headers) -> Result<(), SourceError>,
        ctx: &Ctx,
    ) -> anyhow::Result<CapturedMoment> {
        let (parts, to_write) = sync_channel::<Part>(PARTS_WAITING);
        let (done, written) = sync_channel(PARTS_WAITING);
        let mut sink = CopySink { parts, written };
        std::thread::scope(|scope| {
            let write = move || {
                to_write.into_iter().try_for_each(|(place, bytes)| {
                    self.write(place, &bytes)?;
                    // One more is as good as this one.
                    let _spare = done.try_send(bytes);
                    Ok(())
                })
            };
            let writer = std::thread::Builder::new().name("copy".into());
            let writer = writer.spawn_scoped(scope, write)?;
            let captured = CaptureRun::new(database, &mut sink, None, ctx).copy(attempts, check);
            drop(sink);
            let ended: anyhow::Result<()> =
                writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            ended.and(captured)
        })
    }

    fn write(&self, place: Place, bytes: &[u8]) -> anyhow::Result<()> {
        let (file, path, offset) = match place {
            Place::File(offset) => (&self.file, &self.path, offset),
            Place::Log(offset) => (&self.log, &self.log_path, offset),
        };
        file.write_all_at(bytes, offset).map_err(|error| unwritten(path, &error))
    }

    /// Ends them where the captured moment ends, and closes them: DuckDB's lock would be lost if one of
    /// them were closed while it has the file open.
    fn finish(self, captured: &CapturedMoment) -> anyhow::Result<()> {
        self.file.set_len(captured.file_bytes)?;
        self.log.set_len(captured.wal_bytes)?;
        let next = beside(&self.path, ".wal.checkpoint");
        Layout::split(&self.log, captured.wal_bytes, captured.next_bytes, &next)?;
        if captured.wal_bytes == 0 {
            std::fs::remove_file(&self.log_path)?;
        }
        Ok(())
    }
}

/// Where in a folder of ours the copy is.
pub(crate) fn path(folder: &Path) -> PathBuf {
    folder.join(format!("{CATALOG}.duckdb"))
}

/// Copies `database` into the folder that `options` names, which must be one of ours, and opens the
/// copy.
///
/// # Errors
/// What a capture fails with; [`SourceError::Engine`] if the linked engine cannot read the file;
/// [`Kind::Failed`] if there is no room.
pub(crate) fn open(
    database: &Database,
    options: &SessionOptions<'_>,
    share: ResourceLimits,
    attempts: u32,
    check: &dyn Fn(&Headers) -> Result<(), SourceError>,
    ctx: &Ctx,
) -> anyhow::Result<(Session, CapturedMoment)> {
    let readable = |headers: &Headers| {
        check(headers)?;
        let Some(reason) = engine::cannot_read(headers) else { return Ok(()) };
        Err(SourceError::Engine {
            what: database.path.display().to_string(),
            reason: format!("its tables cannot be exported: {reason}"),
            hint: "take a snapshot, which copies the file as it is: bkp snapshot SOURCE".into(),
        })
    };
    let folder = options.folder.unwrap_or(Path::new("."));
    let path = path(folder);
    check_room(database, folder)?;
    let files = CopyFiles::create(path.clone())?;
    let captured = files.fill(database, attempts, &readable, ctx)?;
    files.finish(&captured)?;
    // Some logs cannot be read without writing: what they say of an index is done to the file.
    let write = captured.wal_bytes > 0;
    let place =
        DatabaseTarget { file: Some(&path), write, files: true, ..DatabaseTarget::default() };
    let opened = Session::opened(place, options).or_else(|error| {
        // Reading a log, or a very wide table, takes what it takes.
        let ample = EngineLimits::ample(share);
        if ample.memory_bytes <= options.limits.memory_bytes || !limits::is_no_memory(&error) {
            return Err(error);
        }
        Session::opened(place, &SessionOptions { limits: ample, ..*options })
    });
    let opened = opened.and_then(|session| {
        // The database may have macros of the names that follow.
        session.leave_user_schema()?;
        let ample = EngineLimits::ample(share);
        if ample.memory_bytes <= options.limits.memory_bytes || !is_wide(&session)? {
            return Ok(session);
        }
        session.close()?;
        let session = Session::opened(place, &SessionOptions { limits: ample, ..*options })?;
        session.leave_user_schema()?;
        Ok(session)
    });
    let session = opened.map_err(|error| {
        if diagnose(&error).kind != options.kind {
            // The database is not to blame.
            return error;
        }
        let fault = Fault::new(diagnose(&error).kind, format!("{error:#}"));
        fault.hint("run CHECKPOINT in the database, which leaves no log to read; or take a snapshot, which copies file and log as they are: bkp snapshot SOURCE").into()
    })?;
    Ok((session, captured))
}

/// Whether the database has a table of which a group of rows takes much memory.
fn is_wide(session: &Session) -> anyhow::Result<bool> {
    let query = format!(
        "SELECT 1 FROM duckdb_tables() WHERE NOT internal AND database_name = '{CATALOG}' AND column_count > {COLUMNS_WIDE} LIMIT 1"
    );
    Ok(!session.rows(&query)?.is_empty())
}

/// Refuses a copy for which there is no room, before anything is written.
fn check_room(database: &Database, folder: &Path) -> Result<(), Fault> {
    let log = std::fs::metadata(beside(&database.path, ".wal")).map_or(0, |log| log.len());
    let wanted = database.file.metadata().map_or(0, |file| file.len()) + log;
    // What cannot be told is found out by writing.
    let Ok(there) = rustix::fs::statvfs(folder) else { return Ok(()) };
    let free = there.f_bavail.saturating_mul(there.f_frsize);
    if free >= wanted {
        return Ok(());
    }
    let message = format!(
        "an export works on a copy of the database, which needs {wanted} bytes in {}, where {free} are free",
        folder.display()
    );
    Err(Fault::new(Kind::Failed, message).hint(NO_ROOM))
}

/// A copy that cannot be written; a full disk says so and what to do.
fn unwritten(path: &Path, error: &std::io::Error) -> anyhow::Error {
    let message = format!("cannot write {}: {error}", path.display());
    let fault = Fault::new(Kind::Failed, message);
    if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) {
        return fault.hint(NO_ROOM).into();
    }
    fault.into()
}
