//! Fails on purpose: a decorator that follows a [`Plan`].
//!
//! Tests use it to show that every failure of a store ends in the promised way. A plan knows which
//! of its faults were reached: a test whose fault was never reached has tested nothing.

use std::fmt;
use std::io::{self, Read};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::trace::Operation;
use crate::store::{
    AppendStore, Declared, Listing, ObjectInfo, ObjectLabels, PruneStore, ReadStore, StoreError,
    Upload,
};

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// [`StoreError::Unavailable`], and trying again can help.
    Transient,
    /// [`StoreError::Unavailable`], and trying again cannot help.
    Permanent,
    /// [`StoreError::Full`].
    Full,
    /// [`StoreError::Missing`].
    Missing,
    /// [`StoreError::Exists`].
    Exists,
}

impl Failure {
    fn error(self, store: &str, operation: &'static str, key: &str) -> StoreError {
        let (store, key) = (store.to_owned(), key.to_owned());
        let unavailable = |transient, store, key| StoreError::Unavailable {
            store,
            operation,
            key,
            transient,
            source: "a planned fault".into(),
        };
        match self {
            Failure::Transient => unavailable(true, store, key),
            Failure::Permanent => unavailable(false, store, key),
            Failure::Full => StoreError::Full { store, key },
            Failure::Missing => StoreError::Missing { store, key },
            Failure::Exists => StoreError::Exists { store, key },
        }
    }
}

/// What a fault does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// A list, head, open, create, write, commit or delete fails and nothing was done.
    Before(Failure),
    /// A commit or delete takes effect, and then fails: the answer was lost.
    After(Failure),
    /// What an open returned ends after so many bytes, without an error.
    Short {
        /// Bytes that are still returned.
        bytes: u64,
    },
    /// What an open returned times out after so many bytes.
    Stalled {
        /// Bytes that are still returned.
        bytes: u64,
    },
    /// One bit of the object that was opened is wrong, as read; the stored object stays as it is.
    Flip {
        /// The bit, counted from the object's first byte, lowest bit of a byte first.
        bit: u64,
    },
    /// The upload that a create returned is full after so many bytes.
    FullAfter {
        /// Bytes that can still be written.
        bytes: u64,
    },
}

impl Effect {
    fn applies_to(self, operation: Operation) -> bool {
        use Operation::{Abandon, Commit, Create, Delete, Head, List, Open, Read, Write};
        let before = match operation {
            List | Head | Open | Create | Write | Commit | Delete => true,
            Read | Abandon => false,
        };
        match self {
            Effect::Before(_) => before,
            Effect::After(_) => matches!(operation, Commit | Delete),
            Effect::Short { .. } | Effect::Stalled { .. } | Effect::Flip { .. } => {
                operation == Open
            }
            Effect::FullAfter { .. } => operation == Create,
        }
    }
}

/// One fault of a plan: what happens to the n-th call that it could happen to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// Which calls count; `None` for all that the effect can happen to.
    pub operation: Option<Operation>,
    /// Only calls whose key ends with this count; `""` for all.
    pub key_end: String,
    /// The call that is struck, from 0.
    pub nth: u64,
    /// What happens to it.
    pub effect: Effect,
}

impl Planned {
    /// A fault that strikes the `nth` call, of any operation and key that `effect` can happen to.
    #[must_use]
    pub fn nth(nth: u64, effect: Effect) -> Planned {
        Planned {
            operation: None,
            key_end: String::new(),
            nth,
            effect,
        }
    }

    /// Counts only calls of `operation`.
    #[must_use]
    pub fn of(mut self, operation: Operation) -> Planned {
        self.operation = Some(operation);
        self
    }

    /// Counts only calls whose key ends with `end`.
    #[must_use]
    pub fn at(mut self, end: &str) -> Planned {
        end.clone_into(&mut self.key_end);
        self
    }

    fn counts(&self, operation: Operation, key: &str) -> bool {
        self.effect.applies_to(operation)
            && self.operation.is_none_or(|wanted| wanted == operation)
            && key.ends_with(&self.key_end)
    }
}

/// Faults, and how far each of them is. Clones share the counts.
#[derive(Debug, Clone, Default)]
pub struct Plan(Arc<Mutex<Vec<Progress>>>);

#[derive(Debug)]
struct Progress {
    planned: Planned,
    seen: u64,
    fired: bool,
}

/// A fault that strikes a call, and its place in the plan.
#[derive(Debug, Clone, Copy)]
struct Struck {
    index: usize,
    effect: Effect,
}

impl Plan {
    /// A plan of these faults. If several strike one call, the first of them does.
    #[must_use]
    pub fn new(faults: impl IntoIterator<Item = Planned>) -> Plan {
        let begin = |planned| Progress {
            planned,
            seen: 0,
            fired: false,
        };
        Plan(Arc::new(Mutex::new(
            faults.into_iter().map(begin).collect(),
        )))
    }

