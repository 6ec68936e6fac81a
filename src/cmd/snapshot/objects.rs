//! The objects of a backup: one archive of a snapshot, many files of an export.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

use anyhow::Context as _;

use super::plan::Onto;
use super::{Made, Options};
use crate::domain::manifest::ObjectRecord;
use crate::pipeline::Recipe;
use crate::pipeline::objects::Objects;
use crate::source::{CaptureRequest, Captured, ExportRequest, Source};
use crate::stage::Trail;
use crate::wire::House;

/// Makes the objects that hold the source's data.
///
/// # Errors
/// What source, chain and store fail with.
pub(super) fn make(
    house: &House,
    options: &Options,
    source: &dyn Source,
    recipe: &Recipe<'_>,
    onto: Option<Onto<'_>>,
) -> anyhow::Result<(Vec<ObjectRecord>, Trail, Captured)> {
    let mode = options.mode.clone();
    match options.made {
        Made::Snapshot => {
            let parent = onto.map(|onto| onto.map);
            let request = CaptureRequest { scope: recipe.name.scope, mode, parent };
            let (data, trail, captured) =
                recipe.archive(|out| source.capture(&request, out, &house.ctx))?;
            Ok((vec![data], trail, captured))
        }
        Made::Export => {
            let work = Work::make(house, &options.source)?;
            let (chain, record) = match onto {
                Some(onto) => (onto.chain, Some(onto.map.record)),
                None => (Vec::new(), None),
            };
            let request = ExportRequest { mode, chain: &chain, record, scratch: &work.0 };
            let mut objects = Objects::new(recipe);
            let captured = source.export(&request, &mut objects, &house.ctx)?;
            let (objects, trail) = objects.finish();
            Ok((objects, trail, captured))
        }
    }
}

/// A folder of the source's own in the state directory. The lock of the job is held: what is in it
/// was left by a run that was killed.
struct Work(PathBuf);

impl Work {
    fn make(house: &House, source: &str) -> anyhow::Result<Work> {
        let path = house.settings.state_dir.join("work").join(source);
        let empty = || -> std::io::Result<()> {
            if path.exists() {
                std::fs::remove_dir_all(&path)?;
            }
            DirBuilder::new().recursive(true).mode(0o700).create(&path)
        };
        empty().with_context(|| format!("cannot make the folder {}", path.display()))?;
        Ok(Work(path))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // The next run to this source tries again.
        let _left_behind = std::fs::remove_dir_all(&self.0);
    }
}
