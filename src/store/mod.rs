//! The contract of a store: where objects are kept.
//!
//! Capabilities are types: [`ReadStore`] for everything that looks, [`AppendStore`] for everything
//! that makes backups, [`PruneStore`] for `cleanup` alone. A new store is one file beside this one
//! and one line in [`kinds::STORES`]; the contract suite in `tests/it` runs over that table.
//!
//! What every store guarantees:
//!
//! - An object is visible under its key only when it is whole: written, durable (fsync of file and
//!   folder, or the service's word), and of the size and SHA-256 that the writer declared.
//! - Nothing is overwritten. Of several writers of one key exactly one succeeds, the others get
//!   [`StoreError::Exists`].
//! - Dropping an [`Upload`] abandons it; nothing becomes visible.
//! - A listing has every object that was committed before it began, sorted by key.

use std::io::{ErrorKind, Read};
use std::ops::Range;
use std::path::Path;

use serde_json::Value;
use time::OffsetDateTime;

use crate::ctx::Ctx;
use crate::domain::health::Space;
use crate::domain::protection::Protection;
use crate::domain::thaw::{Availability, ThawSpeed};
use crate::domain::tier::{StorageClass, Tiers};
use crate::domain::timestamp::rfc3339;
use crate::error::{Classify, Fault, Kind, diagnosed};
use crate::table::ConfigError;

pub mod kinds;
pub mod layer;
pub mod local;
mod object;
pub mod s3;

pub use object::{Declared, ObjectInfo, StoreLocation, Version, location};

/// What an object is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    /// What only a restore reads.
    Data,
    /// A file of a log, which a server that recovers asks for by itself.
    LogFile,
    /// What every run reads: manifests, block maps.
    #[default]
    Index,
    /// What means nothing once its run is over.
    Lease,
}

/// What a store is to know of an object, and labels that travel with it where the store has a place
/// for them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObjectLabels {
    /// What the object is for.
    pub role: Role,
    /// Pairs of lower-case ASCII names and values. Stores have names of their own, such as `checksum-sha256` for the
    /// digest of the object.
    pub pairs: Vec<(String, String)>,
    /// Until when the object must not be removed, for stores that can see to that.
    pub retain_until: Option<OffsetDateTime>,
    /// The SHA-256 that it will have, where the writer knows it before: then a store need not hold it back until it is
    /// whole.
    pub sha256: Option<[u8; 32]>,
}

/// A listing: sorted by key, read on demand, so that memory does not grow with the store.
pub type Listing<'a> = Box<dyn Iterator<Item = Result<ObjectInfo, StoreError>> + 'a>;

/// A store that can be looked at.
pub trait ReadStore: Send + Sync {
    /// Where this is, for messages; never contains a secret. It does not say how to get there: it is no
    /// way to open the store again.
    fn url(&self) -> &str;

    /// How the configuration calls it: the name of its table, or where it has none the URL by which it
    /// was opened. By this it can be opened again.
    fn name(&self) -> &str {
        self.url()
    }

    /// Every object whose key starts with `prefix` (of whole path components, `""` for all).
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] at once or from the iterator. A store that has no object is not
    /// an error.
    fn list(&self, prefix: &str) -> Result<Listing<'_>, StoreError>;

    /// The folders directly below `prefix` (as for [`ReadStore::list`]) that have objects somewhere in
    /// them, or had, as prefixes to list, in any order: so that a large store can be listed in parts,
    /// several at a time.
    ///
    /// # Errors
    /// As [`ReadStore::list`].
    fn folders(&self, prefix: &str) -> Result<Vec<String>, StoreError>;

    /// Size of one object, which version of it that is, and its SHA-256 where the store tells one.
    ///
    /// # Errors
    /// [`StoreError::Missing`] if there is none.
    fn head(&self, key: &str) -> Result<ObjectInfo, StoreError>;

    /// Reads an object, or the bytes in `range` of it. A range that ends beyond the object ends
    /// with the object. The stream is not checked here: the chain checks every byte.
    ///
    /// # Errors
    /// [`StoreError::Missing`] if there is none; errors while reading come as [`std::io::Error`].
    fn open(
        &self,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<Box<dyn Read + Send>, StoreError>;

    /// Whether it may have objects that cannot be read at once.
    fn can_archive(&self) -> bool {
        false
    }

    /// Whether an object can be read now.
    ///
    /// # Errors
    /// [`StoreError::Missing`] if there is none.
    fn availability(&self, _key: &str) -> Result<Availability, StoreError> {
        Ok(Availability::Readable)
    }

    /// Asks for an archived object to be readable for so many days. It is not, when this returns. Asking
    /// again while the store is at it changes nothing.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::Denied`], [`StoreError::Unavailable`].
    fn thaw(&self, key: &str, _speed: ThawSpeed, _days: u32) -> Result<(), StoreError> {
        Err(no_classes(self.url(), "restore from the archive", key))
    }

    /// What is free in it, if it has an end.
    fn space(&self) -> Option<Space> {
        None
    }

    /// Whether a path of this host is a place in the store.
    fn contains(&self, _path: &Path) -> bool {
        false
    }
}

