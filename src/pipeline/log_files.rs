//! Files of a log that a source's server hands over one by one: each is an object by itself, sealed under a data
//! key of its own, made once, without a manifest.
//!
//! What a manifest says of other objects, the header says of these ([`About`]): it is as authentic, and can be
//! read without the rest of the object.

use std::fs::File;
use std::io::{self, Read, Seek as _, Write};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use super::stored::{StoredReader, digest};
use crate::ctx::Ctx;
use crate::domain::hex::hex;
use crate::domain::id::BackupId;
use crate::domain::limits::SEAL_HEADER_BYTES_MAX;
use crate::domain::log_file::LogFileName;
use crate::domain::names::BackupType;
use crate::error::{Fault, FirstError, Kind};
use crate::keys::DataKey;
use crate::keys::keyring::Keyring;
use crate::stage::digest::{DigestReader, UploadSink, drain};
use crate::stage::seal::{ObjectName, Opener, Prelude, Sealer, open_header};
use crate::stage::{Sink, zstd};
use crate::store::{AppendStore, ObjectLabels, ReadStore, Role, StoreError};

mod copying;
mod header;
pub mod resealing;

/// So much of an object is read for its header at first; only many recipients take more.
const HEADER_BYTES: u64 = 32 << 10;
/// Bytes that are passed on at a time.
const CHUNK_BYTES: usize = 256 << 10;
/// Largest file that is held in memory, bytes: a segment of WAL as servers have it unless they are told otherwise.
const HELD_BYTES_MAX: u64 = 16 << 20;
/// The archived files of one source in one store.
#[derive(Clone)]
pub struct LogFiles<'a> {
    store: &'a dyn ReadStore,
    keys: &'a Keyring,
    backup_type: BackupType,
    source: String,
    ctx: &'a Ctx,
}

impl std::fmt::Debug for LogFiles<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogFiles").field("source", &self.source).finish_non_exhaustive()
    }
}

/// The content of a file that is to be archived. It is read more than once.
#[derive(Debug)]
pub enum Content {
    /// In memory: what was looked at is what is archived.
    Held(Vec<u8>),
    /// Too long for that. When it is archived it is compared with what was looked at.
    Reread(File),
}

impl Content {
    /// The content of an open file.
    ///
    /// # Errors
    /// What reading fails with.
    pub fn of(mut file: File) -> io::Result<Content> {
        let mut held = Vec::new();
        let expected = file.metadata()?.len();
        // A hook that the system denies memory must not end with its abort.
        let mut has_room = || held.try_reserve_exact(usize::try_from(expected).ok()? + 1).ok();
        if expected <= HELD_BYTES_MAX && has_room().is_some() {
            Read::take(&mut file, HELD_BYTES_MAX + 1).read_to_end(&mut held)?;
            if held.len() as u64 <= HELD_BYTES_MAX {
                return Ok(Content::Held(held));
            }
        }
        Ok(Content::Reread(file))
    }

    /// Reads it from its beginning.
    ///
    /// # Errors
    /// What the file system says.
    pub fn read(&mut self) -> io::Result<Box<dyn Read + '_>> {
        Ok(match self {
            Content::Held(bytes) => Box::new(bytes.as_slice()),
            Content::Reread(file) => {
                file.rewind()?;
                Box::new(file)
            }
        })
    }

    /// Its size in bytes and its SHA-256.
    ///
    /// # Errors
    /// What reading fails with.
    pub fn measure(&mut self) -> io::Result<(u64, [u8; 32])> {
        let (mut chunk, mut hasher, mut bytes) = (vec![0; CHUNK_BYTES], Sha256::new(), 0);
        let mut input = self.read()?;
        loop {
            let count = input.read(&mut chunk)?;
            let read = chunk.get(..count).unwrap_or_default();
            if read.is_empty() {
                return Ok((bytes, hasher.finalize().into()));
            }
            hasher.update(read);
            bytes += count as u64;
        }
    }
}

/// A file that is to be archived.
#[derive(Debug)]
pub struct NewLogFile<'a> {
    /// What it is called.
    pub name: &'a LogFileName,
    /// Its size, bytes.
    pub bytes: u64,
    /// SHA-256 of its content.
    pub sha256: [u8; 32],
    /// What the source says of it.
    pub facts: Value,
}

/// What became of a file that was to be archived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Archiving {
    /// It is in the store now.
    Done,
    /// It was there already, with the same content.
    WasThere,
}

/// What an archived file says of itself, authenticated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFileFacts {
    /// Size of the file, bytes.
    pub bytes: u64,
    /// SHA-256 of the file, hex.
    pub sha256: String,
    /// When it was archived.
    #[serde(with = "time::serde::rfc3339")]
    pub archived: OffsetDateTime,
    /// By which host.
    pub host: String,
    /// What the source says of it.
    pub facts: Value,
}

/// An archived file whose data key is at hand.
#[derive(Debug)]
pub struct UnlockedLogFile {
    /// The id of its object, for which the data key is wrapped.
    pub id: BackupId,
    /// SHA-256 of what its header says.
    pub sha256: [u8; 32],
    /// The data key.
    pub key: DataKey,
}

