//! Names of files in the log's folder and in its archive, and which positions a segment holds.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

/// Digits of each of the three numbers in the name of a segment.
const DIGITS: usize = 8;
/// Digits of the name of a segment.
const SEGMENT_DIGITS: usize = 3 * DIGITS;

/// The number of a timeline: 1 for a new cluster, a higher one after each promotion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timeline(NonZeroU32);

impl Timeline {
    /// The one that a cluster begins with.
    pub const FIRST: Timeline = Timeline(NonZeroU32::MIN);

    /// The timeline with this number; 0 is none.
    #[must_use]
    pub fn new(number: u32) -> Option<Timeline> {
        NonZeroU32::new(number).map(Timeline)
    }

    /// Its number.
    #[must_use]
    pub fn number(self) -> u32 {
        self.0.get()
    }

    /// The folder of its segments in an archive: the digits that their names begin with.
    #[must_use]
    pub fn folder(self) -> String {
        format!("{:08X}", self.0)
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The size of a cluster's segments: a power of two from 1 MiB to 1 GiB, chosen when the cluster was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentSize(u32);

impl SegmentSize {
    /// The one that clusters have unless somebody chose another one.
    pub const DEFAULT: SegmentSize = SegmentSize(16 << 20);

    /// A size in bytes, if segments can have it.
    #[must_use]
    pub fn new(bytes: u64) -> Option<SegmentSize> {
        let is_size = bytes.is_power_of_two() && (1 << 20..=1 << 30).contains(&bytes);
        u32::try_from(bytes).ok().filter(|_| is_size).map(SegmentSize)
    }

    /// Bytes.
    #[must_use]
    pub fn bytes(self) -> u64 {
        u64::from(self.0)
    }

    /// Segments that share the second number of their names.
    fn per_log(self) -> u64 {
        (1 << 32) / self.bytes()
    }
}

/// The name of a segment. Ordered by position first, and by timeline where that is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SegmentName {
    /// The newest timeline that has a part in it.
    pub timeline: Timeline,
    /// The upper half of its position.
    pub log: u32,
    /// Which one it is of those with this upper half.
    pub seg: u32,
}

impl SegmentName {
    /// The segment that holds `lsn`.
    #[must_use]
    pub fn holding(timeline: Timeline, lsn: u64, size: SegmentSize) -> SegmentName {
        // Both fit: a position has 64 bits.
        let half = |number: u64| u32::try_from(number & u64::from(u32::MAX)).unwrap_or(u32::MAX);
        let log = half(lsn >> 32);
        SegmentName { timeline, log, seg: half((lsn & u64::from(u32::MAX)) / size.bytes()) }
    }

    /// The position of its first byte; none if segments of this size have no such name.
    #[must_use]
    pub fn start(self, size: SegmentSize) -> Option<u64> {
        let seg = u64::from(self.seg);
        (seg < size.per_log()).then(|| (u64::from(self.log) << 32) | (seg * size.bytes()))
    }

    /// The one after it; none after the last one, or if segments of this size have no such name.
    #[must_use]
    pub fn next(self, size: SegmentSize) -> Option<SegmentName> {
        let start = self.start(size)?.checked_add(size.bytes())?;
        Some(SegmentName::holding(self.timeline, start, size))
    }

    /// The one before it; none before the first one, or if segments of this size have no such name.
    #[must_use]
    pub fn previous(self, size: SegmentSize) -> Option<SegmentName> {
        let start = self.start(size)?.checked_sub(size.bytes())?;
        Some(SegmentName::holding(self.timeline, start, size))
    }
}

impl Ord for SegmentName {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let key = |name: &SegmentName| (name.log, name.seg, name.timeline);
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for SegmentName {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}{:08X}{:08X}", self.timeline.number(), self.log, self.seg)
    }
}

/// The name of a file that PostgreSQL archives. Nothing else is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WalFileName {
    /// A segment that is full, or ends with a switch to the next one.
    Segment(SegmentName),
    /// The last segment of a timeline that another one took over from.
    Partial(SegmentName),
    /// Says when a base backup was made that begins at this offset of the segment.
    BackupLabel(SegmentName, u32),
    /// The timelines that this one came from.
    History(Timeline),
}

impl fmt::Display for WalFileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WalFileName::Segment(segment) => segment.fmt(f),
            WalFileName::Partial(segment) => write!(f, "{segment}.partial"),
            WalFileName::BackupLabel(segment, offset) => {
                write!(f, "{segment}.{offset:08X}.backup")
            }
            WalFileName::History(timeline) => write!(f, "{:08X}.history", timeline.number()),
        }
    }
}

/// A name that no file of the log has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is not the name of a file of the write-ahead log")]
pub struct NotAWalFile;

impl FromStr for WalFileName {
    type Err = NotAWalFile;

    fn from_str(name: &str) -> Result<WalFileName, NotAWalFile> {
        parse(name).ok_or(NotAWalFile)
    }
}

