//! Confirms an upload: the object exists, is ours, and is what was sent.

use std::io::Read as _;

use aws_sdk_s3::types::{ChecksumAlgorithm, ObjectLockRetention, ObjectLockRetentionMode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest as _, Sha256};

use super::super::read::Reader;
use super::super::remote::{ANSWER, ObjectHead};
use super::context::{TOKEN, UploadContext};
use crate::domain::manifest::hex;
use crate::store::s3::s3_error::{S3Error, S3ErrorClass};
use crate::store::{Declared, StoreError};

/// Bytes that are read at once when an object is read back.
const READ_BYTES: usize = 1 << 20;

impl UploadContext {
    /// Looks whether the key is still free, where the service would not refuse to overwrite. Who
    /// comes between this look and the write is found out afterwards.
    ///
    /// # Errors
    /// [`StoreError::Exists`] if it is taken.
    pub(super) fn check_vacant(&self) -> Result<(), StoreError> {
        if self.condition().is_some() {
            return Ok(());
        }
        let look = || self.remote.head_object(&self.name);
        match self.remote.wait(("inspect", &self.key), self.remote.send_with_retries(look)) {
            Err(StoreError::Missing { .. }) => Ok(()),
            Err(error) => Err(error),
            Ok(_taken) => Err(self.taken()),
        }
    }

    fn taken(&self) -> StoreError {
        let (store, key) = (self.remote.settings.url.clone(), self.key.clone());
        StoreError::Exists { store, key }
    }

    /// Finds out how an upload ended, whatever the service answered, and confirms the object.
    ///
    /// # Errors
    /// [`StoreError::Exists`] if another writer's object is there, [`StoreError::Mismatch`] if ours
    /// is not what was sent, or what sending it failed with.
    pub(in super::super) fn resolve_outcome(
        &self,
        sent: Result<(), S3Error>,
        declared: Declared,
        composite: Option<String>,
    ) -> Result<(), StoreError> {
        let look = || self.remote.head_object(&self.name);
        let seen = self.remote.wait(("confirm", &self.key), self.remote.send_with_retries(look));
        match (sent, seen) {
            (_, Err(error @ StoreError::Stopped(_))) => Err(error),
            // An answer that was lost, or a second try that found what the first one had done.
            (_, Ok(seen)) if self.is_ours(&seen) => self.confirm(&seen, declared, composite),
            (Ok(()) | Err(S3Error { class: S3ErrorClass::Taken, .. }), Ok(_)) => Err(self.taken()),
            // An upload in parts that the service no longer knows, and no object.
            (Err(refusal), _) if refusal.class == S3ErrorClass::Missing => {
                Err(self.error(S3Error { class: S3ErrorClass::Other, ..refusal }))
            }
            (Err(refusal), _) => Err(self.error(refusal)),
            (Ok(()), Err(StoreError::Missing { .. })) => {
                Err(self.mismatch("nothing".into(), format!("{} bytes", declared.bytes)))
            }
            (Ok(()), Err(error)) => Err(error),
        }
    }

    fn is_ours(&self, seen: &ObjectHead) -> bool {
        let token = self.metadata.get(TOKEN);
        token.is_some() && seen.metadata.get(TOKEN) == token
    }

    fn confirm(
        &self,
        seen: &ObjectHead,
        declared: Declared,
        composite: Option<String>,
    ) -> Result<(), StoreError> {
        let in_bytes = |bytes: u64| format!("{bytes} bytes");
        if seen.bytes != declared.bytes {
            return Err(self.mismatch(in_bytes(seen.bytes), in_bytes(declared.bytes)));
        }
        for (name, value) in &self.metadata {
            let found = seen.metadata.get(name);
            if found != Some(value) {
                let found = format!("metadata {name} = {found:?}");
                return Err(self.mismatch(found, format!("{value:?}")));
            }
        }
        self.confirm_attributes(seen)?;
        self.confirm_lock(seen)?;
        let whole = BASE64.encode(declared.sha256);
        match &seen.checksum {
            _ if !self.checksum() => Ok(()),
            Some(found) if *found == whole || Some(found) == composite.as_ref() => Ok(()),
            Some(found) => {
                Err(self.mismatch(format!("SHA-256 {found} (base64)"), composite.unwrap_or(whole)))
            }
            // The service keeps no SHA-256: then only reading it back can tell.
            None => self.read_back(declared),
        }
    }

