use std::cell::Cell;

use super::*;

/// A run in as many stores as there are codes, that is told to end once `stop` of them have ended.
fn ran(codes: &[u8], stop: usize) -> RunResult {
    let stores: Vec<String> = (0..codes.len()).map(|index| format!("store-{index}")).collect();
    let begun = Cell::new(0);
    let check = || {
        let stopped = || Fault::new(Kind::Terminated, "terminated by a signal");
        if begun.get() < stop { Ok(()) } else { Err(stopped()) }
    };
    run_in_each_store(&stores, check, |store| {
        let index = begun.replace(begun.get() + 1);
        assert_eq!(store, stores[index], "in their order");
        let message = (codes[index] != 0).then(|| format!("ended with {}", codes[index]));
        RunResult { code: codes[index], message, ..RunResult::default() }
    })
}

fn code_in(all: &RunResult, store: &str) -> Option<u8> {
    all.in_store(store).map(|ended| ended.code)
}

#[test]
fn a_run_that_did_nothing_is_no_success() {
    for (codes, expected) in [
        (&[75][..], 75),
        (&[11], 11),
        (&[75, 75], 75),
        (&[0], 0),
        (&[75, 0], 0),
        (&[0, 75], 0),
        (&[0, 3], 3),
        (&[13, 16], 13),
        (&[16, 13, 0], 13),
    ] {
        let all = ran(codes, usize::MAX);
        assert_eq!(all.code, expected, "{codes:?}");
        for (index, code) in codes.iter().enumerate() {
            assert_eq!(code_in(&all, &format!("store-{index}")), Some(*code), "{codes:?}");
        }
    }
    let said = ran(&[16, 0, 75], usize::MAX).message;
    assert_eq!(said.as_deref(), Some("store-0: ended with 16; store-2: ended with 75"));
}

#[test]
fn a_store_that_a_run_did_not_come_to_has_no_code_and_all_is_not_well() {
    let all = ran(&[0, 0, 0], 1);
    assert_eq!((all.code, code_in(&all, "store-0")), (143, Some(0)));
    assert_eq!((code_in(&all, "store-1"), code_in(&all, "store-2")), (None, None));
    assert_eq!(all.message.as_deref(), Some("store-1: not started: terminated by a signal"));
    assert_eq!(ran(&[13, 0], 1).code, 13, "damage is what counts");
    assert_eq!(ran(&[0], 1).code, 0, "it had ended before");
}
