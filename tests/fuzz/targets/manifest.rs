//! The sidecar manifest, which is read before anything is authentic, and what is made of it.

use std::sync::LazyLock;

use bkp::domain::event::{Event, Numbers};
use bkp::domain::id::BackupId;
use bkp::domain::manifest::{Manifest, SCHEMA, Sizes};
use bkp::domain::names::{BackupName, BackupType, Scope};
use bkp::domain::segment::{self, Base, Link, Log};
use bkp::domain::timestamp;
use bkp::keys::{DataKey, manifest_mac};
use bkp::source::kinds;
use bkp::source::tigerbeetle::SegmentRecord;
use serde_json::{Value, json};

use super::bytes::positions;

/// Nobody knows it, so nobody can make a manifest that it proves.
static KEY: LazyLock<DataKey> = LazyLock::new(|| DataKey::generate().unwrap());

/// Where a manifest that says this would have to be.
fn place(value: &Value) -> Option<String> {
    let text = |name: &str| value.get(name)?.as_str();
    let name = BackupName {
        id: text("id")?.parse().ok()?,
        backup_type: text("type")?.parse().ok()?,
        source: text("source")?.to_owned(),
        scope: text("scope")?.parse().ok()?,
        kind: text("kind")?.to_owned(),
    };
    Some(name.manifest_key())
}

/// Whether two values are the same but for the last digits of fractions, which JSON rounds.
fn alike(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| alike(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            let same = |(name, value): (&String, &Value)| {
                other.get(name).is_some_and(|other| alike(value, other))
            };
            one.len() == other.len() && one.iter().all(same)
        }
        (Value::Number(one), Value::Number(other)) if one.is_f64() && other.is_f64() => {
            let (one, other) = (one.as_f64().unwrap_or(0.0), other.as_f64().unwrap_or(0.0));
            (one - other).abs() <= one.abs() * 1e-12
        }
        (one, other) => one == other,
    }
}

/// What is accepted stands where it belongs, names only its own objects, reads the same after it was
/// printed, and becomes an event that reads the same, too. Nothing that came from outside is authentic,
/// nor is anything that was authentic once a byte of it has changed.
pub(crate) fn run(data: &[u8]) {
    let value: Value = serde_json::from_slice(data).unwrap_or_default();
    let key = place(&value).unwrap_or_else(|| "x.manifest.json".into());
    assert!(manifest_mac::authenticate(data, &KEY, &key).is_err(), "nobody made it");
    let Ok(manifest) = Manifest::parse(data, &key) else { return };
    assert_eq!(manifest.name().manifest_key(), key);
    assert!(manifest.keys.len() <= 32);
    for object in &manifest.objects {
        let owner = BackupName::parse(&object.key).map(|(owner, _)| owner);
        assert_eq!(owner.as_ref(), Some(&manifest.name()), "{}", object.key);
    }
    let printed = serde_json::to_value(&manifest).unwrap();
    let again = Manifest::parse(&serde_json::to_vec(&printed).unwrap(), &key).unwrap();
    assert!(alike(&printed, &serde_json::to_value(&again).unwrap()), "{printed}");

    let _totals = Sizes::of(&manifest.objects);
    let event = Event::completed(&manifest, &[7; 32]);
    assert_eq!(Event::unpack(&Numbers::from(&event)), Some(event));
    log(&manifest);

    let bytes = manifest_mac::encode(manifest, &KEY).unwrap();
    assert!(manifest_mac::authenticate(&bytes, &KEY, &key).is_ok());
    for at in positions(data, bytes.len()) {
        let mut altered = bytes.clone();
        altered[at] ^= 1 << (at % 8);
        assert!(manifest_mac::authenticate(&altered, &KEY, &key).is_err(), "changed at {at}");
        altered.remove(at);
        assert!(manifest_mac::authenticate(&altered, &KEY, &key).is_err(), "cut at {at}");
    }
}

/// A segment of a log: what it says of itself reads the same after it was printed, and a log that has it
/// twice, and begins with it, has a window or none.
fn log(manifest: &Manifest) {
    let kind = kinds::log_kind_of(BackupType::Tigerbeetle).unwrap();
    let base = (kind.read_base)(manifest.id, &manifest.capture);
    let Ok(record) = SegmentRecord::read(&manifest.capture) else { return };
    let printed = serde_json::to_value(&record).unwrap();
    assert_eq!(SegmentRecord::read(&printed).as_ref(), Ok(&record), "{printed}");
    let segment = (kind.read_segment)(&manifest.capture).unwrap();
    assert_eq!((kind.read_segment)(&printed).as_ref(), Ok(&segment), "{printed}");
    let link = |id: BackupId, parent: Option<BackupId>| Link {
        id,
        parent,
        sha256: segment.parent_sha256.clone().unwrap_or_default(),
        segment: segment.clone(),
    };
    let later: BackupId = "019d0000-7a00-7abc-8def-0123456789ab".parse().unwrap();
    let links = [link(manifest.id, manifest.parent), link(later, Some(manifest.id))];
    let bases: Vec<Base> = base.into_iter().collect();
    let logs = Log::all(&links);
    for log in &logs {
        assert!(log.links.len() <= links.len());
        for run in log.runs() {
            let window = segment::window(run, &bases);
            assert!(window.is_none_or(|window| window.from <= window.until), "{run:?}");
        }
    }
    let kept = segment::keep(&logs, &bases, 0);
    assert!(kept.spare.len() <= links.len());
}

