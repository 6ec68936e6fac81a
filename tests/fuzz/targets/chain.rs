//! From a source that was captured to backups in a store, and back, as a run of bkp would do it.

use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bkp::archive::ArchiveWriter;
use bkp::archive::EntrySink;
use bkp::ctx::{Cancel, Ctx, Monitor};
use bkp::domain::id::BackupId;
use bkp::domain::manifest::{Manifest, SCHEMA, hex};
use bkp::domain::names::{BackupName, BackupType, Scope};
use bkp::domain::recipient::Recipient;
use bkp::keys::{DataKey, KeyProvider};
use bkp::pipeline::BackupReader;
use bkp::source::{BackupKeys, MapWriter, WrappedKeys};
use bkp::stage::Sink as _;
use bkp::stage::seal::Sealer;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::memory::{Memory, Out};

/// Members of an archive.
pub(crate) type Members = Vec<(String, Vec<u8>)>;

/// A source that is no key set asks for no key.
#[derive(Debug)]
pub(crate) struct NoBackups;

impl BackupKeys for NoBackups {
    fn wrap(
        &self,
        _recipients: &[Box<dyn KeyProvider>],
        _line: &mut dyn FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<WrappedKeys> {
        Ok(WrappedKeys::default())
    }
}

/// Takes what a capture pushes.
#[derive(Debug, Default)]
pub(crate) struct Pushed(pub(crate) Members);

impl EntrySink for Pushed {
    fn entry(&mut self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        self.0.push((name.to_owned(), bytes.to_vec()));
        Ok(())
    }

    fn stream(
        &mut self,
        name: &str,
        size: u64,
        body: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
    ) -> anyhow::Result<()> {
        let mut bytes = Vec::new();
        body(&mut bytes)?;
        assert_eq!(bytes.len() as u64, size, "{name}");
        self.entry(name, &bytes)
    }
}

/// What a backup is made of.
pub(crate) struct Made {
    pub(crate) name: BackupName,
    /// The one before it, and the base.
    pub(crate) parent: Option<(BackupId, BackupId)>,
    /// The `capture` record.
    pub(crate) record: Value,
    pub(crate) members: Members,
    pub(crate) map: Option<Vec<u8>>,
    pub(crate) recipients: Vec<Recipient>,
}

impl Made {
    /// A full snapshot of a source of this type.
    pub(crate) fn new(backup_type: BackupType, record: Value, members: Members) -> Made {
        let name = BackupName {
            id: "01935a3c-7a00-7abc-8def-0123456789ab".parse().unwrap(),
            backup_type,
            source: "books".into(),
            scope: Scope::Full,
            kind: "snapshot".into(),
        };
        Made { name, parent: None, record, members, map: None, recipients: Vec::new() }
    }

    /// Puts its objects into `store`, and returns its manifest.
    pub(crate) fn store(&self, store: &Memory, key: &DataKey) -> Manifest {
        let mut objects = vec![self.object(store, key, ("data", "tar.enc"), &tar(&self.members))];
        if let Some(map) = &self.map {
            objects.push(self.object(store, key, ("map", "map.json.enc"), map));
        }
        let sum = |pointer: &str| -> u64 {
            objects.iter().map(|object| object.pointer(pointer).unwrap().as_u64().unwrap()).sum()
        };
        let BackupName { id, backup_type, source, scope, kind } = &self.name;
        let time = "2024-11-23T14:00:00Z";
        let manifest = json!({
            "schema": SCHEMA, "id": id, "type": backup_type, "source": source, "scope": scope,
            "kind": kind, "parent": self.parent.map(|(parent, _)| parent),
            "base": self.parent.map_or(*id, |(_, base)| base), "host": "here", "tool": "bkp 0.1.0",
            "started": time, "ended": time, "status": "completed", "capture": self.record,
            "sizes": {
                "plaintext_bytes": sum("/plaintext/bytes"), "stored_bytes": sum("/bytes"),
                "ratio": 1.0,
            },
            "objects": objects, "keys": self.recipients,
            "retention": {"until": null, "pinned": false}, "ledger": null, "timings": {}, "mac": "",
        });
        serde_json::from_value(manifest).unwrap()
    }

