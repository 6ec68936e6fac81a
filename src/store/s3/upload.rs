//! An object on its way into a bucket: a small one by one request, a large one in parts. Parts are held
//! back until it is known whether all of them can be: then their metadata has the SHA-256 of the object.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::primitives::{ByteStream, DateTime, SdkBody};
use aws_sdk_s3::types::{
    ChecksumAlgorithm, ChecksumType, ObjectLockMode, ServerSideEncryption, StorageClass,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest as _, Sha256};

use self::multipart::Multipart;
use super::parts::part_bytes;
use super::refusal::{Class, Refusal};
use super::remote::{ANSWER, Remote, SHA256};
use super::settings::{Checksum, CreateOnly, LockMode, Marks, Sse};
use crate::domain::id::BackupId;
use crate::domain::manifest::hex;
use crate::rt;
use crate::store::{Declared, ObjectLabels, StoreError, Upload};

mod confirm;
mod multipart;

/// Slowest link that is waited for, bytes per second.
const SLOWEST: u64 = 64 << 10;
/// Longest time for telling the service that an upload is abandoned.
const ABANDON: Duration = Duration::from_secs(10);
/// The metadata that tells uploads apart.
const TOKEN: &str = "bkp-upload";

/// What was asked for and what is there so far.
pub(super) struct S3Upload {
    order: Arc<Order>,
    /// The part that is being filled.
    buffer: Vec<u8>,
    /// Whole parts that are not sent before it is known how long the object is: metadata is said before
    /// the first part is sent, and the SHA-256 is to be in it.
    held: VecDeque<Vec<u8>>,
    bytes: u64,
    sha256: Sha256,
    /// `None` while nothing is sent.
    multipart: Option<Multipart>,
}

/// Everything that requests of one upload share.
pub(super) struct Order {
    pub(super) remote: Arc<Remote>,
    pub(super) key: String,
    pub(super) name: String,
    pub(super) metadata: HashMap<String, String>,
    pub(super) lock: Option<(ObjectLockMode, DateTime)>,
    pub(super) marks: Marks,
    /// Whether the service is asked to refuse it if the key is taken.
    pub(super) create_only: bool,
}