/// A manifest with everything in it. Made of text, since fields come with time and old manifests stay.
fn sample(scope: Scope, kind: &str, capture: &Value) -> Manifest {
    let id: BackupId = "01935a3c-7a01-7abc-8def-0123456789ab".parse().unwrap();
    let parent = "01935a3c-7a00-7abc-8def-0123456789ab";
    let full = scope == Scope::Full;
    let (backup_type, source) = (BackupType::Tigerbeetle, "books".to_owned());
    let name = BackupName { id, backup_type, source, scope, kind: kind.into() };
    let object = |role: &str, extension: &str, stages: &[&str]| {
        json!({
            "role": role, "key": name.key(extension), "bytes": 100, "sha256": "00".repeat(32),
            "plaintext": {"bytes": 250, "sha256": "11".repeat(32)}, "stages": stages,
        })
    };
    let manifest = json!({
        "schema": SCHEMA, "id": id, "type": backup_type, "source": name.source, "scope": scope,
        "kind": kind, "parent": (!full).then_some(parent),
        "base": if full { id.to_string() } else { parent.to_owned() },
        "job": "books-nightly", "tenant": "acme", "identity": {"cluster": "0", "replica_id": "7"},
        "trigger": "scheduled", "user": "bkp",
        "host": "ledger-1", "tool": "bkp 0.1.0",
        "started": "2026-11-21T02:00:00Z", "ended": "2026-11-21T02:01:01Z", "status": "completed",
        "capture": capture,
        "objects": [
            object("data", "tar.zst.enc", &["tar", "zstd", "seal"]),
            object("map", "map.json.zst.enc", &["zstd", "seal"]),
        ],
        "sizes": {"plaintext_bytes": 500, "stored_bytes": 200, "ratio": 2.5},
        "keys": [{
            "kind": "passphrase", "id": "passphrase", "wrapped": "AAAA",
            "kdf": "pbkdf2-hmac-sha256", "salt": "AQEBAQEBAQEBAQEBAQEBAQ==", "rounds": 600_000,
        }],
        "retention": {"until": "2027-11-21T02:00:00Z", "pinned": true, "policy": "keep_last = 1"},
        "ledger": {"transfer": "1", "lease": "2"},
        "copies": ["file:///backup"],
        "timings": {"seal": 0.25},
        "mac": "0".repeat(64),
    });
    serde_json::from_value(manifest).unwrap()
}

/// Manifests of a snapshot and of segments in both modes.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let snapshot = json!({
        "mode": "online", "consistency": "transaction-consistent", "cluster": "0",
        "position": {"checkpoint_op": 959, "head_op": 1000, "head_timestamp": 5},
    });
    let segment = |mode: &str, more: &Value| {
        let mut position = json!({
            "first_timestamp": 6, "last_timestamp": 9, "last_time": timestamp::spelled(9),
        });
        position.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({
            "mode": mode, "consistency": "transaction-consistent", "cluster": "0",
            "parent_sha256": "22".repeat(32), "gap": "lost", "position": position,
            "records": {"ops": 3},
        })
    };
    let ops = json!({
        "first_op": 1001, "last_op": 1003, "before_checksum": "0a".repeat(16),
        "last_checksum": "0b".repeat(16), "expiries": [[3, 4]],
    });
    let marks = json!({
        "accounts_mark": 1, "transfers_mark": 2, "timeouts": true, "expiries_mark": 3,
    });
    let (wal, query) = (segment("wal", &ops), segment("query", &marks));
    for capture in [&wal, &query] {
        assert!(SegmentRecord::read(capture).is_ok(), "{capture}");
    }
    let made = [
        sample(Scope::Full, "snapshot", &snapshot),
        sample(Scope::Incremental, segment::KIND, &wal),
        sample(Scope::Incremental, segment::KIND, &query),
    ];
    // Of somebody else: to the target no seed is authentic.
    let theirs = DataKey::generate().unwrap();
    let pretty =
        made.iter().map(|manifest| manifest_mac::encode(manifest.clone(), &theirs).unwrap());
    let short = made.iter().map(|manifest| serde_json::to_vec(manifest).unwrap());
    let text = |manifest: &Manifest| serde_json::to_string(manifest).unwrap();
    // Sizes that no store has, and positions at the end of all numbers.
    let large = [text(&made[0]).replace(":100,", ":18446744073709551615,")];
    let late = made.iter().map(|manifest| {
        text(manifest)
            .replace(":1003", ":9223372036854775807")
            .replace(":9,", ":9223372036854775807,")
    });
    pretty.chain(short).chain(large.into_iter().chain(late).map(String::into_bytes)).collect()
}