/// A store that objects can be added to.
pub trait AppendStore: ReadStore {
    /// Begins an object. Fails early with [`StoreError::Exists`] if the key is taken; a writer that
    /// comes first after that still wins at [`Upload::commit`].
    ///
    /// # Errors
    /// [`StoreError::Exists`], [`StoreError::InvalidKey`], [`StoreError::Unavailable`].
    fn create(&self, key: &str, labels: &ObjectLabels) -> Result<Box<dyn Upload>, StoreError>;

    /// How the service of the store is asked to encrypt every object, and confirmed to: `sse-s3` or
    /// `sse-kms`.
    fn sse(&self) -> Option<&'static str> {
        None
    }

    /// Whether it locks what is written against removal.
    fn locks(&self) -> bool {
        false
    }

    /// Has the service itself copy an object of the store at `origin` (its [`ReadStore::url`]) to the same key, if it is
    /// one service and can. False if it is not or cannot, and then nothing was written. When this returns true the
    /// object is here, whole, and confirmed to be what is declared, as after [`Upload::commit`].
    ///
    /// # Errors
    /// As [`AppendStore::create`] and [`Upload::commit`].
    fn copy_from(
        &self,
        _origin: &str,
        _key: &str,
        _labels: &ObjectLabels,
        _declared: Declared,
    ) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// Sees to it that these objects, which something written now builds on, are not kept for a shorter
    /// time than that, and at least until `until`, where the store locks what is written. A lock is only
    /// ever made longer.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]; [`StoreError::Missing`] if one of them is not there;
    /// [`StoreError::Denied`] if the store does not lock it for so long.
    fn lock_longer(
        &self,
        _keys: &[String],
        _until: Option<OffsetDateTime>,
    ) -> Result<(), StoreError> {
        Ok(())
    }

    /// What its service does to keep the objects, as far as bkp may see; `None` for a store that has no such thing.
    ///
    /// # Errors
    /// [`StoreError::Stopped`]; what is not allowed to be seen is no error.
    fn protection(&self) -> Result<Option<Protection>, StoreError> {
        Ok(None)
    }

    /// Tries what only a store of this kind can fail to keep, for `doctor`; returns what was found,
    /// in words. May leave one small object of a fixed name, of which no backup is ever a part.
    ///
    /// # Errors
    /// What the store fails with; [`StoreError::Denied`] if it does not keep the contract.
    fn self_test(&self) -> Result<Option<String>, StoreError> {
        Ok(None)
    }
}

/// A store that objects can be removed from. Only `cleanup` holds one.
pub trait PruneStore: AppendStore {
    /// Removes an object. Removing one that is not there is done already.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]; [`StoreError::Retained`] if the store keeps it.
    fn delete(&self, key: &str) -> Result<(), StoreError>;

    /// Until when the store keeps an object, whatever anybody asks for; `None` if it can be removed
    /// or is not there.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    fn retained(&self, _key: &str) -> Result<Option<OffsetDateTime>, StoreError> {
        Ok(None)
    }

    /// By which rules `cleanup` moves data to other storage classes, if it is to.
    fn tiers(&self) -> Option<&Tiers> {
        None
    }

    /// Moves an object, whose content the caller knows, to another storage class. At every moment the whole
    /// object is there. One that is in that class already is left as it is.
    ///
    /// # Errors
    /// [`StoreError::Retained`] if the store keeps it as it is, [`StoreError::Archived`] if it cannot be
    /// read, [`StoreError::Mismatch`] if it is not what was declared, or not what it was.
    fn set_class(
        &self,
        key: &str,
        _declared: Declared,
        _class: StorageClass,
    ) -> Result<(), StoreError> {
        Err(no_classes(self.url(), "change the storage class of", key))
    }

    /// Uploads of bkp's that began before `before`, were neither finished nor abandoned, and take
    /// up space. A store that has no such thing has none.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Denied`].
    fn unfinished(&self, _before: OffsetDateTime) -> Result<Vec<Unfinished>, StoreError> {
        Ok(Vec::new())
    }

    /// Frees what an unfinished upload takes up.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Denied`].
    fn abort(&self, _upload: &Unfinished) -> Result<(), StoreError> {
        Ok(())
    }
}

