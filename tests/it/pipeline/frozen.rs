//! Stores as earlier versions wrote them: this one lists, verifies and restores everything in them, with
//! every recipient, and so do common tools. `tests/frozen/README.md` says what they hold.
//!
//! A test that fails here found a backup of somebody that this version does not bring back. The stores and
//! what is expected of them are never changed for it.

use std::fs;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use bkp::domain::manifest::hex;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::support::bed::{Bed, Run};
use crate::support::by_hand::{assemble, unpack};
use crate::support::duck::{V, sql};
use crate::support::tb;

/// Of which there is a store.
const FORMATS: [&str; 1] = ["v1"];
/// Each of them opens every backup.
const RECIPIENTS: [&str; 2] = ["file:key", "passphrase:file:passphrase"];
/// An object that is larger than a file of the repository may be is kept in parts of this name and a number.
const PART: &str = ".part-";

fn folder(format: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/frozen").join(format)
}

fn expected(format: &str) -> Value {
    let bytes = fs::read(folder(format).join("expected.json")).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

/// A copy of a store with its keys, beside a configuration that knows nothing of its sources; and what is
/// expected of it.
fn thawed(format: &str) -> (Bed, Value) {
    let frozen = folder(format);
    let bed = Bed::of_source(&format!("[tools]\ntigerbeetle = {:?}\n", tb::program()));
    fs::remove_dir(bed.path("store")).unwrap();
    copy(&frozen.join("store"), &bed.path("store"));
    for secret in ["key", "passphrase"] {
        fs::write(bed.path(secret), fs::read(frozen.join(secret)).unwrap()).unwrap();
        bed.chmod(secret, 0o600);
    }
    (bed, expected(format))
}

/// Copies a folder and puts together what is in parts.
fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for path in items(from) {
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            copy(&path, &to.join(name));
            continue;
        }
        // The parts come in the order of their numbers.
        let whole = to.join(name.split(PART).next().unwrap());
        let mut whole = File::options().append(true).create(true).open(whole).unwrap();
        io::copy(&mut File::open(&path).unwrap(), &mut whole).unwrap();
    }
}

/// What is in a folder, in order.
fn items(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|item| item.unwrap().path()).collect();
    found.sort();
    found
}

/// Every manifest in a store, and where it is.
fn manifests(folder: &Path) -> Vec<(PathBuf, Value)> {
    let mut found = Vec::new();
    for path in items(folder) {
        if path.is_dir() {
            found.extend(manifests(&path));
        } else if path.to_str().unwrap().ends_with(".manifest.json") {
            let manifest = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            found.push((path, manifest));
        }
    }
    found
}

fn rows(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn words(value: &Value) -> Vec<&str> {
    rows(value).iter().map(|word| word.as_str().unwrap()).collect()
}

/// Of each row of a listing the fields that are expected; later versions may say more.
#[track_caller]
fn assert_lists(found: &Value, expected: &Value) {
    let (found, expected) = (rows(found), rows(expected));
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        let fields = expected.as_object().unwrap();
        let known: Map<String, Value> =
            fields.keys().map(|name| (name.clone(), found[name].clone())).collect();
        assert_eq!(&known, fields, "{found:#}");
    }
}

fn sha256(file: &Path) -> String {
    let (mut file, mut digest) = (File::open(file).unwrap(), Sha256::new());
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut buffer).unwrap();
        if count == 0 {
            return hex(&digest.finalize());
        }
        digest.update(&buffer[..count]);
    }
}

