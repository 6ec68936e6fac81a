//! What the header of an archived file says of it: there is no manifest.

use sha2::{Digest as _, Sha256};

use super::{LogFileFacts, LogFiles, NewLogFile, UnlockedLogFile};
use crate::ctx::host;
use crate::domain::hex::hex;
use crate::domain::id::BackupId;
use crate::domain::log_file::LogFileName;
use crate::domain::manifest::{Doubt, ManifestError};
use crate::error::{Fault, Kind};
use crate::keys::keyring::{self, SignatureCheck};
use crate::keys::manifest_mac::tag;
use crate::keys::signature::Signer;
use crate::keys::{DataKey, Effort, envelope};
use crate::stage::seal::{About, Header, Prelude};

/// What the MAC of a header is for.
const MAC_INFO: &[u8] = b"bkp log file 1";
/// Largest such file, bytes: that of a segment of WAL as large as a server can have it.
const FILE_BYTES_MAX: u64 = 1 << 30;

impl LogFiles<'_> {
    /// The data key of an archived file; its content is not read.
    ///
    /// # Errors
    /// As [`LogFiles::facts`], and if no key at hand opens it.
    pub fn unlock(&self, name: &LogFileName) -> anyhow::Result<UnlockedLogFile> {
        let (at, prelude) = (name.key(), self.prelude(name)?);
        let key = self.authentic(&at, &prelude)?.0?;
        let Header { object, about, .. } = &prelude.header;
        let about =
            about.as_ref().ok_or_else(|| self.refused(&at, "its header says nothing of it"))?;
        let id = id_of(object).ok_or_else(|| self.refused(&at, "it has no id"))?;
        Ok(UnlockedLogFile { id, sha256: said(object, about), key })
    }

    pub(super) fn refused(&self, key: &str, reason: &str) -> Fault {
        let message = format!("{}: `{key}` is not authentic: {reason}", self.store.url());
        let hint = "somebody changed it or put it there; another store may have an intact copy";
        Fault::new(Kind::Integrity, message).hint(hint)
    }

    /// What the header of a new object says of it.
    pub(super) fn about(
        &self,
        file: &NewLogFile<'_>,
        object: &str,
        key: &DataKey,
    ) -> anyhow::Result<About> {
        let facts = LogFileFacts {
            bytes: file.bytes,
            sha256: hex(&file.sha256),
            archived: self.ctx.now(),
            host: host(),
            facts: file.facts.clone(),
        };
        let text = serde_json::to_string(&facts)?;
        Ok(signed_about((object, &text), key, self.keys.signer()))
    }

    /// The data key of an object, or why no key at hand opens it, and what its header says if that is authentic: by
    /// its MAC, if the data key was sealed by somebody who has a key himself, or by the signature of a trusted signer.
    pub(super) fn authentic(
        &self,
        key: &str,
        prelude: &Prelude,
    ) -> anyhow::Result<(anyhow::Result<DataKey>, LogFileFacts)> {
        let refused = |reason: &str| self.refused(key, reason);
        let Header { object, recipients, about, .. } = &prelude.header;
        let id = id_of(object).ok_or_else(|| refused("it has no id"))?;
        let about = about.as_ref().ok_or_else(|| refused("its header says nothing of it"))?;
        let cancel = &self.ctx.cancel;
        let signed = signed_text(object, &about.text, &about.mac);
        let by = (about.signature.as_deref(), about.signer.as_deref());
        let signature = self.keys.check_text(by, MAC_INFO, &signed);
        let is_right = |key: &DataKey| mac(key, object, &about.text) == about.mac;
        let opened = keyring::open_any(self.keys, recipients, id, Effort::Usual, cancel);
        let opened = opened.or_else(|error| {
            let of = (id, &said(object, about));
            let found = envelope::from_key_set(of, self.keys, &is_right, cancel)?;
            found.map(|(opened, _recipients)| opened).ok_or(error)
        });
        let data_key = match (opened, signature) {
            (_, SignatureCheck::Wrong) => return Err(refused("its header was altered").into()),
            (Ok(opened), _) if !is_right(&opened.key) => {
                return Err(refused("its header was altered").into());
            }
            (Ok(opened), SignatureCheck::Trusted) => Ok(opened.key),
            (Ok(opened), SignatureCheck::Unknown) if opened.by_holder => Ok(opened.key),
            (Ok(_), SignatureCheck::Unknown) => {
                let doubt = about.signer.clone().map_or(Doubt::Unsigned, Doubt::Stranger);
                return Err(ManifestError::Untrusted { key: key.to_owned(), doubt }.into());
            }
            (Err(error), SignatureCheck::Trusted) => {
                cancel.check()?;
                Err(error)
            }
            (Err(error), SignatureCheck::Unknown) => return Err(error),
        };
        let facts: LogFileFacts = serde_json::from_str(&about.text)
            .map_err(|error| refused(&format!("its header cannot be read: {error}")))?;
        if facts.bytes > FILE_BYTES_MAX {
            return Err(refused("it is larger than any such file").into());
        }
        Ok((data_key, facts))
    }
}

/// What the header of an object says of it, with the MAC under its data key, and signed if somebody signs.
pub(super) fn signed_about(
    (object, text): (&str, &str),
    key: &DataKey,
    signer: Option<&Signer>,
) -> About {
    let mac = mac(key, object, text);
    let to_sign = signed_text(object, text, &mac);
    let signature = signer.map(|signer| signer.sign_text(MAC_INFO, &to_sign));
    let signer = signer.map(|signer| signer.id().to_string());
    About { text: text.to_owned(), signer, signature, mac }
}

/// The id of an object, which its name begins with.
pub(super) fn id_of(object: &str) -> Option<BackupId> {
    object.split('/').next().and_then(|id| id.parse().ok())
}

/// SHA-256 of what a header says, for which an envelope in a key set stands in.
fn said(object: &str, about: &About) -> [u8; 32] {
    Sha256::digest(signed_text(object, &about.text, &about.mac)).into()
}

/// The MAC of what a header says of its object.
fn mac(key: &DataKey, object: &str, text: &str) -> String {
    tag(key, MAC_INFO, &named(object, text))
}

/// What a header says of its object, with the name of that.
fn named(object: &str, text: &str) -> Vec<u8> {
    [object.as_bytes(), b"\0", text.as_bytes()].concat()
}

/// What a signature is of: it covers the MAC, and with that the data key that the signer used.
fn signed_text(object: &str, text: &str, mac: &str) -> Vec<u8> {
    [named(object, text).as_slice(), b"\0", mac.as_bytes()].concat()
}
