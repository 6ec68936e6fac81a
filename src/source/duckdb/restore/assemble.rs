//! From a chain of snapshots back to one database file.
//!
//! The newest snapshot's block map says what file and log consist of. Each snapshot of the chain
//! streams by once, oldest first; a unit is placed when its address and digest are wanted, so every
//! byte is written once. The headers, which alone make the file a database, come last.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Instant;

use crate::blockfile::map::{BlockMap, Checksum};
use crate::blockfile::target::{NullTarget, SparseFile, Target};
use crate::ctx::Ctx;
use crate::domain::backup_kind::BackupKind;
use crate::error::{Fault, Kind};
use crate::source::duckdb::data_file::database::beside;
use crate::source::duckdb::data_file::format::{Headers, UNIT_BYTES, digest, unit_offset};
use crate::source::duckdb::data_file::layout::{
    LAYOUT_MEMBER, Layout, LayoutFile as _, Member, PIECE_BYTES,
};
use crate::source::duckdb::data_file::wal;
use crate::source::duckdb::engine;
use crate::source::duckdb::engine::Session;
use crate::source::duckdb::engine::limits;
use crate::source::duckdb::restore;
use crate::source::duckdb::restore::place;
use crate::source::duckdb::restore::place::RestoreDir;
use crate::source::duckdb::restore::{decode, inspect};
use crate::source::{
    Chain, Check, Compared, DecodeTools, DrillTools, Drilled, RestoreRequest, Restored, SourceError,
};

/// A failure of the structure inside authentic bytes.
fn broken(what: &str) -> anyhow::Error {
    Fault::new(Kind::Integrity, format!("the snapshot is not a complete database: {what}")).into()
}

/// Whether a chain is one of exports, not of snapshots.
fn is_export(chain: &Chain<'_>) -> bool {
    chain.last().is_some_and(|newest| newest.manifest().kind == BackupKind::Export)
}

/// Decodes a chain and checks its structure.
pub(crate) fn decode(chain: &Chain<'_>, tools: &DecodeTools<'_>, ctx: &Ctx) -> anyhow::Result<()> {
    if is_export(chain) {
        return decode::decode(chain, tools, ctx);
    }
    assemble(chain, &mut NullTarget, &mut NullTarget, ctx).map(|_assembled| ())
}

/// What a chain was assembled to: everything is in place but the headers.
struct Assembled {
    headers: Headers,
    layout: Layout,
}

/// Streams a chain into `file` and `log`.
fn assemble(
    chain: &Chain<'_>,
    file: &mut dyn Target,
    log: &mut dyn Target,
    ctx: &Ctx,
) -> anyhow::Result<Assembled> {
    let Some((newest, _older)) = chain.split_last() else {
        return Err(broken("its chain is empty"));
    };
    let layout = newest.map_or_copy(ctx, LAYOUT_MEMBER, &mut |input| Layout::read(input))?;
    let mut assembly = Assembly {
        units_missing: layout.units.clone(),
        pieces_missing: layout.wal.clone(),
        layout,
        file,
        log,
        headers: None,
        layout_seen: false,
        buffer: Vec::new(),
    };
    for reader in chain {
        let is_newest = reader.manifest().id == newest.manifest().id;
        reader.entries(ctx, &mut |name, size, body| {
            let member = Member::parse(name);
            let member = member.ok_or_else(|| broken(&format!("it has a member `{name}`")))?;
            assembly.member(member, size, body, is_newest)
        })?;
    }
    assembly.finish()
}

/// Puts members in their places and knows what is still missing.
struct Assembly<'a> {
    layout: Layout,
    file: &'a mut dyn Target,
    log: &'a mut dyn Target,
    units_missing: BlockMap,
    pieces_missing: BlockMap,
    headers: Option<Headers>,
    layout_seen: bool,
    buffer: Vec<u8>,
}

