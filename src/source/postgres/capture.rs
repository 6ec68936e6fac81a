//! A base backup, from the server into the chain as it comes: nothing is staged but lists of files and blocks.
//!
//! The server says at its very end whether all of it is good: a page that is damaged, for instance. Until then
//! nothing of the backup is visible.

mod input;
pub(super) mod recorder;

use std::fs::File;
use std::io::{BufReader, Read, Write as _};
use std::path::Path;
use std::time::Duration;

use self::input::{Next, StreamInput};
use self::recorder::{Method, Recorder};
use super::block_map::{BlockHasher, NewMap, ParentSums, copy_of};
use super::client::{BackupOptions, BaseBackup, Connection, Position};
use super::configured::{Server, ServerFacts};
use super::file_list::FileList;
use super::layout::{LAYOUT_MEMBER, MANIFEST_MEMBER, Tablespace};
use super::record::{BaseRecord, Increments};
use crate::archive::{EntrySink, read_foreign};
use crate::ctx::Ctx;
use crate::error::{Fault, FirstError, Kind};
use crate::fs::scratch_dir::ScratchDir;
use crate::source::{CaptureRequest, Captured, MapWriter, SourceError};

/// What a server says that has no summaries of its log since the backup that is built on
/// (`ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE`).
const NOT_IN_STATE: &str = "55000";
/// How long the server may say nothing while it sends: its disk may be slow.
const SILENCE: Duration = Duration::from_mins(10);

/// Takes a base backup.
///
/// # Errors
/// What the server, the scratch folder and `out` fail with; nothing may be kept then.
pub(super) fn capture(
    server: &Server,
    request: &CaptureRequest<'_>,
    out: &mut dyn EntrySink,
    ctx: &Ctx,
) -> anyhow::Result<Captured> {
    let mut connection = server.replication(ctx)?;
    let facts = server.facts(&mut connection, ctx)?;
    let tables_before = server.tables(ctx);
    let scratch = (request.scratch)()?;
    let increments = server.increments(&facts)?;
    let is_incremental = request.parent.is_some();
    if is_incremental && increments == Increments::Native {
        let list = parent_list(request, &scratch, ctx)?;
        connection.upload_manifest(&mut BufReader::new(list))?;
    }
    let (method, map) = method(increments, request, &scratch, ctx)?;
    // The log that the backup needs stays on the server for as long as this connection lasts.
    let slot = format!("bkp_{}_{}", std::process::id(), ctx.now().unix_timestamp());
    connection.create_replication_slot(&slot, true)?;
    ctx.monitor.detail("waiting for the server's checkpoint");
    let options = BackupOptions {
        label: format!("bkp {}", crate::domain::timestamp::rfc3339(ctx.now())),
        checkpoint: server.checkpoint,
        wal: true,
        verify_checksums: true,
        incremental: is_incremental && increments == Increments::Native,
        max_rate_kib: server.max_rate_kib,
    };
    let first_error = FirstError::default();
    let mut recorder = Recorder::new(out, method, map, first_error.clone());
    let (start, stop, list) = stream(&mut connection, &options, &mut recorder, &scratch)?;
    let map = finish_map(&mut recorder, increments, &list)?;
    let record = BaseRecord {
        mode: "stream".to_owned(),
        consistency: "transaction-consistent".to_owned(),
        version: facts.version.clone(),
        version_number: facts.version_number,
        system: facts.system.clone(),
        start_lsn: start.lsn.to_string(),
        start_timeline: start.timeline,
        stop_lsn: stop.lsn.to_string(),
        stop_timeline: stop.timeline,
        stopped: server.clock(ctx),
        segment_bytes: facts.segment_bytes,
        data_checksums: facts.data_checksums,
        standby: facts.standby,
        increments,
        superuser: facts.superuser.clone(),
        tablespaces: recorder.layout.tablespaces.clone(),
        tables_before,
        tables_after: server.tables(ctx),
        files: recorder.files() as u64,
        bytes: recorder.bytes,
    };
    let layout = recorder.layout.encode()?;
    recorder.out.entry(LAYOUT_MEMBER, &layout)?;
    say(&facts, ctx);
    Ok(Captured { record: serde_json::to_value(&record)?, map, lost: Vec::new() })
}

/// What the operator should know of the server that was backed up.
fn say(facts: &ServerFacts, ctx: &Ctx) {
    if !facts.data_checksums {
        ctx.monitor.detail("the server's pages have no checksums: nothing tells a damaged one");
    }
}

