//! Object locks of backups that others build on: they must not expire before those of their dependents.

use std::sync::Arc;

use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::{
    ChecksumAlgorithm, ObjectLockMode, ObjectLockRetention, ObjectLockRetentionMode,
};
use time::OffsetDateTime;

use super::remote::{ANSWER, Remote};
use super::s3_error::{S3Error, S3ErrorClass};
use super::settings::LockMode;
use crate::concurrent::each_of_few;
use crate::error::Fault;
use crate::store::StoreError;

/// How much longer than needed a lock gets, so that it is not extended again by every run.
const AHEAD: time::Duration = time::Duration::days(1);

const NOT_EXTENDED: &str = "grant bkp s3:PutObjectRetention and s3:GetObjectRetention on the objects of the store, and make sure that the bucket has object lock";

/// What a HEAD request shows of a lock.
#[derive(Clone)]
struct Lock {
    mode: Option<ObjectLockMode>,
    /// Unix seconds; 0 if the object is not locked.
    until: i64,
}

/// Has these objects locked at least until `until`, and at least for as long as one that is written now.
/// A lock can be made longer, also in compliance mode; it is never made shorter, and its mode never weaker.
/// What the service has done is looked at.
pub(super) fn extend(
    remote: &Arc<Remote>,
    keys: &[String],
    until: Option<OffsetDateTime>,
) -> Result<(), StoreError> {
    let Some((mode, days)) = remote.settings.attributes.object_lock else { return Ok(()) };
    let least = remote.ctx.now() + time::Duration::days(days.into());
    let needed = until.map_or(least, |until| until.max(least));
    let work = |key: &String| Ok(extend_one(remote, key, (mode, needed))?);
    let connections = remote.settings.connections;
    let extended = each_of_few(keys, connections, &remote.ctx.cancel, work);
    extended.map(drop).map_err(|error| unwrapped(remote, error))
}

/// The store's error that work on several objects at a time ended with.
fn unwrapped(remote: &Remote, error: anyhow::Error) -> StoreError {
    let error = match error.downcast::<StoreError>() {
        Ok(error) => return error,
        Err(error) => error,
    };
    match error.downcast::<Fault>() {
        Ok(fault) => StoreError::Stopped(fault),
        Err(error) => StoreError::Unavailable {
            store: remote.settings.url.clone(),
            operation: "lock the objects below",
            key: remote.settings.prefix.clone(),
            transient: false,
            source: error.into(),
        },
    }
}

fn extend_one(
    remote: &Remote,
    key: &str,
    (mode, needed): (LockMode, OffsetDateTime),
) -> Result<(), StoreError> {
    let name = remote.name(key)?;
    let needed_seconds = needed.unix_timestamp();
    let look = || async {
        let request = remote.client.head_object().bucket(&remote.settings.bucket).key(&name);
        let found = remote.once(ANSWER, request.send()).await?;
        let until = found.object_lock_retain_until_date().map_or(0, DateTime::secs);
        Ok(Lock { mode: found.object_lock_mode().cloned(), until })
    };
    let work = async {
        let found = remote.send_with_retries(look).await?;
        if found.until >= needed_seconds {
            return Ok(());
        }
        let is_compliance = found.mode == Some(ObjectLockMode::Compliance);
        let mode = match mode {
            LockMode::Governance if !is_compliance => ObjectLockRetentionMode::Governance,
            LockMode::Governance | LockMode::Compliance => ObjectLockRetentionMode::Compliance,
        };
        let until = DateTime::from_secs((needed + AHEAD).unix_timestamp());
        let retention = ObjectLockRetention::builder().mode(mode).retain_until_date(until).build();
        let send = || async {
            let request = remote.client.put_object_retention();
            let request = request.bucket(&remote.settings.bucket).key(&name);
            // The service demands a checksum or an MD5 of the request itself.
            let request = request.checksum_algorithm(ChecksumAlgorithm::Sha256);
            remote.once(ANSWER, request.retention(retention.clone()).send()).await
        };
        remote.send_with_retries(send).await?;
        let seen = remote.send_with_retries(look).await?;
        if seen.until >= needed_seconds {
            return Ok(());
        }
        let said = "the service accepted a longer lock, but does not show it".to_owned();
        Err(S3Error { class: S3ErrorClass::Denied(NOT_EXTENDED), said, retry_after: None })
    };
    let told = async { work.await.map_err(with_rights_hint) };
    remote.wait(("extend the lock of", key), told)
}

/// The same refusal; if something is not allowed, with the rights that locking needs.
fn with_rights_hint(refusal: S3Error) -> S3Error {
    if let S3ErrorClass::Denied(_) = refusal.class {
        return S3Error { class: S3ErrorClass::Denied(NOT_EXTENDED), ..refusal };
    }
    refusal
}
