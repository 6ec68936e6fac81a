//! Several stores as one: everything is written to all of them in one pass over the source.
//!
//! A store that fails *drops out*: why is kept and said, the others go on, and nothing more is sent
//! to it in this run. Only when the last one fails does the operation.
//!
//! What a mirrored store *has* is what every store that is still in has, so a backup that builds on another one
//! restores from each of them. An object that one of them lacks, or holds in another size, is not
//! there.

use std::collections::BTreeSet;
use std::fmt;
use std::io::Read;
use std::iter::Peekable;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::ctx::Ctx;
use crate::error::{Fault, Kind};
use crate::store::{
    AppendStore, Declared, Listing, ObjectInfo, ObjectLabels, ReadStore, StoreError, Upload,
};

/// Several stores as one.
#[derive(Clone)]
pub struct MirroredStore {
    members: Arc<[Member]>,
    /// Where it is, for messages.
    url: String,
    ctx: Ctx,
    /// Held by whoever lets a store drop out.
    dropping: Arc<Mutex<()>>,
}

struct Member {
    url: String,
    /// `None` if it could not be opened.
    store: Option<Arc<dyn AppendStore>>,
    /// Why it dropped out.
    lost: Mutex<Option<anyhow::Error>>,
}

/// What became of one store of a mirrored one.
#[derive(Debug)]
pub struct MirrorOutcome {
    /// The store.
    pub url: String,
    /// Why it dropped out, with all causes; `None` if it is in.
    pub lost: Option<String>,
}

impl fmt::Debug for MirroredStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MirroredStore").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Member {
    fn lost(&self) -> MutexGuard<'_, Option<anyhow::Error>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_in(&self) -> bool {
        self.store.is_some() && self.lost().is_none()
    }
}

impl MirroredStore {
    /// The stores at these URLs, as far as they could be opened.
    ///
    /// # Errors
    /// What the last of them could not be opened for, if none could.
    pub fn new(
        stores: Vec<(String, anyhow::Result<Box<dyn AppendStore>>)>,
        ctx: &Ctx,
    ) -> anyhow::Result<MirroredStore> {
        let opened = stores.iter().filter(|(_, store)| store.is_ok()).count();
        let places: Vec<&str> =
            stores.iter().filter_map(|(_, store)| Some(store.as_ref().ok()?.url())).collect();
        let twice = places
            .iter()
            .enumerate()
            .find(|(index, place)| places.iter().take(*index).any(|before| before == *place));
        if let Some((_, place)) = twice {
            let message = format!("two of the stores are at the same place: {place}");
            return Err(Fault::new(Kind::Config, message).hint("name it once").into());
        }
        let mut members = Vec::new();
        let count = stores.len();
        for (index, (url, store)) in stores.into_iter().enumerate() {
            let member = match store {
                Ok(store) => {
                    let url = store.url().to_owned();
                    Member { url, store: Some(store.into()), lost: Mutex::default() }
                }
                Err(error) if opened == 0 && index + 1 == count => return Err(error),
                Err(error) => {
                    warn(ctx, &url, &error);
                    Member { url, store: None, lost: Mutex::new(Some(error)) }
                }
            };
            members.push(member);
        }
        let url = members.iter().map(|member| member.url.as_str()).collect::<Vec<_>>().join(", ");
        Ok(MirroredStore {
            members: members.into(),
            url,
            ctx: ctx.clone(),
            dropping: Arc::default(),
        })
    }

    /// The stores that are in, each by itself.
    pub fn stores(&self) -> impl Iterator<Item = (usize, &Arc<dyn AppendStore>)> {
        let members = self.members.iter().enumerate().filter(|(_, member)| member.is_in());
        members.filter_map(|(index, member)| Some((index, member.store.as_ref()?)))
    }

    /// Whether the store `index` is in.
    #[must_use]
    pub fn is_in(&self, index: usize) -> bool {
        self.members.get(index).is_some_and(Member::is_in)
    }

