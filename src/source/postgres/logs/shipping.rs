//! The job `logs`: what has arrived in the archive since the last time, in one manifest.
//!
//! It reads no file of the log, only their headers, and needs no server: where the archive can be read, it can run.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::LOG;
use super::facts::SegmentFacts;
use super::follow::Follower;
use super::lineage::{Archive, ArchivedLog, NewFiles, believed};
use super::segment::{FILES_MAX, FileLine, LIST_MEMBER, MODE, Position, SegmentRecord};
use crate::archive::EntrySink;
use crate::concurrent;
use crate::ctx::Ctx;
use crate::domain::timestamp::spelled;
use crate::error::{Fault, Kind};
use crate::pipeline::log_files::{LogFileFacts, LogFiles};
use crate::source::logs::{LogSource, OnGap};
use crate::source::postgres::client::Lsn;
use crate::source::postgres::configured::Server;
use crate::source::postgres::wal::name::{SegmentName, SegmentSize, Timeline};

/// The log of a configured server.
pub(in crate::source::postgres) struct PostgresLog {
    server: Server,
    has_more: bool,
    follower: Option<Follower>,
}

/// What was looked at, and what of it is new.
struct News {
    system: String,
    archive: Archive,
    size: SegmentSize,
    new_files: NewFiles,
}

impl PostgresLog {
    /// Opens it. Connects to nothing.
    ///
    /// # Errors
    /// [`Kind::Usage`] for a mode that there is none of.
    pub(in crate::source::postgres) fn open(
        server: &Server,
        mode: Option<&str>,
    ) -> anyhow::Result<PostgresLog> {
        match mode {
            None | Some(MODE) => {
                Ok(PostgresLog { server: server.clone(), has_more: false, follower: None })
            }
            Some(other) => Err(LOG.unknown_mode(other).into()),
        }
    }

    /// The cluster that the server is now, or that was shipped last where the server does not say.
    fn system_now(&self, after: Option<&SegmentRecord>, ctx: &Ctx) -> anyhow::Result<String> {
        let asked = self
            .server
            .replication(ctx)
            .and_then(|mut connection| Ok(connection.identify_system()?.system_id.to_string()));
        match (asked, after) {
            (Ok(system), _) => Ok(system),
            (Err(error), None) => Err(error),
            (Err(error), Some(after)) => {
                ctx.cancel.check()?;
                ctx.monitor.warn(&format!(
                    "several clusters archive under this name, and the server does not say which one it is; going on with {}: {error:#}",
                    after.system
                ));
                Ok(after.system.clone())
            }
        }
    }

    /// What has arrived behind what was shipped.
    fn look(
        &self,
        after: Option<&SegmentRecord>,
        files: &LogFiles<'_>,
        ctx: &Ctx,
    ) -> anyhow::Result<Option<News>> {
        let streams = files.streams()?;
        let system = match (after, streams.as_slice()) {
            (_, []) => return Ok(None),
            (_, [only]) => only.clone(),
            // Several clusters have used this name.
            (after, _) => self.system_now(after, ctx)?,
        };
        let archive = Archive::list(files, &system)?;
        let Some(any) = archive.any() else { return Ok(None) };
        let size = match after.and_then(SegmentRecord::size) {
            Some(size) => size,
            None => facts(files, &system, any)?.1.size().ok_or_else(|| no_size(any))?,
        };
        let from = match after.filter(|after| after.system == system) {
            None => None,
            Some(after) => Timeline::new(after.position.last_timeline).zip(after.end()),
        };
        let log = ArchivedLog { files, system: &system, size, ctx };
        let toward = after.filter(|after| after.system == system).and_then(|after| after.toward);
        let found = archive.next(&log, from, toward.and_then(Timeline::new))?;
        if let Some(new_files) = &found {
            warn_of_branch(&archive, new_files, ctx);
        }
        Ok(found.map(|new_files| News { system, archive, size, new_files }))
    }
}

/// Says that two servers archive into one log: what one of them writes is not shipped while the other goes on.
fn warn_of_branch(archive: &Archive, new_files: &NewFiles, ctx: &Ctx) {
    let last = new_files.names.last().map(|name| name.timeline);
    let newest = archive.newest_timeline();
    if let (Some(last), Some(newest)) = (last, newest)
        && newest > last
    {
        ctx.monitor.warn(&format!(
            "timeline {newest} is archived beside timeline {last}, which goes on: if both servers run, stop the one that should not, or give it a source of its own"
        ));
    }
}

fn no_size(name: SegmentName) -> Fault {
    let message = format!("the header of `{name}` says nothing of the size of segments");
    Fault::new(Kind::Integrity, message)
}

/// What the header of a segment says.
fn facts(
    files: &LogFiles<'_>,
    system: &str,
    name: SegmentName,
) -> anyhow::Result<(LogFileFacts, SegmentFacts)> {
    let folder = name.timeline.folder();
    let found = files.facts(&files.name(system, Some(&folder), &name.to_string()))?;
    let segment = SegmentFacts::read(&found.facts).map_err(|why| {
        Fault::new(Kind::Integrity, format!("the header of `{name}` cannot be read: {why}"))
    })?;
    Ok((found, segment))
}

/// What is listed of each segment, up to the first one that no recovery goes on over, or that one alone.
fn lines(news: &News, files: &LogFiles<'_>, ctx: &Ctx) -> anyhow::Result<Vec<FileLine>> {
    let names = one_history(&news.new_files);
    let lines = concurrent::each(&names, &ctx.cancel, |name| {
        let found = believed(facts(files, &news.system, *name), ctx)?;
        let stored = news.archive.stored(*name).unwrap_or_default();
        Ok(found.map(|(found, facts)| FileLine {
            file: name.to_string(),
            stored,
            sha256: found.sha256,
            facts,
        }))
    })?;
    let mut lines: Vec<FileLine> = lines.into_iter().map_while(|line| line).collect();
    let flawed = lines.iter().position(|line| line.facts.flaw.is_some());
    lines.truncate(match flawed {
        None => lines.len(),
        Some(0) => 1,
        Some(at) => at,
    });
    Ok(lines)
}

