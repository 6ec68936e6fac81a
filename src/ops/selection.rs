//! Selects the backup that a command operates on.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::catalog::{self, Catalog, Filter, FoundBackup, is_unproven};
use crate::ctx::{Ctx, Monitor};
use crate::domain::backup_kind::BackupKind;
use crate::domain::names::BackupName;
use crate::domain::schedule::SKEW;
use crate::error::{Fault, Kind, diagnose};
use crate::keys::{Effort, KeyError};
use crate::store::ReadStore;

/// How many of the backups that are passed over are named.
const NAMED_MAX: usize = 10;

/// How the operator named a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Select {
    /// The newest backup of a source.
    Latest(String),
    /// The backup whose id begins with this text; the text must fit exactly one.
    Id(String),
    /// As [`Select::Id`], and the backup must be one of this source (source, then id): an operator
    /// who names both and contradicts himself must not get the other source's data.
    IdOf(String, String),
    /// The newest backup of a source that started no later than this.
    At(String, OffsetDateTime),
}

impl Select {
    /// The source it names, if it names one.
    #[must_use]
    pub fn source(&self) -> Option<&str> {
        match self {
            Select::Latest(source) | Select::At(source, _) | Select::IdOf(source, _) => {
                Some(source)
            }
            Select::Id(_) => None,
        }
    }

    /// The beginning of the id, if it was given.
    fn id(&self) -> Option<&str> {
        match self {
            Select::Id(id) | Select::IdOf(_, id) => Some(id),
            Select::Latest(_) | Select::At(..) => None,
        }
    }

    /// As much as may be spent on opening it: whoever names a backup wants that one.
    #[must_use]
    pub fn effort(&self) -> Effort {
        if self.id().is_some() { Effort::Named } else { Effort::Usual }
    }

    /// The one backup that is meant, as far as keys at hand prove it.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if there is none, [`Kind::Usage`] if an id fits several; as [`first_proven`].
    pub fn resolve(&self, catalog: &Catalog<'_>, ctx: &Ctx) -> anyhow::Result<ChosenBackup> {
        let names = self.candidates(catalog.store(), &|_name| true, ctx)?;
        first_proven(names, catalog, ctx)
    }

    /// The one backup that is meant, for a restore: of a source either among its exports or among
    /// the others; an id means what it means.
    ///
    /// # Errors
    /// As [`Select::resolve`].
    pub fn resolve_of(
        &self,
        catalog: &Catalog<'_>,
        exports: bool,
        ctx: &Ctx,
    ) -> anyhow::Result<ChosenBackup> {
        let store = catalog.store();
        let is_export = |name: &BackupName| name.kind == BackupKind::Export;
        let named = self.id().is_some();
        let found = self.candidates(store, &|name| named || is_export(name) == exports, ctx);
        let candidates = found.map_err(|error| {
            let others = self.candidates(store, &|name| is_export(name) != exports, ctx);
            match others {
                Ok(_) if !named && exports => error.context("it has no exports"),
                Ok(_) if !named => Fault::new(Kind::NotFound, format!("{error}, only exports"))
                    .hint("restore those with --from-export")
                    .into(),
                Ok(_) | Err(_) => error,
            }
        })?;
        first_proven(candidates, catalog, ctx)
    }

    /// The backups that may be meant by what a listing says, at least one, the best first.
    fn candidates(
        &self,
        store: &dyn ReadStore,
        wanted: &dyn Fn(&BackupName) -> bool,
        ctx: &Ctx,
    ) -> anyhow::Result<Vec<BackupName>> {
        let filter = Filter {
            source: self.source().map(str::to_owned),
            id: self.id().map(str::to_owned),
            backup_type: None,
        };
        let mut found = catalog::find(store, &filter, &ctx.cancel)?;
        if self.id().is_none() {
            // A segment of a log is no state that could be restored by itself.
            found.retain(|found| found.name.kind != BackupKind::Log);
        }
        found.retain(|found| wanted(&found.name));
        let missing = |what: String| Fault::new(Kind::NotFound, format!("{}: {what}", store.url()));
        match self {
            Select::Latest(source) if found.is_empty() => {
                return Err(missing(format!("no backup of `{source}`")).into());
            }
            Select::Latest(_) => return Ok(newest_first(found, ctx)),
            Select::At(source, time) => {
                let next = found.first().map(|next| (next.name.id, created(next)));
                found.retain(|backup| backup.name.id.created() <= *time);
                if found.is_empty() {
                    let time = time.format(&Rfc3339).unwrap_or_default();
                    let next = next.map(|(id, at)| format!("; the first is {id} of {at}"));
                    let next = next.unwrap_or_default();
                    let what = format!("no backup of `{source}` that began by {time}{next}");
                    return Err(missing(what).into());
                }
            }
            Select::Id(id) | Select::IdOf(_, id) => match found.as_slice() {
                [] => return Err(missing(format!("no backup with id `{id}`")).into()),
                // Whoever can write to the store can give one id to a second backup.
                [first, rest @ ..] if rest.iter().all(|f| f.name.id == first.name.id) => {}
                several => return Err(ambiguous(id, several).into()),
            },
        }
        Ok(found.into_iter().rev().map(|found| found.name).collect())
    }
}

