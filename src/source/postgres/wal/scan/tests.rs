use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use time::OffsetDateTime;
use time::macros::format_description;

use super::super::flaw::Flaw;
use super::super::history::Ancestry;
use super::super::lsn;
use super::super::name::WalFileName;
use super::*;

const MIB: usize = 1 << 20;
const PAGE: usize = 8192;

/// A segment of 1 MiB that is written by hand, as PostgreSQL 17 does.
struct Writer {
    bytes: Vec<u8>,
    name: SegmentName,
    previous: u64,
}

fn segment(timeline: u32, seg: u32) -> SegmentName {
    SegmentName { timeline: Timeline::new(timeline).unwrap(), log: 0, seg }
}

impl Writer {
    fn new(name: SegmentName) -> Writer {
        Writer { bytes: Vec::new(), name, previous: u64::from(name.seg) << 20 }
    }

    fn start(&self) -> u64 {
        u64::from(self.name.seg) << 20
    }

    fn page(&mut self, flags: u16, rest: usize) {
        assert!(self.bytes.len().is_multiple_of(PAGE) && self.bytes.len() < MIB);
        let is_first = self.bytes.is_empty();
        let address = self.start() + self.bytes.len() as u64;
        self.bytes.extend(0xd116_u16.to_le_bytes());
        let flags = flags | u16::from(rest > 0) | if is_first { 2 } else { 0 };
        self.bytes.extend(flags.to_le_bytes());
        self.bytes.extend(self.name.timeline.number().to_le_bytes());
        self.bytes.extend(address.to_le_bytes());
        self.bytes.extend((rest as u64).to_le_bytes());
        if is_first {
            self.bytes.extend(77_u64.to_le_bytes());
            self.bytes.extend((1_u32 << 20).to_le_bytes());
            self.bytes.extend(8192_u32.to_le_bytes());
        }
    }

    /// A whole record; what does not fit into the segment comes back.
    fn record(&mut self, rmgr: u8, info: u8, xid: u32, main: &[u8]) -> Vec<u8> {
        if self.bytes.len().is_multiple_of(PAGE) {
            self.page(0, 0);
        }
        let lsn = self.start() + self.bytes.len() as u64;
        let mut body = Vec::new();
        if !main.is_empty() {
            body.push(254);
            body.extend(u32::try_from(main.len()).unwrap().to_le_bytes());
            body.extend(main);
        }
        let mut head = Vec::new();
        head.extend(u32::try_from(24 + body.len()).unwrap().to_le_bytes());
        head.extend(xid.to_le_bytes());
        head.extend(self.previous.to_le_bytes());
        head.extend([info, rmgr, 0, 0]);
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&body), &head);
        head.extend(checksum.to_le_bytes());
        head.extend(body);
        self.previous = lsn;
        self.put(&head)
    }

    /// Bytes of a record, with page headers in between.
    fn put(&mut self, mut bytes: &[u8]) -> Vec<u8> {
        while !bytes.is_empty() {
            if self.bytes.len() == MIB {
                return bytes.to_vec();
            }
            if self.bytes.len().is_multiple_of(PAGE) {
                self.page(0, bytes.len());
            }
            let room = PAGE - self.bytes.len() % PAGE;
            let (now, later) = bytes.split_at(bytes.len().min(room));
            self.bytes.extend(now);
            bytes = later;
        }
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        Vec::new()
    }

    /// Ends of transactions at this many microseconds after 2000.
    fn commit(&mut self, xid: u32, time: i64) {
        self.record(1, 0, xid, &time.to_le_bytes());
    }

    fn zeros(mut self) -> Vec<u8> {
        self.bytes.resize(MIB, 0);
        self.bytes
    }
}

fn nanoseconds(microseconds: u64) -> u64 {
    (946_684_800_000_000 + microseconds) * 1000
}

/// Three commits, of which the second lies on two pages, then nothing.
fn three_commits() -> Writer {
    let mut writer = Writer::new(segment(1, 5));
    writer.commit(10, 100);
    let room = PAGE - writer.bytes.len();
    // What is left of the page has room for the head of the next record and a few bytes.
    writer.record(10, 0, 0, &vec![7; room - 24 - 5 - 32]);
    writer.commit(12, 300);
    assert!(writer.bytes.len() > PAGE);
    writer.commit(11, 200);
    writer
}

