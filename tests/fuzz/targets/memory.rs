//! A store in memory, and a sink that ends in it. What it lists need not be what it has.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use bkp::stage::{ChainStats, Sink};
use bkp::store::{
    AppendStore, Declared, Listing, ObjectInfo, ObjectLabels, ReadStore, StoreError, Upload, is_key,
};

/// An object: the size that a listing claims, and what it holds.
type Object = (u64, Vec<u8>);

/// A store. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory(Arc<Mutex<BTreeMap<String, Object>>>);

impl Memory {
    fn objects(&self) -> MutexGuard<'_, BTreeMap<String, Object>> {
        self.0.lock().unwrap()
    }

    /// Plants an object.
    pub(crate) fn put(&self, key: &str, bytes: &[u8]) {
        self.claim(key, bytes.len() as u64, bytes);
    }

    /// Plants an object that a listing shows with another size. No store lists what is no key.
    pub(crate) fn claim(&self, key: &str, size: u64, bytes: &[u8]) {
        if is_key(key) {
            self.objects().insert(key.to_owned(), (size, bytes.to_owned()));
        }
    }

    fn missing(key: &str) -> StoreError {
        StoreError::Missing { store: "memory".into(), key: key.to_owned() }
    }
}

fn info(key: &str, bytes: u64) -> ObjectInfo {
    let class = bkp::domain::tier::StorageClass::Standard;
    ObjectInfo { key: key.to_owned(), bytes, version: None, sha256: None, class }
}

/// Whether `key` is below `prefix`, a path of whole components.
fn is_below(key: &str, prefix: &str) -> bool {
    let rest = key.strip_prefix(prefix);
    prefix.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl ReadStore for Memory {
    fn url(&self) -> &'static str {
        "memory"
    }

    fn list(&self, prefix: &str) -> Result<Listing<'_>, StoreError> {
        let objects = self.objects();
        let found = objects.iter().filter(|(key, _)| is_below(key, prefix));
        let found = found.map(|(key, (bytes, _))| Ok(info(key, *bytes)));
        Ok(Box::new(found.collect::<Vec<_>>().into_iter()))
    }

    fn folders(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let depth = prefix.split('/').filter(|part| !part.is_empty()).count() + 1;
        let objects = self.objects();
        let below = objects.keys().filter(|key| is_below(key, prefix));
        let below = below.filter(|key| key.split('/').count() > depth);
        let mut found: Vec<String> =
            below.map(|key| key.split('/').take(depth).collect::<Vec<_>>().join("/")).collect();
        found.dedup();
        Ok(found)
    }

    fn head(&self, key: &str) -> Result<ObjectInfo, StoreError> {
        let bytes = self.objects().get(key).map(|(bytes, _)| *bytes);
        let bytes = bytes.ok_or_else(|| Memory::missing(key))?;
        Ok(info(key, bytes))
    }

    fn open(
        &self,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<Box<dyn Read + Send>, StoreError> {
        let objects = self.objects();
        let (_, bytes) = objects.get(key).ok_or_else(|| Memory::missing(key))?;
        let range = range.unwrap_or(0..u64::MAX);
        let end = usize::try_from(range.end).unwrap_or(usize::MAX).min(bytes.len());
        let start = usize::try_from(range.start).unwrap_or(usize::MAX).min(end);
        Ok(Box::new(Cursor::new(bytes[start..end].to_vec())))
    }
}

impl AppendStore for Memory {
    fn create(&self, key: &str, _labels: &ObjectLabels) -> Result<Box<dyn Upload>, StoreError> {
        Ok(Box::new(Uploading { store: self.clone(), key: key.to_owned(), bytes: Vec::new() }))
    }
}

struct Uploading {
    store: Memory,
    key: String,
    bytes: Vec<u8>,
}

impl Upload for Uploading {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn commit(self: Box<Self>, _declared: Declared) -> Result<(), StoreError> {
        let mut objects = self.store.objects();
        if objects.contains_key(&self.key) {
            return Err(StoreError::Exists { store: "memory".into(), key: self.key.clone() });
        }
        objects.insert(self.key.clone(), (self.bytes.len() as u64, self.bytes.clone()));
        Ok(())
    }
}

/// The end of a chain of stages: what came out of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Out(Arc<Mutex<Vec<u8>>>);

impl Out {
    /// What has come so far.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().clone()
    }
}

impl Sink for Out {
    fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>) -> anyhow::Result<ChainStats> {
        Ok(ChainStats::default())
    }
}
