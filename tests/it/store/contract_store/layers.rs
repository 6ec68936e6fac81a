//! What each decorator adds to the store that it wraps.

use std::io::ErrorKind;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bkp::store::layer::retry::{Backoff, Pause};

use super::*;
use crate::support::fault::{Effect, Failure, PlannedFault};
use crate::support::trace::{Call, Calls, Operation};

/// Time that passes only by waiting; may raise the wish to stop on the way.
#[derive(Default)]
struct Ticks {
    elapsed: Mutex<Duration>,
    stop: Option<Ctx>,
}

impl Pause for Ticks {
    fn elapsed(&self) -> Duration {
        *self.elapsed.lock().unwrap()
    }

    fn wait(&self, length: Duration) {
        assert!(length <= Duration::from_millis(100), "cancellation is asked every 100 ms");
        *self.elapsed.lock().unwrap() += length;
        if let Some(ctx) = &self.stop {
            ctx.cancel.cell().store(signal_hook::consts::SIGTERM as usize, Ordering::Relaxed);
        }
    }
}

/// A store that holds `key` = `0123456789` and fails as planned, tried again on a clock of ticks.
fn retried(faults: Vec<PlannedFault>) -> (Retry<dyn PruneStore>, FaultPlan, Arc<Ticks>) {
    let (plan, ticks) = (FaultPlan::new(faults), Arc::new(Ticks::default()));
    (retried_with(&plan, ctx(), &ticks), plan, ticks)
}

fn retried_with(plan: &FaultPlan, ctx: Ctx, ticks: &Arc<Ticks>) -> Retry<dyn PruneStore> {
    let memory = Memory::default();
    put(&memory, "key", b"0123456789").unwrap();
    let faulty: Box<dyn PruneStore> = Box::new(Faulty::new(Box::new(memory), plan.clone()));
    let pause = Arc::clone(ticks) as Arc<dyn Pause>;
    Retry::with_pause(faulty, ctx, Backoff::default(), pause)
}

/// The first `count` calls of `operation` fail.
fn failing(operation: Operation, count: u64, failure: Failure) -> Vec<PlannedFault> {
    (0..count).map(|nth| PlannedFault::nth(nth, Effect::Before(failure)).of(operation)).collect()
}

type CallOnStore = fn(&dyn PruneStore) -> Result<(), StoreError>;

const RETRIED: [(Operation, CallOnStore); 5] = [
    (Operation::List, |store| store.list("").map(drop)),
    (Operation::Head, |store| store.head("key").map(drop)),
    (Operation::Open, |store| store.open("key", None).map(drop)),
    (Operation::Create, |store| store.create("new", &ObjectLabels::default()).map(drop)),
    (Operation::Delete, |store| store.delete("key")),
];

#[test]
fn transient_failures_are_retried_with_growing_pauses() {
    for (operation, call) in RETRIED {
        let (store, plan, ticks) = retried(failing(operation, 3, Failure::Transient));
        call(&store).unwrap();
        assert_eq!(plan.unfired(), []);
        let waited = ticks.elapsed().as_millis();
        assert!((350..=700).contains(&waited), "{operation}: {waited} ms");
    }
}

#[test]
fn permanent_failures_are_not_retried() {
    for (operation, call) in RETRIED {
        for failure in [Failure::Permanent, Failure::Full, Failure::Missing, Failure::Exists] {
            let (store, plan, ticks) = retried(failing(operation, 1, failure));
            assert!(call(&store).is_err(), "{operation} {failure:?}");
            assert_eq!((plan.unfired(), ticks.elapsed()), (vec![], Duration::ZERO));
        }
    }
}

#[test]
fn retries_end_within_the_total() {
    for (operation, call) in RETRIED {
        let (store, plan, ticks) = retried(failing(operation, 1000, Failure::Transient));
        assert!(call(&store).unwrap_err().is_transient());
        let tries = 1000 - plan.unfired().len();
        assert!((10..30).contains(&tries), "{operation}: {tries} tries");
        assert!(ticks.elapsed() > Duration::from_secs(45), "{operation} gave up early");
        assert!(ticks.elapsed() <= Duration::from_mins(1), "{operation} went on too long");
    }
}