#[test]
fn records_on_two_pages_are_read() {
    let writer = three_commits();
    let end = writer.start() + writer.bytes.len() as u64;
    let facts = scan(segment(1, 5), &*writer.zeros()).unwrap();
    assert_eq!((facts.major, facts.system, facts.segment_size.bytes()), (17, 77, 1 << 20));
    assert_eq!((facts.start, facts.end, facts.began_before), (5 << 20, end, 0));
    let offset = end - facts.start;
    assert_eq!(facts.ending, Ending::Unfinished { offset, flaw: Flaw::RecordLength(0) });
    let commits = facts.commits.unwrap();
    assert_eq!((commits.count, commits.first.xid, commits.last.xid), (3, 10, 11));
    assert_eq!(commits.first.lsn, facts.start + 40);
    assert_eq!((commits.earliest, commits.latest), (nanoseconds(100), nanoseconds(300)));
    assert_eq!(commits.last.time, nanoseconds(200));
    assert_eq!(commits.xids, Some((10, 12)));
    assert_eq!((facts.aborts, facts.checkpoint), (None, None));
}

#[test]
fn numbers_of_transactions_begin_anew() {
    let at = |xid| TransactionAt { xid, time: 0, lsn: 0, end: 0 };
    let mut transactions = Transactions::new(at(0));
    assert!(!transactions.may_have(5));
    for xid in [u32::MAX - 1, 5, u32::MAX, 0, 3] {
        transactions.add(at(xid));
    }
    assert_eq!(transactions.xids, Some((u32::MAX - 1, 5)));
    for (xid, may) in [(u32::MAX - 2, false), (u32::MAX, true), (4, true), (6, false)] {
        assert_eq!(transactions.may_have(xid), may, "{xid}");
    }
}

#[test]
fn what_goes_on_in_the_next_segment_is_found_with_it() {
    let mut first = Writer::new(segment(1, 5));
    first.record(10, 0, 0, &vec![7; MIB - 128 * 24 - 16 - 24 - 5 - 32]);
    assert_eq!(first.bytes.len(), MIB - 32);
    let rest = first.record(1, 0, 9, &300_i64.to_le_bytes());
    assert_eq!((first.bytes.len(), rest.len()), (MIB, 5));
    let mut second = Writer::new(segment(1, 6));
    second.put(&rest);
    second.previous = first.previous;
    second.commit(10, 400);
    let (first, second) = (first.bytes, second.zeros());

    let facts = scan(segment(1, 5), &*first).unwrap();
    assert_eq!(facts.ending, Ending::Full { goes_on: true });
    assert_eq!((facts.commits, facts.end), (None, (6 << 20) - 32));
    let facts = scan(segment(1, 6), &*second).unwrap();
    assert_eq!((facts.began_before, facts.commits.unwrap().count), (5, 1));
    let names = [segment(1, 5), segment(1, 6)];
    let both = [first.clone(), second].concat();
    let (found, is_committed) = find_xid(&names, &*both, 9).unwrap().unwrap();
    assert_eq!((found.lsn, found.end, is_committed), ((6 << 20) - 32, (6 << 20) + 48, true));
    assert_eq!(find_xid(&names, &*both, 10).unwrap().unwrap().0.time, nanoseconds(400));
    assert_eq!(find_xid(&names, &*both, 11).unwrap(), None);
    // Not the next one.
    let twice = [&*first, &*first].concat();
    let error = find_xid(&names, &*twice, 9);
    assert!(matches!(error, Ok(None)), "{error:?}");
}

#[test]
fn a_segment_inside_of_one_record_has_nothing_else() {
    let mut writer = Writer::new(segment(1, 5));
    writer.put(&vec![1; 3 * MIB]);
    let facts = scan(segment(1, 5), &*writer.bytes).unwrap();
    assert_eq!((facts.began_before, facts.end), (3 << 20, 5 << 20));
    assert_eq!(facts.ending, Ending::Full { goes_on: true });
}

