//! Restores and verifications in the ledger: transfers of no bytes, with an id of their own and the
//! digest of the manifest that was read.

use sha2::Digest as _;
use time::Duration;

use crate::catalog;
use crate::domain::event::{Event, Status};
use crate::domain::id::BackupId;
use crate::domain::manifest::Manifest;
use crate::keys::Effort;
use crate::ledger::Ledger;
use crate::ledger::outbox::Outbox;
use crate::ops::jobs::witness::witnesses;
use crate::ops::run_guard;
use crate::wire::AppContext;

/// Tells the ledger, if there is one, that a backup of `source` was read, which took so long. What was done
/// is done whatever the ledger says: an event that it does not take now waits in the outbox.
pub fn record_read(app: &AppContext, (status, id, source): (Status, BackupId, &str), seconds: f64) {
    if app.settings.ledger.is_none() {
        return;
    }
    if let Err(error) = record(app, (status, id, source), seconds) {
        let what = status.as_str();
        app.ctx
            .monitor
            .warn(&format!("cannot record in the ledger that {id} was {what}: {error:#}"));
    }
}

fn record(
    app: &AppContext,
    (status, id, source): (Status, BackupId, &str),
    seconds: f64,
) -> anyhow::Result<()> {
    let store = app.store_read(app.settings.sources.get(source))?;
    let name = witnesses(app, &*store, Some(source), Some(id)).find(|name| name.id == id);
    let Some(name) = name else { anyhow::bail!("its manifest no longer exists") };
    let (key, keys) = (name.manifest_key(), app.keys_at_hand());
    // Somebody may have put another one there since. Without keys nobody could tell before, either.
    let (manifest, sha256) = if keys.is_empty() {
        let bytes = catalog::read_manifest(&*store, &key)?;
        (Manifest::parse(&bytes, &key)?, sha2::Sha256::digest(&bytes).into())
    } else {
        let backup = catalog::read_authentic(&*store, &key, (&keys, Effort::Usual), &app.ctx)?;
        (backup.manifest, backup.sha256)
    };
    let took = Duration::seconds_f64(seconds.max(0.0));
    let began = app.ctx.now() - took;
    let took = u32::try_from(took.whole_seconds()).unwrap_or(u32::MAX);
    let event = Event::completed(&manifest, &sha256).read(status, began, took);
    let Some(ledger) = app.ledger() else { return Ok(()) };
    deliver(app, &*ledger, &event).map(drop)
}

/// Tells the ledger of an event, or puts it into the outbox if the ledger does not take it now. Whether it was
/// taken.
///
/// # Errors
/// If the outbox cannot be written either.
pub fn deliver(app: &AppContext, ledger: &dyn Ledger, event: &Event) -> anyhow::Result<bool> {
    let outbox = Outbox::of(&app.settings.state_dir);
    let told = run_guard::flush(&outbox, ledger, &*app.ctx.monitor);
    let Err(error) = told.and_then(|_delivered| ledger.record(event)) else { return Ok(true) };
    outbox.put(event)?;
    let why = format!("{error}; the event waits in the outbox, and any later run delivers it");
    app.ctx.monitor.warn(&why);
    Ok(false)
}
