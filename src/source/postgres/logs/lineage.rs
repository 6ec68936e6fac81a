//! Which archived files follow each other, over changes of the timeline.

use std::collections::BTreeMap;

use time::Duration;

use crate::ctx::Ctx;
use crate::error::{Fault, Kind, diagnose};
use crate::pipeline::log_files::{ListedFile, LogFiles};
use crate::source::postgres::wal::history::Ancestry;
use crate::source::postgres::wal::lsn;
use crate::source::postgres::wal::name::{SegmentName, SegmentSize, Timeline, WalFileName};

/// Files are archived several at a time: one that is missing may be on its way for so long after later ones.
const SETTLED_AFTER: Duration = Duration::minutes(10);

/// The archived segments of one cluster.
#[derive(Debug, Default)]
pub(super) struct Archive {
    /// Segments with the sizes of their objects, by timeline.
    timelines: BTreeMap<Timeline, BTreeMap<SegmentName, u64>>,
}

/// What can be shipped next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NewFiles {
    /// The segments, in order.
    pub(super) names: Vec<SegmentName>,
    /// The timeline right before the first one.
    pub(super) before: Timeline,
    /// The timeline that they lead to.
    pub(super) toward: Timeline,
    /// Why they do not continue what was shipped before.
    pub(super) gap: Option<String>,
}

impl Archive {
    /// Looks at what there is of a cluster.
    ///
    /// # Errors
    /// What the store fails with.
    pub(super) fn list(files: &LogFiles<'_>, system: &str) -> anyhow::Result<Archive> {
        let mut timelines = BTreeMap::new();
        for folder in files.folders(system)? {
            let number = u32::from_str_radix(&folder, 16).ok().and_then(Timeline::new);
            // A history that lies beside them.
            let Some(timeline) = number.filter(|_| folder.len() == 8) else { continue };
            let listed = files.list(system, Some(&folder))?;
            timelines.insert(timeline, listed.iter().filter_map(segment).collect());
        }
        Ok(Archive { timelines })
    }

    fn has(&self, name: SegmentName) -> bool {
        self.stored(name).is_some()
    }

    /// Bytes of the object of a segment.
    pub(super) fn stored(&self, name: SegmentName) -> Option<u64> {
        self.timelines.get(&name.timeline)?.get(&name).copied()
    }

    /// The newest timeline that has segments.
    pub(super) fn newest_timeline(&self) -> Option<Timeline> {
        let with_some = self.timelines.iter().rev().find(|(_, names)| !names.is_empty());
        with_some.map(|(timeline, _)| *timeline)
    }

    /// Any segment of the oldest timeline, for the size of all.
    pub(super) fn any(&self) -> Option<SegmentName> {
        self.timelines.values().find_map(|names| names.keys().next().copied())
    }

    /// What there is behind the position `after` of a timeline, or from the beginning on; nothing if nothing is new.
    ///
    /// A timeline that left another one before `after` goes back to where it did, and further: so that what was
    /// backed up on the older one leads to every moment of the newer.
    ///
    /// # Errors
    /// What store and keys fail with.
    pub(super) fn next(
        &self,
        log: &ArchivedLog<'_, '_>,
        after: Option<(Timeline, u64)>,
        toward: Option<Timeline>,
    ) -> anyhow::Result<Option<NewFiles>> {
        // On the way to a timeline, what its history leaves aside is passed by.
        if let (Some(toward), Some((last, at))) = (toward, after) {
            let end = self.end_of(toward, log.size);
            if let Some((end, ancestry)) = end.zip(log.ancestry(toward)?)
                && ancestry.descends_from(last, at)
            {
                return self.from(log, &ancestry, (at, end), last);
            }
        }
        // A timeline that goes on is not left for one that branched off it: that is of a copy.
        let on_last =
            after.map(|(last, at)| self.of_timeline(log, last, at)).transpose()?.flatten();
        if on_last.is_some() {
            return Ok(on_last);
        }
        for timeline in self.timelines.keys().rev() {
            let size = log.size;
            let Some(end) = self.end_of(*timeline, size) else { continue };
            let Some(ancestry) = log.ancestry(*timeline)? else {
                log.ctx.monitor.warn(&format!(
                    "timeline {timeline} is archived, but its history is not: nothing of it restores until `{}` is archived",
                    WalFileName::History(*timeline)
                ));
                continue;
            };
            match after {
                Some((last, at)) if ancestry.descends_from(last, at) => {
                    return self.from(log, &ancestry, (at, end), last);
                }
                // One that is older than what was shipped, or a branch of it that was left.
                Some((last, _)) if *timeline <= last => {}
                Some((last, at)) => {
                    let mut left = ancestry.switch_points().iter().rev();
                    let switch = left.find(|point| point.timeline <= last).map(|point| point.end);
                    let begin = self.backwards(&ancestry, switch.unwrap_or(end), size);
                    let names = self.unbroken(&ancestry, begin, end, size);
                    if names.is_empty() {
                        continue;
                    }
                    let gap = format!(
                        "timeline {timeline} branches off before {}, up to where timeline {last} was shipped",
                        lsn::text(at)
                    );
                    let before = ancestry.timeline_at(begin);
                    return Ok(Some(NewFiles { names, before, toward: *timeline, gap: Some(gap) }));
                }
                None => {
                    let first =
                        self.first_after(&ancestry, 0, size).and_then(|name| name.start(size));
                    let Some(first) = first else { continue };
                    let before = ancestry.timeline_at(first);
                    return self.from(log, &ancestry, (first, end), before);
                }
            }
        }
        Ok(None)
    }

