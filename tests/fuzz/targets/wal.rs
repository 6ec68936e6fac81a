//! Files of PostgreSQL's log: whoever can write to the server's folder writes them, and they are read in the process
//! that holds the keys.
//!
//! The first byte says what the rest is: a name, a history, a segment as it is, or records, which this puts into a
//! segment with right checksums.

use bkp::source::postgres::wal::history::Ancestry;
use bkp::source::postgres::wal::lsn;
use bkp::source::postgres::wal::name::{SegmentName, SegmentSize, Timeline, WalFileName};
use bkp::source::postgres::wal::scan::{RESTORE_POINTS_MAX, find_xid, scan};

use super::bytes::Bytes;

const NAME: u8 = 0;
const HISTORY: u8 = 1;
const SEGMENT: u8 = 2;
const RECORDS: u8 = 3;

const MIB: u64 = 1 << 20;
const PAGE: usize = 8192;

pub(crate) fn run(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else { return };
    match kind % 4 {
        NAME => name(&String::from_utf8_lossy(data)),
        HISTORY => history(data),
        SEGMENT => segment(data),
        _ => segment(&records(Bytes(data))),
    }
}

/// A name is read only as it is written.
fn name(text: &str) {
    if let Some(at) = lsn::parse(text) {
        assert_eq!(lsn::parse(&lsn::text(at)), Some(at));
    }
    let Ok(name) = text.parse::<WalFileName>() else { return };
    assert_eq!(name.to_string(), text);
    let (WalFileName::Segment(segment)
    | WalFileName::Partial(segment)
    | WalFileName::BackupLabel(segment, _)) = name
    else {
        return;
    };
    for shift in 20..=30 {
        let size = SegmentSize::new(1 << shift).unwrap();
        if let Some(start) = segment.start(size) {
            assert_eq!(SegmentName::holding(segment.timeline, start, size), segment);
            assert!(segment.next(size).is_none_or(|next| next.previous(size) == Some(segment)));
        }
    }
}

/// Every position has a timeline, and the file that is read for it is of this one or a newer one.
fn history(data: &[u8]) {
    let newest = Timeline::new(u32::MAX).unwrap();
    let Ok(ancestry) = Ancestry::parse(newest, data) else { return };
    for point in ancestry.switch_points() {
        assert!(ancestry.descends_from(point.timeline, point.end));
        assert!(
            !ancestry.descends_from(point.timeline, point.end.saturating_add(1))
                || point.end == u64::MAX
        );
        let of = ancestry.timeline_at(point.end);
        let size = SegmentSize::DEFAULT;
        let read = ancestry.segments(point.end, point.end.saturating_add(size.bytes()), size);
        let read: Vec<_> = read.collect();
        assert!(!read.is_empty() && read.len() <= 2);
        assert!(read.iter().all(|name| name.timeline >= of || point.end == u64::MAX), "{read:?}");
        assert!(read.is_sorted());
    }
}

/// What a segment says fits together, and is the same every time.
fn segment(data: &[u8]) {
    // Where it says that it belongs, so that most inputs get further.
    let mut page = Bytes(data.get(4..16).unwrap_or_default());
    let timeline = u32::try_from(page.number::<4>()).ok().and_then(Timeline::new);
    let address = page.number::<8>() as u64;
    let size = SegmentSize::new(MIB).unwrap();
    let name = SegmentName::holding(timeline.unwrap_or(Timeline::FIRST), address, size);
    let Ok(facts) = scan(name, data) else { return };
    assert_eq!(scan(name, data).unwrap(), facts);
    assert_eq!(facts.start, name.start(facts.segment_size).unwrap());
    assert!(facts.start <= facts.end && facts.restore_points.len() <= RESTORE_POINTS_MAX);
    for ends in [facts.commits, facts.aborts].into_iter().flatten() {
        assert!(ends.first.lsn <= ends.last.lsn && ends.last.end <= facts.end);
        assert!(ends.earliest <= ends.latest && ends.count > 0);
        for one in [ends.first, ends.last] {
            let (found, _) = find_xid(&[name], data, one.xid).unwrap().unwrap();
            assert!(found.xid == one.xid && found.lsn <= one.lsn);
        }
    }
}