impl Assembly<'_> {
    /// Takes one member. Which of several with one name is meant, the block map says by digest; only
    /// headers and map are those of the newest snapshot in any case.
    fn member(
        &mut self,
        member: Member,
        size: u64,
        body: &mut dyn Read,
        is_newest: bool,
    ) -> anyhow::Result<()> {
        if self.layout_seen {
            return Err(broken("it has data after its block map"));
        }
        match member {
            Member::Layout | Member::Headers if !is_newest => return Ok(()),
            Member::Layout => {
                self.layout_seen = true;
                // The map that travelled by itself and the one in the tar must be the same.
                let same = Layout::read(body)?.is_same(&self.layout);
                return if same { Ok(()) } else { Err(broken("its two block maps differ")) };
            }
            Member::Headers | Member::Unit(_) | Member::Piece(_) => {}
        }
        if size > PIECE_BYTES as u64 {
            return Err(broken(&format!("a member of {size} bytes exceeds the maximum")));
        }
        self.buffer.clear();
        body.read_to_end(&mut self.buffer)?;
        let bytes = self.buffer.as_slice();
        let found = digest(bytes);
        match member {
            Member::Unit(unit) if self.units_missing.holds(unit, found) => {
                self.file.put(unit_offset(unit), bytes)?;
                self.units_missing.set(unit, Checksum(0));
            }
            Member::Piece(piece) if self.pieces_missing.holds(piece, found) => {
                self.log.put(piece * PIECE_BYTES as u64, bytes)?;
                self.pieces_missing.set(piece, Checksum(0));
            }
            // Superseded, or no longer there at the end of the chain.
            Member::Unit(_) | Member::Piece(_) => {}
            Member::Headers | Member::Layout => {
                let headers = Headers::parse(bytes).ok();
                let headers = headers.filter(|headers| self.layout.has_headers(headers));
                self.headers = Some(headers.ok_or_else(|| broken("its headers are damaged"))?);
            }
        }
        Ok(())
    }

    fn finish(self) -> anyhow::Result<Assembled> {
        if !self.layout_seen {
            return Err(broken("it ends before its block map"));
        }
        for (missing, what) in [(&self.units_missing, "unit"), (&self.pieces_missing, "log piece")]
        {
            if let Some((address, digest)) = missing.iter().next() {
                let count = missing.len();
                return Err(broken(&format!(
                    "{count} of its {what}s are missing, for example {what} {address} ({digest})"
                )));
            }
        }
        let headers = self.headers.ok_or_else(|| broken("it has no headers"))?;
        Ok(Assembled { headers, layout: self.layout })
    }
}

/// A database that was written and is durable.
struct Written {
    headers: Headers,
    /// Bytes that went to the disk.
    bytes: u64,
    /// Why it was not opened, if it was not: file and log are as they were captured then.
    unopened: Option<NotOpened>,
}

/// Why a database was not opened.
#[derive(Debug)]
enum NotOpened {
    /// The linked engine cannot be meant to.
    Beyond(String),
    /// It should have been able to, and failed.
    Failed(String),
}

/// Writes file and log at `path`, lets the linked engine put them together and open the result,
/// where it can. Every byte has the digest that was recorded: if the engine fails, that is no reason
/// to keep from anybody what another one may open.
fn write(chain: &Chain<'_>, path: &Path, ctx: &Ctx) -> anyhow::Result<Written> {
    let placed = place_files(chain, path, ctx)?;
    let mut written = Written { headers: placed.headers, bytes: placed.bytes, unopened: None };
    if let Some(why) = engine::cannot_read(&written.headers) {
        written.unopened = Some(NotOpened::Beyond(why));
        return Ok(written);
    }
    let Err(failure) = merge_and_open(path, placed.has_log, ctx) else {
        return Ok(written);
    };
    ctx.cancel.check()?;
    let why = format!("{:#}", failure.error);
    if limits::is_no_room(&why) {
        let fault = Fault::new(Kind::Failed, format!("no room to open {}: {why}", path.display()));
        return Err(fault.hint(NO_ROOM).into());
    }
    if failure.changed {
        // The engine had begun to write, and what it left is not what was captured.
        place::remove(path)?;
        written.bytes += place_files(chain, path, ctx)?.bytes;
    }
    written.unopened = Some(NotOpened::Failed(why));
    Ok(written)
}

/// What to do about a disk that is full.
const NO_ROOM: &str = "free space there, or choose another path (--to, or --scratch for a drill); nothing was left behind";

/// File and log in their places, durable, untouched by any engine.
struct PlacedFiles {
    headers: Headers,
    bytes: u64,
    has_log: bool,
}