    /// URLs of the stores that are in.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.stores().map(|(_, store)| store.url().to_owned()).collect()
    }

    /// How every store fared so far.
    #[must_use]
    pub fn outcomes(&self) -> Vec<MirrorOutcome> {
        let lost = |member: &Member| member.lost().as_ref().map(|error| format!("{error:#}"));
        let outcomes =
            |member: &Member| MirrorOutcome { url: member.url.clone(), lost: lost(member) };
        self.members.iter().map(outcomes).collect()
    }

    /// Lets the store `index` drop out because of `error`.
    ///
    /// # Errors
    /// `error` itself if no other store is in.
    pub fn drop_out<E: Into<anyhow::Error>>(&self, index: usize, error: E) -> Result<(), E> {
        // Two that drop out at once must not each take the other for the one that stays.
        let _alone = self.dropping.lock().unwrap_or_else(PoisonError::into_inner);
        let others = self.members.iter().enumerate().any(|(i, other)| i != index && other.is_in());
        let Some(member) = self.members.get(index).filter(|_member| others) else {
            return Err(error);
        };
        let error = error.into();
        warn(&self.ctx, &member.url, &error);
        *member.lost() = Some(error);
        Ok(())
    }

    /// Lets the store `index` drop out, unless it failed because the run is to stop.
    ///
    /// # Errors
    /// `error` itself then, or if no other store is in.
    pub fn failed(&self, index: usize, error: StoreError) -> Result<(), StoreError> {
        if matches!(error, StoreError::Stopped(_)) {
            return Err(error);
        }
        self.drop_out(index, error)
    }

    fn missing(&self, key: &str) -> StoreError {
        StoreError::Missing { store: self.url.clone(), key: key.to_owned() }
    }
}

/// Whether two stores can have the same object.
fn may_be_same_object(one: &ObjectInfo, other: &ObjectInfo) -> bool {
    let sums = one.sha256.zip(other.sha256);
    one.bytes == other.bytes && sums.is_none_or(|(one, other)| one == other)
}

fn warn(ctx: &Ctx, url: &str, error: &anyhow::Error) {
    ctx.monitor.warn(&format!("continuing without store {url}: {error:#}"));
}

impl ReadStore for MirroredStore {
    fn url(&self) -> &str {
        &self.url
    }

    fn list(&self, prefix: &str) -> Result<Listing<'_>, StoreError> {
        let mut parts = Vec::new();
        for (index, store) in self.stores() {
            match store.list(prefix) {
                Ok(listing) => parts.push((index, listing.peekable())),
                Err(error) => self.failed(index, error)?,
            }
        }
        Ok(Box::new(CommonListing { mirrored: self, parts }))
    }

    /// Those of any store: what is not in every one of them is left out by [`MirroredStore::list`].
    fn folders(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let mut found = BTreeSet::new();
        for (index, store) in self.stores() {
            match store.folders(prefix) {
                Ok(folders) => found.extend(folders),
                Err(error) => self.failed(index, error)?,
            }
        }
        Ok(found.into_iter().collect())
    }

    fn head(&self, key: &str) -> Result<ObjectInfo, StoreError> {
        let mut first: Option<ObjectInfo> = None;
        for (index, store) in self.stores() {
            match store.head(key) {
                Ok(info)
                    if first.as_ref().is_some_and(|first| !may_be_same_object(first, &info)) =>
                {
                    return Err(self.missing(key));
                }
                // Each store has versions of its own.
                Ok(info) => first = Some(ObjectInfo { version: None, ..info }),
                Err(error @ StoreError::Missing { .. }) => return Err(error),
                Err(error) => self.failed(index, error)?,
            }
        }
        first.ok_or_else(|| self.missing(key))
    }

    fn open(
        &self,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<Box<dyn Read + Send>, StoreError> {
        for (index, store) in self.stores() {
            match store.open(key, range.clone()) {
                Ok(input) => return Ok(input),
                Err(error @ StoreError::Missing { .. }) => return Err(error),
                Err(error) => self.failed(index, error)?,
            }
        }
        Err(self.missing(key))
    }

    fn contains(&self, path: &Path) -> bool {
        self.stores().any(|(_, store)| store.contains(path))
    }
}

