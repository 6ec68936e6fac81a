//! Object locks of backups that others build on: they must not expire before those of their dependents.

use std::sync::Arc;

use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::{ObjectLockRetention, ObjectLockRetentionMode};

use super::remote::{ANSWER, Remote};
use super::settings::LockMode;
use crate::store::StoreError;

/// How much longer than needed a lock gets, so that it is not extended again by every run.
const AHEAD: time::Duration = time::Duration::days(1);

/// Has the objects locked for at least as long as one that is written now. A lock can be made longer, also
/// in compliance mode; it is never made shorter.
pub(super) fn extend(remote: &Arc<Remote>, keys: &[String]) -> Result<(), StoreError> {
    let Some((mode, days)) = remote.settings.attributes.object_lock else { return Ok(()) };
    let needed = remote.ctx.now() + time::Duration::days(days.into());
    let mode = match mode {
        LockMode::Governance => ObjectLockRetentionMode::Governance,
        LockMode::Compliance => ObjectLockRetentionMode::Compliance,
    };
    let until = DateTime::from_secs((needed + AHEAD).unix_timestamp());
    let retention = ObjectLockRetention::builder().mode(mode).retain_until_date(until).build();
    for key in keys {
        let name = remote.name(key)?;
        let look = || async {
            let request = remote.client.head_object().bucket(&remote.settings.bucket).key(&name);
            remote.once(ANSWER, request.send()).await
        };
        let send = || async {
            let request = remote.client.put_object_retention();
            let request = request.bucket(&remote.settings.bucket).key(&name);
            remote.once(ANSWER, request.retention(retention.clone()).send()).await
        };
        let work = async {
            let found = remote.send_with_retries(look).await?;
            let locked = found.object_lock_retain_until_date().map_or(0, DateTime::secs);
            if locked < needed.unix_timestamp() {
                remote.send_with_retries(send).await?;
            }
            Ok(())
        };
        remote.wait(("lock", key), work)?;
    }
    Ok(())
}
