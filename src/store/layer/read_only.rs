//! A store that is only read, where something is asked for that could be added to: whatever is written
//! is refused.

use std::io::Read;
use std::ops::Range;
use std::path::Path;

use crate::domain::health::Space;
use crate::store::{AppendStore, Listing, ObjectInfo, ObjectLabels, ReadStore, StoreError, Upload};

/// A store to which nothing is added.
pub struct ReadOnly {
    inner: Box<dyn ReadStore>,
}

impl std::fmt::Debug for ReadOnly {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReadOnly").field("url", &self.inner.url()).finish_non_exhaustive()
    }
}

impl ReadOnly {
    /// Wraps a store to read.
    #[must_use]
    pub fn new(inner: Box<dyn ReadStore>) -> ReadOnly {
        ReadOnly { inner }
    }
}

impl ReadStore for ReadOnly {
    fn url(&self) -> &str {
        self.inner.url()
    }

    fn name(&self) -> &str {
        self.inner.name()
    }

    fn list(&self, prefix: &str) -> Result<Listing<'_>, StoreError> {
        self.inner.list(prefix)
    }

    fn folders(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.inner.folders(prefix)
    }

    fn head(&self, key: &str) -> Result<ObjectInfo, StoreError> {
        self.inner.head(key)
    }

    fn open(
        &self,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<Box<dyn Read + Send>, StoreError> {
        self.inner.open(key, range)
    }

    fn space(&self) -> Option<Space> {
        self.inner.space()
    }

    fn contains(&self, path: &Path) -> bool {
        self.inner.contains(path)
    }
}

impl AppendStore for ReadOnly {
    fn create(&self, key: &str, _labels: &ObjectLabels) -> Result<Box<dyn Upload>, StoreError> {
        Err(StoreError::Denied {
            store: self.inner.url().to_owned(),
            operation: "write",
            key: key.to_owned(),
            problem: "the store is only read".to_owned(),
            hint: "omit --store-at".to_owned(),
        })
    }
}
