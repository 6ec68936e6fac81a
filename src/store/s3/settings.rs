//! The keys of a `[store.NAME]` table for an S3 store.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::tiers::{self, TAG, TierTable, TiersBy};
use crate::aws::Access;
use crate::domain::tier::Tiers;
use crate::store::layer::retry::Backoff;
use crate::store::{Role, StoreLocation, is_key};
use crate::table::{ConfigError, parse_table};

/// Smallest part that the service takes, except for the last one, MiB.
const PART_MIB_MIN: u32 = 5;
/// Largest first part, MiB: parts grow from there up to the service's own limit of 5 GiB.
const PART_MIB_MAX: u32 = 64;
/// Most that is held of an object before it is sent, MiB.
const HELD_MIB_MAX: u32 = 1024;
/// Most parts in flight: each holds its bytes in memory.
const CONNECTIONS_MAX: u32 = 32;
/// Longest time for which one request is tried again, seconds.
const RETRY_SECONDS_MAX: u32 = 3600;
/// Most days for which an object may be locked: a typing mistake cannot be taken back.
const LOCK_DAYS_MAX: u32 = 36_500;
/// Longest prefix, bytes: it leaves room for the longest key that bkp writes, within the service's
/// limit of 1024 bytes.
const PREFIX_BYTES_MAX: usize = 512;
/// Most tags of an object; the service's limit.
const TAGS_MAX: usize = 10;

/// The keys of a `[store.NAME]` table whose URL is `s3://BUCKET/PREFIX`. For use without a table
/// `endpoint`, `region` and `profile` may follow the URL: `s3://BUCKET/PREFIX?endpoint=https://…`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Table {
    /// The bucket's region. Default: that of the environment or profile.
    region: Option<String>,
    /// URL of a service that is not AWS's own, for instance `https://s3.example.net`.
    endpoint: Option<String>,
    /// Whether the bucket stands in the path of requests instead of the host's name. Default: with
    /// `endpoint` yes, else no.
    path_style: Option<bool>,
    /// The profile in the files of the AWS command line. Default: the environment's credentials,
    /// `$AWS_PROFILE`, or what the machine is given.
    profile: Option<String>,
    /// A file with profiles and their credentials. Default: `~/.aws/credentials`.
    #[schemars(with = "Option<String>", extend("format" = "path"))]
    credentials_file: Option<PathBuf>,
    /// How the service confirms what it got: `sha256` (default) or `when-required`, for services
    /// that know no additional checksums.
    checksum: Option<Checksum>,
    /// How overwriting is prevented: `if-none-match` (default; the service refuses it) or `re-read`,
    /// for services that do not know that: bkp looks before and after and reports a clash.
    create_only: Option<CreateOnly>,
    /// Encryption by the service, on top of bkp's own: `s3` or `kms`. Default: the bucket's.
    sse: Option<Sse>,
    /// The key for `sse = "kms"`, as id, ARN or alias. Default: the bucket's.
    sse_kms_key_id: Option<String>,
    /// The storage class of the data, for instance `STANDARD_IA`; manifests and block maps, which every
    /// run reads, have the standard one. Default: the bucket's.
    storage_class: Option<String>,
    /// Storage classes for data as it gets older, for instance
    /// `[{ after = "30d", class = "STANDARD_IA" }, { after = "90d", class = "GLACIER_IR" }]`.
    tiers: Vec<TierTable>,
    /// Who moves the data to them: `cleanup` (default; whole chains, as copies in place) or `lifecycle`: the
    /// bucket's own rules, as `bkp config lifecycle` prints them.
    tiers_by: Option<TiersBy>,
    /// Locks objects against removal: `governance` or `compliance`. The bucket must have object
    /// lock; a lock in compliance mode cannot be taken back by anyone.
    object_lock: Option<LockMode>,
    /// For how many days from now objects are locked.
    object_lock_days: Option<u32>,
    /// Tags of every object.
    tags: BTreeMap<String, String>,
    /// Size of the first parts of a large object, MiB (5 to 64). Parts grow with the object.
    /// Default: 8.
    part_mib: Option<u32>,
    /// Parts sent or read at a time (1 to 32). Each takes its size of memory: sending `part_mib`,
    /// reading 8 MiB. Default: 4.
    connections: Option<u32>,
    /// Objects up to this size are sent when they are whole, MiB (0 to 1024), so that their metadata
    /// has their SHA-256: a service wants it before the first part. It is memory of each upload. Default:
    /// 128.
    held_mib: Option<u32>,
    /// For how long one request is tried again, seconds. Default: 60.
    retry_seconds: Option<u32>,
}

