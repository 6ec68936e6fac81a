//! Fault injection: a decorator that fails according to a [`FaultPlan`].
//!
//! Tests use it to show that every failure of a store ends in the promised way. A plan knows which
//! of its faults were reached: a test whose fault was never reached has tested nothing.

use std::fmt;
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;

use bkp::domain::health::Space;
use bkp::domain::protection::Protection;
use bkp::domain::thaw::{Availability, ThawSpeed};
use bkp::domain::tier::{StorageClass, Tiers};
use bkp::store::layer::StoreLayer;
use bkp::store::{
    AppendStore, Declared, Listing, ObjectInfo, ObjectLabels, PruneStore, ReadStore, StoreError,
    Unfinished, Upload,
};
use time::OffsetDateTime;

use super::trace::Operation;

mod plan;

pub(crate) use plan::{Effect, Failure, FaultPlan, PlannedFault};
use plan::{Struck, Target};

/// A store that fails as planned. With an empty plan it is the store that it wraps.
pub(crate) struct Faulty<S: ?Sized> {
    plan: FaultPlan,
    inner: Box<S>,
}

impl<S: ?Sized> Faulty<S> {
    /// Wraps `inner`; follows `plan`.
    #[must_use]
    pub(crate) fn new(inner: Box<S>, plan: FaultPlan) -> Self {
        Faulty { plan, inner }
    }
}

/// Every store that a command opens fails as planned.
impl StoreLayer for FaultPlan {
    fn read(&self, inner: Box<dyn ReadStore>) -> Box<dyn ReadStore> {
        Box::new(Faulty::new(inner, self.clone()))
    }

    fn append(&self, inner: Box<dyn AppendStore>) -> Box<dyn AppendStore> {
        Box::new(Faulty::new(inner, self.clone()))
    }

    fn prune(&self, inner: Box<dyn PruneStore>) -> Box<dyn PruneStore> {
        Box::new(Faulty::new(inner, self.clone()))
    }
}

impl<S: ReadStore + ?Sized> Faulty<S> {
    fn around<T>(
        &self,
        (operation, verb): (Operation, &'static str),
        key: &str,
        call: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<(T, Option<Struck>), StoreError> {
        self.plan.around(&Target { store: self.inner.url(), operation, verb, key }, call)
    }
}

impl<S: ReadStore + ?Sized> fmt::Debug for Faulty<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faulty").field("url", &self.inner.url()).field("plan", &self.plan).finish()
    }
}

impl<S: ReadStore + ?Sized> ReadStore for Faulty<S> {
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

    fn can_archive(&self) -> bool {
        self.inner.can_archive()
    }

    fn availability(&self, key: &str) -> Result<Availability, StoreError> {
        self.inner.availability(key)
    }

    fn thaw(&self, key: &str, speed: ThawSpeed, days: u32) -> Result<(), StoreError> {
        self.inner.thaw(key, speed, days)
    }

    fn list(&self, prefix: &str) -> Result<Listing<'_>, StoreError> {
        let call = || self.inner.list(prefix);
        self.around((Operation::List, "list"), prefix, call).map(|(listing, _none)| listing)
    }

    fn folders(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let call = || self.inner.folders(prefix);
        self.around((Operation::List, "list"), prefix, call).map(|(folders, _none)| folders)
    }

    fn head(&self, key: &str) -> Result<ObjectInfo, StoreError> {
        let call = || self.inner.head(key);
        self.around((Operation::Head, "inspect"), key, call).map(|(info, _none)| info)
    }

    fn open(
        &self,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<Box<dyn Read + Send>, StoreError> {
        let start = range.as_ref().map_or(0, |range| range.start);
        let call = || self.inner.open(key, range);
        let (inner, struck) = self.around((Operation::Open, "read"), key, call)?;
        let plan = self.plan.clone();
        Ok(match struck {
            Some(struck) => Box::new(FaultyReader { plan, struck, inner, start, done: 0 }),
            None => inner,
        })
    }
}

