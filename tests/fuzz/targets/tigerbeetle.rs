//! The data file of a TigerBeetle replica: superblock, log, blocks. It is another program's, and may be
//! damaged in any way.
//!
//! An input is a file in parts ([`super::patches`]); before it is laid out, checksums and references are
//! made right, so that what a change does is not hidden behind the first checksum. Its first byte says
//! what of that is left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::LazyLock;

use aegis::aegis128l::Aegis128L;
use bkp::ctx::Ctx;
use bkp::domain::names::{BackupType, Scope};
use bkp::domain::segment::KIND;
use bkp::error::{Kind, diagnose};
use bkp::keys::keyring::Keyring;
use bkp::pipeline::log_files::LogFiles;
use bkp::source::kinds;
use bkp::source::tigerbeetle::SegmentRecord;
use bkp::source::{CaptureRequest, ParentMap, Source, SourceKind};
use tempfile::TempDir;

use super::bytes::Bytes;
use super::chain::{Impatient, Made, Members, NoBackups, Pushed, map, reader};
use super::memory::Memory;
use super::patches::{self, Parts};

const SUPERBLOCK: u8 = 0;
const RING: u8 = 1;
const PREPARE: u8 = 2;
const REPLY: u8 = 3;
const BLOCK: u8 = 4;

const HEADER: usize = 256;
const SUPERBLOCK_BYTES: usize = 8192;
const SUPERBLOCK_STRIDE: u64 = 24_576;
const BLOCK_BYTES: usize = 512 << 10;
const MESSAGE_BYTES: usize = 1 << 20;
const SLOTS: u64 = 1024;
const RING_AT: u64 = 98_304;
const PREPARES_AT: u64 = 360_448;
const REPLIES_AT: u64 = 1_074_102_272;
const GRID_AT: u64 = 1_141_374_976;
/// The kind of a block with values, of which nothing is looked at but its checksum: a seed has few.
const VALUE: u64 = 5;
const VALUE_BYTES: usize = HEADER + 64;
/// Addresses that an input can fill.
const ADDRESS_MAX: u16 = 256;

/// Bits of the first byte.
const AS_IT_IS_BLOCKS: usize = 1;
const AS_IT_IS_LOG: usize = 2;
const AS_IT_IS_SUPERBLOCK: usize = 4;
const ONE_COPY_TORN: usize = 8;

