//! Multipart uploads: the parts in flight, and their completion.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest as _, Sha256};

use super::super::parts::{PARTS_MAX, in_flight_max, part_bytes};
use super::context::{UploadContext, copy, patience};
use crate::rt::Task;
use crate::store::StoreError;
use crate::store::s3::s3_error::S3Error;

/// Longest wait until the service has put the parts together.
const COMPLETE: Duration = Duration::from_mins(10);

/// An upload in parts that the service knows of.
pub(super) struct Multipart {
    /// The id that the service gave it.
    pub(super) id: String,
    sent: Vec<Part>,
    in_flight: VecDeque<Task<Result<Part, S3Error>>>,
}

/// A part that the service has.
struct Part {
    number: i32,
    etag: String,
    sha256: [u8; 32],
}

impl Multipart {
    /// An upload that the service has begun under this id.
    pub(super) fn new(id: String) -> Multipart {
        Multipart { id, sent: Vec::new(), in_flight: VecDeque::new() }
    }

    /// Adds a part that the service has made itself, of this content.
    pub(super) fn add(&mut self, etag: String, sha256: [u8; 32]) {
        let number = i32::try_from(self.parts() + 1).unwrap_or(i32::MAX);
        self.sent.push(Part { number, etag, sha256 });
    }

    /// Gives it up: no part arrives any more. The id of what the service is to forget.
    pub(super) fn give_up(self) -> String {
        drop(self.in_flight);
        self.id
    }

    /// How many parts were sent or are being sent.
    pub(super) fn parts(&self) -> u64 {
        (self.sent.len() + self.in_flight.len()) as u64
    }

    /// Lets a part fly, once there is room for it.
    pub(super) fn send(
        &mut self,
        context: &Arc<UploadContext>,
        bytes: Vec<u8>,
    ) -> Result<(), StoreError> {
        let (remote, number) = (&context.remote, self.parts() + 1);
        if number > PARTS_MAX {
            let said = format!("an object has at most {PARTS_MAX} parts: set a larger `part_mib`");
            return Err(context.error(S3Error::broken(said)));
        }
        let first = remote.settings.part_bytes;
        let width = in_flight_max(part_bytes(first, number), first, remote.settings.connections);
        self.wait_for_parts(context, width.min(remote.pace.width()).saturating_sub(1))?;
        let (id, number) = (self.id.clone(), i32::try_from(number).unwrap_or(i32::MAX));
        let by = Arc::clone(context);
        let part = async move { by.part(&id, number, bytes).await };
        self.in_flight.push_back(Task::start(part).map_err(|error| remote.ended(error.into()))?);
        Ok(())
    }

    /// Waits until at most `most` parts fly.
    pub(super) fn wait_for_parts(
        &mut self,
        context: &UploadContext,
        most: usize,
    ) -> Result<(), StoreError> {
        while self.in_flight.len() > most {
            let Some(mut oldest) = self.in_flight.pop_front() else { return Ok(()) };
            let landed = oldest.join(&context.remote.ctx.cancel);
            let landed = landed.map_err(|stopped| context.remote.ended(stopped))?;
            self.sent.push(landed.map_err(|refusal| context.error(refusal))?);
        }
        Ok(())
    }

    /// What the service says of an object in parts: the SHA-256 of the parts' SHA-256s.
    pub(super) fn composite(&self) -> String {
        let mut all = Sha256::new();
        self.sent.iter().for_each(|part| all.update(part.sha256));
        format!("{}-{}", BASE64.encode(all.finalize()), self.sent.len())
    }
}

impl UploadContext {
    /// Sends a part until the service has it.
    async fn part(&self, id: &str, number: i32, bytes: Vec<u8>) -> Result<Part, S3Error> {
        let sha256: [u8; 32] = Sha256::digest(&bytes).into();
        let declared = BASE64.encode(sha256);
        let (length, body) = (bytes.len() as u64, SdkBody::from(bytes));
        let send = || async {
            let request = self.remote.client.upload_part();
            let request = request
                .bucket(&self.remote.settings.bucket)
                .key(&self.name)
                .upload_id(id)
                .part_number(number)
                .set_checksum_sha256(self.checksum().then(|| declared.clone()))
                .body(ByteStream::new(copy(&body)?));
            let patience = patience(length, self.remote.pace.width());
            let answer = self.remote.once(patience, request.send()).await?;
            if answer.checksum_sha256().is_some_and(|found| found != declared) {
                return Err(S3Error::transient("the service received a part with another SHA-256"));
            }
            let etag = answer.e_tag.filter(|etag| !etag.is_empty());
            let etag =
                etag.ok_or_else(|| S3Error::broken("the service accepted a part without an ETag"))?;
            Ok(Part { number, etag, sha256 })
        };
        self.remote.send_with_retries(send).await
    }

    /// Has the service put the parts together, once.
    pub(super) async fn complete(&self, multipart: &Multipart) -> Result<(), S3Error> {
        let parts = multipart.sent.iter().map(|part| {
            CompletedPart::builder()
                .part_number(part.number)
                .e_tag(&part.etag)
                .set_checksum_sha256(self.checksum().then(|| BASE64.encode(part.sha256)))
                .build()
        });
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts.collect())).build();
        let request = self.remote.client.complete_multipart_upload();
        let request = request
            .bucket(&self.remote.settings.bucket)
            .key(&self.name)
            .upload_id(&multipart.id)
            .set_if_none_match(self.condition())
            .multipart_upload(parts);
        self.remote.once(COMPLETE, request.send()).await.map(|_answer| ())
    }
}
