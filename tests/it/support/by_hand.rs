//! Restores without bkp: the reference decryptor, common tools, and the example that assembles a data file.

use std::path::Path;
use std::process::Command;

use super::bed::Bed;

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
