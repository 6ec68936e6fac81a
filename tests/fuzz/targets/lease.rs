//! Terms of leases: small objects that anybody can plant who can write to the bucket.

use std::sync::Arc;
use std::time::Duration;

use bkp::ctx::Ctx;
use bkp::domain::id::BackupId;
use bkp::error::{Classify as _, Kind};
use bkp::ledger::{Holder, in_store};
use time::OffsetDateTime;
use time::macros::datetime;

use super::bytes::Bytes;
use super::memory::Memory;

const NOW: OffsetDateTime = datetime!(2026-11-22 12:00 UTC);
const JOB: &str = "books";

/// Terms with these numbers and this content: whoever looks at them gets an answer or an error of a kind
/// that says what is wrong, and who holds the lease after all holds it until the end.
pub(crate) fn run(data: &[u8]) {
    let (store, mut input) = (Memory::default(), Bytes(data));
    let wide = input.number::<1>() & 1 == 1;
    while !input.0.is_empty() {
        let number = String::from_utf8_lossy(input.line()).into_owned();
        let term = input.line();
        store.put(&format!("leases/{JOB}/{number}"), term);
        if wide {
            store.put(&format!("leases/{number}/00000000000000000001"), term);
        }
    }
    for grace in [time::Duration::ZERO, time::Duration::DAY, time::Duration::MAX] {
        if let Some(holder) = in_store::held(&store, JOB, NOW, grace).unwrap() {
            assert!(!holder.contains(['\n', '\u{1b}']), "{holder:?}");
        }
    }
    let _stale = in_store::stale(&store, NOW, NOW).unwrap();
    let holder = Holder {
        job: JOB.into(),
        run: BackupId::new(NOW),
        backup_type: None,
        host: "here".into(),
        process: 7,
        place: 1,
        // No folder can be there: what one input leaves must not steer the next.
        state_dir: "/dev/null/state".into(),
    };
    let ctx = Ctx::fixed(|| NOW);
    match in_store::acquire(Arc::new(store), &holder, Duration::from_mins(1), &ctx) {
        Ok(mut lease) => {
            assert!(lease.holds() && lease.id().starts_with("leases/books/"));
            // The last number of all has none after it.
            let renewed = lease.renew();
            assert!(renewed.is_ok() || lease.id().ends_with("/18446744073709551615"));
            let _freed = lease.free();
        }
        Err(error) => {
            let text = error.to_string();
            assert!(!text.contains(['\n', '\u{1b}']), "{text:?}");
            assert_ne!(error.kind(), Kind::Failed, "{text}");
        }
    }
}

/// A term that is held, one that was given back, one that is over, and one with the last number.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let term = |begun: &str, until: &str| {
        format!(
            r#"{{"schema":"bkp.lease/1","job":"books","run":"01935a3c-7a00-7abc-8def-0123456789ab","host":"there","process":4711,"place":"00000000deadbeef","begun":"{begun}","until":"{until}"}}"#
        )
    };
    let held = term("2026-11-22T11:59:30Z", "2026-11-22T12:01:30Z");
    let back = term("2026-11-22T11:59:30Z", "2026-11-22T11:59:30Z");
    let over = term("2026-11-22T09:59:30Z", "2026-11-22T10:01:30Z");
    let one = |number: u64, term: &str| format!("{number:020}\n{term}\n");
    [
        [one(1, &over), one(2, &back), one(3, &held)].concat(),
        one(7, &back),
        one(7, &over),
        one(u64::MAX, &over),
        one(3, "{}"),
    ]
    .map(|text| [b"\x01", text.as_bytes()].concat())
    .to_vec()
}
