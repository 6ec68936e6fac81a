//! Histories of timelines: from which one each came, and where it left that.

use super::lsn;
use super::name::{SegmentName, SegmentSize, Timeline};
use crate::error::{Classify, Kind, diagnosed};

/// Most bytes of a history: one line of some 50 bytes for each promotion.
pub const HISTORY_BYTES_MAX: usize = 1 << 20;

/// What is wrong with a history.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// More than [`HISTORY_BYTES_MAX`].
    #[error("the history of timeline {timeline} has more than {HISTORY_BYTES_MAX} bytes")]
    TooLong {
        /// Whose history it is.
        timeline: Timeline,
    },
    /// A line that is none.
    #[error("line {line} of the history of timeline {timeline} {problem}")]
    Line {
        /// Whose history it is.
        timeline: Timeline,
        /// The number of the line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
}

diagnosed!(HistoryError);

impl Classify for HistoryError {
    fn kind(&self) -> Kind {
        Kind::Integrity
    }

    fn hint(&self) -> Option<String> {
        Some("look whether the server or another archive has the file undamaged".into())
    }
}

/// Where a timeline was left for the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SwitchPoint {
    /// The timeline that was left.
    pub timeline: Timeline,
    /// What it has from here on is not a part of the history.
    pub end: u64,
}

/// A timeline and all that it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ancestry {
    timeline: Timeline,
    /// Oldest first; timelines rise, and positions do not fall.
    left: Vec<SwitchPoint>,
}

impl Ancestry {
    /// The one of a cluster that never was promoted; it has no history.
    #[must_use]
    pub fn first() -> Ancestry {
        Ancestry { timeline: Timeline::FIRST, left: Vec::new() }
    }

    /// Reads the history of `timeline`.
    ///
    /// # Errors
    /// [`HistoryError`], with the line that is wrong.
    pub fn parse(timeline: Timeline, history: &[u8]) -> Result<Ancestry, HistoryError> {
        if history.len() > HISTORY_BYTES_MAX {
            return Err(HistoryError::TooLong { timeline });
        }
        let mut left: Vec<SwitchPoint> = Vec::new();
        let mut lines = 0;
        for text in history.split(|byte| *byte == b'\n') {
            lines += 1;
            let error = |problem| HistoryError::Line { timeline, line: lines, problem };
            let Some(point) = switch_point(text).map_err(error)? else { continue };
            if left.last().is_some_and(|last| last.timeline >= point.timeline) {
                return Err(error("does not name a newer timeline than the one before"));
            }
            if left.last().is_some_and(|last| last.end > point.end) {
                return Err(error("names an earlier position than the one before"));
            }
            if point.timeline >= timeline {
                return Err(error("does not name an older timeline"));
            }
            left.push(point);
        }
        if left.is_empty() && timeline != Timeline::FIRST {
            let problem = "is its last one, and none names the timeline that it came from";
            return Err(HistoryError::Line { timeline, line: lines, problem });
        }
        Ok(Ancestry { timeline, left })
    }

    /// The newest timeline.
    #[must_use]
    pub fn timeline(&self) -> Timeline {
        self.timeline
    }

    /// Where the older ones were left, oldest first.
    #[must_use]
    pub fn switch_points(&self) -> &[SwitchPoint] {
        &self.left
    }

    /// The timeline at a place in the order of their age; the last one is the newest.
    fn nth(&self, place: usize) -> Timeline {
        self.left.get(place).map_or(self.timeline, |point| point.timeline)
    }

    /// The timeline that has what begins at `at`.
    #[must_use]
    pub fn timeline_at(&self, at: u64) -> Timeline {
        self.nth(self.left.partition_point(|point| point.end <= at))
    }

    /// Whether everything that `timeline` had before `end` is a part of this history: what was made of it can
    /// be rolled forward along this one.
    #[must_use]
    pub fn descends_from(&self, timeline: Timeline, end: u64) -> bool {
        let place = self.left.partition_point(|point| point.timeline < timeline);
        let begin = place.checked_sub(1).and_then(|before| self.left.get(before));
        let begin = begin.map_or(0, |before| before.end);
        let until = self.left.get(place).map_or(u64::MAX, |point| point.end);
        self.nth(place) == timeline && (begin..=until).contains(&end)
    }

    /// The segment that a recovery along this history reads for the position `at`. PostgreSQL takes the file of
    /// the newest timeline that begins in it or before it. It holds what it took over from the older
    /// ones; but if it is missing, PostgreSQL takes an older one's, without an error, and goes past the
    /// switch point. So it has to be there.
    #[must_use]
    pub fn segment_for(&self, at: u64, size: SegmentSize) -> SegmentName {
        let first_after = (at | (size.bytes() - 1)).saturating_add(1);
        let newest = self.nth(self.left.partition_point(|point| point.end < first_after));
        SegmentName::holding(newest, at, size)
    }

    /// The segments that a recovery along this history reads from `from` until it has everything before `to`:
    /// at least the one that holds `from`.
    pub fn segments(
        &self,
        from: u64,
        to: u64,
        size: SegmentSize,
    ) -> impl Iterator<Item = SegmentName> {
        let last = to.saturating_sub(1).max(from);
        let next = move |at: &u64| (at | (size.bytes() - 1)).checked_add(1);
        let starts = std::iter::successors(Some(from), next);
        starts.take_while(move |start| *start <= last).map(move |at| self.segment_for(at, size))
    }
}

