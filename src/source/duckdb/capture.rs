//! Capturing a database file while another process writes it.
//!
//! One attempt: read the headers, read the log, then every unit of the file that changed since it
//! was last read, and look at headers and log again. If they are what they were, no checkpoint has
//! ended, so nothing that the headers refer to was overwritten, and everything that the log refers
//! to had been written before it: file and log are the state after the log's last commit. Blocks
//! that are completed in place are caught by their own checksums.
//!
//! The first attempt reads everything. A later one recognises an unchanged unit by the first page
//! of each of its blocks, which begins with a checksum of the block, and so takes a moment only.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::archive::EntrySink;
use crate::blockfile::listing::{Counter, Hex};
use crate::blockfile::map::BlockMap;
use crate::ctx::Ctx;
use crate::domain::limits::DUCKDB_LOG_BYTES_MAX;
use crate::source::duckdb::attempt_error::{AttemptError, Cause, again};
use crate::source::duckdb::capture::retry_attempts::retry_capture;
use crate::source::duckdb::data_file::database::{Database, Observation, beside, unreadable};
use crate::source::duckdb::data_file::format::{BLOCKS_AT, Headers, UNIT_BYTES, digest};
use crate::source::duckdb::data_file::free_blocks;
use crate::source::duckdb::data_file::layout::{
    HEADERS_MEMBER, LAYOUT_MEMBER, Layout, LayoutFile as _, PIECE_BYTES, SCHEMA, SCHEMA_BROKEN_OFF,
    piece_member,
};
use crate::source::{Held, SourceError};

pub(crate) mod private_copy;
pub(crate) mod retry_attempts;
mod units;

/// What a finished capture knows.
#[derive(Debug)]
pub(crate) struct Capture {
    pub(crate) layout: Layout,
    pub(crate) record: Value,
}

/// The moment that was captured, without what was pushed of it.
#[derive(Debug)]
pub(crate) struct CapturedMoment {
    pub(crate) file_bytes: u64,
    pub(crate) wal_bytes: u64,
    /// So many of these, at the end, are of the log of a checkpoint that was broken off; `None` if none was.
    pub(crate) next_bytes: Option<u64>,
    pub(crate) record: Value,
}

/// Everything that stays over the attempts of one capture.
pub(crate) struct CaptureRun<'a> {
    database: &'a Database,
    out: &'a mut dyn EntrySink,
    parent: Option<&'a Held>,
    ctx: &'a Ctx,
    /// Whether units are to be known again later, which takes a digest of each.
    mapped: bool,
    /// Of each unit, what its first pages looked like when it was read.
    unit_digests: Vec<u64>,
    units: BlockMap,
    pieces: BlockMap,
    /// Blocks that did not have their checksums when they were last read.
    torn: BTreeSet<u64>,
    /// What was pushed last under each name.
    units_sent: BlockMap,
    pieces_sent: BlockMap,
    pushed: u64,
    buffer: Vec<u8>,
}

impl<'a> CaptureRun<'a> {
    pub(crate) fn new(
        database: &'a Database,
        out: &'a mut dyn EntrySink,
        parent: Option<&'a Held>,
        ctx: &'a Ctx,
    ) -> Self {
        CaptureRun {
            database,
            out,
            parent,
            ctx,
            mapped: true,
            unit_digests: Vec::new(),
            units: BlockMap::default(),
            pieces: BlockMap::default(),
            torn: BTreeSet::new(),
            units_sent: BlockMap::default(),
            pieces_sent: BlockMap::default(),
            pushed: 0,
            buffer: vec![0; UNIT_BYTES],
        }
    }

    /// Captures file and log; `check` sees the headers before anything is pushed.
    pub(crate) fn run(
        mut self,
        attempts_max: u32,
        check: &dyn Fn(&Headers) -> Result<(), SourceError>,
    ) -> anyhow::Result<Capture> {
        let (observation, captured) = self.capture_stable(attempts_max, check)?;
        self.finish(&observation, captured)
    }

    /// The same for a copy that is used at once: nobody has to know its units again, so none is hashed,
    /// and no layout is pushed.
    pub(crate) fn copy(
        mut self,
        attempts_max: u32,
        check: &dyn Fn(&Headers) -> Result<(), SourceError>,
    ) -> anyhow::Result<CapturedMoment> {
        self.mapped = false;
        let (observation, captured) = self.capture_stable(attempts_max, check)?;
        self.out.entry(HEADERS_MEMBER, observation.headers.raw())?;
        Ok(captured)
    }

    /// Reads until nothing changes meanwhile.
    fn capture_stable(
        &mut self,
        attempts_max: u32,
        check: &dyn Fn(&Headers) -> Result<(), SourceError>,
    ) -> anyhow::Result<(Observation, CapturedMoment)> {
        let (database, ctx) = (self.database, self.ctx);
        let (observation, attempts) = retry_capture(database, attempts_max, ctx, &mut || {
            let observation = database.observe()?;
            check(&observation.headers)?;
            self.attempt(&observation)?;
            Ok(observation)
        })?;
        let headers = &observation.headers;
        let encrypted = headers.is_encrypted();
        let file_bytes = whole_bytes(&observation);
        let (own_bytes, next_bytes) = observation.log_bytes();
        let wal_bytes = own_bytes + next_bytes;
        let broken_off = database.broken_off.get();
        let next_bytes = broken_off.then_some(next_bytes);
        let consistency = if broken_off { "crash-consistent" } else { "transaction-consistent" };
        let record = json!({
            "consistency": consistency,
            "position": {
                "iteration": (!encrypted).then(|| headers.iteration()),
                "wal_bytes": wal_bytes,
            },
            "storage_version": headers.storage_version(),
            "made_by": headers.made_by(),
            "database_id": headers.database_id(),
            "encrypted": encrypted,
            "file_bytes": file_bytes,
            "attempts": attempts,
        });
        Ok((observation, CapturedMoment { file_bytes, wal_bytes, next_bytes, record }))
    }

