//! What a snapshot builds on: the choice of scope and parent.

use std::collections::HashMap;

use crate::catalog::{self, Catalog, Filter, FoundBackup, Need, is_unproven};
use crate::ctx::Ctx;
use crate::domain::id::BackupId;
use crate::domain::limits::CHAIN_LENGTH_MAX;
use crate::domain::manifest::{Identity, Manifest};
use crate::domain::names::{BackupName, Mark, Scope};
use crate::domain::timestamp::rfc3339;
use crate::error::{Fault, Kind, diagnose};
use crate::keys::keyring::Keyring;
use crate::ops::annotations::{Damage, judge};
use crate::ops::authenticity::ProofChecker;
use crate::ops::selection::SkippedBackups;
use crate::pipeline::BackupReader;
use crate::source::{self, Continuation, Held, ParentMap, Source};
use crate::store::layer::mirrored::MirroredStore;
use crate::wire::AppContext;

use super::options::Options;
use super::sealed;
use crate::domain::backup_kind::BackupKind;

/// How many backups are looked at for one to build on; planted ones and those of other sources with the same
/// name may come first.
const CANDIDATES_MAX: usize = 256;

/// What is going to be done.
pub(super) struct Plan<'a> {
    /// The new backup's id. Drawn first: a parent must be older.
    pub(super) id: BackupId,
    pub(super) scope: Scope,
    /// The first and the last link of the chain that is continued; `None` for a full backup.
    pub(super) parent_chain: Option<ParentChain<'a>>,
    /// The links of the newest backup's chain that it does not build on, although it knows them.
    pub(super) skipped: Vec<BackupReader<'a>>,
}

/// What an increment builds on.
pub(super) struct ParentChain<'a> {
    pub(super) base: BackupId,
    pub(super) parent: BackupId,
    /// The chain so far, base first.
    pub(super) chain: Vec<BackupReader<'a>>,
    pub(super) map: ParentMap,
}

impl ParentChain<'_> {
    /// The names of the chain.
    pub(super) fn names(&self) -> Vec<BackupName> {
        self.chain.iter().map(|link| link.manifest().name()).collect()
    }
}

impl ParentChain<'_> {
    /// The keys of every object of the chain, manifests too.
    pub(super) fn keys(&self, ctx: &Ctx) -> anyhow::Result<Vec<String>> {
        let mut keys = Vec::new();
        for link in &self.chain {
            keys.extend(link.objects(ctx)?.map(|object| object.key.clone()));
            keys.push(link.manifest().name().manifest_key());
        }
        Ok(keys)
    }
}

impl Plan<'_> {
    fn full(id: BackupId) -> Self {
        Plan { id, scope: Scope::Full, parent_chain: None, skipped: Vec::new() }
    }
}

