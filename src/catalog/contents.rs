//! Everything in a store that belongs to a backup, also to one that is not there (any more).

use std::collections::HashMap;

use crate::domain::names::{BackupName, BackupType, MANIFEST_EXTENSION, Mark};
use crate::store::{ObjectInfo, ReadStore, StoreError};

use super::Filter;

/// What a store has of one backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What its keys say.
    pub name: BackupName,
    /// Size of its manifest, bytes; `None` if there is none, and so no backup.
    pub manifest: Option<u64>,
    /// Its objects, without the manifest.
    pub objects: Vec<ObjectInfo>,
    /// What stands beside it, in order.
    pub marks: Vec<Mark>,
}

impl Entry {
    fn empty(name: BackupName) -> Entry {
        Entry { name, manifest: None, objects: Vec::new(), marks: Vec::new() }
    }

    fn add(&mut self, object: ObjectInfo, mark: Option<Mark>, is_manifest: bool) {
        match mark {
            Some(mark) => self.marks.push(mark),
            None if is_manifest => self.manifest = Some(object.bytes),
            None => self.objects.push(object),
        }
    }

    /// Whether the last word about it is a pin. Of two that were said at once, the pin counts.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        let number = |mark: &Mark, pinned: bool| match (mark, pinned) {
            (Mark::Pin(number), true) | (Mark::Unpin(number), false) => Some(*number),
            _ => None,
        };
        let last = |pinned| self.marks.iter().filter_map(|mark| number(mark, pinned)).max();
        last(true).is_some() && last(true) >= last(false)
    }

    /// Whether somebody has begun to remove it.
    #[must_use]
    pub fn is_going(&self) -> bool {
        self.marks.contains(&Mark::Deleting)
    }

    /// Sum over its objects and its manifest, bytes.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        let objects = self.objects.iter().map(|object| object.bytes);
        objects.fold(self.manifest.unwrap_or(0), u64::saturating_add)
    }
}

/// What a store has of every backup, oldest first. Costs a listing and no other request.
///
/// # Errors
/// What the store fails with.
pub fn contents(store: &dyn ReadStore, filter: &Filter) -> anyhow::Result<Vec<Entry>> {
    let mut found: HashMap<BackupName, Entry> = HashMap::new();
    for prefix in prefixes(filter) {
        for object in store.list(&prefix)? {
            let object = object?;
            let Some((name, extension)) = BackupName::parse(&object.key) else { continue };
            let wanted = filter.source.as_ref().is_none_or(|source| *source == name.source)
                && filter.id.as_ref().is_none_or(|id| name.id.to_string().starts_with(id.as_str()));
            if !wanted {
                continue;
            }
            let (mark, is_manifest) = (Mark::parse(extension), extension == MANIFEST_EXTENSION);
            let entry = found.entry(name).or_insert_with_key(|name| Entry::empty(name.clone()));
            entry.add(object, mark, is_manifest);
        }
    }
    let mut entries: Vec<Entry> = found.into_values().collect();
    for entry in &mut entries {
        entry.marks.sort_unstable();
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

/// What a store has of one backup now. Costs a listing of its day.
///
/// # Errors
/// What the store fails with.
pub fn again(store: &dyn ReadStore, name: &BackupName) -> Result<Entry, StoreError> {
    let mut entry = Entry::empty(name.clone());
    let BackupName { id, backup_type, source, scope, .. } = name;
    let day = BackupName::day(*backup_type, source, *scope, id.created().date());
    for object in store.list(&day)? {
        let object = object?;
        let found = BackupName::parse(&object.key).filter(|(found, _)| found == name);
        if let Some((mark, is_manifest)) =
            found.map(|(_, extension)| (Mark::parse(extension), extension == MANIFEST_EXTENSION))
        {
            entry.add(object, mark, is_manifest);
        }
    }
    entry.marks.sort_unstable();
    Ok(entry)
}

/// The parts of the store to list.
fn prefixes(filter: &Filter) -> Vec<String> {
    let types = filter.backup_type.map_or_else(|| BackupType::ALL.to_vec(), |only| vec![only]);
    let folder = |backup_type: BackupType| match &filter.source {
        Some(source) => format!("{backup_type}/{source}"),
        None => backup_type.to_string(),
    };
    types.into_iter().map(folder).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_about_a_pin_counts() {
        let name =
            "duckdb/a/full/2024/11/23/duckdb-snapshot-01935a3c-7a00-7abc-8def-0123456789ab.x";
        let (name, _) = BackupName::parse(name).expect("a key");
        let pinned = |marks: &[Mark]| {
            let marks = marks.to_vec();
            Entry { name: name.clone(), manifest: None, objects: vec![], marks }.is_pinned()
        };
        assert!(!pinned(&[]) && !pinned(&[Mark::Note(9), Mark::Deleting]));
        assert!(pinned(&[Mark::Pin(1)]) && !pinned(&[Mark::Pin(1), Mark::Unpin(2)]));
        assert!(pinned(&[Mark::Pin(1), Mark::Pin(3), Mark::Unpin(2)]));
        assert!(pinned(&[Mark::Pin(2), Mark::Unpin(2)]), "said at once");
    }
}
