//! Which backup a command means.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::snapshot::Made;
use crate::catalog::{self, Filter, Found};
use crate::ctx::Ctx;
use crate::domain::names::BackupName;
use crate::domain::segment;
use crate::error::{Fault, Kind};
use crate::store::ReadStore;

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

    /// The one backup that is meant.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if there is none, [`Kind::Usage`] if an id fits several.
    pub fn resolve(&self, store: &dyn ReadStore, ctx: &Ctx) -> anyhow::Result<BackupName> {
        self.resolve_among(store, &|_name| true, ctx)
    }

    /// The one backup that is meant, for a restore: of a source either among its exports or among
    /// the others; an id means what it means.
    ///
    /// # Errors
    /// As [`Select::resolve`].
    pub fn resolve_of(
        &self,
        store: &dyn ReadStore,
        exports: bool,
        ctx: &Ctx,
    ) -> anyhow::Result<BackupName> {
        let is_export = |name: &BackupName| name.kind == Made::Export.as_str();
        let named = self.id().is_some();
        let found = self.resolve_among(store, &|name| named || is_export(name) == exports, ctx);
        found.map_err(|error| {
            let others = self.resolve_among(store, &|name| is_export(name) != exports, ctx);
            match others {
                Ok(_) if !named && exports => error.context("it has no exports"),
                Ok(_) if !named => Fault::new(Kind::NotFound, format!("{error}, but exports"))
                    .hint("restore those with --from-export")
                    .into(),
                Ok(_) | Err(_) => error,
            }
        })
    }

    fn resolve_among(
        &self,
        store: &dyn ReadStore,
        wanted: &dyn Fn(&BackupName) -> bool,
        ctx: &Ctx,
    ) -> anyhow::Result<BackupName> {
        let filter = Filter {
            source: self.source().map(str::to_owned),
            id: self.id().map(str::to_owned),
            backup_type: None,
        };
        let mut found = catalog::find(store, &filter, &ctx.cancel)?;
        if self.id().is_none() {
            // A segment of a log is no state that could be restored by itself.
            found.retain(|found| found.name.kind != segment::KIND);
        }
        found.retain(|found| wanted(&found.name));
        let missing = |what: String| Fault::new(Kind::NotFound, format!("{}: {what}", store.url()));
        let chosen = match self {
            Select::Latest(source) => {
                found.last().ok_or_else(|| missing(format!("no backup of `{source}`")))?
            }
            Select::At(source, time) => {
                let mut until = found.iter().filter(|backup| backup.name.id.created() <= *time);
                until.next_back().ok_or_else(|| {
                    let time = time.format(&Rfc3339).unwrap_or_default();
                    let next = found.first().map(|next| {
                        format!("; the first is {} of {}", next.name.id, created(next))
                    });
                    let next = next.unwrap_or_default();
                    missing(format!("no backup of `{source}` that began by {time}{next}"))
                })?
            }
            Select::Id(id) | Select::IdOf(_, id) => match found.as_slice() {
                [] => return Err(missing(format!("no backup with id `{id}`")).into()),
                [only] => only,
                several => return Err(ambiguous(id, several).into()),
            },
        };
        Ok(chosen.name.clone())
    }
}

/// When it began, to the millisecond, as `--at` takes it.
fn created(found: &Found) -> String {
    found.name.id.created().format(&Rfc3339).unwrap_or_default()
}

fn ambiguous(id: &str, several: &[Found]) -> Fault {
    let ids: Vec<String> = several.iter().take(5).map(|found| found.name.id.to_string()).collect();
    Fault::new(Kind::Usage, format!("`{id}` fits {} backups", several.len()))
        .hint(format!("give more of the id: {}", ids.join(", ")))
}
