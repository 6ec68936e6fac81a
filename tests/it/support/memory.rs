//! A store in memory: for tests that sweep over many runs. Clones are the same store.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bkp::domain::tier::StorageClass;
use bkp::store::{
    AppendStore, Declared, Listing, ObjectInfo, ObjectLabels, PruneStore, ReadStore, StoreError,
    Upload, is_key,
};
use sha2::{Digest as _, Sha256};

const URL: &str = "memory:";

/// Objects by key.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory(Arc<Mutex<BTreeMap<String, Arc<[u8]>>>>);

impl Memory {
    fn objects(&self) -> MutexGuard<'_, BTreeMap<String, Arc<[u8]>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn object(&self, key: &str) -> Result<Arc<[u8]>, StoreError> {
        check(key)?;
        let missing = || StoreError::Missing { store: URL.into(), key: key.into() };
        self.objects().get(key).map(Arc::clone).ok_or_else(missing)
    }
}

fn check(key: &str) -> Result<(), StoreError> {
    let invalid = || StoreError::InvalidKey { store: URL.into(), key: key.into() };
    if is_key(key) { Ok(()) } else { Err(invalid()) }
}

fn exists(key: &str) -> StoreError {
    StoreError::Exists { store: URL.into(), key: key.into() }
}

impl ReadStore for Memory {
    fn url(&self) -> &str {
        URL
    }

    fn list(&self, prefix: &str) -> Result<Listing<'_>, StoreError> {
        if !prefix.is_empty() {
            check(prefix)?;
        }
        let below = |key: &str| {
            prefix.is_empty() || key.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'))
        };
        let objects = self.objects();
        let found = objects.iter().filter(|(key, _bytes)| below(key));
        let info = |(key, bytes): (&String, &Arc<[u8]>)| ObjectInfo {
            key: key.clone(),
            bytes: bytes.len() as u64,
            version: None,
            sha256: None,
            class: StorageClass::Standard,
        };
        let found: Vec<_> = found.map(info).map(Ok).collect();
        Ok(Box::new(found.into_iter()))
    }

    fn folders(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let above = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        let folder = |key: &str| {
            let (folder, _rest) = key.strip_prefix(&above)?.split_once('/')?;
            Some(format!("{above}{folder}"))
        };
        let mut found: Vec<String> = self.objects().keys().filter_map(|key| folder(key)).collect();
        found.dedup();
        Ok(found)
    }

    fn head(&self, key: &str) -> Result<ObjectInfo, StoreError> {
        let bytes = self.object(key)?.len() as u64;
        let class = StorageClass::Standard;
        Ok(ObjectInfo { key: key.into(), bytes, version: None, sha256: None, class })
    }

    fn open(
        &self,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<Box<dyn Read + Send>, StoreError> {
        let bytes = self.object(key)?;
        let range = range.unwrap_or(0..u64::MAX);
        let mut reader = Cursor::new(bytes);
        reader.set_position(range.start);
        Ok(Box::new(reader.take(range.end.saturating_sub(range.start))))
    }
}

impl AppendStore for Memory {
    fn create(&self, key: &str, _labels: &ObjectLabels) -> Result<Box<dyn Upload>, StoreError> {
        check(key)?;
        if self.objects().contains_key(key) {
            return Err(exists(key));
        }
        Ok(Box::new(MemoryUpload { store: self.clone(), key: key.into(), bytes: Vec::new() }))
    }
}

impl PruneStore for Memory {
    fn delete(&self, key: &str) -> Result<(), StoreError> {
        check(key)?;
        self.objects().remove(key);
        Ok(())
    }
}

struct MemoryUpload {
    store: Memory,
    key: String,
    bytes: Vec<u8>,
}

impl Upload for MemoryUpload {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn commit(self: Box<Self>, declared: Declared) -> Result<(), StoreError> {
        let sha256 = Sha256::digest(&self.bytes).into();
        let found = Declared { bytes: self.bytes.len() as u64, sha256 };
        if found != declared {
            return Err(StoreError::Mismatch {
                store: URL.into(),
                key: self.key,
                found: format!("{found:?}"),
                expected: format!("{declared:?}"),
            });
        }
        let mut objects = self.store.objects();
        if objects.contains_key(&self.key) {
            return Err(exists(&self.key));
        }
        objects.insert(self.key, self.bytes.into());
        Ok(())
    }
}
