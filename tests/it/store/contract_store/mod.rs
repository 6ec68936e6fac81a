//! The contract of [`bkp::store`], as one suite that runs over every kind of store and over every
//! decorator of each.
//!
//! A new store is covered as soon as it is in `STORES` and [`place_for`] knows where to put it.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests: a failure is a failed test"
)]

use std::io::Read as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier};

use bkp::ctx::Ctx;
use bkp::store::kinds::STORES;
use bkp::store::layer::retry::Retry;
use bkp::store::local::Local;
use bkp::store::{
    AppendStore, Declared, ObjectLabels, PruneStore, ReadStore, StoreError, StoreLocation, Upload,
};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use time::OffsetDateTime;

use crate::support::fault::{FaultPlan, Faulty};
use crate::support::memory::Memory;
use crate::support::s3;
use crate::support::trace::Trace;

mod clauses;
mod layers;
mod local;

/// An empty store.
struct Fixture {
    name: String,
    store: Box<dyn AppendStore>,
    /// The same store, where it can be had with the right to remove.
    prune: Option<Box<dyn PruneStore>>,
    /// Where its files are, if it has any.
    folder: Option<TempDir>,
}

#[test]
fn every_store_keeps_the_contract() {
    for kind in STORES {
        run(&|| of_table(kind.scheme));
    }
    run(&local_fixture);
    run(&memory_fixture);
}

/// A second service, which checks what the first one does not: signatures, sizes of parts, lengths
/// of keys. Its `If-None-Match` is known not to hold when sixteen come at once; and since it keeps
/// objects in folders, it takes a folder for an object where one is asked for, and loses the
/// metadata of keys that are longer than the name of a file.
#[test]
fn another_s3_service_keeps_the_contract() {
    let make = || {
        let place = s3::strict().bucket();
        let kind = STORES.iter().find(|kind| kind.scheme == "s3").expect("listed");
        let store = (kind.append)(&place, &ctx()).expect("opens");
        Fixture { name: "s3s-fs".into(), store, prune: None, folder: None }
    };
    let excused = [
        "one of sixteen creators wins",
        "what is not there is missing",
        "invalid keys are refused",
    ];
    run_except(&make, &excused);
}

#[test]
fn every_decorator_keeps_the_contract() {
    let makers: [&dyn Fn() -> Fixture; 2] = [&local_fixture, &memory_fixture];
    for make in makers {
        for (name, layer) in LAYERS {
            run(&|| {
                let inner = make();
                let name = format!("{name} over {}", inner.name);
                let (store, prune) = layer(inner.store, inner.prune.expect("both can remove"));
                Fixture { name, store, prune: Some(prune), folder: inner.folder }
            });
        }
    }
    for kind in STORES {
        run(&|| {
            let inner = of_table(kind.scheme);
            let store = Retry::new(inner.store, ctx());
            Fixture { name: format!("Retry over {}", inner.name), store: Box::new(store), ..inner }
        });
    }
}

/// Runs the suite; a panic names the clause and the store.
fn run(make: &dyn Fn() -> Fixture) {
    run_except(make, &[]);
}

fn run_except(make: &dyn Fn() -> Fixture, excused: &[&str]) {
    for (clause, check) in clauses::SUITE.iter().filter(|(clause, _)| !excused.contains(clause)) {
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(make)));
        assert!(caught.is_ok(), "{}: not so: {clause}", make().name);
    }
}

type Layered = (Box<dyn AppendStore>, Box<dyn PruneStore>);
type Layer = fn(Box<dyn AppendStore>, Box<dyn PruneStore>) -> Layered;

const LAYERS: [(&str, Layer); 3] = [
    ("Retry", |store, prune| {
        (Box::new(Retry::new(store, ctx())), Box::new(Retry::new(prune, ctx())))
    }),
    ("Trace", |store, prune| {
        let calls = Arc::default();
        (Box::new(Trace::new(store, Arc::clone(&calls))), Box::new(Trace::new(prune, calls)))
    }),
    ("an empty plan", |store, prune| {
        let plan = FaultPlan::default();
        (Box::new(Faulty::new(store, plan.clone())), Box::new(Faulty::new(prune, plan)))
    }),
];

/// A store of a kind of the table, in a place of its own.
fn of_table(scheme: &str) -> Fixture {
    let kind = STORES.iter().find(|kind| kind.scheme == scheme).expect("listed");
    let (place, folder) = place_for(scheme);
    let store = (kind.append)(&place, &ctx()).expect("opens");
    // Whoever only looks finds the same place.
    assert_eq!((kind.read)(&place, &ctx()).expect("opens").url(), store.url());
    Fixture { name: format!("the table's `{scheme}`"), store, prune: None, folder }
}

fn place_for(scheme: &str) -> (StoreLocation, Option<TempDir>) {
    match scheme {
        "file" => {
            let folder = tempfile::tempdir().expect("folder");
            (StoreLocation::of_url(&format!("file://{}", folder.path().display())), Some(folder))
        }
        "s3" => (s3::usual().bucket(), None),
        other => panic!("say here where a store of the kind `{other}` can be put"),
    }
}

fn local_fixture() -> Fixture {
    let (StoreLocation { url, .. }, folder) = place_for("file");
    let store = Box::new(Local::open(&url).expect("opens"));
    let prune: Box<dyn PruneStore> = Box::new(Local::open(&url).expect("opens"));
    Fixture { name: "Local".into(), store, prune: Some(prune), folder }
}

fn memory_fixture() -> Fixture {
    let store = Memory::default();
    let prune: Box<dyn PruneStore> = Box::new(store.clone());
    Fixture { name: "Memory".into(), store: Box::new(store), prune: Some(prune), folder: None }
}

/// A context without signals and output.
fn ctx() -> Ctx {
    Ctx::fixed(|| OffsetDateTime::UNIX_EPOCH)
}

/// What an honest writer of `bytes` declares.
fn declared(bytes: &[u8]) -> Declared {
    Declared { bytes: bytes.len() as u64, sha256: Sha256::digest(bytes).into() }
}

fn begin(store: &dyn AppendStore, key: &str) -> Box<dyn Upload> {
    store.create(key, &ObjectLabels::default()).unwrap_or_else(|error| panic!("{error:?}"))
}

fn put(store: &dyn AppendStore, key: &str, bytes: &[u8]) -> Result<(), StoreError> {
    let mut upload = store.create(key, &ObjectLabels::default())?;
    for chunk in bytes.chunks(1000) {
        upload.write(chunk)?;
    }
    upload.commit(declared(bytes))
}

fn get<S: ReadStore + ?Sized>(
    store: &S,
    key: &str,
    range: Option<Range<u64>>,
) -> Result<Vec<u8>, StoreError> {
    let mut bytes = Vec::new();
    store.open(key, range)?.read_to_end(&mut bytes).expect("readable");
    Ok(bytes)
}

/// Keys in the order of the listing.
fn keys<S: ReadStore + ?Sized>(store: &S, prefix: &str) -> Vec<String> {
    let listing = store.list(prefix).expect("listed");
    listing.map(|item| item.expect("an item").key).collect()
}

/// Everything below `folder` that is not a folder, hidden files too.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for item in std::fs::read_dir(folder).expect("readable") {
        let item = item.expect("an entry");
        if item.file_type().expect("a type").is_dir() {
            found.extend(files(&item.path()));
        } else {
            found.push(item.path());
        }
    }
    found
}