fn checksum(bytes: &[u8]) -> [u8; 16] {
    static HASHER: LazyLock<Aegis128L<16>> = LazyLock::new(|| Aegis128L::new(&[0; 16], &[0; 16]));
    HASHER.encrypt(&[], bytes).1
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    Bytes(bytes.get(at..).unwrap_or_default()).number::<N>() as u64
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

/// Makes a message or block as long as it says, and its checksums right.
fn seal(bytes: &mut Vec<u8>, longest: usize) -> [u8; 16] {
    let size = usize::try_from(number::<4>(bytes, 96)).unwrap();
    bytes
        .resize(if (HEADER..=longest).contains(&size) { size } else { bytes.len().max(HEADER) }, 0);
    let body = checksum(&bytes[HEADER..]);
    put(bytes, 32, &body);
    let whole = checksum(&bytes[16..HEADER]);
    put(bytes, 0, &whole);
    whole
}

/// A data file in parts.
struct Image {
    superblock: Vec<u8>,
    ring: BTreeMap<u16, Vec<u8>>,
    prepares: BTreeMap<u16, Vec<u8>>,
    replies: BTreeMap<u16, Vec<u8>>,
    blocks: BTreeMap<u16, Vec<u8>>,
    /// Blocks whose checksums are right.
    sealed: BTreeMap<u16, [u8; 16]>,
}

impl Image {
    fn read(input: Bytes<'_>) -> Image {
        let mut parts = Parts::read(input, |zone| match zone {
            SUPERBLOCK => SUPERBLOCK_BYTES,
            RING => HEADER,
            BLOCK => BLOCK_BYTES,
            _ => MESSAGE_BYTES,
        });
        let mut superblock = parts.one(SUPERBLOCK, 0);
        superblock.resize(SUPERBLOCK_BYTES, 0);
        let ring = parts.zone(RING).into_iter().filter(|(slot, _)| u64::from(*slot) < SLOTS);
        let replies = parts.zone(REPLY).into_iter().filter(|(slot, _)| *slot < 64);
        let blocks = parts.zone(BLOCK).into_iter();
        let blocks = blocks.filter(|(address, _)| (1..=ADDRESS_MAX).contains(address));
        Image {
            superblock,
            ring: ring.collect(),
            replies: replies.collect(),
            blocks: blocks.collect(),
            prepares: parts.zone(PREPARE),
            sealed: BTreeMap::new(),
        }
    }

    fn write(&self) -> Vec<u8> {
        let mut out = Vec::new();
        patches::write(&mut out, SUPERBLOCK, 0, &self.superblock);
        for (zone, parts) in
            [(PREPARE, &self.prepares), (REPLY, &self.replies), (BLOCK, &self.blocks)]
        {
            for (index, part) in parts {
                patches::write(&mut out, zone, *index, part);
            }
        }
        out
    }

    /// Makes the checksum of a block right, after those of the blocks that it refers to, and returns it.
    fn seal_block(&mut self, address: u64, above: &mut BTreeSet<u16>) -> Option<[u8; 16]> {
        let address = u16::try_from(address).ok()?;
        if let Some(sum) = self.sealed.get(&address) {
            return Some(*sum);
        }
        let mut block = self.blocks.get(&address)?.clone();
        // In a circle of references no checksum is right.
        if !above.insert(address) {
            return None;
        }
        block.resize(block.len().max(HEADER), 0);
        for (place, reference) in references(&block) {
            if let Some(sum) = self.seal_block(reference, above) {
                put(&mut block, place, &sum);
            }
        }
        put(&mut block, 224, &u64::from(address).to_le_bytes());
        let sum = seal(&mut block, BLOCK_BYTES);
        above.remove(&address);
        self.blocks.insert(address, block);
        self.sealed.insert(address, sum);
        Some(sum)
    }

    fn seal_blocks(&mut self) {
        for (address, place) in [(624, 352), (632, 384), (640, 416), (648, 448), (656, 480)] {
            let address = number::<8>(&self.superblock, address);
            if let Some(sum) = self.seal_block(address, &mut BTreeSet::new()) {
                put(&mut self.superblock, place, &sum);
            }
        }
        for [address, bytes, whole] in [[624, 680, 544], [632, 688, 560], [640, 696, 576]] {
            let (mut parts, mut seen) = (Vec::new(), BTreeSet::new());
            let mut next = number::<8>(&self.superblock, address);
            while let Some(block) = u16::try_from(next).ok().and_then(|at| self.blocks.get(&at)) {
                if !seen.insert(next) {
                    break;
                }
                parts.push(block[HEADER..].to_vec());
                next = number::<8>(block, 160);
            }
            parts.reverse();
            let data = parts.concat();
            put(&mut self.superblock, bytes, &(data.len() as u64).to_le_bytes());
            put(&mut self.superblock, whole, &checksum(&data));
        }
    }

    /// Makes the log a chain from the checkpoint on.
    fn seal_log(&mut self) {
        let cluster = self.superblock[48..64].to_vec();
        let checkpoint = number::<8>(&self.superblock, 96 + 224);
        let mut prepares: Vec<Vec<u8>> = std::mem::take(&mut self.prepares).into_values().collect();
        for prepare in &mut prepares {
            prepare.resize(prepare.len().max(HEADER), 0);
        }
        prepares.sort_by_key(|prepare| number::<8>(prepare, 224));
        let mut last = (checkpoint, self.superblock[96..112].to_vec());
        for mut prepare in prepares {
            let op = number::<8>(&prepare, 224);
            if last.0.checked_add(1) == Some(op) {
                put(&mut prepare, 128, &last.1);
            }
            put(&mut prepare, 80, &cluster);
            put(&mut prepare, 114, &[6]);
            let sum = seal(&mut prepare, MESSAGE_BYTES);
            last = (op, sum.to_vec());
            if op == checkpoint {
                put(&mut self.superblock, 96, &prepare[..HEADER]);
            }
            let views = usize::try_from(number::<4>(&self.superblock, 2152)).unwrap().min(11);
            for place in (0..views).map(|view| 4096 + HEADER * view) {
                if number::<8>(&self.superblock, place + 224) == op {
                    put(&mut self.superblock, place, &prepare[..HEADER]);
                }
            }
            self.prepares.insert(u16::try_from(op % SLOTS).unwrap(), prepare);
        }
        self.replies.values_mut().for_each(|reply| {
            seal(reply, MESSAGE_BYTES);
        });
    }

    fn lay(&self, file: &File, flags: usize) -> std::io::Result<()> {
        file.set_len(0)?;
        let last = self.blocks.keys().last().copied().unwrap_or(0);
        file.set_len(GRID_AT + u64::from(last) * BLOCK_BYTES as u64)?;
        for copy in 0..4_u16 {
            let mut superblock = self.superblock.clone();
            put(&mut superblock, 32, &copy.to_le_bytes());
            if flags & AS_IT_IS_SUPERBLOCK == 0 {
                let sum = checksum(&superblock[34..]);
                put(&mut superblock, 0, &sum);
            }
            if copy == 2 && flags & ONE_COPY_TORN != 0 {
                superblock[100] ^= 1;
            }
            file.write_all_at(&superblock, u64::from(copy) * SUPERBLOCK_STRIDE)?;
        }
        for (slot, prepare) in &self.prepares {
            let slot = u64::from(*slot) % SLOTS;
            file.write_all_at(
                &prepare[..HEADER.min(prepare.len())],
                RING_AT + slot * HEADER as u64,
            )?;
            file.write_all_at(prepare, PREPARES_AT + slot * MESSAGE_BYTES as u64)?;
        }
        for (slot, header) in &self.ring {
            file.write_all_at(header, RING_AT + u64::from(*slot) * HEADER as u64)?;
        }
        for (slot, reply) in &self.replies {
            file.write_all_at(reply, REPLIES_AT + u64::from(*slot) * MESSAGE_BYTES as u64)?;
        }
        for (address, block) in &self.blocks {
            file.write_all_at(block, GRID_AT + u64::from(address - 1) * BLOCK_BYTES as u64)?;
        }
        Ok(())
    }
}

/// Where a block names the checksums of other blocks, and their addresses.
fn references(block: &[u8]) -> Vec<(usize, u64)> {
    let mut found = Vec::new();
    let at = |place: usize| usize::try_from(number::<4>(block, place)).unwrap();
    let kind = block.get(240).copied().unwrap_or_default();
    if matches!(kind, 1..=3) {
        found.push((128, number::<8>(block, 160)));
    }
    if kind == 3 {
        let count = at(168).min(BLOCK_BYTES / 128);
        let entries = (0..count).map(|entry| HEADER + 128 * entry);
        found.extend(entries.map(|entry| (entry + 64, number::<8>(block, entry + 96))));
    }
    if kind == 4 {
        let count = at(128).min(BLOCK_BYTES / 32);
        let room = at(132).saturating_mul(32 + 2 * at(136)).min(BLOCK_BYTES);
        let values = (0..count).map(|value| (HEADER + 32 * value, HEADER + room + 8 * value));
        found.extend(values.map(|(sum, address)| (sum, number::<8>(block, address))));
    }
    found
}

/// The one file that all inputs are laid out in.
struct Scratch {
    folder: TempDir,
    file: File,
}

static SCRATCH: LazyLock<Scratch> = LazyLock::new(|| {
    let folder = super::scratch();
    let options = File::options().read(true).write(true).create_new(true).clone();
    let file = options.open(folder.path().join("0_0.tigerbeetle")).unwrap();
    Scratch { folder, file }
});

fn path() -> PathBuf {
    SCRATCH.folder.path().join("0_0.tigerbeetle")
}

fn source() -> (&'static SourceKind, Box<dyn Source>) {
    let kind = kinds::kind_of(BackupType::Tigerbeetle).unwrap();
    let table = format!("data_file = {:?}\nmode = \"stopped\"\n", path());
    (kind, (kind.open)("books", table.parse().unwrap()).unwrap())
}

/// What is not captured is refused for a reason that has a name.
fn refused(error: &anyhow::Error) {
    let kind = diagnose(error).kind;
    assert!(matches!(kind, Kind::Source | Kind::Terminated), "{kind:?}: {error:#}");
}

/// What a capture pushes is bounded by what the file has.
fn bounded(members: &Members) {
    for (name, bytes) in members {
        assert!(bytes.len() <= MESSAGE_BYTES || name == "layout.json", "{name}: {}", bytes.len());
        assert!(name.len() < 64 && name.is_ascii(), "{name}");
    }
}

/// A file is captured, or refused as what it is. What was captured decodes: no backup is made that a
/// restore refuses; an increment of it has no block again, and decodes, too. The same for its log.
pub(crate) fn run(data: &[u8]) {
    let mut input = Bytes(data);
    let flags = input.number::<1>();
    let mut image = Image::read(input);
    if flags & AS_IT_IS_BLOCKS == 0 {
        image.seal_blocks();
    }
    if flags & AS_IT_IS_LOG == 0 {
        image.seal_log();
    }
    image.lay(&SCRATCH.file, flags).unwrap();
    drop(image);
    let (kind, source) = source();
    let impatient = Impatient::new();
    snapshot(kind, source.as_ref(), &impatient.ctx);
    drop(impatient);
    let impatient = Impatient::new();
    log(source.as_ref(), &impatient.ctx);
}

fn capture(
    source: &dyn Source,
    parent: Option<ParentMap>,
    ctx: &Ctx,
) -> anyhow::Result<(Made, Members)> {
    let mut pushed = Pushed::default();
    let request = CaptureRequest {
        scope: Scope::Full,
        mode: None,
        parent,
        chain: &[],
        scratch: &|| bkp::fs::scratch_dir::ScratchDir::within(&std::env::temp_dir()),
        keys: &NoBackups,
    };
    let captured = source.capture(&request, &mut pushed, ctx)?;
    bounded(&pushed.0);
    let mut made = Made::new(BackupType::Tigerbeetle, captured.record, pushed.0.clone());
    made.map = Some(map(captured.map));
    Ok((made, pushed.0))
}

fn snapshot(kind: &SourceKind, source: &dyn Source, ctx: &Ctx) {
    let (made, _) = match capture(source, None, ctx) {
        Ok(captured) => captured,
        Err(error) => return refused(&error),
    };
    let store = Memory::default();
    let full = reader(&store, &made);
    let decoded = super::decode(kind, std::slice::from_ref(&full), &Ctx::fixed(super::now));
    decoded.unwrap_or_else(|error| panic!("what was captured does not decode: {error:#}"));
    let held = (kind.read_map.unwrap())(&mut made.map.as_deref().unwrap()).unwrap();
    let known: BTreeSet<String> = held.entries.keys().cloned().collect();
    let parent = ParentMap { record: made.record.clone(), held };
    let Ok((mut more, members)) = capture(source, Some(parent), ctx) else {
        assert!(ctx.cancel.check().is_err(), "a second look at the same file fails");
        return;
    };
    // An operation that may still be taken back is sent, but is no part of the file.
    let is_known = |name: &String| name.starts_with("grid/") || known.contains(name);
    let again = members.iter().find(|(name, _)| is_known(name));
    assert!(again.is_none(), "{:?} is sent again", again.map(|(name, _)| name));
    more.name.id = "01935a3c-7a01-7abc-8def-0123456789ab".parse().unwrap();
    more.name.scope = Scope::Incremental;
    more.parent = Some((made.name.id, made.name.id));
    let chain = [full, reader(&store, &more)];
    let decoded = super::decode(kind, &chain, &Ctx::fixed(super::now));
    decoded.unwrap_or_else(|error| panic!("its increment does not decode: {error:#}"));
}

fn log(source: &dyn Source, ctx: &Ctx) {
    let mut log = source.log(Some("wal"), None).unwrap();
    let mut pushed = Pushed::default();
    let nowhere = Memory::default();
    let keys = Keyring::default();
    let files = LogFiles::new(&nowhere, &keys, (BackupType::Tigerbeetle, "books"), ctx);
    let record = match log.ship(None, &files, &mut pushed, ctx) {
        Ok(record) => record,
        Err(error) => return refused(&error),
    };
    bounded(&pushed.0);
    let read = SegmentRecord::read(&record).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), record);
    let mut made = Made::new(BackupType::Tigerbeetle, record, pushed.0);
    (made.name.scope, made.name.kind) = (Scope::Incremental, KIND.to_owned());
    let store = Memory::default();
    let reader = reader(&store, &made);
    let kind = kinds::log_kind_of(BackupType::Tigerbeetle).unwrap();
    let decoded = (kind.decode)(&reader, &files, &Ctx::fixed(super::now));
    decoded.unwrap_or_else(|error| panic!("what was shipped does not decode: {error:#}"));
}

