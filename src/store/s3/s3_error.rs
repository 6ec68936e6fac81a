//! What a failed request means: what to do about it, and what to tell the operator.

use std::error::Error;
use std::time::Duration;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use crate::aws::chain;
use crate::rt::Elapsed;
use crate::store::StoreError;
use crate::store::s3::answer::is_too_long;

/// Longest message of a service that is shown, characters.
const MESSAGE_CHARS_MAX: usize = 300;

/// A request that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct S3Error {
    pub(crate) class: S3ErrorClass,
    /// What the service or the system said, in one line.
    pub(crate) said: String,
    /// How long the service wants to be left alone.
    pub(crate) retry_after: Option<Duration>,
}

/// What a failure means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum S3ErrorClass {
    /// There is no such object.
    Missing,
    /// There is no such bucket.
    NoBucket,
    /// There is no such upload in parts.
    Forgotten,
    /// The object has to be brought back from an archive first.
    Archived,
    /// The key is taken (`If-None-Match`).
    Taken,
    /// The range begins behind the object.
    BehindEnd,
    /// The service asks for less.
    Slow,
    /// Trying again can help.
    Passing,
    /// The answer cannot be read: it broke off, or it is none of this protocol.
    Garbled,
    /// Somebody has to change something: this.
    Denied(&'static str),
    /// Anything else.
    Other,
}

const NO_CREDENTIALS: &str = "provide credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile (`profile` in the store's table, or AWS_PROFILE), or the role of the instance";

/// Codes of the service and what they mean. Those of AWS, and what others call the same.
const CODES: &[(&[&str], S3ErrorClass)] = &[
    (&["NoSuchKey", "NotFound"], S3ErrorClass::Missing),
    (&["NoSuchBucket"], S3ErrorClass::NoBucket),
    (&["NoSuchUpload"], S3ErrorClass::Forgotten),
    (
        // What services say to headers that they do not know.
        &["NotImplemented"],
        S3ErrorClass::Denied(
            "the service does not support a requested feature: try create_only = \"re-read\" or checksum = \"when-required\" in the store's table, and remove sse, storage_class, object_lock and tags",
        ),
    ),
    (&["PreconditionFailed"], S3ErrorClass::Taken),
    (&["InvalidRange"], S3ErrorClass::BehindEnd),
    (
        &[
            "SlowDown",
            "ServiceUnavailable",
            "TooManyRequests",
            "RequestLimitExceeded",
            "Throttling",
            "ThrottlingException",
        ],
        S3ErrorClass::Slow,
    ),
    (
        // The body arrived damaged or late, or somebody else is writing the same key just now.
        &[
            "BadDigest",
            "InvalidDigest",
            "XAmzContentSHA256Mismatch",
            "XAmzContentChecksumMismatch",
            "IncompleteBody",
            "RequestTimeout",
            "InternalError",
            "OperationAborted",
            "ConditionalRequestConflict",
        ],
        S3ErrorClass::Passing,
    ),
    (
        &["AccessDenied", "AllAccessDisabled", "AccountProblem"],
        S3ErrorClass::Denied(
            "allow it in the policy of the user or role: s3:ListBucket, s3:GetObject, s3:PutObject and s3:AbortMultipartUpload (and kms:GenerateDataKey and kms:Decrypt for sse = \"kms\"); with object lock also s3:PutObjectRetention",
        ),
    ),
    (
        &["ExpiredToken", "TokenRefreshRequired"],
        S3ErrorClass::Denied(
            "the credentials have expired: renew them, then run the same command again",
        ),
    ),
    (
        &["InvalidAccessKeyId", "InvalidToken", "InvalidClientTokenId", "NotSignedUp"],
        S3ErrorClass::Denied(NO_CREDENTIALS),
    ),
    (
        &["SignatureDoesNotMatch"],
        S3ErrorClass::Denied(
            "the secret key does not belong to the key id, or the region is wrong: correct the credentials, or `region` in the store's table",
        ),
    ),
    (
        &["RequestTimeTooSkewed", "RequestExpired"],
        S3ErrorClass::Denied(
            "correct the clock of this machine: it differs too much from the service's",
        ),
    ),
    (
        &[
            "AuthorizationHeaderMalformed",
            "PermanentRedirect",
            "TemporaryRedirect",
            "IllegalLocationConstraintException",
        ],
        S3ErrorClass::Denied("the bucket is in another region: set `region` in the store's table"),
    ),
    (&["InvalidObjectState"], S3ErrorClass::Archived),
    (
        &["InvalidStorageClass"],
        S3ErrorClass::Denied(
            "this service has no such storage class: correct `storage_class` in the store's table",
        ),
    ),
    (
        &["QuotaExceeded", "InsufficientCapacity", "XMinioStorageFull"],
        S3ErrorClass::Denied("free space in the store, then run the same command again"),
    ),
    (
        &["ObjectLockConfigurationNotFoundError"],
        S3ErrorClass::Denied(
            "recreate the bucket with object lock, or remove `object_lock` from the store's table",
        ),
    ),
];