/// The backups of a source, the newest first; but what is dated in the future comes last, and that is said:
/// a clock was wrong, or somebody planted it, and it would stay the newest until that time.
fn newest_first(found: Vec<FoundBackup>, ctx: &Ctx) -> Vec<BackupName> {
    let names = found.into_iter().rev().map(|found| found.name);
    let is_past = |name: &BackupName| name.id.created() - ctx.now() <= SKEW;
    let (mut past, future): (Vec<_>, Vec<_>) = names.partition(is_past);
    if !past.is_empty() && !future.is_empty() {
        let ids: Vec<String> =
            future.iter().take(NAMED_MAX).map(|name| name.id.to_string()).collect();
        ctx.monitor.warn(&format!(
            "skipping {} backup(s) dated in the future; --id selects one: {}",
            future.len(),
            ids.join(", ")
        ));
    }
    past.extend(future);
    past
}

/// The chosen backup.
#[derive(Debug)]
pub struct ChosenBackup {
    /// The backup.
    pub name: BackupName,
    /// How many were passed over, which would have been chosen before it.
    pub passed: usize,
}

/// Backups that were passed over since nothing shows that bkp made them, in the order in which they were
/// met.
#[derive(Debug, Default)]
pub(crate) struct SkippedBackups {
    said: Vec<String>,
    count: usize,
    error: Option<anyhow::Error>,
}

impl SkippedBackups {
    pub(crate) fn add(&mut self, name: &BackupName, error: anyhow::Error) {
        self.count += 1;
        if self.said.len() < NAMED_MAX {
            self.said.push(format!("{} of `{}`: {error:#}", name.id, name.source));
        }
        // That it has no key is what whoever lost one has to be told.
        let is_better = diagnose(&error).kind == Kind::Key
            && self.error.as_ref().is_none_or(|error| diagnose(error).kind != Kind::Key);
        // One that was not even tried may be the one that is wanted.
        let is_untried =
            |error: &anyhow::Error| matches!(error.downcast_ref(), Some(KeyError::Spent { .. }));
        let is_first_untried = is_untried(&error) && !self.error.as_ref().is_some_and(is_untried);
        if self.error.is_none() || is_better || is_first_untried {
            self.error = Some(error);
        }
    }

    /// Says what was passed over.
    pub(crate) fn say(&self, what: &str, monitor: &dyn Monitor) {
        for said in &self.said {
            monitor.warn(&format!("{what} {said}"));
        }
        let more = self.count - self.said.len();
        if more > 0 {
            monitor.warn(&format!(
                "{what} {more} more that no available key authenticates; see `bkp verify --all`"
            ));
        }
    }

    /// Why one of them was passed over; nothing if none was.
    pub(crate) fn into_error(self) -> Option<anyhow::Error> {
        self.error
    }
}

/// The first of `names` that a key at hand proves; of one alone the caller finds out by himself. What is
/// passed over is said: the newest backup may be one whose key is not at hand.
///
/// # Errors
/// If none is proven why that is so; that a key could not be asked; [`Kind::Integrity`] for a backup that
/// a key at hand opens and whose manifest was altered.
fn first_proven(
    mut names: Vec<BackupName>,
    catalog: &Catalog<'_>,
    ctx: &Ctx,
) -> anyhow::Result<ChosenBackup> {
    if names.len() == 1
        && let Some(name) = names.pop()
    {
        return Ok(ChosenBackup { name, passed: 0 });
    }
    let mut passed = SkippedBackups::default();
    for name in names {
        ctx.cancel.check()?;
        match catalog.prove(&name) {
            Ok(_manifest) => {
                passed.say("skipping backup", &*ctx.monitor);
                if passed.count > 0 {
                    ctx.monitor.warn(&format!(
                        "backup {} is the newest that an available key authenticates; for a skipped one, pass its key with --key or name it with --id",
                        name.id
                    ));
                }
                return Ok(ChosenBackup { name, passed: passed.count });
            }
            Err(error) if catalog::is_altered(&error) && !catalog.is_elsewhere(&name)? => {
                let id = name.id;
                let hint = format!(
                    "another store may have an intact copy (--store); otherwise choose an older one from `bkp list {}` with --id",
                    name.source
                );
                let message = format!("backup {id} was tampered with: {error:#}");
                return Err(Fault::new(Kind::Integrity, message).hint(hint).into());
            }
            Err(error) if is_unproven(&error) => passed.add(&name, error),
            Err(error) => return Err(error),
        }
    }
    passed.say("skipping backup", &*ctx.monitor);
    let none = || Fault::new(Kind::NotFound, "no backup is left").into();
    Err(passed.into_error().unwrap_or_else(none))
}

/// When it began, to the millisecond, as `--at` takes it.
fn created(found: &FoundBackup) -> String {
    found.name.id.created().format(&Rfc3339).unwrap_or_default()
}

fn ambiguous(id: &str, several: &[FoundBackup]) -> Fault {
    let ids: Vec<String> = several.iter().take(5).map(|found| found.name.id.to_string()).collect();
    Fault::new(Kind::Usage, format!("`{id}` matches {} backups", several.len()))
        .hint(format!("use more digits of the id: {}", ids.join(", ")))
}
