//! Reading an object: ranges of it, several at a time, handed out in order.
//!
//! A piece that fails is fetched again; one that is shorter than it should be has failed. What the
//! bytes are is not judged here: the chain checks every one of them. But a small object that is not what
//! its metadata says is read a second time: a bit may have changed on the way.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::primitives::ByteStream;
use sha2::{Digest as _, Sha256};

use super::remote::{ANSWER, Remote, metadata_sha256};
use crate::aws::chain;
use crate::rt::{self, Stopped, Task};
use crate::store::StoreError;
use crate::store::s3::s3_error::{S3Error, S3ErrorClass};

/// Bytes that are fetched by one request.
const PIECE_BYTES: u64 = 8 << 20;
/// Slowest link that is waited for, bytes per second.
const SLOWEST: u64 = 64 << 10;

type Piece = Task<Result<Vec<u8>, S3Error>>;

/// An object in the bucket, or one version of it.
#[derive(Debug, Clone)]
struct ObjectVersion {
    name: String,
    id: Option<String>,
}

/// A reader of an object, or of a range of it.
pub(super) struct Reader {
    remote: Arc<Remote>,
    key: String,
    object: ObjectVersion,
    /// Requested already, in order.
    pieces: VecDeque<Piece>,
    /// What is still to be requested.
    ahead: Range<u64>,
    /// The piece that is handed out, and how much of it was.
    current: (Vec<u8>, usize),
}

