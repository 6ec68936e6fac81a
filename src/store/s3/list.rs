//! A listing, one page at a time.

use std::collections::VecDeque;
use std::sync::Arc;

use super::refusal::{Class, Refusal};
use super::remote::{ANSWER, Remote};
use crate::store::{ObjectInfo, StoreError, is_key};

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
    /// The last name of the bucket that was seen.
    last: String,
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
        let mut pages = Pages { remote, prefix, folder, depth, page, next, last };
        let first = pages.remote.insist(|| pages.fetch(&Next::First));
        let first = pages.remote.wait(("list", &pages.prefix), first);
        pages.accept(first?)?;
        Ok(pages)
    }

    async fn fetch(&self, which: &Next) -> Result<(Vec<(String, u64)>, Option<Next>), Refusal> {
        let remote = &self.remote;
        let mut request = remote.client.list_objects_v2().bucket(&remote.settings.bucket);
        request = request.prefix(&self.folder);
        if self.depth == Depth::Folders {
            request = request.delimiter("/");
        }
        if let Next::After(token) = which {
            request = request.continuation_token(token);
        }
        let answer = remote.once(ANSWER, request.send()).await.map_err(|refusal| {
            // A listing has no key that could be missing.
            if matches!(refusal.class, Class::Missing) {
                return Refusal { class: Class::NoBucket, ..refusal };
            }
            refusal
        })?;
        let objects = answer.contents().iter().filter_map(|object| {
            let bytes = object.size().and_then(|bytes| u64::try_from(bytes).ok());
            Some((object.key()?.to_owned(), bytes.unwrap_or(0)))
        });
        let folders = answer.common_prefixes().iter();
        let folders = folders.filter_map(|folder| Some((folder.prefix()?.to_owned(), 0)));
        let found = match self.depth {
            Depth::All => objects.collect(),
            Depth::Folders => folders.collect(),
        };
        let more = answer.is_truncated().unwrap_or(false);
        let token = answer.next_continuation_token().filter(|_token| more).map(str::to_owned);
        let same = matches!(which, Next::After(before) if Some(before) == token.as_ref());
        if more && (token.is_none() || same) {
            return Err(Refusal::broken("a page of a listing does not say where it goes on"));
        }
        Ok((found, token.map(Next::After)))
    }

    /// Takes over a page: names become keys, and what no bkp writes is not there.
    fn accept(&mut self, page: (Vec<(String, u64)>, Option<Next>)) -> Result<(), StoreError> {
        let (found, next) = page;
        self.next = next;
        for (name, bytes) in found {
            if self.depth == Depth::Folders && name == self.last {
                // A folder may be told of on two pages.
                continue;
            }
            if name <= self.last && !self.last.is_empty() {
                let refusal = Refusal::broken("the service does not list in the order of names");
                return Err(self.remote.error(refusal, "list", &self.prefix));
            }
            let key = name.strip_prefix(self.remote.settings.prefix.as_str());
            let key = match self.depth {
                Depth::All => key,
                Depth::Folders => key.and_then(|key| key.strip_suffix('/')),
            };
            if let Some(key) = key.filter(|key| is_key(key) && name.starts_with(&self.folder)) {
                self.page.push_back(ObjectInfo { key: key.to_owned(), bytes });
            }
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
            let fetched = self.remote.insist(|| self.fetch(&which));
            let fetched = self.remote.wait(("list", &self.prefix), fetched);
            if let Err(error) = fetched.and_then(|page| self.accept(page)) {
                self.next = None;
                self.page.clear();
                return Some(Err(error));
            }
        }
    }
}