/// Reads a line: none if it is empty or a comment.
fn switch_point(line: &[u8]) -> Result<Option<SwitchPoint>, &'static str> {
    let line = line.trim_ascii();
    if line.is_empty() || line.starts_with(b"#") {
        return Ok(None);
    }
    let mut fields = line.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
    let mut field = || fields.next().and_then(|field| str::from_utf8(field).ok());
    // Signs, which the standard library would take, are none.
    let digits = field().filter(|digits| digits.bytes().all(|c| c.is_ascii_digit()));
    let number = digits.and_then(|digits| digits.parse().ok());
    let timeline = number.and_then(Timeline::new).ok_or("begins with no number of a timeline")?;
    let end = field().and_then(lsn::parse).ok_or("has no position in the log")?;
    // The rest says why, in words of whoever promoted.
    Ok(Some(SwitchPoint { timeline, end }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn timeline(number: u32) -> Timeline {
        Timeline::new(number).unwrap()
    }

    fn size() -> SegmentSize {
        SegmentSize::new(MIB).unwrap()
    }

    /// 1 until 3.5 MiB, 2 until 3.75 MiB, 4 until 6 MiB (where a segment begins), then 7.
    fn ancestry() -> Ancestry {
        let text = b"# a comment\n1\t0/380000\tno recovery target specified\n\n2\t0/3C0000\tbefore \xff\n4\t0/600000\tat restore point \"x\"\n";
        Ancestry::parse(timeline(7), text).unwrap()
    }

    fn names(from: u64, to: u64) -> Vec<String> {
        ancestry().segments(from, to, size()).map(|name| name.to_string()).collect()
    }

    #[test]
    fn the_timeline_of_a_position_is_found() {
        let ancestry = ancestry();
        assert_eq!(ancestry.timeline(), timeline(7));
        assert_eq!(ancestry.switch_points().len(), 3);
        for (at, number) in
            [(0, 1), (0x37_ffff, 1), (0x38_0000, 2), (0x3c_0000, 4), (0x60_0000, 7), (u64::MAX, 7)]
        {
            assert_eq!(ancestry.timeline_at(at), timeline(number), "{at:x}");
        }
    }

    #[test]
    fn what_was_written_after_a_switch_is_no_ancestor() {
        let ancestry = ancestry();
        for (number, end, descends) in [
            (1, 0x10_0000, true),
            (1, 0x38_0000, true),
            (1, 0x38_0001, false),
            (2, 0x10_0000, false),
            (2, 0x3c_0000, true),
            (3, 0x3c_0000, false),
            (4, 0x3c_0001, true),
            (7, u64::MAX, true),
            (8, 0x70_0000, false),
        ] {
            assert_eq!(ancestry.descends_from(timeline(number), end), descends, "{number} {end:x}");
        }
    }

    #[test]
    fn the_newest_file_of_a_segment_is_read() {
        assert_eq!(
            names(0x28_0000, 0x70_0001),
            [
                "000000010000000000000002",
                // Two switches are in this one.
                "000000040000000000000003",
                "000000040000000000000004",
                "000000040000000000000005",
                "000000070000000000000006",
                "000000070000000000000007",
            ]
        );
        // What ends where a segment does needs no next one.
        assert_eq!(names(0x28_0000, 0x30_0000), ["000000010000000000000002"]);
        assert_eq!(names(0x60_0000, 0x60_0000), ["000000070000000000000006"]);
        assert_eq!(names(0x60_0000, 0), ["000000070000000000000006"]);
        assert_eq!(names(u64::MAX - 5, u64::MAX), ["00000007FFFFFFFF00000FFF"]);
    }

    #[test]
    fn a_cluster_without_history_has_one_timeline() {
        let first = Ancestry::first();
        assert_eq!(first.timeline_at(5), Timeline::FIRST);
        assert!(first.descends_from(Timeline::FIRST, u64::MAX));
        assert_eq!(first.segments(0, 3 * MIB, size()).count(), 3);
        assert_eq!(Ancestry::parse(Timeline::FIRST, b"# nothing\n"), Ok(first));
    }

    #[test]
    fn a_wrong_line_is_named() {
        for (text, line, problem) in [
            ("", 1, "is its last one, and none names the timeline that it came from"),
            ("1\t0/1\n+2\t0/2\n", 2, "begins with no number of a timeline"),
            ("0\t0/1\n", 1, "begins with no number of a timeline"),
            ("4294967296\t0/1\n", 1, "begins with no number of a timeline"),
            ("1\n", 1, "has no position in the log"),
            ("1\t0\n", 1, "has no position in the log"),
            ("1\t0/1\n1\t0/2\n", 2, "does not name a newer timeline than the one before"),
            ("1\t0/2\n2\t0/1\n", 2, "names an earlier position than the one before"),
            ("1\t0/1\n\n9\t0/2\n", 3, "does not name an older timeline"),
        ] {
            let timeline = timeline(9);
            let expected = HistoryError::Line { timeline, line, problem };
            assert_eq!(Ancestry::parse(timeline, text.as_bytes()), Err(expected), "{text}");
        }
        let long = vec![b'\n'; HISTORY_BYTES_MAX + 1];
        let error = Ancestry::parse(timeline(9), &long).unwrap_err();
        assert_eq!(error, HistoryError::TooLong { timeline: timeline(9) });
    }
}
