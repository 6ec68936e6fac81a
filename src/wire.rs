//! The composition root: opens what the settings name and stacks the decorators. The only file,
//! beside the tables themselves, that goes from names to adapters.

use std::fmt;
use std::sync::Arc;

use time::OffsetDateTime;

use crate::config::Settings;
use crate::config::settings::SourceSettings;
use crate::config::settings::jobs::JobSettings;
use crate::ctx::Ctx;
use crate::domain::retention::Policy;
use crate::error::{Fault, Kind};
use crate::ledger::{self, Ledger};
use crate::source::{self, DrillTools, ResourceLimits, Source};
use crate::store::kinds::STORES;
use crate::store::layer::StoreLayer;
use crate::store::layer::mirrored::MirroredStore;
use crate::store::layer::read_only::ReadOnly;
use crate::store::layer::retry::Retry;
use crate::store::{AppendStore, PruneStore, ReadStore, StoreKind, StoreLocation};
use crate::table::ConfigError;

mod keyring;

/// Asks the operator whether to go on; gets a summary of what is about to be done. An error means
/// no.
pub type Confirm = Arc<dyn Fn(&str) -> anyhow::Result<()> + Send + Sync>;

/// Asks the operator a question; gets the question and the answer that an empty line stands for. `None`
/// if nobody can answer.
pub type Ask = Arc<dyn Fn(&str, &str) -> anyhow::Result<Option<String>> + Send + Sync>;

/// What commands work with.
#[derive(Clone)]
pub struct AppContext {
    /// The resolved configuration.
    pub settings: Settings,
    /// Clock, cancellation, progress.
    pub ctx: Ctx,
    /// Asks before something is replaced or brought back.
    pub confirm: Confirm,
    /// Asks what a command has to know.
    pub ask: Ask,
    /// What every store is wrapped in. Only tests do that: they sweep faults through commands.
    pub layer: Option<Arc<dyn StoreLayer>>,
}

