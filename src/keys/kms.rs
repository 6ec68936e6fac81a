//! Recipient `kms:KEY`: a key of AWS KMS, by ARN, id or alias.
//!
//! KMS makes a key that wraps the data key (`GenerateDataKey`); the backup keeps it as KMS encrypted
//! it. So who makes backups needs `kms:GenerateDataKey` and nothing else, however many KMS keys
//! there are, and only who restores needs `kms:Decrypt`. Both calls carry the encryption context
//! `{backup_id, source}`, which stands in KMS's log and can be a condition of a policy.
//!
//! What a backup says of its key is not believed: bkp asks KMS to decrypt with the key of the
//! configuration. Otherwise whoever can write to a store could name a key of their own.
//!
//! A region, an endpoint or a profile of its own follows like the query of a URL:
//! `kms:alias/backup?region=eu-west-1&endpoint=http://127.0.0.1:4566&profile=kms`. A region that is
//! not given is the ARN's, or comes from the environment.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::OnceLock;
use std::time::Duration;

use aws_sdk_kms::Client;
use aws_sdk_kms::config::http::HttpResponse;
use aws_sdk_kms::config::interceptors::BeforeTransmitInterceptorContextRef;
use aws_sdk_kms::config::retry::RetryConfig;
use aws_sdk_kms::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_kms::error::{BoxError, ProvideErrorMetadata, SdkError};
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::DataKeySpec;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;
use zeroize::Zeroizing;

use super::{DataKey, Effort, KeyError, KeyProvider, RecipientKind, wrap};
use crate::aws::{Access, chain};
use crate::ctx::Cancel;
use crate::domain::id::BackupId;
use crate::domain::key_facts::KeyFacts;
use crate::domain::limits::KMS_TRIES_MAX;
use crate::domain::recipient::Recipient;
use crate::rt::{self, Stopped};

mod describe;

/// The line of [`super::kinds::RECIPIENTS`].
pub const KIND: RecipientKind =
    RecipientKind { prefix: "kms", check: |text| parse(text).map(|_parsed| ()), open };

/// Longest wait for KMS, all tries together.
const DEADLINE: Duration = Duration::from_secs(30);
/// Tries of a call that can pass.
const TRIES: u32 = 4;
/// Largest ciphertext of a data key; KMS's own limit.
const CIPHERTEXT_BYTES_MAX: usize = 6144;
/// The recipient's parameter with the wrapping key, as KMS encrypted it, base64.
const ENCRYPTED_KEY: &str = "encrypted_key";
/// The recipient's parameter with the source's name, which is part of the context.
const SOURCE: &str = "source";

/// A KMS key.
struct Kms {
    origin: String,
    /// As configured: ARN, id or alias.
    key: String,
    access: Access,
    cancel: Cancel,
    /// Made when it is first asked: it keeps connections and credentials for the next backup.
    client: OnceLock<Client>,
}

fn open(text: &str, cancel: &Cancel) -> Result<Box<dyn KeyProvider>, KeyError> {
    let origin = super::shown(&format!("{}:{text}", KIND.prefix));
    let unusable =
        |(problem, hint)| KeyError::Unusable { origin: origin.clone(), problem, hint: Some(hint) };
    let (key, access) = parse(text).map_err(unusable)?;
    let (origin, cancel) = (origin.clone(), cancel.clone());
    Ok(Box::new(Kms { origin, key, access, cancel, client: OnceLock::new() }))
}

/// The key and how it is reached; or what is wrong with `text`, and what to write.
fn parse(text: &str) -> Result<(String, Access), (String, String)> {
    let fail = |problem: String| {
        let hint = format!(
            "write {}:KEY, with KEY an ARN, an id or alias/NAME; followed by ?region=, ?endpoint= or ?profile= if needed",
            KIND.prefix
        );
        (problem, hint)
    };
    let (key, query) = text.split_once('?').unwrap_or((text, ""));
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '/' | '_' | '-');
    if key.is_empty() || key.len() > 2048 || !key.chars().all(plain) {
        return Err(fail("not a KMS key".to_owned()));
    }
    let mut access = Access { region: region_of(key), ..Access::default() };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = Some(value.to_owned()).filter(|value| !value.is_empty());
        match name {
            "region" => access.region = value,
            "endpoint" => access.endpoint = value,
            "profile" => access.profile = value,
            _ => return Err(fail(format!("`{name}` is not known"))),
        }
    }
    if access.endpoint.as_ref().is_some_and(|endpoint| endpoint.contains('@')) {
        return Err(fail("an endpoint must not hold a user or password".to_owned()));
    }
    if access.endpoint.as_deref().is_some_and(|endpoint| !is_private(endpoint)) {
        let problem = "data keys would be sent in the clear: the endpoint is not https://";
        let hint = "write ?endpoint=https://…; http:// is for a service on this host: 127.0.0.1, [::1] or localhost";
        return Err((problem.to_owned(), hint.to_owned()));
    }
    Ok((key.to_owned(), access))
}

