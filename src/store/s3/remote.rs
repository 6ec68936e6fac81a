//! A bucket, and requests to it: retried while that can help, slowed down when the service asks for it,
//! within a deadline.

use std::collections::HashMap;
use std::pin::Pin;
use std::time::{Duration, Instant};

use aws_sdk_s3::Client;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{
    ProvideCredentials as _, RequestChecksumCalculation, ResponseChecksumValidation,
};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::ChecksumMode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::answer::AnswerSanitizer;
use super::pace::Pace;
use super::settings::Settings;
use crate::aws::chain;
use crate::ctx::Ctx;
use crate::domain::manifest::unhex;
use crate::rt::{self, Stopped};
use crate::store::layer::retry::jitter;
use crate::store::s3::s3_error::{S3Error, S3ErrorClass};
use crate::store::{StoreError, Version, is_key};

/// Longest wait for the answer to a request without a body of ours.
pub(super) const ANSWER: Duration = Duration::from_secs(30);

/// Consecutive failures after which the operator is told that requests are being retried.
const SAID_AFTER: u32 = 4;
/// Attempts that a request gets even after the time for retries is over, since a slow attempt may fail
/// late.
const TRIES_LEAST: u32 = 3;
/// The metadata key of an object's SHA-256 in hex.
pub(super) const SHA256: &str = "checksum-sha256";

/// Longest name of an object, bytes; the service's limit.
const NAME_BYTES_MAX: usize = 1024;

/// A bucket that requests can be sent to.
#[derive(Debug)]
pub(super) struct Remote {
    pub(super) settings: Settings,
    pub(super) client: Client,
    pub(super) pace: Pace,
    pub(super) ctx: Ctx,
}

/// What a HEAD request shows of an object.
#[derive(Debug, Clone, Default)]
pub(super) struct ObjectHead {
    pub(super) bytes: u64,
    pub(super) version: Option<Version>,
    pub(super) metadata: HashMap<String, String>,
    /// SHA-256 as the service calculated it: base64, for several parts with `-` and their number.
    pub(super) checksum: Option<String>,
    /// How the service encrypted it.
    pub(super) sse: Option<String>,
    /// Its storage class, if it is not the standard one.
    pub(super) storage_class: Option<String>,
    /// Until when it is locked, Unix seconds, as far as bkp may know.
    pub(super) locked_until: Option<i64>,
}

impl ObjectHead {
    /// SHA-256 of the content: as the service calculated it, or else as the writer declared it. The
    /// checksum of an object in several parts is not one of the content.
    pub(super) fn sha256(&self) -> Option<[u8; 32]> {
        let whole = self.checksum.as_ref().and_then(|text| BASE64.decode(text).ok());
        whole.and_then(|whole| whole.try_into().ok()).or_else(|| metadata_sha256(&self.metadata))
    }
}

/// SHA-256 of an object as its metadata says.
pub(super) fn metadata_sha256(metadata: &HashMap<String, String>) -> Option<[u8; 32]> {
    unhex(metadata.get(SHA256)?.as_bytes())?.try_into().ok()
}

/// Which version of an object the service shows: a new one has another date even if its content, and so
/// its `ETag`, is the same. Looks show whole seconds.
pub(super) fn version(
    bytes: u64,
    etag: Option<&str>,
    modified: Option<&DateTime>,
) -> Option<Version> {
    let (etag, modified) = (etag?.trim_matches('"'), modified?.secs());
    Some(Version::of(&[&bytes.to_le_bytes(), etag.as_bytes(), &modified.to_le_bytes()]))
}

impl Remote {
    /// Resolves region and credentials. Sends nothing to the bucket yet.
    ///
    /// # Errors
    /// [`StoreError::Denied`] if there are no credentials.
    pub(super) fn connect(settings: Settings, ctx: &Ctx) -> Result<Remote, StoreError> {
        let (url, access) = (settings.url.clone(), settings.access.clone());
        let resolve = async {
            let config = access.resolve().await;
            let provider = config.credentials_provider();
            let known = match &provider {
                Some(provider) => provider.provide_credentials().await.map(|_secret| ()),
                None => Ok(()),
            };
            (config, known)
        };
        let (config, known) =
            rt::wait(&ctx.cancel, resolve).map_err(|stopped| ended(stopped, &url))?;
        known.map_err(|error| {
            let said = chain(&error);
            S3Error::no_credentials(&said).into_error(&url, "open", &settings.bucket)
        })?;
        // The environment can name an endpoint too; services of that sort want the path.
        let own_endpoint = config.endpoint_url().is_some();
        let config = aws_sdk_s3::config::Builder::from(&config)
            // Here it is decided when a request is sent again.
            .retry_config(RetryConfig::disabled())
            .force_path_style(settings.path_style.unwrap_or(own_endpoint))
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .interceptor(AnswerSanitizer)
            .build();
        let pace = Pace::new(settings.connections);
        Ok(Remote { client: Client::from_conf(config), pace, ctx: ctx.clone(), settings })
    }

    /// The name of an object in the bucket.
    ///
    /// # Errors
    /// [`StoreError::InvalidKey`].
    pub(super) fn name(&self, key: &str) -> Result<String, StoreError> {
        let name = format!("{}{key}", self.settings.prefix);
        if is_key(key) && name.len() <= NAME_BYTES_MAX {
            return Ok(name);
        }
        Err(StoreError::InvalidKey { store: self.settings.url.clone(), key: key.to_owned() })
    }

