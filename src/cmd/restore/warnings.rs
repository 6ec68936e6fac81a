//! What is to be known of a backup before it is restored.

use crate::catalog::{self, Entry, Filter, FoundBackup};
use crate::domain::backup_kind::BackupKind;
use crate::domain::names::BackupName;
use crate::domain::schedule::SKEW;
use crate::domain::timestamp::rfc3339;
use crate::error::{Kind, diagnose};
use crate::keys::keyring::Keyring;
use crate::ops::annotations::{Damage, judge};
use crate::ops::authenticity::ProofChecker;
use crate::ops::selection::Select;
use crate::ops::thaw::Cold;
use crate::pipeline::BackupReader;
use crate::store::ReadStore;
use crate::wire::AppContext;

/// Says what is to be known of a choice before it is restored.
pub(super) fn warn(
    app: &AppContext,
    select: &Select,
    (store, keys): (&dyn ReadStore, &Keyring),
    name: &BackupName,
    (chain, cold): (&[BackupReader<'_>], &Cold),
) -> anyhow::Result<()> {
    warn_of_damage(app, store, keys, chain)?;
    if matches!(select, Select::Latest(_)) {
        warn_of_newer(app, store, name)?;
    }
    // The maps of others say how to put them together: they do not restore without.
    let reads_maps = name.kind == BackupKind::Snapshot && cold.is_empty();
    if reads_maps { warn_of_maps(app, chain) } else { Ok(()) }
}

/// Says if a verification has found a link of the chain damaged, or somebody else says so: the restore
/// will show whether it is.
fn warn_of_damage(
    app: &AppContext,
    store: &dyn ReadStore,
    keys: &Keyring,
    chain: &[BackupReader<'_>],
) -> anyhow::Result<()> {
    let proof_checker = ProofChecker::new(store, keys, &app.ctx);
    let Some(last) = chain.last().map(|link| link.manifest().name()) else { return Ok(()) };
    let filter = Filter::of_source(last.backup_type, &last.source);
    for FoundBackup { name, marks, .. } in catalog::find(store, &filter, &app.ctx.cancel)? {
        let is_link = |link: &BackupReader<'_>| link.manifest().name() == name;
        if marks.is_empty() || !chain.iter().any(is_link) {
            continue;
        }
        let id = name.id;
        let who = match judge(store, &proof_checker, &name, &marks)?.damage {
            Damage::None => continue,
            Damage::Confirmed => format!("a verification found backup {id} damaged"),
            Damage::Claimed => {
                format!(
                    "backup {id} is marked as damaged, but no available key authenticates the mark"
                )
            }
        };
        app.ctx.monitor.warn(&format!("{who}; `bkp list --long` shows sound ones"));
    }
    Ok(())
}

/// Says what the newest backup of a source may not be: the newest that there was, of a time that can be, or as
/// far as its log reaches.
fn warn_of_newer(app: &AppContext, store: &dyn ReadStore, name: &BackupName) -> anyhow::Result<()> {
    let (monitor, source, at) = (&app.ctx.monitor, &name.source, name.id.created());
    if at - app.ctx.now() > SKEW {
        let (id, at) = (name.id, rfc3339(at));
        monitor.warn(&format!(
            "backup {id} is dated {at}, in the future: a clock was wrong, or it was planted; choose another from `bkp list {source}` with --id"
        ));
    }
    let filter = Filter::of_source(name.backup_type, source);
    let entries = catalog::contents(store, &filter, &app.ctx.cancel)?;
    let newer = || entries.iter().filter(|entry| entry.name.id.created() > at);
    for entry in newer().filter(|entry| entry.name.kind == name.kind && entry.manifest.is_none()) {
        let id = entry.name.id;
        monitor.warn(&format!(
            "{id} is newer than {} but has no manifest: it is in progress, was abandoned, or lost its manifest; it is not restored",
            name.id
        ));
    }
    let is_log = |entry: &&Entry| entry.name.kind == BackupKind::Log && entry.manifest.is_some();
    if let Some(last) = newer().rfind(is_log) {
        monitor.warn(&format!(
            "the log of `{source}` continues after this backup, to about {}: `bkp list {source} --windows` shows the exact range, and --at restores a moment in it",
            rfc3339(last.name.id.created())
        ));
    }
    Ok(())
}

/// Reads the block maps of a chain, which a restore does not need and the next snapshot does.
fn warn_of_maps(app: &AppContext, chain: &[BackupReader<'_>]) -> anyhow::Result<()> {
    for link in chain {
        match link.check_map(&app.ctx) {
            Err(error) if diagnose(&error).kind == Kind::Integrity => {
                let id = link.manifest().id;
                app.ctx.monitor.warn(&format!(
                    "the block map of backup {id} is damaged: {error:#}; the restore does not need it, but the next snapshot will be full"
                ));
            }
            checked => checked?,
        }
    }
    Ok(())
}
