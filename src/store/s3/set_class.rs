//! Gives an object another storage class: a copy of it onto itself, which the service makes.
//!
//! The object is there at every moment: the copy takes its place when it is whole, or not at all. It is made
//! of the very version that was looked at, and confirmed: size, class, encryption, metadata, and the SHA-256
//! that the service calculated over the copy. In a bucket with versions the one before is then removed; until
//! then both are there, and paid for. What is locked is left alone, since its version could not be removed.

use std::collections::HashMap;
use std::io::{self, Read as _};
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::types::{
    ChecksumAlgorithm, ChecksumMode, ChecksumType, CompletedMultipartUpload, CompletedPart,
    GetObjectAttributesParts, ObjectAttributes as Asked, StorageClass as Class,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use super::prune;
use super::read::Reader;
use super::remote::{ANSWER, Remote};
use super::settings::{Checksum, encode};
use super::thaw;
use crate::domain::manifest::hex;
use crate::domain::tier::StorageClass;
use crate::store::s3::s3_error::{S3Error, S3ErrorClass};
use crate::store::{Declared, StoreError, Unfinished};

/// Longest wait for a copy that the service makes of one part or object, at most 5 GiB.
const COPYING: Duration = Duration::from_mins(15);
/// Parts whose sizes are asked for at a time; the service's limit.
const PARTS_PAGE: i32 = 1000;
/// Bytes that are read at once when an object is read back.
const READ_BYTES: usize = 1 << 20;
const NOT_ALLOWED: &str = "grant the user or role that runs `bkp cleanup` s3:PutObject without a condition, s3:GetObject, s3:GetObjectTagging, s3:PutObjectTagging and s3:DeleteObjectVersion, or set tiers_by = \"lifecycle\"";

/// One change of class.
struct Change<'a> {
    remote: &'a Arc<Remote>,
    key: &'a str,
    name: String,
    class: StorageClass,
    declared: Declared,
    /// What was there.
    before: HeadObjectOutput,
}

/// Moves an object, whose content the caller knows, to another class. One that is there already is left as
/// it is.
pub(super) fn set_class(
    remote: &Arc<Remote>,
    key: &str,
    declared: Declared,
    class: StorageClass,
) -> Result<(), StoreError> {
    let name = remote.name(key)?;
    let look = || head(remote, &name);
    let before = remote.wait(("inspect", key), remote.send_with_retries(look))?;
    if class_of(&before) == class {
        return Ok(());
    }
    if let Some(until) = prune::retained(remote, key)? {
        let (store, key) = (remote.settings.url.clone(), key.to_owned());
        return Err(StoreError::Retained { store, key, until });
    }
    if !thaw::state(&before).is_readable() {
        let (store, key) = (remote.settings.url.clone(), key.to_owned());
        return Err(StoreError::Archived { store, key });
    }
    let change = Change { remote, key, name, class, declared, before };
    change.check_size(&change.before)?;
    let sent = change.copy();
    let after =
        remote.wait(("confirm", key), remote.send_with_retries(|| head(remote, &change.name)))?;
    // An answer that was lost is no outcome.
    if class_of(&after) != class {
        sent?;
        return Err(change.mismatch(class_of(&after).to_string(), class.to_string()));
    }
    change.confirm(&after)?;
    change.remove_version(&after)
}

async fn head(remote: &Remote, name: &str) -> Result<HeadObjectOutput, S3Error> {
    let request = remote.client.head_object().bucket(&remote.settings.bucket).key(name);
    remote.once(ANSWER, request.checksum_mode(ChecksumMode::Enabled).send()).await
}

fn class_of(seen: &HeadObjectOutput) -> StorageClass {
    seen.storage_class().map_or(StorageClass::Standard, |class| StorageClass::named(class.as_str()))
}

