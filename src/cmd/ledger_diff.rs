//! `bkp verify --ledger`: compares the ledger with the stores in both directions. Needs no key.
//!
//! What was recorded cannot be changed, and who can write to a store usually cannot write to the
//! ledger. So whatever differs between them was changed, removed or planted by somebody, or lost.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

mod comparison;

use crate::catalog::{self, AuthenticBackup};
use crate::cmd::ledger_diff::comparison::{Balance, Comparison, Difference};
use crate::domain::event::Event;
use crate::domain::id::BackupId;
use crate::error::{Fault, Kind};
use crate::keys::Effort;
use crate::ledger::Ledger;
use crate::ledger::outbox::Outbox;
use crate::ops::report::Report;
use crate::ops::run_guard;
use crate::store::ReadStore;
use crate::wire::AppContext;

/// What `bkp verify --ledger` was asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Record the authentic backups that the ledger does not have. Needs a key of each.
    pub record: bool,
}

/// The stable shape `bkp.verify-ledger/1`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct LedgerDiffReport {
    /// Where the ledger is.
    ledger: String,
    /// URLs of the stores that it was compared with.
    stores: Vec<String>,
    /// There is no difference.
    ok: bool,
    /// Transfers of code 12 in the ledger.
    events: usize,
    /// Backups in the stores; one that is in several counts once.
    backups: usize,
    /// By type: what the vault holds and what the stores hold, bytes.
    balances: BTreeMap<String, Balance>,
    /// Events that were recorded because of `--record`.
    recorded: Vec<BackupId>,
    differences: Vec<Difference>,
}

/// Compares the ledger with every configured store, and with the one that `--store` names.
///
/// # Errors
/// [`Kind::Config`] if no ledger is configured; what ledger or stores fail with. Differences are no
/// error: the report has them, and its outcome is [`Kind::Integrity`].
pub fn run(app: &AppContext, options: Options) -> anyhow::Result<Report> {
    let ledger = ledger_of(app)?;
    let stores = stores(app)?;
    let outbox = Outbox::of(&app.settings.state_dir);
    run_guard::flush(&outbox, &*ledger, &*app.ctx.monitor)?;
    let mut look = Comparison::compare(&*ledger, &stores, &app.ctx)?;
    let mut recorded = Vec::new();
    if options.record {
        recorded = record(app, &*ledger, &stores, &look)?;
    }
    if !look.differences.is_empty() {
        // A run that ended between reading the stores and reading the ledger looks like a
        // difference, once.
        let first = std::mem::replace(&mut look, Comparison::compare(&*ledger, &stores, &app.ctx)?);
        look.differences.retain(|difference| first.differences.contains(difference));
    }
    let reconciled = LedgerDiffReport {
        ledger: ledger.name().to_owned(),
        stores: stores.iter().map(|store| store.url().to_owned()).collect(),
        ok: look.differences.is_empty(),
        events: look.events,
        backups: look.backups,
        balances: look.balances,
        recorded,
        differences: look.differences,
    };
    let outcome = (!reconciled.ok).then_some(Kind::Integrity);
    let text = render(&reconciled);
    Ok(Report::done("bkp.verify-ledger/1", &reconciled, text)?.with_outcome(outcome))
}

/// The configured ledger.
///
/// # Errors
/// [`Kind::Config`] if there is none.
pub fn ledger_of(app: &AppContext) -> anyhow::Result<Box<dyn Ledger>> {
    let ledger = app.ledger().ok_or_else(|| {
        Fault::new(Kind::Config, "no ledger is configured")
            .hint("add a [ledger] table with `cluster` and `addresses`; see examples/bkp.toml")
    })?;
    Ok(ledger)
}

fn stores(app: &AppContext) -> anyhow::Result<Vec<Box<dyn ReadStore>>> {
    let settings = &app.settings;
    let chosen = settings.store.iter().filter(|text| text.contains("://"));
    let names: Vec<&String> = settings.stores.keys().chain(chosen).collect();
    if names.is_empty() {
        return Ok(vec![app.store_read(None)?]);
    }
    let open = |name: &&String| {
        let mut app = app.clone();
        app.settings.store = vec![(*name).clone()];
        app.store_read(None)
    };
    names.iter().map(open).collect()
}

/// Records the backups that the ledger does not have, as far as a key at hand shows them to be ours.
fn record(
    app: &AppContext,
    ledger: &dyn Ledger,
    stores: &[Box<dyn ReadStore>],
    look: &Comparison,
) -> anyhow::Result<Vec<BackupId>> {
    let keys = app.keys_to_read()?;
    let mut recorded = Vec::new();
    for (index, backup) in &look.unrecorded {
        let Some(store) = stores.get(*index) else { continue };
        let key = backup.name.manifest_key();
        let authentic = || {
            let keys = (&keys, Effort::Usual);
            catalog::read_authentic(store.as_ref(), &key, keys, &app.ctx)
        };
        match authentic() {
            Ok(AuthenticBackup { manifest, sha256, .. }) => {
                ledger.record(&Event::completed(&manifest, &sha256))?;
                if let Some(resealed) = Event::resealed(&manifest, &sha256) {
                    ledger.record(&resealed)?;
                }
                recorded.push(manifest.id);
            }
            Err(error) => {
                // That the run is to stop says nothing of a backup.
                app.ctx.cancel.check()?;
                app.ctx.monitor.warn(&format!("`{key}` was not recorded: {error:#}"));
            }
        }
    }
    Ok(recorded)
}

fn render(reconciled: &LedgerDiffReport) -> String {
    let LedgerDiffReport { ledger, stores, events, backups, recorded, differences, .. } =
        reconciled;
    let mut lines =
        vec![format!("ledger {ledger}: {events} events; {}: {backups} backups", stores.join(", "))];
    if !recorded.is_empty() {
        lines.push(format!("recorded {} backup(s) that had no event", recorded.len()));
    }
    for (name, balance) in &reconciled.balances {
        let Balance { vault_bytes, stored_bytes } = balance;
        lines.push(format!(
            "{name}: the vault holds {vault_bytes} bytes, the stores {stored_bytes}"
        ));
    }
    for difference in differences {
        let Difference { what, id, subject, expected, found } = difference;
        let id = id.map(|id| format!("{id} ")).unwrap_or_default();
        lines.push(format!(
            "{:<12}  {id}{subject}: expected {expected}, found {found}",
            what.label()
        ));
    }
    lines.push(match differences.len() {
        0 => "no differences".to_owned(),
        count => format!("{count} difference(s)"),
    });
    lines.join("\n")
}