/// Chooses scope and parent. Whatever is wrong with the previous backup, an automatic choice ends
/// with a backup: a full one.
///
/// # Errors
/// What store and source fail with; for a scope that was asked for, also what is wrong with the
/// backup that it would build on.
pub(super) fn plan<'a>(
    app: &AppContext,
    options: &Options,
    (source, identity): (&dyn Source, &Identity),
    store: &MirroredStore,
    catalog: &Catalog<'a>,
    id: BackupId,
) -> anyhow::Result<Plan<'a>> {
    if options.scope == Some(Scope::Full) {
        return Ok(Plan::full(id));
    }
    let backup_type = app.source_settings(&options.source)?.backup_type;
    let filter = Filter::of_source(backup_type, &options.source);
    let found = catalog::find(store, &filter, &app.ctx.cancel)?;
    let candidate = match parent(app, options, (catalog, identity), &found, id) {
        Ok(candidate) => candidate,
        Err(error) if options.scope.is_none() && is_about_parent(&error) => {
            return Ok(full_instead(app, None, id, &error));
        }
        Err(error) => return Err(error),
    };
    let Candidate { parent, other } = candidate;
    if let Some(other) = &other {
        app.ctx
            .monitor
            .warn(&format!("{}: use a unique name for each source", describe_foreign(other)));
    }
    let Some(parent) = parent else {
        return match options.scope {
            None => Ok(Plan::full(id)),
            Some(scope) => {
                let (source, scope) = (&options.source, scope.with_article());
                let message = format!("no backup of `{source}` for {scope} one to build on");
                if let Some(other) = &other {
                    let fault = Fault::new(
                        Kind::Refused,
                        format!("{message}: {}", describe_foreign(other)),
                    );
                    return Err(fault.hint("take a full backup: --scope full").into());
                }
                Err(Fault::new(Kind::NotFound, message)
                    .hint("take a full one first: --scope full, or omit --scope")
                    .into())
            }
        };
    };
    let marks = marks(app, store, &filter, &found)?;
    let damage_check = DamageCheck {
        mirrored: store,
        keys: catalog.keys(),
        marks,
        reads_claimed_damage: options.scope.is_some(),
    };
    let built = build_on(app, source, catalog, &parent, &damage_check);
    match (options.scope, built) {
        (_, Ok((None, skipped))) => Ok(Plan { skipped, ..Plan::full(id) }),
        (Some(scope), Ok((Some(parent_chain), _)))
            if parent_chain.chain.len() >= CHAIN_LENGTH_MAX =>
        {
            let message = format!(
                "the chain of `{}` has {} backups, too many for {} one",
                options.source,
                parent_chain.chain.len(),
                scope.with_article()
            );
            Err(Fault::new(Kind::Refused, message).hint("start a new chain: --scope full").into())
        }
        (Some(scope), Ok((parent_chain, skipped))) => Ok(Plan { id, scope, parent_chain, skipped }),
        (Some(_), Err(error)) => Err(error.context(format!("cannot build on {}", parent.id))),
        (None, Ok((parent_chain, skipped))) => {
            Ok(Plan { id, scope: Scope::Incremental, parent_chain, skipped })
        }
        (None, Err(error)) if is_about_parent(&error) => {
            Ok(full_instead(app, Some(parent.id), id, &error))
        }
        (None, Err(error)) => Err(error),
    }
}

/// A full backup instead of one that builds on another, and why.
fn full_instead<'a>(
    app: &AppContext,
    parent: Option<BackupId>,
    id: BackupId,
    error: &anyhow::Error,
) -> Plan<'a> {
    let why = match parent {
        Some(parent) => {
            format!("cannot build on {parent}: {error:#}; check it with `bkp verify --id {parent}`")
        }
        None => format!("cannot build on the existing backups: {error:#}"),
    };
    app.ctx.monitor.warn(&format!("taking a full backup, since {why}"));
    Plan::full(id)
}

/// Whether an error may say something of the previous backup, not of today's run. If a store that
/// does not give back an object is gone altogether, the full backup will say so.
fn is_about_parent(error: &anyhow::Error) -> bool {
    matches!(
        diagnose(error).kind,
        Kind::Integrity | Kind::Key | Kind::Refused | Kind::NotFound | Kind::Store
    )
}

/// What a new backup could build on.
#[derive(Default)]
struct Candidate {
    parent: Option<BackupName>,
    /// The newest backup that is of another source with the same name.
    other: Option<Manifest>,
}

/// Says of a backup that it is of another source.
fn describe_foreign(other: &Manifest) -> String {
    let Manifest { id, source, host, identity, .. } = other;
    let named: Vec<String> = identity.iter().map(|(key, value)| format!("{key} {value}")).collect();
    let named = named.join(", ");
    format!("backup {id} of `{source}`, made on {host}, is of a different source ({named})")
}

