//! Passing over what somebody planted among the backups of a log.

use crate::catalog::{self, Catalog, FoundBackup, Need};
use crate::concurrent;
use crate::ctx::Ctx;
use crate::error::{Kind, diagnose};
use crate::ops::selection::SkippedBackups;

/// Whether a moment may be out of reach because of what somebody planted.
pub(super) fn may_be_planted(error: &anyhow::Error) -> bool {
    matches!(diagnose(error).kind, Kind::Integrity | Kind::Refused | Kind::NotFound | Kind::Key)
}

/// The backups that a key at hand proves, and those of ours whose manifests were altered, since their
/// damage is to be told.
pub(super) fn proven_backups(
    catalog: &Catalog<'_>,
    found: Vec<FoundBackup>,
    passed: &mut SkippedBackups,
    ctx: &Ctx,
) -> anyhow::Result<Vec<FoundBackup>> {
    let looked = concurrent::each(&found, &ctx.cancel, |found| {
        match catalog.open_for(&found.name, Need::Proof) {
            Ok(_) => Ok(None),
            Err(error) if catalog::is_altered(&error) => Ok(None),
            Err(error) if catalog::is_unproven(&error) => Ok(Some(error)),
            Err(error) => Err(error),
        }
    })?;
    let mut left = Vec::new();
    for (found, error) in found.into_iter().zip(looked) {
        match error {
            None => left.push(found),
            Some(error) => passed.add(&found.name, error),
        }
    }
    Ok(left)
}
