//! Backups of several objects: an export has one for each table, so that other programs can read
//! them where they are stored.

use std::io::Read;

use super::{BackupReader, Recipe, SinkWriter, record};
use crate::config::settings::Compression;
use crate::ctx::Ctx;
use crate::domain::manifest::ObjectRecord;
use crate::error::{Blame, Fault, Kind};
use crate::source::{EntrySink, ObjectBody, ObjectSink};
use crate::stage::digest::{Deposit, Digest};
use crate::stage::hop::Hop;
use crate::stage::{Measure, Sink, Trail};
use crate::store::Role;

/// Chunks that wait for the thread that hashes and stores.
const HOP_DEPTH: usize = 8;

/// Makes the objects of one backup, one after the other.
#[derive(Debug)]
pub struct Objects<'a> {
    recipe: &'a Recipe<'a>,
    made: Vec<ObjectRecord>,
    busy: Trail,
}

impl<'a> Objects<'a> {
    /// No object yet; all will be made by this recipe.
    #[must_use]
    pub fn new(recipe: &'a Recipe<'a>) -> Self {
        Objects { recipe, made: Vec::new(), busy: Trail::default() }
    }

    /// What was made, and how long each stage was busy with all of it.
    #[must_use]
    pub fn finish(self) -> (Vec<ObjectRecord>, Trail) {
        (self.made, self.busy)
    }

    fn note(&mut self, trail: &Trail) {
        for Measure { stage, busy, .. } in &trail.0 {
            let known = self.busy.0.iter_mut().find(|measure| measure.stage == *stage);
            if let Some(measure) = known {
                measure.busy += *busy;
            } else {
                self.busy.0.push(Measure { stage, bytes: 0, sha256: None, busy: *busy });
            }
        }
    }

    /// The chain of an object that is stored as it is.
    fn plain(&self, key: &str) -> anyhow::Result<Box<dyn Sink>> {
        let upload = self.recipe.store.create(key, &self.recipe.labels(Role::Data))?;
        let stored = Box::new(Deposit::new("stored", upload));
        Ok(Box::new(Digest::new("plaintext", Box::new(Hop::new("store", HOP_DEPTH, stored)?))))
    }
}

impl ObjectSink for Objects<'_> {
    fn object(
        &mut self,
        role: &str,
        name: &str,
        sealed: bool,
        body: &mut ObjectBody<'_>,
    ) -> anyhow::Result<()> {
        let extension = if sealed { format!("{name}.enc") } else { name.to_owned() };
        let key = self.recipe.name.key(&extension);
        let sink = if sealed {
            self.recipe.chain(&key, Role::Data, Compression::None)?
        } else {
            self.plain(&key)?
        };
        let blame = Blame::default();
        let mut out = SinkWriter { sink, blame: blame.clone() };
        body(&mut out).map_err(|error| blame.or(error))?;
        let trail = out.sink.finish()?;
        self.made.push(record(role, key, &trail, sealed.then_some("seal").into_iter())?);
        self.note(&trail);
        Ok(())
    }

    fn archive(
        &mut self,
        push: &mut dyn FnMut(&mut dyn EntrySink) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        // It holds Parquet, which is compressed.
        let recipe = Recipe { compression: Compression::None, ..*self.recipe };
        let (object, trail, ()) = recipe.archive(Role::Index, |out| push(out))?;
        self.made.push(object);
        self.note(&trail);
        Ok(())
    }
}

impl BackupReader<'_> {
    /// Shows the content of the object with this extension to `look`. When this returns without an
    /// error, every byte was that of the manifest.
    ///
    /// # Errors
    /// [`Kind::Integrity`] if the backup has no such object; as [`BackupReader::entries`].
    pub fn named(
        &self,
        extension: &str,
        ctx: &Ctx,
        look: &mut dyn FnMut(&mut dyn Read) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let key = self.manifest.name().key(extension);
        let found = self.manifest.objects.iter().find(|object| object.key == key);
        let object = found.ok_or_else(|| {
            Fault::new(Kind::Integrity, format!("the manifest does not name the object `{key}`"))
        })?;
        self.read(object, ctx, &mut |input, _blame| look(input))
    }
}
