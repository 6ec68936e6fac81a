//! Everything in a store that belongs to a backup, including incomplete and removed ones.

use std::collections::HashMap;

use crate::concurrent::each;
use crate::ctx::Cancel;
use crate::domain::log_file::is_of_log_files;
use crate::domain::names::{BackupName, BackupType, MANIFEST_EXTENSION, Mark};
use crate::store::{ObjectInfo, ReadStore, StoreError, Version};

use super::found::Filter;

/// Objects in a page of a listing, as S3 gives them.
const PAGE: usize = 1000;

/// Components of the folder of a month: `<type>/<source>/<scope>/<YYYY>/<MM>`.
const MONTH_DEPTH: usize = 5;

/// What a store has of one backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What its keys say.
    pub name: BackupName,
    /// Size of its manifest, bytes; `None` if there is none, and so no backup.
    pub manifest: Option<u64>,
    /// Which version of its manifest the store has; `None` if there is none, or the store does not tell.
    pub version: Option<Version>,
    /// Its objects, without the manifest.
    pub objects: Vec<ObjectInfo>,
    /// What stands beside it, in order.
    pub marks: Vec<Mark>,
}

impl Entry {
    fn empty(name: BackupName) -> Entry {
        Entry { name, manifest: None, version: None, objects: Vec::new(), marks: Vec::new() }
    }

    fn add(&mut self, object: ObjectInfo, mark: Option<Mark>, is_manifest: bool) {
        match mark {
            Some(mark) => self.marks.push(mark),
            None if is_manifest => {
                (self.manifest, self.version) = (Some(object.bytes), object.version);
            }
            None => self.objects.push(object),
        }
    }

    /// Whether it is [pinned](Mark::pin).
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        Mark::pin(&self.marks)
    }

    /// Whether a verification has found it [damaged](Mark::damage).
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        Mark::damage(&self.marks)
    }

    /// Whether somebody has begun to remove it.
    #[must_use]
    pub fn is_being_removed(&self) -> bool {
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
/// A listing comes in pages, and each of them says where the next one begins: a year of backups every
/// 15 minutes has 70 of them, and a distant store is waited for 70 times. What has more than one page
/// is therefore listed by its months, several at a time.
///
/// # Errors
/// What the store fails with; that the run is to stop.
pub fn contents(
    store: &dyn ReadStore,
    filter: &Filter,
    cancel: &Cancel,
) -> anyhow::Result<Vec<Entry>> {
    let prefixes = prefixes(filter);
    let begun = each(&prefixes, cancel, |prefix| {
        let objects: Vec<_> = store.list(prefix)?.take(PAGE).collect();
        let whole = objects.len() < PAGE;
        whole.then(|| gather(objects, filter)).transpose()
    })?;
    let (mut parts, mut large) = (Vec::new(), Vec::new());
    for (prefix, part) in prefixes.into_iter().zip(begun) {
        match part {
            Some(part) => parts.push(part),
            None => large.push(prefix),
        }
    }
    // All of them are of one depth.
    while large.first().is_some_and(|prefix| prefix.split('/').count() < MONTH_DEPTH) {
        large = each(&large, cancel, |prefix| Ok(store.folders(prefix)?))?.concat();
        // Files of logs may be very many, and belong to no backup.
        large.retain(|prefix| !is_of_log_files(prefix));
    }
    parts.extend(each(&large, cancel, |month| gather(store.list(month)?, filter))?);
    let mut entries = parts.concat();
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

/// The backups that objects belong to.
fn gather(
    objects: impl IntoIterator<Item = Result<ObjectInfo, StoreError>>,
    filter: &Filter,
) -> anyhow::Result<Vec<Entry>> {
    let mut found: HashMap<BackupName, Entry> = HashMap::new();
    for object in objects {
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
    let mut entries: Vec<Entry> = found.into_values().collect();
    for entry in &mut entries {
        entry.marks.sort_unstable();
    }
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