impl Reader {
    /// Requests the first piece, so that an object that is not there is missing here.
    pub(super) fn open(
        remote: &Arc<Remote>,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<Reader, StoreError> {
        Reader::open_version(remote, key, None, range)
    }

    /// The same for one version of the object.
    pub(super) fn open_version(
        remote: &Arc<Remote>,
        key: &str,
        id: Option<String>,
        range: Option<Range<u64>>,
    ) -> Result<Reader, StoreError> {
        let object = ObjectVersion { name: remote.name(key)?, id };
        let (pieces, current) = (VecDeque::new(), (Vec::new(), 0));
        let (remote, key) = (Arc::clone(remote), key.to_owned());
        let range = range.unwrap_or(0..u64::MAX);
        let mut reader = Reader { remote, key, object, pieces, ahead: 0..0, current };
        // The service counts in signed numbers; nothing is as long as that.
        if range.is_empty() || i64::try_from(range.start).is_err() {
            let ObjectVersion { name, id } = &reader.object;
            let look = || reader.remote.head_version(name, id.as_deref());
            reader.remote.wait(("read", &reader.key), reader.remote.send_with_retries(look))?;
            return Ok(reader);
        }
        let first = range.start..range.end.min(range.start.saturating_add(PIECE_BYTES));
        let requested = reader
            .remote
            .send_with_retries(|| request(&reader.remote, &reader.object, first.clone()));
        let Answer { body, whole, sha256 } = match rt::wait(&reader.remote.ctx.cancel, requested) {
            Ok(Ok(found)) => found,
            Ok(Err(refusal)) if refusal.class == S3ErrorClass::BehindEnd => return Ok(reader),
            Ok(Err(refusal)) => return Err(reader.remote.error(refusal, "read", &reader.key)),
            Err(stopped) => return Err(reader.remote.ended(stopped)),
        };
        let end = range.end.min(whole);
        let here = first.start..first.end.min(end);
        reader.ahead = here.end..end;
        let (remote, object) = (Arc::clone(&reader.remote), reader.object.clone());
        // What fits into one piece is compared with what its writer said, before anybody judges it.
        let sha256 = sha256.filter(|_| here == (0..whole));
        let begun = async move {
            let bytes = match collect(body, &here).await {
                Err(refusal) if refusal.can_pass() => again(&remote, &object, here.clone()).await?,
                done => done?,
            };
            match sha256 {
                Some(sha256) if !is(&bytes, sha256) => reread(&remote, &object, here, sha256).await,
                Some(_) | None => Ok(bytes),
            }
        };
        let first = Task::start(begun).map_err(|error| reader.remote.ended(error.into()))?;
        reader.pieces.push_back(first);
        Ok(reader)
    }

    /// Requests as many pieces as the pace allows.
    fn request_ahead(&mut self) -> io::Result<()> {
        while !self.ahead.is_empty() && self.pieces.len() < self.remote.pace.width() {
            let end = self.ahead.end.min(self.ahead.start.saturating_add(PIECE_BYTES));
            let piece = self.ahead.start..end;
            self.ahead.start = end;
            let (remote, object) = (Arc::clone(&self.remote), self.object.clone());
            let piece = async move { again(&remote, &object, piece).await };
            self.pieces.push_back(Task::start(piece)?);
        }
        Ok(())
    }

    /// The next piece; `None` behind the last.
    fn next_piece(&mut self) -> io::Result<Option<Vec<u8>>> {
        self.request_ahead()?;
        let Some(mut piece) = self.pieces.pop_front() else { return Ok(None) };
        match piece.join(&self.remote.ctx.cancel) {
            Ok(Ok(bytes)) => Ok(Some(bytes)),
            Ok(Err(refusal)) => {
                // Whoever reads on after this must not skip what was lost.
                (self.pieces, self.ahead) = (VecDeque::new(), 0..0);
                let url = &self.remote.settings.url;
                let text = format!("{url}: cannot read `{}`: {}", self.key, refusal.said);
                Err(io::Error::other(text))
            }
            // Not `Interrupted`, which readers of whole objects take for an invitation to go on.
            Err(Stopped::Cancelled(fault)) => {
                (self.pieces, self.ahead) = (VecDeque::new(), 0..0);
                Err(io::Error::other(fault.to_string()))
            }
            Err(Stopped::Runtime(error)) => Err(error),
        }
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while self.current.1 == self.current.0.len() {
            self.current = (Vec::new(), 0);
            match self.next_piece()? {
                Some(bytes) => self.current = (bytes, 0),
                None => return Ok(0),
            }
        }
        // The pieces behind are fetched while this one is worked on.
        self.request_ahead()?;
        let (bytes, done) = &mut self.current;
        let mut rest = bytes.get(*done..).unwrap_or_default();
        let count = rest.read(buffer)?;
        *done += count;
        Ok(count)
    }
}

/// Fetches a piece until it is whole, or trying again cannot help.
async fn again(
    remote: &Remote,
    object: &ObjectVersion,
    piece: Range<u64>,
) -> Result<Vec<u8>, S3Error> {
    let fetch = || async {
        let answer = request(remote, object, piece.clone()).await?;
        collect(answer.body, &piece).await
    };
    remote.send_with_retries(fetch).await
}

/// Reads an object a second time that did not arrive as its writer said. What arrives now is handed out
/// whatever it is: whoever reads it knows better what it has to be, and the metadata may be wrong.
async fn reread(
    remote: &Remote,
    object: &ObjectVersion,
    piece: Range<u64>,
    sha256: [u8; 32],
) -> Result<Vec<u8>, S3Error> {
    let bytes = again(remote, object, piece).await?;
    if is(&bytes, sha256) {
        let (url, name) = (&remote.settings.url, &object.name);
        let why = format!("{url}: `{name}` was damaged in transit and was read again");
        remote.ctx.monitor.warn(&why);
    }
    Ok(bytes)
}

fn is(bytes: &[u8], sha256: [u8; 32]) -> bool {
    Sha256::digest(bytes).as_slice() == sha256
}

/// The answer to a request for a range.
struct Answer {
    body: ByteStream,
    /// Size of the whole object, bytes.
    whole: u64,
    /// SHA-256 of the whole object, as its writer said.
    sha256: Option<[u8; 32]>,
}

/// Asks for a range.
async fn request(
    remote: &Remote,
    object: &ObjectVersion,
    range: Range<u64>,
) -> Result<Answer, S3Error> {
    let request = remote.client.get_object().bucket(&remote.settings.bucket).key(&object.name);
    let request = request.set_version_id(object.id.clone());
    let request = request.range(format!("bytes={}-{}", range.start, range.end.saturating_sub(1)));
    let answer = remote.once(ANSWER, request.send()).await.map_err(|refusal| {
        // Nothing was asked on a condition.
        if refusal.class == S3ErrorClass::Taken {
            return S3Error { class: S3ErrorClass::Passing, ..refusal };
        }
        refusal
    })?;
    let whole = match answer.content_range() {
        Some(text) => text.rsplit('/').next().and_then(|size| size.parse().ok()),
        // A service that knows no ranges, or has nothing to choose from, sends the whole object.
        None if range.start == 0 => answer.content_length().and_then(|size| size.try_into().ok()),
        None => None,
    };
    let whole: u64 = whole
        .ok_or_else(|| S3Error::broken("the answer to a range request has no Content-Range"))?;
    if answer.content_range().is_none() && whole > range.end {
        return Err(S3Error::broken("the service ignores range requests"));
    }
    let sha256 = answer.metadata().and_then(metadata_sha256);
    Ok(Answer { body: answer.body, whole, sha256 })
}

/// Reads a body to its end, which must be that of `piece`.
async fn collect(mut body: ByteStream, piece: &Range<u64>) -> Result<Vec<u8>, S3Error> {
    let length = piece.end.saturating_sub(piece.start);
    let patience = ANSWER + Duration::from_secs(length / SLOWEST);
    let room = usize::try_from(length).unwrap_or(usize::MAX);
    let read = async {
        let mut bytes = Vec::with_capacity(room.min(1 << 24));
        while let Some(chunk) = body.try_next().await.map_err(|error| {
            S3Error::transient(format!("the connection was lost: {}", chain(&error)))
        })? {
            if chunk.len() > room.saturating_sub(bytes.len()) {
                return Err(S3Error::broken("the service sent more than was requested"));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    };
    let bytes = rt::limit(patience, read).await.map_err(S3Error::late)??;
    if bytes.len() != room {
        let said = format!("only {} of {length} bytes arrived", bytes.len());
        return Err(S3Error::transient(said));
    }
    Ok(bytes)
}
