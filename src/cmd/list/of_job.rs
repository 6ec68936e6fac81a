//! The backups that one job made: only their manifests say that.

use crate::catalog::{self, FoundBackup};
use crate::concurrent::each;
use crate::domain::manifest::Manifest;
use crate::error::{Kind, diagnose, worst};
use crate::store::ReadStore;
use crate::wire::AppContext;

/// Leaves of `found` what the job `job` made, and says what kept it from telling. Reads every manifest, and
/// authenticates none: a listing needs no key. One that cannot be read is left out with a warning.
///
/// # Errors
/// That the run is to stop.
pub(super) fn of_job(
    app: &AppContext,
    store: &dyn ReadStore,
    found: Vec<FoundBackup>,
    job: &str,
) -> anyhow::Result<(Vec<FoundBackup>, Option<Kind>)> {
    let is_of_job = |found: &FoundBackup| -> anyhow::Result<bool> {
        let key = found.name.manifest_key();
        let manifest = Manifest::parse(&catalog::read_manifest(store, &key)?, &key)?;
        Ok(manifest.job.as_deref() == Some(job))
    };
    let told = each(&found, &app.ctx.cancel, |found| Ok(is_of_job(found)))?;
    // That the run is to stop says nothing of a backup.
    app.ctx.cancel.check()?;
    let (mut kept, mut outcome) = (Vec::new(), None);
    for (backup, told) in found.into_iter().zip(told) {
        match told {
            Ok(true) => kept.push(backup),
            Ok(false) => {}
            Err(error) => {
                let id = backup.name.id;
                app.ctx.monitor.warn(&format!("backup {id} is not listed: {error:#}"));
                outcome = worst(outcome, Some(diagnose(&error).kind));
            }
        }
    }
    Ok((kept, outcome))
}