/// The server crashed while it wrote the record, and goes on with the next page.
#[test]
fn a_record_that_was_given_up_is_left_out() {
    let mut writer = three_commits();
    let previous = writer.previous;
    writer.record(10, 0, 0, &vec![7; 3 * PAGE]);
    writer.bytes.truncate(2 * PAGE);
    writer.previous = previous;
    writer.page(8, 0);
    writer.record(0, 0xd0, 0, &[0; 16]);
    writer.commit(13, 400);
    let end = writer.start() + writer.bytes.len() as u64;
    let facts = scan(segment(1, 5), &*writer.zeros()).unwrap();
    assert_eq!((facts.commits.unwrap().count, facts.end), (4, end));
}

#[test]
fn pages_of_a_segment_that_was_used_before_are_no_damage() {
    let mut writer = three_commits();
    let whole = writer.bytes.len();
    let mut before = Writer::new(segment(1, 2));
    before.put(&vec![3; 2 * MIB]);
    // What was written last on the page is cut off in the midst of a record.
    writer.commit(13, 400);
    writer.bytes.truncate(whole + 20);
    let mut bytes = writer.bytes;
    bytes.extend(&before.bytes[bytes.len()..]);
    let facts = scan(segment(1, 5), &*bytes).unwrap();
    let offset = whole as u64;
    let ending = Ending::Unfinished { offset, flaw: Flaw::Checksum };
    assert_eq!((facts.commits.unwrap().count, facts.ending), (3, ending));
    // The record goes on with a page that is not its own.
    let mut writer = three_commits();
    writer.record(10, 0, 0, &vec![7; 3 * PAGE]);
    writer.bytes.truncate(2 * PAGE);
    let mut bytes = writer.bytes;
    bytes.extend(&before.bytes[bytes.len()..]);
    let facts = scan(segment(1, 5), &*bytes).unwrap();
    let flaw = Flaw::Address((2 << 20) + 2 * PAGE as u64);
    let ending = Ending::Unfinished { offset: 2 * PAGE as u64, flaw };
    assert_eq!((facts.commits.unwrap().count, facts.ending), (3, ending));
}

#[test]
fn what_is_amiss_is_named_with_its_place() {
    let good = {
        let mut writer = three_commits();
        writer.record(10, 0, 0, &vec![7; 5 * PAGE]);
        writer.zeros()
    };
    let with = |offset: usize, bytes: &[u8]| {
        let mut bad = good.clone();
        bad[offset..offset + bytes.len()].copy_from_slice(bytes);
        match scan(segment(1, 5), &*bad) {
            Err(WalError::Damaged { offset, flaw }) => (offset, flaw),
            other => panic!("{other:?}"),
        }
    };
    let second = PAGE as u64;
    for (at, bytes, expected) in [
        (0, &[0x17, 0xd1][..], (0, Flaw::Magic(0xd117))),
        (2, &[0][..], (0, Flaw::PageFlags(0))),
        (3, &[0x10], (0, Flaw::PageFlags(0x1002))),
        (4, &[2], (0, Flaw::PageTimeline(2))),
        (4, &[0], (0, Flaw::PageTimeline(0))),
        (8, &[1], (0, Flaw::Address((5 << 20) + 1))),
        (16, &[1], (0, Flaw::PageFlags(2))),
        (32, &[1], (0, Flaw::SegmentSize((1 << 20) + 1))),
        (37, &[0x40], (0, Flaw::PageSize(0x4000))),
        (40, &[23], (40, Flaw::RecordLength(23))),
        (43, &[0xff], (40, Flaw::RecordLength(0xff00_0025))),
        (44, &[0xff], (40, Flaw::Checksum)),
        (55, &[0x80], (40, Flaw::Previous(0x8000_0000_0050_0000))),
        (69, &[1], (40, Flaw::Checksum)),
        (80, &[1], (80, Flaw::RecordLength(8036))),
        (PAGE + 2, &[0x10], (second, Flaw::PageFlags(0x10))),
        (PAGE + 16, &[6], (second, Flaw::Rest(6))),
    ] {
        let found = with(at, bytes);
        if at == 80 {
            assert_eq!(found.0, 80, "{found:?}");
        } else {
            assert_eq!(found, expected, "{at}");
        }
    }
    for length in [0, 1, 100, PAGE - 1] {
        let error = scan(segment(1, 5), &good[..length]).unwrap_err();
        assert_eq!(error.to_string(), "damaged at byte 0: it is cut off");
    }
    let facts = scan(segment(1, 5), &good[..3 * PAGE + 5]).unwrap();
    let ending = Ending::Unfinished { offset: 3 * PAGE as u64, flaw: Flaw::CutOff };
    assert_eq!((facts.ending, facts.commits.unwrap().count), (ending, 3));
    let error = scan(segment(1, 6), &*good).unwrap_err();
    assert_eq!(
        error.to_string(),
        "damaged at byte 0: its page says that it is the one at 0/500000"
    );
    let error = scan(segment(1, 0x1005), &*good).unwrap_err();
    assert!(matches!(error, WalError::Damaged { offset: 0, flaw: Flaw::Name }), "{error}");
    let error = find_xid(&[], &*good, 1).unwrap_err();
    assert!(matches!(error, WalError::Damaged { offset: 0, flaw: Flaw::TooLong }), "{error}");
}