/// An archived file as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedFile {
    /// What it is called.
    pub name: LogFileName,
    /// Size of its object, bytes.
    pub bytes: u64,
}

impl<'a> LogFiles<'a> {
    /// Those of `source` in `store`, which are opened with `keys`.
    #[must_use]
    pub fn new(
        store: &'a dyn ReadStore,
        keys: &'a Keyring,
        (backup_type, source): (BackupType, &str),
        ctx: &'a Ctx,
    ) -> Self {
        LogFiles { store, keys, backup_type, source: source.to_owned(), ctx }
    }

    /// Where they are, for messages.
    #[must_use]
    pub fn url(&self) -> &'a str {
        self.store.url()
    }

    /// The name of one of them.
    #[must_use]
    pub fn name(&self, stream: &str, folder: Option<&str>, file: &str) -> LogFileName {
        LogFileName {
            backup_type: self.backup_type,
            source: self.source.clone(),
            stream: stream.to_owned(),
            folder: folder.map(str::to_owned),
            file: file.to_owned(),
        }
    }

    /// The streams that have files.
    ///
    /// # Errors
    /// What the store fails with.
    pub fn streams(&self) -> anyhow::Result<Vec<String>> {
        folder_names(self.store, &LogFileName::prefix(self.backup_type, &self.source))
    }

    /// The folders of a stream.
    ///
    /// # Errors
    /// What the store fails with.
    pub fn folders(&self, stream: &str) -> anyhow::Result<Vec<String>> {
        let prefix = LogFileName::prefix(self.backup_type, &self.source);
        folder_names(self.store, &format!("{prefix}/{stream}"))
    }

    /// The files of a stream in one folder, or all of it, sorted by name. Objects of other names are none.
    ///
    /// # Errors
    /// What the store fails with; that the run is to stop.
    pub fn list(&self, stream: &str, folder: Option<&str>) -> anyhow::Result<Vec<ListedFile>> {
        let prefix = LogFileName::prefix(self.backup_type, &self.source);
        let folder = folder.map(|folder| format!("/{folder}")).unwrap_or_default();
        let mut files = Vec::new();
        for object in self.store.list(&format!("{prefix}/{stream}{folder}"))? {
            self.ctx.cancel.check()?;
            let object = object?;
            let name = LogFileName::parse(&object.key);
            files.extend(name.map(|name| ListedFile { name, bytes: object.bytes }));
        }
        Ok(files)
    }

    /// Archives a file. When this returns without an error its content is in the store, durably.
    ///
    /// # Errors
    /// [`Kind::Refused`] if a file of that name with other content is there; [`Kind::Source`] if `content` is
    /// not what `file` says; what key and store fail with. Then nothing was added.
    pub fn put(
        &self,
        store: &dyn AppendStore,
        file: &NewLogFile<'_>,
        content: &mut Content,
        compression: (i32, usize),
    ) -> anyhow::Result<Archiving> {
        match self.add(store, file, content, compression) {
            Ok(()) => Ok(Archiving::Done),
            Err(error) => match error.downcast_ref::<StoreError>() {
                Some(StoreError::Exists { .. }) => self.compare(file),
                _ => Err(error),
            },
        }
    }

    fn add(
        &self,
        store: &dyn AppendStore,
        file: &NewLogFile<'_>,
        content: &mut Content,
        (level, threads): (i32, usize),
    ) -> anyhow::Result<()> {
        let key = file.name.key();
        // First: if it is there already, nothing else costs anything.
        let upload = store.create(&key, &self.labels())?;
        let id = BackupId::new(self.ctx.now());
        let data_key = DataKey::generate()?;
        let wrapped =
            self.keys.providers().iter().map(|provider| provider.wrap(&data_key, id, &self.source));
        let recipients = wrapped.collect::<Result<_, _>>()?;
        let object = format!("{id}/{}", file.name.place());
        let about = self.about(file, &object, &data_key)?;
        let stored = Box::new(UploadSink::new("stored", upload));
        let sealed = Box::new(Sealer::new(&data_key, &object, recipients, Some(about), stored)?);
        let mut sink: Box<dyn Sink> = match file.name.folder {
            Some(_) => Box::new(zstd::Encoder::new(level, threads, sealed)?),
            None => sealed,
        };
        let mut compared = matches!(content, Content::Reread(_)).then(Sha256::new);
        let (mut input, mut chunk) = (content.read()?, vec![0; CHUNK_BYTES]);
        loop {
            self.ctx.cancel.check()?;
            let count = input.read(&mut chunk)?;
            let read = chunk.get(..count).unwrap_or_default();
            if read.is_empty() {
                break;
            }
            if let Some(hasher) = &mut compared {
                hasher.update(read);
            }
            sink.write(read)?;
        }
        if compared.is_some_and(|hasher| <[u8; 32]>::from(hasher.finalize()) != file.sha256) {
            let message = format!("`{}` changed while it was read", file.name.file);
            let hint = "a server finishes a file before it hands it over; check what writes to it";
            return Err(Fault::new(Kind::Source, message).hint(hint).into());
        }
        sink.finish()?;
        Ok(())
    }

    fn labels(&self) -> ObjectLabels {
        // A digest of the content would tell who can read the bucket what is in it; the store notes that of the object.
        let pairs = vec![("backup-type".to_owned(), self.backup_type.to_string())];
        ObjectLabels { role: Role::LogFile, pairs, ..ObjectLabels::default() }
    }

    /// What is in the store under the name of a file that is to be archived.
    fn compare(&self, file: &NewLogFile<'_>) -> anyhow::Result<Archiving> {
        let key = file.name.key();
        let known = self.facts(file.name)?;
        if known.sha256 == hex(&file.sha256) {
            return Ok(Archiving::WasThere);
        }
        let message = format!(
            "{}: `{key}` is archived with other content, by {} on {}",
            self.store.url(),
            known.host,
            crate::domain::timestamp::rfc3339(known.archived)
        );
        let hint = "two servers claim the same place in one log: give each a source of its own, and stop the one that should not be writing; nothing was overwritten";
        Err(Fault::new(Kind::Refused, message).hint(hint).into())
    }

    /// What an archived file says of itself; its content is not read.
    ///
    /// # Errors
    /// [`Kind::Integrity`] if that is not authentic; what key and store fail with.
    pub fn facts(&self, name: &LogFileName) -> anyhow::Result<LogFileFacts> {
        Ok(self.authentic(&name.key(), &self.prelude(name)?)?.1)
    }

    /// The beginning of the object of an archived file.
    fn prelude(&self, name: &LogFileName) -> anyhow::Result<Prelude> {
        let key = name.key();
        let first_error = FirstError::default();
        let part = self.store.open(&key, Some(0..HEADER_BYTES))?;
        let place = name.place();
        let mut input = self.watched(part, &first_error);
        let opened = open_header(&mut input, ObjectName::Behind(&place));
        // It may be longer than most are.
        opened.or_else(|_short| {
            let whole = self.store.open(&key, Some(0..SEAL_HEADER_BYTES_MAX as u64 + 64))?;
            let mut input = self.watched(whole, &first_error);
            open_header(&mut input, ObjectName::Behind(&place))
                .map_err(|error| first_error.or(error))
        })
    }

    fn watched(&self, input: Box<dyn Read + Send>, first_error: &FirstError) -> StoredReader {
        StoredReader { input, ctx: self.ctx.clone(), first_error: first_error.clone() }
    }

    /// Writes the content of an archived file to `out`. When this returns without an error, every byte was the
    /// file's.
    ///
    /// # Errors
    /// [`StoreError::Missing`] if there is none; [`Kind::Integrity`] if it is damaged or not authentic; what
    /// `out`, key and store fail with.
    pub fn read(&self, name: &LogFileName, out: &mut dyn Write) -> anyhow::Result<LogFileFacts> {
        self.read_from(self.store.open(&name.key(), None)?, name, out)
    }

    /// The same of an object that was opened.
    fn read_from(
        &self,
        object: Box<dyn Read + Send>,
        name: &LogFileName,
        out: &mut dyn Write,
    ) -> anyhow::Result<LogFileFacts> {
        let key = name.key();
        let first_error = FirstError::default();
        let mut input = self.watched(object, &first_error);
        let prelude = open_header(&mut input, ObjectName::Behind(&name.place()))
            .map_err(|error| first_error.or(error))?;
        let (data_key, facts) = self.authentic(&key, &prelude)?;
        let opener = Opener::new(input, &prelude, &data_key?, first_error.clone());
        let plain: Box<dyn Read> = match name.folder {
            Some(_) => Box::new(zstd::Decoder::new(opener, &key, first_error.clone())?),
            None => Box::new(opener),
        };
        let sha256 = digest(&facts.sha256, &key)?;
        let mut checked = DigestReader::new(plain, &key, facts.bytes, sha256, first_error.clone());
        io::copy(&mut checked, out).map_err(|error| first_error.or(error))?;
        drain(&mut checked).map_err(|error| first_error.or(error))?;
        Ok(facts)
    }

    /// Whether a file is archived.
    ///
    /// # Errors
    /// What the store fails with.
    pub fn is_there(&self, name: &LogFileName) -> anyhow::Result<bool> {
        match self.store.head(&name.key()) {
            Ok(_) => Ok(true),
            Err(StoreError::Missing { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// The names of the folders below a prefix, sorted.
///
/// # Errors
/// What the store fails with.
pub fn folder_names(store: &dyn ReadStore, prefix: &str) -> anyhow::Result<Vec<String>> {
    let folders = store.folders(prefix)?.into_iter();
    let last = |folder: String| {
        let name = folder.trim_end_matches('/').rsplit('/').next();
        name.unwrap_or_default().to_owned()
    };
    let mut names: Vec<String> = folders.map(last).collect();
    names.sort_unstable();
    Ok(names)
}
