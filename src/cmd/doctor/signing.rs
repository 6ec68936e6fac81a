//! Checks of signatures: that backups are signed where they have to be, and that somebody is trusted.

use crate::cmd::doctor::check::{CheckResult, bad, good, tried};
use crate::error::Kind;
use crate::keys::signature::Signer;
use crate::keys::{self, KeyProvider};
use crate::wire::AppContext;

/// The signing key, and whose signatures are believed.
pub(super) fn signatures(app: &AppContext) -> Vec<CheckResult> {
    let settings = &app.settings;
    let open = |text: &String| keys::kinds::open(text, &app.ctx.cancel).ok();
    let providers: Vec<Box<dyn KeyProvider>> =
        settings.recipients.iter().filter_map(open).collect();
    let public: Vec<&dyn KeyProvider> =
        providers.iter().map(AsRef::as_ref).filter(|key| key.is_public()).collect();
    let mut found = Vec::new();
    match &settings.signing_key {
        Some(reference) => {
            let what = format!("signing key {}", keys::secret::origin(reference));
            let opened = Signer::open(reference, &app.ctx.cancel);
            let signs = opened.map(|signer| format!("signs as {}", signer.id()));
            found.push(tried(what, signs.map_err(Into::into)));
        }
        None if public.iter().any(|key| !key.can_open()) => {
            let hint = "run `bkp keys generate --signing /etc/bkp/signing.key`, and set `signing_key` under [keys]";
            let why = "none, and anybody can seal for a public key: this host makes no backups";
            found.push((Kind::Config, bad("signing key", why, hint)));
        }
        None => {}
    }
    if !settings.trust.is_empty() {
        let trusted: Vec<String> = settings.trust.iter().map(ToString::to_string).collect();
        found.push((Kind::Config, good("trusted signers", trusted.join(", "))));
    } else if public.iter().any(|key| key.can_open()) && settings.ledger.is_none() {
        let hint = "add `trust = [\"ed25519:...\"]` under [keys], with what `bkp keys generate --signing` printed on each host that makes backups";
        let why =
            "none, and no ledger: no backup of another host is restored with a private key of age";
        found.push((Kind::Config, bad("trusted signers", why, hint)));
    }
    found
}