fn parse(name: &str) -> Option<WalFileName> {
    if let Some(timeline) = name.strip_suffix(".history") {
        return Some(WalFileName::History(Timeline::new(number(timeline)?)?));
    }
    let (digits, ending) = name.split_at_checked(SEGMENT_DIGITS)?;
    let (timeline, position) = digits.split_at_checked(DIGITS)?;
    let (log, seg) = position.split_at_checked(DIGITS)?;
    let timeline = Timeline::new(number(timeline)?)?;
    let segment = SegmentName { timeline, log: number(log)?, seg: number(seg)? };
    match ending {
        "" => Some(WalFileName::Segment(segment)),
        ".partial" => Some(WalFileName::Partial(segment)),
        _ => {
            let offset = ending.strip_prefix('.')?.strip_suffix(".backup")?;
            Some(WalFileName::BackupLabel(segment, number(offset)?))
        }
    }
}

/// Eight digits, in capitals.
fn number(digits: &str) -> Option<u32> {
    let is_digit = |c: u8| matches!(c, b'0'..=b'9' | b'A'..=b'F');
    let is_number = digits.len() == DIGITS && digits.bytes().all(is_digit);
    is_number.then(|| u32::from_str_radix(digits, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn segment(timeline: u32, log: u32, seg: u32) -> SegmentName {
        SegmentName { timeline: Timeline::new(timeline).unwrap(), log, seg }
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        let one = segment(2, 0x1f, 0xa0);
        for (name, text) in [
            (WalFileName::Segment(one), "000000020000001F000000A0"),
            (WalFileName::Partial(one), "000000020000001F000000A0.partial"),
            (WalFileName::BackupLabel(one, 0x28), "000000020000001F000000A0.00000028.backup"),
            (WalFileName::History(one.timeline), "00000002.history"),
        ] {
            assert_eq!(name.to_string(), text);
            assert_eq!(text.parse(), Ok(name));
        }
    }

    #[test]
    fn other_names_are_refused() {
        for name in [
            "",
            "000000020000001F000000A",
            "000000020000001F000000A00",
            "000000000000001F000000A0",
            "000000020000001f000000A0",
            "+00000020000001F000000A0",
            "000000020000001F000000A0.Partial",
            "000000020000001F000000A0.partial.partial",
            "000000020000001F000000A0.ready",
            "000000020000001F000000A0.backup",
            "000000020000001F000000A0.28.backup",
            "000000020000001F000000A0.0000002a.backup",
            "000000020000001F000000A0/00000028.backup",
            "00000000.history",
            "0000000a.history",
            "2.history",
            ".history",
            "00000002.history.tmp",
            "../../../../etc/passwd..",
            "0000000\u{e9}0000001F000000A0",
            "RECOVERYXLOG",
        ] {
            assert_eq!(name.parse::<WalFileName>(), Err(NotAWalFile), "{name}");
        }
    }

    #[test]
    fn sizes_are_powers_of_two_within_limits() {
        assert_eq!(SegmentSize::new(16 << 20), Some(SegmentSize::DEFAULT));
        for bytes in [0, 1, 1 << 19, 1 << 31, 3 << 20, u64::MAX] {
            assert_eq!(SegmentSize::new(bytes), None, "{bytes}");
        }
    }

    #[test]
    fn neighbours_are_found_over_the_edge_of_a_log() {
        let size = SegmentSize::DEFAULT;
        assert_eq!(segment(1, 0, 0xff).next(size), Some(segment(1, 1, 0)));
        assert_eq!(segment(1, 1, 0).previous(size), Some(segment(1, 0, 0xff)));
        assert_eq!(segment(1, 0, 0).previous(size), None);
        assert_eq!(segment(1, u32::MAX, 0xff).next(size), None);
        // No segment of 16 MiB has this name, but one of 1 MiB does.
        assert_eq!(segment(1, 0, 0x100).start(size), None);
        assert_eq!(segment(1, 0, 0x100).next(size), None);
        let small = SegmentSize::new(1 << 20).unwrap();
        assert_eq!(segment(1, 0, 0x100).start(small), Some(0x1000_0000));
    }

    #[test]
    fn position_goes_before_timeline() {
        let mut names = [segment(2, 0, 5), segment(1, 1, 0), segment(1, 0, 6), segment(1, 0, 5)];
        names.sort_unstable();
        assert_eq!(names, [segment(1, 0, 5), segment(2, 0, 5), segment(1, 0, 6), segment(1, 1, 0)]);
    }

    proptest! {
        #[test]
        fn a_segment_holds_its_positions(lsn: u64, shift in 20_u32..=30) {
            let size = SegmentSize::new(1 << shift).unwrap();
            let name = SegmentName::holding(Timeline::FIRST, lsn, size);
            let start = name.start(size).unwrap();
            prop_assert!(start <= lsn && lsn - start < size.bytes());
            if let Some(next) = name.next(size) {
                prop_assert_eq!(next.start(size), Some(start + size.bytes()));
                prop_assert_eq!(next.previous(size), Some(name));
                prop_assert!(name < next);
            }
        }

        #[test]
        fn what_is_read_is_written_the_same(name in "[0-9A-G]{24}(\\.partial|\\.[0-9A-F]{8}\\.backup)?") {
            if let Ok(read) = name.parse::<WalFileName>() {
                prop_assert_eq!(read.to_string(), name);
            }
        }
    }
}
