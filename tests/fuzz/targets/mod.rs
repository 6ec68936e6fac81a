//! What is fuzzed. A target takes any bytes, hands them to a parser of bkp, and panics if one of its
//! invariants does not hold; a parser that refuses is fine. Each has seeds to begin with.
//!
//! Two programs are made of these files: `bkp-fuzz`, in which libFuzzer drives one target, and the
//! integration tests, which run every target over its seeds and over all that was ever found
//! (`tests/fuzz/found`).

pub(crate) mod archive;
pub(crate) mod bucket;
pub(crate) mod compressed;
pub(crate) mod config;
pub(crate) mod duckdb;
pub(crate) mod keyset;
pub(crate) mod layout;
pub(crate) mod lease;
pub(crate) mod ledger;
pub(crate) mod manifest;
pub(crate) mod names;
pub(crate) mod parquet;
pub(crate) mod postgres;
pub(crate) mod recipients;
pub(crate) mod seal;
pub(crate) mod tigerbeetle;
pub(crate) mod wal;

mod bytes;
mod chain;
mod memory;
mod patches;

use bkp::ctx::Ctx;
use bkp::error::{Fault, Kind};
use bkp::source::{Chain, DecodeTools, ResourceLimits, SourceKind};
use tempfile::TempDir;
use time::OffsetDateTime;
use time::macros::datetime;

/// The time that it is for every target.
fn now() -> OffsetDateTime {
    datetime!(2026-11-22 12:00 UTC)
}

/// Decodes a chain of snapshots, which needs no folder.
fn decode(kind: &SourceKind, chain: &Chain<'_>, ctx: &Ctx) -> anyhow::Result<()> {
    let scratch = || Err(Fault::new(Kind::Failed, "a decode of snapshots writes files"));
    let tools = DecodeTools { scratch: &scratch, share: ResourceLimits::default() };
    (kind.decode)(chain, &tools, ctx)
}

/// A folder in memory, where the system has such a place.
fn scratch() -> TempDir {
    let memory = std::path::Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    folder.unwrap()
}

/// The content of a seed that is kept compressed.
fn unpacked(bytes: &[u8]) -> Vec<u8> {
    zstd::decode_all(bytes).unwrap()
}

/// One target.
#[derive(Debug)]
pub(crate) struct Target {
    /// What `run.sh` calls it.
    pub(crate) name: &'static str,
    /// Runs it over some bytes.
    pub(crate) run: fn(&[u8]),
    /// Valid inputs, or nearly so.
    pub(crate) seeds: fn() -> Vec<Vec<u8>>,
    /// No longer inputs are made, bytes.
    pub(crate) longest: usize,
    /// The most memory that an input may take, whatever its length, and for each of its bytes.
    pub(crate) memory: (usize, usize),
}

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// Every target.
pub(crate) const TARGETS: &[Target] = &[
    Target {
        name: "archive",
        run: archive::run,
        seeds: archive::seeds,
        longest: 16 * KIB,
        memory: (MIB, 16),
    },
    Target {
        name: "bucket",
        run: bucket::run,
        seeds: bucket::seeds,
        longest: 8 * KIB,
        // A page of JSON takes up to a hundred times its length, and several threads read at once.
        memory: (16 * MIB, 400),
    },
    Target {
        name: "compressed",
        run: compressed::run,
        seeds: compressed::seeds,
        longest: 16 * KIB,
        // Buffers of frames of 4 MiB, for each thread.
        memory: (96 * MIB, 16),
    },
    Target {
        name: "config",
        run: config::run,
        seeds: config::seeds,
        longest: 8 * KIB,
        memory: (4 * MIB, 400),
    },
    Target {
        name: "duckdb",
        run: duckdb::run,
        seeds: duckdb::seeds,
        longest: 48 * KIB,
        memory: (32 * MIB, 16),
    },
    Target {
        name: "keyset",
        run: keyset::run,
        seeds: keyset::seeds,
        longest: 8 * KIB,
        memory: (4 * MIB, 400),
    },
    Target {
        name: "layout",
        run: layout::run,
        seeds: layout::seeds,
        longest: 8 * KIB,
        // A map has pages of 64 KiB, and a file with blocks far apart needs one for each of them: an
        // entry takes 40 bytes at least. Only who has the key can make one.
        memory: (8 * MIB, 8 * KIB),
    },
    Target {
        name: "lease",
        run: lease::run,
        seeds: lease::seeds,
        longest: 6 * KIB,
        memory: (MIB, 100),
    },
    Target {
        name: "ledger",
        run: ledger::run,
        seeds: ledger::seeds,
        longest: KIB,
        memory: (64 * KIB, 100),
    },
    Target {
        name: "manifest",
        run: manifest::run,
        seeds: manifest::seeds,
        longest: 8 * KIB,
        memory: (256 * KIB, 400),
    },
    Target {
        name: "names",
        run: names::run,
        seeds: names::seeds,
        longest: 4 * KIB,
        memory: (2 * MIB, 400),
    },
    Target {
        name: "parquet",
        run: parquet::run,
        seeds: parquet::seeds,
        longest: 8 * KIB,
        // A file is read in pieces of 1 MiB.
        memory: (4 * MIB, 16),
    },
    Target {
        name: "postgres",
        run: postgres::run,
        seeds: postgres::seeds,
        longest: 4 * KIB,
        // A buffer for messages, and twice what a client says and hears.
        memory: (4 * MIB, 100),
    },
    Target {
        name: "recipients",
        run: recipients::run,
        seeds: recipients::seeds,
        longest: 4 * KIB,
        memory: (256 * KIB, 400),
    },
    Target {
        name: "seal",
        run: seal::run,
        seeds: seal::seeds,
        longest: 8 * KIB,
        // Segments of 1 MiB, of which there are a few, each in several copies.
        memory: (64 * MIB, 400),
    },
    Target {
        name: "tigerbeetle",
        run: tigerbeetle::run,
        seeds: tigerbeetle::seeds,
        longest: 64 * KIB,
        // Runs of blocks of 4 MiB on their way between two threads.
        memory: (64 * MIB, 32),
    },
    Target {
        name: "wal",
        run: wal::run,
        seeds: wal::seeds,
        longest: 32 * KIB,
        // A line of a history has five bytes at least and takes 16, with more room than is needed.
        memory: (256 * KIB, 64),
    },
];
