//! The store in a bucket of S3, AWS's or anybody else's: `s3://BUCKET/PREFIX`.
//!
//! A key is a name below the prefix. The service makes an object visible when it is whole and
//! refuses to overwrite one (`If-None-Match`); bkp declares a SHA-256 for everything it sends and
//! looks at the object afterwards. An answer that was lost is no outcome: every upload carries a
//! token of its own in the object's metadata, so that bkp finds out whether it was the one that
//! made what is there now.
//!
//! What can pass is tried again here, as long as the store's table says, and piece by piece: so what
//! this store fails with is final, and no layer above tries it once more.
//!
//! - `settings`: the table of the configuration.
//! - `remote`: a bucket, and how requests are sent to it; `pace`: how many and how fast;
//!   `refusal`: what a failed one means.
//! - `answer`: what is taken of what a service answers; `listing_progress`: whether a listing gets anywhere.
//! - `tiers`: the storage classes for older data; `lifecycle_check`: whether the bucket moves it so; `set_class`
//!   and `thaw`: there and back.
//! - `list`, `read`, `upload` with `parts`, `prune`: what the contract asks for; `self_test` and `powers`:
//!   what `doctor` tries; `protection`: what the bucket does by itself; `past`: the bucket as it was at a time.

use std::io::Read;
use std::ops::Range;
use std::sync::Arc;

use time::OffsetDateTime;

use super::{
    AppendStore, Declared, Listing, ObjectInfo, ObjectLabels, PruneStore, ReadStore, StoreError,
    StoreKind, StoreLocation, Unfinished, Upload,
};
use crate::ctx::Ctx;
use crate::domain::protection::Protection;
use crate::domain::thaw::{Availability, ThawSpeed};
use crate::domain::tier::{StorageClass, Tiers};

mod answer;
mod lifecycle_check;
mod list;
mod listing_progress;
mod lock;
mod pace;
mod parts;
mod past;
mod powers;
mod protection;
mod prune;
mod read;
mod remote;
mod s3_error;
mod self_test;
mod set_class;
mod settings;
mod thaw;
mod tiers;
mod upload;

use self::list::Depth;
use self::remote::Remote;
use self::settings::Sse;
use self::tiers::TiersBy;

/// Stores of the scheme `s3`.
pub const KIND: StoreKind = StoreKind {
    scheme: "s3",
    schema: || schemars::schema_for!(settings::Table).to_value(),
    check: |place| settings::read(place).map(|settings| settings.url),
    lifecycle: |place| {
        let settings::Settings { prefix, tiers, tiers_by, .. } = settings::read(place)?;
        Ok(Some(tiers::lifecycle(&prefix, (&tiers, tiers_by))))
    },
    read: |place, ctx| Ok(Box::new(S3::open(place, ctx)?)),
    read_at: Some(|place, at, ctx| {
        let remote = S3::open(place, ctx)?.remote;
        Ok(Box::new(past::PastBucket::open(remote, at)?))
    }),
    append: |place, ctx| Ok(Box::new(S3::open(place, ctx)?)),
    prune: |place, ctx| Ok(Box::new(S3::open(place, ctx)?)),
};

/// A store in a bucket.
#[derive(Debug)]
pub struct S3 {
    remote: Arc<Remote>,
}

impl S3 {
    /// Opens the store at `place`: finds region and credentials, and sends nothing to the bucket.
    ///
    /// # Errors
    /// [`StoreError::Denied`] if the table is not valid or there are no credentials.
    pub fn open(place: &StoreLocation, ctx: &Ctx) -> Result<S3, StoreError> {
        let settings = settings::read(place).map_err(|error| StoreError::Denied {
            store: place.url.clone(),
            operation: "open",
            key: place.url.clone(),
            problem: error.to_string(),
            hint: "correct the store's table or its URL; `bkp config schema` lists every key"
                .into(),
        })?;
        Ok(S3 { remote: Arc::new(Remote::connect(settings, ctx)?) })
    }
}

impl ReadStore for S3 {
    fn url(&self) -> &str {
        &self.remote.settings.url
    }

