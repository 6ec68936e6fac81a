//! The way back to a moment: a base backup, and the files of the log since, beside it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;

use super::facts::SegmentFacts;
use super::lineage::believed;
use super::segment::{FileLine, SegmentRecord, fetch, files_of};
use crate::concurrent;
use crate::ctx::Ctx;
use crate::domain::segment::Target;
use crate::error::{Fault, Kind};
use crate::pipeline::log_files::LogFiles;
use crate::source::logs::{RestoreAtRequest, RestoredAt};
use crate::source::postgres::record::BaseRecord;
use crate::source::postgres::restore::Building;
use crate::source::postgres::restore::recovery::{self, End, WAL_FOLDER};
use crate::source::postgres::wal::history::Ancestry;
use crate::source::postgres::wal::lsn;
use crate::source::postgres::wal::name::{SegmentName, SegmentSize, Timeline, WalFileName};

/// Files that are fetched at a time.
const AT_A_TIME: usize = 4;

/// The files that a recovery reads, and along which history.
struct RecoveryPlan {
    files: Vec<FileLine>,
    system: String,
    ancestry: Ancestry,
    /// The history's own file, unless it is that of the first timeline.
    history: Option<Vec<u8>>,
    end: End,
    /// When the last transaction ended that will be in it, nanoseconds since 1970.
    timestamp: u64,
}

/// Brings a server's data folder back, with all that a recovery to the moment needs in it. The server that is started
/// on it does the rest by itself.
///
/// # Errors
/// [`Kind::Integrity`] if a file is missing, damaged or out of order; [`Kind::Refused`] if the base backup is of
/// another history than the moment. Nothing stands at the target then.
pub(super) fn restore_at(request: &RestoreAtRequest<'_>, ctx: &Ctx) -> anyhow::Result<RestoredAt> {
    let base = BaseRecord::of_newest(request.base)?;
    let way = plan(&base, request, ctx)?;
    let building = Building::begin(&base, request.restore)?;
    let mut tree = building.build(request.base, ctx)?;
    let root = building.root();
    let timestamp = way.as_ref().map_or(base.stopped, |way| way.timestamp);
    let mut notes = Vec::new();
    if let Some(way) = &way {
        place(way, request.files, &root, ctx)?;
        let timeline = way.ancestry.timeline().number();
        recovery::write(&root, &recovery::settings(way.end, timeline))?;
        notes.push(format!(
            "the server replays {} file(s) of the log along timeline {timeline} when it is started, and begins a new timeline at the moment",
            way.files.len()
        ));
    }
    let restored = building.publish(&mut tree, request.restore, ctx)?;
    let (position, differences) = (None, Vec::new());
    Ok(RestoredAt { restored, position, timestamp, server_starts: 0, differences, notes })
}

/// Chooses the files; nothing where the base backup ends at the moment.
fn plan(
    base: &BaseRecord,
    request: &RestoreAtRequest<'_>,
    ctx: &Ctx,
) -> anyhow::Result<Option<RecoveryPlan>> {
    let broken = |what: &str| Fault::new(Kind::Integrity, format!("the log {what}"));
    let stop = base.stop().ok_or_else(|| broken("begins nowhere"))?;
    let Some(newest) = request.segments.last() else { return Ok(None) };
    let record = SegmentRecord::of(newest)?;
    let size = record.size().ok_or_else(|| broken("has no size of segments"))?;
    let mut files = Vec::new();
    for segment in request.segments {
        files.extend(files_of(segment, ctx)?);
    }
    let end =
        |line: &FileLine| line.name().and_then(|name| name.start(size)?.checked_add(size.bytes()));
    files.retain(|line| end(line).is_some_and(|end| end >= stop));
    let Some(last) = files.last().and_then(end) else { return Ok(None) };
    let timeline = Timeline::new(record.position.last_timeline);
    let timeline = timeline.ok_or_else(|| broken("has a timeline 0"))?;
    let (ancestry, history) = history(request.files, &record.system, timeline)?;
    files.extend(next_file(request.files, &record.system, (&ancestry, last, size), ctx)?);
    check_history(base, stop, &ancestry)?;
    check_unbroken(&files, (stop.saturating_sub(1), last), &ancestry, size)?;
    let ends = || files.iter().flat_map(|line| line.facts.commits.iter().chain(&line.facts.aborts));
    let latest = ends().map(|ends| ends.latest).max().unwrap_or(base.stopped);
    let (end, timestamp) = match request.target {
        Target::Time(at) if at < latest || request.exclusive => {
            (End::Time { at, inclusive: !request.exclusive }, at)
        }
        Target::Position(at) if at.checked_add(1).is_some_and(|after| after < last) => {
            (End::Position { lsn: at, inclusive: !request.exclusive }, latest)
        }
        Target::Time(_) | Target::Position(_) => (End::LastRecord, latest),
    };
    Ok(Some(RecoveryPlan { files, system: record.system, ancestry, history, end, timestamp }))
}

