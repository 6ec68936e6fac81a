//! `bkp keys list` and `bkp keys status`: which keys there are, what they open, and how they are.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use schemars::JsonSchema;
use serde::Serialize;
use time::OffsetDateTime;

use crate::catalog::{self, Catalog, Filter};
use crate::concurrent::each;
use crate::domain::health::{Finding, Level};
use crate::domain::id::BackupId;
use crate::domain::key_facts::KeyState;
use crate::domain::recipient::Recipient;
use crate::error::Kind;
use crate::ops::key_health::ConfiguredKey;
use crate::ops::report::Report;
use crate::wire::AppContext;

/// The stable shape `bkp.keys-list/1`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct KeysList {
    keys: Vec<KeyRow>,
    /// Backups in all stores, copies of one counted once.
    backups: usize,
    /// Backups that no key at hand proves: what is said of them is what their manifests claim.
    unproven: usize,
    /// Backups whose manifest cannot be read.
    unreadable: usize,
}

/// A key that is configured, or that a backup was sealed for.
#[derive(Debug, Serialize, JsonSchema)]
struct KeyRow {
    /// As configured; null for one that only backups name.
    recipient: Option<String>,
    /// How backups name it: its kind.
    kind: Option<String>,
    /// And its id.
    id: Option<String>,
    /// Backups that it opens, as their manifests and the envelopes beside them say.
    backups: usize,
    /// Those of them that no other key opens.
    alone: usize,
}

/// The stable shape `bkp.keys-status/1`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct KeysStatus {
    keys: Vec<KeyStatus>,
    /// What is wrong, the worst first.
    findings: Vec<Finding>,
}

/// How a key is.
#[derive(Debug, Serialize, JsonSchema)]
struct KeyStatus {
    /// As configured.
    recipient: String,
    /// `usable`, `disabled`, `deleting`, `unusable`, or `unknown` where its place does not tell.
    state: &'static str,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    created: Option<OffsetDateTime>,
    /// Backups that it opens, as their manifests and the envelopes beside them say.
    backups: usize,
}

/// The recipients of every backup, by its id.
#[derive(Default)]
struct Claims {
    backups: BTreeMap<BackupId, Vec<Recipient>>,
    /// Those of them that something at hand proves.
    proven: BTreeSet<BackupId>,
    unreadable: BTreeSet<BackupId>,
}

impl Claims {
    /// Reads every manifest of every store, and the envelopes.
    fn read(app: &AppContext, source: Option<&str>) -> anyhow::Result<Claims> {
        let (mut claims, ctx, keys) = (Claims::default(), &app.ctx, app.keys_at_hand());
        for name in app.store_names()? {
            let store = app.store_named(&name)?;
            let filter = Filter { source: source.map(str::to_owned), ..Filter::default() };
            let mut entries = catalog::contents(&*store, &filter, &ctx.cancel)?;
            entries.retain(|entry| entry.manifest.is_some());
            let catalog = Catalog::new(&*store, &keys, ctx);
            let read = each(&entries, &ctx.cancel, |entry| Ok(catalog.openers(entry).ok()))?;
            for (entry, openers) in entries.iter().zip(read) {
                let id = entry.name.id;
                let Some((recipients, is_proven)) = openers else {
                    claims.unreadable.insert(id);
                    continue;
                };
                claims.backups.entry(id).or_default().extend(recipients);
                if is_proven {
                    claims.proven.insert(id);
                }
            }
        }
        // One copy that is whole is enough.
        let Claims { backups, unreadable, .. } = &mut claims;
        unreadable.retain(|id| !backups.contains_key(id));
        Ok(claims)
    }

    /// Backups of which one recipient is `wanted`, and those of which every one is.
    fn count(&self, wanted: impl Fn(&Recipient) -> bool) -> (usize, usize) {
        let of = |all: bool| {
            let opened = self.backups.values().filter(|recipients| {
                if all { recipients.iter().all(&wanted) } else { recipients.iter().any(&wanted) }
            });
            opened.filter(|recipients| !recipients.is_empty()).count()
        };
        (of(false), of(true))
    }
}

