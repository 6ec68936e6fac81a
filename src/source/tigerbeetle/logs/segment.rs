//! The content of a segment: tar members, the last of which, `segment.json`, gives the range it covers.
//! The manifest says the same, authentically; both must agree.

use serde_json::{Map, Value, json};

use super::capture_record::{Mode, SegmentRecord};
use super::client::record::{EXPIRY_BYTES, RECORD_BYTES};
use crate::archive::EntrySink;
use crate::blockfile::map::Checksum;
use crate::ctx::Ctx;
use crate::error::{Fault, Kind};
use crate::pipeline::BackupReader;
use crate::pipeline::log_files::LogFiles;
use crate::source::tigerbeetle::data_file::prepare::PrepareHeader;
use crate::source::tigerbeetle::data_file::zones::{MESSAGE_BYTES, SLOTS};

/// The schema this version writes and reads.
const SCHEMA: &str = "bkp.tigerbeetle.segment/1";
/// Name of the last member.
const MEMBER: &str = "segment.json";
/// Largest `segment.json`, bytes.
const MEMBER_BYTES_MAX: u64 = 64 << 10;
/// Largest other member, bytes: a message of the cluster, or a page of records.
const BODY_BYTES_MAX: u64 = MESSAGE_BYTES as u64;

/// Name of the member with an operation.
pub(crate) fn op_member(op: u64) -> String {
    format!("wal/{op}")
}

/// A kind of records of a segment in mode query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RecordKind {
    /// Accounts as they were created: without balances, not closed.
    Accounts,
    /// Transfers.
    Transfers,
    /// Pending transfers that expired, with the time.
    Expiries,
}

impl RecordKind {
    const ALL: [RecordKind; 3] =
        [RecordKind::Accounts, RecordKind::Transfers, RecordKind::Expiries];

    /// The word in members' names and in `records`.
    pub(crate) fn word(self) -> &'static str {
        match self {
            RecordKind::Accounts => "accounts",
            RecordKind::Transfers => "transfers",
            RecordKind::Expiries => "expiries",
        }
    }

    /// Size of a record, bytes.
    pub(crate) fn bytes(self) -> usize {
        match self {
            RecordKind::Accounts | RecordKind::Transfers => RECORD_BYTES,
            RecordKind::Expiries => EXPIRY_BYTES,
        }
    }

    /// Name of the member whose first record has this timestamp.
    pub(crate) fn member(self, timestamp: u64) -> String {
        format!("{}/{timestamp}", self.word())
    }
}

/// Pushes the last member.
pub(crate) fn close_segment(
    segment: &SegmentRecord,
    out: &mut dyn EntrySink,
) -> anyhow::Result<()> {
    let mut value = Map::new();
    value.insert("schema".into(), SCHEMA.into());
    if let Value::Object(fields) = serde_json::to_value(segment)? {
        value.extend(fields);
    }
    // Whoever reads it without this program finds the records by it.
    if segment.mode == Mode::Query {
        value.insert(
            "record_bytes".into(),
            json!({ "accounts": 128, "transfers": 128, "expiries": 32 }),
        );
    }
    let mut bytes = serde_json::to_vec_pretty(&value)?;
    bytes.push(b'\n');
    out.entry(MEMBER, &bytes)
}

/// Decodes a segment and checks that it holds what its manifest says.
pub(crate) fn decode(
    reader: &BackupReader<'_>,
    _files: &LogFiles<'_>,
    ctx: &Ctx,
) -> anyhow::Result<()> {
    match manifest_segment(reader)?.mode {
        Mode::Wal => each_op(reader, ctx, &mut |_, _| Ok(())),
        Mode::Query => each_page(reader, ctx, &mut |_, _| Ok(())),
    }
}

/// What the manifest says of the segment.
pub(crate) fn manifest_segment(reader: &BackupReader<'_>) -> anyhow::Result<SegmentRecord> {
    SegmentRecord::read(&reader.manifest().capture).map_err(|problem| broken(reader, &problem))
}

/// A segment that is not what it says it is.
pub(crate) fn broken(reader: &BackupReader<'_>, problem: &str) -> anyhow::Error {
    let message = format!("segment {} is damaged: {problem}", reader.manifest().id);
    Fault::new(Kind::Integrity, message).into()
}

