//! A DuckDB file and its log: another program's, and written while they are read.
//!
//! An input is a length and parts ([`super::patches`]): the file, the header of the log, and the bodies
//! of the log's entries. Checksums are made right before it is laid out; its first byte says what of that
//! is left out.

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use bkp::ctx::Ctx;
use bkp::domain::names::{BackupType, Scope};
use bkp::error::{Kind, diagnose};
use bkp::source::kinds::kind_of;
use bkp::source::{CaptureRequest, ParentMap, Source, SourceKind};
use tempfile::TempDir;

use super::bytes::Bytes;
use super::chain::{Impatient, Made, Members, NoBackups, Pushed, map, reader};
use super::memory::Memory;
use super::patches::{self, Parts};

const FILE: u8 = 0;
const LOG_HEADER: u8 = 1;
const LOG_ENTRY: u8 = 2;

const HEADER: usize = 4096;
const BLOCKS_AT: usize = 3 * HEADER;
const UNIT: usize = 256 << 10;
/// The longest file that is made, bytes.
const FILE_MAX: usize = BLOCKS_AT + 4 * UNIT;
const ENTRY_MAX: usize = 128 << 10;

/// Bits of the first byte.
const AS_IT_IS_FILE: usize = 1;
const AS_IT_IS_LOG: usize = 2;
const NO_LOG: usize = 4;

/// DuckDB's checksum, as `checksum.cpp` has it.
fn checksum(bytes: &[u8]) -> u64 {
    const M: u64 = 0xc6a4_a793_5bd1_e995;
    let (words, rest) = bytes.as_chunks::<8>();
    let sum = words.iter().fold(5381, |sum, word| {
        sum ^ u64::from_le_bytes(*word).wrapping_mul(0xbf58_476d_1ce4_e5b9)
    });
    if rest.is_empty() {
        return sum;
    }
    let tail = rest.iter().rev().fold(0, |tail, byte| tail << 8 | u64::from(*byte));
    let hash = 0xe17a_1465 ^ (rest.len() as u64).wrapping_mul(M) ^ tail;
    let hash = hash.wrapping_mul(M);
    let hash = (hash ^ hash >> 47).wrapping_mul(M);
    sum ^ hash ^ hash >> 47
}

fn number(bytes: &[u8], at: usize) -> u64 {
    Bytes(bytes.get(at..).unwrap_or_default()).number::<8>() as u64
}

/// Makes the checksum at the beginning of a header or block right; a hole has none.
fn seal(block: &mut [u8]) {
    if block.len() > 8 && block.iter().any(|byte| *byte != 0) {
        let sum = checksum(&block[8..]);
        block[..8].copy_from_slice(&sum.to_le_bytes());
    }
}

fn seal_file(file: &mut [u8]) {
    let (headers, blocks) = file.split_at_mut(BLOCKS_AT.min(file.len()));
    headers.chunks_mut(HEADER).for_each(seal);
    let newest = [HEADER, 2 * HEADER].into_iter().max_by_key(|at| number(headers, at + 8));
    let block = number(headers, newest.unwrap() + 8 + 8 * 4);
    let block = usize::try_from(block).unwrap_or(0);
    let known = block.is_power_of_two() && (16 << 10..=UNIT).contains(&block);
    blocks.chunks_mut(if known { block } else { UNIT }).for_each(seal);
}

/// The file and the log of an input.
fn lay(mut input: Bytes<'_>, flags: usize) -> (Vec<u8>, Option<Vec<u8>>) {
    let length = input.number::<3>().min(FILE_MAX);
    let mut parts = Parts::read(input, |zone| match zone {
        FILE => FILE_MAX,
        LOG_HEADER => 256,
        _ => ENTRY_MAX,
    });
    let mut file = parts.one(FILE, 0);
    file.resize(length, 0);
    if flags & AS_IT_IS_FILE == 0 {
        seal_file(&mut file);
    }
    let mut log = parts.one(LOG_HEADER, 0);
    for entry in parts.zone(LOG_ENTRY).into_values() {
        if flags & AS_IT_IS_LOG == 0 {
            log.extend_from_slice(&(entry.len() as u64).to_le_bytes());
            log.extend_from_slice(&checksum(&entry).to_le_bytes());
        }
        log.extend_from_slice(&entry);
    }
    (file, (flags & NO_LOG == 0).then_some(log))
}

static SCRATCH: LazyLock<TempDir> = LazyLock::new(super::scratch);

fn path(suffix: &str) -> PathBuf {
    SCRATCH.path().join(format!("analytics.duckdb{suffix}"))
}

fn source() -> (&'static SourceKind, Box<dyn Source>) {
    let kind = kind_of(BackupType::Duckdb).unwrap();
    let table = format!("path = {:?}\nmode = \"stopped\"\nattempts = 1\n", path(""));
    (kind, (kind.open)("analytics", table.parse().unwrap()).unwrap())
}