    /// Where the newest segment of a timeline ends.
    fn end_of(&self, timeline: Timeline, size: SegmentSize) -> Option<u64> {
        let newest = self.timelines.get(&timeline)?.keys().next_back()?;
        newest.start(size)?.checked_add(size.bytes())
    }

    /// What there is of one timeline alone behind a position.
    fn of_timeline(
        &self,
        log: &ArchivedLog<'_, '_>,
        timeline: Timeline,
        at: u64,
    ) -> anyhow::Result<Option<NewFiles>> {
        let end = self.end_of(timeline, log.size);
        let Some((end, ancestry)) = end.zip(log.ancestry(timeline)?) else { return Ok(None) };
        let names = self.unbroken(&ancestry, at, end, log.size);
        let is_some = !names.is_empty();
        let (before, toward) = (timeline, timeline);
        Ok(is_some.then_some(NewFiles { names, before, toward, gap: None }))
    }

    /// What there is of a history from a position on. Where a file is missing and later ones have been there for a
    /// while, it does not come any more: what comes after it is a log of its own then.
    fn from(
        &self,
        log: &ArchivedLog<'_, '_>,
        ancestry: &Ancestry,
        (from, end): (u64, u64),
        before: Timeline,
    ) -> anyhow::Result<Option<NewFiles>> {
        let toward = ancestry.timeline();
        let names = self.unbroken(ancestry, from, end, log.size);
        if !names.is_empty() {
            return Ok(Some(NewFiles { names, before, toward, gap: None }));
        }
        let Some(later) = self.first_after(ancestry, from, log.size) else { return Ok(None) };
        if !log.is_settled(later)? {
            return Ok(None);
        }
        let start = later.start(log.size).unwrap_or(end);
        let gap = format!(
            "the files from `{}` to before `{later}` are not in the archive",
            ancestry.segment_for(from, log.size)
        );
        let names = self.unbroken(ancestry, start, end, log.size);
        let before = ancestry.timeline_at(start);
        Ok(Some(NewFiles { names, before, toward, gap: Some(gap) }))
    }

    /// The first segment of a history that is there and begins at `from` or later.
    fn first_after(
        &self,
        ancestry: &Ancestry,
        from: u64,
        size: SegmentSize,
    ) -> Option<SegmentName> {
        let all = self.timelines.values().flat_map(|names| names.keys());
        let on_it = all.filter_map(|name| {
            let start = name.start(size)?;
            (start >= from && ancestry.segment_for(start, size) == *name).then_some((start, *name))
        });
        on_it.min().map(|(_, name)| name)
    }

    /// The segments of a history from the position `from` on that are there, up to the first one that is not.
    fn unbroken(
        &self,
        ancestry: &Ancestry,
        from: u64,
        to: u64,
        size: SegmentSize,
    ) -> Vec<SegmentName> {
        if from >= to {
            return Vec::new();
        }
        ancestry.segments(from, to, size).take_while(|name| self.has(*name)).collect()
    }

    /// Where the unbroken segments of a history begin that lead to the one before `to`.
    fn backwards(&self, ancestry: &Ancestry, to: u64, size: SegmentSize) -> u64 {
        let mut begin = to - to % size.bytes();
        while let Some(before) = begin.checked_sub(size.bytes()) {
            if !self.has(ancestry.segment_for(before, size)) {
                break;
            }
            begin = before;
        }
        begin
    }
}

/// The archive of one cluster's log, to be asked.
pub(super) struct ArchivedLog<'l, 'f> {
    pub(super) files: &'l LogFiles<'f>,
    pub(super) system: &'l str,
    pub(super) size: SegmentSize,
    pub(super) ctx: &'l Ctx,
}

impl ArchivedLog<'_, '_> {
    /// The history of a timeline; `None` if it is not archived yet.
    fn ancestry(&self, timeline: Timeline) -> anyhow::Result<Option<Ancestry>> {
        if timeline == Timeline::FIRST {
            return Ok(Some(Ancestry::first()));
        }
        let name = WalFileName::History(timeline).to_string();
        let name = self.files.name(self.system, None, &name);
        if !self.files.is_there(&name)? {
            return Ok(None);
        }
        let mut text = Vec::new();
        let read = self.files.read(&name, &mut text).and_then(|_facts| {
            let parsed = Ancestry::parse(timeline, &text);
            Ok(parsed.map_err(|error| Fault::new(Kind::Integrity, error.to_string()))?)
        });
        believed(read, self.ctx)
    }

    /// Whether a segment has been archived for so long that those before it would be there, too.
    fn is_settled(&self, name: SegmentName) -> anyhow::Result<bool> {
        let folder = name.timeline.folder();
        let name = self.files.name(self.system, Some(&folder), &name.to_string());
        let facts = believed(self.files.facts(&name), self.ctx)?;
        Ok(facts.is_some_and(|facts| self.ctx.now() - facts.archived > SETTLED_AFTER))
    }
}

/// What was read, or nothing if it is not authentic: whoever can write to the store must not be able to stop the log.
///
/// # Errors
/// What the store fails with.
pub(super) fn believed<T>(read: anyhow::Result<T>, ctx: &Ctx) -> anyhow::Result<Option<T>> {
    match read {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(diagnose(&error).kind, Kind::Integrity | Kind::Key) => {
            ctx.monitor.warn(&format!("not counting on a file of the log: {error:#}"));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn segment(listed: &ListedFile) -> Option<(SegmentName, u64)> {
    match listed.name.file.parse() {
        Ok(WalFileName::Segment(segment)) => Some((segment, listed.bytes)),
        _ => None,
    }
}
