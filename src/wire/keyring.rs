//! Opens the keys that the settings name.

use std::sync::{Arc, OnceLock};

use super::AppContext;
use crate::domain::recorded_manifests::RecordedManifests;
use crate::error::{Fault, Kind};
use crate::keys::key_set::{Contents, KeySet};
use crate::keys::keyring::{Keyring, TrustedWord};
use crate::keys::signature::Signer;
use crate::keys::{self, KeyError, KeyProvider};

impl AppContext {
    /// The same that makes backups for the recipients of the configuration file, whatever other keys were given to open
    /// some with; for those if it has none.
    #[must_use]
    pub fn sealing_as_configured(&self) -> AppContext {
        let mut app = self.clone();
        if !app.settings.recipients_of_file.is_empty() {
            app.settings.recipients.clone_from(&app.settings.recipients_of_file);
        }
        app
    }

    /// The same that opens backups with those, too.
    #[must_use]
    pub fn opening_as_configured(&self) -> AppContext {
        let mut app = self.clone();
        let given = &self.settings.recipients;
        let others = self.settings.recipients_of_file.iter().filter(|text| !given.contains(text));
        app.settings.recipients.extend(others.cloned());
        app
    }

    /// The configured keys to make backups with, every one of them opened.
    ///
    /// # Errors
    /// [`Kind::Config`] if none is configured, or backups have to be signed and no signing key is configured; a
    /// [`KeyError`] if one cannot be opened.
    pub fn keys(&self) -> anyhow::Result<Keyring> {
        self.keys_and(&[])
    }

    /// The same with further recipients.
    ///
    /// # Errors
    /// As [`AppContext::keys`].
    pub fn keys_and(&self, more: &[String]) -> anyhow::Result<Keyring> {
        if self.settings.recipients.is_empty() {
            return Err(Fault::new(Kind::Config, "no recipient is configured: no key could open the backup")
                .hint("add `recipients = [\"file:/etc/bkp/key\"]` under [keys] and run `bkp keys generate`, or pass --key")
                .into());
        }
        let configured = &self.settings.recipients;
        let others = more.iter().filter(|text| !configured.contains(text));
        let all = configured.iter().chain(others);
        let providers = all.map(|text| keys::kinds::open(text, &self.ctx.cancel));
        let providers = providers.collect::<Result<Vec<_>, _>>()?;
        let signer = self.signer()?;
        let public = providers.iter().find(|provider| provider.is_public());
        if let (Some(public), None) = (public, &signer) {
            let origin = public.origin();
            let message = format!(
                "anybody can seal for recipient {origin}, so backups have to be signed, and no signing key is configured"
            );
            let hint = "run `bkp keys generate --signing /etc/bkp/signing.key`, and set `signing_key = \"file:/etc/bkp/signing.key\"` under [keys]";
            return Err(Fault::new(Kind::Config, message).hint(hint).into());
        }
        Ok(self.keyring(providers, signer).with_key_set(self.key_set()?))
    }

    /// The configured keys that open. One that does not is a warning: any one of the recipients opens a backup.
    ///
    /// # Errors
    /// [`Kind::Config`] if none is given; the first [`KeyError`] if none opens.
    pub fn keys_to_read(&self) -> anyhow::Result<Keyring> {
        if !self.settings.has_witness() {
            return Err(Fault::new(Kind::Config, "no key was given")
                .hint("pass one that the backup was sealed for, for example --key file:PATH")
                .into());
        }
        let mut providers = Vec::new();
        let mut failure = None;
        for text in &self.settings.recipients {
            match keys::kinds::open(text, &self.ctx.cancel) {
                Err(error @ KeyError::Stopped(_)) => return Err(error.into()),
                Ok(provider) => providers.push(provider),
                Err(error) => failure = failure.or(Some((text, error))),
            }
        }
        match failure {
            Some((_, error)) if providers.is_empty() => return Err(error.into()),
            Some((text, error)) => {
                let shown = keys::shown(text);
                self.ctx.monitor.warn(&format!("continuing without recipient {shown}: {error}"));
            }
            None => {}
        }
        let signer = self.signer().unwrap_or_else(|error| {
            self.ctx.monitor.warn(&format!("continuing without the signing key: {error}"));
            None
        });
        self.ctx.cancel.check()?;
        Ok(self.keyring(providers, signer).with_key_set(self.key_set()?))
    }

    /// Whatever of the configured keys opens, for proofs; what does not is said with `-v` only.
    #[must_use]
    pub fn keys_at_hand(&self) -> Keyring {
        let open = |text: &String| {
            let opened = keys::kinds::open(text, &self.ctx.cancel);
            let shown = || keys::shown(text);
            let say =
                |error: &KeyError| self.say_unusable(&format!("recipient {}", shown()), error);
            opened.inspect_err(say).ok()
        };
        let providers = self.settings.recipients.iter().filter_map(open).collect();
        let signer = self.signer().inspect_err(|error| self.say_unusable("the signing key", error));
        let key_set = self.key_set().inspect_err(|error| {
            self.ctx.monitor.warn(&format!("continuing without the key set: {error}"));
        });
        self.keyring(providers, signer.ok().flatten()).with_key_set(key_set.ok().flatten())
    }

    fn say_unusable(&self, what: &str, error: &KeyError) {
        self.ctx.monitor.detail(&format!("cannot authenticate with {what}: {error}"));
    }

    fn signer(&self) -> Result<Option<Signer>, KeyError> {
        let reference = self.settings.signing_key.as_deref();
        reference.map(|reference| Signer::open(reference, &self.ctx.cancel)).transpose()
    }

    /// The key set that was named.
    fn key_set(&self) -> Result<Option<KeySet>, KeyError> {
        let Some(path) = &self.settings.key_set else { return Ok(None) };
        let key_set = KeySet::open(path)?;
        let (Contents { entries, broken, promised }, origin) =
            (key_set.contents(), key_set.origin());
        if !key_set.contents().is_whole() {
            let promised = promised
                .map_or("it ends early".to_owned(), |promised| format!("it had {promised}"));
            self.ctx.monitor.warn(&format!(
                "key set {origin} is damaged: {entries} entries can be read, {broken} lines cannot, {promised}; using what is there"
            ));
        }
        Ok(Some(key_set))
    }

    fn keyring(&self, providers: Vec<Box<dyn KeyProvider>>, signer: Option<Signer>) -> Keyring {
        Keyring::new(providers)
            .signing_with(signer)
            .trusting(&self.settings.trust)
            .believing(self.word_of_the_ledger())
            .keeping_in(self.settings.state_dir.clone())
    }

    /// Whether the ledger has the backup of this id, with a manifest of this digest. It is asked once, when it is
    /// first needed.
    fn word_of_the_ledger(&self) -> Option<TrustedWord> {
        self.settings.ledger.as_ref()?;
        let (app, known) = (self.clone(), OnceLock::new());
        Some(Arc::new(move |id, sha256: &[u8; 32]| {
            let known: &RecordedManifests = known.get_or_init(|| recorded(&app));
            known.has(id, sha256)
        }))
    }
}

/// The backups that the ledger has; none if it does not answer.
fn recorded(app: &AppContext) -> RecordedManifests {
    let Some(ledger) = app.ledger() else { return RecordedManifests::default() };
    let entries = ledger.entries().unwrap_or_else(|error| {
        let what = "it vouches for no backup that lacks a trusted signature";
        app.ctx.monitor.warn(&format!("{error}; {what}"));
        Vec::new()
    });
    RecordedManifests::of(entries.into_iter().filter_map(|entry| entry.event))
}
