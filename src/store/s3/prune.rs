//! Removes objects and abandoned multipart uploads. Only `cleanup` does that.
//!
//! In a bucket with versions a plain DELETE hides an object and keeps its bytes for ever, and it
//! does so even to a locked one. So bkp looks first: what is locked stays visible and is *retained*,
//! and of everything else the very version is removed.

use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::{EncodingType, ObjectLockLegalHoldStatus};
use time::OffsetDateTime;

use super::list::decode;
use super::listing_progress::ListingProgress;
use super::remote::{ANSWER, Remote};
use crate::domain::log_file::LogFileName;
use crate::domain::names::is_of_bkp;
use crate::store::s3::s3_error::{S3Error, S3ErrorClass};
use crate::store::{StoreError, Unfinished, is_key};

const NOT_ALLOWED: &str = "grant the user or role that runs `bkp cleanup` s3:DeleteObject, s3:DeleteObjectVersion, s3:ListBucketMultipartUploads and s3:AbortMultipartUpload";
/// A legal hold has no end; it is looked at again every time.
const HOLD: time::Duration = time::Duration::days(1);

/// An object as far as removing it is concerned.
struct Target {
    /// The version that is visible, where the bucket has versions.
    version: Option<String>,
    /// Until when it is locked.
    locked_until: Option<OffsetDateTime>,
}

