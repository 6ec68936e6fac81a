//! The checks of `doctor`: everything a snapshot needs from a bucket, with one small object.
//!
//! The object stays, because who makes backups need not have the right to remove anything. Its name
//! tells what the store's table asks for, so that a change there is tried. Writing it a second time is
//! what shows whether the service keeps bkp from overwriting; `powers` tries what others could do who have the
//! same credentials.

use std::sync::Arc;

use aws_sdk_s3::primitives::SdkBody;
use aws_sdk_s3::types::{ExpirationStatus, LifecycleRuleFilter};
use sha2::{Digest as _, Sha256};

use super::powers;
use crate::domain::manifest::hex;
use crate::rt;
use crate::store::s3::remote::{ANSWER, Remote};
use crate::store::s3::s3_error::{S3Error, S3ErrorClass};
use crate::store::s3::settings::{Checksum, CreateOnly, Settings};
use crate::store::s3::upload::context::UploadContext;
use crate::store::{Declared, ObjectLabels, Role, StoreError};

/// The folder of the object.
const FOLDER: &str = "doctor";
const CONTENT: &[u8] = b"written by `bkp doctor`, which tries whether this can be overwritten\n";

/// Writes the object, tries to overwrite it, and begins and abandons an upload in parts.
pub(crate) fn run(remote: &Arc<Remote>) -> Result<String, StoreError> {
    let key = key(remote);
    let first = write(remote, &key)?;
    let again = write(remote, &key)?;
    let kept = match (remote.settings.create_only, again) {
        (CreateOnly::IfNoneMatch, WriteResult::Refused) => "nothing can be overwritten",
        (CreateOnly::IfNoneMatch, WriteResult::Taken) => return Err(ignored(remote, key)),
        (CreateOnly::ReRead, _) => {
            "the service may overwrite; bkp checks before and after each write, which does not protect against two hosts: use a ledger for that"
        }
    };
    let context = UploadContext::new(remote, &format!("{FOLDER}/parts"), &labels())?;
    let id =
        remote.wait(("write", &context.key), remote.send_with_retries(|| context.begin(None)))?;
    context.abandon(&id);
    let how = match first {
        WriteResult::Taken => "wrote",
        WriteResult::Refused => "found",
    };
    let confirmed = match remote.settings.checksum {
        Checksum::Sha256 => "sizes and SHA-256 are confirmed",
        Checksum::WhenRequired => "only sizes are confirmed (checksum = \"when-required\")",
    };
    let may = powers::probe(remote, (&key, &labels(), CONTENT))?;
    let lacks = unfinished(remote).map(|lacks| format!("; {lacks}")).unwrap_or_default();
    Ok(format!("{how} `{key}`; {kept}; {may}; {confirmed}; uploads in parts work{lacks}"))
}

/// What is to be said of uploads that a killed run leaves in the bucket: parts that no listing of
/// objects shows, and that are paid for. `None` if a rule of the bucket removes them.
fn unfinished(remote: &Arc<Remote>) -> Option<&'static str> {
    const NO_RULE: &str =
        "no lifecycle rule removes incomplete uploads: add one with AbortIncompleteMultipartUpload";
    let look = async {
        let request = remote.client.get_bucket_lifecycle_configuration();
        let request = request.bucket(&remote.settings.bucket);
        let answer = remote.once(ANSWER, request.send()).await?;
        let mut rules = answer.rules().iter();
        let ours = |prefix: &str| remote.settings.prefix.starts_with(prefix);
        Ok(rules.any(|rule| {
            #[expect(deprecated, reason = "rules of that old form are still in force")]
            let old = rule.prefix();
            let filter = rule.filter();
            // With further conditions it does not take everything below the prefix.
            let conditional =
                filter.is_some_and(|filter| filter.and().is_some() || filter.tag().is_some());
            let prefix = filter.and_then(LifecycleRuleFilter::prefix).or(old).unwrap_or_default();
            !conditional
                && rule.status() == &ExpirationStatus::Enabled
                && rule.abort_incomplete_multipart_upload().is_some()
                && ours(prefix)
        }))
    };
    match rt::wait(&remote.ctx.cancel, look) {
        Ok(Ok(true)) => None,
        Ok(Ok(false) | Err(S3Error { class: S3ErrorClass::Missing, .. })) => Some(NO_RULE),
        // Who makes backups need not be allowed to see the bucket's rules.
        Ok(Err(_)) | Err(_) => {
            Some("cannot tell whether a lifecycle rule removes incomplete uploads")
        }
    }
}

/// What the service did with a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WriteResult {
    /// The service accepted the write.
    Taken,
    /// It refused it, because there is one already.
    Refused,
}

/// As data, which has all that the table asks for.
fn labels() -> ObjectLabels {
    ObjectLabels { role: Role::Data, ..ObjectLabels::default() }
}

fn key(remote: &Remote) -> String {
    let Settings { attributes, checksum, create_only, .. } = &remote.settings;
    let asked = Sha256::digest(format!("{attributes:?} {checksum:?} {create_only:?}"));
    let asked = hex(&asked);
    format!("{FOLDER}/{}", asked.get(..8).unwrap_or_default())
}

fn write(remote: &Arc<Remote>, key: &str) -> Result<WriteResult, StoreError> {
    let context = UploadContext::new(remote, key, &labels())?;
    let sha256: [u8; 32] = Sha256::digest(CONTENT).into();
    let body = SdkBody::from(CONTENT);
    let put = async {
        match remote.send_with_retries(|| context.put(&body, &sha256)).await {
            Ok(()) => Ok(WriteResult::Taken),
            Err(S3Error { class: S3ErrorClass::Taken, .. }) => Ok(WriteResult::Refused),
            Err(refusal) => Err(refusal),
        }
    };
    let written = remote.wait(("write", key), put)?;
    if written == WriteResult::Taken {
        context.resolve_outcome(Ok(()), Declared { bytes: CONTENT.len() as u64, sha256 }, None)?;
    }
    Ok(written)
}

fn ignored(remote: &Remote, key: String) -> StoreError {
    StoreError::Denied {
        store: remote.settings.url.clone(),
        operation: "protect",
        key,
        problem: "the service ignores If-None-Match, so two writers could overwrite each other".into(),
        hint: "use a service that honours If-None-Match; or set create_only = \"re-read\" in the store's table, which makes bkp check before and after every write and report a conflict".into(),
    }
}
