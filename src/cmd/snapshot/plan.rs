//! What a snapshot builds on: the choice of scope and parent.

use std::collections::HashSet;

use crate::catalog::{self, Catalog, Filter, Found};
use crate::domain::id::BackupId;
use crate::domain::limits::CHAIN_LENGTH_MAX;
use crate::domain::names::{BackupName, Scope};
use crate::error::{Fault, Kind, diagnose};
use crate::pipeline::BackupReader;
use crate::source::{self, Held, ParentMap, Source};
use crate::store::layer::fan::Fan;
use crate::wire::House;

use super::{Made, Options};

/// An automatic choice begins a new chain after this many links: a restore reads all of them.
const CHAIN_LINKS_AUTO_MAX: usize = 28;

/// What is going to be done.
pub(super) struct Plan<'a> {
    /// The new backup's id. Drawn first: a parent must be older.
    pub(super) id: BackupId,
    pub(super) scope: Scope,
    /// The first and the last link of the chain that is continued; `None` for a full backup.
    pub(super) onto: Option<Onto<'a>>,
}

/// What an increment builds on.
pub(super) struct Onto<'a> {
    pub(super) base: BackupId,
    pub(super) parent: BackupId,
    /// The chain so far, base first.
    pub(super) chain: Vec<BackupReader<'a>>,
    pub(super) map: ParentMap,
}

impl Onto<'_> {
    /// The names of the chain.
    pub(super) fn names(&self) -> Vec<BackupName> {
        self.chain.iter().map(|link| link.manifest().name()).collect()
    }
}

impl Plan<'_> {
    fn full(id: BackupId) -> Self {
        Plan { id, scope: Scope::Full, onto: None }
    }
}

/// Chooses scope and parent. Whatever is wrong with the previous backup, an automatic choice ends
/// with a backup: a full one.
///
/// # Errors
/// What store and source fail with; for a scope that was asked for, also what is wrong with the
/// backup that it would build on.
pub(super) fn plan<'a>(
    house: &House,
    options: &Options,
    source: &dyn Source,
    store: &Fan,
    catalog: &Catalog<'a>,
    id: BackupId,
) -> anyhow::Result<Plan<'a>> {
    if options.scope == Some(Scope::Full) {
        return Ok(Plan::full(id));
    }
    let backup_type = house.source_settings(&options.source)?.backup_type;
    let filter = Filter::of_source(backup_type, &options.source);
    let found = catalog::find(store, &filter, &house.ctx.cancel)?;
    let damaged = damaged(house, store, &filter, &found)?;
    let Some(parent) = parent(house, options, found, id) else {
        return match options.scope {
            None => Ok(Plan::full(id)),
            Some(scope) => {
                let (source, scope) = (&options.source, scope.with_article());
                let message = format!("no backup of `{source}` that {scope} one could build on");
                Err(Fault::new(Kind::NotFound, message)
                    .hint("take a full one first: --scope full, or leave --scope out")
                    .into())
            }
        };
    };
    let built = build_on(house, source, catalog, &parent, &damaged);
    match (options.scope, built) {
        (Some(scope), Ok(onto)) if onto.chain.len() >= CHAIN_LENGTH_MAX => {
            let message = format!(
                "the chain of `{}` has {} links, too many for {} one",
                options.source,
                onto.chain.len(),
                scope.with_article()
            );
            Err(Fault::new(Kind::Refused, message).hint("begin a new chain: --scope full").into())
        }
        (Some(scope), Ok(onto)) => Ok(Plan { id, scope, onto: Some(onto) }),
        (Some(_), Err(error)) => Err(error.context(format!("{} cannot be built on", parent.id))),
        (None, Ok(onto)) if onto.chain.len() < CHAIN_LINKS_AUTO_MAX => {
            Ok(Plan { id, scope: Scope::Incremental, onto: Some(onto) })
        }
        (None, Ok(_)) => Ok(Plan::full(id)),
        (None, Err(error)) if is_about_parent(&error) => {
            let why = format!(
                "taking a full backup, since {} cannot be built on: {error:#}; look at it with `bkp verify --id {}`",
                parent.id, parent.id
            );
            house.ctx.monitor.warn(&why);
            Ok(Plan::full(id))
        }
        (None, Err(error)) => Err(error),
    }
}

