//! Backups of any age, as bkp would have made them then: authentic manifests, objects of the size and
//! digest that they name. What is in the objects is no archive; retention does not look.

use std::fs;

use bkp::ctx::Ctx;
use bkp::domain::id::BackupId;
use bkp::domain::manifest::{
    Identity, Manifest, ObjectRecord, Plaintext, Retention, SCHEMA, Sizes, Trigger, hex,
};
use bkp::domain::names::{BackupName, BackupType, Scope};
use bkp::domain::recipient::Recipient;
use bkp::domain::record::Record;
use bkp::keys::keyring::Keyring;
use bkp::keys::{DataKey, manifest_mac};
use bkp::ops::authenticity;
use bkp::ops::authenticity::{ProofChecker, RECORD};
use bkp::store::AppendStore;
use bkp::wire::AppContext;
use sha2::Digest as _;
use time::OffsetDateTime;

use super::bed::Bed;

/// What is planted.
#[derive(Debug, Clone)]
pub(crate) struct Seed {
    pub(crate) source: String,
    pub(crate) at: OffsetDateTime,
    /// What it builds on, and the base of that.
    pub(crate) built_on: Option<(BackupId, BackupId)>,
    pub(crate) bytes: usize,
    /// What made it.
    pub(crate) kind: &'static str,
    /// Where it ends, as its source says.
    pub(crate) capture: serde_json::Value,
    pub(crate) retention: Retention,
    /// What it is of, if that is not the source as the bed has it.
    pub(crate) identity: Option<Identity>,
}

impl Seed {
    /// A full backup of `books`.
    pub(crate) fn at(at: OffsetDateTime) -> Seed {
        let retention = Retention::default();
        let (kind, capture) = ("snapshot", serde_json::json!({}));
        Seed {
            source: "books".into(),
            at,
            built_on: None,
            bytes: 100,
            kind,
            capture,
            retention,
            identity: None,
        }
    }

    /// Of another source than the bed's, of the same name.
    pub(crate) fn of_another(self) -> Seed {
        let identity = [("cluster".to_owned(), "another".to_owned())].into();
        Seed { identity: Some(identity), ..self }
    }

    pub(crate) fn built_on(self, parent: &Manifest) -> Seed {
        Seed { built_on: Some((parent.id, parent.base)), ..self }
    }
}

/// The files of a backup: its objects, then its manifest.
pub(crate) fn files(app: &AppContext, seed: &Seed) -> (Manifest, Vec<(String, Vec<u8>)>) {
    let id = BackupId::new(seed.at);
    let key = DataKey::generate().unwrap();
    let keys = app.keys().unwrap();
    let name = BackupName {
        id,
        backup_type: app
            .settings
            .sources
            .get(&seed.source)
            .map_or(BackupType::Tigerbeetle, |source| source.backup_type),
        source: seed.source.clone(),
        scope: if seed.built_on.is_some() || seed.kind == "log" {
            Scope::Incremental
        } else {
            Scope::Full
        },
        kind: seed.kind.into(),
    };
    let body = vec![b'x'; seed.bytes];
    let sha256 = hex(&sha2::Sha256::digest(&body));
    let bytes = body.len() as u64;
    let object = ObjectRecord {
        role: "data".into(),
        key: name.key("tar.zst.enc"),
        bytes,
        sha256: sha256.clone(),
        plaintext: Plaintext { bytes, sha256 },
        stages: ["tar", "zstd", "seal"].map(str::to_owned).to_vec(),
        sse: None,
    };
    // Of no bytes: a backup of nothing, with no object.
    let objects = if seed.bytes == 0 { Vec::new() } else { vec![object.clone()] };
    let manifest = Manifest {
        schema: SCHEMA.into(),
        id,
        backup_type: name.backup_type,
        source: name.source.clone(),
        scope: name.scope,
        kind: name.kind.clone(),
        parent: seed.built_on.map(|(parent, _)| parent),
        base: seed.built_on.map_or(id, |(_, base)| base),
        // Of the source as it is, or nothing that a run makes would go with it.
        identity: seed.identity.clone().unwrap_or_else(|| {
            let source = app.source(&name.source);
            source.and_then(|source| source.identity(&app.ctx)).unwrap_or_default()
        }),
        tenant: app.settings.sources.get(&seed.source).and_then(|source| source.tenant.clone()),
        job: None,
        trigger: Trigger::Manual,
        user: "planted".into(),
        host: "planted".into(),
        tool: "bkp".into(),
        started: id.created(),
        ended: id.created(),
        status: "completed".into(),
        capture: seed.capture.clone(),
        sizes: Sizes::of(&objects),
        objects,
        keys: wrapped(&keys, &key, &name),
        retention: seed.retention.clone(),
        ledger: None,
        copies: Vec::new(),
        resealed: None,
        signer: None,
        signature: None,
        timings: serde_json::Map::new(),
        mac: String::new(),
    };
    let at = name.manifest_key();
    let file = manifest_mac::encode(manifest, &key).unwrap();
    let manifest = Manifest::parse(&file, &at).unwrap();
    (manifest, vec![(object.key, body), (at, file)])
}

