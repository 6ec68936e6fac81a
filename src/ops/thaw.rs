//! Archived objects that something is about to read: which they are, what bringing them back costs, and asking
//! for it. Everything that a restore reads is asked for at once, since each wait takes hours.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use humansize::{BINARY, format_size};
use schemars::JsonSchema;
use serde::Serialize;
use time::OffsetDateTime;

use crate::catalog;
use crate::concurrent::each;
use crate::domain::cost::{self, monthly};
use crate::domain::names::BackupName;
use crate::domain::thaw::{Availability, ThawSpeed};
use crate::domain::tier::StorageClass;
use crate::domain::timestamp::rfc3339;
use crate::error::{Fault, Kind};
use crate::ops::report::Report;
use crate::pipeline::BackupReader;
use crate::store::ReadStore;
use crate::wire::AppContext;

/// The first pause between two looks, and the longest one.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(5));
/// Days of a month, for the price of keeping a readable copy.
const MONTH_DAYS: f64 = 30.0;

/// How archived objects are brought back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThawOptions {
    /// How soon.
    pub speed: ThawSpeed,
    /// For how many days they can be read then.
    pub days: u32,
    /// Wait for them.
    pub wait: bool,
}

impl Default for ThawOptions {
    fn default() -> Self {
        ThawOptions { speed: ThawSpeed::Standard, days: 7, wait: false }
    }
}

/// An object that cannot be read now.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ColdObject {
    key: String,
    bytes: u64,
    class: StorageClass,
    /// Nobody has asked for it yet.
    is_archived: bool,
}

/// What cannot be read now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cold(Vec<ColdObject>);

/// What there is to bring back, at what price, and until when.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct ThawPlan {
    /// Objects that cannot be read now.
    objects: usize,
    bytes: u64,
    /// How many of them nobody has asked for yet.
    archived: usize,
    #[serde(rename = "classes")]
    classes: BTreeSet<StorageClass>,
    tier: ThawSpeed,
    /// For how many days they can be read then.
    days: u32,
    /// What it costs, in US dollars: retrieval, requests, and the readable copy for those days.
    price: f64,
    /// How long it usually takes at most.
    seconds: u64,
}

/// The stable shape `bkp.thaw/1`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ThawReport {
    store: String,
    source: String,
    #[serde(flatten)]
    plan: ThawPlan,
    /// When all of it should be readable.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    ready_by: OffsetDateTime,
}

/// The objects of these backups that cannot be read now. A store that has no archive is not asked.
///
/// # Errors
/// What the store fails with.
pub(crate) fn find<'r, 's: 'r>(
    app: &AppContext,
    store: &dyn ReadStore,
    backups: impl IntoIterator<Item = &'r BackupReader<'s>>,
) -> anyhow::Result<Cold> {
    if !store.can_archive() {
        return Ok(Cold::default());
    }
    let cancel = &app.ctx.cancel;
    let backups = backups.into_iter().map(|backup| backup.manifest().name());
    let backups: Vec<BackupName> = backups.collect();
    let entries = each(&backups, cancel, |name| Ok(catalog::again(store, name)?))?;
    let objects = entries.into_iter().flat_map(|entry| entry.objects);
    let found: Vec<_> = objects.filter(|object| object.class.needs_thaw()).collect();
    let looked = each(&found, cancel, |object| {
        let (class, is_archived) = match store.availability(&object.key)? {
            Availability::Readable => return Ok(None),
            Availability::Archived(class) => (class, true),
            Availability::Thawing(class) => (class, false),
        };
        let (key, bytes) = (object.key.clone(), object.bytes);
        Ok(Some(ColdObject { key, bytes, class, is_archived }))
    })?;
    Ok(Cold(looked.into_iter().flatten().collect()))
}

impl Cold {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What bringing it back takes.
    ///
    /// # Errors
    /// [`Kind::Usage`] if a class is not retrieved at that speed.
    pub(crate) fn plan(&self, app: &AppContext, options: ThawOptions) -> Result<ThawPlan, Fault> {
        let ThawOptions { speed, days, .. } = options;
        let prices = cost::prices(&app.settings.status.prices);
        let standard = prices.get(StorageClass::Standard.name()).copied().unwrap_or_default();
        let (mut price, mut longest, mut bytes) = (0.0, Duration::ZERO, 0_u64);
        for object in &self.0 {
            let terms =
                speed.terms(object.class).ok_or_else(|| not_offered(speed, object.class))?;
            longest = longest.max(terms.longest);
            bytes = bytes.saturating_add(object.bytes);
            if object.is_archived {
                let kept = monthly(object.bytes, standard) / MONTH_DAYS * f64::from(days);
                price += monthly(object.bytes, terms.per_gib) + terms.per_thousand / 1000.0 + kept;
            }
        }
        Ok(ThawPlan {
            objects: self.0.len(),
            bytes,
            archived: self.0.iter().filter(|object| object.is_archived).count(),
            classes: self.0.iter().map(|object| object.class).collect(),
            tier: speed,
            days,
            price,
            seconds: longest.as_secs(),
        })
    }

