use proptest::prelude::*;
use time::OffsetDateTime;
use time::macros::datetime;

use super::*;
use crate::domain::manifest::{
    Identity, ObjectRecord, Plaintext, Retention, SCHEMA, Sizes, Trigger,
};
use crate::domain::names::BackupName;

const ID: &str = "01935a3c-7a00-7abc-8def-0123456789ab";

/// SHA-256 of nothing.
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn manifest(stages: &[&str], until: Option<OffsetDateTime>) -> Manifest {
    let id: BackupId = ID.parse().expect("valid id");
    let name = BackupName {
        id,
        backup_type: BackupType::Tigerbeetle,
        source: "books".into(),
        scope: Scope::Full,
        kind: "snapshot".into(),
    };
    let objects = vec![ObjectRecord {
        role: "data".into(),
        key: name.key("tar"),
        bytes: 1_000_000,
        sha256: "00".repeat(32),
        plaintext: Plaintext { bytes: 9, sha256: "11".repeat(32) },
        stages: stages.iter().map(|stage| (*stage).to_owned()).collect(),
        sse: None,
    }];
    Manifest {
        schema: SCHEMA.into(),
        id,
        backup_type: BackupType::Tigerbeetle,
        source: "books".into(),
        scope: Scope::Full,
        kind: "snapshot".into(),
        parent: None,
        base: id,
        identity: Identity::new(),
        tenant: None,
        job: None,
        trigger: Trigger::Manual,
        user: "bkp".into(),
        host: "ledger-1".into(),
        tool: "bkp 0.1.0".into(),
        started: datetime!(2024-11-23 20:24:20 UTC),
        ended: datetime!(2024-11-23 20:26:25.9 UTC),
        status: "completed".into(),
        capture: serde_json::Value::Null,
        sizes: Sizes::of(&objects),
        objects,
        keys: vec![],
        retention: Retention { until, ..Retention::default() },
        ledger: None,
        copies: Vec::new(),
        resealed: None,
        signer: None,
        signature: None,
        timings: serde_json::Map::new(),
        mac: String::new(),
    }
}

fn sha256() -> [u8; 32] {
    crate::domain::manifest::unhex(EMPTY.as_bytes()).expect("hex").try_into().expect("32 bytes")
}

/// Written by hand from the table in the module's documentation: type, scope, compression,
/// encryption, status, two bytes of days, nine of digest.
#[test]
fn golden_vectors() {
    let until = Some(datetime!(2025-11-23 20:24:20 UTC));
    let zstd = Event::completed(&manifest(&["tar", "zstd", "seal"], until), &sha256());
    assert_eq!(zstd.pack(), 0x0101_0302_0201_6de3_b0c4_4298_fc1c_149a);
    assert_eq!(zstd.transfer_id(), 0x0193_5a3c_7a00_7abc_8def_0123_4567_89ab);
    assert_eq!((zstd.stored_bytes, zstd.started, zstd.seconds), (1_000_000, 1_732_393_460, 125));

    let gzip = Event::completed(&manifest(&["tar", "gzip", "seal"], None), &sha256());
    assert_eq!(gzip.pack(), 0x0101_0202_0200_00e3_b0c4_4298_fc1c_149a);
    let plain = Event::completed(&manifest(&["tar"], None), &sha256());
    assert_eq!(plain.pack(), 0x0101_0101_0200_00e3_b0c4_4298_fc1c_149a);

    // Tables of an export as other programs read them, encrypted by the service or by nobody.
    let of_table = |sse: Option<&str>| {
        let mut manifest = manifest(&[], None);
        for object in &mut manifest.objects {
            (object.key, object.sse) = ("a/b.parquet".into(), sse.map(str::to_owned));
        }
        let mut sealed = manifest.objects[0].clone();
        (sealed.stages, sealed.key) = (vec!["seal".into()], "a/c.json.enc".into());
        manifest.objects.push(sealed);
        Event::completed(&manifest, &sha256()).pack() >> 96 & 0xffff
    };
    assert_eq!(of_table(None), 0x0401);
    assert_eq!(of_table(Some("sse-s3")), 0x0403);
    assert_eq!(of_table(Some("sse-kms")), 0x0404);

    let deleted = plain.deleted();
    assert_eq!(deleted.pack(), 0x0101_0101_0400_00e3_b0c4_4298_fc1c_149a);
    assert_eq!(deleted.transfer_id(), 0x0193_5a3c_7a00_4abc_8def_0123_4567_89ab);

    let id: BackupId = ID.parse().expect("valid id");
    let started = Event::started(id, BackupType::Duckdb);
    assert_eq!(started.pack(), 0x0200_0000_0100_0000_0000_0000_0000_0000);
    assert_eq!(started.transfer_id(), 0x0193_5a3c_7a00_1abc_8def_0123_4567_89ab);
    let failed = Event::failed(id, BackupType::Postgres, 7);
    assert_eq!(failed.pack(), 0x0500_0000_0300_0000_0000_0000_0000_0000);
    assert_eq!(failed.transfer_id(), 0x0193_5a3c_7a00_3abc_8def_0123_4567_89ab);
    assert_eq!((failed.stored_bytes, failed.seconds), (0, 7));
    assert_eq!(type_code(BackupType::Parquet), 3);
    assert_eq!(type_code(BackupType::Kms), 4);
}