/// The result of a restore is what the source was. A digest is that of a file on which a server of the time
/// was started and had these totals; later servers may not open files of its release.
#[track_caller]
fn assert_came_back(file: &Path, expected: &Value) {
    let (digest, totals, answers) = (&expected["sha256"], &expected["totals"], &expected["rows"]);
    if let Some(digest) = digest.as_str() {
        assert_eq!(sha256(file), digest, "{expected}");
    } else if totals.is_object() {
        let server = tb::Server::start_existing(file);
        assert_eq!(&tb::totals(server.address()), totals, "{expected}");
    } else {
        assert!(!rows(answers).is_empty(), "{expected}");
        for answer in rows(answers) {
            let query = answer[0].as_str().unwrap();
            let found = sql(V, file, &["SET TimeZone = 'UTC'", query]);
            assert_eq!(found, answer[1], "{} {query}", expected["restore"]);
        }
    }
}

#[test]
fn everything_in_a_frozen_store_is_listed() {
    for format in FORMATS {
        let (bed, expected) = thawed(format);
        assert_lists(&bed.json(&["list"])["backups"], &expected["backups"]);
        let runs = bed.json(&["list", "--runs", "--limit", "1000"]);
        assert_lists(&runs["runs"], &expected["runs"]);
        let long = bed.json(&["list", "--long"]);
        for backup in rows(&long["backups"]) {
            let said = backup.get("said").map_or(&[][..], rows);
            let said: Vec<Value> = said
                .iter()
                .map(|mark| {
                    // Every one has a proof that a key of the backup made.
                    assert_eq!(mark["proven"], true, "{mark}");
                    serde_json::json!([mark["word"], mark["note"]])
                })
                .collect();
            let id = backup["id"].as_str().unwrap();
            let marks = expected["marks"].get(id).cloned().unwrap_or_else(|| Value::Array(vec![]));
            assert_eq!(Value::Array(said), marks, "{id}");
        }
    }
}

#[test]
fn everything_in_a_frozen_store_verifies() {
    for format in FORMATS {
        let (bed, expected) = thawed(format);
        for recipient in RECIPIENTS {
            bed.run(&["verify", "--all", "--level", "decode", "--key", recipient]).done();
            for source in words(&expected["logs"]) {
                let verified = bed.json(&["verify", source, "--logs", "--key", recipient]);
                assert_eq!((&verified["ok"], rows(&verified["gaps"])), (&true.into(), &[][..]));
            }
        }
        // The damage that is on record here was mended; what is done to this copy is found.
        let (path, manifest) = manifests(&bed.path("store")).pop().unwrap();
        let object = bed.path("store").join(manifest["objects"][0]["key"].as_str().unwrap());
        let mut bytes = fs::read(&object).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&object, bytes).unwrap();
        let id = manifest["id"].as_str().unwrap();
        let run = bed.run(&["verify", "--id", id, "--level", "digest"]);
        assert_eq!(run.code, Some(13), "{}: {}{}", path.display(), run.stdout, run.stderr);
    }
}

#[test]
fn everything_in_a_frozen_store_comes_back_with_each_recipient() {
    for format in FORMATS {
        let (bed, expected) = thawed(format);
        for recipient in RECIPIENTS {
            for (number, expected) in rows(&expected["restores"]).iter().enumerate() {
                let target = bed.path(&format!("restored-{number}"));
                let options = ["--yes", "--key", recipient, "--to", target.to_str().unwrap()];
                let words = words(&expected["restore"]);
                bed.run(&[&["restore"], &words[..], &options].concat()).done();
                assert_came_back(&target, expected);
                fs::remove_file(&target).unwrap();
            }
        }
    }
}

/// Every backup that is there is among those that the test above brings back, or is a segment of a log.
#[test]
fn no_frozen_backup_is_forgotten() {
    for format in FORMATS {
        let expected = expected(format);
        let come_back = rows(&expected["restores"]).iter();
        let come_back: Vec<&str> = come_back.flat_map(|row| words(&row["restore"])).collect();
        for backup in rows(&expected["backups"]) {
            let (id, source) = (backup["id"].as_str().unwrap(), backup["source"].as_str().unwrap());
            let by_log = backup["kind"] == "log" && words(&expected["logs"]).contains(&source);
            assert!(by_log || come_back.contains(&id), "{backup}");
        }
    }
}