    /// What bringing it back takes, if there is anything.
    ///
    /// # Errors
    /// As [`Cold::plan`].
    pub(crate) fn plan_if_any(
        &self,
        app: &AppContext,
        options: ThawOptions,
    ) -> Result<Option<ThawPlan>, Fault> {
        if self.is_empty() { Ok(None) } else { self.plan(app, options).map(Some) }
    }

    /// Asks for all that nobody has asked for.
    ///
    /// # Errors
    /// What the store fails with. What was asked for by then stays so, and is not paid for twice.
    pub(crate) fn ask(
        &self,
        app: &AppContext,
        store: &dyn ReadStore,
        options: ThawOptions,
    ) -> anyhow::Result<()> {
        let archived: Vec<_> = self.0.iter().filter(|object| object.is_archived).collect();
        let ask =
            |object: &&ColdObject| Ok(store.thaw(&object.key, options.speed, options.days)?);
        each(&archived, &app.ctx.cancel, ask).map(drop)
    }

    /// What of it cannot be read yet.
    fn left(&self, app: &AppContext, store: &dyn ReadStore) -> anyhow::Result<Cold> {
        let looked = each(&self.0, &app.ctx.cancel, |object| {
            let now = store.availability(&object.key)?;
            let is_archived = matches!(now, Availability::Archived(_));
            Ok((!now.is_readable()).then(|| ColdObject { is_archived, ..object.clone() }))
        })?;
        Ok(Cold(looked.into_iter().flatten().collect()))
    }
}

/// Brings everything back: asks, and waits if that is wanted. Returns the report of a run that has to come
/// back later; nothing if all can be read.
///
/// # Errors
/// As [`Cold::plan`] and [`Cold::ask`]; that the run is to stop.
pub(crate) fn bring_back(
    app: &AppContext,
    store: &dyn ReadStore,
    (source, cold): (&str, &Cold),
    options: ThawOptions,
) -> anyhow::Result<Option<Report>> {
    if cold.is_empty() {
        return Ok(None);
    }
    let plan = cold.plan(app, options)?;
    cold.ask(app, store, options)?;
    let longest = time::Duration::try_from(Duration::from_secs(plan.seconds));
    let ready_by = app.ctx.now() + longest.unwrap_or_default();
    if !options.wait {
        let text = asked(&plan, ready_by)?;
        let (store, source) = (store.url().to_owned(), source.to_owned());
        let report =
            Report::done("bkp.thaw/1", &ThawReport { store, source, plan, ready_by }, text)?;
        return Ok(Some(report.with_outcome(Some(Kind::Thawing))));
    }
    let (mut pause, most) = PAUSES;
    let mut left = cold.left(app, store)?;
    while !left.is_empty() {
        let what = format!("{} object(s) are not readable yet", left.0.len());
        app.ctx.monitor.detail(&format!("{what}; looking again in {} s", pause.as_secs()));
        app.ctx.pause(pause)?;
        pause = pause.saturating_mul(2).min(most);
        left = left.left(app, store)?;
        // Of one that became unreadable again nobody else knows.
        left.ask(app, store, options)?;
    }
    Ok(None)
}

/// Whether a run has to come back later. Then nothing was restored or verified.
pub(crate) fn is_waiting(ended: &anyhow::Result<Report>) -> bool {
    ended.as_ref().is_ok_and(|report| report.outcome == Some(Kind::Thawing))
}

fn not_offered(speed: ThawSpeed, class: StorageClass) -> Fault {
    let offered = ThawSpeed::ALL.iter().filter(|speed| speed.terms(class).is_some());
    let offered: Vec<&str> = offered.map(|speed| speed.name()).collect();
    let message = format!("objects in {class} are not restored at the tier {speed}");
    Fault::new(Kind::Usage, message).hint(format!("pass --tier {}", offered.join(" or ")))
}

/// In one line what bringing it back takes, before it is asked for.
pub(crate) fn summary(plan: &ThawPlan) -> String {
    let classes: Vec<&str> = plan.classes.iter().map(|class| class.name()).collect();
    format!(
        "{} object(s) ({}) in {} must be restored from the archive first: tier {}, usually within {}, about {:.2} USD",
        plan.objects,
        format_size(plan.bytes, BINARY),
        classes.join(" and "),
        plan.tier,
        hours(plan.seconds),
        plan.price,
    )
}

fn asked(plan: &ThawPlan, ready_by: OffsetDateTime) -> anyhow::Result<String> {
    let mut text = summary(plan);
    let under_way = plan.objects.saturating_sub(plan.archived);
    writeln!(text, "\nasked for {}, {under_way} already under way", plan.archived)?;
    writeln!(
        text,
        "next: run the same command again, at the latest after {}; they stay readable for {} days",
        rfc3339(ready_by),
        plan.days
    )?;
    Ok(text)
}

fn hours(seconds: u64) -> String {
    match seconds {
        0..3600 => format!("{} minutes", seconds.div_ceil(60)),
        _ => format!("{} hours", seconds.div_ceil(3600)),
    }
}