    fn list(&self, prefix: &str) -> Result<Listing<'_>, StoreError> {
        Ok(Box::new(list::Pages::begin(&self.remote, prefix, Depth::All)?))
    }

    fn folders(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let found = list::Pages::begin(&self.remote, prefix, Depth::Folders)?;
        found.map(|folder| folder.map(|folder| folder.key)).collect()
    }

    fn head(&self, key: &str) -> Result<ObjectInfo, StoreError> {
        let name = self.remote.name(key)?;
        let look = self.remote.send_with_retries(|| self.remote.head_object(&name));
        let seen = self.remote.wait(("inspect", key), look)?;
        Ok(ObjectInfo {
            key: key.to_owned(),
            bytes: seen.bytes,
            version: seen.version,
            sha256: seen.sha256(),
            class: seen.storage_class.as_deref().map(StorageClass::named).unwrap_or_default(),
        })
    }

    fn open(
        &self,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<Box<dyn Read + Send>, StoreError> {
        Ok(Box::new(read::Reader::open(&self.remote, key, range)?))
    }

    fn can_archive(&self) -> bool {
        true
    }

    fn availability(&self, key: &str) -> Result<Availability, StoreError> {
        thaw::availability(&self.remote, key)
    }

    fn thaw(&self, key: &str, speed: ThawSpeed, days: u32) -> Result<(), StoreError> {
        thaw::thaw(&self.remote, key, speed, days)
    }
}

impl AppendStore for S3 {
    fn create(&self, key: &str, labels: &ObjectLabels) -> Result<Box<dyn Upload>, StoreError> {
        match self.head(key) {
            Err(StoreError::Missing { .. }) => {}
            Err(error) => return Err(error),
            Ok(_taken) => {
                let store = self.url().to_owned();
                return Err(StoreError::Exists { store, key: key.to_owned() });
            }
        }
        Ok(Box::new(upload::S3Upload::begin(&self.remote, key, labels)?))
    }

    fn sse(&self) -> Option<&'static str> {
        self.remote.settings.attributes.sse.map(|sse| match sse {
            Sse::S3 => "sse-s3",
            Sse::Kms => "sse-kms",
        })
    }

    fn copy_from(
        &self,
        origin: &str,
        key: &str,
        labels: &ObjectLabels,
        declared: Declared,
    ) -> Result<bool, StoreError> {
        upload::server_copy::copy(&self.remote, (origin, key), labels, declared)
    }

    fn locks(&self) -> bool {
        self.remote.settings.attributes.object_lock.is_some()
    }

    fn lock_longer(
        &self,
        keys: &[String],
        until: Option<OffsetDateTime>,
    ) -> Result<(), StoreError> {
        lock::extend(&self.remote, keys, until)
    }

    fn protection(&self) -> Result<Option<Protection>, StoreError> {
        protection::look(&self.remote).map(Some)
    }

    fn self_test(&self) -> Result<Option<String>, StoreError> {
        let found = self_test::run(&self.remote)?;
        let tiers = lifecycle_check::compare(&self.remote)?;
        Ok(Some(tiers.map(|tiers| format!("{found}; {tiers}")).unwrap_or(found)))
    }
}

impl PruneStore for S3 {
    fn delete(&self, key: &str) -> Result<(), StoreError> {
        prune::delete(&self.remote, key)
    }

    fn retained(&self, key: &str) -> Result<Option<OffsetDateTime>, StoreError> {
        prune::retained(&self.remote, key)
    }

    fn tiers(&self) -> Option<&Tiers> {
        let settings = &self.remote.settings;
        Some(&settings.tiers)
            .filter(|tiers| !tiers.rules().is_empty() && settings.tiers_by == TiersBy::Cleanup)
    }

    fn set_class(
        &self,
        key: &str,
        declared: Declared,
        class: StorageClass,
    ) -> Result<(), StoreError> {
        set_class::set_class(&self.remote, key, declared, class)
    }

    fn unfinished(&self, before: OffsetDateTime) -> Result<Vec<Unfinished>, StoreError> {
        prune::unfinished(&self.remote, before)
    }

    fn abort(&self, upload: &Unfinished) -> Result<(), StoreError> {
        prune::abort(&self.remote, upload)
    }
}