fn place_files(chain: &Chain<'_>, path: &Path, ctx: &Ctx) -> anyhow::Result<PlacedFiles> {
    let create = |path: &Path| {
        File::options().read(true).write(true).create_new(true).mode(0o600).open(path)
    };
    let log_path = beside(path, ".wal");
    let (file, log) = (create(path)?, create(&log_path)?);
    let mut file_target = SparseFile::new(&file, path);
    let mut log_target = SparseFile::new(&log, &log_path);
    let Assembled { headers, layout } = assemble(chain, &mut file_target, &mut log_target, ctx)?;
    file.set_len(layout.file_bytes)?;
    file_target.put(0, headers.raw())?;
    let bytes = file_target.bytes_written + log_target.bytes_written;
    file.sync_all()?;
    let has_log = layout.wal_bytes > 0;
    if layout.next_bytes.is_some() {
        // Which of it the file has already, the engine tells.
        let next = beside(path, ".wal.checkpoint");
        Layout::split(&log, layout.wal_bytes, layout.next_bytes, &next)?;
        log.sync_all()?;
    } else if has_log {
        let scan = wal::scan(&log, layout.wal_bytes, u64::MAX)?;
        if scan.committed != layout.wal_bytes || scan.checkpoint || scan.broken.is_some() {
            return Err(broken("its log does not end with a commit"));
        }
        log.sync_all()?;
    } else {
        std::fs::remove_file(&log_path)?;
    }
    // DuckDB's lock would be lost if one of these were closed while it has the file open.
    Ok(PlacedFiles { headers, bytes, has_log })
}

/// A failure of the engine.
struct EngineFailure {
    error: anyhow::Error,
    /// It may have written to the files.
    changed: bool,
}

/// Lets the engine put the log into the file, and open it. Without writing it could not read every log.
fn merge_and_open(path: &Path, has_log: bool, ctx: &Ctx) -> Result<(), EngineFailure> {
    if has_log {
        let settled = Session::open(path, true, Kind::Failed).and_then(|session| {
            session.merge_log()?;
            Ok(File::open(path)?.sync_all()?)
        });
        settled.map_err(|error| EngineFailure { error, changed: true })?;
    }
    let inspected = inspect::inspect(path, false);
    let tables = inspected.map_err(|error| EngineFailure { error, changed: has_log })?;
    ctx.monitor.detail(&format!("DuckDB opens it: {} tables", tables.len()));
    Ok(())
}

/// Brings a chain back as a database file.
pub(crate) fn restore(
    chain: &Chain<'_>,
    request: &RestoreRequest,
    ctx: &Ctx,
) -> anyhow::Result<Restored> {
    if is_export(chain) {
        return restore::restore(chain, request, ctx);
    }
    let scratch = RestoreDir::beside(&request.target)?;
    let built = scratch.path("restored.duckdb");
    let written = write(chain, &built, ctx)?;
    let bytes = std::fs::metadata(&built)?.len();
    let moved_aside = scratch.publish(&built, &request.target, request.force)?;
    let version = written.headers.storage_version().unwrap_or("of an encrypted file");
    let (why, lost) = match written.unopened {
        None => (None, Vec::new()),
        Some(NotOpened::Beyond(why)) => (Some(why), Vec::new()),
        Some(NotOpened::Failed(why)) => {
            let lost = format!("a check that DuckDB opens it: {why}");
            (Some("the linked engine failed".to_owned()), vec![lost])
        }
    };
    let next = match why {
        None => format!("open it with DuckDB; its storage version is {version}"),
        Some(why) => format!(
            "open it with a DuckDB that can, and keep its log, if any, beside it until then: it was not opened here, since {why}; every block has the recorded digest"
        ),
    };
    Ok(Restored {
        target: request.target.clone(),
        bytes,
        bytes_written: written.bytes,
        moved_aside,
        next,
        lost,
    })
}

/// Restores a chain to a file in `scratch` and reads every value of every table with the linked
/// engine.
pub(crate) fn drill(
    chain: &Chain<'_>,
    scratch: &Path,
    tools: &DrillTools,
    ctx: &Ctx,
) -> anyhow::Result<Drilled> {
    if is_export(chain) {
        return restore::drill(chain, scratch, tools.share, ctx);
    }
    let began = Instant::now();
    let path = scratch.join("drill.duckdb");
    let written = write(chain, &path, ctx)?;
    if let Some(NotOpened::Beyond(reason) | NotOpened::Failed(reason)) = written.unopened {
        return Err(SourceError::Engine {
            what: "drill".into(),
            reason: format!("the linked engine cannot open the backup: {reason}"),
            hint: "every block has the recorded digest: verify it with --level decode, or drill it with a bkp linked to the DuckDB that made it"
                .into(),
        }
        .into());
    }
    let rto_seconds = began.elapsed().as_secs_f64();
    let tables = inspect::inspect(&path, true)?;
    let rows: u64 = tables.iter().map(|table| table.rows).sum();
    let check = Check {
        what: format!("DuckDB {} reads every value", crate::version::duckdb()),
        ok: true,
        found: format!("{} tables, {rows} rows", tables.len()),
        hint: None,
    };
    Ok(Drilled { rto_seconds, compared: Compared::Nothing, checks: vec![check] })
}

const _: () = assert!(UNIT_BYTES <= PIECE_BYTES, "the longest member is a piece of the log");