impl Order {
    /// An order for the object `key`; nothing is sent.
    pub(super) fn new(
        remote: &Arc<Remote>,
        key: &str,
        labels: &ObjectLabels,
    ) -> Result<Order, StoreError> {
        let name = remote.name(key)?;
        let now = remote.ctx.now();
        let token = BackupId::new(now).to_string();
        let pairs = labels.pairs.iter().cloned().chain([(TOKEN.to_owned(), token)]);
        let marks = remote.settings.marks.of(labels.role);
        let lock = marks.object_lock.map(|(mode, days)| {
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
        Ok(Order { remote, key, name, metadata: pairs.collect(), lock, marks, create_only })
    }

    fn error(&self, refusal: Refusal) -> StoreError {
        self.remote.error(refusal, "write", &self.key)
    }

    fn mismatch(&self, found: String, expected: String) -> StoreError {
        let (store, key) = (self.remote.settings.url.clone(), self.key.clone());
        StoreError::Mismatch { store, key, found, expected }
    }

    fn condition(&self) -> Option<String> {
        self.create_only.then(|| "*".to_owned())
    }

    fn checksum(&self) -> bool {
        self.remote.settings.checksum == Checksum::Sha256
    }

    fn sse(&self) -> Option<ServerSideEncryption> {
        self.marks.sse.map(|sse| match sse {
            Sse::S3 => ServerSideEncryption::Aes256,
            Sse::Kms => ServerSideEncryption::AwsKms,
        })
    }

    /// Sends a whole object, once.
    pub(super) async fn put(&self, body: &SdkBody, sha256: &[u8; 32]) -> Result<(), Refusal> {
        let (settings, marks) = (&self.remote.settings, &self.marks);
        let (lock_mode, lock_until) = self.lock.clone().unzip();
        let request = self.remote.client.put_object();
        let request = request
            .bucket(&settings.bucket)
            .key(&self.name)
            .set_metadata(Some(self.metadata(Some(sha256))))
            .set_if_none_match(self.condition())
            .set_checksum_sha256(self.checksum().then(|| BASE64.encode(sha256)))
            .set_server_side_encryption(self.sse())
            .set_ssekms_key_id(marks.sse_kms_key_id.clone())
            .set_storage_class(marks.storage_class.as_deref().map(StorageClass::from))
            .set_tagging(marks.tagging.clone())
            .set_object_lock_mode(lock_mode)
            .set_object_lock_retain_until_date(lock_until)
            .body(ByteStream::new(copy(body)?));
        let bytes = body.content_length().unwrap_or(0);
        self.remote.once(patience(bytes, 1), request.send()).await.map(|_answer| ())
    }

    /// Metadata of the object, with its SHA-256 where that is known.
    fn metadata(&self, sha256: Option<&[u8; 32]>) -> HashMap<String, String> {
        let mut metadata = self.metadata.clone();
        metadata.extend(sha256.map(|sha256| (SHA256.to_owned(), hex(sha256))));
        metadata
    }

    /// Begins an object in parts; the id that the service gave it.
    pub(super) async fn begin(&self, sha256: Option<&[u8; 32]>) -> Result<String, Refusal> {
        let (settings, marks) = (&self.remote.settings, &self.marks);
        let (lock_mode, lock_until) = self.lock.clone().unzip();
        let request = self.remote.client.create_multipart_upload();
        let request = request
            .bucket(&settings.bucket)
            .key(&self.name)
            .set_metadata(Some(self.metadata(sha256)))
            .set_checksum_algorithm(self.checksum().then_some(ChecksumAlgorithm::Sha256))
            .set_checksum_type(self.checksum().then_some(ChecksumType::Composite))
            .set_server_side_encryption(self.sse())
            .set_ssekms_key_id(marks.sse_kms_key_id.clone())
            .set_storage_class(marks.storage_class.as_deref().map(StorageClass::from))
            .set_tagging(marks.tagging.clone())
            .set_object_lock_mode(lock_mode)
            .set_object_lock_retain_until_date(lock_until);
        let answer = self.remote.once(ANSWER, request.send()).await?;
        let id = answer.upload_id.filter(|id| !id.is_empty());
        id.ok_or_else(|| Refusal::broken("the service began an upload without an id"))
    }

    /// Tells the service that an upload in parts is abandoned. What cannot be told is found by a
    /// listing of unfinished uploads.
    pub(super) fn abandon(&self, id: &str) {
        let tell = || async {
            let request = self.remote.client.abort_multipart_upload();
            let request =
                request.bucket(&self.remote.settings.bucket).key(&self.name).upload_id(id);
            self.remote.once(ANSWER, request.send()).await
        };
        let told = rt::finish(rt::limit(ABANDON, self.remote.insist(tell)));
        let why = match told {
            Ok(Ok(Ok(_) | Err(Refusal { class: Class::Missing | Class::Forgotten, .. }))) => return,
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

impl S3Upload {
    /// Begins an object; nothing is sent before it ends or is too long to be held.
    pub(super) fn begin(
        remote: &Arc<Remote>,
        key: &str,
        labels: &ObjectLabels,
    ) -> Result<S3Upload, StoreError> {
        let order = Arc::new(Order::new(remote, key, labels)?);
        let sha256 = Sha256::new();
        let (buffer, held) = (Vec::new(), VecDeque::new());
        Ok(S3Upload { order, buffer, held, bytes: 0, sha256, multipart: None })
    }

    /// Number and size of the part that is being filled.
    fn filling(&self) -> (u64, u64) {
        let sent = self.multipart.as_ref().map_or(0, Multipart::parts);
        let number = sent + self.held.len() as u64 + 1;
        (number, part_bytes(self.order.remote.settings.part_bytes, number))
    }

    /// Puts the filled part behind those that are held, and sends them all once there are too many to be
    /// held.
    fn part_is_full(&mut self) -> Result<(), StoreError> {
        self.held.push_back(std::mem::take(&mut self.buffer));
        let held: u64 = self.held.iter().map(|part| part.len() as u64).sum();
        if self.multipart.is_none() && held < self.order.remote.settings.held_bytes {
            return Ok(());
        }
        self.send_held(None)
    }

    /// Sends what is held, beginning an upload in parts if there is none, with this SHA-256 if it is known.
    fn send_held(&mut self, sha256: Option<&[u8; 32]>) -> Result<(), StoreError> {
        let order = Arc::clone(&self.order);
        let remote = &order.remote;
        let multipart = match &mut self.multipart {
            Some(multipart) => multipart,
            none => {
                let begun = remote.insist(|| order.begin(sha256));
                let id = remote.wait(("write", &order.key), begun)?;
                none.insert(Multipart::begun(id))
            }
        };
        while let Some(part) = self.held.pop_front() {
            multipart.send(&order, part)?;
        }
        Ok(())
    }

    /// Whether what was written is what the writer declares.
    fn compare(&self, declared: Declared) -> Result<[u8; 32], StoreError> {
        let in_bytes = |bytes: u64| format!("{bytes} bytes");
        if self.bytes != declared.bytes {
            return Err(self.order.mismatch(in_bytes(self.bytes), in_bytes(declared.bytes)));
        }
        let sha256: [u8; 32] = self.sha256.clone().finalize().into();
        if sha256 != declared.sha256 {
            let in_hex = |sha256: &[u8; 32]| format!("SHA-256 {}", hex(sha256));
            return Err(self.order.mismatch(in_hex(&sha256), in_hex(&declared.sha256)));
        }
        Ok(sha256)
    }
}

impl Upload for S3Upload {
    fn write(&mut self, mut bytes: &[u8]) -> Result<(), StoreError> {
        self.sha256.update(bytes);
        self.bytes += bytes.len() as u64;
        while !bytes.is_empty() {
            let (_number, size) = self.filling();
            let size = usize::try_from(size).unwrap_or(usize::MAX);
            if self.buffer.len() >= size {
                // Only now is it certain that this part is not the last.
                self.part_is_full()?;
                continue;
            }
            let is_first = self.multipart.is_none() && self.held.is_empty();
            if !is_first && self.buffer.is_empty() {
                self.buffer.reserve_exact(size);
            }
            let (now, later) = bytes.split_at(bytes.len().min(size - self.buffer.len()));
            self.buffer.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    fn commit(mut self: Box<Self>, declared: Declared) -> Result<(), StoreError> {
        let sha256 = self.compare(declared)?;
        let order = Arc::clone(&self.order);
        let remote = &order.remote;
        let wait =
            |work| rt::wait(&remote.ctx.cancel, work).map_err(|stopped| remote.ended(stopped));
        if self.multipart.is_none() && self.held.is_empty() {
            order.check_vacant()?;
            let body = SdkBody::from(std::mem::take(&mut self.buffer));
            let sent = wait(Box::pin(remote.insist(|| order.put(&body, &sha256))) as Sending<'_>)?;
            return order.settle(sent, declared, None);
        }
        if !self.buffer.is_empty() {
            self.held.push_back(std::mem::take(&mut self.buffer));
        }
        self.send_held(Some(&sha256))?;
        let Some(multipart) = &mut self.multipart else { return Ok(()) };
        multipart.land(&order, 0)?;
        order.check_vacant()?;
        let composite = multipart.composite();
        let sent = wait(Box::pin(remote.insist(|| order.complete(multipart))) as Sending<'_>)?;
        order.settle(sent, declared, Some(composite))?;
        // The service has forgotten the upload: there is nothing to abandon.
        self.multipart = None;
        Ok(())
    }
}

type Sending<'a> = std::pin::Pin<Box<dyn Future<Output = Result<(), Refusal>> + 'a>>;

impl Drop for S3Upload {
    fn drop(&mut self) {
        if let Some(multipart) = self.multipart.take() {
            // Parts must not arrive after the service was told to forget them.
            let id = multipart.give_up();
            self.order.abandon(&id);
        }
    }
}

/// Another body of the same bytes, which are not copied.
fn copy(body: &SdkBody) -> Result<SdkBody, Refusal> {
    body.try_clone().ok_or_else(|| Refusal::broken("a body in memory cannot be sent twice"))
}

/// How long sending this many bytes may take while `width` requests share the link.
fn patience(bytes: u64, width: usize) -> Duration {
    ANSWER + Duration::from_secs(bytes.saturating_mul(width as u64) / SLOWEST)
}
