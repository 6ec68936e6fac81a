//! Copies of an object of another store of the same service, which the service makes: no byte of it comes here.
//!
//! It is an upload of one part, made of the object: so it is created only if there is none, with metadata, lock, class and
//! encryption of this store. The service tells the SHA-256 of the part, which is that of the object, before anything is
//! visible. Whatever is in the way ends in a copy through this host, which says what is wrong.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::super::remote::Remote;
use super::super::settings::encode;
use super::context::UploadContext;
use super::multipart::Multipart;
use crate::store::s3::s3_error::{S3Error, S3ErrorClass};
use crate::store::{Declared, ObjectLabels, StoreError};

/// Largest part that the service copies, bytes. A larger object has no checksum that the manifest knows.
const COPY_BYTES_MAX: u64 = 5 << 30;
/// Longest wait for the copy of a part.
const COPYING: Duration = Duration::from_mins(15);

/// Has the service copy the object; false if it is not the same one, or does not.
///
/// # Errors
/// [`StoreError::Exists`]; what confirming the copy fails with.
pub(in super::super) fn copy(
    remote: &Arc<Remote>,
    (origin, key): (&str, &str),
    labels: &ObjectLabels,
    declared: Declared,
) -> Result<bool, StoreError> {
    let Some(source) = place(remote, origin) else { return Ok(false) };
    let context = UploadContext::new(remote, key, labels)?;
    if !context.checksum() || !(1..=COPY_BYTES_MAX).contains(&declared.bytes) {
        return Ok(false);
    }
    context.check_vacant()?;
    let begun = remote.send_with_retries(|| context.begin(Some(&declared.sha256)));
    let id = remote.wait(("write", key), begun)?;
    match copy_part(&context, &id, &format!("{source}{key}"), declared) {
        Ok(Some(etag)) => complete(&context, Multipart::new(id), (etag, declared)),
        Ok(None) => {
            context.abandon(&id);
            Ok(false)
        }
        Err(error) => {
            context.abandon(&id);
            Err(error)
        }
    }
}

/// Bucket and prefix of another store of the same service.
fn place(remote: &Remote, origin: &str) -> Option<String> {
    let split = |url: &str| {
        let (place, query) = url.split_once('?').unwrap_or((url, ""));
        Some((place.strip_prefix("s3://")?.trim_end_matches('/').to_owned(), query.to_owned()))
    };
    let (place, service) = split(origin)?;
    let (_, own) = split(&remote.settings.url)?;
    (service == own).then(|| format!("{place}/"))
}

/// The `ETag` of a part that is the object; `None` if the service does not copy it, or something else.
fn copy_part(
    context: &UploadContext,
    id: &str,
    source: &str,
    declared: Declared,
) -> Result<Option<String>, StoreError> {
    let remote = &context.remote;
    let send = || async {
        let request = remote.client.upload_part_copy().bucket(&remote.settings.bucket);
        let request = request.key(&context.name).upload_id(id).part_number(1);
        remote.once(COPYING, request.copy_source(encode_path(source)).send()).await
    };
    let work = async { Ok(remote.send_with_retries(send).await) };
    let said = match remote.wait(("copy", &context.key), work)? {
        Err(S3Error { said, .. }) => said,
        Ok(answer) => {
            let part = answer.copy_part_result();
            let found = part.and_then(|part| part.checksum_sha256());
            match part.and_then(|part| part.e_tag()) {
                Some(etag) if found == Some(&BASE64.encode(declared.sha256)) => {
                    return Ok(Some(etag.to_owned()));
                }
                _ => format!("the service tells the SHA-256 {found:?} (base64) of its copy"),
            }
        }
    };
    let (url, key) = (&remote.settings.url, &context.key);
    remote.ctx.monitor.detail(&format!("{url}: `{key}` is copied through this host: {said}"));
    Ok(None)
}

/// Makes the object of its only part, and confirms it; false if the service does not put it together.
fn complete(
    context: &UploadContext,
    mut multipart: Multipart,
    (etag, declared): (String, Declared),
) -> Result<bool, StoreError> {
    let (remote, key) = (&context.remote, &context.key);
    multipart.add(etag, declared.sha256);
    let composite = multipart.composite();
    let work = async { Ok(remote.send_with_retries(|| context.complete(&multipart)).await) };
    let sent = remote.wait(("write", key), work);
    let refused = match &sent {
        Ok(Err(refusal)) if refusal.class != S3ErrorClass::Taken => Some(refusal.said.clone()),
        Ok(_) | Err(_) => None,
    };
    let resolved = sent.and_then(|sent| context.resolve_outcome(sent, declared, Some(composite)));
    if resolved.is_err() {
        context.abandon(&multipart.give_up());
    }
    let is_stopped = matches!(resolved, Err(StoreError::Stopped(_)));
    let is_there = |found| !matches!(found, Err(S3Error { class: S3ErrorClass::Missing, .. }));
    match (refused.filter(|_| !is_stopped), resolved) {
        (Some(said), Err(error)) => {
            let look =
                async { Ok(remote.send_with_retries(|| remote.head_object(&context.name)).await) };
            if is_there(remote.wait(("inspect", key), look)?) {
                return Err(error);
            }
            let url = &remote.settings.url;
            remote
                .ctx
                .monitor
                .detail(&format!("{url}: `{key}` is copied through this host: {said}"));
            Ok(false)
        }
        (_, resolved) => resolved.map(|()| true),
    }
}

/// A name as the header for copies wants it.
fn encode_path(source: &str) -> String {
    source.split('/').map(encode).collect::<Vec<_>>().join("/")
}
