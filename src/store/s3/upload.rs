//! Uploads to a bucket: a small object in one request, a large one in parts. Parts are held back until
//! it is known whether all of them can be: then their metadata has the SHA-256 of the object.

use std::collections::VecDeque;
use std::sync::Arc;

use aws_sdk_s3::primitives::SdkBody;
use sha2::{Digest as _, Sha256};

use self::context::UploadContext;
use self::multipart::Multipart;
use super::parts::part_bytes;
use super::remote::Remote;
use crate::domain::manifest::hex;
use crate::rt;
use crate::store::s3::s3_error::S3Error;
use crate::store::{Declared, ObjectLabels, StoreError, Upload};

mod confirm;
pub(super) mod context;
mod multipart;
pub(super) mod server_copy;

/// What was asked for and what is there so far.
pub(super) struct S3Upload {
    context: Arc<UploadContext>,
    /// The part that is being filled.
    buffer: Vec<u8>,
    /// Whole parts that are not sent before it is known how long the object is: metadata is said before
    /// the first part is sent, and the SHA-256 is to be in it.
    held: VecDeque<Vec<u8>>,
    bytes: u64,
    sha256: Sha256,
    /// The SHA-256 that it will have, if that is known.
    expected: Option<[u8; 32]>,
    /// `None` while nothing is sent.
    multipart: Option<Multipart>,
}

impl S3Upload {
    /// Begins an object; nothing is sent before it ends or is too long to be held.
    pub(super) fn begin(
        remote: &Arc<Remote>,
        key: &str,
        labels: &ObjectLabels,
    ) -> Result<S3Upload, StoreError> {
        let context = Arc::new(UploadContext::new(remote, key, labels)?);
        let sha256 = Sha256::new();
        let (buffer, held) = (Vec::new(), VecDeque::new());
        let expected = labels.sha256;
        Ok(S3Upload { context, buffer, held, bytes: 0, sha256, expected, multipart: None })
    }

    /// Number and size of the part that is being filled.
    fn filling(&self) -> (u64, u64) {
        let sent = self.multipart.as_ref().map_or(0, Multipart::parts);
        let number = sent + self.held.len() as u64 + 1;
        (number, part_bytes(self.context.remote.settings.part_bytes, number))
    }

    /// Puts the filled part behind those that are held, and sends them all once there are too many to be
    /// held.
    fn part_is_full(&mut self) -> Result<(), StoreError> {
        self.held.push_back(std::mem::take(&mut self.buffer));
        let held: u64 = self.held.iter().map(|part| part.len() as u64).sum();
        let expected = self.expected;
        if self.multipart.is_none()
            && expected.is_none()
            && held < self.context.remote.settings.held_bytes
        {
            return Ok(());
        }
        self.send_held(expected.as_ref())
    }

    /// Sends what is held, beginning an upload in parts if there is none, with this SHA-256 if it is known.
    fn send_held(&mut self, sha256: Option<&[u8; 32]>) -> Result<(), StoreError> {
        let context = Arc::clone(&self.context);
        let remote = &context.remote;
        let multipart = match &mut self.multipart {
            Some(multipart) => multipart,
            none => {
                let begun = remote.send_with_retries(|| context.begin(sha256));
                let id = remote.wait(("write", &context.key), begun)?;
                none.insert(Multipart::new(id))
            }
        };
        while let Some(part) = self.held.pop_front() {
            multipart.send(&context, part)?;
        }
        Ok(())
    }

    /// Whether what was written is what the writer declares.
    fn compare(&self, declared: Declared) -> Result<[u8; 32], StoreError> {
        let in_bytes = |bytes: u64| format!("{bytes} bytes");
        if self.bytes != declared.bytes {
            return Err(self.context.mismatch(in_bytes(self.bytes), in_bytes(declared.bytes)));
        }
        let sha256: [u8; 32] = self.sha256.clone().finalize().into();
        if sha256 != declared.sha256 {
            let in_hex = |sha256: &[u8; 32]| format!("SHA-256 {}", hex(sha256));
            return Err(self.context.mismatch(in_hex(&sha256), in_hex(&declared.sha256)));
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
        let context = Arc::clone(&self.context);
        let remote = &context.remote;
        let wait =
            |work| rt::wait(&remote.ctx.cancel, work).map_err(|stopped| remote.ended(stopped));
        if self.multipart.is_none() && self.held.is_empty() {
            context.check_vacant()?;
            let body = SdkBody::from(std::mem::take(&mut self.buffer));
            let sent =
                wait(Box::pin(remote.send_with_retries(|| context.put(&body, &sha256)))
                    as Sending<'_>)?;
            return context.resolve_outcome(sent, declared, None);
        }
        if !self.buffer.is_empty() {
            self.held.push_back(std::mem::take(&mut self.buffer));
        }
        self.send_held(Some(&sha256))?;
        let Some(multipart) = &mut self.multipart else { return Ok(()) };
        multipart.wait_for_parts(&context, 0)?;
        context.check_vacant()?;
        let composite = multipart.composite();
        let sent = wait(
            Box::pin(remote.send_with_retries(|| context.complete(multipart))) as Sending<'_>
        )?;
        context.resolve_outcome(sent, declared, Some(composite))?;
        // The service has forgotten the upload: there is nothing to abandon.
        self.multipart = None;
        Ok(())
    }
}

type Sending<'a> = std::pin::Pin<Box<dyn Future<Output = Result<(), S3Error>> + 'a>>;

impl Drop for S3Upload {
    fn drop(&mut self) {
        if let Some(multipart) = self.multipart.take() {
            // Parts must not arrive after the service was told to forget them.
            let id = multipart.give_up();
            self.context.abandon(&id);
        }
    }
}