/// Whether nobody on the way to `url` can read what is sent there: KMS answers with keys as they are.
fn is_private(url: &str) -> bool {
    if url.starts_with("https://") {
        return true;
    }
    let Some(rest) = url.strip_prefix("http://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let host = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Refuses to send a request that others on its way could read: the endpoint may also come from the
/// environment or from a profile.
#[derive(Debug)]
struct RefusePlainHttp;

impl Intercept for RefusePlainHttp {
    fn name(&self) -> &'static str {
        "OnlyPrivate"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if is_private(context.request().uri()) {
            return Ok(());
        }
        Err("data keys would be sent in the clear: the KMS endpoint in the environment or profile is not https://".into())
    }
}

/// The region in an ARN.
fn region_of(key: &str) -> Option<String> {
    let mut parts = key.split(':');
    (parts.next() == Some("arn")).then_some(())?;
    parts.nth(2).filter(|region| !region.is_empty()).map(str::to_owned)
}

/// The part of an ARN that all replicas of a multi-region key share, or the whole of it.
fn identity(key: &str) -> &str {
    match key.rsplit_once("key/") {
        Some((_, id)) if id.starts_with("mrk-") => id,
        _ => key,
    }
}

impl Kms {
    fn unusable(&self, problem: String, hint: &str) -> KeyError {
        KeyError::Unusable { origin: self.origin.clone(), problem, hint: Some(hint.to_owned()) }
    }

    fn away(&self, problem: String, hint: &str) -> KeyError {
        KeyError::Away { origin: self.origin.clone(), problem, hint: hint.to_owned() }
    }

    /// Does `work` with a client, within the deadline.
    fn with_client<T, E, F>(&self, work: impl FnOnce(Client) -> F) -> Result<T, KeyError>
    where
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let asked = async {
            if let Some(client) = self.client.get() {
                return work(client.clone()).await;
            }
            let config = self.access.resolve().await;
            let config = aws_sdk_kms::config::Builder::from(&config)
                .retry_config(RetryConfig::standard().with_max_attempts(TRIES))
                .interceptor(RefusePlainHttp)
                .build();
            let client = Client::from_conf(config);
            work(self.client.get_or_init(|| client).clone()).await
        };
        let away = "make sure KMS is reachable from here: network, region and endpoint";
        match rt::wait(&self.cancel, rt::limit(DEADLINE, asked)) {
            Ok(Ok(Ok(answer))) => Ok(answer),
            Ok(Ok(Err(error))) => Err(self.refused(&error)),
            Ok(Err(elapsed)) => Err(self.away(elapsed.to_string(), away)),
            Err(Stopped::Cancelled(fault)) => Err(fault.into()),
            Err(Stopped::Runtime(error)) => Err(self.away(error.to_string(), away)),
        }
    }

    /// What KMS's refusal means.
    fn refused<E>(&self, error: &SdkError<E, HttpResponse>) -> KeyError
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let service = error.as_service_error();
        let code = service.and_then(ProvideErrorMetadata::code).unwrap_or_default();
        let message = service.and_then(ProvideErrorMetadata::message);
        let problem = match (code, message) {
            ("", _) => format!("cannot reach KMS: {}", chain(error)),
            (code, Some(message)) => format!("KMS error: {code}: {message}"),
            (code, None) => format!("KMS error: {code}"),
        };
        let hint = hint(code, &chain(error));
        if code == "AccessDeniedException" {
            let (origin, hint) = (self.origin.clone(), hint.to_owned());
            return KeyError::Forbidden { origin, problem, hint };
        }
        if is_of_ciphertext(code) {
            return self.unusable(problem, hint);
        }
        self.away(problem, hint)
    }

    fn context(id: BackupId, source: &str) -> HashMap<String, String> {
        let pairs = [("backup_id", id.to_string()), ("source", source.to_owned())];
        pairs.map(|(name, value)| (name.to_owned(), value)).into()
    }
}

/// Whether a refusal of KMS is about what it was to decrypt, which whoever can write to the store
/// chooses, and not about the key, the credentials or the service.
fn is_of_ciphertext(code: &str) -> bool {
    matches!(code, "InvalidCiphertextException" | "IncorrectKeyException" | "ValidationException")
}

