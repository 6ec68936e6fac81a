//! A bucket as it was at a moment, for the day after somebody overwrote or deleted everything: of each
//! object the newest version that is not later than that, if the object was not deleted then. Only for
//! buckets with versions, and only to read.
//!
//! Nothing is trusted here that is not trusted of a bucket anyway: what the versions hold is authenticated
//! by whoever reads them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::Read;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::EncodingType;
use time::OffsetDateTime;

use super::list::decode;
use super::listing_progress::ListingProgress;
use super::read::Reader;
use super::remote::{ANSWER, Remote, version};
use super::s3_error::{S3Error, S3ErrorClass};
use crate::domain::tier::StorageClass;
use crate::domain::timestamp::rfc3339;
use crate::rt;
use crate::store::{Listing, ObjectInfo, ReadStore, StoreError, Version, is_key};

const NOT_ALLOWED: &str =
    "allow s3:ListBucketVersions and s3:GetObjectVersion, as examples/aws/read.json does";
/// How many versions are remembered, so that reading what was listed does not look for each again.
const KNOWN_MAX: usize = 100_000;

/// A version of an object.
#[derive(Debug, Clone)]
struct PastVersion {
    id: String,
    bytes: u64,
    version: Option<Version>,
    class: StorageClass,
}

/// What was there of an object at a time: a version, or the mark that it was deleted.
#[derive(Debug)]
struct State {
    since: OffsetDateTime,
    version: Option<PastVersion>,
}

/// A page of versions and delete markers.
#[derive(Debug)]
struct Page {
    /// What is no later than the moment, by name in the bucket.
    states: Vec<(String, State)>,
    folders: Vec<String>,
    /// How many entries it has, whatever they are.
    shown: usize,
    next: Option<Marker>,
}

/// Where the next page begins: a name and a version of it.
type Marker = (String, String);

/// A bucket at a moment.
#[derive(Debug)]
pub(super) struct PastBucket {
    remote: Arc<Remote>,
    at: OffsetDateTime,
    url: String,
    known: Mutex<HashMap<String, PastVersion>>,
}

impl PastBucket {
    /// The bucket as it was at `at`.
    ///
    /// # Errors
    /// [`StoreError::NotVersioned`]; [`StoreError::Absent`].
    pub(super) fn open(remote: Arc<Remote>, at: OffsetDateTime) -> Result<PastBucket, StoreError> {
        let look = || async {
            let request = remote.client.get_bucket_versioning().bucket(&remote.settings.bucket);
            remote.once(ANSWER, request.send()).await
        };
        let not_versioned = || StoreError::NotVersioned { store: remote.settings.url.clone() };
        match rt::wait(&remote.ctx.cancel, remote.send_with_retries(look)) {
            // Versions that were made before it was suspended are kept.
            Ok(Ok(answer)) if answer.status().is_some() => {}
            Ok(Ok(_never)) => return Err(not_versioned()),
            Ok(Err(refusal)) if refusal.said.contains("NotImplemented") => {
                return Err(not_versioned());
            }
            // Who reads backups need not be allowed to see the settings of the bucket.
            Ok(Err(S3Error { class: S3ErrorClass::Denied(_), .. })) => {}
            Ok(Err(S3Error { class: S3ErrorClass::Missing, said, retry_after })) => {
                let refusal = S3Error { class: S3ErrorClass::NoBucket, said, retry_after };
                return Err(remote.error(refusal, "open", &remote.settings.bucket));
            }
            Ok(Err(refusal)) => return Err(remote.error(refusal, "open", &remote.settings.bucket)),
            Err(stopped) => return Err(remote.ended(stopped)),
        }
        let url = format!("{} as of {}", remote.settings.url, rfc3339(at));
        Ok(PastBucket { remote, at, url, known: Mutex::default() })
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, PastVersion>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, name: &str, version: &PastVersion) {
        let mut known = self.known();
        if known.len() < KNOWN_MAX {
            known.insert(name.to_owned(), version.clone());
        }
    }

    fn missing(&self, key: &str) -> StoreError {
        StoreError::Missing { store: self.url.clone(), key: key.to_owned() }
    }