/// Until when the bucket keeps an object.
pub(super) fn retained(remote: &Remote, key: &str) -> Result<Option<OffsetDateTime>, StoreError> {
    let name = remote.name(key)?;
    let seen =
        remote.wait(("inspect", key), remote.send_with_retries(|| removal_target(remote, &name)));
    match seen {
        Ok(target) => Ok(target.locked_until),
        Err(StoreError::Missing { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes an object, if it is not locked.
pub(super) fn delete(remote: &Remote, key: &str) -> Result<(), StoreError> {
    let name = remote.name(key)?;
    let work = async {
        let target = match remote.send_with_retries(|| removal_target(remote, &name)).await {
            Err(S3Error { class: S3ErrorClass::Missing, .. }) => return Ok(None),
            seen => seen?,
        };
        if target.locked_until.is_some() {
            return Ok(target.locked_until);
        }
        let send = || async {
            let request = remote.client.delete_object().bucket(&remote.settings.bucket).key(&name);
            let request = request.set_version_id(target.version.clone());
            remote.once(ANSWER, request.send()).await
        };
        match remote.send_with_retries(send).await {
            Ok(_) | Err(S3Error { class: S3ErrorClass::Missing, .. }) => Ok(None),
            Err(refusal) => Err(refusal),
        }
    };
    let told = async { work.await.map_err(with_rights_hint) };
    match remote.wait(("remove", key), told)? {
        None => Ok(()),
        Some(until) => {
            let (store, key) = (remote.settings.url.clone(), key.to_owned());
            Err(StoreError::Retained { store, key, until })
        }
    }
}

async fn removal_target(remote: &Remote, name: &str) -> Result<Target, S3Error> {
    let request = remote.client.head_object().bucket(&remote.settings.bucket).key(name);
    let found = remote.once(ANSWER, request.send()).await?;
    let now = remote.ctx.now();
    let held = found.object_lock_legal_hold_status() == Some(&ObjectLockLegalHoldStatus::On);
    let locked = found.object_lock_retain_until_date().and_then(time_of);
    let locked = locked.max(held.then(|| now + HOLD)).filter(|until| *until > now);
    // A bucket that had no versions yet calls that of its objects "null".
    let version = found.version_id().filter(|version| *version != "null").map(str::to_owned);
    Ok(Target { version, locked_until: locked })
}

/// What services say to a request that they do not know.
const LACKS: &str = "NotImplemented";

/// Uploads below the prefix that began before `before` and whose keys are of bkp's making.
pub(super) fn unfinished(
    remote: &Remote,
    before: OffsetDateTime,
) -> Result<Vec<Unfinished>, StoreError> {
    let mut found = Vec::new();
    let mut after: Option<(String, String)> = None;
    let mut listing_progress = ListingProgress::default();
    loop {
        let fetch = || async {
            let (key, upload) = after.clone().unzip();
            let request = remote.client.list_multipart_uploads();
            let request = request.bucket(&remote.settings.bucket).prefix(&remote.settings.prefix);
            let request = request.encoding_type(EncodingType::Url);
            let request = request.set_key_marker(key).set_upload_id_marker(upload);
            remote.once(ANSWER, request.send()).await
        };
        let fetched = async { remote.send_with_retries(fetch).await.map_err(with_rights_hint) };
        let fetched = async {
            match fetched.await {
                Err(S3Error { class: S3ErrorClass::Denied(_), said, .. })
                    if said.contains(LACKS) =>
                {
                    Ok(None)
                }
                fetched => fetched.map(Some),
            }
        };
        let page = remote.wait(("list the uploads below", &remote.settings.prefix), fetched)?;
        let Some(page) = page else {
            remote.ctx.monitor.warn(&format!(
                "{}: the service does not list unfinished uploads; those of killed runs remain until a lifecycle rule of the bucket removes them",
                remote.settings.url
            ));
            return Ok(found);
        };
        let encoded = page.encoding_type() == Some(&EncodingType::Url);
        let name = |text: &str| if encoded { decode(text) } else { Some(text.to_owned()) };
        for upload in page.uploads() {
            let key = upload.key().and_then(name);
            let key = key.as_ref().and_then(|name| name.strip_prefix(&*remote.settings.prefix));
            let key = key
                .filter(|key| is_key(key) && (is_of_bkp(key) || LogFileName::parse(key).is_some()));
            let begun = upload.initiated().and_then(time_of);
            if let (Some(key), Some(id), Some(begun)) = (key, upload.upload_id(), begun)
                && begun < before
            {
                found.push(Unfinished { key: key.to_owned(), id: id.to_owned(), begun });
            }
        }
        let next = page.next_key_marker().and_then(name).zip(page.next_upload_id_marker());
        if next.is_none() && page.is_truncated() == Some(true) {
            let refusal = S3Error::broken("a truncated page of uploads has no continuation marker");
            return Err(remote.error(refusal, "list the uploads below", &remote.settings.prefix));
        }
        let Some((key, upload)) = next.filter(|_next| page.is_truncated() == Some(true)) else {
            return Ok(found);
        };
        let gone_on = listing_progress.advance(page.uploads().len(), &format!("{key} {upload}"));
        let what = ("list the uploads below", &*remote.settings.prefix);
        gone_on.map_err(|refusal| remote.error(refusal, what.0, what.1))?;
        after = Some((key, upload.to_owned()));
    }
}

/// Tells the service to forget an upload. One that is not there any more is forgotten already.
pub(super) fn abort(remote: &Remote, upload: &Unfinished) -> Result<(), StoreError> {
    let name = remote.name(&upload.key)?;
    let send = || async {
        let request = remote.client.abort_multipart_upload().bucket(&remote.settings.bucket);
        remote.once(ANSWER, request.key(&name).upload_id(&upload.id).send()).await
    };
    let work = async {
        match remote.send_with_retries(send).await {
            Ok(_) => Ok(()),
            Err(refusal) if is_gone(&refusal) => Ok(()),
            Err(refusal) => Err(with_rights_hint(refusal)),
        }
    };
    remote.wait(("abort the upload of", &upload.key), work)
}

fn is_gone(refusal: &S3Error) -> bool {
    refusal.class == S3ErrorClass::Missing || refusal.said.contains("NoSuchUpload")
}

/// The same refusal; if something is not allowed, with the rights that removing needs.
fn with_rights_hint(refusal: S3Error) -> S3Error {
    if matches!(refusal.class, S3ErrorClass::Denied(_)) && refusal.said.contains("AccessDenied") {
        return S3Error { class: S3ErrorClass::Denied(NOT_ALLOWED), ..refusal };
    }
    refusal
}

fn time_of(time: &DateTime) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp(time.secs()).ok()
}
