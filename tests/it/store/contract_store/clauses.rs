//! The clauses of the contract, each a function over a maker of empty stores.

use std::collections::BTreeSet;

use super::*;

type Suite = &'static [(&'static str, fn(&dyn Fn() -> Fixture))];

/// Every clause of the contract.
pub(super) const SUITE: Suite = &[
    ("what is committed can be read", what_is_committed_can_be_read),
    ("an abandoned upload leaves nothing", an_abandoned_upload_leaves_nothing),
    ("nothing is overwritten", nothing_is_overwritten),
    ("the first of two open uploads wins", the_first_of_two_open_uploads_wins),
    ("one of sixteen creators wins", one_of_sixteen_creators_wins),
    ("a wrong declaration is refused", a_wrong_declaration_is_refused),
    ("a listing is sorted and whole", a_listing_is_sorted_and_whole),
    ("ranges end with the object", ranges_end_with_the_object),
    ("what is not there is missing", what_is_not_there_is_missing),
    ("invalid keys are refused", invalid_keys_are_refused),
    ("removing is final and idempotent", removing_is_final_and_idempotent),
];

fn what_is_committed_can_be_read(make: &dyn Fn() -> Fixture) {
    let Fixture { store, .. } = &make();
    let large: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    for (key, bytes) in [("a/b/c.bin", &large[..]), ("empty", b""), ("a/b-one", b"1")] {
        put(store.as_ref(), key, bytes).unwrap();
        assert_eq!(store.head(key).unwrap().bytes, bytes.len() as u64);
        assert!(get(store.as_ref(), key, None).unwrap() == bytes, "{key}");
    }
}

fn an_abandoned_upload_leaves_nothing(make: &dyn Fn() -> Fixture) {
    let Fixture { store, folder, .. } = &make();
    let mut upload = begin(store.as_ref(), "a/b/object");
    upload.write(&vec![7; 100_000]).unwrap();
    assert!(keys(store.as_ref(), "").is_empty(), "visible before the commit");
    assert!(matches!(store.head("a/b/object"), Err(StoreError::Missing { .. })));
    drop(upload);
    assert!(keys(store.as_ref(), "").is_empty());
    assert!(matches!(store.head("a/b/object"), Err(StoreError::Missing { .. })));
    if let Some(folder) = folder {
        assert!(files(folder.path()).is_empty());
    }
    put(store.as_ref(), "a/b/object", b"later").unwrap();
}

fn nothing_is_overwritten(make: &dyn Fn() -> Fixture) {
    let Fixture { store, .. } = &make();
    put(store.as_ref(), "key", b"first").unwrap();
    let again = put(store.as_ref(), "key", b"second");
    assert!(matches!(again, Err(StoreError::Exists { ref key, .. }) if key == "key"), "{again:?}");
    assert_eq!(get(store.as_ref(), "key", None).unwrap(), b"first");
}

fn the_first_of_two_open_uploads_wins(make: &dyn Fn() -> Fixture) {
    let Fixture { store, folder, .. } = &make();
    let (mut slow, mut quick) = (begin(store.as_ref(), "x/key"), begin(store.as_ref(), "x/key"));
    slow.write(b"slow").unwrap();
    quick.write(b"quick").unwrap();
    quick.commit(declared(b"quick")).unwrap();
    let late = slow.commit(declared(b"slow"));
    assert!(matches!(late, Err(StoreError::Exists { .. })), "{late:?}");
    assert_eq!(get(store.as_ref(), "x/key", None).unwrap(), b"quick");
    if let Some(folder) = folder {
        assert_eq!(files(folder.path()).len(), 1);
    }
}