    /// The service stored the object without something that is asked for.
    fn denied(&self, what: &str, hint: &str) -> StoreError {
        StoreError::Denied {
            store: self.remote.settings.url.clone(),
            operation: "write",
            key: self.key.clone(),
            problem: format!("the service stored it without the requested {what}"),
            hint: hint.to_owned(),
        }
    }

    /// Whether the object is locked as long as the store's table asks for. Some services forget
    /// that of objects in parts and are told again.
    fn confirm_lock(&self, seen: &ObjectHead) -> Result<(), StoreError> {
        let Some((mode, until)) = &self.lock else { return Ok(()) };
        let is_locked = |seen: &ObjectHead| seen.locked_until.is_some_and(|at| at >= until.secs());
        if is_locked(seen) {
            return Ok(());
        }
        let lock = || async {
            let retention = ObjectLockRetention::builder()
                .mode(ObjectLockRetentionMode::from(mode.as_str()))
                .retain_until_date(*until)
                .build();
            let request = self.remote.client.put_object_retention();
            let request = request.bucket(&self.remote.settings.bucket).key(&self.name);
            // The service demands a checksum or an MD5 of the request itself.
            let request = request.checksum_algorithm(ChecksumAlgorithm::Sha256);
            self.remote.once(ANSWER, request.retention(retention).send()).await?;
            self.remote.head_object(&self.name).await
        };
        let seen = self.remote.wait(("lock", &self.key), self.remote.send_with_retries(lock))?;
        if is_locked(&seen) {
            return Ok(());
        }
        let hint = "allow s3:GetObjectRetention, so that bkp can see the lock, and make sure that the bucket has object lock; or remove `object_lock` from the store's table";
        Err(self.denied("lock", hint))
    }

    /// Whether the service did with the object what the store's table asks for.
    fn confirm_attributes(&self, seen: &ObjectHead) -> Result<(), StoreError> {
        let wanted = self.sse().map(|sse| sse.as_str().to_owned());
        if wanted.is_some() && seen.sse != wanted {
            let hint = "remove `sse` from the store's table, or use a service that supports it; bkp's own encryption does not depend on it";
            return Err(self.denied("encryption", hint));
        }
        let wanted = self.attributes.storage_class.as_deref();
        let found = seen.storage_class.as_deref().unwrap_or("STANDARD");
        if wanted.is_some_and(|wanted| wanted != found) {
            let hint =
                "remove `storage_class` from the store's table, or use a service that supports it";
            return Err(self.denied("storage class", hint));
        }
        Ok(())
    }

    fn read_back(&self, declared: Declared) -> Result<(), StoreError> {
        let (url, key) = (&self.remote.settings.url, &self.key);
        self.remote
            .ctx
            .monitor
            .detail(&format!("{url}: the service keeps no SHA-256 of `{key}`; reading it back"));
        let fail = |error: std::io::Error| self.error(S3Error::transient(error.to_string()));
        let mut reader = Reader::open(&self.remote, key, None)?;
        let (mut hasher, mut bytes) = (Sha256::new(), 0_u64);
        let mut buffer = vec![0; READ_BYTES];
        loop {
            self.remote.ctx.cancel.check()?;
            match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    bytes += count as u64;
                    hasher.update(buffer.get(..count).unwrap_or_default());
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(fail(error)),
            }
        }
        let found: [u8; 32] = hasher.finalize().into();
        if (bytes, found) == (declared.bytes, declared.sha256) {
            return Ok(());
        }
        let told =
            |bytes: u64, sha256: &[u8; 32]| format!("{bytes} bytes, SHA-256 {}", hex(sha256));
        Err(self.mismatch(told(bytes, &found), told(declared.bytes, &declared.sha256)))
    }
}
