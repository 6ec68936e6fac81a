//! Checks of the ledger.

use super::check::{CheckResult, tried};
use crate::ledger::outbox::Outbox;
use crate::wire::AppContext;

/// The ledger, if one is configured: it answers, the accounts are there or can be made, a lease can
/// be taken and given back. Records nothing. Says what waits in the outbox.
pub(super) fn ledger(app: &AppContext) -> Vec<CheckResult> {
    let Some(ledger) = app.ledger() else {
        return Vec::new();
    };
    let outcome = ledger.probe().map_err(anyhow::Error::from).and_then(|()| {
        let waiting = Outbox::of(&app.settings.state_dir).waiting()?.len();
        let waiting = match waiting {
            0 => "the outbox is empty".to_owned(),
            count => format!("{count} event(s) in the outbox wait for the next run"),
        };
        Ok(format!("answers, has its accounts, granted and released a lease; {waiting}"))
    });
    vec![tried(format!("ledger {}", ledger.name()), outcome)]
}