#[test]
fn a_part_of_a_day_is_a_day_and_centuries_are_the_most_there_is() {
    let days = |until| Event::completed(&manifest(&[], Some(until)), &sha256()).retention_days;
    assert_eq!(days(datetime!(2024-11-23 20:24:21 UTC)), 1);
    assert_eq!(days(datetime!(2024-11-25 20:24:20 UTC)), 2);
    assert_eq!(days(datetime!(2024-11-22 00:00 UTC)), 0);
    assert_eq!(days(datetime!(2999-01-01 00:00 UTC)), u16::MAX);
}

fn events() -> impl Strategy<Value = Event> {
    let words = (
        proptest::sample::select(&Status::ALL[..]),
        proptest::sample::select(&BackupType::ALL[..]),
        proptest::option::of(proptest::sample::select(&Scope::ALL[..])),
        proptest::option::of(proptest::sample::select(&COMPRESSIONS[..])),
        proptest::option::of(proptest::sample::select(&ENCRYPTIONS[..])),
    );
    let numbers =
        (any::<u16>(), any::<[u8; 9]>(), any::<u64>(), 0_u64..4_102_444_800, any::<u32>());
    (words, numbers).prop_map(|(words, numbers)| {
        let (status, backup_type, scope, compression, encryption) = words;
        let (retention_days, digest, stored_bytes, started, seconds) = numbers;
        let time = i64::try_from(started).expect("in range");
        let time = OffsetDateTime::from_unix_timestamp(time).expect("in range");
        Event {
            backup: BackupId::new(time),
            status,
            backup_type,
            scope,
            compression,
            encryption,
            retention_days,
            digest: Digest(digest),
            stored_bytes,
            started,
            seconds,
        }
    })
}

proptest! {
    #[test]
    fn what_is_packed_is_unpacked(event in events()) {
        prop_assert_eq!(Event::unpack(&Numbers::from(&event)), Some(event));
    }

    #[test]
    fn events_of_a_backup_have_ids_of_their_own(event in events()) {
        let ids = Status::ALL.map(|status| Event { status, ..event }.transfer_id());
        for (index, id) in ids.iter().enumerate() {
            prop_assert!(!ids[..index].contains(id));
        }
    }

    /// Whatever a transfer holds: it is refused, or it is exactly an event.
    #[test]
    fn other_transfers_are_no_events(
        event in events(),
        user_data_128 in any::<u128>(),
        bit in 0_u32..128,
    ) {
        let numbers = Numbers::from(&event);
        let packed = Numbers { user_data_128, ..numbers };
        let other = Numbers { id: numbers.id ^ 1 << bit, ..numbers };
        for numbers in [packed, other] {
            if let Some(event) = Event::unpack(&numbers) {
                prop_assert_eq!(Numbers::from(&event), numbers);
            }
        }
    }

    #[test]
    fn an_outbox_keeps_every_number(event in events()) {
        let numbers = Numbers::from(&event);
        let text = serde_json::to_string(&numbers).expect("JSON");
        prop_assert_eq!(serde_json::from_str::<Numbers>(&text).expect("JSON"), numbers);
    }

    /// Any change of a manifest that changes its file changes its event.
    #[test]
    fn another_file_is_another_event(flip in 0_usize..72) {
        let (manifest, mut sha256) = (manifest(&["tar", "seal"], None), sha256());
        let before = Event::completed(&manifest, &sha256);
        sha256[flip / 8] ^= 1 << (flip % 8);
        prop_assert_ne!(before, Event::completed(&manifest, &sha256));
    }
}
