//! The ledger's event of a run: one transfer of code 12, packed into its numeric fields.
//!
//! An event of a finished backup is a pure function of its manifest, so a lost one can be made again
//! and a changed manifest no longer fits its own. The 128 bits of `user_data_128`, highest first:
//!
//! ```text
//! type 8 | scope 8 | compression 8 | encryption 8 | status 8 | retention in days 16 | digest 72
//! ```
//!
//! The digest is the first 72 bits of the manifest's SHA-256 as stored. 0 means "unknown"; the
//! numbers of the words are those of [`BackupType`], [`Scope`] and the enumerations here.
//!
//! The transfer's id is the backup's id. A backup that did not only finish has further events; their
//! ids differ in the four bits that say "UUID version 7" in a backup id and carry the status there.

use std::fmt;

use time::OffsetDateTime;

use super::id::BackupId;
use super::manifest::{Manifest, ObjectRecord, ROLE_OBJECTS, hex};
use super::names::{BackupType, Scope};

/// The code of every transfer that is an event.
pub const CODE: u16 = 12;

/// Where the version of a UUID stands in its 128 bits (RFC 9562, 4.2).
const VERSION_SHIFT: u32 = 76;
const VERSION_MASK: u128 = 0xf << VERSION_SHIFT;

/// Bytes of a manifest's SHA-256 that an event carries.
const DIGEST_BYTES: usize = 9;

const SECONDS_PER_DAY: i64 = 86_400;

/// The status of an event.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// A run began.
    Started = 1,
    /// A backup exists.
    Completed = 2,
    /// A run ended without a backup.
    Failed = 3,
    /// A backup was removed on purpose.
    Deleted = 4,
    /// A backup was restored.
    Restored = 5,
    /// A verification found a backup as it should be.
    Verified = 6,
    /// A backup was copied to another store.
    Copied = 8,
    /// A backup was copied to another store under another data key.
    Resealed = 9,
}

/// How the objects of a backup are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Compression {
    /// Not at all.
    None = 1,
    /// gzip.
    Gzip = 2,
    /// zstd.
    Zstd = 3,
    /// zstd inside of Parquet files.
    ParquetZstd = 4,
}

/// How the objects of a backup are encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Encryption {
    /// Not at all.
    None = 1,
    /// AES-256-GCM in segments.
    Aes256Gcm = 2,
    /// Only by the store's service, with keys of its own.
    SseS3 = 3,
    /// Only by the store's service, with a key of KMS.
    SseKms = 4,
}

impl Encryption {
    /// How an object is encrypted.
    fn of(object: &ObjectRecord) -> Encryption {
        match object.sse.as_deref() {
            _ if object.stages.iter().any(|stage| stage == "seal") => Encryption::Aes256Gcm,
            Some("sse-kms") => Encryption::SseKms,
            Some("sse-s3") => Encryption::SseS3,
            Some(_) | None => Encryption::None,
        }
    }

    /// The word for it in `backup_metadata`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Encryption::None => "none",
            Encryption::Aes256Gcm => "aes256-gcm",
            Encryption::SseS3 => "sse-s3",
            Encryption::SseKms => "sse-kms",
        }
    }

    /// How much it keeps from others: what the service does is done with keys that the service has.
    fn strength(self) -> u8 {
        match self {
            Encryption::None => 0,
            Encryption::SseS3 => 1,
            Encryption::SseKms => 2,
            Encryption::Aes256Gcm => 3,
        }
    }
}

impl Status {
    /// Every status.
    pub const ALL: [Status; 8] = [
        Status::Started,
        Status::Completed,
        Status::Failed,
        Status::Deleted,
        Status::Restored,
        Status::Verified,
        Status::Copied,
        Status::Resealed,
    ];

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Started => "started",
            Status::Completed => "completed",
            Status::Failed => "failed",
            Status::Deleted => "deleted",
            Status::Restored => "restored",
            Status::Verified => "verified",
            Status::Copied => "copied",
            Status::Resealed => "resealed",
        }
    }
}

const COMPRESSIONS: [Compression; 4] =
    [Compression::None, Compression::Gzip, Compression::Zstd, Compression::ParquetZstd];
const ENCRYPTIONS: [Encryption; 4] =
    [Encryption::None, Encryption::Aes256Gcm, Encryption::SseS3, Encryption::SseKms];

/// The beginning of a manifest's SHA-256; all zero where there is no manifest.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; DIGEST_BYTES]);

