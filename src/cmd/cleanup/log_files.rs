//! Files of logs that no manifest is about any more.
//!
//! What a manifest is about stays as long as the manifest does: which ones go, the rules for logs decide. Then a later
//! cleanup finds the files that lie before everything that any manifest of their log is about.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::catalog::{Catalog, Entry, Need};
use crate::concurrent;
use crate::domain::names::{BackupName, BackupType};
use crate::keys::keyring::Keyring;
use crate::pipeline::log_files::ListedFile;
use crate::source::kinds;
use crate::source::logs::{LogFileKind, LogKind};
use crate::store::ReadStore;
use crate::wire::AppContext;

use super::logs::is_segment;

/// The files that lie before everything that is to be restored.
///
/// # Errors
/// What the store fails with.
pub(super) fn spare(
    app: &AppContext,
    store: &dyn ReadStore,
    keys: &Keyring,
    entries: &[Entry],
) -> anyhow::Result<Vec<ListedFile>> {
    let catalog = Catalog::new(store, keys, &app.ctx);
    let mut sources: BTreeMap<(BackupType, &str), Vec<&BackupName>> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| is_segment(entry)) {
        let BackupName { backup_type, source, .. } = &entry.name;
        sources.entry((*backup_type, source)).or_default().push(&entry.name);
    }
    let mut spare = Vec::new();
    for ((backup_type, source), names) in sources {
        let kind = kinds::log_kind_of(backup_type)?;
        let Some(files) = &kind.files else { continue };
        // One manifest that cannot be read today may be about any of them.
        let open = |name: &&BackupName| Ok(catalog.open_for(name, Need::Proof).ok());
        let opened = concurrent::each(&names, &app.ctx.cancel, open)?;
        let captures: Option<Vec<Value>> = opened
            .into_iter()
            .map(|opened| opened.map(|(reader, _)| reader.manifest().capture.clone()))
            .collect();
        let Some(captures) = captures else {
            let message = format!(
                "files of the log of `{source}` stay: a manifest of the log cannot be read"
            );
            app.ctx.monitor.warn(&message);
            continue;
        };
        let archive = catalog.log_files(backup_type, source);
        for (stream, first) in first_of_each_stream(kind, &captures) {
            for folder in archive.folders(&stream)? {
                let listed = archive.list(&stream, Some(&folder))?.into_iter();
                spare.extend(listed.filter(|file| is_before(files, file, first)));
            }
        }
    }
    Ok(spare)
}

/// What the manifest says that is about the first position of each log.
fn first_of_each_stream<'c>(kind: &LogKind, captures: &'c [Value]) -> BTreeMap<String, &'c Value> {
    let mut firsts: BTreeMap<String, (u64, &Value)> = BTreeMap::new();
    for capture in captures {
        let Ok(segment) = (kind.read_segment)(capture) else { continue };
        let first = segment.range.map_or(0, |range| range.first);
        let known = firsts.entry(segment.stream).or_insert((first, capture));
        if first < known.0 {
            *known = (first, capture);
        }
    }
    firsts.into_iter().map(|(stream, (_, capture))| (stream, capture)).collect()
}

fn is_before(files: &LogFileKind, file: &ListedFile, first: &Value) -> bool {
    file.name.folder.is_some() && (files.is_before)(&file.name.file, first)
}