fn wrapped(keys: &Keyring, key: &DataKey, name: &BackupName) -> Vec<Recipient> {
    let all = keys.providers().iter();
    all.map(|one| one.wrap(key, name.id, &name.source).unwrap()).collect()
}

/// Plants a backup in the bed's folder.
pub(crate) fn plant(bed: &Bed, app: &AppContext, seed: &Seed) -> Manifest {
    plant_below(bed, "store", app, seed)
}

/// Plants a backup in a folder of the bed.
pub(crate) fn plant_below(bed: &Bed, folder: &str, app: &AppContext, seed: &Seed) -> Manifest {
    let (manifest, files) = files(app, seed);
    for (key, bytes) in files {
        let path = bed.path(folder).join(key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    manifest
}

/// Plants a backup in any store.
pub(crate) fn plant_in(store: &dyn AppendStore, app: &AppContext, seed: &Seed) -> Manifest {
    let (manifest, files) = files(app, seed);
    for (key, bytes) in files {
        let mut upload = store.create(&key, &bkp::store::ObjectLabels::default()).unwrap();
        upload.write(&bytes).unwrap();
        let sha256 = sha2::Sha256::digest(&bytes).into();
        upload.commit(bkp::store::Declared { bytes: bytes.len() as u64, sha256 }).unwrap();
    }
    manifest
}

/// Plants the record of a run of a job, with the proof of the newest backup there, if there is one.
pub(crate) fn record(bed: &Bed, job: &str, at: OffsetDateTime, code: u8) {
    record_below(bed, "store", job, at, code);
}

/// Plants the record of a run of a job in a folder of the bed.
pub(crate) fn record_below(bed: &Bed, folder: &str, job: &str, at: OffsetDateTime, code: u8) {
    let stored = bed.stored().into_iter().filter(|path| path.starts_with(bed.path(folder)));
    let names = stored.filter_map(|path| {
        let key = path.strip_prefix(bed.path(folder)).unwrap().to_str().unwrap();
        Some(BackupName::parse(key)?.0).filter(|name| name.manifest_key() == key)
    });
    record_by(bed, folder, (job, at, code), names.max().as_ref());
}

/// Plants the record of a run of a job, with the proof of this backup.
pub(crate) fn record_by(
    bed: &Bed,
    folder: &str,
    (job, at, code): (&str, OffsetDateTime, u8),
    by: Option<&BackupName>,
) -> Record {
    let record = Record { id: BackupId::new(at), job: job.into(), code, seconds: 1 };
    let app = bed.app(None);
    let store = app.store_named(&format!("file://{}", bed.path(folder).display())).unwrap();
    let keys = authenticity::keys(&app);
    let proof_checker = ProofChecker::new(&*store, &keys, &app.ctx);
    let body = serde_json::json!({"schema": "bkp.run-record/1"});
    let bytes = proof_checker.object(RECORD, &record.key(), &body, by).unwrap();
    let path = bed.path(folder).join(record.key());
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
    record
}

/// The time, to the second: what is planted is counted from it.
pub(crate) fn now() -> OffsetDateTime {
    Ctx::new(bkp::ctx::Cancel::default(), std::sync::Arc::new(bkp::ctx::NullMonitor))
        .now()
        .replace_nanosecond(0)
        .unwrap()
}
