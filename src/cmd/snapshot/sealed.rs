//! What a host does about its own backups that it cannot open.

use std::collections::BTreeMap;

use crate::domain::backup_kind::BackupKind;
use crate::domain::names::BackupName;
use crate::keys::KeyError;
use crate::keys::keyring::Keyring;
use crate::keys::object_keys::{self, ObjectKey};
use crate::pipeline::BackupReader;
use crate::wire::AppContext;

/// Whether this host can read all of a chain. Otherwise it can go on from its block maps.
///
/// # Errors
/// [`KeyError::Sealed`] for exports, of which an increment needs more than that.
pub(super) fn is_open(chain: &[BackupReader<'_>], parent: &BackupName) -> Result<bool, KeyError> {
    let is_open = chain.iter().all(BackupReader::is_open);
    if is_open || parent.kind != BackupKind::Export {
        return Ok(is_open);
    }
    let hint = "an incremental export compares with the rows of the last one: take full exports on a host that cannot open its backups";
    Err(KeyError::Sealed { what: format!("export {}", parent.id), hint: hint.to_owned() })
}

/// Keeps what the next increment needs of a backup, on a host that signs: it may not be able to open it. An
/// export's map tells what is in a database, and its increments need more than that.
pub(super) fn keep(
    app: &AppContext,
    keys: &Keyring,
    name: &BackupName,
    (chain, kept): (&[BackupName], &BTreeMap<String, ObjectKey>),
) {
    if keys.signer().is_none() || name.kind == BackupKind::Export {
        return;
    }
    if let Err(error) = object_keys::keep(&app.settings.state_dir, name, chain, kept) {
        let what = "if no key here opens backups, the next one will be a full one";
        app.ctx.monitor.warn(&format!("cannot write to the state directory: {error}; {what}"));
    }
}