impl fmt::Debug for AppContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppContext").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl AppContext {
    /// The stores that `--store` names, or those of the source, or the only one; at least one.
    fn places(&self, source: Option<&SourceSettings>) -> anyhow::Result<Vec<StoreLocation>> {
        let settings = &self.settings;
        // Where no source is named, what all of them agree on is meant.
        let mut sources = settings.sources.values();
        let agreed = sources.next().map(|first| first.store.as_slice()).unwrap_or_default();
        let agree = sources.all(|source| source.store.first() == agreed.first());
        let of_all = if agree { agreed } else { &[] };
        let of_source = source.map_or(of_all, |source| source.store.as_slice());
        let wanted = if settings.store.is_empty() { of_source } else { &settings.store };
        match wanted {
            [_, ..] => wanted.iter().map(|text| self.place(text)).collect(),
            [] => match settings.stores.values().collect::<Vec<_>>().as_slice() {
                [only] => Ok(vec![only.place.clone()]),
                [] => Err(Fault::new(Kind::Config, "no store is configured")
                    .hint("add a [store.NAME] table, or pass --store file:///PATH")
                    .into()),
                _ => {
                    let names = settings.stores.keys().cloned().collect::<Vec<_>>().join(", ");
                    let message = "several stores are configured; choose one";
                    let hint = format!(
                        "pass --store NAME, one of: {names}; or set `store` in the source's table"
                    );
                    Err(Fault::new(Kind::Config, message).hint(hint).into())
                }
            },
        }
    }

    /// The store of this name or URL.
    fn place(&self, text: &str) -> anyhow::Result<StoreLocation> {
        if text.contains("://") {
            return self.place_at(text);
        }
        let stores = &self.settings.stores;
        let store = stores.get(text).ok_or_else(|| {
            let known = stores.keys().cloned().collect::<Vec<_>>().join(", ");
            Fault::new(Kind::NotFound, format!("no store `{text}` in the configuration")).hint(
                if stores.is_empty() {
                    "pass a URL, for example --store file:///var/backups/bkp".to_owned()
                } else {
                    format!("known stores: {known}; or pass a URL")
                },
            )
        })?;
        Ok(store.place.clone())
    }

    /// The store at this URL. What the configuration says of that place holds however it is named: by
    /// the URL of its table, or by the one that messages and reports show.
    fn place_at(&self, url: &str) -> anyhow::Result<StoreLocation> {
        let asked = StoreLocation::of_url(url);
        let shown = |place: &StoreLocation| (store_kind(&place.url).ok()?.check)(place).ok();
        let asked_shown = shown(&asked);
        let is_there = |place: &&StoreLocation| {
            place.url == url || (asked_shown.is_some() && shown(place) == asked_shown)
        };
        let places = self.settings.stores.values().map(|store| &store.place);
        match places.filter(is_there).collect::<Vec<_>>().as_slice() {
            [] => Ok(asked),
            [only] => Ok((*only).clone()),
            several => {
                let names: Vec<_> = several.iter().map(|place| place.called()).collect();
                let message = format!("several configured stores are at {url}");
                let hint = format!("pass --store NAME, one of: {}", names.join(", "));
                Err(Fault::new(Kind::Config, message).hint(hint).into())
            }
        }
    }

    /// The place to read from: of several that a source has, the first.
    fn place_to_read(&self, source: Option<&SourceSettings>) -> anyhow::Result<StoreLocation> {
        let chosen = &self.settings.store;
        if chosen.len() > 1 {
            let message = format!("this command reads one store, not {}", chosen.join(", "));
            return Err(Fault::new(Kind::Usage, message).hint("pass --store once").into());
        }
        let place = self.places(source)?.into_iter().next();
        Ok(place.ok_or_else(|| Fault::new(Kind::Config, "no store"))?)
    }

    /// The store to read from: of several that a source has, the first.
    ///
    /// # Errors
    /// If none is configured or it cannot be opened; [`Kind::Usage`] if several were chosen.
    pub fn store_read(
        &self,
        source: Option<&SourceSettings>,
    ) -> anyhow::Result<Box<dyn ReadStore>> {
        self.read(&self.place_to_read(source)?)
    }

    fn read(&self, place: &StoreLocation) -> anyhow::Result<Box<dyn ReadStore>> {
        let kind = store_kind(&place.url)?;
        let mut inner = match (self.settings.store_at, kind.read_at) {
            (None, _) => (kind.read)(place, &self.ctx)?,
            (Some(at), Some(read_at)) => read_at(place, at, &self.ctx)?,
            (Some(_), None) => {
                let message = format!(
                    "store `{}` keeps no versions of its objects to read as of a time",
                    place.called()
                );
                let hint = "--store-at is for buckets with versioning; omit it, or use the snapshots of the file system";
                return Err(Fault::new(Kind::Usage, message).hint(hint).into());
            }
        };
        if let Some(layer) = &self.layer {
            inner = layer.read(inner);
        }
        Ok(Box::new(Retry::new(inner, self.ctx.clone()).called(place.called())))
    }

    /// Every store of a source, or each that was chosen, to read from: the next one has what one lacks.
    ///
    /// # Errors
    /// If none is configured, or one cannot be opened.
    pub fn stores_read(
        &self,
        source: Option<&SourceSettings>,
    ) -> anyhow::Result<Vec<Box<dyn ReadStore>>> {
        self.places(source)?.into_iter().map(|place| self.read(&place)).collect()
    }

    /// The same with stores as they were at `at`; now if that is `None`.
    #[must_use]
    pub fn as_of(&self, at: Option<OffsetDateTime>) -> AppContext {
        let mut app = self.clone();
        app.settings.store_at = at;
        app
    }

    /// The store that [`AppContext::store_read`] opens, to note beside what is read what was found. The past
    /// takes no notes.
    ///
    /// # Errors
    /// As [`AppContext::store_read`].
    pub fn store_read_and_note(
        &self,
        source: Option<&SourceSettings>,
    ) -> anyhow::Result<Box<dyn AppendStore>> {
        let place = self.place_to_read(source)?;
        if self.settings.store_at.is_some() {
            return Ok(Box::new(ReadOnly::new(self.read(&place)?)));
        }
        self.append(&place)
    }

    /// The names of the stores that may have copies of what the first one has of `source`: its others, and those
    /// that jobs replicate to. None where a store was chosen.
    #[must_use]
    pub fn stores_with_copies(&self, source: Option<&str>) -> Vec<String> {
        let settings = &self.settings;
        let of_source = source.and_then(|name| settings.sources.get(name));
        let first = self.places(of_source).ok().and_then(|places| places.into_iter().next());
        let Some(first) =
            first.filter(|_first| settings.store.is_empty() && settings.store_at.is_none())
        else {
            return Vec::new();
        };
        let of_source = of_source.map(|source| source.store.as_slice()).unwrap_or_default();
        let is_of = |job: &&JobSettings| job.source.is_none() || job.source.as_deref() == source;
        let copied = settings.jobs.values().filter(is_of).filter_map(|job| job.copies.as_ref());
        let mut found: Vec<String> = Vec::new();
        for name in of_source.iter().chain(copied.map(|copies| &copies.to)) {
            if first.called() != name.as_str() && !found.contains(name) {
                found.push(name.clone());
            }
        }
        found
    }

    /// The stores to add to, as one.
    ///
    /// # Errors
    /// If none is configured or none can be opened.
    pub fn stores_append(&self, source: Option<&SourceSettings>) -> anyhow::Result<MirroredStore> {
        let open = |place: StoreLocation| (place.url.clone(), self.append(&place));
        let stores = self.places(source)?.into_iter().map(open).collect();
        MirroredStore::new(stores, &self.ctx)
    }

    /// The store that `--store` names, to add to.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn store_append(&self, name: &str) -> anyhow::Result<Box<dyn AppendStore>> {
        self.append(&self.place(name)?)
    }

    /// The stores that `--store` names, or all that are configured; at least one.
    ///
    /// # Errors
    /// [`Kind::Config`] if there is none.
    pub fn store_names(&self) -> anyhow::Result<Vec<String>> {
        let Settings { store, stores, .. } = &self.settings;
        let names: Vec<String> =
            if store.is_empty() { stores.keys().cloned().collect() } else { store.clone() };
        if names.is_empty() {
            // Says what to do about it.
            self.places(None)?;
        }
        Ok(names)
    }

    /// The store of this name or URL, to look at.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn store_named(&self, name: &str) -> anyhow::Result<Box<dyn ReadStore>> {
        let mut app = self.clone();
        app.settings.store = vec![name.to_owned()];
        app.store_read(None)
    }

    /// The rules by which the service of this store moves data by itself, as it takes them; `None` if it has none.
    ///
    /// # Errors
    /// If there is no such store.
    pub fn lifecycle(&self, name: &str) -> anyhow::Result<Option<serde_json::Value>> {
        let place = self.place(name)?;
        Ok((store_kind(&place.url)?.lifecycle)(&place)?)
    }

    /// The store of this name or URL, to remove from. Only `cleanup` asks for one.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn store_prune(&self, name: &str) -> anyhow::Result<Box<dyn PruneStore>> {
        let place = self.place(name)?;
        let mut inner = (store_kind(&place.url)?.prune)(&place, &self.ctx)?;
        if let Some(layer) = &self.layer {
            inner = layer.prune(inner);
        }
        Ok(Box::new(Retry::new(inner, self.ctx.clone()).called(place.called())))
    }

    fn append(&self, place: &StoreLocation) -> anyhow::Result<Box<dyn AppendStore>> {
        let mut inner = (store_kind(&place.url)?.append)(place, &self.ctx)?;
        if let Some(layer) = &self.layer {
            inner = layer.append(inner);
        }
        Ok(Box::new(Retry::new(inner, self.ctx.clone()).called(place.called())))
    }

    /// The ledger, if one is configured. It connects when it is first asked something; a command
    /// calls this once, so that it takes one client session.
    #[must_use]
    pub fn ledger(&self) -> Option<Box<dyn Ledger>> {
        let settings = self.settings.ledger.as_ref()?;
        Some(Box::new(ledger::tigerbeetle::TigerBeetle::new(settings, &self.ctx)))
    }

    /// The settings of a configured source.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if there is none of that name.
    pub fn source_settings(&self, name: &str) -> anyhow::Result<&SourceSettings> {
        let sources = &self.settings.sources;
        if self.settings.file.is_none() {
            let looked = self.settings.provenance.looked.clone();
            return Err(ConfigError::Missing { looked }.into());
        }
        let found = sources.get(name).ok_or_else(|| {
            let known = sources.keys().cloned().collect::<Vec<_>>().join(", ");
            let known = if known.is_empty() { "none".to_owned() } else { known };
            Fault::new(Kind::NotFound, format!("no source `{name}` in the configuration"))
                .hint(format!("configured sources: {known}"))
        })?;
        Ok(found)
    }

    /// Which of the backups that a job makes are kept in a store; `None` for all.
    #[must_use]
    pub fn retention(&self, store: &str, job: &JobSettings) -> Option<Policy> {
        let own = self.own_retention(store).filter(|_policy| job.run.makes().is_some());
        own.or(job.retention.as_ref()).cloned()
    }

    /// What is kept in a store where that is not as each job says and promises.
    #[must_use]
    pub fn own_retention(&self, store: &str) -> Option<&Policy> {
        self.settings.stores.get(store)?.retention.as_ref()
    }

    /// A configured source, ready to be captured.
    ///
    /// # Errors
    /// As [`AppContext::source_settings`], and what its kind says of its table.
    pub fn source(&self, name: &str) -> anyhow::Result<Box<dyn Source>> {
        let settings = self.source_settings(name)?;
        let kind = source::kinds::kind_of(settings.backup_type)?;
        Ok((kind.open)(name, settings.table.clone())?)
    }

    /// What a drill works with: the configured programs, and an engine that takes this of the machine.
    #[must_use]
    pub fn drill_tools(&self, share: ResourceLimits) -> DrillTools {
        let Settings { tigerbeetle, postgres, .. } = &self.settings;
        DrillTools {
            tigerbeetle: tigerbeetle.clone(),
            postgres: postgres.clone(),
            share,
            keys: None,
        }
    }
}

fn store_kind(url: &str) -> anyhow::Result<&'static StoreKind> {
    let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
    let found = STORES.iter().find(|kind| kind.scheme == scheme);
    let known = || STORES.iter().map(|kind| kind.scheme).collect::<Vec<_>>().join(", ");
    let found = found.ok_or_else(|| {
        Fault::new(Kind::Config, format!("unknown store scheme `{scheme}`"))
            .hint(format!("known schemes: {}", known()))
    })?;
    Ok(found)
}
