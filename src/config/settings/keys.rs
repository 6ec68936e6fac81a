//! The table `[keys]`.

use std::path::Path;
use std::time::Duration;

use super::check;
use crate::config::file::KeysTable;
use crate::domain::limits::RECIPIENTS_MAX;
use crate::keys::secret;
use crate::keys::signature::SignerId;
use crate::table::ConfigError;

/// What the table says.
pub(super) struct Keys {
    pub(super) recipients: Vec<String>,
    pub(super) signing_key: Option<String>,
    pub(super) trust: Vec<SignerId>,
    /// The age from which on a key is to be replaced; `None` for the usual one.
    pub(super) max_age: Option<Duration>,
}

/// Reads the table of a file in `folder`.
pub(super) fn open(table: KeysTable, folder: &Path) -> Result<Keys, ConfigError> {
    let KeysTable { recipients, signing_key, trust, max_age } = table;
    if recipients.len() > RECIPIENTS_MAX {
        let problem = format!("{} recipients are more than {RECIPIENTS_MAX}", recipients.len());
        return Err(ConfigError::invalid("keys.recipients", problem));
    }
    for (index, recipient) in recipients.iter().enumerate() {
        check::recipient(&format!("keys.recipients[{index}]"), recipient)?;
    }
    if signing_key.as_deref().is_some_and(|reference| !secret::is_reference(reference)) {
        let problem = "a signing key must not stand in the configuration";
        let hint = "refer to it: file:PATH, env:NAME, credential:NAME or cmd:COMMAND";
        return Err(ConfigError::invalid("keys.signing_key", problem).suggest(hint));
    }
    let resolve = |text: &String| check::resolve_path(text, folder);
    Ok(Keys {
        recipients: recipients.iter().map(resolve).collect(),
        signing_key: signing_key.as_ref().map(resolve),
        trust: signers("keys.trust", &trust)?,
        max_age: check::key_age(max_age.as_deref())?,
    })
}

/// Reads public signing keys.
pub(super) fn signers(place: &str, texts: &[String]) -> Result<Vec<SignerId>, ConfigError> {
    let signer = |(index, text): (usize, &String)| {
        text.parse().map_err(|()| {
            let place = if place.starts_with('-') { place.to_owned() } else { format!("{place}[{index}]") };
            let hint = "write ed25519: and 44 characters of base64, as `bkp keys generate --signing` prints it";
            ConfigError::invalid(place, "not a public signing key").suggest(hint)
        })
    };
    texts.iter().enumerate().map(signer).collect()
}
