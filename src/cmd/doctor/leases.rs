//! Checks for leases that no run can have written.

use crate::error::{Fault, Kind};
use crate::ledger::in_store;
use crate::wire::AppContext;

/// The leases of a store: those that no run can have written, and those of clocks that are ahead.
pub(super) fn odd_leases(app: &AppContext, name: &str) -> anyhow::Result<String> {
    let strange = in_store::strange(&*app.store_named(name)?, app.ctx.now())?;
    if strange.is_empty() {
        return Ok("no unusable leases".to_owned());
    }
    let hint = "synchronize the clocks of all hosts; leases that no run has written are skipped: find out who wrote them, and remove them";
    Err(Fault::new(Kind::Refused, strange.join("; ")).hint(hint).into())
}
