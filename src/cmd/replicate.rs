//! `bkp replicate --to`: brings to one store what another one has, byte for byte.
//!
//! The files of logs come first, which manifests are about. Backups follow in the order in which they were made, so
//! what one builds on is there before it; of each the objects first and the manifest last, as on the first day: a
//! copy exists if and only if it is whole. Then its pins and notes. Nothing is overwritten, and every object has to
//! be what its authenticated manifest says.
//!
//! A run that was killed leaves objects without a manifest, which the next run reads, compares and takes over.

use std::time::Duration;

mod annotations;
mod backups;
mod log_files;
mod progress;
mod replication;
mod report;
mod reseal_keys;
mod resealing;
mod selection;

use self::replication::Replication;
pub(super) use self::report::CopiesReport;
use self::report::render;
use self::reseal_keys::Reseal;
use crate::catalog::Catalog;
use crate::config::settings::Settings;
use crate::error::{Fault, Kind, worst};
use crate::ops::authenticity::ProofChecker;
use crate::ops::exclusive_run::{ExclusiveRun, retry_while_busy};
use crate::ops::report::Report;
use crate::wire::AppContext;

/// What `bkp replicate --to` was asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// The store that gets the copies: its name or URL.
    pub to: String,
    /// The store that has the backups; `None` leaves it to bkp.
    pub from: Option<String>,
    /// The source whose backups are copied; `None` for all that the store has.
    pub source: Option<String>,
    /// Seal the copies anew, for the recipients of the configuration.
    pub reseal: bool,
    /// Say what would be copied, and copy nothing.
    pub dry_run: bool,
    /// How long to wait for another replication to this store, or a cleanup of it.
    pub patience: Duration,
}

/// Copies what one store lacks of another. When this returns without an error and without an outcome, every
/// backup that the retention of the store keeps is there, confirmed by it.
///
/// # Errors
/// [`Kind::Usage`] if both are the same store or it is not clear which is meant; [`Kind::Busy`] if another
/// replication to this store runs, or a cleanup of it; what the stores fail with. What is wrong with one backup
/// is in the report, whose outcome is [`Kind::Partial`] then.
pub fn run(app: &AppContext, options: &Options) -> anyhow::Result<Report> {
    if !app.settings.store.is_empty() {
        let fault = Fault::new(Kind::Usage, "--store is not used where stores are copied");
        return Err(fault.hint("name the stores with --from and --to").into());
    }
    let mut to_app = app.clone();
    to_app.settings.store = vec![options.to.clone()];
    let mirrored = to_app.stores_append(None)?;
    let (_, destination) = mirrored.stores().next().ok_or_else(|| no_destination(options))?;
    let (from, source) = (options.from.as_deref(), options.source.as_deref());
    let from = origin(&app.settings, source, (from, &options.to))?;
    let origin = app.store_named(&from)?;
    let reseal = options.reseal.then(|| Reseal::of(app)).transpose()?;
    let reading = if options.reseal { app.opening_as_configured() } else { app.clone() };
    let keys = reading.keys_to_read()?;
    if origin.url() == destination.url() {
        let message = format!("{} cannot be copied to itself", origin.url());
        return Err(Fault::new(Kind::Usage, message).hint("name another store with --to").into());
    }
    let take = || ExclusiveRun::of_store(app, &mirrored);
    let taken = (!options.dry_run).then(|| retry_while_busy(app, options.patience, take));
    let exclusive_run = taken.transpose()?;
    let replication = Replication {
        app,
        source: options.source.as_deref(),
        dry_run: options.dry_run,
        origin: &*origin,
        destination: &**destination,
        keys: &keys,
        reseal: reseal.as_ref(),
        catalog: Catalog::new(&*origin, &keys, &app.ctx),
        proofs_here: ProofChecker::new(&*origin, &keys, &app.ctx),
        proofs_there: ProofChecker::new(&**destination, &keys, &app.ctx),
        exclusive_run: exclusive_run.as_ref(),
        ledger: (!options.dry_run).then(|| app.ledger()).flatten(),
    };
    let (from, to) = (origin.url().to_owned(), destination.url().to_owned());
    let dry_run = options.dry_run;
    let recipients = reseal.as_ref().map(Reseal::recipients).unwrap_or_default();
    let reseal = options.reseal;
    let mut report =
        CopiesReport { from, to, dry_run, reseal, recipients, ..CopiesReport::default() };
    // Before the backups that are about them: what a manifest promises is there.
    replication.log_files(&mut report)?;
    let pending = replication.backups(&mut report)?;
    app.ctx.monitor.end();
    let partial = (report.failed > 0 || !report.problems.is_empty()).then_some(Kind::Partial);
    let text = render(&report)?;
    Ok(Report::done("bkp.copies/1", &report, text)?.with_outcome(worst(partial, pending)))
}

/// The store that is copied to the store `to`: `from`, or where none is named the one that the source's
/// backups are in, or the only other one.
///
/// # Errors
/// [`Kind::Usage`] if there is none, or more than one.
pub(super) fn origin(
    settings: &Settings,
    source: Option<&str>,
    (from, to): (Option<&str>, &str),
) -> Result<String, Fault> {
    if let Some(from) = from {
        return Ok(from.to_owned());
    }
    let of_source = source.and_then(|source| settings.sources.get(source));
    let of_source = of_source.map(|source| source.store.as_slice()).unwrap_or_default();
    if let Some(first) = of_source.iter().find(|name| *name != to) {
        return Ok(first.clone());
    }
    let others = settings.stores.keys().filter(|name| *name != to);
    let fault = match others.map(String::as_str).collect::<Vec<_>>().as_slice() {
        [only] => return Ok((*only).to_owned()),
        [] => Fault::new(Kind::Usage, "no other store is configured to copy from")
            .hint("pass --from with the name or URL of a store"),
        several => Fault::new(Kind::Usage, "several stores could be copied from")
            .hint(format!("pass --from NAME, one of: {}", several.join(", "))),
    };
    Err(fault)
}

fn no_destination(options: &Options) -> Fault {
    Fault::new(Kind::Store, format!("the store `{}` cannot be used", options.to))
        .hint("see the warning above")
}
