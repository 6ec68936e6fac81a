//! What `doctor` tries: everything that a snapshot asks of a bucket, with one small object.
//!
//! The object has a fixed name and stays, because who makes backups need not have the right to
//! remove anything. Writing it a second time is what shows whether the service keeps bkp from
//! overwriting.

use std::sync::Arc;

use aws_sdk_s3::primitives::SdkBody;
use aws_sdk_s3::types::{ExpirationStatus, LifecycleRuleFilter};
use sha2::{Digest as _, Sha256};

use super::refusal::{Class, Refusal};
use super::remote::{ANSWER, Remote};
use super::settings::{Checksum, CreateOnly};
use super::upload::Order;
use crate::rt;
use crate::store::{Declared, ObjectLabels, StoreError};

/// The key of the object.
const KEY: &str = "doctor/create-only";
const CONTENT: &[u8] = b"written by `bkp doctor`, which tries whether this can be overwritten\n";

/// Writes the object, tries to overwrite it, and begins and abandons an upload in parts.
pub(super) fn rehearse(remote: &Arc<Remote>) -> Result<String, StoreError> {
    let first = write(remote)?;
    let again = write(remote)?;
    let kept = match (remote.settings.create_only, again) {
        (CreateOnly::IfNoneMatch, Written::Refused) => "nothing can be overwritten",
        (CreateOnly::IfNoneMatch, Written::Taken) => return Err(ignored(remote)),
        (CreateOnly::ReRead, _) => {
            "the service may overwrite; bkp looks before and after it writes"
        }
    };
    let order = Order::new(remote, "doctor/parts", &ObjectLabels::default())?;
    let id = remote.wait(("write", &order.key), remote.insist(|| order.begin()))?;
    order.abandon(&id);
    let how = match first {
        Written::Taken => "wrote",
        Written::Refused => "found",
    };
    let confirmed = match remote.settings.checksum {
        Checksum::Sha256 => "sizes and SHA-256 are confirmed",
        Checksum::WhenRequired => "only sizes are confirmed (checksum = \"when-required\")",
    };
    let lacks = unfinished(remote).map(|lacks| format!("; {lacks}")).unwrap_or_default();
    Ok(format!("{how} `{KEY}`; {kept}; {confirmed}; uploads in parts work{lacks}"))
}

/// What is to be said of uploads that a killed run leaves in the bucket: parts that no listing of
/// objects shows, and that are paid for. `None` if a rule of the bucket removes them.
fn unfinished(remote: &Arc<Remote>) -> Option<&'static str> {
    const NO_RULE: &str = "no lifecycle rule removes uploads that were never finished: add one with AbortIncompleteMultipartUpload";
    let look = async {
        let request = remote.client.get_bucket_lifecycle_configuration();
        let request = request.bucket(&remote.settings.bucket);
        let answer = remote.once(ANSWER, request.send()).await?;
        let mut rules = answer.rules().iter();
        let ours = |prefix: &str| remote.settings.prefix.starts_with(prefix);
        Ok(rules.any(|rule| {
            let prefix = rule.filter().and_then(LifecycleRuleFilter::prefix).unwrap_or_default();
            rule.status() == &ExpirationStatus::Enabled
                && rule.abort_incomplete_multipart_upload().is_some()
                && ours(prefix)
        }))
    };
    match rt::wait(&remote.ctx.cancel, look) {
        Ok(Ok(true)) => None,
        Ok(Ok(false) | Err(Refusal { class: Class::Missing, .. })) => Some(NO_RULE),
        // Who makes backups need not be allowed to see the bucket's rules.
        Ok(Err(_)) | Err(_) => {
            Some("whether a lifecycle rule removes unfinished uploads cannot be seen")
        }
    }
}

/// What the service did with a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    /// It took it.
    Taken,
    /// It refused it, because there is one already.
    Refused,
}

fn write(remote: &Arc<Remote>) -> Result<Written, StoreError> {
    let order = Order::new(remote, KEY, &ObjectLabels::default())?;
    let sha256: [u8; 32] = Sha256::digest(CONTENT).into();
    let body = SdkBody::from(CONTENT);
    let put = async {
        match remote.insist(|| order.put(&body, &sha256)).await {
            Ok(()) => Ok(Written::Taken),
            Err(Refusal { class: Class::Taken, .. }) => Ok(Written::Refused),
            Err(refusal) => Err(refusal),
        }
    };
    let written = remote.wait(("write", KEY), put)?;
    if written == Written::Taken {
        order.settle(Ok(()), Declared { bytes: CONTENT.len() as u64, sha256 }, None)?;
    }
    Ok(written)
}

fn ignored(remote: &Remote) -> StoreError {
    StoreError::Denied {
        store: remote.settings.url.clone(),
        operation: "protect",
        key: KEY.to_owned(),
        problem: "the service ignores If-None-Match, so two writers could overwrite each other".into(),
        hint: "use a service that honours If-None-Match; or set create_only = \"re-read\" in the store's table, which makes bkp look before and after every write and report a clash".into(),
    }
}
