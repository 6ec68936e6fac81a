//! What KMS tells of a key.

use aws_sdk_kms::primitives::DateTime;
use aws_sdk_kms::types::KeyState as State;
use time::OffsetDateTime;

use super::Kms;
use crate::domain::key_facts::{KeyFacts, KeyState};
use crate::keys::KeyError;

impl Kms {
    /// Asks KMS for the key. A host that only makes backups need not be allowed to.
    ///
    /// # Errors
    /// [`KeyError::Away`] if KMS cannot be asked, or has no such key.
    pub(super) fn describe(&self) -> Result<KeyFacts, KeyError> {
        let asked = self.with_client(|client| async move {
            client.describe_key().key_id(&self.key).send().await
        });
        let answer = match asked {
            Ok(answer) => answer,
            Err(KeyError::Forbidden { .. }) => return Ok(KeyFacts::default()),
            Err(error) => return Err(error),
        };
        let Some(found) = answer.key_metadata else { return Ok(KeyFacts::default()) };
        let time = |at: &DateTime| OffsetDateTime::from_unix_timestamp(at.secs()).ok();
        let state = match found.key_state() {
            Some(State::Enabled) => KeyState::Usable,
            Some(State::Disabled) => KeyState::Disabled,
            Some(State::PendingDeletion | State::PendingReplicaDeletion) => {
                KeyState::Deleting(found.deletion_date().and_then(time))
            }
            Some(_) | None => KeyState::Unknown,
        };
        let created = found.creation_date().and_then(time);
        Ok(KeyFacts { id: found.arn().map(str::to_owned), created, state })
    }
}