impl Change<'_> {
    /// Has the service make the copy. An object that is too large for one request is copied in its parts.
    fn copy(&self) -> Result<(), StoreError> {
        let remote = self.remote;
        let send = || async {
            let seen = head(remote, &self.name).await?;
            if class_of(&seen) == self.class { Ok(()) } else { self.copy_whole().await }
        };
        let work = async {
            match remote.send_with_retries(send).await {
                Err(refusal) if is_too_large(&refusal) => Ok(true),
                copied => copied.map(|()| false).map_err(with_rights_hint),
            }
        };
        if remote.wait(("copy", self.key), work)? { self.copy_parts() } else { Ok(()) }
    }

    /// The very version that was looked at.
    fn source(&self) -> String {
        let place = format!("{}/{}", self.remote.settings.bucket, self.name);
        match self.version() {
            Some(version) => format!("{place}?versionId={}", encode(version)),
            None => place,
        }
    }

    /// The version that was looked at, in a bucket that has versions.
    fn version(&self) -> Option<&str> {
        self.before.version_id().filter(|version| *version != "null")
    }

    fn has_checksum(&self) -> bool {
        self.remote.settings.checksum == Checksum::Sha256
    }

    async fn copy_whole(&self) -> Result<(), S3Error> {
        let (remote, before) = (self.remote, &self.before);
        let request = remote.client.copy_object().bucket(&remote.settings.bucket).key(&self.name);
        let request = request
            .copy_source(self.source())
            .set_copy_source_if_match(before.e_tag().map(str::to_owned))
            .storage_class(Class::from(self.class.name()))
            .set_server_side_encryption(before.server_side_encryption().cloned())
            .set_ssekms_key_id(before.ssekms_key_id().map(str::to_owned))
            .set_bucket_key_enabled(before.bucket_key_enabled())
            .set_checksum_algorithm(self.has_checksum().then_some(ChecksumAlgorithm::Sha256));
        remote.once(COPYING, request.send()).await.map(|_answer| ())
    }

    /// Copies an object in its own parts, so that the checksum of the copy is that of the object.
    fn copy_parts(&self) -> Result<(), StoreError> {
        let (remote, key) = (self.remote, self.key);
        let sizes = remote.wait(("inspect the parts of", key), self.part_sizes())?;
        let id = remote.wait(("copy", key), remote.send_with_retries(|| self.begin()))?;
        let copied = remote.wait(("copy", key), self.copy_each(&id, &sizes));
        if copied.is_err() {
            let (key, begun) = (key.to_owned(), OffsetDateTime::UNIX_EPOCH);
            if let Err(error) = prune::abort(remote, &Unfinished { key, id, begun }) {
                remote.ctx.monitor.warn(&format!(
                    "{error}; it costs storage until a later `bkp cleanup` removes it"
                ));
            }
        }
        copied
    }

    /// The sizes of the parts of the object, bytes.
    async fn part_sizes(&self) -> Result<Vec<u64>, S3Error> {
        let remote = self.remote;
        let (mut sizes, mut after) = (Vec::new(), None);
        loop {
            let fetch = || async {
                let request = remote.client.get_object_attributes();
                let request = request.bucket(&remote.settings.bucket).key(&self.name);
                let request = request.set_version_id(self.version().map(str::to_owned));
                let request = request.object_attributes(Asked::ObjectParts).max_parts(PARTS_PAGE);
                let request = request.set_part_number_marker(after.clone());
                remote.once(ANSWER, request.send()).await
            };
            let answer = remote.send_with_retries(fetch).await.map_err(with_rights_hint)?;
            let parts = answer.object_parts();
            let found = parts.map(GetObjectAttributesParts::parts).unwrap_or_default();
            sizes.extend(found.iter().filter_map(|part| u64::try_from(part.size()?).ok()));
            let more = parts.filter(|parts| parts.is_truncated() == Some(true));
            let next = more.and_then(|parts| parts.next_part_number_marker()).map(str::to_owned);
            // A service that repeats itself is not believed.
            if next.is_none() || next == after || found.is_empty() {
                break;
            }
            after = next;
        }
        let sum = sizes.iter().fold(0_u64, |sum, bytes| sum.saturating_add(*bytes));
        if sum != self.declared.bytes {
            return Err(S3Error::broken(format!(
                "it is too large to be copied in one request, and the service tells parts of {sum} bytes of its {}",
                self.declared.bytes
            )));
        }
        Ok(sizes)
    }

    async fn begin(&self) -> Result<String, S3Error> {
        let (remote, before) = (self.remote, &self.before);
        let tags = remote.client.get_object_tagging().bucket(&remote.settings.bucket);
        let tags = tags.key(&self.name).set_version_id(self.version().map(str::to_owned));
        let tags = remote.once(ANSWER, tags.send()).await.map_err(with_rights_hint)?;
        let tags = tags.tag_set().iter();
        let tags = tags.map(|tag| format!("{}={}", encode(tag.key()), encode(tag.value())));
        let tags = tags.collect::<Vec<_>>().join("&");
        let request = remote.client.create_multipart_upload().bucket(&remote.settings.bucket);
        let request = request
            .key(&self.name)
            .set_metadata(Some(before.metadata().cloned().unwrap_or_default()))
            .set_content_type(before.content_type().map(str::to_owned))
            .set_tagging(Some(tags).filter(|tags| !tags.is_empty()))
            .storage_class(Class::from(self.class.name()))
            .set_server_side_encryption(before.server_side_encryption().cloned())
            .set_ssekms_key_id(before.ssekms_key_id().map(str::to_owned))
            .set_bucket_key_enabled(before.bucket_key_enabled())
            .set_checksum_algorithm(self.has_checksum().then_some(ChecksumAlgorithm::Sha256))
            .set_checksum_type(self.has_checksum().then_some(ChecksumType::Composite));
        let answer = remote.once(ANSWER, request.send()).await?;
        let id = answer.upload_id.filter(|id| !id.is_empty());
        id.ok_or_else(|| S3Error::broken("the service started an upload without an id"))
    }

    async fn copy_each(&self, id: &str, sizes: &[u64]) -> Result<(), S3Error> {
        let remote = self.remote;
        let (mut parts, mut start) = (Vec::new(), 0_u64);
        for (number, bytes) in (1..).zip(sizes) {
            remote.ctx.cancel.check().map_err(|fault| S3Error::broken(fault.to_string()))?;
            let end = start.saturating_add(*bytes);
            let send = || async {
                let request = remote.client.upload_part_copy().bucket(&remote.settings.bucket);
                let request = request.key(&self.name).upload_id(id).part_number(number);
                let request = request
                    .copy_source(self.source())
                    .set_copy_source_if_match(self.before.e_tag().map(str::to_owned))
                    .copy_source_range(format!("bytes={start}-{}", end.saturating_sub(1)));
                remote.once(COPYING, request.send()).await
            };
            let answer = remote.send_with_retries(send).await.map_err(with_rights_hint)?;
            let result = answer.copy_part_result();
            let part = CompletedPart::builder()
                .part_number(number)
                .set_e_tag(result.and_then(|part| part.e_tag()).map(str::to_owned))
                .set_checksum_sha256(
                    result.and_then(|part| part.checksum_sha256()).map(str::to_owned),
                );
            parts.push(part.build());
            start = end;
        }
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let send = || async {
            let request = remote.client.complete_multipart_upload();
            let request = request.bucket(&remote.settings.bucket).key(&self.name).upload_id(id);
            remote.once(COPYING, request.multipart_upload(parts.clone()).send()).await
        };
        match remote.send_with_retries(send).await {
            // A second try that found what the first one had done; the look afterwards tells.
            Ok(_) | Err(S3Error { class: S3ErrorClass::Forgotten, .. }) => Ok(()),
            Err(refusal) => Err(with_rights_hint(refusal)),
        }
    }

    fn mismatch(&self, found: String, expected: String) -> StoreError {
        let (store, key) = (self.remote.settings.url.clone(), self.key.to_owned());
        StoreError::Mismatch { store, key, found, expected }
    }

    fn check_size(&self, seen: &HeadObjectOutput) -> Result<(), StoreError> {
        let bytes = seen.content_length().and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0);
        if bytes == self.declared.bytes {
            return Ok(());
        }
        Err(self.mismatch(format!("{bytes} bytes"), format!("{} bytes", self.declared.bytes)))
    }

    /// That the copy is what the object was.
    fn confirm(&self, after: &HeadObjectOutput) -> Result<(), StoreError> {
        self.check_size(after)?;
        let none = HashMap::new();
        let metadata = |seen: &'_ HeadObjectOutput| seen.metadata().unwrap_or(&none).clone();
        let (was, is) = (metadata(&self.before), metadata(after));
        if was != is {
            return Err(self.mismatch(format!("metadata {is:?}"), format!("{was:?}")));
        }
        let sse = |seen: &HeadObjectOutput| {
            seen.server_side_encryption().map(|sse| sse.as_str().to_owned()).unwrap_or_default()
        };
        if sse(&self.before) != sse(after) {
            let found = format!("encryption `{}`", sse(after));
            return Err(self.mismatch(found, format!("`{}`", sse(&self.before))));
        }
        let (whole, before) = (BASE64.encode(self.declared.sha256), self.before.checksum_sha256());
        match after.checksum_sha256().filter(|_| self.has_checksum()) {
            Some(found) if found == whole || Some(found) == before => Ok(()),
            Some(found) => Err(self.mismatch(format!("SHA-256 {found} (base64)"), whole)),
            None if !self.has_checksum() => Ok(()),
            None if self.class.needs_thaw() => {
                self.remote.ctx.monitor.warn(&format!(
                    "{}: the service told no SHA-256 of the copy of `{}`; its size, class and metadata are right",
                    self.remote.settings.url, self.key
                ));
                Ok(())
            }
            None => self.read_back(),
        }
    }

    fn read_back(&self) -> Result<(), StoreError> {
        let mut reader = Reader::open(self.remote, self.key, None)?;
        let (mut hasher, mut buffer) = (Sha256::new(), vec![0; READ_BYTES]);
        loop {
            let count = match reader.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read.map_err(|error| {
                    self.remote.error(S3Error::transient(error.to_string()), "read back", self.key)
                })?,
            };
            if count == 0 {
                break;
            }
            hasher.update(buffer.get(..count).unwrap_or_default());
        }
        let found: [u8; 32] = hasher.finalize().into();
        if found == self.declared.sha256 {
            return Ok(());
        }
        let expected = hex(&self.declared.sha256);
        Err(self.mismatch(format!("SHA-256 {}", hex(&found)), expected))
    }

    /// Removes the version that the copy was made of, where the bucket has versions.
    fn remove_version(&self, after: &HeadObjectOutput) -> Result<(), StoreError> {
        let remote = self.remote;
        let Some(version) = self.version().filter(|before| after.version_id() != Some(before))
        else {
            return Ok(());
        };
        let send = || async {
            let request = remote.client.delete_object().bucket(&remote.settings.bucket);
            remote.once(ANSWER, request.key(&self.name).version_id(version).send()).await
        };
        let work = async {
            match remote.send_with_retries(send).await {
                Ok(_) | Err(S3Error { class: S3ErrorClass::Missing, .. }) => Ok(()),
                Err(refusal) => Err(with_rights_hint(refusal)),
            }
        };
        remote.wait(("remove the former version of", self.key), work)
    }
}

/// Whether the service refuses to copy so large an object in one request.
fn is_too_large(refusal: &S3Error) -> bool {
    ["EntityTooLarge", "InvalidRequest"].iter().any(|code| refusal.said.contains(code))
}

fn with_rights_hint(refusal: S3Error) -> S3Error {
    if matches!(refusal.class, S3ErrorClass::Denied(_)) && refusal.said.contains("AccessDenied") {
        return S3Error { class: S3ErrorClass::Denied(NOT_ALLOWED), ..refusal };
    }
    refusal
}
