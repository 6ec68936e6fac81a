//! Parts of a sealed object, for whoever needs little of a large one.
//!
//! Each segment is authentic by itself: by its key, its number, and whether it is the last one. So no digest of
//! the whole object is needed to believe what was read.

use std::io::{self, Read as _};
use std::ops::Range;

use super::reader::BackupReader;
use super::roles::object_name;
use super::stored::{StoredReader, lost};
use crate::ctx::Ctx;
use crate::domain::limits::{SEAL_HEADER_BYTES_MAX, SEGMENT_BYTES};
use crate::domain::manifest::ObjectRecord;
use crate::error::{Fault, FirstError, Kind};
use crate::stage::seal::segments::Segments;
use crate::stage::seal::{ObjectName, Opener, Prelude, open_header};

/// The only stage of an object of which parts can be read: what is compressed has no bytes of known places, and
/// what is not sealed is proven by the digest of all of it.
const SEALED: [&str; 1] = ["seal"];

/// An object, ready to be read in parts.
pub struct ObjectParts<'r> {
    backup: &'r BackupReader<'r>,
    object: &'r ObjectRecord,
    prelude: Prelude,
    ctx: &'r Ctx,
}

impl std::fmt::Debug for ObjectParts<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ObjectParts").field("object", &self.object.key).finish_non_exhaustive()
    }
}

impl BackupReader<'_> {
    /// The object with this extension, to read parts of it; nothing if it can only be read as a whole.
    ///
    /// # Errors
    /// [`Kind::Integrity`] if the backup has no such object, or it does not begin as it should, or is of another
    /// size; what the store says.
    pub fn parts<'r>(
        &'r self,
        extension: &str,
        ctx: &'r Ctx,
    ) -> anyhow::Result<Option<ObjectParts<'r>>> {
        let object = self.object_named(extension, ctx)?;
        if object.stages != SEALED {
            return Ok(None);
        }
        let first_error = FirstError::default();
        let header = 0..SEAL_HEADER_BYTES_MAX as u64 + SEGMENT_BYTES as u64;
        let mut input = self.part(object, header, ctx, &first_error)?;
        let name = object_name(self.manifest().id, &object.key);
        let prelude = open_header(&mut input, ObjectName::Whole(&name))
            .map_err(|error| first_error.or(error))?;
        let bytes = prelude.object_bytes(object.plaintext.bytes);
        if bytes != object.bytes {
            let message = format!("object `{}` is not of the size of its content", object.key);
            return Err(Fault::new(Kind::Integrity, message).into());
        }
        Ok(Some(ObjectParts { backup: self, object, prelude, ctx }))
    }

    /// Some of the stored bytes, which nothing has checked yet.
    fn part(
        &self,
        object: &ObjectRecord,
        range: Range<u64>,
        ctx: &Ctx,
        first_error: &FirstError,
    ) -> anyhow::Result<StoredReader> {
        let input = self.store().open(&object.key, Some(range));
        let input = input.map_err(|error| lost(error, &object.key))?;
        Ok(StoredReader { input, ctx: ctx.clone(), first_error: first_error.clone() })
    }
}

impl ObjectParts<'_> {
    /// Bytes of its content.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.object.plaintext.bytes
    }

    /// Reads `part` of the content, and what else is in its segments, and shows it to `place` in its order, each
    /// piece with the place of its first byte. Only authentic bytes are shown.
    ///
    /// # Errors
    /// [`Kind::Integrity`] if a segment is not authentic, or missing; what the store and `place` say.
    pub fn read(
        &self,
        part: &Range<u64>,
        place: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>,
    ) -> anyhow::Result<()> {
        let Segments { first, stored, plain } = self.prelude.segments(part, self.bytes());
        if plain.is_empty() {
            return Ok(());
        }
        let first_error = FirstError::default();
        let input = self.backup.part(self.object, stored, self.ctx, &first_error)?;
        let name = object_name(self.backup.manifest().id, &self.object.key);
        let key = self.backup.object_key(&self.prelude, &name)?;
        let opener = Opener::with_key(input, &self.prelude, &key, first_error.clone());
        let mut opener = opener.from_segment(first);
        let mut buffer = vec![0; SEGMENT_BYTES];
        let mut at = plain.start;
        while at < plain.end {
            let left = usize::try_from(plain.end - at).unwrap_or(usize::MAX);
            let room = left.min(SEGMENT_BYTES);
            let piece = buffer.get_mut(..room).unwrap_or_default();
            opener.read_exact(piece).map_err(|error| first_error.or(error))?;
            place(at, piece)?;
            at += room as u64;
        }
        Ok(())
    }
}
