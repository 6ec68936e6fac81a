//! How the configured keys are, and which of them open what.

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
    /// As messages show it.
    pub(crate) shown: String,
    /// The key; or why it cannot be used.
    pub(crate) provider: Result<Box<dyn KeyProvider>, KeyError>,
    /// What its place tells; or why it tells nothing.
    pub(crate) facts: Result<KeyFacts, KeyError>,
}

impl ConfiguredKey {
    /// Every recipient of the configuration, in order.
    pub(crate) fn all(app: &AppContext) -> Vec<ConfiguredKey> {
        let open = |text: &String| {
            let provider = keys::kinds::open(text, &app.ctx.cancel);
            let facts =
                provider.as_ref().map_or_else(|_| Ok(KeyFacts::default()), |key| key.facts());
            ConfiguredKey { shown: keys::shown(text), provider, facts }
        };
        app.settings.recipients.iter().map(open).collect()
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
            Err(error) => return vec![health::unasked(&self.shown, &format!("{error}"))],
        };
        let opens = seen.iter().any(|recipients| recipients.iter().any(|of| self.is(of)));
        let deleted_at = match facts.state {
            KeyState::Deleting(at) => at,
            KeyState::Usable | KeyState::Disabled | KeyState::Unknown => None,
        };
        let key = KeyHealth {
            created: facts.created,
            disabled: facts.state == KeyState::Disabled,
            deleting: matches!(facts.state, KeyState::Deleting(_)),
            deleted_at,
            opens_nothing: !seen.is_empty() && !opens,
        };
        let max_age = app.settings.key_max_age.map(Duration::try_from);
        let max_age = max_age.and_then(Result::ok).unwrap_or(MAX_AGE);
        health::of_key(&self.shown, &key, max_age, app.ctx.now())
    }
}
