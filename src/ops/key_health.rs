//! How the configured keys are, and which of them open what.

use std::collections::BTreeSet;

use time::Duration;

use crate::domain::health::{self, Finding, KeyHealth};
use crate::domain::key_facts::{KeyFacts, KeyState};
use crate::domain::recipient::Recipient;
use crate::keys::{self, KeyError, KeyProvider};
use crate::wire::AppContext;

/// The age from which on a key is to be replaced, if the configuration says nothing else.
const MAX_AGE: Duration = Duration::days(90);

/// A recipient of the configuration.
pub(crate) struct ConfiguredKey {
    /// Whether it opens key sets only: it may be old, and kept where this host cannot look.
    is_for_recovery: bool,
    /// As messages show it.
    pub(crate) shown: String,
    /// The key; or why it cannot be used.
    pub(crate) provider: Result<Box<dyn KeyProvider>, KeyError>,
    /// What its place tells; or why it tells nothing.
    pub(crate) facts: Result<KeyFacts, KeyError>,
}

impl ConfiguredKey {
    /// Every recipient of the configuration, in order; those of key sets come last.
    pub(crate) fn all(app: &AppContext) -> Vec<ConfiguredKey> {
        let open = |(text, is_for_recovery): (&String, bool)| {
            let provider = keys::kinds::open(text, &app.ctx.cancel);
            let facts =
                provider.as_ref().map_or_else(|_| Ok(KeyFacts::default()), |key| key.facts());
            ConfiguredKey { is_for_recovery, shown: keys::shown(text), provider, facts }
        };
        let configured = &app.settings.recipients;
        let of_sets: BTreeSet<&String> =
            app.settings.sources.values().flat_map(|source| &source.recipients).collect();
        let of_sets = of_sets.into_iter().filter(|text| !configured.contains(text));
        let all = configured.iter().map(|text| (text, false));
        all.chain(of_sets.map(|text| (text, true))).map(open).collect()
    }

    /// Whether it is the one that a recipient names. An alias is every key of its kind, unless its service tells which.
    pub(crate) fn is(&self, recipient: &Recipient) -> bool {
        let Ok(provider) = &self.provider else { return false };
        let id = self.facts.as_ref().ok().and_then(|facts| facts.id.as_ref());
        provider.matches(recipient)
            && (provider.kind() != recipient.kind || id.is_none_or(|id| *id == recipient.id))
    }

    /// What is wrong with it, if the backups that were looked at have these recipients, one list each.
    pub(crate) fn findings(&self, app: &AppContext, seen: &[Vec<Recipient>]) -> Vec<Finding> {
        if let Err(error) = &self.provider {
            return vec![health::unusable(&self.shown, &format!("{error}"))];
        }
        let facts = match &self.facts {
            Ok(facts) => facts,
            Err(_) if self.is_for_recovery => return Vec::new(),
            Err(error) => return vec![health::unasked(&self.shown, &format!("{error}"))],
        };
        let opens = seen.iter().any(|recipients| recipients.iter().any(|of| self.is(of)));
        let deleted_at = match facts.state {
            KeyState::Deleting(at) => at,
            KeyState::Usable | KeyState::Disabled | KeyState::Unknown => None,
        };
        let key = KeyHealth {
            created: facts.created.filter(|_| !self.is_for_recovery),
            disabled: facts.state == KeyState::Disabled,
            deleting: matches!(facts.state, KeyState::Deleting(_)),
            deleted_at,
            opens_nothing: !self.is_for_recovery && !seen.is_empty() && !opens,
        };
        let max_age = app.settings.key_max_age.map(Duration::try_from);
        let max_age = max_age.and_then(Result::ok).unwrap_or(MAX_AGE);
        health::of_key(&self.shown, &key, max_age, app.ctx.now())
    }
}
