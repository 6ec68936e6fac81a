//! Beds with a second store, `off`, which gets copies.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use bkp::ctx::Cancel;
use bkp::domain::id::BackupId;
use bkp::domain::recipient::Recipient;
use bkp::keys::{Effort, kinds};
use serde_json::Value;

use super::bed::Bed;
use super::duck::{self, export, snapshot, sql};

/// The engine that writes the database.
pub(crate) const V: &str = "1.5.6";

/// Gives a bed a second store, with more lines in its table.
pub(crate) fn with_second(bed: &Bed, more: &str) {
    fs::create_dir(bed.path("off")).unwrap();
    let table = format!("[store.off]\nurl = \"file://{}\"\n{more}\n", bed.path("off").display());
    with_table(bed, &table);
}

pub(crate) fn with_table(bed: &Bed, table: &str) {
    let mut config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    if !config.contains("store = \"main\"") {
        for kind in ["kind = \"duckdb\"", "kind = \"tigerbeetle\""] {
            config = config.replace(kind, &format!("{kind}\nstore = \"main\""));
        }
    }
    fs::write(bed.path("bkp.toml"), config.replace("[keys]", &format!("{table}\n[keys]"))).unwrap();
}

/// A bed with a database of which there are a full snapshot, an increment, and two exports.
pub(crate) fn database(more: &str) -> (tempfile::TempDir, PathBuf, Bed) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("analytics.duckdb");
    let rows = "CREATE TABLE t AS SELECT range AS id, 'row ' || range AS text FROM range(20000)";
    sql(V, &file, &[rows, "CHECKPOINT", "SELECT 1"]);
    let bed = duck::bed(&file);
    with_second(&bed, more);
    snapshot(&bed, &["--scope", "full"]);
    export(&bed, &[]);
    sql(V, &file, &["UPDATE t SET text = 'other' WHERE id < 10", "CHECKPOINT", "SELECT 1"]);
    snapshot(&bed, &["--scope", "incremental"]);
    export(&bed, &["--scope", "incremental"]);
    (folder, file, bed)
}

/// What a store in a folder has of backups and their logs, by key.
pub(crate) fn stored(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for item in fs::read_dir(next).unwrap() {
            let path = item.unwrap().path();
            let key = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
            let is_upkeep =
                ["leases", "audit", "runs", "records"].iter().any(|own| key.starts_with(own));
            if path.is_dir() {
                folders.push(path);
            } else if !is_upkeep && !key.contains("/.") && !key.starts_with('.') {
                found.insert(key, fs::read(path).unwrap());
            }
        }
    }
    found
}

pub(crate) fn listed(bed: &Bed, store: &str) -> Vec<String> {
    let listing = bed.json(&["list", "--store", store]);
    let ids = listing["backups"].as_array().unwrap().iter();
    ids.map(|backup| backup["id"].as_str().unwrap().to_owned()).collect()
}

/// Removes the copies.
pub(crate) fn empty(bed: &Bed) {
    fs::remove_dir_all(bed.path("off")).unwrap();
    fs::create_dir(bed.path("off")).unwrap();
}

/// Every recipient that a header, a manifest or an envelope in a store names, with the id that its key is wrapped for.
pub(crate) fn recipients(store: &Path) -> Vec<(BackupId, Recipient)> {
    let mut found = Vec::new();
    for (key, bytes) in stored(store) {
        let (json, field) = if Path::new(&key).extension() == Some("enc".as_ref()) {
            let length = u32::from_le_bytes(bytes[8..12].try_into().unwrap()) as usize;
            (&bytes[12..12 + length], "recipients")
        } else if key.ends_with(".manifest.json") {
            (&bytes[..], "keys")
        } else if key.contains(".wrapped-") {
            (&bytes[..], "recipients")
        } else {
            continue;
        };
        let file: Value = serde_json::from_slice(json).unwrap();
        let id = ["id", "backup"].iter().find_map(|name| file[name].as_str());
        let id = id.or_else(|| file["object"].as_str()?.split('/').next()).unwrap();
        let id: BackupId = id.parse().unwrap();
        let named: Vec<Recipient> = serde_json::from_value(file[field].clone()).unwrap();
        found.extend(named.into_iter().map(|recipient| (id, recipient)));
    }
    found
}

/// Of these key files the new one opens everything in a store, and the old one nothing.
#[track_caller]
pub(crate) fn assert_opens_alone(store: &Path, new: &Path, old: &Path) {
    let open =
        |path: &Path| kinds::open(&format!("file:{}", path.display()), &Cancel::default()).unwrap();
    let (old, new, found) = (open(old), open(new), recipients(store));
    assert!(!found.is_empty());
    for (id, recipient) in found {
        assert!(old.open(&recipient, id, Effort::Named).is_err(), "{id} opens with the old key");
        let key = new.open(&recipient, id, Effort::Named);
        assert!(key.is_ok(), "{id} does not open with the new key");
    }
}