#[test]
fn nothing_comes_after_a_segment() {
    let mut writer = three_commits();
    writer.record(0, 0x40, 0, &[]);
    let mut bytes = writer.zeros();
    let facts = scan(segment(1, 5), &*bytes).unwrap();
    assert_eq!((facts.ending, facts.end), (Ending::Switch, 6 << 20));
    bytes.push(0);
    let error = scan(segment(1, 5), &*bytes).unwrap_err();
    assert_eq!(error.to_string(), "damaged at byte 1048576: it is longer than a segment");
}

#[test]
fn a_record_with_a_right_checksum_may_be_a_wrong_one() {
    for (rmgr, info, main) in [(1, 0, &[1, 2, 3][..]), (1, 0x30, &[0; 8]), (0, 0x70, &[1; 20])] {
        let mut writer = three_commits();
        let offset = writer.bytes.len() as u64;
        writer.record(rmgr, info, 5, main);
        writer.record(10, 0, 0, &vec![7; 5 * PAGE]);
        let error = scan(segment(1, 5), &*writer.zeros()).unwrap_err();
        let WalError::Damaged { offset: at, flaw: Flaw::Record } = error else { panic!("{error}") };
        assert_eq!(at, offset);
    }
}

#[test]
fn no_more_names_are_kept_than_there_is_room_for() {
    let mut writer = Writer::new(segment(1, 5));
    for number in 0..=RESTORE_POINTS_MAX {
        let mut main = vec![0; 72];
        let name = format!("number {number}");
        main[8..8 + name.len()].copy_from_slice(name.as_bytes());
        writer.record(0, 0x70, 0, &main);
    }
    let facts = scan(segment(1, 5), &*writer.zeros()).unwrap();
    assert_eq!(facts.restore_points.len(), RESTORE_POINTS_MAX);
    assert!(facts.has_more_restore_points);
    assert_eq!(facts.restore_points[7].name, "number 7");
}

/// What PostgreSQL wrote: `tests/vectors/wal/make.sh`.
fn vectors() -> Vec<(u8, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/wal");
    let folder = |major: u8| (major, root.join(major.to_string()));
    [15, 16, 17, 18].map(folder).into()
}

/// The files of a folder with an ending, by the names that they have without it.
fn unpacked(folder: &Path, ending: &str) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for item in fs::read_dir(folder).unwrap() {
        let path = item.unwrap().path();
        let file = path.file_name().unwrap().to_str().unwrap();
        if let Some(name) = file.strip_suffix(ending).filter(|name| !name.contains("txt")) {
            let bytes = zstd::decode_all(&*fs::read(&path).unwrap()).unwrap();
            found.insert(name.to_owned(), bytes);
        }
    }
    assert_eq!(found.len(), 5, "{}", folder.display());
    found
}

fn name_of(file: &str) -> SegmentName {
    match file.parse().unwrap() {
        WalFileName::Segment(name) | WalFileName::Partial(name) => name,
        other @ (WalFileName::BackupLabel(..) | WalFileName::History(_)) => panic!("{other}"),
    }
}

