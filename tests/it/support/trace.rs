//! Records the operations on a store, so that tests can assert them ("`list` makes one listing and
//! opens nothing").

use std::fmt;
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bkp::domain::health::Space;
use bkp::domain::protection::Protection;
use bkp::store::{
    AppendStore, Declared, Listing, ObjectInfo, ObjectLabels, PruneStore, ReadStore, StoreError,
    Unfinished, Upload,
};
use time::OffsetDateTime;

/// What can be asked of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Operation {
    /// [`ReadStore::list`].
    List,
    /// [`ReadStore::head`].
    Head,
    /// [`ReadStore::open`].
    Open,
    /// Reading from what `open` returned.
    Read,
    /// [`AppendStore::create`].
    Create,
    /// [`Upload::write`].
    Write,
    /// [`Upload::commit`].
    Commit,
    /// Dropping an [`Upload`] that was not committed.
    Abandon,
    /// [`PruneStore::delete`].
    Delete,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Operation::List => "list",
            Operation::Head => "head",
            Operation::Open => "open",
            Operation::Read => "read",
            Operation::Create => "create",
            Operation::Write => "write",
            Operation::Commit => "commit",
            Operation::Abandon => "abandon",
            Operation::Delete => "delete",
        })
    }
}

/// One call, recorded before it is passed on; whether it worked is not recorded.
///
/// All reads of one reader are one call, recorded when the reader is dropped; all writes of one
/// upload are one call, recorded just before it is committed or abandoned. So the number of calls
/// does not depend on sizes, and neither does the memory that they take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    /// What was asked.
    pub(crate) operation: Operation,
    /// Of which object, or below which prefix.
    pub(crate) key: String,
    /// Bytes that were read or written; declared bytes of a commit; 0 for everything else.
    pub(crate) bytes: u64,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.operation, self.key)?;
        if self.bytes == 0 { Ok(()) } else { write!(f, " ({} bytes)", self.bytes) }
    }
}

/// Where calls are recorded; clones share it.
pub(crate) type Calls = Arc<Mutex<Vec<Call>>>;

/// A store that records what is asked of it.
pub(crate) struct Trace<S: ?Sized> {
    calls: Calls,
    inner: Box<S>,
}

impl<S: ?Sized> Trace<S> {
    /// Wraps `inner`; records to `calls`.
    #[must_use]
    pub(crate) fn new(inner: Box<S>, calls: Calls) -> Self {
        Trace { calls, inner }
    }
}

impl<S: ReadStore + ?Sized> fmt::Debug for Trace<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace").field("url", &self.inner.url()).finish_non_exhaustive()
    }
}

fn record(calls: &Calls, operation: Operation, key: &str, bytes: u64) {
    let call = Call { operation, key: key.to_owned(), bytes };
    calls.lock().unwrap_or_else(PoisonError::into_inner).push(call);
}

impl<S: ReadStore + ?Sized> ReadStore for Trace<S> {
    fn space(&self) -> Option<Space> {
        self.inner.space()
    }

    fn url(&self) -> &str {
        self.inner.url()
    }

    fn name(&self) -> &str {
        self.inner.name()
    }

    fn contains(&self, path: &Path) -> bool {
        self.inner.contains(path)
    }

    fn list(&self, prefix: &str) -> Result<Listing<'_>, StoreError> {
        record(&self.calls, Operation::List, prefix, 0);
        self.inner.list(prefix)
    }

    fn folders(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        record(&self.calls, Operation::List, prefix, 0);
        self.inner.folders(prefix)
    }

    fn head(&self, key: &str) -> Result<ObjectInfo, StoreError> {
        record(&self.calls, Operation::Head, key, 0);
        self.inner.head(key)
    }

    fn open(
        &self,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<Box<dyn Read + Send>, StoreError> {
        record(&self.calls, Operation::Open, key, 0);
        let inner = self.inner.open(key, range)?;
        let (calls, key) = (Arc::clone(&self.calls), key.to_owned());
        Ok(Box::new(TracedReader { calls, key, inner, bytes: 0 }))
    }
}

impl<S: AppendStore + ?Sized> AppendStore for Trace<S> {
    fn create(&self, key: &str, labels: &ObjectLabels) -> Result<Box<dyn Upload>, StoreError> {
        record(&self.calls, Operation::Create, key, 0);
        let inner = Some(self.inner.create(key, labels)?);
        let (calls, key) = (Arc::clone(&self.calls), key.to_owned());
        Ok(Box::new(TracedUpload { calls, key, inner, bytes: 0 }))
    }

    fn sse(&self) -> Option<&'static str> {
        self.inner.sse()
    }

    fn copy_from(
        &self,
        origin: &str,
        key: &str,
        labels: &ObjectLabels,
        declared: Declared,
    ) -> Result<bool, StoreError> {
        self.inner.copy_from(origin, key, labels, declared)
    }

    fn locks(&self) -> bool {
        self.inner.locks()
    }

    fn lock_longer(
        &self,
        keys: &[String],
        until: Option<OffsetDateTime>,
    ) -> Result<(), StoreError> {
        self.inner.lock_longer(keys, until)
    }

    fn protection(&self) -> Result<Option<Protection>, StoreError> {
        self.inner.protection()
    }

    fn self_test(&self) -> Result<Option<String>, StoreError> {
        self.inner.self_test()
    }
}

impl<S: PruneStore + ?Sized> PruneStore for Trace<S> {
    fn delete(&self, key: &str) -> Result<(), StoreError> {
        record(&self.calls, Operation::Delete, key, 0);
        self.inner.delete(key)
    }

    fn retained(&self, key: &str) -> Result<Option<OffsetDateTime>, StoreError> {
        self.inner.retained(key)
    }

    fn unfinished(&self, before: OffsetDateTime) -> Result<Vec<Unfinished>, StoreError> {
        self.inner.unfinished(before)
    }

    fn abort(&self, upload: &Unfinished) -> Result<(), StoreError> {
        self.inner.abort(upload)
    }
}

struct TracedReader {
    calls: Calls,
    key: String,
    inner: Box<dyn Read + Send>,
    bytes: u64,
}

impl Read for TracedReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.bytes += count as u64;
        Ok(count)
    }
}

impl Drop for TracedReader {
    fn drop(&mut self) {
        record(&self.calls, Operation::Read, &self.key, self.bytes);
    }
}

struct TracedUpload {
    calls: Calls,
    key: String,
    /// Taken by the commit.
    inner: Option<Box<dyn Upload>>,
    bytes: u64,
}

impl Upload for TracedUpload {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.bytes += bytes.len() as u64;
        self.inner.as_mut().map_or(Ok(()), |inner| inner.write(bytes))
    }

    fn commit(mut self: Box<Self>, declared: Declared) -> Result<(), StoreError> {
        record(&self.calls, Operation::Write, &self.key, self.bytes);
        record(&self.calls, Operation::Commit, &self.key, declared.bytes);
        self.inner.take().map_or(Ok(()), |inner| inner.commit(declared))
    }
}

impl Drop for TracedUpload {
    fn drop(&mut self) {
        if self.inner.is_some() {
            record(&self.calls, Operation::Write, &self.key, self.bytes);
            record(&self.calls, Operation::Abandon, &self.key, 0);
        }
    }
}
