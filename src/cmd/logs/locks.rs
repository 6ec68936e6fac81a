//! Object locks below a log: the snapshot that it goes on from and the segments since must not be removable before the
//! newest segment is.

use time::OffsetDateTime;

use crate::catalog::{self, Catalog, Entry, Filter};
use crate::domain::backup_kind::BackupKind;
use crate::domain::id::BackupId;
use crate::domain::names::BackupName;
use crate::ops::manifest_builder::locked_until;
use crate::store::layer::mirrored::MirroredStore;
use crate::wire::AppContext;

/// The segment that was just published.
pub(super) struct Published<'a> {
    pub(super) name: &'a BackupName,
    /// The one before it.
    pub(super) before: Option<BackupId>,
    /// The first of its log, if the log needs no snapshot to go on from.
    pub(super) first: Option<BackupId>,
    /// Until when it is promised.
    pub(super) promised: Option<OffsetDateTime>,
}

/// With the first segment of each day (UTC) has every store that locks what is written lock what the segment builds on
/// for as long. Where one does not, that is said: the segment is there, and without it less would be.
pub(super) fn lock_below(
    app: &AppContext,
    (store, catalog): (&MirroredStore, &Catalog<'_>),
    segment: &Published<'_>,
) {
    let day = |id: BackupId| id.created().date();
    let is_first = segment.before.is_none_or(|before| day(before) != day(segment.name.id));
    if !is_first || !store.stores().any(|(_, member)| member.locks()) {
        return;
    }
    let warn = |url: &str, error: &anyhow::Error| {
        app.ctx.monitor.warn(&format!(
            "{url}: the locks of what the log of `{}` goes on from expire before its own: {error:#}",
            segment.name.source
        ));
    };
    let keys = match keys_below(app, (store, catalog), segment) {
        Ok(keys) => keys,
        Err(error) => return warn("all stores", &error),
    };
    for (_, member) in store.stores() {
        if let Err(error) =
            member.lock_longer(&keys, locked_until(segment.name.kind.as_str(), segment.promised))
        {
            warn(member.url(), &error.into());
        }
    }
}

/// The keys of the newest snapshot before a segment, of all that it builds on, and of every segment since; where a log
/// needs no snapshot, of every segment.
fn keys_below(
    app: &AppContext,
    (store, catalog): (&MirroredStore, &Catalog<'_>),
    segment: &Published<'_>,
) -> anyhow::Result<Vec<String>> {
    let (source, id) = (segment.name.source.clone(), segment.name.id);
    let filter = Filter { source: Some(source), ..Filter::default() };
    let mut entries = catalog::contents(store, &filter, &app.ctx.cancel)?;
    entries.retain(|entry| {
        let name = &entry.name;
        name.backup_type == segment.name.backup_type && name.id < id && entry.manifest.is_some()
    });
    let snapshots = entries.iter().filter(|entry| entry.name.kind == BackupKind::Snapshot);
    let newest = snapshots.max_by_key(|entry| entry.name.id).filter(|_| segment.first.is_none());
    let mut keys = Vec::new();
    if let Some(snapshot) = newest {
        for link in catalog.chain(&snapshot.name)? {
            keys.extend(link.objects(&app.ctx)?.map(|object| object.key.clone()));
            keys.push(link.manifest().name().manifest_key());
        }
    }
    let first = segment.first.or(newest.map(|snapshot| snapshot.name.id));
    let is_segment = |entry: &&Entry| {
        entry.name.kind == BackupKind::Log && first.is_none_or(|first| entry.name.id >= first)
    };
    for entry in entries.iter().filter(is_segment) {
        keys.extend(entry.objects.iter().map(|object| object.key.clone()));
        keys.push(entry.name.manifest_key());
    }
    Ok(keys)
}