/// How the service confirms what it got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Checksum {
    /// A SHA-256 is declared for every part, and the service's own is compared at the end.
    #[default]
    Sha256,
    /// Only what the protocol demands: the SHA-256 in the signature of each request.
    WhenRequired,
}

/// How overwriting is prevented.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum CreateOnly {
    /// By the service.
    #[default]
    IfNoneMatch,
    /// By looking before and after.
    ReRead,
}

/// Encryption by the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Sse {
    /// With keys of the service.
    S3,
    /// With a key of KMS.
    Kms,
}

/// Who may remove a locked object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum LockMode {
    /// Whoever has a special permission.
    Governance,
    /// Nobody.
    Compliance,
}

/// Where the store is, and how it is used.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    /// The store's URL, for messages.
    pub(super) url: String,
    pub(super) bucket: String,
    /// Empty, or ends with `/`.
    pub(super) prefix: String,
    pub(super) access: Access,
    /// `None`: yes if there is an endpoint of its own, here or in the environment.
    pub(super) path_style: Option<bool>,
    pub(super) checksum: Checksum,
    pub(super) create_only: CreateOnly,
    pub(super) attributes: ObjectAttributes,
    /// Storage classes for data as it gets older.
    pub(super) tiers: Tiers,
    pub(super) tiers_by: TiersBy,
    /// Size of the first parts, bytes.
    pub(super) part_bytes: u64,
    /// Whole parts that are held before the first one is sent, bytes.
    pub(super) held_bytes: u64,
    /// Parts in flight.
    pub(super) connections: usize,
    pub(super) backoff: Backoff,
}

/// What the objects of the store are given.
#[derive(Debug, Clone, Default)]
pub(super) struct ObjectAttributes {
    pub(super) sse: Option<Sse>,
    pub(super) sse_kms_key_id: Option<String>,
    pub(super) storage_class: Option<String>,
    /// The mode, and for how many days.
    pub(super) object_lock: Option<(LockMode, u32)>,
    /// As the service wants them: `name=value&…`, percent-encoded.
    pub(super) tagging: Option<String>,
    /// The same for data that the bucket's lifecycle moves.
    pub(super) data_tagging: Option<String>,
}

impl ObjectAttributes {
    /// Those that suit what an object is for: what every run reads must not be archived, and what
    /// means nothing after a run must not be kept.
    pub(super) fn of(&self, role: Role) -> ObjectAttributes {
        let mut attributes = self.clone();
        match role {
            Role::Data => attributes.tagging.clone_from(&self.data_tagging),
            Role::LogFile => {}
            Role::Index | Role::Lease => attributes.storage_class = None,
        }
        if role == Role::Lease {
            (attributes.object_lock, attributes.tagging) = (None, None);
        }
        attributes
    }
}