impl Digest {
    /// The part of `sha256` that an event carries.
    #[must_use]
    pub fn of(sha256: &[u8; 32]) -> Digest {
        let mut digest = Digest::default();
        digest.0.copy_from_slice(sha256.first_chunk::<DIGEST_BYTES>().unwrap_or(&[0; 9]));
        digest
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// One event of one backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// The backup; of a restore, a verification or a copy an id of its own, whose backup the digest tells.
    pub backup: BackupId,
    /// What happened.
    pub status: Status,
    /// The kind of system.
    pub backup_type: BackupType,
    /// How much of it; unknown before the run has chosen.
    pub scope: Option<Scope>,
    /// How it is compressed, if there is a backup.
    pub compression: Option<Compression>,
    /// How it is encrypted, if there is a backup.
    pub encryption: Option<Encryption>,
    /// For how long it is to be kept, days, rounded up; 0 for no promise.
    pub retention_days: u16,
    /// What its manifest has to be.
    pub digest: Digest,
    /// Sum over its objects as stored, bytes; the transfer's amount.
    pub stored_bytes: u64,
    /// When the run began, seconds since 1970.
    pub started: u64,
    /// How long it took, seconds.
    pub seconds: u32,
}

impl Event {
    /// A run of `backup` began.
    #[must_use]
    pub fn started(backup: BackupId, backup_type: BackupType) -> Event {
        Event {
            backup,
            status: Status::Started,
            backup_type,
            scope: None,
            compression: None,
            encryption: None,
            retention_days: 0,
            digest: Digest::default(),
            stored_bytes: 0,
            started: u64::try_from(backup.created().unix_timestamp()).unwrap_or(0),
            seconds: 0,
        }
    }

    /// The run of `backup` ended after `seconds` without a backup.
    #[must_use]
    pub fn failed(backup: BackupId, backup_type: BackupType, seconds: u32) -> Event {
        Event { status: Status::Failed, seconds, ..Event::started(backup, backup_type) }
    }

    /// The backup that `manifest` describes exists; `sha256` is that of the manifest as stored. That of a copy that was
    /// sealed anew is the event of the backup that it is a copy of.
    #[must_use]
    pub fn completed(manifest: &Manifest, sha256: &[u8; 32]) -> Event {
        let stages = manifest.objects.first().map(|object| object.stages.as_slice());
        let through = |stage: &str| stages.unwrap_or_default().iter().any(|name| name == stage);
        let is_parquet = |object: &ObjectRecord| {
            object.key.ends_with(".parquet") || object.key.ends_with(".parquet.enc")
        };
        let compression = match (through("zstd"), through("gzip")) {
            (true, _) => Compression::Zstd,
            (false, true) => Compression::Gzip,
            (false, false) if manifest.objects.iter().any(is_parquet) => Compression::ParquetZstd,
            (false, false) => Compression::None,
        };
        // A backup is as secret as its least secret part: an export may be sealed but for its tables.
        // The list of objects says what a manifest says, which is not sealed either.
        let content = manifest.objects.iter().filter(|object| object.role != ROLE_OBJECTS);
        let weakest = content.map(Encryption::of);
        let weakest = weakest.min_by_key(|encryption| encryption.strength());
        let encryption = weakest.unwrap_or(Encryption::None);
        let started = manifest.started.unix_timestamp();
        let until = manifest.retention.until.map(|until| until.unix_timestamp() - started);
        let days =
            until.map_or(0, |seconds| (seconds.max(0) + SECONDS_PER_DAY - 1) / SECONDS_PER_DAY);
        let seconds = (manifest.ended - manifest.started).whole_seconds();
        Event {
            backup: manifest.id,
            status: Status::Completed,
            backup_type: manifest.backup_type,
            scope: Some(manifest.scope),
            compression: Some(compression),
            encryption: Some(encryption),
            retention_days: u16::try_from(days).unwrap_or(u16::MAX),
            digest: Digest::of(&manifest.original_sha256(sha256)),
            stored_bytes: manifest.original_bytes(),
            started: u64::try_from(started).unwrap_or(0),
            seconds: u32::try_from(seconds.max(0)).unwrap_or(u32::MAX),
        }
    }

    /// The backup of this event was removed on purpose.
    #[must_use]
    pub fn deleted(self) -> Event {
        Event { status: Status::Deleted, ..self }
    }

    /// The backup of this event was read, from `began` on: restored, verified or copied. Nothing of it moves.
    #[must_use]
    pub fn read(self, status: Status, began: OffsetDateTime, seconds: u32) -> Event {
        let own = BackupId::new(began);
        let started = u64::try_from(began.unix_timestamp()).unwrap_or(0);
        Event { backup: own, status, stored_bytes: 0, started, seconds, ..self }
    }

    /// A copy of a backup was sealed anew: it has this manifest, whose SHA-256 is `sha256`, and not the one of the
    /// backup's own event. A function of the manifest, as that is; `None` if the manifest is of no such copy.
    #[must_use]
    pub fn resealed(manifest: &Manifest, sha256: &[u8; 32]) -> Option<Event> {
        let at = manifest.resealed.as_ref()?.at;
        let random = sha256.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        let event = Event::completed(manifest, sha256).read(Status::Resealed, at, 0);
        let backup = event.backup.with_random(random);
        Some(Event { backup, digest: Digest::of(sha256), ..event })
    }