/// A segment of PostgreSQL 17 with the records of an input, each of them manager, kind, transaction, length of its data,
/// data.
fn records(mut input: Bytes<'_>) -> Vec<u8> {
    let (start, mut previous) = (5 * MIB, 4 * MIB);
    let mut bytes = Vec::new();
    while !input.0.is_empty() {
        let head = input.take(6);
        let [rmgr, info, xid @ ..] = head else { break };
        let count = input.number::<2>();
        let body = input.take(count);
        if bytes.len() % PAGE == 0 {
            page(&mut bytes, start, 0);
        }
        let at = start + bytes.len() as u64;
        let mut record = Vec::new();
        record.extend(u32::try_from(24 + body.len()).unwrap().to_le_bytes());
        record.extend(xid);
        record.extend(previous.to_le_bytes());
        record.extend([*info, *rmgr, 0, 0]);
        record.extend(crc32c::crc32c_append(crc32c::crc32c(body), &record).to_le_bytes());
        record.extend(body);
        previous = at;
        while !record.is_empty() {
            if bytes.len() % PAGE == 0 {
                page(&mut bytes, start, record.len());
            }
            let room = PAGE - bytes.len() % PAGE;
            let later = record.split_off(record.len().min(room));
            bytes.extend(record);
            record = later;
        }
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    bytes.resize(bytes.len().next_multiple_of(PAGE), 0);
    bytes
}

/// The header of a page that goes on with so many bytes of a record.
fn page(bytes: &mut Vec<u8>, start: u64, rest: usize) {
    let is_first = bytes.is_empty();
    let address = start + bytes.len() as u64;
    bytes.extend(0xd116_u16.to_le_bytes());
    let flags = u16::from(rest > 0) | if is_first { 2 } else { 0 };
    bytes.extend(flags.to_le_bytes());
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend(address.to_le_bytes());
    bytes.extend((rest as u64).to_le_bytes());
    if is_first {
        bytes.extend(77_u64.to_le_bytes());
        bytes.extend((1_u32 << 20).to_le_bytes());
        bytes.extend(8192_u32.to_le_bytes());
    }
}

/// Names, histories, the first pages of what PostgreSQL wrote, and records of each kind.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    const PAGES: usize = 3;
    let with = |kind: u8, bytes: &[u8]| [&[kind], bytes].concat();
    let real = [
        &include_bytes!("../../vectors/wal/15/000000010000000000000007.zst")[..],
        include_bytes!("../../vectors/wal/16/000000010000000000000006.zst"),
        include_bytes!("../../vectors/wal/17/00000002000000000000000A.zst"),
        include_bytes!("../../vectors/wal/18/00000001000000000000000A.zst"),
    ];
    let names = [
        "000000010000000000000007",
        "00000001000000000000000B.partial",
        "000000010000000000000009.00000028.backup",
        "00000002.history",
        "1F/A0000028",
    ];
    let time = 800_000_000_000_000_i64.to_le_bytes();
    let record = |rmgr: u8, info: u8, main: &[u8]| {
        let count = u8::try_from(main.len()).unwrap();
        let body = [&[255, count], main].concat();
        let length = u16::try_from(body.len()).unwrap().to_le_bytes();
        [&[rmgr, info, 5, 0, 0, 0], &length[..], &body].concat()
    };
    let prepared = [&time[..], &[0x10, 0, 0, 0, 9, 0, 0, 0]].concat();
    let promoted = [&time[..], &[2, 0, 0, 0, 1, 0, 0, 0]].concat();
    let all = [
        record(1, 0, &time),
        record(1, 0x20, &time),
        record(1, 0xb0, &prepared),
        record(0, 0x70, &[&time[..], b"a name", &[0; 58]].concat()),
        record(0, 0x10, &[1; 88]),
        record(0, 0x90, &promoted),
        record(0, 0x40, &[]),
    ]
    .concat();
    let cut = |bytes: &&[u8]| with(SEGMENT, &super::unpacked(bytes)[..PAGES * PAGE]);
    names
        .iter()
        .map(|name| with(NAME, name.as_bytes()))
        .chain([with(HISTORY, b"1\t0/5000090\tno recovery target specified\n2\t0/6000000\tx\n")])
        .chain(real.iter().map(cut))
        .chain([with(RECORDS, &all)])
        .collect()
}