fn one_of_sixteen_creators_wins(make: &dyn Fn() -> Fixture) {
    let Fixture { store, .. } = &make();
    let store = store.as_ref();
    let barrier = &Barrier::new(16);
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let creators = (0..16_u8).map(|number| {
            let bytes = vec![number; 50_000 + usize::from(number)];
            scope.spawn(move || {
                barrier.wait();
                put(store, "new/folder/key", &bytes).map(|()| bytes)
            })
        });
        let creators: Vec<_> = creators.collect();
        creators.into_iter().map(|creator| creator.join().expect("no panic")).collect()
    });
    let (won, lost): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    assert!(lost.iter().all(|lost| matches!(lost, Err(StoreError::Exists { .. }))), "{lost:?}");
    let [Ok(bytes)] = won.as_slice() else { panic!("{} winners", won.len()) };
    assert!(get(store, "new/folder/key", None).unwrap() == *bytes, "not the winner's bytes");
}

fn a_wrong_declaration_is_refused(make: &dyn Fn() -> Fixture) {
    let Fixture { store, folder, .. } = &make();
    let honest = declared(b"content");
    for wrong in [
        Declared { bytes: 6, ..honest },
        Declared { bytes: 8, ..honest },
        Declared { sha256: declared(b"Content").sha256, ..honest },
        declared(b""),
    ] {
        let mut upload = begin(store.as_ref(), "key");
        upload.write(b"content").unwrap();
        let refused = upload.commit(wrong);
        let named = matches!(&refused, Err(StoreError::Mismatch { key, .. }) if key == "key");
        assert!(named, "{wrong:?}: {refused:?}");
        assert!(matches!(store.head("key"), Err(StoreError::Missing { .. })));
        assert!(keys(store.as_ref(), "").is_empty());
    }
    if let Some(folder) = folder {
        assert!(files(folder.path()).is_empty());
    }
    put(store.as_ref(), "key", b"content").unwrap();
}

fn a_listing_is_sorted_and_whole(make: &dyn Fn() -> Fixture) {
    let Fixture { store, folder, .. } = &make();
    assert!(keys(store.as_ref(), "").is_empty());
    assert!(keys(store.as_ref(), "a/b").is_empty(), "a folder that is not there");
    let mut all: Vec<String> =
        ["a/x", "a-b/x", "a.b", "a0", "a/b/c", "a/b.c/d", "a/bc", "A/z", "ab/x", "a/b-c"]
            .map(String::from)
            .into();
    // More than one page of any service; a folder has no pages, and each object costs it two syncs.
    let many = if folder.is_some() { 50 } else { 1050 };
    all.extend((0..many).map(|number| format!("many/{number}")));
    // A service answers many at a time faster than one after the other.
    std::thread::scope(|scope| {
        for some in all.chunks(all.len().div_ceil(8)) {
            scope.spawn(move || {
                for key in some {
                    put(store.as_ref(), key, key.as_bytes()).unwrap();
                }
            });
        }
    });
    all.sort();
    assert_eq!(keys(store.as_ref(), ""), all);
    assert_eq!(keys(store.as_ref(), "a"), ["a/b-c", "a/b.c/d", "a/b/c", "a/bc", "a/x"]);
    assert_eq!(keys(store.as_ref(), "a/b"), ["a/b/c"]);
    assert_eq!(keys(store.as_ref(), "many").len(), many);
    assert!(keys(store.as_ref(), "a/x").is_empty(), "an object is not a folder");
    let folders = |prefix| BTreeSet::from_iter(store.folders(prefix).unwrap());
    let expected = |folders: &[&str]| folders.iter().map(ToString::to_string).collect();
    assert_eq!(folders(""), expected(&["A", "a", "a-b", "ab", "many"]));
    assert_eq!(folders("a"), expected(&["a/b", "a/b.c"]));
    for none in ["a/b", "a/x", "nowhere"] {
        assert!(folders(none).is_empty(), "{none}");
    }
    for item in store.list("").unwrap() {
        let item = item.unwrap();
        assert_eq!(item.bytes, item.key.len() as u64);
    }
}