#[test]
fn writing_and_committing_are_not_retried() {
    for operation in [Operation::Write, Operation::Commit] {
        let (store, plan, ticks) = retried(failing(operation, 1, Failure::Transient));
        assert!(put(&store, "new", b"bytes").unwrap_err().is_transient());
        assert_eq!((plan.unfired(), ticks.elapsed()), (vec![], Duration::ZERO));
        assert_eq!(keys(&store, ""), ["key"]);
    }
}

#[test]
fn cancellation_ends_a_pause() {
    let plan = FaultPlan::new(failing(Operation::Head, 1000, Failure::Transient));
    let ctx = ctx();
    let ticks = Arc::new(Ticks { stop: Some(ctx.clone()), ..Ticks::default() });
    let store = retried_with(&plan, ctx, &ticks);
    assert!(store.head("key").unwrap_err().is_transient());
    assert!(ticks.elapsed() <= Duration::from_millis(100));
    assert_eq!(plan.unfired().len(), 999);
}

#[test]
fn an_interrupted_read_resumes_where_it_was() {
    let stalls = || {
        let stall = |(nth, bytes)| PlannedFault::nth(nth, Effect::Stalled { bytes });
        [(0, 4), (1, 0), (2, 3)].map(stall).to_vec()
    };
    let (store, plan, _ticks) = retried(stalls());
    assert_eq!(get(&store, "key", None).unwrap(), b"0123456789");
    assert_eq!(plan.unfired(), []);
    let (store, plan, _ticks) = retried(stalls());
    assert_eq!(get(&store, "key", Some(1..9)).unwrap(), b"12345678");
    assert_eq!(plan.unfired(), []);
}

#[test]
fn an_interrupted_read_that_cannot_resume_says_why() {
    let faults = vec![
        PlannedFault::nth(0, Effect::Stalled { bytes: 4 }),
        PlannedFault::nth(1, Effect::Before(Failure::Missing)).of(Operation::Open),
    ];
    let (store, plan, _ticks) = retried(faults);
    let mut bytes = Vec::new();
    let error = store.open("key", None).unwrap().read_to_end(&mut bytes).unwrap_err();
    assert_eq!((bytes.as_slice(), plan.unfired()), (&b"0123"[..], vec![]));
    assert!(error.to_string().contains("no object `key`"), "{error}");
}