    async fn page(
        &self,
        prefix: &str,
        delimiter: Option<&str>,
        after: Option<&Marker>,
    ) -> Result<Page, S3Error> {
        let remote = &self.remote;
        let (name, id) = after.cloned().unzip();
        let request = remote.client.list_object_versions().bucket(&remote.settings.bucket);
        let request = request.prefix(prefix).encoding_type(EncodingType::Url);
        let request = request.set_delimiter(delimiter.map(str::to_owned));
        let request = request.set_key_marker(name).set_version_id_marker(id);
        let answer = remote.once(ANSWER, request.send()).await.map_err(|refusal| {
            let is_denied = matches!(refusal.class, S3ErrorClass::Denied(_));
            if is_denied && refusal.said.contains("AccessDenied") {
                return S3Error { class: S3ErrorClass::Denied(NOT_ALLOWED), ..refusal };
            }
            // A listing has no key that could be missing.
            if matches!(refusal.class, S3ErrorClass::Missing) {
                return S3Error { class: S3ErrorClass::NoBucket, ..refusal };
            }
            refusal
        })?;
        let encoded = answer.encoding_type() == Some(&EncodingType::Url);
        let decoded = |text: &str| if encoded { decode(text) } else { Some(text.to_owned()) };
        let broken = || S3Error::broken("a page of versions cannot be read");
        let mut states = Vec::new();
        for found in answer.versions() {
            let (name, id) = found.key().zip(found.version_id()).ok_or_else(broken)?;
            let since = found.last_modified().and_then(time_of).ok_or_else(broken)?;
            let bytes = found.size().and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0);
            let told = version(bytes, found.e_tag(), found.last_modified());
            let class = found.storage_class().map(|class| StorageClass::named(class.as_str()));
            let class = class.unwrap_or_default();
            let version = PastVersion { id: id.to_owned(), bytes, version: told, class };
            let name = decoded(name).filter(|_name| since <= self.at);
            states.extend(name.map(|name| (name, State { since, version: Some(version) })));
        }
        for found in answer.delete_markers() {
            let since = found.last_modified().and_then(time_of).ok_or_else(broken)?;
            let name = decoded(found.key().ok_or_else(broken)?).filter(|_name| since <= self.at);
            states.extend(name.map(|name| (name, State { since, version: None })));
        }
        let folders = answer.common_prefixes().iter();
        let folders = folders.filter_map(|folder| decoded(folder.prefix()?)).collect();
        let shown = answer.versions().len()
            + answer.delete_markers().len()
            + answer.common_prefixes().len();
        let next = answer.next_key_marker().and_then(decoded);
        let id = answer.next_version_id_marker().unwrap_or_default().to_owned();
        let next = match (answer.is_truncated(), next) {
            (Some(true), None) => {
                return Err(S3Error::broken("a truncated page has no continuation marker"));
            }
            (Some(true), next) => next.map(|name| (name, id)),
            (Some(false) | None, _) => None,
        };
        Ok(Page { states, folders, shown, next })
    }

    /// The next page of what is below `prefix`, or the first.
    fn next_page(
        &self,
        (prefix, delimiter): (&str, Option<&str>),
        after: Option<&Marker>,
        progress: &mut ListingProgress,
    ) -> Result<Page, StoreError> {
        let fetched = self.remote.send_with_retries(|| self.page(prefix, delimiter, after));
        let page = self.remote.wait(("list the versions below", prefix), fetched)?;
        if let Some((name, id)) = &page.next {
            let advanced = progress.advance(page.shown, &format!("{name} {id}"));
            advanced
                .map_err(|refusal| self.remote.error(refusal, "list the versions below", prefix))?;
        }
        Ok(page)
    }

    /// The version of the object of this name that was there.
    fn find(&self, key: &str) -> Result<(String, PastVersion), StoreError> {
        let name = self.remote.name(key)?;
        if let Some(known) = self.known().get(&name) {
            return Ok((name, known.clone()));
        }
        let (mut best, mut after) = (None, None);
        let mut progress = ListingProgress::default();
        loop {
            let page = self.next_page((&name, None), after.as_ref(), &mut progress)?;
            for (found, state) in page.states {
                if found == name {
                    keep_later(&mut best, state);
                }
            }
            // Names that begin with this one come after it.
            match page.next.filter(|(next, _)| *next <= name) {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        let version = best.and_then(|state| state.version).ok_or_else(|| self.missing(key))?;
        self.remember(&name, &version);
        Ok((name, version))
    }
}

/// Takes what was there later. Within one second a version counts rather than a deletion.
fn keep_later(best: &mut Option<State>, state: State) {
    let rank = |state: &State| (state.since, state.version.is_some());
    if best.as_ref().is_none_or(|best| rank(best) < rank(&state)) {
        *best = Some(state);
    }
}

fn time_of(time: &DateTime) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(time.as_nanos()).ok()
}

