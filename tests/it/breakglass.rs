//! A backup opens without bkp: the reference decryptor, `zstd -d` and `tar -x`, then the members put
//! in their places as `bkp-format(5)` says. What comes out equals bkp's own restore byte for byte.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::bed::Bed;
use crate::tb;

/// Unpacks one backup into `folder` with nothing of ours but the decryptor.
pub(crate) fn unpack(bed: &Bed, id: &str, folder: &Path) {
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

/// The man page's recipe, as the example program follows it.
pub(crate) fn assemble(parts: &Path, target: &Path) {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/assemble.py");
    let status = Command::new("python3").arg(program).args([parts, target]).status();
    assert!(status.unwrap().success());
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
