//! For whom copies are sealed anew.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::keys::keyring::Keyring;
use crate::keys::shown;
use crate::wire::AppContext;

/// For whom copies are sealed anew.
#[derive(Debug)]
pub(super) struct Reseal {
    app: AppContext,
    /// By their sources: some have recipients of their own.
    keys: Mutex<HashMap<String, Arc<Keyring>>>,
}

impl Reseal {
    /// For the recipients of the configuration.
    ///
    /// # Errors
    /// As [`AppContext::keys`]: every one of them has to be at hand.
    pub(super) fn of(app: &AppContext) -> anyhow::Result<Reseal> {
        let app = app.sealing_as_configured();
        app.keys()?;
        Ok(Reseal { app, keys: Mutex::default() })
    }

    /// Those recipients, as messages may show them.
    pub(super) fn recipients(&self) -> Vec<String> {
        self.app.settings.recipients.iter().map(|text| shown(text)).collect()
    }

    /// The keys that the backups of a source are sealed for.
    ///
    /// # Errors
    /// As [`AppContext::keys_and`].
    pub(super) fn keys(&self, source: &str) -> anyhow::Result<Arc<Keyring>> {
        let mut known = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(keys) = known.get(source) {
            return Ok(Arc::clone(keys));
        }
        let own = self.app.settings.sources.get(source).map(|source| source.recipients.as_slice());
        let keys = Arc::new(self.app.keys_and(own.unwrap_or_default())?);
        known.insert(source.to_owned(), Arc::clone(&keys));
        Ok(keys)
    }
}