#[test]
fn a_read_without_progress_ends_within_the_total() {
    let stall = |nth| PlannedFault::nth(nth, Effect::Stalled { bytes: 0 });
    let (store, _plan, ticks) = retried((0..1000).map(stall).collect());
    let mut reader = store.open("key", None).unwrap();
    let error = reader.read(&mut [0; 10]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(ticks.elapsed() <= Duration::from_mins(1));
}

#[test]
fn a_trace_has_every_call_in_order() {
    let calls = Calls::default();
    let store = Trace::new(Box::new(Memory::default()), Arc::clone(&calls));
    put(&store, "a/one", &[0; 2500]).unwrap();
    begin(&store, "a/two").write(b"12345").unwrap();
    assert_eq!(get(&store, "a/one", Some(0..7)).unwrap().len(), 7);
    store.head("a/one").unwrap();
    assert_eq!(keys(&store, "a"), ["a/one"]);
    store.delete("a/one").unwrap();
    let recorded: Vec<_> = calls.lock().unwrap().iter().map(Call::to_string).collect();
    let expected = [
        "create a/one",
        "write a/one (2500 bytes)",
        "commit a/one (2500 bytes)",
        "create a/two",
        "write a/two (5 bytes)",
        "abandon a/two",
        "open a/one",
        "read a/one (7 bytes)",
        "head a/one",
        "list a",
        "delete a/one",
    ];
    assert_eq!(recorded, expected);
}

/// A store that fails as planned, and the store below it.
fn faulty(fault: PlannedFault) -> (Faulty<Memory>, FaultPlan, Memory) {
    let (plan, memory) = (FaultPlan::new([fault]), Memory::default());
    put(&memory, "key", b"0123456789").unwrap();
    (Faulty::new(Box::new(memory.clone()), plan.clone()), plan, memory)
}

#[test]
fn the_planned_call_fails_and_no_other() {
    let fault = PlannedFault::nth(1, Effect::Before(Failure::Permanent)).of(Operation::Head);
    let (store, plan, _below) = faulty(fault.clone());
    assert!(store.head("key").is_ok());
    assert_eq!(plan.unfired(), [fault]);
    assert!(store.list("").is_ok());
    assert!(matches!(store.head("key"), Err(StoreError::Unavailable { transient: false, .. })));
    assert_eq!(plan.unfired(), []);
    assert!(store.head("key").is_ok());
}

#[test]
fn a_fault_can_be_kept_to_some_keys() {
    let fault =
        PlannedFault::nth(0, Effect::Before(Failure::Full)).of(Operation::Create).at(".json");
    let (store, plan, _below) = faulty(fault);
    put(&store, "a.tar", b"a").unwrap();
    assert!(matches!(put(&store, "a.json", b"a"), Err(StoreError::Full { .. })));
    assert_eq!(plan.unfired(), []);
}

#[test]
fn reads_can_end_early_stall_or_return_wrong_bytes() {
    let read = |effect, range: Option<Range<u64>>| {
        let (store, plan, below) = faulty(PlannedFault::nth(0, effect));
        let mut bytes = Vec::new();
        let outcome = store.open("key", range).unwrap().read_to_end(&mut bytes);
        assert_eq!(plan.unfired(), []);
        assert_eq!(get(&below, "key", None).unwrap(), b"0123456789");
        (bytes, outcome.err().map(|error| error.kind()))
    };
    assert_eq!(read(Effect::Short { bytes: 4 }, None), (b"0123".to_vec(), None));
    let stalled = (b"0123".to_vec(), Some(ErrorKind::TimedOut));
    assert_eq!(read(Effect::Stalled { bytes: 4 }, None), stalled);
    // Bit 8 * 5 + 1 turns the object's sixth byte from `5` into `7`.
    assert_eq!(read(Effect::Flip { bit: 41 }, None), (b"0123476789".to_vec(), None));
    assert_eq!(read(Effect::Flip { bit: 41 }, Some(4..7)), (b"476".to_vec(), None));
}

#[test]
fn a_fault_beyond_the_end_has_not_happened() {
    let (store, plan, _below) = faulty(PlannedFault::nth(0, Effect::Flip { bit: 80 }));
    assert_eq!(get(&store, "key", None).unwrap(), b"0123456789");
    assert_eq!(plan.unfired().len(), 1);
}

#[test]
fn an_upload_can_run_out_of_space() {
    let (store, plan, below) = faulty(PlannedFault::nth(0, Effect::FullAfter { bytes: 1500 }));
    assert!(matches!(put(&store, "new", &[0; 2000]), Err(StoreError::Full { .. })));
    assert_eq!(plan.unfired(), []);
    assert_eq!(keys(&below, ""), ["key"]);
}

#[test]
fn a_commit_can_fail_before_or_after_it_took_effect() {
    for (effect, visible) in
        [(Effect::Before(Failure::Transient), false), (Effect::After(Failure::Transient), true)]
    {
        let (store, plan, below) = faulty(PlannedFault::nth(0, effect).of(Operation::Commit));
        assert!(put(&store, "new", b"bytes").unwrap_err().is_transient());
        assert_eq!(plan.unfired(), []);
        assert_eq!(below.head("new").is_ok(), visible);
    }
}

/// Whatever call fails, there is a whole object or none, and the next try works.
#[test]
fn a_sweep_over_every_call_ends() {
    for nth in 0.. {
        let (store, plan, below) =
            faulty(PlannedFault::nth(nth, Effect::Before(Failure::Permanent)));
        let outcome = put(&store, "new", &[0; 2500]).and_then(|()| store.head("new"));
        if !plan.unfired().is_empty() {
            assert!(outcome.is_ok());
            assert_eq!(nth, 6, "create, three writes, commit, head");
            return;
        }
        assert!(outcome.is_err());
        assert!(get(&below, "new", None).is_ok_and(|bytes| bytes.len() == 2500) || nth < 5);
    }
}