/// What `pg_waldump` says of a record, in the words of [`said`].
fn expected(line: &str) -> Option<String> {
    let field = |name: &str| line.split(name).nth(1).unwrap().split([',', ';']).next().unwrap();
    let (at, what) = (field("lsn: "), line.split("desc: ").nth(1).unwrap());
    let (kind, rest) = what.trim_end().split_once(' ').unwrap_or((what.trim_end(), ""));
    let time = |text: &str| text.split(';').next().unwrap().trim().to_owned();
    let end = |kind: &str, xid: &str, text: &str| format!("{kind} {xid} {}", time(text));
    let what = match kind {
        "COMMIT" | "ABORT" => end(kind, field("tx: ").trim(), rest),
        "COMMIT_PREPARED" | "ABORT_PREPARED" => {
            let (xid, rest) = rest.split_once(": ").unwrap();
            end(&kind.replace("_PREPARED", ""), xid, rest)
        }
        "RESTORE_POINT" => format!("NAME {rest}"),
        "CHECKPOINT_ONLINE" | "CHECKPOINT_SHUTDOWN" => {
            let (to, from) = (field("; tli "), field("; prev tli "));
            format!("{kind} {} {to} {from}", field("redo "))
        }
        "END_OF_RECOVERY" => {
            let (to, from) = (field("OVERY tli "), field("; prev tli "));
            format!("END {to} {from} {}", time(field("; time ")))
        }
        "SWITCH" => "SWITCH".to_owned(),
        _ => return None,
    };
    let (high, low) = at.split_once('/').unwrap();
    let at = lsn::parse(&format!("{high}/{low}")).unwrap();
    Some(format!("{at:x} {what}"))
}

fn said(record: &Record) -> Option<String> {
    let format = format_description!(
        "[year]-[month]-[day] [hour]:[minute]:[second].[subsecond digits:6] UTC"
    );
    let text = |time: u64| {
        OffsetDateTime::from_unix_timestamp_nanos(time.into()).unwrap().format(format).unwrap()
    };
    let what = match &record.event {
        Event::Commit(of) => format!("COMMIT {} {}", of.xid, text(of.time)),
        Event::Abort(of) => format!("ABORT {} {}", of.xid, text(of.time)),
        Event::RestorePoint { name, .. } => format!("NAME {name}"),
        Event::Checkpoint(one) => {
            let kind = if one.is_shutdown { "SHUTDOWN" } else { "ONLINE" };
            let redo = lsn::text(one.redo);
            format!("CHECKPOINT_{kind} {redo} {} {}", one.timeline, one.previous)
        }
        Event::EndOfRecovery { timeline, previous, time } => {
            format!("END {timeline} {previous} {}", text(*time))
        }
        Event::Switch => "SWITCH".to_owned(),
        Event::Other => return None,
    };
    Some(format!("{:x} {what}", record.lsn))
}

#[test]
fn postgres_says_the_same_of_its_segments() {
    for (major, folder) in vectors() {
        let texts = unpacked(&folder, ".txt.zst");
        let mut seen = String::new();
        for (file, bytes) in unpacked(&folder, ".zst") {
            let names = [name_of(&file)];
            let mut records = Records::open(&names, &*bytes).unwrap();
            assert_eq!(records.origin().major, major);
            let mut found = Vec::new();
            while let Some(record) = records.next().unwrap() {
                found.extend(said(&record));
            }
            let text = str::from_utf8(&texts[&file]).unwrap();
            let expected: Vec<String> = text.lines().filter_map(expected).collect();
            assert_eq!(found, expected, "{major} {file}");
            seen.extend(found);
        }
        for kind in ["COMMIT", "ABORT", "NAME before the drop", "ONLINE", "END 2 1", "SWITCH"] {
            assert!(seen.contains(kind), "{major}: {kind}");
        }
    }
}

