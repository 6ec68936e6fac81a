//! State shared by the requests of one upload, and the simple requests.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::primitives::{ByteStream, DateTime, SdkBody};
use aws_sdk_s3::types::{
    ChecksumAlgorithm, ChecksumType, ObjectLockMode, ServerSideEncryption, StorageClass,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::super::remote::{ANSWER, Remote, SHA256};
use super::super::settings::{Checksum, CreateOnly, LockMode, ObjectAttributes, Sse};
use crate::domain::id::BackupId;
use crate::domain::manifest::hex;
use crate::rt;
use crate::store::s3::s3_error::{S3Error, S3ErrorClass};
use crate::store::{ObjectLabels, StoreError};

/// Slowest link that is waited for, bytes per second.
const SLOWEST: u64 = 64 << 10;
/// Longest time for telling the service that an upload is abandoned.
const ABANDON: Duration = Duration::from_secs(10);
/// The metadata that tells uploads apart.
pub(super) const TOKEN: &str = "bkp-upload";

/// Everything that requests of one upload share.
pub(crate) struct UploadContext {
    pub(crate) remote: Arc<Remote>,
    pub(crate) key: String,
    pub(crate) name: String,
    pub(crate) metadata: HashMap<String, String>,
    pub(crate) lock: Option<(ObjectLockMode, DateTime)>,
    pub(crate) attributes: ObjectAttributes,
    /// Whether the service is asked to refuse it if the key is taken.
    pub(crate) create_only: bool,
}

impl UploadContext {
    /// An order for the object `key`; nothing is sent.
    pub(crate) fn new(
        remote: &Arc<Remote>,
        key: &str,
        labels: &ObjectLabels,
    ) -> Result<UploadContext, StoreError> {
        let name = remote.name(key)?;
        let now = remote.ctx.now();
        let token = BackupId::new(now).to_string();
        let pairs = labels.pairs.iter().cloned().chain([(TOKEN.to_owned(), token)]);
        let attributes = remote.settings.attributes.of(labels.role);
        let lock = attributes.object_lock.map(|(mode, days)| {
            let in_days = now + time::Duration::days(days.into());
            let until = labels.retain_until.map_or(in_days, |until| until.max(in_days));
            let mode = match mode {
                LockMode::Governance => ObjectLockMode::Governance,
                LockMode::Compliance => ObjectLockMode::Compliance,
            };
            (mode, DateTime::from_secs(until.unix_timestamp()))
        });
        let (remote, key) = (Arc::clone(remote), key.to_owned());
        let create_only = remote.settings.create_only == CreateOnly::IfNoneMatch;
        Ok(UploadContext {
            remote,
            key,
            name,
            metadata: pairs.collect(),
            lock,
            attributes,
            create_only,
        })
    }

    pub(super) fn error(&self, refusal: S3Error) -> StoreError {
        self.remote.error(refusal, "write", &self.key)
    }

    pub(super) fn mismatch(&self, found: String, expected: String) -> StoreError {
        let (store, key) = (self.remote.settings.url.clone(), self.key.clone());
        StoreError::Mismatch { store, key, found, expected }
    }

    pub(super) fn condition(&self) -> Option<String> {
        self.create_only.then(|| "*".to_owned())
    }

    pub(super) fn checksum(&self) -> bool {
        self.remote.settings.checksum == Checksum::Sha256
    }

    pub(super) fn sse(&self) -> Option<ServerSideEncryption> {
        self.attributes.sse.map(|sse| match sse {
            Sse::S3 => ServerSideEncryption::Aes256,
            Sse::Kms => ServerSideEncryption::AwsKms,
        })
    }

    /// Sends a whole object, once.
    pub(crate) async fn put(&self, body: &SdkBody, sha256: &[u8; 32]) -> Result<(), S3Error> {
        let (settings, attributes) = (&self.remote.settings, &self.attributes);
        let (lock_mode, lock_until) = self.lock.clone().unzip();
        let request = self.remote.client.put_object();
        let request = request
            .bucket(&settings.bucket)
            .key(&self.name)
            .set_metadata(Some(self.metadata(Some(sha256))))
            .set_if_none_match(self.condition())
            .set_checksum_sha256(self.checksum().then(|| BASE64.encode(sha256)))
            .set_server_side_encryption(self.sse())
            .set_ssekms_key_id(attributes.sse_kms_key_id.clone())
            .set_storage_class(attributes.storage_class.as_deref().map(StorageClass::from))
            .set_tagging(attributes.tagging.clone())
            .set_object_lock_mode(lock_mode)
            .set_object_lock_retain_until_date(lock_until)
            .body(ByteStream::new(copy(body)?));
        let bytes = body.content_length().unwrap_or(0);
        self.remote.once(patience(bytes, 1), request.send()).await.map(|_answer| ())
    }

    /// Metadata of the object, with its SHA-256 where that is known.
    pub(super) fn metadata(&self, sha256: Option<&[u8; 32]>) -> HashMap<String, String> {
        let mut metadata = self.metadata.clone();
        metadata.extend(sha256.map(|sha256| (SHA256.to_owned(), hex(sha256))));
        metadata
    }

    /// Begins an object in parts; the id that the service gave it.
    pub(crate) async fn begin(&self, sha256: Option<&[u8; 32]>) -> Result<String, S3Error> {
        let (settings, attributes) = (&self.remote.settings, &self.attributes);
        let (lock_mode, lock_until) = self.lock.clone().unzip();
        let request = self.remote.client.create_multipart_upload();
        let request = request
            .bucket(&settings.bucket)
            .key(&self.name)
            .set_metadata(Some(self.metadata(sha256)))
            .set_checksum_algorithm(self.checksum().then_some(ChecksumAlgorithm::Sha256))
            .set_checksum_type(self.checksum().then_some(ChecksumType::Composite))
            .set_server_side_encryption(self.sse())
            .set_ssekms_key_id(attributes.sse_kms_key_id.clone())
            .set_storage_class(attributes.storage_class.as_deref().map(StorageClass::from))
            .set_tagging(attributes.tagging.clone())
            .set_object_lock_mode(lock_mode)
            .set_object_lock_retain_until_date(lock_until);
        let answer = self.remote.once(ANSWER, request.send()).await?;
        let id = answer.upload_id.filter(|id| !id.is_empty());
        id.ok_or_else(|| S3Error::broken("the service started an upload without an id"))
    }

    /// Tells the service that an upload in parts is abandoned. What cannot be told is found by a
    /// listing of unfinished uploads.
    pub(crate) fn abandon(&self, id: &str) {
        let tell = || async {
            let request = self.remote.client.abort_multipart_upload();
            let request =
                request.bucket(&self.remote.settings.bucket).key(&self.name).upload_id(id);
            self.remote.once(ANSWER, request.send()).await
        };
        let told = rt::finish(rt::limit(ABANDON, self.remote.send_with_retries(tell)));
        let why = match told {
            Ok(Ok(
                Ok(_) | Err(S3Error { class: S3ErrorClass::Missing | S3ErrorClass::Forgotten, .. }),
            )) => return,
            Ok(Ok(Err(refusal))) => refusal.said,
            Ok(Err(elapsed)) => elapsed.to_string(),
            Err(error) => error.to_string(),
        };
        let (url, key) = (&self.remote.settings.url, &self.key);
        self.remote.ctx.monitor.warn(&format!(
            "{url}: the unfinished upload of `{key}` could not be removed ({why}); it costs storage until the bucket's lifecycle rule or `bkp cleanup` removes it"
        ));
    }
}

/// Another body of the same bytes, which are not copied.
pub(super) fn copy(body: &SdkBody) -> Result<SdkBody, S3Error> {
    body.try_clone().ok_or_else(|| S3Error::broken("a body in memory cannot be sent twice"))
}

/// How long sending this many bytes may take while `width` requests share the link.
pub(super) fn patience(bytes: u64, width: usize) -> Duration {
    ANSWER + Duration::from_secs(bytes.saturating_mul(width as u64) / SLOWEST)
}