/// The newest backup that the new one could build on: the newest that is proven and of the source as it
/// is today. Whoever can write to the store can put anything into the place of the newest, and must not end
/// the chain by that; and another host may have given another source the same name.
///
/// # Errors
/// Why the newest is not proven, if none is.
fn parent(
    app: &AppContext,
    options: &Options,
    (catalog, identity): (&Catalog<'_>, &Identity),
    found: &[FoundBackup],
    id: BackupId,
) -> anyhow::Result<Candidate> {
    let is_suited = |found: &&FoundBackup| {
        // What cleanup has begun to remove, and not ended, will be gone.
        !found.being_removed
            && found.name.kind == options.kind.as_str()
            && (options.scope != Some(Scope::Differential) || found.name.scope == Scope::Full)
    };
    let suited = found.iter().rev().filter(is_suited).map(|found| &found.name);
    let (mut passed, mut ahead, mut other) = (SkippedBackups::default(), None, None);
    for name in suited.take(CANDIDATES_MAX) {
        app.ctx.cancel.check()?;
        // A clock that was set back: the chain goes on from what is older by this clock, too.
        if name.id >= id && ahead.is_some() {
            continue;
        }
        match catalog.prove(name) {
            Ok(manifest) if manifest.identity != *identity => other = other.or(Some(manifest)),
            Ok(_) if name.id >= id => ahead = Some(name),
            Ok(_) => {
                passed.say("not building on", &*app.ctx.monitor);
                warn_of_future_backup(app, options, ahead);
                return Ok(Candidate { parent: Some(name.clone()), other });
            }
            Err(error) if is_unproven(&error) => passed.add(name, error),
            Err(error) => return Err(error),
        }
    }
    warn_of_future_backup(app, options, ahead);
    match passed.into_error() {
        Some(error) if other.is_none() => Err(error),
        Some(_) | None => Ok(Candidate { parent: None, other }),
    }
}

/// Says that a backup is dated after this run.
fn warn_of_future_backup(app: &AppContext, options: &Options, ahead: Option<&BackupName>) {
    let Some(ahead) = ahead else { return };
    app.ctx.monitor.warn(&format!(
        "backup {} of `{}` is dated {}, after this run: check the clocks; it counts as the newest backup until then",
        ahead.id,
        options.source,
        rfc3339(ahead.id.created())
    ));
}

/// Where it stands whether a backup is damaged, and what to do about a word without a proof.
struct DamageCheck<'a> {
    mirrored: &'a MirroredStore,
    keys: &'a Keyring,
    marks: Vec<(usize, HashMap<BackupName, Vec<Mark>>)>,
    /// What somebody calls damaged without a proof is read to see whether it is; else it is not built on.
    reads_claimed_damage: bool,
}

impl DamageCheck<'_> {
    /// Whether a backup has been called damaged in any of the stores.
    fn damage(&self, app: &AppContext, name: &BackupName) -> anyhow::Result<Damage> {
        let mut damage = Damage::None;
        for (index, marks) in &self.marks {
            let Some(marks) = marks.get(name) else { continue };
            let Some((_, store)) = self.mirrored.stores().find(|(of, _)| of == index) else {
                continue;
            };
            let proof_checker = ProofChecker::new(&**store, self.keys, &app.ctx);
            match judge(&**store, &proof_checker, name, marks) {
                Ok(judged) => damage = damage.max(judged.damage),
                Err(error) => self.mirrored.failed(*index, error)?,
            }
        }
        Ok(damage)
    }

    /// Whether somebody has begun to remove a backup in any of the stores.
    fn is_being_removed(&self, name: &BackupName) -> bool {
        let mut marks = self.marks.iter().filter_map(|(_, marks)| marks.get(name));
        marks.any(|marks| marks.contains(&Mark::Deleting))
    }

    /// Makes sure that a link of a chain is not damaged and stays, as far as that is known.
    fn check_link(&self, app: &AppContext, link: &BackupReader<'_>) -> anyhow::Result<()> {
        let id = link.manifest().id;
        // Else the run would find that at its end, and have made nothing.
        if self.is_being_removed(&link.manifest().name()) {
            let message = format!("backup {id} is marked for removal");
            let hint = "if no cleanup is in progress, the next one clears the mark: bkp cleanup";
            return Err(Fault::new(Kind::Refused, message).hint(hint).into());
        }
        let damage = self.damage(app, &link.manifest().name())?;
        let hint = "start a new chain: --scope full; `bkp list --long` shows what was found";
        match damage {
            Damage::None => Ok(()),
            Damage::Confirmed => {
                let message = format!("a verification found backup {id} damaged");
                Err(Fault::new(Kind::Integrity, message).hint(hint).into())
            }
            Damage::Claimed if self.reads_claimed_damage => {
                app.ctx.monitor.warn(&format!(
                    "backup {id} is marked as damaged, but no available key authenticates the mark: reading the backup to find out; `bkp verify --id {id} --level decode` resolves it"
                ));
                link.check_digests(&app.ctx)
            }
            Damage::Claimed => {
                let message = format!(
                    "backup {id} is marked as damaged, but no available key authenticates the mark"
                );
                let hint = format!(
                    "check it, which resolves the mark: bkp verify --id {id} --level decode"
                );
                Err(Fault::new(Kind::Integrity, message).hint(hint).into())
            }
        }
    }
}