fn capture(source: &dyn Source, parent: Option<ParentMap>, ctx: &Ctx) -> anyhow::Result<Made> {
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
    let mut made = Made::new(BackupType::Duckdb, captured.record, pushed.0);
    made.map = Some(map(captured.map));
    Ok(made)
}

/// What was pushed, put together, is file and log as they are, in whole blocks and whole commits.
fn compare(members: &Members, file: &[u8], log: &[u8]) {
    let mut log_bytes = 0;
    for (name, bytes) in members {
        let (whole, at) = match name.split_once('/') {
            Some(("units", unit)) => (file, BLOCKS_AT + unit.parse::<usize>().unwrap() * UNIT),
            Some(("wal", piece)) => {
                log_bytes += bytes.len();
                (log, piece.parse::<usize>().unwrap() << 20)
            }
            None if name == "headers" => (file, 0),
            _ => continue,
        };
        assert_eq!(whole.get(at..at + bytes.len()), Some(&bytes[..]), "{name}");
    }
    assert!(log_bytes <= log.len());
}

/// A database is captured byte for byte, or refused as what it is. What was captured decodes: no backup
/// is made that a restore refuses; an increment of it has nothing again, and decodes, too.
pub(crate) fn run(data: &[u8]) {
    let mut input = Bytes(data);
    let flags = input.number::<1>();
    let (file, log) = lay(input, flags);
    fs::write(path(""), &file).unwrap();
    match &log {
        Some(log) => fs::write(path(".wal"), log).unwrap(),
        None => drop(fs::remove_file(path(".wal"))),
    }
    let (kind, source) = source();
    let impatient = Impatient::new();
    let ctx = &impatient.ctx;
    let made = match capture(source.as_ref(), None, ctx) {
        Ok(made) => made,
        Err(error) => {
            let kind = diagnose(&error).kind;
            assert!(matches!(kind, Kind::Source | Kind::Terminated), "{kind:?}: {error:#}");
            return;
        }
    };
    compare(&made.members, &file, log.as_deref().unwrap_or_default());
    let store = Memory::default();
    let full = reader(&store, &made);
    let decoded = super::decode(kind, std::slice::from_ref(&full), &Ctx::fixed(super::now));
    decoded.unwrap_or_else(|error| panic!("what was captured does not decode: {error:#}"));
    let held = (kind.read_map.unwrap())(&mut made.map.as_deref().unwrap()).unwrap();
    let parent = ParentMap { record: made.record.clone(), held };
    let Ok(mut more) = capture(source.as_ref(), Some(parent), ctx) else {
        assert!(ctx.cancel.check().is_err(), "a second look at the same file fails");
        return;
    };
    let again = more.members.iter().find(|(name, _)| name.contains('/'));
    assert!(again.is_none(), "{:?} is sent again", again.map(|(name, _)| name));
    more.name.id = "01935a3c-7a01-7abc-8def-0123456789ab".parse().unwrap();
    more.name.scope = Scope::Incremental;
    more.parent = Some((made.name.id, made.name.id));
    let chain = [full, reader(&store, &more)];
    let decoded = super::decode(kind, &chain, &Ctx::fixed(super::now));
    decoded.unwrap_or_else(|error| panic!("its increment does not decode: {error:#}"));
}

/// Databases of two releases, small ones: see `tests/fuzz/seeds`.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let real = [
        include_bytes!("../seeds/duckdb-1.5.zst").as_slice(),
        include_bytes!("../seeds/duckdb-2.0.zst"),
    ];
    let mut seeds = real.map(super::unpacked).to_vec();
    // The flag of an encrypted file, in which nothing else is looked at.
    let mut encrypted = seeds[0].clone();
    encrypted.extend_from_slice(&[FILE, 0, 0, 20, 0, 0, 1, 0, 1]);
    seeds.push(encrypted);
    seeds
}

/// A database as an input: its file, and the log beside it.
pub(crate) fn take(path: &std::path::Path) -> std::io::Result<Vec<u8>> {
    let file = fs::read(path)?;
    let log = fs::read(path.with_extension("duckdb.wal")).unwrap_or_default();
    let mut out = vec![if log.is_empty() { u8::try_from(NO_LOG).unwrap() } else { 0 }];
    out.extend_from_slice(&u32::try_from(file.len()).unwrap().to_le_bytes()[..3]);
    patches::write(&mut out, FILE, 0, &file);
    // A header ends where the length and the checksum of the first entry fit.
    let entry = |at: usize| {
        let length = usize::try_from(number(&log, at)).ok()?;
        let body = log.get(at + 16..(at + 16).checked_add(length)?)?;
        (length > 0 && checksum(body) == number(&log, at + 8)).then_some(body)
    };
    let mut at = (0..log.len()).find(|at| entry(*at).is_some()).unwrap_or(log.len());
    patches::write(&mut out, LOG_HEADER, 0, &log[..at]);
    for index in 0.. {
        let Some(body) = entry(at) else { break };
        patches::write(&mut out, LOG_ENTRY, index, body);
        at += 16 + body.len();
    }
    Ok(out)
}
