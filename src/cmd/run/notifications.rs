//! Sends notifications about findings: once when one appears, again when it gets worse or persists, and
//! when it is resolved. What was sent is kept in the state directory; if that is lost, it is sent
//! again.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use crate::cache;
use crate::cmd::status::{self, Status};
use crate::config::settings::notifications::NotifySettings;
use crate::ctx::host;
use crate::domain::health::{Finding, Level, Rule};
use crate::notify::kinds::KINDS;
use crate::notify::{Alert, Notification};
use crate::ops::jobs::state::places;
use crate::wire::AppContext;

/// How often it is looked at everything although nothing ran.
const CHECK_EVERY: Duration = Duration::minutes(15);

/// What every channel was told.
#[derive(Debug, Default, Serialize, Deserialize)]
struct NotificationState {
    #[serde(with = "time::serde::rfc3339::option")]
    looked: Option<OffsetDateTime>,
    channels: BTreeMap<String, Vec<NotifiedFinding>>,
}

/// Something that is wrong, as far as a channel was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct NotifiedFinding {
    rule: String,
    subject: String,
    #[serde(default)]
    store: Option<String>,
    level: Level,
    message: String,
    #[serde(with = "time::serde::rfc3339")]
    told: OffsetDateTime,
}

/// Checks the status if something ran, or if it has not been checked for a while; writes the
/// metrics and tells the channels what is new. Returns whether somebody could not be told.
pub(super) fn notify_if_changed(app: &AppContext, ran: bool) -> bool {
    let settings = &app.settings;
    if settings.notify.is_empty() && settings.status.metrics_file.is_none() {
        return false;
    }
    let path = path(app);
    let mut state: NotificationState = cache::load(&path).unwrap_or_default();
    let now = app.ctx.now();
    let recent = state.looked.is_some_and(|looked| looked <= now && now - looked < CHECK_EVERY);
    if recent && !ran {
        return false;
    }
    let status = match status::collect(app) {
        Ok(status) => status,
        Err(error) => {
            app.ctx.monitor.warn(&format!("cannot check the status: {error:#}"));
            return !settings.notify.is_empty();
        }
    };
    status::write_metrics(app, &status);
    state.looked = Some(now);
    let mut failed = false;
    for to in &settings.notify {
        let known = state.channels.remove(&to.channel.name).unwrap_or_default();
        let (alerts, known_afterwards) = alerts_since(app, to, &known, &status, now);
        let delivered = alerts.is_empty() || send_alerts(app, to, alerts, now);
        failed |= !delivered;
        // Whoever did not hear it is told again.
        state
            .channels
            .insert(to.channel.name.clone(), if delivered { known_afterwards } else { known });
    }
    cache::save(&path, &state, &app.ctx);
    failed
}

fn path(app: &AppContext) -> PathBuf {
    cache::folder(&app.settings.state_dir).join("told.json")
}

/// What a channel has to be told now, and all that it knows to be wrong once it was.
fn alerts_since(
    app: &AppContext,
    to: &NotifySettings,
    known: &[NotifiedFinding],
    status: &Status,
    now: OffsetDateTime,
) -> (Vec<Alert>, Vec<NotifiedFinding>) {
    let remind = Duration::try_from(app.settings.upkeep.remind_after).unwrap_or(Duration::MAX);
    let same = |known: &NotifiedFinding, finding: &Finding| {
        known.rule == finding.rule.as_str()
            && known.subject == finding.subject
            && known.store == finding.store
    };
    let wanted = status.findings().iter().filter(|finding| finding.level >= to.level);
    let (mut alerts, mut known_afterwards): (Vec<Alert>, Vec<NotifiedFinding>) =
        (Vec::new(), Vec::new());
    for finding in wanted {
        // Of one rule about one thing one is enough, the worst.
        if known_afterwards.iter().any(|known| same(known, finding)) {
            continue;
        }
        let before = known.iter().find(|known| same(known, finding));
        let quiet = before.filter(|b| b.level >= finding.level && now - b.told < remind);
        if quiet.is_none() {
            alerts.push(Alert {
                level: finding.level,
                recovered: false,
                rule: finding.rule.to_string(),
                subject: finding.subject.clone(),
                tenant: tenant(app, &finding.subject, finding.store.as_deref()),
                store: finding.store.clone(),
                message: finding.message.clone(),
            });
        }
        known_afterwards.push(NotifiedFinding {
            rule: finding.rule.to_string(),
            subject: finding.subject.clone(),
            store: finding.store.clone(),
            level: finding.level,
            message: finding.message.clone(),
            told: quiet.map_or(now, |before| before.told),
        });
    }
    for known in known {
        let is_same = |other: &NotifiedFinding| {
            (&other.rule, &other.subject, &other.store)
                == (&known.rule, &known.subject, &known.store)
        };
        if known_afterwards.iter().any(is_same) {
            continue;
        }
        if is_hidden(app, known, status) {
            known_afterwards.push(known.clone());
            continue;
        }
        alerts.push(Alert {
            level: known.level,
            recovered: true,
            rule: known.rule.clone(),
            subject: known.subject.clone(),
            tenant: tenant(app, &known.subject, known.store.as_deref()),
            store: known.store.clone(),
            message: known.message.clone(),
        });
    }
    (alerts, known_afterwards)
}

/// Whose data the job or the source holds that something is about; a finding about a store is about nobody's.
fn tenant(app: &AppContext, subject: &str, store: Option<&str>) -> Option<String> {
    if store == Some(subject) {
        return None;
    }
    let of_job = app.settings.jobs.get(subject).and_then(|job| job.source.as_deref());
    app.settings.sources.get(of_job.unwrap_or(subject))?.tenant.clone()
}

/// Whether what was wrong may only be out of sight, because a store or a server does not answer that it is about.
fn is_hidden(app: &AppContext, known: &NotifiedFinding, status: &Status) -> bool {
    let is_away = |store: &str| status.away().any(|away| away == store);
    if known.rule == Rule::Unreachable.as_str() {
        return false;
    }
    let is_unknown = |finding: &Finding| finding.rule == Rule::Lag && finding.level == Level::Info;
    if known.rule == Rule::Lag.as_str() {
        let mut findings = status.findings().iter();
        return findings.any(|finding| is_unknown(finding) && finding.subject == known.subject);
    }
    if let Some(store) = &known.store {
        return is_away(store);
    }
    let jobs = app.settings.jobs.values();
    let about = jobs.filter(|job| {
        job.name == known.subject || job.source.as_deref() == Some(known.subject.as_str())
    });
    about.flat_map(|job| places(app, job)).any(|store| is_away(&store))
}

/// Tells a channel; whether it was heard.
fn send_alerts(
    app: &AppContext,
    to: &NotifySettings,
    alerts: Vec<Alert>,
    at: OffsetDateTime,
) -> bool {
    let news = Notification { schema: "bkp.alert/1", host: host(), at, alerts };
    let kind = KINDS.iter().find(|kind| kind.word == to.channel.kind);
    let told = kind.map(|kind| (kind.send)(&to.channel, &news));
    let Some(Err(error)) = told else { return true };
    let name = &to.channel.name;
    app.ctx.monitor.warn(&format!("could not notify `{name}`: {error:#}; will retry"));
    false
}