impl<S: AppendStore + ?Sized> AppendStore for Faulty<S> {
    fn create(&self, key: &str, labels: &ObjectLabels) -> Result<Box<dyn Upload>, StoreError> {
        let call = || self.inner.create(key, labels);
        let (inner, struck) = self.around((Operation::Create, "create"), key, call)?;
        let (plan, store, key) = (self.plan.clone(), self.inner.url().to_owned(), key.to_owned());
        Ok(Box::new(FaultyUpload { plan, struck, store, key, inner, written: 0 }))
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

impl<S: PruneStore + ?Sized> PruneStore for Faulty<S> {
    fn delete(&self, key: &str) -> Result<(), StoreError> {
        let call = || self.inner.delete(key);
        self.around((Operation::Delete, "remove"), key, call).map(|((), _none)| ())
    }

    fn retained(&self, key: &str) -> Result<Option<OffsetDateTime>, StoreError> {
        self.inner.retained(key)
    }

    fn tiers(&self) -> Option<&Tiers> {
        self.inner.tiers()
    }

    fn set_class(
        &self,
        key: &str,
        declared: Declared,
        class: StorageClass,
    ) -> Result<(), StoreError> {
        self.inner.set_class(key, declared, class)
    }

    fn unfinished(&self, before: OffsetDateTime) -> Result<Vec<Unfinished>, StoreError> {
        self.inner.unfinished(before)
    }

    fn abort(&self, upload: &Unfinished) -> Result<(), StoreError> {
        self.inner.abort(upload)
    }
}

struct FaultyReader {
    plan: FaultPlan,
    struck: Struck,
    inner: Box<dyn Read + Send>,
    /// Where in the object the first byte of this reader is.
    start: u64,
    /// Bytes that were returned.
    done: u64,
}

impl FaultyReader {
    /// Reads, but not beyond the first `limit` bytes of this reader; 0 when they are used up.
    fn read_within(&mut self, limit: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(limit.saturating_sub(self.done)).unwrap_or(usize::MAX);
        let length = buffer.len().min(left);
        let count = self.inner.read(buffer.get_mut(..length).unwrap_or_default())?;
        self.done += count as u64;
        Ok(count)
    }

    fn flip(&mut self, bit: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let first = self.start.saturating_add(self.done);
        let count = self.read_within(u64::MAX, buffer)?;
        let offset = (bit / 8).checked_sub(first).and_then(|offset| usize::try_from(offset).ok());
        let read = buffer.get_mut(..count).unwrap_or_default();
        if let Some(byte) = offset.and_then(|offset| read.get_mut(offset)) {
            *byte ^= 1 << (bit % 8);
            self.plan.fired(self.struck);
        }
        Ok(count)
    }
}

impl Read for FaultyReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.struck.effect {
            Effect::Flip { bit } => self.flip(bit, buffer),
            Effect::Short { bytes } if self.done >= bytes => {
                self.plan.fired(self.struck);
                Ok(0)
            }
            Effect::Stalled { bytes } if self.done >= bytes => {
                self.plan.fired(self.struck);
                Err(io::Error::new(io::ErrorKind::TimedOut, "a planned stall"))
            }
            Effect::Short { bytes } | Effect::Stalled { bytes } => self.read_within(bytes, buffer),
            Effect::Before(_) | Effect::After(_) | Effect::FullAfter { .. } => {
                self.inner.read(buffer)
            }
        }
    }
}

struct FaultyUpload {
    plan: FaultPlan,
    struck: Option<Struck>,
    store: String,
    key: String,
    inner: Box<dyn Upload>,
    written: u64,
}

impl Upload for FaultyUpload {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let written = self.written.saturating_add(bytes.len() as u64);
        if let Some(struck @ Struck { effect: Effect::FullAfter { bytes: limit }, .. }) =
            self.struck
            && written > limit
        {
            self.plan.fired(struck);
            return Err(Failure::Full.error(&self.store, "write", &self.key));
        }
        let (store, key, operation) = (&self.store, &self.key, Operation::Write);
        let target = Target { store, operation, verb: "write", key };
        self.plan.around(&target, || self.inner.write(bytes))?;
        self.written = written;
        Ok(())
    }

    fn commit(self: Box<Self>, declared: Declared) -> Result<(), StoreError> {
        let FaultyUpload { plan, store, key, inner, .. } = *self;
        let operation = Operation::Commit;
        let target = Target { store: &store, operation, verb: "write", key: &key };
        plan.around(&target, || inner.commit(declared)).map(|((), _none)| ())
    }
}
