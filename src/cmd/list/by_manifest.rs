//! The backups that one job made, or of one tenant: only their manifests say that.

use crate::catalog::{self, FoundBackup};
use crate::concurrent::each;
use crate::domain::manifest::Manifest;
use crate::error::{Kind, diagnose, worst};
use crate::store::ReadStore;
use crate::wire::AppContext;

/// What manifests are chosen by.
#[derive(Debug, Clone, Copy)]
pub(super) struct ManifestFilter<'a> {
    /// Only backups that this job made.
    pub(super) job: Option<&'a str>,
    /// Only backups of this tenant.
    pub(super) tenant: Option<&'a str>,
}

impl ManifestFilter<'_> {
    /// Whether every manifest fits, so that none has to be read.
    fn is_empty(self) -> bool {
        self.job.is_none() && self.tenant.is_none()
    }

    fn fits(self, manifest: &Manifest) -> bool {
        self.job.is_none_or(|job| manifest.job.as_deref() == Some(job))
            && self.tenant.is_none_or(|tenant| manifest.tenant.as_deref() == Some(tenant))
    }
}

/// Leaves of `found` what fits the filter, and says what kept it from telling. Reads every manifest, and
/// authenticates none: a listing needs no key. One that cannot be read is left out with a warning.
///
/// # Errors
/// That the run is to stop.
pub(super) fn choose(
    app: &AppContext,
    store: &dyn ReadStore,
    found: Vec<FoundBackup>,
    filter: ManifestFilter<'_>,
) -> anyhow::Result<(Vec<FoundBackup>, Option<Kind>)> {
    if filter.is_empty() {
        return Ok((found, None));
    }
    let fits = |found: &FoundBackup| -> anyhow::Result<bool> {
        let key = found.name.manifest_key();
        Ok(filter.fits(&Manifest::parse(&catalog::read_manifest(store, &key)?, &key)?))
    };
    let told = each(&found, &app.ctx.cancel, |found| Ok(fits(found)))?;
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
