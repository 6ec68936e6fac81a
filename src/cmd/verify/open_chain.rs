//! Opens the chain of a backup as far as a level needs it.

use crate::catalog::{Catalog, Need};
use crate::cmd::restore;
use crate::domain::backup_kind::BackupKind;
use crate::domain::names::BackupName;
use crate::domain::verify_level::VerifyLevel;
use crate::pipeline::BackupReader;

/// A backup and what it builds on. A segment of a log stands by itself; how segments follow each other, `--logs`
/// verifies. Stored bytes are compared without a key, if somebody trusted signed the manifest.
///
/// # Errors
/// As [`Catalog::chain`].
pub(super) fn open<'a>(
    catalog: &Catalog<'a>,
    name: &BackupName,
    level: VerifyLevel,
) -> anyhow::Result<Vec<BackupReader<'a>>> {
    let need = if level <= VerifyLevel::Digest { Need::Proof } else { Need::Content };
    if name.kind == BackupKind::Log {
        return Ok(vec![catalog.open_for(name, need)?.0]);
    }
    catalog.chain_for(name, need)
}

/// How many bytes a level reads.
pub(super) fn stored_bytes(chain: &[BackupReader<'_>], level: VerifyLevel) -> Option<u64> {
    (level != VerifyLevel::Exists).then(|| restore::stored_bytes(chain))
}