/// Lists every key that the configuration or a backup names.
///
/// # Errors
/// What the stores fail with.
pub fn list(app: &AppContext, source: Option<&str>) -> anyhow::Result<Report> {
    let (claims, configured) = (Claims::read(app, source)?, ConfiguredKey::all(app));
    let mut keys = Vec::new();
    for key in &configured {
        let named = claims.backups.values().flatten().find(|recipient| key.is(recipient));
        let (backups, alone) = claims.count(|recipient| key.is(recipient));
        let known = key.facts.as_ref().ok().and_then(|facts| facts.id.clone());
        keys.push(KeyRow {
            recipient: Some(key.shown.clone()),
            kind: named.map(|recipient| recipient.kind.clone()),
            id: named.map(|recipient| recipient.id.clone()).or(known),
            backups,
            alone,
        });
    }
    let others = claims.backups.values().flatten();
    let others = others.filter(|recipient| !configured.iter().any(|key| key.is(recipient)));
    let others: BTreeSet<(&str, &str)> =
        others.map(|recipient| (recipient.kind.as_str(), recipient.id.as_str())).collect();
    for (kind, id) in others {
        let is_it = |recipient: &Recipient| recipient.kind == kind && recipient.id == id;
        let (backups, alone) = claims.count(is_it);
        let (kind, id) = (Some(kind.to_owned()), Some(id.to_owned()));
        keys.push(KeyRow { recipient: None, kind, id, backups, alone });
    }
    let (backups, unreadable) = (claims.backups.len(), claims.unreadable.len());
    let unproven = backups - claims.proven.len();
    let list = KeysList { keys, backups, unproven, unreadable };
    Report::done("bkp.keys-list/1", &list, listed(&list)?)
}

fn listed(list: &KeysList) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    for KeyRow { recipient, kind, id, backups, alone } in &list.keys {
        let of_backup = || {
            let word =
                |part: &Option<String>| part.as_deref().unwrap_or("-").escape_debug().to_string();
            format!("{} {} (not configured)", word(kind), word(id))
        };
        let name = recipient.clone().unwrap_or_else(of_backup);
        writeln!(text, "{backups:>7} backup(s), {alone:>7} by it alone  {name}")?;
    }
    write!(text, "{} backup(s) in all", list.backups)?;
    if list.unproven > 0 {
        write!(text, ", {} of which no key at hand proves", list.unproven)?;
    }
    if list.unreadable > 0 {
        write!(text, ", and {} whose manifest cannot be read", list.unreadable)?;
    }
    writeln!(text)?;
    Ok(text)
}

/// Shows how every configured key is. The outcome is [`Kind::Stale`] if one cannot be used, or soon cannot.
///
/// # Errors
/// What the stores fail with.
pub fn status(app: &AppContext) -> anyhow::Result<Report> {
    let (claims, configured) = (Claims::read(app, None)?, ConfiguredKey::all(app));
    // What nothing proves makes no finding go away.
    let proven = claims.backups.iter().filter(|(id, _)| claims.proven.contains(id));
    let seen: Vec<Vec<Recipient>> = proven.map(|(_, recipients)| recipients.clone()).collect();
    let mut findings: Vec<Finding> =
        configured.iter().flat_map(|key| key.findings(app, &seen)).collect();
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    let keys = configured.iter().map(|key| {
        let facts = key.facts.as_ref().ok();
        let state = match (&key.provider, facts.map(|facts| facts.state)) {
            (Err(_), _) => "unusable",
            (Ok(_), Some(KeyState::Usable)) => "usable",
            (Ok(_), Some(KeyState::Disabled)) => "disabled",
            (Ok(_), Some(KeyState::Deleting(_))) => "deleting",
            (Ok(_), Some(KeyState::Unknown) | None) => "unknown",
        };
        let (backups, _alone) = claims.count(|recipient| key.is(recipient));
        let created = facts.and_then(|facts| facts.created);
        KeyStatus { recipient: key.shown.clone(), state, created, backups }
    });
    let status = KeysStatus { keys: keys.collect(), findings };
    let is_critical = |finding: &Finding| finding.level == Level::Critical;
    let outcome = status.findings.iter().any(is_critical).then_some(Kind::Stale);
    Ok(Report::done("bkp.keys-status/1", &status, stated(&status, app.ctx.now())?)?
        .with_outcome(outcome))
}

fn stated(status: &KeysStatus, now: OffsetDateTime) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    for KeyStatus { recipient, state, created, backups } in &status.keys {
        let age =
            created.map_or("-".to_owned(), |created| format!("{} d", (now - created).whole_days()));
        writeln!(text, "{state:<9}  {age:>7}  {backups:>7} backup(s)  {recipient}")?;
    }
    for finding in &status.findings {
        writeln!(text, "{}: {}: {}", finding.level.as_str(), finding.subject, finding.message)?;
    }
    Ok(text)
}