/// The first of the new files that are of one timeline. One that begins a timeline comes alone: before the
/// switch in it, it belongs to the older one, too.
fn one_history(new_files: &NewFiles) -> Vec<SegmentName> {
    let first = new_files.names.first().map(|name| name.timeline);
    let most = if first == Some(new_files.before) { FILES_MAX } else { 1 };
    let names = new_files.names.iter().copied();
    names.take_while(|name| Some(name.timeline) == first).take(most).collect()
}

impl LogSource for PostgresLog {
    fn mode(&self) -> &'static str {
        MODE
    }

    fn on_gap(&self) -> OnGap {
        OnGap::Report
    }

    fn every(&self) -> Duration {
        self.server.logs.every
    }

    fn wait(
        &mut self,
        spool: &Path,
        archive: &mut dyn FnMut(&Path) -> anyhow::Result<()>,
        ctx: &Ctx,
    ) -> anyhow::Result<()> {
        let mut follower = match self.follower.take() {
            Some(follower) => follower,
            None => Follower::begin(&self.server, spool, ctx)?,
        };
        // One that failed is not kept.
        follower.follow(&self.server, self.every(), archive, ctx)?;
        self.follower = Some(follower);
        Ok(())
    }

    fn has_more(&self) -> bool {
        self.has_more
    }

    fn news(
        &mut self,
        after: Option<&Value>,
        files: &LogFiles<'_>,
        ctx: &Ctx,
    ) -> anyhow::Result<bool> {
        let after = after.map(SegmentRecord::read).transpose().map_err(anyhow::Error::msg)?;
        let news = self.look(after.as_ref(), files, ctx)?.is_some();
        if !news && self.follower.is_none() {
            self.server.check_archiver(ctx)?;
        }
        Ok(news)
    }

    fn ship(
        &mut self,
        after: Option<&Value>,
        files: &LogFiles<'_>,
        out: &mut dyn EntrySink,
        ctx: &Ctx,
    ) -> anyhow::Result<Value> {
        let after = after.map(SegmentRecord::read).transpose().map_err(anyhow::Error::msg)?;
        let news = self.look(after.as_ref(), files, ctx)?;
        let gone = || Fault::new(Kind::Busy, "what was new is shipped by now");
        let news = news.ok_or_else(gone)?;
        let lines = lines(&news, files, ctx)?;
        if let (true, Some(name)) = (lines.is_empty(), news.new_files.names.first()) {
            let message = format!("{}: the archived file `{name}` is not authentic", files.url());
            let hint = "somebody put it there or changed it: while it is there, the server's own file cannot be archived; look at who can write to the store, and delete the object";
            return Err(Fault::new(Kind::Integrity, message).hint(hint).into());
        }
        self.has_more = lines.len() < news.new_files.names.len();
        let mut list = Vec::new();
        for line in &lines {
            serde_json::to_writer(&mut list, line)?;
            list.push(b'\n');
        }
        let record = record(&news, &lines, after.as_ref()).ok_or_else(gone)?;
        out.entry(LIST_MEMBER, &list)?;
        Ok(serde_json::to_value(record)?)
    }
}

/// What the manifest says of these files.
fn record(news: &News, lines: &[FileLine], after: Option<&SegmentRecord>) -> Option<SegmentRecord> {
    let News { system, size, new_files, .. } = news;
    let (first, last) = (lines.first()?, lines.last()?);
    let last_name = last.name()?;
    let last_lsn = last_name.start(*size)?.checked_add(size.bytes() - 1)?;
    let ends = || lines.iter().flat_map(|line| line.facts.commits.iter().chain(&line.facts.aborts));
    // Where nothing was committed, times stay where they were.
    let since =
        after.map(|after| after.position.last_timestamp).filter(|_| new_files.gap.is_none());
    let earliest = ends().map(|ends| ends.earliest).min();
    let first_timestamp = since.map_or(earliest.unwrap_or(1), |since| since.saturating_add(1));
    let latest = ends().map(|ends| ends.latest).max();
    let last_timestamp = latest.unwrap_or(first_timestamp).max(first_timestamp);
    let gap = new_files.gap.clone().or_else(|| {
        let other = after.filter(|after| after.system != *system)?;
        Some(format!("it is another cluster than {}", other.system))
    });
    let transactions =
        lines.iter().filter_map(|line| line.facts.commits).map(|one| one.count).sum();
    let counts = [("files", lines.len() as u64), ("transactions", transactions)];
    let toward = (last_name.timeline != new_files.toward).then(|| new_files.toward.number());
    Some(SegmentRecord {
        toward,
        mode: MODE.to_owned(),
        consistency: "transaction-consistent".to_owned(),
        system: system.clone(),
        segment_bytes: size.bytes(),
        parent_sha256: None,
        gap,
        unreplayable: first.facts.flaw.clone().map(|flaw| format!("`{}`: {flaw}", first.file)),
        position: Position {
            first_lsn: Lsn(first.name()?.start(*size)?).to_string(),
            last_lsn: Lsn(last_lsn).to_string(),
            first_timeline: new_files.before.number(),
            last_timeline: last_name.timeline.number(),
            first_timestamp,
            last_timestamp,
            last_time: spelled(last_timestamp),
        },
        records: counts.map(|(what, count)| (what.to_owned(), count)).into(),
    })
}
