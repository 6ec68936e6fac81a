//! A backup opens without bkp: the reference decryptor, `zstd -d` and `tar -x`, then the members put
//! in their places as `bkp-format(5)` says. What comes out equals bkp's own restore byte for byte.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::bed::Bed;
use crate::support::by_hand::{assemble, unpack};
use crate::support::tb;

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
        let by_hand = bed.path(&format!("by-hand-{id}.tigerbeetle"));
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