/// What stands beside backups, by the place of a store in the mirrored store.
type StoreMarks = (usize, HashMap<BackupName, Vec<Mark>>);

/// What stands beside the backups of a source, in each of the stores. What several stores have in common,
/// `found`, has no mark that stands in one of them alone.
fn marks(
    app: &AppContext,
    mirrored: &MirroredStore,
    filter: &Filter,
    found: &[FoundBackup],
) -> anyhow::Result<Vec<StoreMarks>> {
    let of = |found: &[FoundBackup]| -> HashMap<BackupName, Vec<Mark>> {
        let marked = found.iter().filter(|found| !found.marks.is_empty());
        marked.map(|found| (found.name.clone(), found.marks.clone())).collect()
    };
    let stores: Vec<_> = mirrored.stores().collect();
    if let [(index, _)] = stores.as_slice() {
        return Ok(vec![(*index, of(found))]);
    }
    let mut all = Vec::new();
    for (index, store) in stores {
        match catalog::find(&**store, filter, &app.ctx.cancel) {
            Ok(found) => all.push((index, of(&found))),
            Err(error) => {
                app.ctx.cancel.check()?;
                mirrored.drop_out(index, error)?;
            }
        }
    }
    Ok(all)
}

/// A chain whose manifests are authentic, whose objects are all there and not known to be damaged, and
/// whose newest block map reads; of what the source is today. Nothing if the source had better begin a new
/// one, and nobody asked for an increment. Then come the links that are not built on.
fn build_on<'a>(
    app: &AppContext,
    source: &dyn Source,
    catalog: &Catalog<'a>,
    parent: &BackupName,
    damage_check: &DamageCheck<'_>,
) -> anyhow::Result<(Option<ParentChain<'a>>, Vec<BackupReader<'a>>)> {
    let mut chain = catalog.chain_for(parent, Need::Proof)?;
    chain.iter().try_for_each(|link| damage_check.check_link(app, link))?;
    chain.iter().try_for_each(|link| link.check_objects(&app.ctx))?;
    let kind = source::kinds::kind_of(parent.backup_type)?;
    let is_open = sealed::is_open(&chain, parent)?;
    let links = match (kind.extend)(&chain, &app.ctx)? {
        Continuation::Onto(links) => links,
        // An increment was asked for.
        Continuation::Full { else_onto } if damage_check.reads_claimed_damage => else_onto,
        Continuation::Full { .. } => return Ok((None, chain)),
    };
    // What is in skipped links may have to be read.
    if !is_open && links < chain.len() {
        return Ok((None, chain));
    }
    let skipped = chain.split_off(links.clamp(1, chain.len()));
    let ends = chain.first().zip(chain.last());
    let (base, last) = ends.ok_or_else(|| Fault::new(Kind::Integrity, "its chain is empty"))?;
    let record = last.manifest().capture.clone();
    source.check_parent(&record, &app.ctx)?;
    // The maps of others are read by the source, which needs those of the whole chain.
    let held = match kind.read_map {
        Some(read_map) if parent.kind == BackupKind::Snapshot => {
            last.map(&app.ctx, &mut |input| read_map(input))?
        }
        Some(_) | None => Held::default(),
    };
    let (base, parent) = (base.manifest().id, last.manifest().id);
    let map = ParentMap { record, held };
    Ok((Some(ParentChain { base, parent, chain, map }), skipped))
}
