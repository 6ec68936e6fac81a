//! Object locks along a chain: what a backup builds on must not be removable before the backup is.

use time::{Duration, OffsetDateTime};

use super::options::Options;
use super::plan::{ParentChain, Plan};
use crate::domain::names::{BackupName, Scope};
use crate::ops::manifest_builder;
use crate::store::StoreError;
use crate::store::layer::mirrored::MirroredStore;
use crate::wire::AppContext;

/// A run that took longer looks at the locks again before it publishes: what it stored last is locked for
/// longer than what it stored first.
const AGAIN_AFTER: Duration = Duration::hours(12);

/// Has every store lock what the plan builds on for as long as what is about to be made. Where one does
/// not, a full backup is planned instead, which needs nothing else: an increment that outlives its base
/// restores nothing. This comes before the capture, so that nothing is captured in vain.
///
/// # Errors
/// Why the locks cannot be extended, if an increment was asked for; what the last store fails with.
pub(super) fn lock_chain<'a>(
    app: &AppContext,
    options: &Options,
    plan: Plan<'a>,
    mirrored: &MirroredStore,
) -> anyhow::Result<Plan<'a>> {
    let Some(parent_chain) = &plan.parent_chain else { return Ok(plan) };
    let backup_type = app.source_settings(&options.source)?.backup_type;
    let name = options.name(backup_type, plan.id, plan.scope);
    let until = manifest_builder::promise(app, &name).until;
    let refused = extend(mirrored, &parent_chain.keys(&app.ctx)?, until)?;
    let Some((url, refusal)) = refused else { return Ok(plan) };
    let why = format!(
        "{url}: the locks of the backups that the new one would build on cannot be extended"
    );
    if options.scope.is_some() {
        return Err(anyhow::Error::from(refusal).context(why));
    }
    app.ctx.monitor.warn(&format!("taking a full backup, since {why}: {refusal}"));
    // A replica keeps what it can of the chain that it does not build on, as when it begins a new one.
    let chain = plan.parent_chain.map(|ParentChain { chain, .. }| chain).unwrap_or_default();
    let skipped = chain.into_iter().chain(plan.skipped).collect();
    Ok(Plan { id: plan.id, scope: Scope::Full, parent_chain: None, skipped })
}

/// The same right before a backup is published, if it took long to make.
///
/// # Errors
/// Why a store does not extend a lock: then the backup must not be made.
pub(super) fn lock_again(
    app: &AppContext,
    name: &BackupName,
    mirrored: &MirroredStore,
    keys: &[String],
) -> anyhow::Result<()> {
    if keys.is_empty() || app.ctx.now() - name.id.created() < AGAIN_AFTER {
        return Ok(());
    }
    let until = manifest_builder::promise(app, name).until;
    match extend(mirrored, keys, until)? {
        None => Ok(()),
        Some((url, refusal)) => {
            let why =
                format!("{url}: the locks of the backups that it builds on cannot be extended");
            Err(anyhow::Error::from(refusal).context(why))
        }
    }
}

/// Extends the locks in every store. A store that does not answer drops out; the URL of one that does not
/// extend them, and why, is returned.
fn extend(
    mirrored: &MirroredStore,
    keys: &[String],
    until: Option<OffsetDateTime>,
) -> Result<Option<(String, StoreError)>, StoreError> {
    for (index, store) in mirrored.stores() {
        match store.lock_longer(keys, until) {
            Ok(()) => {}
            Err(refusal @ (StoreError::Denied { .. } | StoreError::Missing { .. })) => {
                return Ok(Some((store.url().to_owned(), refusal)));
            }
            Err(error) => mirrored.failed(index, error)?,
        }
    }
    Ok(None)
}
