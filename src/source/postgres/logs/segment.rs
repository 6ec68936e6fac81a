//! What a manifest says of the files that arrived since the one before, and the list of them in its archive.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::facts::SegmentFacts;
use crate::concurrent;
use crate::ctx::Ctx;
use crate::domain::manifest::Identity;
use crate::domain::segment::{Range, Segment};
use crate::error::{Fault, Kind};
use crate::pipeline::BackupReader;
use crate::pipeline::log_files::LogFiles;
use crate::source::logs::LogEvent;
use crate::source::postgres::client::Lsn;
use crate::source::postgres::record::identity;
use crate::source::postgres::wal::name::{SegmentName, SegmentSize, WalFileName};
use crate::source::postgres::wal::scan::find_xid;

/// The member of the archive with the list.
pub(super) const LIST_MEMBER: &str = "files.jsonl";
/// The word for what the log consists of.
pub(super) const MODE: &str = "wal";
/// Longest line of the list, bytes.
const LINE_BYTES_MAX: u64 = 64 << 10;
/// Files that one manifest covers at most.
pub(super) const FILES_MAX: usize = 65_536;
/// Transactions end near those that began with them.
const NEAR: i32 = 1000;
/// Files that are decoded at a time.
const AT_A_TIME: usize = 4;

/// The `capture` record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SegmentRecord {
    pub(super) mode: String,
    pub(super) consistency: String,
    /// The system identifier.
    pub(super) system: String,
    /// Bytes of a segment of the server.
    pub(super) segment_bytes: u64,
    /// SHA-256 of the manifest before this one, hex; `None` for the first one.
    pub(super) parent_sha256: Option<String>,
    /// Why it does not continue what was shipped before.
    pub(super) gap: Option<String>,
    /// Why no recovery goes on over it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) unreplayable: Option<String>,
    pub(super) position: Position,
    /// The timeline that this leads to, where it is of an older one on the way there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) toward: Option<u32>,
    /// How many of each sort it has.
    pub(super) records: BTreeMap<String, u64>,
}

/// From where to where. Times are nanoseconds since 1970, by the clocks of the servers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    pub(super) first_lsn: String,
    /// The last position that is in it.
    pub(super) last_lsn: String,
    /// The timeline right before the first position.
    pub(super) first_timeline: u32,
    /// The timeline of the last position.
    pub(super) last_timeline: u32,
    pub(super) first_timestamp: u64,
    /// When the last transaction ended that is in it.
    pub(super) last_timestamp: u64,
    /// The same for people, RFC 3339.
    pub(super) last_time: Option<String>,
}

/// A file in the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileLine {
    pub(super) file: String,
    /// Bytes of its object.
    pub(super) stored: u64,
    /// SHA-256 of the file, hex.
    pub(super) sha256: String,
    pub(super) facts: SegmentFacts,
}

impl FileLine {
    /// The segment that it is.
    pub(super) fn name(&self) -> Option<SegmentName> {
        match self.file.parse() {
            Ok(WalFileName::Segment(segment)) => Some(segment),
            _ => None,
        }
    }
}

fn lsn(text: &str) -> Result<u64, String> {
    let Lsn(lsn) = text.parse().map_err(|error| format!("{error}"))?;
    Ok(lsn)
}

impl SegmentRecord {
    pub(super) fn read(capture: &Value) -> Result<SegmentRecord, String> {
        let record = SegmentRecord::deserialize(capture).map_err(|error| error.to_string())?;
        let (first, last) = (lsn(&record.position.first_lsn)?, lsn(&record.position.last_lsn)?);
        let Position { first_timestamp, last_timestamp, .. } = record.position;
        let is_whole = record.mode == MODE && record.size().is_some();
        if first > last || first_timestamp > last_timestamp || !is_whole {
            return Err("its position is inconsistent".into());
        }
        Ok(record)
    }

    /// That of an opened backup.
    ///
    /// # Errors
    /// [`Kind::Integrity`] if it cannot be read.
    pub(super) fn of(reader: &BackupReader<'_>) -> Result<SegmentRecord, Fault> {
        let manifest = reader.manifest();
        SegmentRecord::read(&manifest.capture).map_err(|why| {
            let message =
                format!("the capture record of segment {} is not valid: {why}", manifest.id);
            Fault::new(Kind::Integrity, message)
        })
    }

    pub(super) fn size(&self) -> Option<SegmentSize> {
        SegmentSize::new(self.segment_bytes)
    }

    /// Its first position.
    pub(super) fn begin(&self) -> Option<u64> {
        lsn(&self.position.first_lsn).ok()
    }

    /// The position after its last one.
    pub(super) fn end(&self) -> Option<u64> {
        lsn(&self.position.last_lsn).ok()?.checked_add(1)
    }
}

/// The segment that a manifest describes, as the rules of logs see it.
pub(super) fn read_segment(capture: &Value) -> Result<Segment, String> {
    let record = SegmentRecord::read(capture)?;
    let SegmentRecord { position, .. } = &record;
    let range = Range {
        first: lsn(&position.first_lsn)?,
        last: lsn(&position.last_lsn)?,
        before: position.first_timeline.to_string(),
        after: position.last_timeline.to_string(),
    };
    Ok(Segment {
        mode: record.mode.clone(),
        stream: record.system.clone(),
        needs_base: true,
        parent_sha256: record.parent_sha256.clone(),
        gap: record.gap.clone(),
        unreplayable: record.unreplayable.clone(),
        first_timestamp: position.first_timestamp,
        last_timestamp: position.last_timestamp,
        range: Some(range),
    })
}

