//! The roles of the objects of a backup, and their names in headers.

use crate::domain::id::BackupId;

/// Role of the object with the source's data.
pub const ROLE_DATA: &str = "data";
/// Role of the object with the block map.
pub const ROLE_MAP: &str = "map";

/// The name that an object's header carries: it ties the object to its backup and place.
pub(super) fn object_name(id: BackupId, key: &str) -> String {
    format!("{id}/{}", key.rsplit('/').next().unwrap_or(key))
}