/// Files of a real replica: see `tests/fuzz/seeds`.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let real = [
        include_bytes!("../seeds/tigerbeetle-new.zst").as_slice(),
        include_bytes!("../seeds/tigerbeetle-used.zst"),
    ];
    let mut seeds = real.map(super::unpacked).to_vec();
    // The same as one of three replicas.
    let count = [SUPERBLOCK, 0, 0, 0x54, 5, 0, 1, 0, 3];
    seeds.extend(seeds.clone().into_iter().map(|seed| [&seed[..], &count].concat()));
    seeds
}

/// A data file as an input: the log from the last operations before the checkpoint on, and every block
/// that fits.
pub(crate) fn take(path: &std::path::Path) -> std::io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let part = |at: u64, bytes: usize| {
        let mut part = vec![0; bytes];
        let read = file.read_at(&mut part, at).unwrap_or(0);
        part.truncate(read);
        part
    };
    let message = |bytes: Vec<u8>| {
        let size = usize::try_from(number::<4>(&bytes, 96)).unwrap();
        (size >= HEADER && size <= bytes.len()).then(|| bytes[..size].to_vec())
    };
    let keyed = |index: u64, bytes: Option<Vec<u8>>| Some((u16::try_from(index).ok()?, bytes?));
    let superblock = part(0, SUPERBLOCK_BYTES);
    let checkpoint = number::<8>(&superblock, 96 + 224);
    let prepares = (0..SLOTS).filter_map(|slot| {
        let prepare = message(part(PREPARES_AT + slot * MESSAGE_BYTES as u64, MESSAGE_BYTES));
        let wanted = |prepare: &Vec<u8>| {
            number::<1>(prepare, 252) != 0 && number::<8>(prepare, 224) >= checkpoint
        };
        keyed(slot, prepare.filter(wanted))
    });
    let replies = (0..64).filter_map(|slot| {
        keyed(slot, message(part(REPLIES_AT + slot * MESSAGE_BYTES as u64, MESSAGE_BYTES)))
    });
    let blocks = (1..=u64::from(ADDRESS_MAX)).filter_map(|address| {
        let at = GRID_AT + (address - 1) * BLOCK_BYTES as u64;
        let mut block = message(part(at, BLOCK_BYTES))?;
        if number::<1>(&block, 240) == VALUE && block.len() > VALUE_BYTES {
            block.truncate(VALUE_BYTES);
            put(&mut block, 96, &u32::try_from(VALUE_BYTES).unwrap().to_le_bytes());
        }
        keyed(address, Some(block))
    });
    let image = Image {
        prepares: prepares.collect(),
        replies: replies.collect(),
        blocks: blocks.collect(),
        ring: BTreeMap::new(),
        sealed: BTreeMap::new(),
        superblock,
    };
    Ok([vec![0], image.write()].concat())
}