/// Takes everything that the server sends, and its word at the end that it was good.
fn stream(
    connection: &mut Connection,
    options: &BackupOptions,
    recorder: &mut Recorder<'_>,
    scratch: &ScratchDir,
) -> anyhow::Result<(Position, Position, File)> {
    let host = connection.host().to_owned();
    let mut backup = connection.base_backup(options).map_err(|error| match error.sqlstate() {
        // The server keeps what it knows of changes for a while only.
        Some(NOT_IN_STATE) if options.incremental => {
            let reason = error.to_string();
            anyhow::Error::from(SourceError::NoIncrement { what: host, reason })
        }
        _ => error.into(),
    })?;
    backup.set_silence(SILENCE);
    let start = backup.start();
    let spaces = backup.tablespaces().iter();
    recorder.layout.tablespaces = spaces
        .map(|space| Tablespace { oid: space.oid, location: space.location.clone() })
        .collect();
    let list = archives(&mut backup, recorder, &scratch.path("file-list"))?;
    let stop = backup.finish()?;
    let mut text = Vec::new();
    let mut reader = list.try_clone()?;
    std::io::Seek::rewind(&mut reader)?;
    reader.read_to_end(&mut text)?;
    recorder.confirm(&FileList::parse(&text)?)?;
    recorder.out.entry(MANIFEST_MEMBER, &text)?;
    Ok((start, stop, list))
}

/// Takes every tar, then the server's list of files, which goes to a file at `place`.
fn archives(
    backup: &mut BaseBackup<'_>,
    recorder: &mut Recorder<'_>,
    place: &Path,
) -> anyhow::Result<File> {
    let first_error = recorder.first_error.clone();
    let mut input = StreamInput::new(backup, first_error.clone());
    let mut list = None;
    loop {
        let tablespace = match input.next()? {
            Next::End => break,
            Next::FileList => {
                let mut file =
                    File::options().read(true).write(true).create_new(true).open(place)?;
                std::io::copy(&mut input, &mut file).map_err(|error| first_error.or(error))?;
                file.flush()?;
                list = Some(file);
                continue;
            }
            Next::Data => None,
            Next::Tablespace(oid) => Some(oid),
        };
        read_foreign(&mut input, &first_error, &mut |member, body| {
            recorder.member(tablespace, member, body)
        })?;
    }
    list.ok_or_else(|| Fault::new(Kind::Source, "the server sent no list of its files").into())
}

/// The server's list of the files of the parent, which its map is.
fn parent_list(
    request: &CaptureRequest<'_>,
    scratch: &ScratchDir,
    ctx: &Ctx,
) -> anyhow::Result<File> {
    let place = scratch.path("parent-list");
    let mut file = File::options().read(true).write(true).create_new(true).open(place)?;
    let last = request.chain.last();
    let last = last.ok_or_else(|| Fault::new(Kind::Failed, "an increment without a chain"))?;
    last.map(ctx, &mut |input| Ok(std::io::copy(input, &mut file)?))?;
    std::io::Seek::rewind(&mut file)?;
    Ok(file)
}

/// How changed blocks are found, and the map that is made meanwhile.
fn method(
    increments: Increments,
    request: &CaptureRequest<'_>,
    scratch: &ScratchDir,
    ctx: &Ctx,
) -> anyhow::Result<(Method, Option<NewMap>)> {
    let open = |name: &str| {
        File::options().read(true).write(true).create_new(true).open(scratch.path(name))
    };
    match increments {
        Increments::Native => Ok((Method::Native, None)),
        Increments::Off => Ok((Method::None, None)),
        Increments::Blocks => {
            let mut sums = open("parent-map").map(Some)?;
            let parent = match request.chain.last() {
                Some(last) => last.map(ctx, &mut |input| {
                    let file = sums.take();
                    let file =
                        file.ok_or_else(|| Fault::new(Kind::Failed, "a map is read twice"))?;
                    Ok(Some(Box::new(ParentSums::read(input, file)?)))
                })?,
                None => None,
            };
            let hasher = match &parent {
                Some(parent) => parent.hasher.clone(),
                None => BlockHasher::generate()?,
            };
            let map = NewMap::begin(open("map")?, &hasher)?;
            Ok((Method::Blocks(hasher, parent), Some(map)))
        }
    }
}

/// What the next increment needs to know of this backup.
fn finish_map(
    recorder: &mut Recorder<'_>,
    increments: Increments,
    list: &File,
) -> anyhow::Result<Option<MapWriter>> {
    match increments {
        Increments::Native => Ok(Some(copy_of(list.try_clone()?))),
        Increments::Blocks => recorder.map.take().map(NewMap::finish).transpose(),
        Increments::Off => Ok(None),
    }
}
