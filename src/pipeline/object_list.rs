//! The objects of a backup that has more of them than its manifest has room for.
//!
//! The manifest names the first [`OBJECTS_IN_MANIFEST_MAX`], and an object with the role
//! [`ROLE_OBJECTS`] names the others, one JSON object a line. That one says no more than a manifest
//! does, so it is not sealed: whoever has no key can still tell what belongs to a backup. What it says is
//! as authentic as the manifest, which has its SHA-256.

use std::io::{BufRead as _, BufReader, Read, Write as _};

use super::reader::{StoredReader, digest, lost};
use super::{ObjectBuilder, ROLE_DATA, SinkWriter, record};
use crate::ctx::Ctx;
use crate::domain::limits::{OBJECT_LINE_BYTES_MAX, OBJECTS_IN_MANIFEST_MAX, OBJECTS_MAX};
use crate::domain::manifest::{Manifest, ManifestError, ObjectRecord, ROLE_OBJECTS};
use crate::domain::names::BackupName;
use crate::error::{Fault, FirstError, Kind};
use crate::stage::digest::{Digest, DigestReader, UploadSink, drain};
use crate::stage::thread_boundary::ThreadBoundary;
use crate::stage::zstd;
use crate::store::{ReadStore, Role};

/// Extension of the list of objects.
const EXTENSION: &str = "objects.json.zst";
/// Level of its compression.
const LEVEL: i32 = 3;
/// Chunks that wait for the thread that stores.
const QUEUE_DEPTH: usize = 8;

impl ObjectBuilder<'_> {
    /// What the manifest of a backup of these objects names: all of them, or the first and a list of the
    /// others, which this stores.
    ///
    /// # Errors
    /// [`Kind::Source`] for more than [`OBJECTS_MAX`]; as [`ObjectBuilder::archive`].
    pub fn listed(&self, mut objects: Vec<ObjectRecord>) -> anyhow::Result<Vec<ObjectRecord>> {
        if objects.len() > OBJECTS_MAX {
            let message = format!("{} objects are more than {OBJECTS_MAX}", objects.len());
            return Err(Fault::new(Kind::Source, message).hint("split the source in two").into());
        }
        if objects.len() <= OBJECTS_IN_MANIFEST_MAX {
            return Ok(objects);
        }
        // What is no data is what tells the way to it.
        objects.sort_by_key(|object| object.role == ROLE_DATA);
        let others = objects.split_off(OBJECTS_IN_MANIFEST_MAX);
        objects.sort_by_key(|object| object.role != ROLE_DATA);
        let key = self.name.key(EXTENSION);
        let upload = self.store.create(&key, &self.labels(Role::Index))?;
        let stored = Box::new(UploadSink::new("stored", upload));
        let behind = Box::new(ThreadBoundary::new("store", QUEUE_DEPTH, stored)?);
        let sink =
            Box::new(Digest::new("plaintext", Box::new(zstd::Encoder::new(LEVEL, 1, behind)?)));
        let first_error = FirstError::default();
        let mut out = SinkWriter::new(sink, &first_error);
        for object in &others {
            let mut line = serde_json::to_vec(object)?;
            line.push(b'\n');
            out.write_all(&line).map_err(|error| first_error.or(error))?;
        }
        let stats = out.sink.finish()?;
        objects.push(record(ROLE_OBJECTS, key, &stats, ["zstd"].into_iter(), self.store)?);
        Ok(objects)
    }
}

/// The objects that a manifest does not name itself; none for most backups. They are as authentic as the
/// manifest is.
///
/// # Errors
/// [`ManifestError`] or [`Kind::Integrity`] if the list is not the one that was stored, or says anything but
/// what bkp writes; what the store fails with.
pub fn listed(
    store: &dyn ReadStore,
    manifest: &Manifest,
    ctx: &Ctx,
) -> anyhow::Result<Vec<ObjectRecord>> {
    let Some(list) = manifest.object(ROLE_OBJECTS) else { return Ok(Vec::new()) };
    let key = &list.key;
    let first_error = FirstError::default();
    let input = store.open(key, None).map_err(|error| lost(error, key))?;
    let watched = StoredReader { input, ctx: ctx.clone(), first_error: first_error.clone() };
    let stored = DigestReader::new(
        watched,
        key,
        list.bytes,
        digest(&list.sha256, key)?,
        first_error.clone(),
    );
    let mut input: Box<dyn Read + Send> = Box::new(stored);
    if list.stages.iter().any(|stage| stage == "zstd") {
        input = Box::new(zstd::Decoder::new(input, key, first_error.clone())?);
    }
    let objects = parse(&mut input, manifest).map_err(|error| first_error.or(error))?;
    drain(&mut input).map_err(|error| first_error.or(error))?;
    Ok(objects)
}

fn parse(input: &mut dyn Read, manifest: &Manifest) -> anyhow::Result<Vec<ObjectRecord>> {
    let name = manifest.name();
    let wrong = |reason: String| ManifestError::Misplaced { key: name.manifest_key(), reason };
    let (mut objects, mut line) = (Vec::new(), Vec::new());
    let mut input = BufReader::new(input);
    loop {
        line.clear();
        let count = input.by_ref().take(OBJECT_LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
        if count == 0 {
            return Ok(objects);
        }
        let object: ObjectRecord = serde_json::from_slice(&line)
            .map_err(|error| wrong(format!("its list of objects cannot be read: {error}")))?;
        if BackupName::parse(&object.key).is_none_or(|(owner, _)| owner != name) {
            return Err(wrong(format!("`{}` is not an object of this backup", object.key)).into());
        }
        objects.push(object);
        if objects.len() > OBJECTS_MAX {
            return Err(wrong(format!("it has more than {OBJECTS_MAX} objects")).into());
        }
    }
}