    fn attempt(&mut self, observation: &Observation) -> Result<(), AttemptError> {
        self.log(observation)?;
        let changed = self.file(observation)?;
        self.database.recheck(observation)?;
        if observation.headers.is_encrypted() {
            // Nothing in the file tells whether a block was read whole; two equal readings do.
            let settled = changed == 0 || self.database.is_clone();
            return if settled { Ok(()) } else { Err(again("blocks changed meanwhile")) };
        }
        self.check_torn_blocks(observation)
    }

    /// Reads the committed part of the log, and pushes the pieces that are new.
    fn log(&mut self, observation: &Observation) -> Result<(), AttemptError> {
        self.pieces = BlockMap::default();
        let (own_bytes, next_bytes) = observation.log_bytes();
        let bytes_all = own_bytes + next_bytes;
        let path = beside(&self.database.path, ".wal");
        if bytes_all > DUCKDB_LOG_BYTES_MAX {
            return Err(SourceError::Engine {
                what: path.display().to_string(),
                reason: format!("it has {bytes_all} bytes"),
                hint: "run CHECKPOINT in the database first".into(),
            }
            .into());
        }
        let mut piece_bytes = vec![0; PIECE_BYTES];
        for piece in 0..bytes_all.div_ceil(PIECE_BYTES as u64) {
            let at = piece * PIECE_BYTES as u64;
            let length = usize::try_from(bytes_all - at).unwrap_or(PIECE_BYTES);
            let bytes = piece_bytes.get_mut(..length.min(PIECE_BYTES)).unwrap_or_default();
            observation.read_logs(bytes, at).map_err(|error| {
                if error.kind() == std::io::ErrorKind::UnexpectedEof {
                    return again("the log was truncated meanwhile");
                }
                unreadable(&path, error).into()
            })?;
            let digest = digest(bytes);
            let name = piece_member(piece);
            let held = self.parent.is_some_and(|parent| parent.has_entry(&name, digest));
            if !held && !self.pieces_sent.holds(piece, digest) {
                self.out.entry(&name, bytes)?;
                self.pieces_sent.set(piece, digest);
            }
            self.pieces.set(piece, digest);
        }
        Ok(())
    }

    /// Blocks that do not have their checksums must be ones that nothing refers to: neither the headers
    /// nor the log, whose commits may have put rows into the file that no header knows of yet.
    fn check_torn_blocks(&self, observation: &Observation) -> Result<(), AttemptError> {
        let headers = &observation.headers;
        if self.torn.is_empty() {
            return Ok(());
        }
        let free = free_blocks::blocks(self.database, headers)?;
        let in_log = |block: &u64| {
            observation.log.as_ref().is_some_and(|(_, scan)| scan.blocks.contains(block))
        };
        let in_use = |block: &&u64| {
            in_log(block) || **block < headers.block_count() && !free.contains(*block)
        };
        match self.torn.iter().find(in_use) {
            None => Ok(()),
            Some(block) => {
                let why = format!("block {block} has a wrong checksum");
                Err(AttemptError::Again(Cause::Torn, why))
            }
        }
    }

    /// Pushes what can wait until everything is settled, `layout.json` last.
    fn finish(
        self,
        observation: &Observation,
        captured: CapturedMoment,
    ) -> anyhow::Result<Capture> {
        let headers = &observation.headers;
        self.out.entry(HEADERS_MEMBER, headers.raw())?;
        let layout = Layout {
            schema: if captured.next_bytes.is_some() { SCHEMA_BROKEN_OFF } else { SCHEMA }.into(),
            file_bytes: captured.file_bytes,
            units_at: BLOCKS_AT,
            unit_bytes: UNIT_BYTES as u64,
            headers: Hex(digest(headers.raw())),
            wal_bytes: captured.wal_bytes,
            next_bytes: captured.next_bytes,
            piece_bytes: PIECE_BYTES as u64,
            wal: self.pieces,
            units: self.units,
        };
        // What a restore would refuse must not become a backup.
        layout.check().map_err(|problem| {
            let what = self.database.path.display().to_string();
            SourceError::Unsupported { what, reason: format!("its block map: {problem}") }
        })?;
        let mut size = Counter::default();
        layout.write(&mut size)?;
        self.out.stream(LAYOUT_MEMBER, size.0, &mut |out| layout.write(out))?;
        let mut record = captured.record;
        if let Value::Object(fields) = &mut record {
            fields.insert("units".into(), layout.units.len().into());
            fields.insert("units_pushed".into(), self.pushed.into());
        }
        Ok(Capture { layout, record })
    }
}

/// Length of the file in whole blocks: a block that is only begun is one that nothing refers to.
fn whole_bytes(observation: &Observation) -> u64 {
    let blocks = observation.file_bytes.saturating_sub(BLOCKS_AT);
    if observation.headers.is_encrypted() {
        return BLOCKS_AT + blocks;
    }
    BLOCKS_AT + blocks / observation.headers.block_bytes() * observation.headers.block_bytes()
}