/// What the status alone means: answers to HEAD have no body that could say more.
fn of_status(status: u16) -> S3ErrorClass {
    match status {
        301 | 307 => of_code("PermanentRedirect").unwrap_or(S3ErrorClass::Other),
        403 => of_code("AccessDenied").unwrap_or(S3ErrorClass::Other),
        404 => S3ErrorClass::Missing,
        200..=299 => S3ErrorClass::Garbled,
        408 | 500 | 502 | 504 => S3ErrorClass::Passing,
        412 => S3ErrorClass::Taken,
        416 => S3ErrorClass::BehindEnd,
        429 | 503 => S3ErrorClass::Slow,
        _ => S3ErrorClass::Other,
    }
}

fn of_code(code: &str) -> Option<S3ErrorClass> {
    CODES.iter().find(|(codes, _)| codes.contains(&code)).map(|(_, class)| *class)
}

impl S3Error {
    /// What a failed request of the SDK means.
    pub(crate) fn of<E>(error: &SdkError<E, HttpResponse>) -> S3Error
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let status = error.raw_response().map(|response| response.status().as_u16());
        let retry_after = error
            .raw_response()
            .and_then(|response| response.headers().get("retry-after")?.parse().ok())
            .map(Duration::from_secs);
        let service = error.as_service_error();
        let code = service.and_then(ProvideErrorMetadata::code);
        let class = match (code.and_then(of_code), status) {
            _ if is_too_long(error) => S3ErrorClass::Other,
            (Some(class), _) => class,
            (None, Some(status)) => of_status(status),
            (None, None) => classify_unsent(error),
        };
        let message = service.and_then(ProvideErrorMetadata::message);
        let said = match (status, code, message) {
            (Some(status), Some(code), Some(message)) => format!("{status} {code}: {message}"),
            (Some(status), Some(code), None) => format!("{status} {code}"),
            (Some(200..=299), None, _) => {
                format!("the answer of the service cannot be read: {}", chain(error))
            }
            (Some(status), None, _) => format!("the service answered {status}"),
            (None, ..) => chain(error),
        };
        S3Error { class, said: one_line(&said), retry_after }
    }

    /// A request that was not answered in time.
    pub(crate) fn late(elapsed: Elapsed) -> S3Error {
        S3Error { class: S3ErrorClass::Passing, said: elapsed.to_string(), retry_after: None }
    }

    /// Anything else that can pass by itself.
    pub(crate) fn transient(said: impl Into<String>) -> S3Error {
        S3Error { class: S3ErrorClass::Passing, said: one_line(&said.into()), retry_after: None }
    }

    /// An answer that makes no sense.
    pub(crate) fn broken(said: impl Into<String>) -> S3Error {
        S3Error { class: S3ErrorClass::Other, said: one_line(&said.into()), retry_after: None }
    }

    /// There are no credentials; `said` tells where they were looked for.
    pub(crate) fn no_credentials(said: &str) -> S3Error {
        let said = one_line(&format!("no credentials: {said}"));
        S3Error { class: S3ErrorClass::Denied(NO_CREDENTIALS), said, retry_after: None }
    }

    /// Whether trying again can help.
    pub(crate) fn can_pass(&self) -> bool {
        matches!(self.class, S3ErrorClass::Slow | S3ErrorClass::Passing | S3ErrorClass::Garbled)
    }

    /// The store's error: what `operation` on `key` of the store at `url` failed with.
    pub(crate) fn into_error(self, url: &str, operation: &'static str, key: &str) -> StoreError {
        let (store, key) = (url.to_owned(), key.to_owned());
        match self.class {
            S3ErrorClass::Missing => StoreError::Missing { store, key },
            S3ErrorClass::Taken => StoreError::Exists { store, key },
            S3ErrorClass::NoBucket => {
                let bucket =
                    store.strip_prefix("s3://").and_then(|rest| rest.split(['/', '?']).next());
                let bucket = bucket.unwrap_or_default();
                let endpoint = store.split_once("?endpoint=");
                let endpoint = endpoint.map_or(" (and --region)".to_owned(), |(_, endpoint)| {
                    format!(" --endpoint-url {endpoint}")
                });
                let hint = format!(
                    "correct the URL, or create the bucket: aws s3api create-bucket --bucket {bucket}{endpoint}"
                );
                StoreError::Absent { store, hint }
            }
            S3ErrorClass::Archived => StoreError::Archived { store, key },
            S3ErrorClass::Forgotten => {
                let hint = "a lifecycle rule or another program removed it: make the rule wait longer, then run the same command again";
                let (problem, hint) = (self.said, hint.to_owned());
                StoreError::Denied { store, operation, key, problem, hint }
            }
            S3ErrorClass::Denied(hint) => {
                let (problem, hint) = (self.said, hint.to_owned());
                StoreError::Denied { store, operation, key, problem, hint }
            }
            S3ErrorClass::BehindEnd
            | S3ErrorClass::Slow
            | S3ErrorClass::Passing
            | S3ErrorClass::Garbled
            | S3ErrorClass::Other => {
                // Whatever could pass had its time to.
                let (transient, source) = (false, self.said.into());
                StoreError::Unavailable { store, operation, key, transient, source }
            }
        }
    }
}