/// Reads what stands at `place`.
///
/// # Errors
/// [`ConfigError::Invalid`].
pub(super) fn read(place: &StoreLocation) -> Result<Settings, ConfigError> {
    let at = |key: &str| format!("{}.{key}", place.name);
    let mut table: Table = parse_table(&place.name, place.table.clone())?;
    let (url, query) = place.url.split_once('?').unwrap_or((&place.url, ""));
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let slot = match key {
            "endpoint" => &mut table.endpoint,
            "region" => &mut table.region,
            "profile" => &mut table.profile,
            _ => {
                let problem = format!("`{key}` is not allowed after the `?` of a URL");
                return Err(ConfigError::invalid(&place.name, problem)
                    .suggest("allowed: endpoint, region, profile"));
            }
        };
        if slot.as_deref().is_some_and(|there| there != value) || value.is_empty() {
            let problem = format!("`{key}` in the URL is empty or contradicts the table");
            return Err(ConfigError::invalid(&place.name, problem).suggest("set it in one place"));
        }
        *slot = Some(value.to_owned());
    }
    let (bucket, prefix) = split(url).map_err(|problem| {
        ConfigError::invalid(&place.name, problem).suggest("write s3://BUCKET/PREFIX")
    })?;
    if let Some(endpoint) = &table.endpoint {
        check_endpoint(&at("endpoint"), endpoint)?;
    }
    let within = |key: &str, value: Option<u32>, (least, default, most): (u32, u32, u32)| {
        let value = value.unwrap_or(default);
        if (least..=most).contains(&value) {
            return Ok(value);
        }
        Err(ConfigError::invalid(at(key), format!("{value} is not between {least} and {most}")))
    };
    let part_mib = within("part_mib", table.part_mib, (PART_MIB_MIN, 8, PART_MIB_MAX))?;
    let held_mib = within("held_mib", table.held_mib, (0, 128, HELD_MIB_MAX))?;
    let connections = within("connections", table.connections, (1, 4, CONNECTIONS_MAX))?;
    let seconds = within("retry_seconds", table.retry_seconds, (0, 60, RETRY_SECONDS_MAX))?;
    // The same bucket of two services is two stores: the endpoint is part of what a store is called.
    let shown = if prefix.is_empty() { String::new() } else { format!("/{prefix}") };
    let at_endpoint = table.endpoint.as_ref();
    let at_endpoint = at_endpoint.map(|endpoint| format!("?endpoint={endpoint}"));
    let shown = shown + &at_endpoint.unwrap_or_default();
    let attributes = attributes(&at, &table, &within)?;
    let tiers = tiers::read(&at, (&table.tiers, table.tiers_by), table.storage_class.as_deref())?;
    Ok(Settings {
        url: format!("s3://{bucket}{shown}"),
        bucket,
        prefix: if prefix.is_empty() { prefix } else { format!("{prefix}/") },
        path_style: table.path_style,
        access: Access {
            region: table.region,
            profile: table.profile,
            credentials_file: table.credentials_file,
            endpoint: table.endpoint,
        },
        checksum: table.checksum.unwrap_or_default(),
        create_only: table.create_only.unwrap_or_default(),
        attributes,
        tiers,
        tiers_by: table.tiers_by.unwrap_or_default(),
        part_bytes: u64::from(part_mib) << 20,
        held_bytes: u64::from(held_mib) << 20,
        connections: usize::try_from(connections).unwrap_or(1),
        backoff: Backoff { total: Duration::from_secs(seconds.into()), ..Backoff::default() },
    })
}

type Within<'a> = &'a dyn Fn(&str, Option<u32>, (u32, u32, u32)) -> Result<u32, ConfigError>;