/// Shows every operation of a segment in mode wal, in order, each whole and proven to follow the one
/// before it.
pub(crate) fn each_op(
    reader: &BackupReader<'_>,
    ctx: &Ctx,
    visit: &mut dyn FnMut(&PrepareHeader, &[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let segment = manifest_segment(reader)?;
    let says = segment.position.ops.clone();
    let says = says.ok_or_else(|| broken(reader, "it names no operations"))?;
    let cluster: u128 = segment.cluster.parse()?;
    let (mut next, mut before) = (says.first_op, says.before_checksum.clone());
    each_member(reader, ctx, &segment, &mut |name, bytes| {
        let header = PrepareHeader::read(bytes)
            .filter(|header| header.fits(cluster, header.op() % SLOTS) && header.has_body(bytes))
            .filter(|header| header.size() == bytes.len() && op_member(header.op()) == name);
        let header =
            header.ok_or_else(|| broken(reader, &format!("its member {name} is incomplete")))?;
        if header.op() != next || spelled(header.parent()) != before {
            return Err(broken(
                reader,
                &format!("its member {name} is not the op {next} that follows"),
            ));
        }
        (next, before) = (next + 1, spelled(header.checksum()));
        visit(&header, bytes)
    })?;
    if next != says.last_op + 1 || before != says.last_checksum {
        return Err(broken(reader, &format!("it does not end with op {}", says.last_op)));
    }
    Ok(())
}

/// Shows every page of records of a segment in mode query, in order.
pub(crate) fn each_page(
    reader: &BackupReader<'_>,
    ctx: &Ctx,
    visit: &mut dyn FnMut(RecordKind, &[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let segment = manifest_segment(reader)?;
    let mut counts = [0_u64; 3];
    each_member(reader, ctx, &segment, &mut |name, bytes| {
        let word = name.split_once('/').map_or("", |(word, _)| word);
        let known =
            RecordKind::ALL.into_iter().zip(&mut counts).find(|(kind, _)| kind.word() == word);
        let (kind, count) =
            known.ok_or_else(|| broken(reader, &format!("it has a member `{name}`")))?;
        if bytes.is_empty() || !bytes.len().is_multiple_of(kind.bytes()) {
            return Err(broken(reader, &format!("its member {name} is incomplete")));
        }
        *count += (bytes.len() / kind.bytes()) as u64;
        visit(kind, bytes)
    })?;
    for (kind, count) in RecordKind::ALL.into_iter().zip(counts) {
        let says = segment.records.get(kind.word()).copied().unwrap_or(0);
        if count != says {
            return Err(broken(reader, &format!("it has {count} {}, not {says}", kind.word())));
        }
    }
    Ok(())
}

/// A checksum as a segment spells it.
pub(crate) fn spelled(checksum: Checksum) -> String {
    checksum.to_string()
}

/// Shows all members but the last, which must say what the manifest says.
fn each_member(
    reader: &BackupReader<'_>,
    ctx: &Ctx,
    segment: &SegmentRecord,
    visit: &mut dyn FnMut(&str, &[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut buffer = Vec::new();
    let mut closed = false;
    reader.entries(ctx, &mut |name, size, body| {
        if closed {
            return Err(broken(reader, &format!("it has data after {MEMBER}")));
        }
        closed = name == MEMBER;
        if size > if closed { MEMBER_BYTES_MAX } else { BODY_BYTES_MAX } {
            return Err(broken(reader, &format!("its member {name} has {size} bytes")));
        }
        buffer.clear();
        body.read_to_end(&mut buffer)?;
        if closed { agree(reader, segment, &buffer) } else { visit(name, &buffer) }
    })?;
    if closed { Ok(()) } else { Err(broken(reader, &format!("it has no {MEMBER}"))) }
}

fn agree(reader: &BackupReader<'_>, segment: &SegmentRecord, bytes: &[u8]) -> anyhow::Result<()> {
    let value: Value = serde_json::from_slice(bytes)?;
    let schema = value.get("schema").and_then(Value::as_str);
    if schema != Some(SCHEMA) {
        let message = format!("segment {} has an unknown format: {schema:?}", reader.manifest().id);
        return Err(Fault::new(Kind::Refused, message).hint("use a newer version of bkp").into());
    }
    let inside = SegmentRecord::read(&value).map_err(|problem| broken(reader, &problem))?;
    // The parent's digest is known only when the segment is sealed.
    let same = inside == SegmentRecord { parent_sha256: None, ..segment.clone() };
    if same { Ok(()) } else { Err(broken(reader, "its manifest and its content differ")) }
}
