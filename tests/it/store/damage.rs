//! The bucket is untrusted: whatever happens to stored bytes is noticed before a target is touched.
//!
//! Every byte of a small object and every manipulation of segments is covered by `pipeline/chain.rs`; here
//! the real program meets damaged stores.

use std::fs;
use std::path::Path;

use crate::support::bed::Bed;
use crate::support::tb;

fn store_with_a_chain(folder: &Path) -> (Bed, String, String) {
    let server = tb::Server::solo(folder);
    let record = folder.join("record");
    tb::fill(server.address(), &record, 200, 300_000);
    let bed = Bed::new(server.data_file(), "");
    let base = bed.snapshot("full");
    tb::fill(server.address(), &record, 200, 100_000);
    let last = bed.snapshot("incremental");
    (bed, base, last)
}

/// Both refuse, and nothing appears at the target.
#[track_caller]
fn refused(bed: &Bed, what: &str, code: i32) {
    for words in [
        &["verify", "books", "--level", "decode"][..],
        &["restore", "books", "--to", "target", "--yes"],
    ] {
        let run = bed.run(words);
        assert_eq!(run.code, Some(code), "{what}: {words:?}: {}{}", run.stdout, run.stderr);
        assert!(run.stderr.contains("hint:"), "{}", run.stderr);
    }
    let left: Vec<_> = fs::read_dir(bed.path(""))
        .unwrap()
        .map(|item| item.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("target") || name.contains("tmp"))
        .collect();
    assert!(left.is_empty(), "{what}: {left:?}");
}

#[test]
fn damaged_objects_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (bed, base, last) = store_with_a_chain(folder.path());
    for id in [&base, &last] {
        let path = bed.object(id, "tar.zst.enc");
        let whole = fs::read(&path).unwrap();
        for (what, bytes) in damaged(&whole) {
            fs::write(&path, &bytes).unwrap();
            refused(&bed, &what, 13);
        }
        fs::remove_file(&path).unwrap();
        refused(&bed, "removed", 13);
        fs::write(&path, &whole).unwrap();
    }
    bed.run(&["verify", "books", "--level", "decode"]).done();
}

/// A block map says again what is in the archive: without it the data is as whole as before. Verifying calls it
/// damaged all the same, since the next increment needs it.
#[test]
fn damaged_maps_keep_nothing_from_being_restored() {
    let folder = tempfile::tempdir().unwrap();
    let (bed, base, last) = store_with_a_chain(folder.path());
    for id in [&base, &last] {
        let path = bed.object(id, "map.json.zst.enc");
        let whole = fs::read(&path).unwrap();
        let restored = || {
            let target = bed.path("target");
            let run = bed.run(&["restore", "books", "--to", "target", "--yes"]).done();
            assert!(run.stderr.contains("the restore does not need it"), "{}", run.stderr);
            fs::remove_file(target).unwrap();
        };
        for (index, (_what, bytes)) in damaged(&whole).into_iter().enumerate() {
            fs::write(&path, &bytes).unwrap();
            // A drill of each would take long.
            let levels = if index == 0 { &["digest", "decode", "drill"][..] } else { &["decode"] };
            for level in levels {
                bed.run(&["verify", "books", "--level", level]).failed(13, "map.json.zst.enc");
            }
            restored();
        }
        fs::remove_file(&path).unwrap();
        bed.run(&["verify", "books"]).failed(13, "is missing");
        restored();
        fs::write(&path, &whole).unwrap();
    }
    bed.run(&["verify", "books", "--level", "decode"]).done();
}

/// An object with a byte flipped, cut, or with a byte more, each with what was done to it.
fn damaged(whole: &[u8]) -> Vec<(String, Vec<u8>)> {
    let flipped = [0, 9, 40, 700, whole.len() / 2, whole.len() - 1].map(|at| {
        let mut bytes = whole.to_vec();
        bytes[at] ^= 0x20;
        (format!("byte {at}"), bytes)
    });
    let cut = [0, 11, whole.len() / 2, whole.len() - 1]
        .map(|keep| (format!("cut at {keep}"), whole[..keep].to_vec()));
    let longer = whole.iter().copied().chain([0]).collect();
    flipped.into_iter().chain(cut).chain([("a byte more".to_owned(), longer)]).collect()
}

#[test]
fn damaged_manifests_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (bed, base, last) = store_with_a_chain(folder.path());
    for id in [&base, &last] {
        let path = bed.object(id, "manifest.json");
        let whole = fs::read_to_string(&path).unwrap();
        let edits = [
            whole.replace("\"completed\"", "\"Completed\""),
            whole.replace("\"head_op\": ", "\"head_op\": 1"),
            whole.replace("\"pinned\": false", "\"pinned\": true"),
            whole.replace("\"mac\": \"", "\"mac\": \"0"),
            whole[..whole.len() / 2].to_owned(),
            String::new(),
            "{}".to_owned(),
        ];
        for edit in edits {
            assert_ne!(edit, whole, "the edit changes something");
            fs::write(&path, &edit).unwrap();
            let is_manifest = serde_json::from_str::<serde_json::Value>(&edit)
                .is_ok_and(|manifest| manifest["keys"].is_array());
            if id == &base || is_manifest {
                refused(&bed, "edited manifest", 13);
                continue;
            }
            // Whoever can write to the store can put that there: it hides nothing that is older.
            let run = bed.run(&["verify", "books", "--level", "decode"]);
            assert_eq!(run.code, Some(3), "{run:?}");
            assert!(run.stdout.contains(&base) && run.stderr.contains(&last), "{run:?}");
        }
        fs::write(&path, &whole).unwrap();
    }
    // The base is gone altogether.
    fs::remove_file(bed.object(&base, "manifest.json")).unwrap();
    refused(&bed, "base without a manifest", 13);
}