/// What the manifest says that it is of.
pub(super) fn identity_of(capture: &Value) -> Identity {
    let system = capture.get("system").and_then(Value::as_str).unwrap_or_default();
    identity(system)
}

/// The files that a manifest lists, in order.
///
/// # Errors
/// [`Kind::Integrity`] if that is no list of files, or not what the manifest says of it.
pub(super) fn files_of(reader: &BackupReader<'_>, ctx: &Ctx) -> anyhow::Result<Vec<FileLine>> {
    let broken = |why: &str| {
        let id = reader.manifest().id;
        Fault::new(
            Kind::Integrity,
            format!("the list of files of segment {id} is not valid: {why}"),
        )
    };
    let mut files: Vec<FileLine> = Vec::new();
    reader.entries(ctx, &mut |member, _size, body| {
        if member != LIST_MEMBER {
            return Err(broken("it has an unknown member").into());
        }
        let mut input = BufReader::new(body);
        let mut line = Vec::new();
        loop {
            line.clear();
            let count = Read::take(&mut input, LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
            if count == 0 {
                return Ok(());
            }
            let file: FileLine =
                serde_json::from_slice(&line).map_err(|error| broken(&error.to_string()))?;
            if file.name().is_none() || files.len() >= FILES_MAX {
                return Err(broken("it names something else").into());
            }
            files.push(file);
        }
    })?;
    let record = SegmentRecord::of(reader)?;
    let size = record.size().ok_or_else(|| broken("segments have no such size"))?;
    let first = files.first().and_then(FileLine::name).and_then(|name| name.start(size));
    let last = files.last().and_then(FileLine::name).and_then(|name| name.start(size));
    let last = last.and_then(|start| start.checked_add(size.bytes()));
    let is_whole = first.is_some_and(|first| lsn(&record.position.first_lsn) == Ok(first));
    if !is_whole || last != record.end() {
        return Err(broken("it does not lead from where to where the manifest says").into());
    }
    Ok(files)
}

/// The position of the record of an event, if it is in one of the files that a manifest lists.
///
/// # Errors
/// As [`files_of`], and what reading a file fails with.
pub(super) fn find_event(
    reader: &BackupReader<'_>,
    files: &LogFiles<'_>,
    event: &LogEvent,
    ctx: &Ctx,
) -> anyhow::Result<Option<u64>> {
    let listed = files_of(reader, ctx)?;
    let system = SegmentRecord::of(reader)?.system;
    for (at, line) in listed.iter().enumerate().rev() {
        match event {
            LogEvent::Name(name) => {
                let mut points = line.facts.restore_points.iter().rev();
                if let Some(point) = points.find(|point| point.name == *name) {
                    return Ok(Some(point.lsn));
                }
            }
            LogEvent::Transaction(xid) => {
                ctx.cancel.check()?;
                let ends = line.facts.commits.iter().chain(&line.facts.aborts);
                // A record that begins in this file and ends in the next one is not among its facts.
                if !ends.filter_map(|ends| ends.xids).any(|range| may_have(range, *xid)) {
                    continue;
                }
                let (mut content, mut names) = (Vec::new(), Vec::new());
                for line in listed.iter().skip(at).take(2) {
                    fetch(files, &system, line, &mut content)?;
                    names.extend(line.name());
                }
                let found = find_xid(&names, content.as_slice(), *xid);
                let found =
                    found.map_err(|error| Fault::new(Kind::Integrity, error.to_string()))?;
                if let Some((found, _)) = found {
                    return Ok(Some(found.lsn));
                }
            }
        }
    }
    Ok(None)
}

/// Whether a transaction may be among those from the lowest to the highest number: numbers begin anew after 2^32. The
/// last one before the file and the first one after it may end in it, too.
fn may_have((lowest, highest): (u32, u32), xid: u32) -> bool {
    let from = |other: u32, one: u32| one.wrapping_sub(other).cast_signed();
    from(lowest, xid) >= -NEAR && from(highest, xid) <= NEAR
}

/// Reads every file that a manifest lists to its end, and compares it with the list.
pub(super) fn decode(
    reader: &BackupReader<'_>,
    files: &LogFiles<'_>,
    ctx: &Ctx,
) -> anyhow::Result<()> {
    let listed = files_of(reader, ctx)?;
    let system = SegmentRecord::of(reader)?.system;
    concurrent::each_of_few(&listed, AT_A_TIME, &ctx.cancel, |line| {
        fetch(files, &system, line, &mut std::io::sink())
    })?;
    Ok(())
}

/// Writes the content of a listed file to `out`.
///
/// # Errors
/// [`Kind::Integrity`] if it is missing, damaged, or another one than was listed.
pub(super) fn fetch(
    files: &LogFiles<'_>,
    system: &str,
    line: &FileLine,
    out: &mut dyn std::io::Write,
) -> anyhow::Result<()> {
    let folder = line.name().map(|name| name.timeline.folder());
    let name = files.name(system, folder.as_deref(), &line.file);
    if !files.is_there(&name)? {
        let message =
            format!("{}: `{}` is missing, although a manifest lists it", files.url(), name.key());
        return Err(Fault::new(Kind::Integrity, message).into());
    }
    let facts = files.read(&name, out)?;
    if facts.sha256 != line.sha256 {
        let message = format!("{}: `{}` is another file than was listed", files.url(), name.key());
        return Err(Fault::new(Kind::Integrity, message).into());
    }
    Ok(())
}