    /// The id of its transfer.
    #[must_use]
    pub fn transfer_id(&self) -> u128 {
        let mark = match self.status {
            Status::Completed => return self.backup.as_u128(),
            other @ (Status::Started
            | Status::Failed
            | Status::Deleted
            | Status::Restored
            | Status::Verified
            | Status::Copied
            | Status::Resealed) => other as u128,
        };
        self.backup.as_u128() & !VERSION_MASK | mark << VERSION_SHIFT
    }

    /// The transfer's `user_data_128`.
    #[must_use]
    pub fn pack(&self) -> u128 {
        let digest = self.digest.0.iter().fold(0_u128, |bits, byte| bits << 8 | u128::from(*byte));
        u128::from(type_code(self.backup_type)) << 120
            | u128::from(self.scope.map_or(0, scope_code)) << 112
            | self.compression.map_or(0, |word| word as u128) << 104
            | self.encryption.map_or(0, |word| word as u128) << 96
            | (self.status as u128) << 88
            | u128::from(self.retention_days) << 72
            | digest
    }

    /// Reads a transfer; `None` if no version of bkp that this one knows would have written it.
    #[must_use]
    pub fn unpack(numbers: &Numbers) -> Option<Event> {
        let Numbers { id, user_data_128: packed, amount, user_data_64, user_data_32 } = *numbers;
        let byte = |shift: u32| u8::try_from(packed >> shift & 0xff).unwrap_or(0);
        let status = Status::ALL.into_iter().find(|word| *word as u8 == byte(88))?;
        let backup = BackupId::from_u128(id & !VERSION_MASK | 7 << VERSION_SHIFT)?;
        let mut digest = Digest::default();
        for (place, shift) in digest.0.iter_mut().zip((0..=64).rev().step_by(8)) {
            *place = byte(shift);
        }
        let event = Event {
            backup,
            status,
            backup_type: BackupType::ALL.into_iter().find(|word| type_code(*word) == byte(120))?,
            scope: optional(byte(112), &Scope::ALL, scope_code).ok()?,
            compression: optional(byte(104), &COMPRESSIONS, |word| word as u8).ok()?,
            encryption: optional(byte(96), &ENCRYPTIONS, |word| word as u8).ok()?,
            retention_days: u16::try_from(packed >> 72 & 0xffff).ok()?,
            digest,
            stored_bytes: u64::try_from(amount).ok()?,
            started: user_data_64,
            seconds: user_data_32,
        };
        (event.transfer_id() == id && event.pack() == packed).then_some(event)
    }
}

/// The numbers of a transfer that an event decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Numbers {
    /// The transfer's id.
    #[serde(with = "decimal")]
    pub id: u128,
    /// [`Event::pack`].
    #[serde(with = "decimal")]
    pub user_data_128: u128,
    /// Bytes as stored.
    #[serde(with = "decimal")]
    pub amount: u128,
    /// When the run began, seconds since 1970.
    pub user_data_64: u64,
    /// How long it took, seconds.
    pub user_data_32: u32,
}

impl From<&Event> for Numbers {
    fn from(event: &Event) -> Numbers {
        Numbers {
            id: event.transfer_id(),
            user_data_128: event.pack(),
            amount: event.stored_bytes.into(),
            user_data_64: event.started,
            user_data_32: event.seconds,
        }
    }
}

/// Numbers of 128 bits as text: JSON's own end at 53.
mod decimal {
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(number: &u128, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(number)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<u128, D::Error> {
        String::deserialize(input)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The number of a type; also where its vault's id comes from.
#[must_use]
pub fn type_code(backup_type: BackupType) -> u8 {
    match backup_type {
        BackupType::Tigerbeetle => 1,
        BackupType::Duckdb => 2,
        BackupType::Parquet => 3,
        BackupType::Kms => 4,
        BackupType::Postgres => 5,
    }
}

fn scope_code(scope: Scope) -> u8 {
    match scope {
        Scope::Full => 1,
        Scope::Incremental => 2,
        Scope::Differential => 3,
    }
}

/// A number that no word has.
struct UnknownNumber;

/// The word with this number; none for 0.
fn optional<T: Copy>(
    number: u8,
    words: &[T],
    code: impl Fn(T) -> u8,
) -> Result<Option<T>, UnknownNumber> {
    if number == 0 {
        return Ok(None);
    }
    let found = words.iter().copied().find(|word| code(*word) == number);
    found.map(Some).ok_or(UnknownNumber)
}

#[cfg(test)]
mod tests;