/// What to do about a refusal of KMS.
fn hint(code: &str, text: &str) -> &'static str {
    match code {
        "DisabledException" => "enable the key again: aws kms enable-key --key-id KEY",
        "KMSInvalidStateException" | "InvalidStateException" => {
            "the key is scheduled for deletion: cancel with `aws kms cancel-key-deletion --key-id KEY`, then enable it; once deleted, it opens no backup"
        }
        "AccessDeniedException" => {
            "allow it in the policy of the user or role, and of the key: kms:GenerateDataKey to make backups, kms:Decrypt to open them; in the key's region and account"
        }
        "InvalidCiphertextException" => {
            "the wrapped key was altered, or belongs to another backup or source, as in a planted manifest: check with `bkp verify --ledger`; another store (--store) or another recipient (--key) may open it"
        }
        "IncorrectKeyException" => "pass the KMS key the backup was sealed for, by its ARN",
        "NotFoundException" | "KeyUnavailableException" => {
            "correct the key's ARN, alias or region; a deleted key cannot be recovered"
        }
        "ExpiredTokenException" | "ExpiredToken" => {
            "the credentials have expired: renew them, then run the same command again"
        }
        "" if text.contains("credentials") => {
            "provide credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile (?profile=NAME or AWS_PROFILE), or the role of the instance"
        }
        "" if text.contains("sent in the clear") => {
            "use an https:// endpoint for KMS in AWS_ENDPOINT_URL, AWS_ENDPOINT_URL_KMS or the profile"
        }
        "" if text.contains("egion") => "set the region: kms:KEY?region=REGION, or AWS_REGION",
        "" => "make sure KMS is reachable from here: network, region and endpoint",
        _ => {
            "see the KMS error above; to reproduce: aws kms generate-data-key --key-id KEY --key-spec AES_256"
        }
    }
}

impl KeyProvider for Kms {
    fn kind(&self) -> &'static str {
        KIND.prefix
    }

    fn origin(&self) -> &str {
        &self.origin
    }

    fn is_service(&self) -> bool {
        true
    }

    fn facts(&self) -> Result<KeyFacts, KeyError> {
        self.describe()
    }

    fn wrap(&self, key: &DataKey, id: BackupId, source: &str) -> Result<Recipient, KeyError> {
        let made = self.with_client(|client| async move {
            let request =
                client.generate_data_key().key_id(&self.key).key_spec(DataKeySpec::Aes256);
            request.set_encryption_context(Some(Kms::context(id, source))).send().await
        })?;
        let broken = || {
            self.unusable(
                "KMS did not return a 32-byte key".into(),
                "report this to whoever runs the service",
            )
        };
        let plain = Zeroizing::new(made.plaintext.map(Blob::into_inner).unwrap_or_default());
        let wrapping: Zeroizing<[u8; 32]> =
            Zeroizing::new(plain.as_slice().try_into().map_err(|_length| broken())?);
        let encrypted = made.ciphertext_blob.map(Blob::into_inner).ok_or_else(broken)?;
        let parameters =
            [(ENCRYPTED_KEY, Value::from(BASE64.encode(encrypted))), (SOURCE, Value::from(source))];
        Ok(Recipient {
            kind: KIND.prefix.to_owned(),
            id: made.key_id.unwrap_or_else(|| self.key.clone()),
            wrapped: wrap::wrap(&wrapping, key, id)?,
            parameters: parameters
                .map(|(name, value)| (name.to_owned(), value))
                .into_iter()
                .collect(),
        })
    }

    /// An alias does not tell the ARN, so KMS has to be asked.
    fn matches(&self, recipient: &Recipient) -> bool {
        let theirs = identity(&recipient.id);
        let is_alias = self.key.contains("alias/");
        let is_ours = if self.key.starts_with("arn:") {
            identity(&self.key) == theirs
        } else {
            theirs.rsplit("key/").next() == Some(self.key.as_str())
        };
        recipient.kind == KIND.prefix && (is_alias || is_ours)
    }

    fn tries_max(&self) -> usize {
        KMS_TRIES_MAX
    }

    fn open(
        &self,
        recipient: &Recipient,
        id: BackupId,
        _effort: Effort,
    ) -> Result<DataKey, KeyError> {
        let parameter = |name: &str| recipient.parameters.get(name).and_then(Value::as_str);
        let encrypted = parameter(ENCRYPTED_KEY).and_then(|text| BASE64.decode(text).ok());
        let encrypted = encrypted.filter(|bytes| bytes.len() <= CIPHERTEXT_BYTES_MAX);
        let (Some(encrypted), Some(source)) = (encrypted, parameter(SOURCE)) else {
            let problem = "the backup's parameters are not those of a KMS key".to_owned();
            return Err(KeyError::Unusable { origin: self.origin.clone(), problem, hint: None });
        };
        let opened = self.with_client(|client| async move {
            let request = client.decrypt().key_id(&self.key).ciphertext_blob(Blob::new(encrypted));
            request.set_encryption_context(Some(Kms::context(id, source))).send().await
        })?;
        let plain = Zeroizing::new(opened.plaintext.map(Blob::into_inner).unwrap_or_default());
        let wrong = |_length| KeyError::Wrong { origin: self.origin.clone(), id };
        let wrapping: Zeroizing<[u8; 32]> =
            Zeroizing::new(plain.as_slice().try_into().map_err(wrong)?);
        wrap::unwrap(&wrapping, &recipient.wrapped, id, &self.origin)
    }
}