fn attributes(
    at: &dyn Fn(&str) -> String,
    table: &Table,
    within: Within<'_>,
) -> Result<ObjectAttributes, ConfigError> {
    if table.sse_kms_key_id.is_some() && table.sse != Some(Sse::Kms) {
        let error = ConfigError::invalid(at("sse_kms_key_id"), "no KMS key is used");
        return Err(error.suggest("set sse = \"kms\", or remove it"));
    }
    if table.object_lock.is_some() && table.object_lock_days.is_none() {
        let error = ConfigError::invalid(at("object_lock"), "no lock duration is set");
        return Err(error.suggest("add `object_lock_days = DAYS`, or remove it"));
    }
    if table.object_lock_days.is_some() && table.object_lock.is_none() {
        let error = ConfigError::invalid(at("object_lock_days"), "objects are not locked");
        return Err(error.suggest("set object_lock = \"governance\" or \"compliance\""));
    }
    let days = table.object_lock_days;
    let days = days
        .map(|days| within("object_lock_days", Some(days), (1, 1, LOCK_DAYS_MAX)))
        .transpose()?;
    let is_tagged = !table.tiers.is_empty() && table.tiers_by == Some(TiersBy::Lifecycle);
    let most = TAGS_MAX - usize::from(is_tagged);
    if table.tags.len() > most {
        let problem = format!("{} tags are more than {most}", table.tags.len());
        return Err(ConfigError::invalid(at("tags"), problem));
    }
    if is_tagged && table.tags.contains_key(TAG.0) {
        let error = ConfigError::invalid(at("tags"), "the tiers need that tag for themselves");
        return Err(error.suggest(format!("rename the tag `{}`", TAG.0)));
    }
    let tags = table.tags.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let tagging = |tags: &mut dyn Iterator<Item = (&str, &str)>| {
        let tags = tags.map(|(name, value)| format!("{}={}", encode(name), encode(value)));
        Some(tags.collect::<Vec<_>>().join("&")).filter(|tagging| !tagging.is_empty())
    };
    Ok(ObjectAttributes {
        sse: table.sse,
        sse_kms_key_id: table.sse_kms_key_id.clone(),
        storage_class: table.storage_class.clone(),
        object_lock: table.object_lock.zip(days),
        tagging: tagging(&mut tags.clone()),
        data_tagging: tagging(&mut tags.chain(is_tagged.then_some(TAG))),
    })
}

/// Bucket and prefix of an `s3` URL; the prefix without slashes at its ends.
fn split(url: &str) -> Result<(String, String), &'static str> {
    let rest = url.strip_prefix("s3://").ok_or("the URL of an S3 store must begin with `s3://`")?;
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    if !(3..=63).contains(&bucket.len()) || !bucket.chars().all(plain) {
        return Err("not a bucket name");
    }
    let prefix = prefix.trim_end_matches('/');
    if !prefix.is_empty() && (!is_key(prefix) || prefix.len() > PREFIX_BYTES_MAX) {
        return Err(
            "not a prefix: parts between slashes consist of a-z, A-Z, 0-9, `-`, `_` and `.`, and do not begin with a dot",
        );
    }
    Ok((bucket.to_owned(), prefix.to_owned()))
}

fn check_endpoint(place: &str, endpoint: &str) -> Result<(), ConfigError> {
    let rest = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://"));
    let authority = rest.and_then(|rest| rest.split('/').next()).unwrap_or_default();
    if authority.is_empty() || authority.contains(['@', ' ']) {
        return Err(ConfigError::invalid(place, "not the URL of a service")
            .suggest("write it like https://s3.example.net, without user and password"));
    }
    Ok(())
}