fn ranges_end_with_the_object(make: &dyn Fn() -> Fixture) {
    let Fixture { store, .. } = &make();
    put(store.as_ref(), "ten", b"0123456789").unwrap();
    put(store.as_ref(), "empty", b"").unwrap();
    let part = |key, range| get(store.as_ref(), key, Some(range)).unwrap();
    assert_eq!(part("ten", 0..10), b"0123456789");
    assert_eq!(part("ten", 3..5), b"34");
    assert_eq!(part("ten", 9..1000), b"9");
    assert_eq!(part("ten", 0..u64::MAX), b"0123456789");
    for empty in [0..0, 5..5, 10..20, 11..u64::MAX, u64::MAX..u64::MAX, Range { start: 5, end: 3 }]
    {
        assert_eq!(part("ten", empty.clone()), b"", "{empty:?}");
    }
    assert_eq!(part("empty", 0..1), b"");
    assert_eq!(get(store.as_ref(), "empty", None).unwrap(), b"");
}

fn what_is_not_there_is_missing(make: &dyn Fn() -> Fixture) {
    let Fixture { store, .. } = &make();
    put(store.as_ref(), "folder/object", b"bytes").unwrap();
    for absent in ["other", "folder", "folder/other", "folder/object/below", "other/folder"] {
        let named =
            |error: &StoreError| matches!(error, StoreError::Missing { key, .. } if key == absent);
        assert!(store.head(absent).is_err_and(|error| named(&error)), "{absent}");
        assert!(store.open(absent, None).err().is_some_and(|error| named(&error)), "{absent}");
    }
}

fn invalid_keys_are_refused(make: &dyn Fn() -> Fixture) {
    let Fixture { store, prune, folder, .. } = &make();
    let long = "k/".repeat(999) + "kk";
    assert_eq!(long.len(), 2000);
    let invalid = [
        "/etc/passwd",
        "..",
        "../outside",
        "a/../b",
        "a/..",
        ".",
        "./a",
        ".hidden",
        "a/.hidden/b",
        "a//b",
        "a/",
        "/",
        "a\0b",
        "a\nb",
        "a b",
        "a\\b",
        "größe",
        "a/\u{202e}b",
        "%2e%2e",
        &long,
    ];
    let refused = |error: Option<StoreError>| matches!(error, Some(StoreError::InvalidKey { .. }));
    for key in invalid {
        assert!(refused(store.head(key).err()), "head {key:?}");
        assert!(refused(store.open(key, None).err()), "open {key:?}");
        assert!(refused(store.create(key, &ObjectLabels::default()).err()), "create {key:?}");
        assert!(refused(store.list(key).err()), "list {key:?}");
        if let Some(prune) = prune {
            assert!(refused(prune.delete(key).err()), "delete {key:?}");
        }
    }
    assert!(refused(store.head("").err()));
    assert!(refused(store.create("", &ObjectLabels::default()).err()));
    if let Some(folder) = folder {
        assert!(files(folder.path()).is_empty());
    }
    // The longest key that is one; no component is longer than a file system's name.
    let longest = "k/".repeat(511) + "kk";
    put(store.as_ref(), &longest, b"deep").unwrap();
    assert_eq!(keys(store.as_ref(), ""), [longest.as_str()]);
    assert_eq!(get(store.as_ref(), &longest, None).unwrap(), b"deep");
}

fn removing_is_final_and_idempotent(make: &dyn Fn() -> Fixture) {
    let Fixture { store, prune, .. } = &make();
    let Some(prune) = prune else { return };
    put(store.as_ref(), "a/key", b"bytes").unwrap();
    put(store.as_ref(), "a/kept", b"bytes").unwrap();
    for _twice in 0..2 {
        prune.delete("a/key").unwrap();
        assert!(matches!(store.head("a/key"), Err(StoreError::Missing { .. })));
        assert_eq!(keys(store.as_ref(), ""), ["a/kept"]);
    }
    for absent in ["never", "a", "never/was", "a/kept/below"] {
        prune.delete(absent).unwrap();
    }
    assert_eq!(keys(store.as_ref(), ""), ["a/kept"]);
    put(store.as_ref(), "a/key", b"new").unwrap();
    assert_eq!(get(store.as_ref(), "a/key", None).unwrap(), b"new");
}
