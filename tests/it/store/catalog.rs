//! Listings of stores, however large.

use std::collections::BTreeMap;
use std::sync::Arc;

use bkp::catalog::{self, Filter};
use bkp::ctx::Cancel;
use bkp::domain::id::BackupId;
use bkp::domain::names::{BackupName, BackupType, Scope};
use bkp::store::{AppendStore as _, Declared, ObjectLabels, ReadStore};
use sha2::{Digest as _, Sha256};
use time::{Duration, OffsetDateTime};

use crate::support::memory::Memory;
use crate::support::planted::now;
use crate::support::trace::{Calls, Trace};

const OBJECTS: [&str; 3] = ["tar.zst.enc", "manifest.json", "pin-0001.json"];

fn put(store: &Memory, key: &str) {
    let upload = store.create(key, &ObjectLabels::default()).unwrap();
    upload.commit(Declared { bytes: 0, sha256: Sha256::digest(b"").into() }).unwrap();
}

/// Plants backups of a source, one every `step` days of the two years before today.
fn fill(store: &Memory, backup_type: BackupType, source: &str, step: f64) {
    let begin: OffsetDateTime = now() - Duration::days(730);
    for (number, scope) in
        (0..).zip([Scope::Full, Scope::Incremental, Scope::Incremental].iter().cycle())
    {
        let at = begin + Duration::seconds_f64(f64::from(number) * step * 86400.0);
        if at > now() {
            return;
        }
        let (id, source, scope) = (BackupId::new(at), source.to_owned(), *scope);
        let name = BackupName { id, backup_type, source, scope, kind: "snapshot".to_owned() };
        // Not every backup has a pin.
        let objects = OBJECTS.iter().take(if number % 5 == 0 { 3 } else { 2 });
        objects.for_each(|extension| put(store, &name.key(extension)));
    }
}

/// What the whole listing says, one object after the other.
fn expected(store: &Memory, filter: &Filter) -> BTreeMap<BackupName, usize> {
    let mut found = BTreeMap::new();
    for object in store.list("").unwrap() {
        let object = object.unwrap();
        let Some((name, _)) = BackupName::parse(&object.key) else { continue };
        let wanted = filter.source.as_ref().is_none_or(|source| *source == name.source)
            && filter.backup_type.is_none_or(|only| only == name.backup_type)
            && filter.id.as_ref().is_none_or(|id| name.id.to_string().starts_with(id));
        if wanted {
            *found.entry(name).or_default() += 1;
        }
    }
    found
}

#[test]
fn a_store_is_listed_whole_however_large_it_is() {
    let store = Memory::default();
    fill(&store, BackupType::Duckdb, "few", 30.0);
    fill(&store, BackupType::Tigerbeetle, "many", 0.25);
    fill(&store, BackupType::Tigerbeetle, "more", 0.5);
    fill(&store, BackupType::Tigerbeetle, "one", 800.0);
    // What is no backup of any month.
    for key in
        ["tigerbeetle/x", "tigerbeetle/many/full/x", "tigerbeetle/many/full/2024/12/x", "y/z"]
    {
        put(&store, key);
    }
    let mut ids = expected(&store, &Filter::default()).into_keys().map(|name| name.id.to_string());
    let source = |name: &str| Filter { source: Some(name.to_owned()), ..Filter::default() };
    let filters = [
        Filter::default(),
        Filter { backup_type: Some(BackupType::Duckdb), ..Filter::default() },
        Filter { id: ids.next(), ..Filter::default() },
        Filter { id: ids.nth(1000).map(|id| id[..6].to_owned()), ..Filter::default() },
        Filter { backup_type: Some(BackupType::Tigerbeetle), ..source("many") },
        source("many"),
        source("one"),
        source("none"),
    ];
    for filter in filters {
        let entries = catalog::contents(&store, &filter, &Cancel::default()).unwrap();
        let found: Vec<_> = entries
            .into_iter()
            .map(|entry| {
                let objects = entry.objects.len() + entry.marks.len();
                (entry.name, objects + usize::from(entry.manifest.is_some()))
            })
            .collect();
        let expected: Vec<_> = expected(&store, &filter).into_iter().collect();
        assert!(found == expected, "{filter:?}: {} of {}", found.len(), expected.len());
    }
}

#[test]
fn a_small_store_costs_one_listing_per_type() {
    let store = Memory::default();
    fill(&store, BackupType::Tigerbeetle, "few", 3.0);
    let calls = Calls::default();
    let traced = Trace::new(Box::new(store), Arc::clone(&calls));
    let entries = catalog::contents(&traced, &Filter::default(), &Cancel::default()).unwrap();
    assert!(entries.len() > 200);
    assert_eq!(calls.lock().unwrap().len(), BackupType::ALL.len());
}
