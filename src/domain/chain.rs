//! The backups that a restore needs: the backup itself, its parent, and so on down to the base.

use std::collections::HashSet;

use super::id::BackupId;
use super::limits::CHAIN_LENGTH_MAX;
use super::manifest::{Manifest, ManifestError};
use super::names::Scope;

/// Follows the parents of `last` and returns the chain, base first, `last` at the end.
///
/// `load` fetches (and authenticates) the manifest of a parent.
///
/// # Errors
/// What `load` fails with, and [`ManifestError::Misplaced`] for a chain that does not hold together:
/// another source or type, another base, a loop, or more links than [`CHAIN_LENGTH_MAX`].
pub fn resolve<E: From<ManifestError>>(
    last: Manifest,
    mut load: impl FnMut(BackupId) -> Result<Manifest, E>,
) -> Result<Vec<Manifest>, E> {
    let mut seen = HashSet::from([last.id]);
    let mut links = vec![last];
    while let Some((child, parent)) = links.last().and_then(|link| Some((link, link.parent?))) {
        let broken =
            |reason: String| ManifestError::Misplaced { key: child.name().manifest_key(), reason };
        if !seen.insert(parent) || seen.len() > CHAIN_LENGTH_MAX {
            return Err(broken("its chain of parents is cyclic".into()).into());
        }
        let found = load(parent)?;
        let related = found.id == parent
            && found.source == child.source
            && found.backup_type == child.backup_type
            && found.kind == child.kind
            && found.base == child.base
            && found.id < child.id
            && (child.scope != Scope::Differential || found.scope == Scope::Full);
        if !related {
            return Err(broken(format!("its parent {parent} belongs to another chain")).into());
        }
        links.push(found);
    }
    links.reverse();
    Ok(links)
}