    /// The faults that have not happened. One that strikes a stream has happened when the byte it
    /// is about was reached.
    #[must_use]
    pub fn unfired(&self) -> Vec<Planned> {
        let faults = self.lock();
        faults
            .iter()
            .filter(|fault| !fault.fired)
            .map(|fault| fault.planned.clone())
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Progress>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call, and says what strikes it.
    fn strike(&self, operation: Operation, key: &str) -> Option<Struck> {
        let mut struck = None;
        for (index, fault) in self.lock().iter_mut().enumerate() {
            if !fault.planned.counts(operation, key) {
                continue;
            }
            if fault.seen == fault.planned.nth && struck.is_none() {
                struck = Some(Struck {
                    index,
                    effect: fault.planned.effect,
                });
            }
            fault.seen += 1;
        }
        struck
    }

    fn fired(&self, struck: Struck) {
        if let Some(fault) = self.lock().get_mut(struck.index) {
            fault.fired = true;
        }
    }

    /// Counts a call, fails it if that is planned, and otherwise makes it.
    fn around<T>(
        &self,
        target: &Target<'_>,
        call: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<(T, Option<Struck>), StoreError> {
        let struck = self.strike(target.operation, target.key);
        let fail = |struck: Struck, failure: Failure| {
            self.fired(struck);
            Err(failure.error(target.store, target.verb, target.key))
        };
        match struck {
            Some(
                struck @ Struck {
                    effect: Effect::Before(failure),
                    ..
                },
            ) => fail(struck, failure),
            Some(
                struck @ Struck {
                    effect: Effect::After(failure),
                    ..
                },
            ) => {
                call()?;
                fail(struck, failure)
            }
            struck => Ok((call()?, struck)),
        }
    }
}

/// A call as errors name it.
struct Target<'a> {
    store: &'a str,
    operation: Operation,
    verb: &'static str,
    key: &'a str,
}

/// A store that fails as planned. With an empty plan it is the store that it wraps.
pub struct Faulty<S: ?Sized> {
    plan: Plan,
    inner: Box<S>,
}

impl<S: ?Sized> Faulty<S> {
    /// Wraps `inner`; follows `plan`.
    pub fn new(inner: Box<S>, plan: Plan) -> Self {
        Faulty { plan, inner }
    }
}

impl<S: ReadStore + ?Sized> Faulty<S> {
    fn around<T>(
        &self,
        (operation, verb): (Operation, &'static str),
        key: &str,
        call: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<(T, Option<Struck>), StoreError> {
        self.plan.around(
            &Target {
                store: self.inner.url(),
                operation,
                verb,
                key,
            },
            call,
        )
    }
}

impl<S: ReadStore + ?Sized> fmt::Debug for Faulty<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faulty")
            .field("url", &self.inner.url())
            .field("plan", &self.plan)
            .finish()
    }
}

impl<S: ReadStore + ?Sized> ReadStore for Faulty<S> {
    fn url(&self) -> &str {
        self.inner.url()
    }

    fn list(&self, prefix: &str) -> Result<Listing<'_>, StoreError> {
        let call = || self.inner.list(prefix);
        self.around((Operation::List, "list"), prefix, call)
            .map(|(listing, _none)| listing)
    }

    fn head(&self, key: &str) -> Result<ObjectInfo, StoreError> {
        let call = || self.inner.head(key);
        self.around((Operation::Head, "look at"), key, call)
            .map(|(info, _none)| info)
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
            Some(struck) => Box::new(FaultyReader {
                plan,
                struck,
                inner,
                start,
                done: 0,
            }),
            None => inner,
        })
    }
}

impl<S: AppendStore + ?Sized> AppendStore for Faulty<S> {
    fn create(&self, key: &str, labels: &ObjectLabels) -> Result<Box<dyn Upload>, StoreError> {
        let call = || self.inner.create(key, labels);
        let (inner, struck) = self.around((Operation::Create, "create"), key, call)?;
        let (plan, store, key) = (
            self.plan.clone(),
            self.inner.url().to_owned(),
            key.to_owned(),
        );
        Ok(Box::new(FaultyUpload {
            plan,
            struck,
            store,
            key,
            inner,
            written: 0,
        }))
    }
}

impl<S: PruneStore + ?Sized> PruneStore for Faulty<S> {
    fn delete(&self, key: &str) -> Result<(), StoreError> {
        let call = || self.inner.delete(key);
        self.around((Operation::Delete, "remove"), key, call)
            .map(|((), _none)| ())
    }
}

struct FaultyReader {
    plan: Plan,
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
        let count = self
            .inner
            .read(buffer.get_mut(..length).unwrap_or_default())?;
        self.done += count as u64;
        Ok(count)
    }

    fn flip(&mut self, bit: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let first = self.start.saturating_add(self.done);
        let count = self.read_within(u64::MAX, buffer)?;
        let offset = (bit / 8)
            .checked_sub(first)
            .and_then(|offset| usize::try_from(offset).ok());
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
    plan: Plan,
    struck: Option<Struck>,
    store: String,
    key: String,
    inner: Box<dyn Upload>,
    written: u64,
}

impl Upload for FaultyUpload {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let written = self.written.saturating_add(bytes.len() as u64);
        if let Some(
            struck @ Struck {
                effect: Effect::FullAfter { bytes: limit },
                ..
            },
        ) = self.struck
            && written > limit
        {
            self.plan.fired(struck);
            return Err(Failure::Full.error(&self.store, "write", &self.key));
        }
        let (store, key, operation) = (&self.store, &self.key, Operation::Write);
        let target = Target {
            store,
            operation,
            verb: "write",
            key,
        };
        self.plan.around(&target, || self.inner.write(bytes))?;
        self.written = written;
        Ok(())
    }

    fn commit(self: Box<Self>, declared: Declared) -> Result<(), StoreError> {
        let FaultyUpload {
            plan,
            store,
            key,
            inner,
            ..
        } = *self;
        let operation = Operation::Commit;
        let target = Target {
            store: &store,
            operation,
            verb: "write",
            key: &key,
        };
        plan.around(&target, || inner.commit(declared))
            .map(|((), _none)| ())
    }
}
