//! The faults to inject, and their progress.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bkp::store::StoreError;

use crate::support::trace::Operation;

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
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
    pub(super) fn error(self, store: &str, operation: &'static str, key: &str) -> StoreError {
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
pub(crate) enum Effect {
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
pub(crate) struct PlannedFault {
    /// Which calls count; `None` for all that the effect can happen to.
    pub(crate) operation: Option<Operation>,
    /// Only calls whose key ends with this count; `""` for all.
    pub(crate) key_end: String,
    /// The call that is struck, from 0.
    pub(crate) nth: u64,
    /// What happens to it.
    pub(crate) effect: Effect,
}

impl PlannedFault {
    /// A fault that strikes the `nth` call, of any operation and key that `effect` can happen to.
    #[must_use]
    pub(crate) fn nth(nth: u64, effect: Effect) -> PlannedFault {
        PlannedFault { operation: None, key_end: String::new(), nth, effect }
    }

    /// Counts only calls of `operation`.
    #[must_use]
    pub(crate) fn of(mut self, operation: Operation) -> PlannedFault {
        self.operation = Some(operation);
        self
    }

    /// Counts only calls whose key ends with `end`.
    #[must_use]
    pub(crate) fn at(mut self, end: &str) -> PlannedFault {
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
pub(crate) struct FaultPlan(Arc<Mutex<Vec<Progress>>>);

#[derive(Debug)]
struct Progress {
    planned: PlannedFault,
    seen: u64,
    fired: bool,
}

/// A fault that strikes a call, and its place in the plan.
#[derive(Debug, Clone, Copy)]
pub(super) struct Struck {
    index: usize,
    pub(super) effect: Effect,
}

impl FaultPlan {
    /// A plan of these faults. If several strike one call, the first of them does.
    #[must_use]
    pub(crate) fn new(faults: impl IntoIterator<Item = PlannedFault>) -> FaultPlan {
        let begin = |planned| Progress { planned, seen: 0, fired: false };
        FaultPlan(Arc::new(Mutex::new(faults.into_iter().map(begin).collect())))
    }

    /// The faults that have not happened. One that strikes a stream has happened when the byte it
    /// is about was reached.
    #[must_use]
    pub(crate) fn unfired(&self) -> Vec<PlannedFault> {
        let faults = self.lock();
        faults.iter().filter(|fault| !fault.fired).map(|fault| fault.planned.clone()).collect()
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
                struck = Some(Struck { index, effect: fault.planned.effect });
            }
            fault.seen += 1;
        }
        struck
    }

    pub(super) fn fired(&self, struck: Struck) {
        if let Some(fault) = self.lock().get_mut(struck.index) {
            fault.fired = true;
        }
    }

    /// Counts a call, fails it if that is planned, and otherwise makes it.
    pub(super) fn around<T>(
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
            Some(struck @ Struck { effect: Effect::Before(failure), .. }) => fail(struck, failure),
            Some(struck @ Struck { effect: Effect::After(failure), .. }) => {
                call()?;
                fail(struck, failure)
            }
            struck => Ok((call()?, struck)),
        }
    }
}

/// A call as errors name it.
pub(super) struct Target<'a> {
    pub(super) store: &'a str,
    pub(super) operation: Operation,
    pub(super) verb: &'static str,
    pub(super) key: &'a str,
}