/// Whether an error may say something of the previous backup, not of today's run. If a store that
/// does not give back an object is gone altogether, the full backup will say so.
fn is_about_parent(error: &anyhow::Error) -> bool {
    matches!(
        diagnose(error).kind,
        Kind::Integrity | Kind::Key | Kind::Refused | Kind::NotFound | Kind::Store
    )
}

/// The newest backup that the new one could build on.
fn parent(house: &House, options: &Options, found: Vec<Found>, id: BackupId) -> Option<BackupName> {
    // What cleanup has begun to remove, and not ended, will be gone.
    let stay = found.into_iter().filter(|found| !found.going).map(|found| found.name);
    let stay: Vec<BackupName> = stay.collect();
    let mut suited = stay.into_iter().rev().filter(|name| {
        name.kind == options.made.as_str()
            && (options.scope != Some(Scope::Differential) || name.scope == Scope::Full)
    });
    let newest = suited.next();
    // A clock that was set back: the chain goes on from what is older by this clock, too.
    let Some(ahead) = newest.clone().filter(|newest| newest.id >= id) else {
        return newest;
    };
    house.ctx.monitor.warn(&format!(
        "backup {} of `{}` is dated {}, after this run: check the clocks; until that time it stays the newest backup",
        ahead.id,
        options.source,
        ahead.id.created()
    ));
    suited.find(|name| name.id < id)
}

/// The backups of a source that a verification has found damaged, in any of the stores. What several
/// stores have in common, `found`, has no mark that stands in one of them alone.
fn damaged(
    house: &House,
    fan: &Fan,
    filter: &Filter,
    found: &[Found],
) -> anyhow::Result<HashSet<BackupId>> {
    let of = |found: &[Found]| -> Vec<BackupId> {
        let damaged = found.iter().filter(|found| found.is_damaged());
        damaged.map(|found| found.name.id).collect()
    };
    let mut all: HashSet<BackupId> = of(found).into_iter().collect();
    if fan.stores().nth(1).is_some() {
        for (index, store) in fan.stores() {
            match catalog::find(&**store, filter, &house.ctx.cancel) {
                Ok(found) => all.extend(of(&found)),
                Err(error) => {
                    house.ctx.cancel.check()?;
                    fan.drop_out(index, error)?;
                }
            }
        }
    }
    Ok(all)
}

/// A chain whose manifests are authentic, whose objects are all there and not known to be damaged, and
/// whose newest block map reads; of what the source is today.
fn build_on<'a>(
    house: &House,
    source: &dyn Source,
    catalog: &Catalog<'a>,
    parent: &BackupName,
    damaged: &HashSet<BackupId>,
) -> anyhow::Result<Onto<'a>> {
    let chain = catalog.chain(parent)?;
    if let Some(link) = chain.iter().find(|link| damaged.contains(&link.manifest().id)) {
        let message = format!("a verification has found backup {} damaged", link.manifest().id);
        let hint = "begin a new chain: --scope full; `bkp list --long` says what was found";
        return Err(Fault::new(Kind::Integrity, message).hint(hint).into());
    }
    chain.iter().try_for_each(BackupReader::check_objects)?;
    let ends = chain.first().zip(chain.last());
    let (base, last) = ends.ok_or_else(|| Fault::new(Kind::Integrity, "its chain is empty"))?;
    let record = last.manifest().capture.clone();
    source.check_parent(&record, &house.ctx)?;
    let kind = source::kind_of(parent.backup_type)?;
    // The map of an export is read by the source, which needs those of the whole chain.
    let held = if parent.kind == Made::Snapshot.as_str() {
        last.map(&house.ctx, &mut |input| (kind.read_map)(input))?
    } else {
        Held::default()
    };
    Ok(Onto { base: base.manifest().id, parent: parent.id, chain, map: ParentMap { record, held } })
}
