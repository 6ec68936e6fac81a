//! What a host keeps of its own backups when it may not be able to open them: the keys of single objects, those
//! that the next increment reads.
//!
//! The key of an object is derived from the data key and opens that object only. So a thief of the state directory
//! gets the block map of the last backups, and none of their content. What is lost here costs one full backup.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::DataKey;
use crate::cache;
use crate::domain::names::BackupName;

/// The key of one object. Cleared when dropped; has no printable form.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct ObjectKey(pub(crate) [u8; 32]);

impl std::fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ObjectKey(..)")
    }
}

/// What opens the objects of a backup.
#[derive(Debug, Clone)]
pub enum ContentKey {
    /// Every object.
    Data(DataKey),
    /// Those that the host kept the keys of, by their names in the header; perhaps none.
    Kept(BTreeMap<String, ObjectKey>),
}

impl From<DataKey> for ContentKey {
    fn from(key: DataKey) -> ContentKey {
        ContentKey::Data(key)
    }
}

/// The folder of the kept keys in a state directory.
fn folder(state_dir: &Path, name: &BackupName) -> PathBuf {
    let BackupName { backup_type, source, kind, .. } = name;
    state_dir.join("object-keys").join(format!("{backup_type}-{source}-{kind}"))
}

fn path(state_dir: &Path, name: &BackupName) -> PathBuf {
    folder(state_dir, name).join(format!("{}.json", name.id))
}

/// The kept keys of a backup, by the names of objects; none if they were never kept, or are lost.
#[must_use]
pub fn load(state_dir: &Path, name: &BackupName) -> BTreeMap<String, ObjectKey> {
    let kept: BTreeMap<String, String> = cache::load(&path(state_dir, name)).unwrap_or_default();
    let decode = |text: String| -> Option<ObjectKey> {
        let bytes = Zeroizing::new(BASE64.decode(Zeroizing::new(text).as_bytes()).ok()?);
        Some(ObjectKey(bytes.as_slice().try_into().ok()?))
    };
    kept.into_iter().filter_map(|(name, text)| Some((name, decode(text)?))).collect()
}

/// Keeps keys of objects of a backup, and from now on nothing of other backups of its source and kind but `chain`.
///
/// # Errors
/// What the system says.
pub fn keep(
    state_dir: &Path,
    name: &BackupName,
    chain: &[BackupName],
    keys: &BTreeMap<String, ObjectKey>,
) -> io::Result<()> {
    let encode = |(name, key): (&String, &ObjectKey)| (name.clone(), BASE64.encode(key.0));
    let mut encoded: BTreeMap<String, String> = keys.iter().map(encode).collect();
    let bytes = serde_json::to_vec(&encoded).map(Zeroizing::new);
    encoded.values_mut().for_each(Zeroize::zeroize);
    let bytes = bytes?;
    cache::replace(&path(state_dir, name), &bytes, 0o600)?;
    let wanted: HashSet<PathBuf> =
        chain.iter().chain([name]).map(|name| path(state_dir, name)).collect();
    for entry in std::fs::read_dir(folder(state_dir, name))? {
        let path = entry?.path();
        if !wanted.contains(&path) {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use time::macros::datetime;

    use super::*;
    use crate::domain::id::BackupId;
    use crate::domain::names::{BackupType, Scope};

    #[test]
    fn the_keys_of_a_chain_are_kept_and_no_others() {
        let home = tempfile::tempdir().expect("a folder");
        let name = |second: i64, source: &str| BackupName {
            id: BackupId::new(datetime!(2026-11-21 02:00:00 UTC) + time::Duration::seconds(second)),
            backup_type: BackupType::Tigerbeetle,
            source: source.into(),
            scope: Scope::Full,
            kind: "snapshot".into(),
        };
        let keys = |byte: u8| BTreeMap::from([("id/map".to_owned(), ObjectKey([byte; 32]))]);
        let kept = |name: &BackupName| load(home.path(), name).get("id/map").map(|key| key.0[0]);
        let (old, full, child, other) =
            (name(0, "books"), name(1, "books"), name(2, "books"), name(3, "others"));
        keep(home.path(), &old, &[], &keys(1)).expect("kept");
        keep(home.path(), &other, &[], &keys(9)).expect("kept");
        keep(home.path(), &full, &[], &keys(2)).expect("kept");
        keep(home.path(), &child, std::slice::from_ref(&full), &keys(3)).expect("kept");
        assert_eq!([&old, &full, &child, &other].map(kept), [None, Some(2), Some(3), Some(9)]);
        let mode = path(home.path(), &child).metadata().expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        cache::replace(&path(home.path(), &child), b"{", 0o600).expect("written");
        assert_eq!(kept(&child), None);
    }
}
