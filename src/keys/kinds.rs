//! The table of recipients: the only place that names their kinds.

use super::{KeyError, KeyProvider, RecipientKind, age, file, kms, passphrase};
use crate::ctx::Cancel;

/// Every kind of recipient.
pub const RECIPIENTS: &[RecipientKind] =
    &[file::KIND, file::CREDENTIAL, passphrase::KIND, kms::KIND, age::KIND];

/// Opens the provider that a recipient string of the configuration names; one that asks a service
/// looks at `cancel` while it waits.
///
/// # Errors
/// [`KeyError::Unknown`] for an unknown kind, else the kind's own error.
pub fn open(text: &str, cancel: &Cancel) -> Result<Box<dyn KeyProvider>, KeyError> {
    let (prefix, rest) = text.split_once(':').unwrap_or((text, ""));
    let kind = RECIPIENTS.iter().find(|kind| kind.prefix == prefix);
    let kind = kind.ok_or_else(|| {
        let known = RECIPIENTS.iter().map(|kind| kind.prefix).collect::<Vec<_>>().join(", ");
        KeyError::Unknown { text: prefix.to_owned(), known }
    })?;
    (kind.open)(rest, cancel)
}