impl fmt::Debug for Kms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kms").field("key", &self.key).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:kms:eu-central-1:111122223333:key/";

    fn recipient(id: String) -> Recipient {
        let (kind, wrapped) = (KIND.prefix.to_owned(), String::new());
        Recipient { kind, id, wrapped, parameters: serde_json::Map::new() }
    }

    #[test]
    fn names_of_keys_are_checked_and_their_region_is_found() {
        for bad in ["", "a b", "alias/x?regoin=y", "alias/x?user=y"] {
            assert!(
                matches!(
                    open(bad, &Cancel::default()),
                    Err(KeyError::Unusable { hint: Some(_), .. })
                ),
                "{bad}"
            );
        }
        assert_eq!(region_of(&format!("{ARN}1234")).as_deref(), Some("eu-central-1"));
        assert_eq!(region_of("alias/backup"), None);
        let provider =
            open("alias/backup?region=eu-west-1&endpoint=https://h:1", &Cancel::default()).unwrap();
        assert_eq!(provider.origin(), "kms:alias/backup?region=eu-west-1&endpoint=https://h:1");
    }

    #[test]
    fn keys_travel_encrypted_or_not_at_all() {
        for fine in ["https://h", "http://127.0.0.1:1/x", "http://[::1]:80", "http://localhost:4"] {
            assert!(is_private(fine), "{fine}");
        }
        for readable in [
            "http://h",
            "http://127.0.0.1@h",
            "http://127.0.0.1.h:80",
            "http://h/?x=127.0.0.1",
            "http://10.0.0.1",
            "ftp://127.0.0.1",
        ] {
            assert!(!is_private(readable), "{readable}");
        }
        assert!(parse("alias/backup?endpoint=http://kms.example.net").is_err());
    }

    #[test]
    fn a_key_matches_itself_and_its_replicas() {
        let key = |id: &str| open(&format!("{ARN}{id}"), &Cancel::default()).unwrap();
        assert!(key("1234").matches(&recipient(format!("{ARN}1234"))));
        assert!(!key("1234").matches(&recipient(format!("{ARN}5678"))));
        let replica = ARN.replace("central", "west");
        assert!(key("mrk-1").matches(&recipient(format!("{replica}mrk-1"))));
        assert!(!key("1234").matches(&recipient(format!("{replica}1234"))));
        assert!(
            open("alias/backup", &Cancel::default())
                .unwrap()
                .matches(&recipient(format!("{ARN}1234")))
        );
        let bare = |id: &str| open(id, &Cancel::default()).unwrap();
        assert!(bare("1234").matches(&recipient(format!("{ARN}1234"))));
        assert!(bare("mrk-1").matches(&recipient(format!("{replica}mrk-1"))));
        assert!(!bare("1234").matches(&recipient(format!("{ARN}5678"))));
        let mut other = recipient(format!("{ARN}1234"));
        other.kind = "file".into();
        assert!(!key("1234").matches(&other));
    }

    /// What a backup says is untrusted: nothing is asked of KMS before it makes sense.
    #[test]
    fn hostile_parameters_are_refused_before_any_request() {
        let provider =
            open("alias/backup?endpoint=http://127.0.0.1:1", &Cancel::default()).unwrap();
        let id = BackupId::new(time::macros::datetime!(2026-11-21 02:00:00 UTC));
        for (encrypted, source) in [
            (Value::Null, Value::from("books")),
            (Value::from("not base64!"), Value::from("books")),
            (Value::from(BASE64.encode(vec![0; CIPHERTEXT_BYTES_MAX + 1])), Value::from("books")),
            (Value::from("AAAA"), Value::from(7)),
        ] {
            let mut hostile = recipient(format!("{ARN}1234"));
            hostile.parameters.insert(ENCRYPTED_KEY.into(), encrypted);
            hostile.parameters.insert(SOURCE.into(), source);
            let refused = provider.open(&hostile, id, Effort::Named);
            assert!(matches!(refused, Err(KeyError::Unusable { hint: None, .. })), "{refused:?}");
        }
    }
}