/// An upload that nobody finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// The key that it was to become.
    pub key: String,
    /// How the store calls it.
    pub id: String,
    /// When it began, by the store's clock.
    pub begun: OffsetDateTime,
}

/// An object on its way into a store. Dropping it abandons it.
pub trait Upload: Send {
    /// Appends bytes.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Unavailable`]. After an error only dropping is allowed.
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError>;

    /// Makes the object durable, confirms size and SHA-256, then makes it visible.
    ///
    /// # Errors
    /// [`StoreError::Exists`] if the key was taken meanwhile, [`StoreError::Mismatch`] if what
    /// arrived is not what was declared; nothing is visible then.
    fn commit(self: Box<Self>, declared: Declared) -> Result<(), StoreError>;
}

/// What a store's operation can fail with.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such store. It is never made: an empty folder where a disk should be mounted must
    /// not be taken for one.
    #[error("no store at {store}")]
    Absent {
        /// The store.
        store: String,
        /// How it is made, as an instruction.
        hint: String,
    },
    /// It keeps no versions of its objects, so it cannot be read as of a time.
    #[error("{store}: has no versions of its objects to read as of a time")]
    NotVersioned {
        /// The store.
        store: String,
    },
    /// There is no such object.
    #[error("{store}: no object `{key}`")]
    Missing {
        /// The store.
        store: String,
        /// The key.
        key: String,
    },
    /// The key is taken; nothing is ever overwritten.
    #[error("{store}: object `{key}` already exists")]
    Exists {
        /// The store.
        store: String,
        /// The key.
        key: String,
    },
    /// The key has a form that no bkp writes: absolute, with `..`, hidden, or with odd characters.
    #[error("{store}: `{key}` is not a valid object key")]
    InvalidKey {
        /// The store.
        store: String,
        /// The key.
        key: String,
    },
    /// What arrived is not what was declared.
    #[error("{store}: object `{key}` arrived with {found}, expected {expected}")]
    Mismatch {
        /// The store.
        store: String,
        /// The key.
        key: String,
        /// What the store has.
        found: String,
        /// What the writer declared.
        expected: String,
    },
    /// No space left, or a quota is used up.
    #[error("{store}: no space left while writing `{key}`")]
    Full {
        /// The store.
        store: String,
        /// The key.
        key: String,
    },
    /// The service answered, and will answer the same until somebody changes something.
    #[error("{store}: cannot {operation} `{key}`: {problem}")]
    Denied {
        /// The store.
        store: String,
        /// The verb: `list`, `read`, `write`, …
        operation: &'static str,
        /// The key or prefix.
        key: String,
        /// What the service said.
        problem: String,
        /// What is to be changed, as an instruction.
        hint: String,
    },
    /// The store keeps the object for now (object lock), so it was not removed.
    #[error("{store}: `{key}` is locked until {}", rfc3339(*.until))]
    Retained {
        /// The store.
        store: String,
        /// The key.
        key: String,
        /// The end of the lock.
        until: OffsetDateTime,
    },
    /// The run was to stop while it waited for the store.
    #[error(transparent)]
    Stopped(#[from] Fault),
    /// The object is in an archive.
    #[error("{store}: object `{key}` is archived")]
    Archived {
        /// The store.
        store: String,
        /// The key.
        key: String,
    },
    /// Any other failure of the store. `transient` says whether trying again can help.
    #[error("{store}: cannot {operation} `{key}`")]
    Unavailable {
        /// The store.
        store: String,
        /// The verb: `list`, `read`, `write`, …
        operation: &'static str,
        /// The key or prefix.
        key: String,
        /// Whether trying again can help.
        transient: bool,
        /// What the system or service said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

diagnosed!(StoreError);

impl Classify for StoreError {
    fn kind(&self) -> Kind {
        match self {
            StoreError::Missing { .. }
            | StoreError::Absent { .. }
            | StoreError::NotVersioned { .. } => Kind::NotFound,
            StoreError::Exists { .. } | StoreError::Retained { .. } => Kind::Refused,
            StoreError::Mismatch { .. } | StoreError::InvalidKey { .. } => Kind::Integrity,
            StoreError::Full { .. }
            | StoreError::Denied { .. }
            | StoreError::Unavailable { .. } => Kind::Store,
            StoreError::Archived { .. } => Kind::Thawing,
            StoreError::Stopped(fault) => fault.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            StoreError::Full { store, .. } => {
                Some(format!("free space at {store}, then run the same command again"))
            }
            StoreError::Absent { hint, .. } | StoreError::Denied { hint, .. } => Some(hint.clone()),
            StoreError::Stopped(fault) => fault.hint(),
            StoreError::NotVersioned { .. } => Some(
                "omit --store-at to read what is there now; versioning protects a bucket from the moment it is enabled: aws s3api put-bucket-versioning".into(),
            ),
            StoreError::Archived { .. } => Some(
                "`bkp restore` asks for a whole chain to be restored from the archive; of a file of a log, do it by hand (aws s3api restore-object), then run the same command again".into(),
            ),
            StoreError::Exists { .. } => Some(
                "run the same command again: every run uses new object names; if it happens again, another host with a slow clock writes here".into(),
            ),
            StoreError::Retained { until, .. } => {
                Some(format!(
                    "leave it to the first cleanup after {}; it cannot be removed before then",
                    rfc3339(*until)
                ))
            }
            StoreError::Unavailable { store, source, .. } => Some(reach(store, &**source)),
            StoreError::Missing { .. }
            | StoreError::InvalidKey { .. }
            | StoreError::Mismatch { .. } => None,
        }
    }
}

/// What to do about a store that fails for a reason that only the system or the service knows.
fn reach(store: &str, source: &(dyn std::error::Error + Send + Sync + 'static)) -> String {
    let place = store.strip_prefix("file://");
    let Some(place) = place else {
        return format!(
            "run `bkp doctor`, which exercises everything {store} must do and reports what fails, then run the same command again"
        );
    };
    match source.downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
        Some(ErrorKind::PermissionDenied) => {
            format!("run bkp as the owner of {place}, or change the owner: chown -R USER {place}")
        }
        Some(ErrorKind::ReadOnlyFilesystem) => {
            format!(
                "remount the file system of {place} read-write, then run the same command again"
            )
        }
        _ => format!(
            "check the disk or mount that holds {place} (`findmnt -T {place}`, `dmesg`), then run the same command again"
        ),
    }
}

impl StoreError {
    /// Whether trying the same call again can help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            StoreError::Unavailable { transient, .. } => *transient,
            StoreError::Absent { .. }
            | StoreError::NotVersioned { .. }
            | StoreError::Missing { .. }
            | StoreError::Exists { .. }
            | StoreError::InvalidKey { .. }
            | StoreError::Mismatch { .. }
            | StoreError::Denied { .. }
            | StoreError::Archived { .. }
            | StoreError::Retained { .. }
            | StoreError::Stopped(_)
            | StoreError::Full { .. } => false,
        }
    }
}