    /// Sends one request, once, when it is its turn, and waits for the answer no longer than
    /// `patience`.
    pub(super) fn once<'a, T, E>(
        &'a self,
        patience: Duration,
        request: impl Future<Output = Result<T, SdkError<E, HttpResponse>>> + Send + 'a,
    ) -> impl Future<Output = Result<T, S3Error>> + Send + 'a
    where
        T: Send + 'a,
        E: ProvideErrorMetadata + std::error::Error + Send + 'static,
    {
        // The SDK's futures take kilobytes; whoever waits for this one need not carry them.
        self.boxed(patience, Box::pin(request))
    }

    async fn boxed<T, E>(
        &self,
        patience: Duration,
        request: Pin<Box<impl Future<Output = Result<T, SdkError<E, HttpResponse>>> + Send>>,
    ) -> Result<T, S3Error>
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        self.pace.acquire().await;
        let refusal = match rt::limit(patience, request).await {
            Ok(Ok(answer)) => {
                self.pace.succeeded();
                return Ok(answer);
            }
            Ok(Err(error)) => S3Error::of(&error),
            Err(elapsed) => {
                // A link that is too slow for so many at a time.
                self.pace.throttled(Duration::ZERO);
                S3Error::late(elapsed)
            }
        };
        if refusal.class == S3ErrorClass::Slow {
            let backoff = &self.settings.backoff;
            let pause = backoff.pause(1, jitter());
            self.pace
                .throttled(refusal.retry_after.map_or(pause, |after| after.min(backoff.longest)));
        }
        Err(refusal)
    }

    /// Sends a request until it succeeds, fails permanently, or the deadline has passed.
    pub(super) async fn send_with_retries<T, F>(
        &self,
        mut send: impl FnMut() -> F,
    ) -> Result<T, S3Error>
    where
        F: Future<Output = Result<T, S3Error>>,
    {
        let backoff = &self.settings.backoff;
        let mut since = None;
        let mut failures = 0_u32;
        loop {
            let refusal = match send().await {
                Ok(answer) => return Ok(answer),
                Err(refusal) => refusal,
            };
            failures = failures.saturating_add(1);
            // From the first failure on: how long the first try took says nothing.
            let since = *since.get_or_insert_with(Instant::now);
            let pause = backoff.pause(failures, jitter());
            let asked = refusal.retry_after.unwrap_or_default().min(backoff.longest);
            let pause = pause.max(asked);
            let late = since.elapsed().saturating_add(pause) > backoff.total;
            // What was not understood three times will not be later.
            let garbled = refusal.class == S3ErrorClass::Garbled;
            if !refusal.can_pass() || ((late || garbled) && failures >= TRIES_LEAST) {
                return Err(refusal);
            }
            let (url, said, tenths) = (&self.settings.url, &refusal.said, pause.as_secs_f32());
            self.ctx.monitor.detail(&format!("{url}: {said}; retrying in {tenths:.1} s"));
            if failures == SAID_AFTER {
                let total = backoff.total.as_secs();
                let why = format!("{url}: {said}; retrying for at most {total} s");
                self.ctx.monitor.warn(&why);
            }
            rt::sleep(pause).await;
        }
    }

    /// Blocks this thread on `work`; `operation` and `key` are for errors.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::Stopped`] if the run should stop.
    pub(super) fn wait<T>(
        &self,
        (operation, key): (&'static str, &str),
        work: impl Future<Output = Result<T, S3Error>>,
    ) -> Result<T, StoreError> {
        let done = rt::wait(&self.ctx.cancel, work).map_err(|stopped| self.ended(stopped))?;
        done.map_err(|refusal| self.error(refusal, operation, key))
    }

    /// The store's error for a refusal.
    pub(super) fn error(&self, refusal: S3Error, operation: &'static str, key: &str) -> StoreError {
        refusal.into_error(&self.settings.url, operation, key)
    }

    /// The store's error for work that was stopped or timed out.
    pub(super) fn ended(&self, stopped: Stopped) -> StoreError {
        ended(stopped, &self.settings.url)
    }

    /// Sends one HEAD request for the object of this name.
    pub(super) async fn head_object(&self, name: &str) -> Result<ObjectHead, S3Error> {
        self.head_version(name, None).await
    }

    /// The same for one version of it.
    pub(super) async fn head_version(
        &self,
        name: &str,
        id: Option<&str>,
    ) -> Result<ObjectHead, S3Error> {
        let request = self.client.head_object().bucket(&self.settings.bucket).key(name);
        let request = request.set_version_id(id.map(str::to_owned));
        let request = request.checksum_mode(ChecksumMode::Enabled);
        let found = self.once(ANSWER, request.send()).await?;
        let bytes = found.content_length().and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0);
        Ok(ObjectHead {
            bytes,
            version: version(bytes, found.e_tag(), found.last_modified()),
            metadata: found.metadata().cloned().unwrap_or_default(),
            checksum: found.checksum_sha256().map(str::to_owned),
            sse: found.server_side_encryption().map(|sse| sse.as_str().to_owned()),
            storage_class: found.storage_class().map(|class| class.as_str().to_owned()),
            locked_until: found.object_lock_retain_until_date().map(DateTime::secs),
        })
    }
}

fn ended(stopped: Stopped, url: &str) -> StoreError {
    match stopped {
        Stopped::Cancelled(fault) => StoreError::Stopped(fault),
        Stopped::Runtime(error) => StoreError::Unavailable {
            store: url.to_owned(),
            operation: "reach",
            key: url.to_owned(),
            transient: false,
            source: error.into(),
        },
    }
}