#[test]
fn facts_of_real_segments_fit_together() {
    for (major, folder) in vectors() {
        let files = unpacked(&folder, ".zst");
        let facts: Vec<Facts> =
            files.iter().map(|(file, bytes)| scan(name_of(file), &**bytes).unwrap()).collect();
        let [ended, full, crossing, partial, newer] = &facts[..] else { panic!("{facts:?}") };
        assert!(facts.iter().all(|one| one.system == ended.system && one.major == major));
        assert_eq!((ended.ending, crossing.ending), (Ending::Switch, Ending::Switch));
        assert_eq!(ended.end, full.start);
        assert_eq!((ended.began_before, full.began_before), (0, 0));
        assert_eq!(full.ending, Ending::Full { goes_on: true });
        assert!(crossing.began_before > 0 && full.end < crossing.start);
        let (commits, aborts) = (ended.commits.unwrap(), ended.aborts.unwrap());
        assert_eq!((commits.count, aborts.count), (6, 2), "{major}");
        assert_eq!(ended.restore_points[0].name, "before the drop");
        assert!(ended.restore_points[0].time <= commits.latest);
        assert!(commits.may_have(aborts.first.xid));
        // The checkpoint has no time in what pg_waldump says.
        let (at, checkpoint) = crossing.checkpoint.unwrap();
        assert!(at >= checkpoint.redo && checkpoint.redo >= crossing.start);
        let second = 1_000_000_000;
        let since = checkpoint.time.abs_diff(crossing.commits.unwrap().latest);
        assert!(since < 5 * second, "{since}");

        // The old timeline ends in the file where the new one begins.
        assert!(matches!(partial.ending, Ending::Unfinished { .. }), "{partial:?}");
        assert_eq!((partial.timeline.number(), newer.timeline.number()), (1, 2));
        let [change] = &newer.timeline_changes[..] else { panic!("{newer:?}") };
        assert_eq!((change.lsn, change.previous), (partial.end, partial.timeline));
        assert_eq!(partial.commits.unwrap().last, newer.commits.unwrap().first);
        let history = fs::read(folder.join("00000002.history")).unwrap();
        let ancestry = Ancestry::parse(newer.timeline, &history).unwrap();
        assert_eq!(ancestry.switch_points()[0].end, partial.end);
        let size = newer.segment_size;
        let read: Vec<_> = ancestry.segments(ended.start, newer.end, size).collect();
        assert_eq!(read.first().unwrap().timeline, Timeline::FIRST);
        let last = files.keys().next_back().unwrap();
        assert_eq!(read.last(), Some(&name_of(last)));
    }
}

#[test]
fn a_transaction_of_a_real_segment_is_found() {
    for (_, folder) in vectors() {
        let files = unpacked(&folder, ".zst");
        let names: Vec<_> = files.keys().take(3).map(|file| name_of(file)).collect();
        let bytes: Vec<u8> = files.values().take(3).flatten().copied().collect();
        let first = scan(names[0], &bytes[..MIB]).unwrap();
        let last = scan(names[2], &bytes[2 * MIB..]).unwrap().commits.unwrap().last;
        let found = find_xid(&names, &*bytes, last.xid).unwrap();
        assert_eq!(found, Some((last, true)));
        let aborted = first.aborts.unwrap().first;
        let found = find_xid(&names, &*bytes, aborted.xid).unwrap();
        assert_eq!(found, Some((aborted, false)));
    }
}

fn real() -> Vec<(SegmentName, Vec<u8>)> {
    let files = vectors().into_iter().flat_map(|(_, folder)| unpacked(&folder, ".zst"));
    files.map(|(file, bytes)| (name_of(&file), bytes)).collect()
}

/// One byte is enough: it is found, or it is where no record is.
#[test]
fn a_flipped_byte_of_a_record_is_found() {
    for (name, bytes) in real() {
        let good = scan(name, &*bytes).unwrap();
        let mut bad = bytes.clone();
        for at in (0..bytes.len()).filter(|at| bytes[*at] != 0).step_by(1 + bytes.len() / 8192) {
            bad[at] ^= 0x04;
            if let Ok(facts) = scan(name, &*bad) {
                // The rest of a record that began before has its checksum elsewhere; the system
                // identifier is compared by the caller.
                let is_rest = at < 40 + 24 * 128 + facts.began_before as usize;
                assert!(
                    facts.ending != good.ending || facts == good && at > 8192 || is_rest,
                    "{name} {at}"
                );
            }
            bad[at] = bytes[at];
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn nothing_panics(
        which: prop::sample::Index,
        flips in prop::collection::vec((0_usize..3 * PAGE, any::<u8>()), 1..20),
        cut in prop::option::of(0_usize..MIB),
    ) {
        let files = real();
        let (name, bytes) = which.get(&files);
        let mut bytes = bytes.clone();
        for (at, byte) in flips {
            bytes[at] = byte;
        }
        bytes.truncate(cut.unwrap_or(bytes.len()));
        if let Ok(facts) = scan(*name, &*bytes) {
            prop_assert!(facts.start <= facts.end);
        }
        let _found = find_xid(&[*name], &*bytes, 750);
    }
}
