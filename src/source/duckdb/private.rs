//! A private copy of a database, made as a snapshot is, for work that needs the engine.
//!
//! The copy is needed because opening the live file would take DuckDB's lock, and keep its owner
//! from opening it for as long as the work goes on.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::capture::{Capture, Capturing};
use super::engine::{self, Session};
use super::format::{Headers, unit_offset};
use super::layout::{Member, PIECE_BYTES};
use super::mode::{Database, beside};
use crate::ctx::Ctx;
use crate::error::Kind;
use crate::source::{EntrySink, SourceError};

/// Puts what a capture pushes into its place in a file and its log.
struct Placing {
    file: File,
    log: File,
}

impl EntrySink for Placing {
    fn entry(&mut self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        match Member::parse(name) {
            Some(Member::Headers) => self.file.write_all_at(bytes, 0)?,
            Some(Member::Unit(unit)) => self.file.write_all_at(bytes, unit_offset(unit))?,
            Some(Member::Piece(piece)) => {
                self.log.write_all_at(bytes, piece * PIECE_BYTES as u64)?;
            }
            Some(Member::Layout) | None => {}
        }
        Ok(())
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

/// Copies `database` to `path`, which must be in a folder of ours, and opens the copy.
///
/// # Errors
/// What a capture fails with; [`SourceError::Engine`] if the linked engine cannot read the file.
pub(super) fn open(
    database: &Database,
    path: &Path,
    attempts: u32,
    check: &dyn Fn(&Headers) -> Result<(), SourceError>,
    ctx: &Ctx,
) -> anyhow::Result<(Session, Capture)> {
    let readable = |headers: &Headers| {
        check(headers)?;
        let Some(reason) = engine::cannot_read(headers) else { return Ok(()) };
        Err(SourceError::Engine {
            what: database.path.display().to_string(),
            reason: format!("its tables cannot be exported: {reason}"),
            hint: "take a snapshot, which copies the file as it is: bkp snapshot SOURCE".into(),
        })
    };
    let create = |path: &Path| {
        let created = File::options().write(true).create_new(true).open(path);
        created.map_err(|error| super::mode::unreadable(path, error))
    };
    let log_path = beside(path, ".wal");
    let mut placing = Placing { file: create(path)?, log: create(&log_path)? };
    let capture = Capturing::new(database, &mut placing, None, ctx).run(attempts, &readable)?;
    placing.file.set_len(capture.layout.file_bytes)?;
    placing.log.set_len(capture.layout.wal_bytes)?;
    // DuckDB's lock would be lost if one of these were closed while it has the file open.
    drop(placing);
    if capture.layout.wal_bytes == 0 {
        std::fs::remove_file(&log_path)?;
    }
    let spill = path.parent().unwrap_or(Path::new("."));
    let session = Session::open(Some(path), false, spill, Kind::Source)?;
    Ok((session, capture))
}