/// That a store has no storage classes.
fn no_classes(url: &str, operation: &'static str, key: &str) -> StoreError {
    StoreError::Denied {
        store: url.to_owned(),
        operation,
        key: key.to_owned(),
        problem: "the store has no storage classes".to_owned(),
        hint: "choose a store in a bucket".to_owned(),
    }
}

/// Opens a store of some kind. Creates nothing.
pub type Open<S> = fn(&StoreLocation, &Ctx) -> Result<Box<S>, StoreError>;

/// Opens a store as it was at a time.
pub type OpenAt =
    fn(&StoreLocation, OffsetDateTime, &Ctx) -> Result<Box<dyn ReadStore>, StoreError>;

/// How a kind of store is opened: one line of [`kinds::STORES`].
#[derive(Debug, Clone, Copy)]
pub struct StoreKind {
    /// The URL scheme that selects it.
    pub scheme: &'static str,
    /// JSON Schema of the keys that only this kind of store has.
    pub schema: fn() -> Value,
    /// Whether a place is described well, and the [`ReadStore::url`] that a store there has. Touches
    /// nothing.
    pub check: fn(&StoreLocation) -> Result<String, ConfigError>,
    /// The rules of the service by which it moves data to colder storage classes by itself, as the service
    /// takes them; `None` if it has none.
    pub lifecycle: fn(&StoreLocation) -> Result<Option<Value>, ConfigError>,
    /// Opens it for looking.
    pub read: Open<dyn ReadStore>,
    /// Opens it for looking at what it had at a time; `None` if no store of this kind can tell.
    pub read_at: Option<OpenAt>,
    /// Opens it for adding.
    pub append: Open<dyn AppendStore>,
    /// Opens it for removing.
    pub prune: Open<dyn PruneStore>,
}

/// Whether `key` is one that bkp would write: relative, `/`-separated, no empty, hidden or `..`
/// component, only characters that every store and shell can carry, at most 1024 bytes.
#[must_use]
pub fn is_key(key: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let component =
        |part: &str| !part.is_empty() && !part.starts_with('.') && part.chars().all(plain);
    key.len() <= 1024 && key.split('/').all(component)
}