impl ReadStore for PastBucket {
    fn url(&self) -> &str {
        &self.url
    }

    fn list(&self, prefix: &str) -> Result<Listing<'_>, StoreError> {
        let folder = match prefix {
            "" => self.remote.settings.prefix.clone(),
            prefix => format!("{}/", self.remote.name(prefix)?),
        };
        let mut listing = PastListing {
            bucket: self,
            folder,
            ready: VecDeque::new(),
            carried: None,
            next: None,
            ended: false,
            last: String::new(),
            progress: ListingProgress::default(),
        };
        // A store that cannot be listed fails here.
        listing.fetch()?;
        Ok(Box::new(listing))
    }

    fn folders(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let folder = match prefix {
            "" => self.remote.settings.prefix.clone(),
            prefix => format!("{}/", self.remote.name(prefix)?),
        };
        let (mut found, mut after) = (Vec::new(), None);
        let mut progress = ListingProgress::default();
        loop {
            let page = self.next_page((&folder, Some("/")), after.as_ref(), &mut progress)?;
            found.extend(page.folders.iter().filter_map(|name| {
                let key = name.strip_prefix(&*self.remote.settings.prefix)?.strip_suffix('/')?;
                is_key(key).then(|| key.to_owned())
            }));
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    fn head(&self, key: &str) -> Result<ObjectInfo, StoreError> {
        let (name, found) = self.find(key)?;
        let look = || self.remote.head_version(&name, Some(&found.id));
        let seen = self.remote.wait(("inspect", key), self.remote.send_with_retries(look))?;
        let sha256 = seen.sha256();
        let class = seen.storage_class.as_deref().map(StorageClass::named).unwrap_or_default();
        let (key, bytes, version) = (key.to_owned(), seen.bytes, seen.version);
        Ok(ObjectInfo { key, bytes, version, sha256, class })
    }

    fn open(
        &self,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<Box<dyn Read + Send>, StoreError> {
        let (_name, found) = self.find(key)?;
        Ok(Box::new(Reader::open_version(&self.remote, key, Some(found.id), range)?))
    }
}

/// The objects below a folder, sorted by name.
struct PastListing<'b> {
    bucket: &'b PastBucket,
    folder: String,
    ready: VecDeque<ObjectInfo>,
    /// The last name of a page: the next one may have more versions of it.
    carried: Option<(String, State)>,
    next: Option<Marker>,
    ended: bool,
    /// The last name that was handed out.
    last: String,
    progress: ListingProgress,
}

impl PastListing<'_> {
    fn fetch(&mut self) -> Result<(), StoreError> {
        let bucket = self.bucket;
        let page =
            bucket.next_page((&self.folder, None), self.next.as_ref(), &mut self.progress)?;
        let mut found: BTreeMap<String, Option<State>> = BTreeMap::new();
        for (name, state) in self.carried.take().into_iter().chain(page.states) {
            keep_later(found.entry(name).or_default(), state);
        }
        self.next = page.next;
        self.ended = self.next.is_none();
        if !self.ended {
            let last = found.pop_last();
            self.carried = last.and_then(|(name, state)| Some((name, state?)));
        }
        let settings = &bucket.remote.settings;
        for (name, state) in found {
            let Some(version) = state.and_then(|state| state.version) else { continue };
            let key = name.strip_prefix(&*settings.prefix);
            let Some(key) = key.filter(|key| is_key(key) && name.starts_with(&self.folder)) else {
                continue;
            };
            if name <= self.last {
                let refusal = S3Error::broken("the service does not list keys in order");
                return Err(bucket.remote.error(refusal, "list the versions below", &self.folder));
            }
            bucket.remember(&name, &version);
            let PastVersion { bytes, version, class, .. } = version;
            let key = key.to_owned();
            self.ready.push_back(ObjectInfo { key, bytes, version, sha256: None, class });
            self.last = name;
        }
        Ok(())
    }
}

impl Iterator for PastListing<'_> {
    type Item = Result<ObjectInfo, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(object) = self.ready.pop_front() {
                return Some(Ok(object));
            }
            if self.ended {
                return None;
            }
            if let Err(error) = self.fetch() {
                self.ended = true;
                self.ready.clear();
                return Some(Err(error));
            }
        }
    }
}