/// Percent-encodes what is not unreserved in a URL.
pub(super) fn encode(text: &str) -> String {
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    let encoded = text.bytes().map(|byte| {
        if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }
    });
    encoded.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Classify as _;

    fn settings(url: &str, table: &str) -> Result<Settings, ConfigError> {
        let table = table.parse().expect("a table");
        read(&StoreLocation { name: "store.main".into(), url: url.into(), table })
    }

    fn failure(table: &str) -> String {
        let error = settings("s3://bucket/a", table).expect_err("invalid");
        format!("{error} | {}", error.hint().unwrap_or_default())
    }

    #[test]
    fn a_url_is_a_bucket_and_a_prefix() {
        for (url, bucket, prefix, shown) in [
            ("s3://bucket", "bucket", "", "s3://bucket"),
            ("s3://bucket/", "bucket", "", "s3://bucket"),
            ("s3://b.c-d/a/b/", "b.c-d", "a/b/", "s3://b.c-d/a/b"),
        ] {
            let settings = settings(url, "").expect(url);
            assert_eq!((settings.bucket.as_str(), settings.prefix.as_str()), (bucket, prefix));
            assert_eq!(settings.url, shown);
        }
        for url in
            ["s3://", "s3:///a", "s3://Bucket", "s3://bucket//a", "s3://bucket/../a", "s3://b_c"]
        {
            assert!(settings(url, "").is_err(), "{url}");
        }
    }

    #[test]
    fn defaults_suit_the_service_that_is_named() {
        let aws = settings("s3://bucket", "region = 'eu-central-1'").expect("valid");
        assert_eq!(aws.access.region.as_deref(), Some("eu-central-1"));
        assert_eq!((aws.part_bytes, aws.connections), (8 << 20, 4));
        let own = settings("s3://bucket", "endpoint = 'http://127.0.0.1:1'").expect("valid");
        assert_eq!(own.url, "s3://bucket?endpoint=http://127.0.0.1:1");
        let again = settings(&own.url, "").expect("valid");
        assert_eq!((again.url, again.access.endpoint), (own.url, own.access.endpoint));
        assert_eq!((aws.path_style, own.path_style), (None, None));
        assert_eq!((own.checksum, own.create_only), (Checksum::Sha256, CreateOnly::IfNoneMatch));
    }

    #[test]
    fn values_are_checked_and_named() {
        for (table, expected) in [
            ("checksum = 'md5'", "store.main.checksum"),
            ("create_only = 'never'", "store.main.create_only"),
            ("sse_kms_key_id = 'k'", "set sse = \"kms\""),
            ("object_lock_days = 1", "set object_lock"),
            ("object_lock = 'governance'", "add `object_lock_days = DAYS`"),
            ("object_lock = 'compliance'\nobject_lock_days = 0", "0 is not between 1 and"),
            ("part_mib = 4", "4 is not between 5 and 64"),
            ("held_mib = 1025", "1025 is not between 0 and 1024"),
            ("connections = 0", "0 is not between 1 and 32"),
            ("endpoint = 's3.example.net'", "https://s3.example.net"),
            ("endpoint = 'http://a:b@c'", "without user and password"),
            ("regoin = 'x'", "did you mean `region`?"),
            ("tiers_by = 'lifecycle'", "add `tiers`"),
            ("tiers = [{ after = '36h', class = 'GLACIER' }]", "store.main.tiers[0].after"),
            ("tiers = [{ after = '30d', class = 'STANDARD' }]", "known: STANDARD_IA, "),
            ("tiers = [{ after = '9d', class = 'STANDARD_IA' }]", "store.main.tiers[0]"),
            (
                "tiers = [{ after = '30d', class = 'GLACIER' }, { after = '300d', class = 'DEEP_ARCHIVE' }]",
                "set tiers_by = \"lifecycle\"",
            ),
            (
                "tags = { bkp-role = 'x' }\ntiers_by = 'lifecycle'\ntiers = [{ after = '0d', class = 'GLACIER' }]",
                "rename the tag",
            ),
        ] {
            let text = failure(table);
            assert!(text.contains(expected), "{text}");
        }
    }

    #[test]
    fn tags_are_encoded() {
        let settings =
            settings("s3://bucket", "tags = { team = 'a b', 'k=' = 'ü' }").expect("valid");
        assert_eq!(settings.attributes.tagging.as_deref(), Some("k%3D=%C3%BC&team=a%20b"));
        assert_eq!(settings.attributes.of(Role::Data).tagging, settings.attributes.tagging);
    }

    #[test]
    fn data_that_the_lifecycle_moves_is_tagged() {
        let table = "tags = { a = 'b' }\ntiers_by = 'lifecycle'\ntiers = [{ after = '30d', class = 'GLACIER' }]";
        let settings = settings("s3://bucket", table).expect("valid");
        let tagging = |role| settings.attributes.of(role).tagging;
        assert_eq!(tagging(Role::Data).as_deref(), Some("a=b&bkp-role=data"));
        for role in [Role::Index, Role::LogFile] {
            assert_eq!(tagging(role).as_deref(), Some("a=b"), "{role:?}");
        }
        assert_eq!(tagging(Role::Lease), None);
    }
}