impl AppendStore for MirroredStore {
    /// What all of them do: a manifest speaks of every copy.
    fn sse(&self) -> Option<&'static str> {
        let mut found = self.stores().map(|(_, store)| store.sse());
        let first = found.next()?;
        first.filter(|_| found.all(|other| other == first))
    }

    fn create(&self, key: &str, labels: &ObjectLabels) -> Result<Box<dyn Upload>, StoreError> {
        let mut uploads = Vec::new();
        for (index, store) in self.stores() {
            match store.create(key, labels) {
                Ok(upload) => uploads.push((index, upload)),
                Err(error) => self.failed(index, error)?,
            }
        }
        Ok(Box::new(MirroredUpload { mirrored: self.clone(), uploads }))
    }
}

/// An object on its way into every store.
struct MirroredUpload {
    mirrored: MirroredStore,
    uploads: Vec<(usize, Box<dyn Upload>)>,
}

impl Upload for MirroredUpload {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let mut still = Vec::with_capacity(self.uploads.len());
        for (index, mut upload) in self.uploads.drain(..) {
            match upload.write(bytes) {
                Ok(()) => still.push((index, upload)),
                Err(error) => {
                    // What was sent of it is to be gone before the run goes on.
                    drop(upload);
                    self.mirrored.failed(index, error)?;
                }
            }
        }
        self.uploads = still;
        Ok(())
    }

    fn commit(self: Box<Self>, declared: Declared) -> Result<(), StoreError> {
        let MirroredUpload { mirrored, uploads } = *self;
        let mut there = false;
        for (index, upload) in uploads {
            match upload.commit(declared) {
                Ok(()) => there = true,
                // It is in a store: it must not be said that it is in none.
                Err(error) if there => mirrored.drop_out(index, error)?,
                Err(error) => mirrored.failed(index, error)?,
            }
        }
        if !there {
            return Err(StoreError::Unavailable {
                store: mirrored.url.clone(),
                operation: "write",
                key: String::new(),
                transient: false,
                source: "no store is left".into(),
            });
        }
        Ok(())
    }
}

/// What several sorted listings have in common.
struct CommonListing<'a> {
    mirrored: &'a MirroredStore,
    parts: Vec<(usize, Peekable<Listing<'a>>)>,
}

impl CommonListing<'_> {
    /// The next object of every part, or `None` at the end of any; parts that fail are left out.
    fn heads(&mut self) -> Result<Option<Vec<ObjectInfo>>, StoreError> {
        let mut heads = Vec::with_capacity(self.parts.len());
        let mut at = 0;
        while let Some((index, part)) = self.parts.get_mut(at) {
            match part.next_if(Result::is_err) {
                Some(Err(error)) => {
                    self.mirrored.failed(*index, error)?;
                    drop(self.parts.remove(at));
                }
                Some(Ok(_)) | None => match part.peek() {
                    Some(Ok(head)) => {
                        heads.push(head.clone());
                        at += 1;
                    }
                    Some(Err(_)) | None => return Ok(None),
                },
            }
        }
        Ok((!heads.is_empty()).then_some(heads))
    }
}

impl Iterator for CommonListing<'_> {
    type Item = Result<ObjectInfo, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let heads = match self.heads() {
                Ok(heads) => heads?,
                Err(error) => {
                    self.parts.clear();
                    return Some(Err(error));
                }
            };
            let last = heads.iter().map(|head| &head.key).max()?.clone();
            let common = heads.iter().all(|head| head.key == last);
            let one = heads.into_iter().next()?;
            let mut same = common;
            for (_, part) in &mut self.parts {
                if common {
                    same &= matches!(part.next(), Some(Ok(head)) if head.bytes == one.bytes);
                } else {
                    // Whatever is before the furthest part is not in that part.
                    let behind = |head: &Result<ObjectInfo, StoreError>| {
                        head.as_ref().is_ok_and(|head| head.key < last)
                    };
                    while part.next_if(behind).is_some() {}
                }
            }
            if same {
                return Some(Ok(ObjectInfo { version: None, ..one }));
            }
        }
    }
}
