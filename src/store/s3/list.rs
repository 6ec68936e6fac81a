//! A listing, one page at a time.

use std::collections::VecDeque;
use std::sync::Arc;

use aws_sdk_s3::types::EncodingType;
use percent_encoding::percent_decode_str;

use super::listing_progress::ListingProgress;
use super::remote::{ANSWER, Remote, version};
use crate::domain::tier::StorageClass;
use crate::store::s3::s3_error::{S3Error, S3ErrorClass};
use crate::store::{ObjectInfo, StoreError, Version, is_key};

/// What is listed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// Every object below a folder.
    All,
    /// The folders directly below it, of 0 bytes.
    Folders,
}

/// The objects below a folder, or the folders directly below it.
pub(super) struct Pages {
    remote: Arc<Remote>,
    /// As it was asked for, for messages.
    prefix: String,
    /// In the bucket; empty, or ends with `/`.
    folder: String,
    depth: Depth,
    page: VecDeque<ObjectInfo>,
    /// Where the next page begins; `None` behind the last.
    next: Option<Next>,
    /// The last name in the bucket that is a key; empty at first.
    last: String,
    listing_progress: ListingProgress,
}

/// A name in the bucket, its bytes, its version and its storage class.
type Named = (String, u64, Option<Version>, StorageClass);

/// A page as the service gives it.
struct Page {
    found: Vec<Named>,
    /// How many names it has, ours or not.
    shown: usize,
    /// Where the next one begins.
    next: Option<String>,
}

/// A name as it is in the bucket; `None` if it is no text, and so none of ours.
pub(super) fn decode(encoded: &str) -> Option<String> {
    Some(percent_decode_str(encoded).decode_utf8().ok()?.into_owned())
}

/// Which page is next.
#[derive(Clone)]
enum Next {
    First,
    After(String),
}

impl Pages {
    /// Fetches the first page, so that a store that cannot be listed fails here.
    pub(super) fn begin(
        remote: &Arc<Remote>,
        prefix: &str,
        depth: Depth,
    ) -> Result<Pages, StoreError> {
        let folder = match prefix {
            "" => remote.settings.prefix.clone(),
            prefix => format!("{}/", remote.name(prefix)?),
        };
        let (remote, prefix) = (Arc::clone(remote), prefix.to_owned());
        let (page, next, last) = (VecDeque::new(), Some(Next::First), String::new());
        let listing_progress = ListingProgress::default();
        let mut pages = Pages { remote, prefix, folder, depth, page, next, last, listing_progress };
        let first = pages.remote.send_with_retries(|| pages.fetch(&Next::First));
        let first = pages.remote.wait(("list", &pages.prefix), first);
        pages.accept(first?)?;
        Ok(pages)
    }

    async fn fetch(&self, which: &Next) -> Result<Page, S3Error> {
        let remote = &self.remote;
        let mut request = remote.client.list_objects_v2().bucket(&remote.settings.bucket);
        // Names of others may have characters that XML cannot hold.
        request = request.prefix(&self.folder).encoding_type(EncodingType::Url);
        if self.depth == Depth::Folders {
            request = request.delimiter("/");
        }
        if let Next::After(token) = which {
            request = request.continuation_token(token);
        }
        let answer = remote.once(ANSWER, request.send()).await.map_err(|refusal| {
            // A listing has no key that could be missing.
            if matches!(refusal.class, S3ErrorClass::Missing) {
                return S3Error { class: S3ErrorClass::NoBucket, ..refusal };
            }
            refusal
        })?;
        // The client's reader passes over what it does not understand: a page that cannot be read would
        // look like an empty one.
        let nameless = answer.contents().iter().any(|object| object.key().is_none());
        let is_empty = answer.contents().is_empty() && answer.common_prefixes().is_empty();
        if nameless || (is_empty && answer.key_count().is_some_and(|count| count > 0)) {
            return Err(S3Error::broken("a page of a listing cannot be read"));
        }
        let encoded = answer.encoding_type() == Some(&EncodingType::Url);
        let name = |text: &str| if encoded { decode(text) } else { Some(text.to_owned()) };
        let objects = answer.contents().iter().filter_map(|object| {
            let bytes = object.size().and_then(|bytes| u64::try_from(bytes).ok());
            let version = version(bytes.unwrap_or(0), object.e_tag(), object.last_modified());
            let class = object.storage_class().map(|class| StorageClass::named(class.as_str()));
            Some((name(object.key()?)?, bytes.unwrap_or(0), version, class.unwrap_or_default()))
        });
        let folders = answer.common_prefixes().iter();
        let folders = folders
            .filter_map(|folder| Some((name(folder.prefix()?)?, 0, None, StorageClass::Standard)));
        let found = match self.depth {
            Depth::All => objects.collect(),
            Depth::Folders => folders.collect(),
        };
        let shown = answer.contents().len() + answer.common_prefixes().len();
        let next = answer.is_truncated().unwrap_or(false).then(|| {
            let token = answer.next_continuation_token().map(str::to_owned);
            token.ok_or_else(|| {
                S3Error::broken("a truncated listing page has no continuation token")
            })
        });
        Ok(Page { found, shown, next: next.transpose()? })
    }

    /// Takes over a page: names become keys, and what no bkp writes is not there. What others call
    /// their objects can stand anywhere, in an order that is no concern of ours.
    fn accept(&mut self, page: Page) -> Result<(), StoreError> {
        let error = |refusal| self.remote.error(refusal, "list", &self.prefix);
        if let Some(next) = &page.next {
            self.listing_progress.advance(page.shown, next).map_err(error)?;
        }
        self.next = page.next.map(Next::After);
        for (name, bytes, version, class) in page.found {
            let key = name.strip_prefix(self.remote.settings.prefix.as_str());
            let key = match self.depth {
                Depth::All => key,
                Depth::Folders => key.and_then(|key| key.strip_suffix('/')),
            };
            let Some(key) = key.filter(|key| is_key(key) && name.starts_with(&self.folder)) else {
                continue;
            };
            if self.depth == Depth::Folders && name == self.last {
                // A folder may be told of on two pages.
                continue;
            }
            if name <= self.last {
                let refusal = S3Error::broken("the service does not list keys in order");
                return Err(error(refusal));
            }
            let key = key.to_owned();
            self.page.push_back(ObjectInfo { key, bytes, version, sha256: None, class });
            self.last = name;
        }
        Ok(())
    }
}

impl Iterator for Pages {
    type Item = Result<ObjectInfo, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(object) = self.page.pop_front() {
                return Some(Ok(object));
            }
            let which = self.next.take()?;
            let fetched = self.remote.send_with_retries(|| self.fetch(&which));
            let fetched = self.remote.wait(("list", &self.prefix), fetched);
            if let Err(error) = fetched.and_then(|page| self.accept(page)) {
                self.next = None;
                self.page.clear();
                return Some(Err(error));
            }
        }
    }
}