/// Nothing is built on what a verification has found damaged, until a later one takes that back.
#[test]
fn what_was_found_damaged_is_not_built_on() {
    let folder = tempfile::tempdir().unwrap();
    let (bed, base, last) = store_with_a_chain(folder.path());
    let path = bed.object(&base, "tar.zst.enc");
    let whole = fs::read(&path).unwrap();
    let mut bytes = whole.clone();
    bytes[whole.len() / 2] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let marks = |what: &str| {
        let stored = bed.stored().into_iter();
        stored.filter(|path| path.to_str().unwrap().contains(&format!(".{what}-"))).count()
    };
    // All is there: nobody has read it yet.
    bed.run(&["verify", "books", "--level", "exists"]).done();
    assert_eq!(bed.snapshot("incremental").len(), last.len());
    assert_eq!((marks("damaged"), marks("sound")), (0, 0));
    for _ in 0..2 {
        bed.run(&["verify", "--id", &last, "--level", "digest"]).failed(13, "tar.zst.enc");
        // Of the one that was asked for, and of the one that is to blame.
        assert_eq!((marks("damaged"), marks("sound")), (2, 0), "said once");
    }
    let refused = ["snapshot", "books", "--scope", "incremental"];
    bed.run(&refused).failed(13, &format!("found backup {base} damaged"));
    let restore = ["restore", "--id", &last, "--to", "target", "--yes"];
    bed.run(&restore).failed(13, &format!("a verification found backup {base} damaged"));
    let differential = ["snapshot", "books", "--scope", "differential"];
    bed.run(&differential).failed(13, &format!("found backup {base} damaged"));
    let status = bed.json(&["status"]);
    assert!(status["findings"].to_string().contains("2 backup(s) are damaged"), "{status}");
    let listed = bed.run(&["list", "--long"]);
    assert!(listed.stdout.contains("found damaged 20"), "{listed:?}");
    // Mended; a look that reads nothing does not know it.
    fs::write(&path, &whole).unwrap();
    bed.run(&["verify", "--id", &last, "--level", "exists"]).done();
    bed.run(&refused).failed(13, &base);
    bed.run(&["verify", "--id", &last, "--level", "decode"]).done();
    assert_eq!((marks("damaged"), marks("sound")), (2, 2));
    bed.snapshot("incremental");
    // Verifying everything finds what builds on it, too; and a run that may choose begins anew.
    fs::write(&path, &bytes).unwrap();
    bed.run(&["verify", "--all", "--level", "digest"]).failed_in_text(13, "FAILED");
    assert_eq!((marks("damaged"), marks("sound")), (6, 2));
    let auto = bed.run(&["snapshot", "books"]).done();
    assert!(auto.stderr.contains("taking a full backup"), "{auto:?}");
    bed.run(&["verify", "books", "--level", "digest"]).done();
    bed.snapshot("incremental");
}

#[test]
fn verifying_everything_names_sound_backups() {
    let folder = tempfile::tempdir().unwrap();
    let (bed, base, last) = store_with_a_chain(folder.path());
    let other = bed.snapshot("full");
    let report = bed.json(&["verify", "--all"]);
    assert_eq!((&report["ok"], report["backups"].as_array().unwrap().len()), (&true.into(), 3));
    let path = bed.object(&base, "tar.zst.enc");
    let mut bytes = fs::read(&path).unwrap();
    bytes[1000] ^= 1;
    fs::write(&path, bytes).unwrap();
    let run = bed.run(&["verify", "books", "--all", "--json"]);
    assert_eq!(run.code, Some(13), "{run:?}");
    let report: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    let whole = |id: &str| {
        let backups = report["backups"].as_array().unwrap();
        backups.iter().find(|backup| backup["id"] == id).unwrap()["ok"].as_bool().unwrap()
    };
    assert_eq!([&base, &last, &other].map(|id| whole(id)), [false, false, true]);
    assert_eq!(bed.run(&["verify", "books", "--all", "--id", &other]).code, Some(2));
    bed.run(&["verify", "cooks", "--all"]).failed(10, "no backup");
}

#[test]
fn swapped_objects_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (bed, base, last) = store_with_a_chain(folder.path());
    let (a, b) = (bed.object(&base, "tar.zst.enc"), bed.object(&last, "tar.zst.enc"));
    let spare = bed.path("spare");
    fs::rename(&a, &spare).unwrap();
    fs::rename(&b, &a).unwrap();
    fs::rename(&spare, &b).unwrap();
    refused(&bed, "swapped objects", 13);
}

#[test]
fn a_backup_under_another_name_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (bed, base, _last) = store_with_a_chain(folder.path());
    let from = bed.path("store/tigerbeetle/books");
    let to = bed.path("store/tigerbeetle/looks");
    let status = std::process::Command::new("cp").arg("-r").args([&from, &to]).status().unwrap();
    assert!(status.success());
    bed.run(&["verify", "looks"]).failed(13, &base[..8].to_owned().replace(&base[..8], "looks"));
}