/// The file after those that manifests list, if it is there: a record of the last one may go on in it.
fn next_file(
    files: &LogFiles<'_>,
    system: &str,
    (ancestry, end, size): (&Ancestry, u64, SegmentSize),
    ctx: &Ctx,
) -> anyhow::Result<Option<FileLine>> {
    let segment = ancestry.segment_for(end, size);
    let folder = segment.timeline.folder();
    let name = files.name(system, Some(&folder), &segment.to_string());
    if !files.is_there(&name)? {
        return Ok(None);
    }
    let Some(found) = believed(files.facts(&name), ctx)? else { return Ok(None) };
    let facts = SegmentFacts::read(&found.facts)
        .map_err(|why| Fault::new(Kind::Integrity, format!("the header of `{segment}`: {why}")))?;
    Ok(Some(FileLine { file: segment.to_string(), stored: 0, sha256: found.sha256, facts }))
}

/// The history of a timeline, and its file.
fn history(
    files: &LogFiles<'_>,
    system: &str,
    timeline: Timeline,
) -> anyhow::Result<(Ancestry, Option<Vec<u8>>)> {
    if timeline == Timeline::FIRST {
        return Ok((Ancestry::first(), None));
    }
    let name = WalFileName::History(timeline).to_string();
    let mut text = Vec::new();
    files.read(&files.name(system, None, &name), &mut text).map_err(|error| {
        let message = format!("the history of timeline {timeline} cannot be read: {error:#}");
        Fault::new(Kind::Integrity, message)
    })?;
    let ancestry = Ancestry::parse(timeline, &text)
        .map_err(|error| Fault::new(Kind::Integrity, error.to_string()))?;
    Ok((ancestry, Some(text)))
}

/// Refuses a base backup of another history: one of a server that went on after the other was promoted.
fn check_history(base: &BaseRecord, stop: u64, ancestry: &Ancestry) -> anyhow::Result<()> {
    let timeline = Timeline::new(base.stop_timeline);
    if timeline.is_some_and(|timeline| ancestry.descends_from(timeline, stop)) {
        return Ok(());
    }
    let message = format!(
        "timeline {} does not lead on from the base backup, which ends at {} of timeline {}",
        ancestry.timeline(),
        lsn::text(stop),
        base.stop_timeline
    );
    let hint = "choose another base backup with --base ID: an older one, or one that was made after the switch";
    Err(Fault::new(Kind::Refused, message).hint(hint).into())
}

/// Makes sure that every file is there that the server will ask for. One of an older timeline in its place would be
/// taken without a word.
fn check_unbroken(
    files: &[FileLine],
    (from, to): (u64, u64),
    ancestry: &Ancestry,
    size: SegmentSize,
) -> anyhow::Result<()> {
    let there: BTreeSet<SegmentName> = files.iter().filter_map(FileLine::name).collect();
    match ancestry.segments(from, to, size).find(|name| !there.contains(name)) {
        None => Ok(()),
        Some(missing) => {
            let message = format!(
                "`{missing}` is missing from the log between the base backup and the moment"
            );
            Err(Fault::new(Kind::Integrity, message).into())
        }
    }
}

/// Puts the files of the log into the data folder.
fn place(way: &RecoveryPlan, files: &LogFiles<'_>, root: &Path, ctx: &Ctx) -> anyhow::Result<()> {
    let folder = root.join(WAL_FOLDER);
    fs::create_dir(&folder)?;
    if let Some(text) = &way.history {
        let name = WalFileName::History(way.ancestry.timeline()).to_string();
        let mut file = File::create_new(folder.join(name))?;
        std::io::Write::write_all(&mut file, text)?;
    }
    concurrent::each_of_few(&way.files, AT_A_TIME, &ctx.cancel, |line| {
        let mut file = File::create_new(folder.join(&line.file))?;
        fetch(files, &way.system, line, &mut file)
    })?;
    Ok(())
}
