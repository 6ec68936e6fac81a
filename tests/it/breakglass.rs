//! A backup opens without bkp: the reference decryptor, `zstd -d` and `tar -x`, then the members put
//! in their places as `bkp-format(5)` says. What comes out equals bkp's own restore byte for byte.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::bed::Bed;
use crate::tb;

/// Unpacks one backup into `folder` with nothing of ours but the decryptor.
fn unpack(bed: &Bed, id: &str, folder: &Path) {
    let unseal = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/unseal.py");
    let script = "set -e; python3 \"$1\" --key \"$2\" \"$3\" > sealed.zst; zstd -qdf sealed.zst -o plain.tar; tar -x -C \"$4\" -f plain.tar";
    let status = Command::new("sh")
        .args(["-c", script, "sh"])
        .args([&unseal, &bed.path("key"), &bed.object(id, "tar.zst.enc")])
        .arg(folder)
        .current_dir(bed.path(""))
        .status()
        .unwrap();
    assert!(status.success());
}

/// The man page's recipe.
fn assemble(parts: &Path, target: &Path) {
    let layout: Value =
        serde_json::from_slice(&fs::read(parts.join("layout.json")).unwrap()).unwrap();
    let file = File::create(target).unwrap();
    file.set_len(layout["file_bytes"].as_u64().unwrap()).unwrap();
    let cluster: u128 = layout["cluster"].as_str().unwrap().parse().unwrap();
    let numbers = |key: &str| -> Vec<u64> {
        layout[key].as_array().unwrap().iter().map(|pair| pair[0].as_u64().unwrap()).collect()
    };
    for slot in 0..1024 {
        let reserved = reserved_header(cluster, slot);
        file.write_all_at(&reserved, 98_304 + slot * 256).unwrap();
        file.write_all_at(&reserved, 360_448 + slot * 1_048_576).unwrap();
    }
    for op in numbers("wal") {
        let message = fs::read(parts.join(format!("wal/{op}"))).unwrap();
        file.write_all_at(&message[..256], 98_304 + op % 1024 * 256).unwrap();
        file.write_all_at(&message, 360_448 + op % 1024 * 1_048_576).unwrap();
    }
    for slot in numbers("replies") {
        let reply = fs::read(parts.join(format!("replies/{slot}"))).unwrap();
        file.write_all_at(&reply, 1_074_102_272 + slot * 1_048_576).unwrap();
    }
    for address in numbers("grid") {
        let block = fs::read(parts.join(format!("grid/{address}"))).unwrap();
        file.write_all_at(&block, 1_141_374_976 + (address - 1) * 524_288).unwrap();
    }
    let mut superblock = fs::read(parts.join("superblock")).unwrap();
    for copy in 0..4_u16 {
        superblock[32..34].copy_from_slice(&copy.to_le_bytes());
        file.write_all_at(&superblock, u64::from(copy) * 24_576).unwrap();
    }
}

/// As the man page describes it, with the checksum of TigerBeetle computed by the crate.
fn reserved_header(cluster: u128, slot: u64) -> [u8; 256] {
    let checksum = |bytes: &[u8]| {
        aegis::aegis128l::Aegis128L::<16>::new(&[0; 16], &[0; 16]).encrypt(&[], bytes).1
    };
    let mut header = [0; 256];
    header[32..48].copy_from_slice(&checksum(&[]));
    header[80..96].copy_from_slice(&cluster.to_le_bytes());
    header[96..100].copy_from_slice(&256_u32.to_le_bytes());
    header[114] = 6;
    header[224..232].copy_from_slice(&slot.to_le_bytes());
    let sum = checksum(&header[16..]);
    header[..16].copy_from_slice(&sum);
    header
}

fn same(a: &Path, b: &Path) -> bool {
    let cmp = Command::new("cmp").args([a, b]).stdout(Stdio::inherit()).status();
    cmp.unwrap().success()
}

#[test]
fn a_chain_assembled_by_hand_equals_the_restore() {
    let folder = tempfile::tempdir().unwrap();
    let server = tb::Server::solo(folder.path());
    let record = folder.path().join("record");
    tb::fill(server.address(), &record, 200, 300_000);
    let bed = Bed::new(server.data_file(), server.address());
    let base = bed.snapshot("full");
    tb::fill(server.address(), &record, 200, 100_000);
    let last = bed.snapshot("incremental");
    let parts = bed.path("parts");
    fs::create_dir(&parts).unwrap();
    for id in [&base, &last] {
        unpack(&bed, id, &parts);
        let by_hand: PathBuf = bed.path("by-hand.tigerbeetle");
        assemble(&parts, &by_hand);
        assert!(same(&by_hand, &bed.restore(id)), "{id}");
    }
}

#[test]
fn the_manifest_is_checked_without_bkp() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("0_0.tigerbeetle");
    tb::format(&file, 0, 1);
    let bed = Bed::new(&file, "");
    let id = bed.snapshot("full");
    let manifest = bed.object(&id, "manifest.json");
    let unseal = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/unseal.py");
    let check = || {
        let mut command = Command::new("python3");
        command.arg(&unseal).arg("--key").arg(bed.path("key")).arg("--manifest").arg(&manifest);
        command.output().unwrap().status.success()
    };
    assert!(check());
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace("completed", "Completed")).unwrap();
    assert!(!check());
}