    fn object(
        &self,
        store: &Memory,
        key: &DataKey,
        (role, extension): (&str, &str),
        plain: &[u8],
    ) -> Value {
        let place = self.name.key(extension);
        let object = format!("{}/{}", self.name.id, place.rsplit('/').next().unwrap());
        let out = Out::default();
        let recipients = self.recipients.clone();
        let mut sealer =
            Sealer::new(key, &object, recipients, None, Box::new(out.clone())).unwrap();
        sealer.write(plain).unwrap();
        Box::new(sealer).finish().unwrap();
        let stored = out.bytes();
        store.put(&place, &stored);
        let stages = if role == "data" { &["tar", "seal"][..] } else { &["seal"] };
        json!({
            "role": role, "key": place, "bytes": stored.len(), "sha256": sha256(&stored),
            "plaintext": {"bytes": plain.len(), "sha256": sha256(plain)}, "stages": stages,
        })
    }
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn tar(members: &Members) -> Vec<u8> {
    let out = Out::default();
    let mut writer = ArchiveWriter::new(Box::new(out.clone()), 1, Cancel::default());
    for (name, bytes) in members {
        writer.entry(name, bytes).unwrap();
    }
    writer.finish().unwrap();
    out.bytes()
}

/// What a capture's map writes.
pub(crate) fn map(writer: Option<MapWriter>) -> Vec<u8> {
    let mut bytes = Vec::new();
    writer.unwrap()(&mut bytes).unwrap();
    bytes
}

/// A reader of a backup in `store`.
pub(crate) fn reader<'s>(store: &'s Memory, made: &Made) -> BackupReader<'s> {
    static KEY: LazyLock<DataKey> = LazyLock::new(|| DataKey::generate().unwrap());
    let manifest = made.store(store, &KEY);
    BackupReader::new(store, manifest, KEY.clone())
}

/// How long a run waits for a file that is being written, while nobody writes.
const PATIENCE: Duration = Duration::from_millis(60);

/// The run that is watched: since when, and the cell of its wish to stop.
static WATCHED: Mutex<Option<(Instant, Arc<AtomicUsize>)>> = Mutex::new(None);

fn watched() -> MutexGuard<'static, Option<(Instant, Arc<AtomicUsize>)>> {
    WATCHED.lock().unwrap()
}

/// A run that does not try again: it is stopped when an attempt has failed, or when it waits.
pub(crate) struct Impatient {
    pub(crate) ctx: Ctx,
}

impl Impatient {
    pub(crate) fn new() -> Impatient {
        static WATCH: LazyLock<()> = LazyLock::new(|| {
            std::thread::spawn(|| {
                loop {
                    std::thread::park_timeout(PATIENCE / 4);
                    if let Some((since, cell)) = &*watched()
                        && since.elapsed() > PATIENCE
                    {
                        cell.store(15, Ordering::Relaxed);
                    }
                }
            });
        });
        LazyLock::force(&WATCH);
        let cancel = Cancel::default();
        *watched() = Some((Instant::now(), cancel.cell()));
        let monitor = Arc::new(Stop(cancel.cell()));
        Impatient { ctx: Ctx::new(cancel, monitor) }
    }
}

impl Drop for Impatient {
    fn drop(&mut self) {
        *watched() = None;
    }
}

/// Stops a run when it says that an attempt has failed.
struct Stop(Arc<AtomicUsize>);

impl Monitor for Stop {
    fn begin(&self, _what: &str, _total: Option<u64>) {}
    fn advance(&self, _bytes: u64) {}
    fn warn(&self, _message: &str) {}
    fn end(&self) {}

    fn detail(&self, message: &str) {
        if message.starts_with("attempt ") {
            self.0.store(15, Ordering::Relaxed);
        }
    }
}