/// What a request that got no answer means.
fn classify_unsent<E>(error: &SdkError<E, HttpResponse>) -> S3ErrorClass
where
    E: Error + 'static,
{
    // That there are credentials is known by now; getting new ones can fail and pass.
    let text = chain(error);
    if text.contains("Invalid Configuration: Missing Region") || text.contains("region must be set")
    {
        return S3ErrorClass::Denied("set `region` in the store's table, or AWS_REGION");
    }
    if matches!(error, SdkError::ConstructionFailure(_)) {
        S3ErrorClass::Other
    } else {
        S3ErrorClass::Passing
    }
}

/// One line of bounded length: what a service says is not under our control.
fn one_line(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().filter(|c| !c.is_control()).take(MESSAGE_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_code_means_two_things() {
        let mut seen = std::collections::BTreeSet::new();
        for code in CODES.iter().flat_map(|(codes, _)| *codes) {
            assert!(seen.insert(code), "{code}");
        }
    }

    #[test]
    fn what_can_pass_is_tried_again_and_nothing_else() {
        assert_eq!(of_status(200), S3ErrorClass::Garbled);
        for status in [408, 429, 500, 502, 503, 504] {
            let class = of_status(status);
            assert!(matches!(class, S3ErrorClass::Slow | S3ErrorClass::Passing), "{status}");
        }
        for status in [301, 400, 403, 404, 409, 412, 416, 501] {
            let class = of_status(status);
            assert!(!matches!(class, S3ErrorClass::Slow | S3ErrorClass::Passing), "{status}");
        }
    }

    #[test]
    fn messages_are_one_short_line() {
        let text = one_line(&format!("a\n b\u{1b}[31m {}", "x".repeat(1000)));
        assert!(text.starts_with("a b[31m x") && text.chars().count() <= MESSAGE_CHARS_MAX);
    }
}