/// The way of bkp-format(5): every manifest is authentic, every object is what its manifest says, and the
/// chain of a data file comes back.
#[test]
fn a_frozen_store_opens_without_bkp() {
    const SCRIPT: &str = "python3 \"$1\" --key \"$2\" \"$3\" | case \"$3\" in *.zst.enc) zstd -dc;; *.gz.enc) gzip -dc;; *) cat;; esac | sha256sum";
    let unseal = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/unseal.py");
    for format in FORMATS {
        let (bed, expected) = thawed(format);
        for (path, manifest) in manifests(&bed.path("store")) {
            let mut command = Command::new("python3");
            command.arg(&unseal).arg("--passphrase").arg(bed.path("passphrase"));
            Run::of(&command.arg("--manifest").arg(&path).output().unwrap()).done();
            for object in rows(&manifest["objects"]) {
                let stored = bed.path("store").join(object["key"].as_str().unwrap());
                assert_eq!(sha256(&stored), object["sha256"].as_str().unwrap(), "{object}");
                let plaintext = object["plaintext"]["sha256"].as_str().unwrap();
                if !words(&object["stages"]).contains(&"seal") {
                    assert_eq!(sha256(&stored), plaintext, "{object}");
                    continue;
                }
                let mut command = Command::new("sh");
                command.args(["-c", SCRIPT, "sh"]).arg(&unseal).arg(bed.path("key")).arg(&stored);
                let run = Run::of(&command.output().unwrap()).done();
                assert_eq!(run.stdout.split(' ').next(), Some(plaintext), "{object}{}", run.stderr);
            }
        }
        let parts = bed.path("parts");
        fs::create_dir(&parts).unwrap();
        let chain = rows(&expected["backups"]).iter();
        let chain = chain.filter(|row| row["source"] == "books" && row["kind"] == "snapshot");
        for backup in chain {
            let id = backup["id"].as_str().unwrap();
            unpack(&bed, id, &parts);
            let by_hand = bed.path("by-hand");
            assemble(&parts, &by_hand);
            let mut come_back = rows(&expected["restores"]).iter();
            let restored = come_back.find(|row| words(&row["restore"]).contains(&id)).unwrap();
            assert_eq!(sha256(&by_hand), restored["sha256"].as_str().unwrap(), "{id}");
            fs::remove_file(&by_hand).unwrap();
        }
    }
}

/// Every file below a folder, by its path in hex, with its SHA-256.
fn digests(folder: &Path, prefix: &[u8], found: &mut Map<String, Value>) {
    use std::os::unix::ffi::OsStrExt as _;
    for path in items(folder) {
        let name = path.file_name().unwrap().as_bytes();
        let below = if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() };
        if path.is_dir() {
            digests(&path, &below, found);
        } else {
            found.insert(hex(&below), sha256(&path).into());
        }
    }
}

#[test]
fn replicas_verify_and_come_back() {
    let frozen = folder("replica-v1");
    let bed = Bed::of_source("");
    fs::remove_dir(bed.path("store")).unwrap();
    copy(&frozen.join("store"), &bed.path("store"));
    fs::write(bed.path("key"), fs::read(frozen.join("key")).unwrap()).unwrap();
    bed.chmod("key", 0o600);
    let states = expected("replica-v1");
    assert_eq!(bed.json(&["list"])["backups"].as_array().unwrap().len(), rows(&states).len());
    for state in rows(&states) {
        let id = state["id"].as_str().unwrap();
        bed.run(&["verify", "--id", id, "--level", "drill"]).done();
        let target = bed.path(id);
        bed.run(&["restore", "--id", id, "--yes", "--to", target.to_str().unwrap()]).done();
        let mut found = Map::new();
        digests(&target, b"", &mut found);
        assert_eq!(&Value::Object(found), &state["files"], "{id}");
    }
}
