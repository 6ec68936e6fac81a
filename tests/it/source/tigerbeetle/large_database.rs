//! Memory is bounded, whatever the size of the source: shown on a data file of more than 10 GiB,
//! all of it live, whose value blocks are holes but for their headers.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

use aegis::aegis128l::Aegis128L;

use crate::support::bed::{Bed, Run};
use crate::support::tb;

const BLOCK_BYTES: usize = 512 << 10;
const GRID_AT: u64 = 1_141_374_976;
const HEADER_BYTES: usize = 256;
/// Value blocks that one index block names here.
const VALUES: usize = 2048;
const INDEXES: usize = 10;
const KEY_BYTES: usize = 8;
/// What promise 5 allows, KiB.
const RESIDENT_KIB_MAX: u64 = 256 << 10;

fn checksum(bytes: &[u8]) -> [u8; 16] {
    Aegis128L::<16>::new(&[0; 16], &[0; 16]).encrypt(&[], bytes).1
}

/// Where a block is and what it must be.
struct Place {
    address: u64,
    checksum: [u8; 16],
}

/// Block by block, as `TigerBeetle` lays them out.
struct Grid {
    file: File,
    blocks: u64,
    /// The checksum of a body of zeros.
    zeros: [u8; 16],
}

impl Grid {
    /// Adds a block; its body beyond `body` are zeros, which stay a hole if there are enough.
    fn add(&mut self, kind: u8, metadata: &[(usize, &[u8])], body: Option<&[u8]>) -> Place {
        self.blocks += 1;
        let address = self.blocks;
        let mut header = [0; HEADER_BYTES];
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        let size = body.map_or(BLOCK_BYTES, |body| HEADER_BYTES + body.len());
        put(32, &body.map_or(self.zeros, checksum));
        put(96, &u32::try_from(size).unwrap().to_le_bytes());
        put(224, &address.to_le_bytes());
        put(240, &[kind]);
        for (at, bytes) in metadata {
            put(*at, bytes);
        }
        let sum = checksum(&header[16..]);
        header[..16].copy_from_slice(&sum);
        let offset = GRID_AT + (address - 1) * BLOCK_BYTES as u64;
        self.file.write_all_at(&header, offset).unwrap();
        self.file.write_all_at(body.unwrap_or_default(), offset + HEADER_BYTES as u64).unwrap();
        Place { address, checksum: sum }
    }

    /// Adds an index block and the value blocks that it names.
    fn table(&mut self) -> Place {
        let mut body = vec![0; VALUES * (32 + 2 * KEY_BYTES + 8)];
        for value in 0..VALUES {
            let place = self.add(5, &[], None);
            body[value * 32..][..16].copy_from_slice(&place.checksum);
            let at = VALUES * (32 + 2 * KEY_BYTES) + value * 8;
            body[at..at + 8].copy_from_slice(&place.address.to_le_bytes());
        }
        let count = u32::try_from(VALUES).unwrap().to_le_bytes();
        let key_bytes = u32::try_from(KEY_BYTES).unwrap().to_le_bytes();
        self.add(4, &[(128, &count), (132, &count), (136, &key_bytes)], Some(&body))
    }
}

/// Turns a formatted file into one with a big grid.
fn fill(path: &Path) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let zeros = checksum(&vec![0; BLOCK_BYTES - HEADER_BYTES]);
    let mut grid = Grid { file, blocks: 0, zeros };
    let mut entries = Vec::new();
    for _table in 0..INDEXES {
        let index = grid.table();
        let mut entry = [0; 128];
        entry[64..80].copy_from_slice(&index.checksum);
        entry[96..104].copy_from_slice(&index.address.to_le_bytes());
        entry[126] = 1 << 6;
        entries.extend(entry);
    }
    let count = u32::try_from(INDEXES).unwrap().to_le_bytes();
    let manifest = grid.add(3, &[(168, &count)], Some(&entries));
    // Every block so far is acquired: words of ones, and one more for the rest.
    let (words, rest) = (grid.blocks / 64, grid.blocks % 64);
    let free_set: Vec<u8> = [1 | words << 1 | 1 << 32, (1 << rest) - 1]
        .iter()
        .flat_map(|w: &u64| w.to_le_bytes())
        .collect();
    let acquired = grid.add(1, &[], Some(&free_set));
    let file_bytes = GRID_AT + grid.blocks * BLOCK_BYTES as u64;
    grid.file.set_len(file_bytes).unwrap();
    tb::rewrite_superblock(
        path,
        &[
            (624, &acquired.address.to_le_bytes()),
            (352, &acquired.checksum),
            (680, &(free_set.len() as u64).to_le_bytes()),
            (544, &checksum(&free_set)),
            (648, &manifest.address.to_le_bytes()),
            (448, &manifest.checksum),
            (656, &manifest.address.to_le_bytes()),
            (480, &manifest.checksum),
            (704, &1_u32.to_le_bytes()),
            (672, &file_bytes.to_le_bytes()),
        ],
    );
}

/// Runs bkp and returns the most memory that it ever held, KiB.
fn resident_kib(bed: &Bed, words: &[&str]) -> u64 {
    let program = "import subprocess, resource, sys; code = subprocess.call(sys.argv[1:]); \
        print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(code)";
    let mut command = Command::new("python3");
    command.args(["-c", program, env!("CARGO_BIN_EXE_bkp"), "--quiet"]).args(words);
    command.env("BKP_CONFIG", bed.path("bkp.toml"));
    let run = Run::of(&command.output().unwrap()).done();
    run.stdout.lines().next_back().unwrap().parse().unwrap()
}

#[test]
fn memory_is_bounded_on_more_than_ten_gibibytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("0_0.tigerbeetle");
    tb::format(&path, 0, 1);
    fill(&path);
    assert!(fs::metadata(&path).unwrap().len() > 11 << 30);
    let bed = Bed::new(&path, "");
    for words in [
        &["snapshot", "books"][..],
        &["verify", "books", "--level", "decode"],
        &["snapshot", "books", "--scope", "incremental"],
    ] {
        let kib = resident_kib(&bed, words);
        eprintln!("{words:?}: {kib} KiB");
        assert!(kib < RESIDENT_KIB_MAX, "{words:?} held {kib} KiB");
    }
    let listed = bed.json(&["list", "books", "--long"]);
    let blocks = |backup: usize, key: &str| {
        listed["backups"][backup]["manifest"]["capture"][key].as_u64().unwrap()
    };
    assert_eq!(blocks(0, "blocks"), (INDEXES * (VALUES + 1) + 2) as u64);
    let pushed = [0, 1].map(|backup| blocks(backup, "blocks_pushed"));
    assert_eq!((pushed[0].max(pushed[1]), pushed[0].min(pushed[1])), (blocks(0, "blocks"), 0));
}
