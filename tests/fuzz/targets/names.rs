//! Keys as a listing has them: whoever can write to the bucket can make any.

use bkp::catalog::{self, Filter};
use bkp::ctx::Cancel;
use bkp::domain::names::{BackupName, Mark, is_name, is_of_bkp};
use bkp::domain::record::{self, Record};
use bkp::domain::retention::{self, Backup, Group, Policy};
use bkp::ledger::in_store;
use bkp::ops::records;
use bkp::store::is_key;
use time::OffsetDateTime;
use time::macros::datetime;

use super::bytes::Bytes;
use super::memory::Memory;

const NOW: OffsetDateTime = datetime!(2026-11-22 12:00 UTC);

/// What a key is taken for is what would be printed so, and nothing else.
fn check(key: &str) {
    if let Some((name, extension)) = BackupName::parse(key) {
        assert_eq!(name.key(extension), key);
        assert!(is_name(&name.source) && is_of_bkp(key), "{key}");
        if let Some(mark) = Mark::parse(extension) {
            assert_eq!(name.key(&mark.extension()), key);
        }
    }
    if let Some(record) = Record::parse(key) {
        assert_eq!(record.key(), key);
        let _outcome = record.outcome();
    }
    if is_key(key) {
        assert!(!key.starts_with('/') && !key.split('/').any(|part| part.starts_with('.')));
        assert!(key.is_ascii() && !key.contains([' ', '\\', '\n', '\0']));
    }
}

/// A store that lists these keys and sizes: all its backups are found, each once, and what depends on
/// listings alone says something about them.
pub(crate) fn run(data: &[u8]) {
    let (store, mut input) = (Memory::default(), Bytes(data));
    while !input.0.is_empty() {
        let line = String::from_utf8_lossy(input.line());
        let (size, key) = line.split_once(' ').unwrap_or(("0", &line));
        check(key);
        store.claim(key, size.parse().unwrap_or(u64::MAX), b"");
    }
    let cancel = Cancel::default();
    let found = catalog::find(&store, &Filter::default(), &cancel).unwrap();
    let stored = catalog::stored(&store, &cancel).unwrap();
    assert!(found.iter().map(|found| &found.name).eq(stored.iter().map(|stored| &stored.name)));
    assert!(found.windows(2).all(|pair| pair[0].name < pair[1].name), "each once, in order");
    for (found, stored) in found.iter().zip(&stored) {
        let again = catalog::again(&store, &found.name).unwrap();
        assert_eq!((again.stored_bytes(), &again.marks), (found.stored_bytes, &found.marks));
        assert!(stored.bytes() <= found.stored_bytes);
    }
    keep(&found);

    for job in ["nightly", "books", "cleanup.all"] {
        let records = record::merged(records::recent(&store, job, NOW).unwrap());
        assert!(records.windows(2).all(|pair| pair[0].id < pair[1].id), "each once, in order");
        let past = record::past(&records, NOW);
        assert!(past.failures as usize <= records.len());
        let _holder = in_store::held(&store, job, NOW, time::Duration::ZERO).unwrap();
    }
    let _terms = in_store::stale(&store, NOW, NOW).unwrap();
}

/// The newest of the past stays, whatever else there is.
fn keep(found: &[catalog::FoundBackup]) {
    let backups: Vec<Backup> = found
        .iter()
        .map(|found| Backup { pinned: found.pinned, ..Backup::full(found.name.id) })
        .collect();
    let policy = Policy { last: 1, ..Policy::empty() };
    let members: Vec<usize> = (0..backups.len()).collect();
    let group = Group { policy: &policy, members, frozen: None };
    let whys = retention::decide(&[group], &backups, NOW);
    let gone = retention::removals(&backups, &whys);
    let restorable = retention::restorable(&backups, NOW);
    let newest = restorable.iter().map(|at| backups[*at].id).max();
    // Somebody can give one id to several; one of them stays then.
    let stays = |at: &&usize| Some(backups[**at].id) == newest && !gone.contains(at);
    assert!(newest.is_none() || restorable.iter().any(|at| stays(&at)));
    assert!(gone.iter().all(|at| !backups[*at].pinned));
}

/// What a store of bkp has, in one listing.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let (id, later) =
        ("01935a3c-7a00-7abc-8def-0123456789ab", "01935a3c-7a01-7abc-8def-0123456789ab");
    let object = |scope: &str, id: &str, extension: &str| {
        format!("100 tigerbeetle/books/{scope}/2024/11/23/tigerbeetle-snapshot-{id}.{extension}\n")
    };
    let whole = ["tar.zst.enc", "map.json.zst.enc", "manifest.json"];
    let marks = ["pin-0001.json", "unpin-0002.json", "note-0001.json", "damaged-0001.json"];
    let more = ["sound-0002.json", "deleting.json", "wrapped-0001.json"];
    let backups: String = whole.iter().map(|extension| object("full", id, extension)).collect();
    let child: String = whole.iter().map(|one| object("incremental", later, one)).collect();
    let marked: String =
        marks.iter().chain(&more).map(|extension| object("full", id, extension)).collect();
    let runs = format!(
        "50 runs/nightly/2024/11/{id}-0-12.json\n50 runs/nightly/2024/11/{later}-13-4294967295.json\n"
    );
    let leases = "400 leases/books/00000000000000000001\n400 leases/books/18446744073709551615\n400 leases/cleanup.all/00000000000000000007\n";
    let audit = format!("90 audit/2024/11/23/deleted-{id}-120000.json\n2 doctor/probe\n");
    let odd = "18446744073709551615 duckdb/x/full/2024/11/23/duckdb-export-01935a3c-7a00-7abc-8def-0123456789ab.manifest.json\n18446744073709551615 duckdb/x/full/2024/11/23/duckdb-export-01935a3c-7a00-7abc-8def-0123456789ab.tar.enc\n";
    let all = [&backups, &child, &marked, &runs, leases, &audit, odd].concat();
    [&backups, &marked, &runs, leases, &audit, odd, &all]
        .into_iter()
        .map(|text| text.as_bytes().to_vec())
        .collect()
}
