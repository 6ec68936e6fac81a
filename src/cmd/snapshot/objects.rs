//! The objects of a backup: one archive of a snapshot, many files of an export.

use super::options::Options;
use super::plan::Onto;
use crate::domain::backup_kind::BackupKind;
use crate::domain::manifest::ObjectRecord;
use crate::error::{Fault, Kind};
use crate::ops::scratch;
use crate::pipeline::ObjectBuilder;
use crate::pipeline::objects::Objects;
use crate::source::{CaptureRequest, Captured, ExportRequest, ReplicaRequest, Source};
use crate::stage::ChainStats;
use crate::store::Role;
use crate::wire::AppContext;

/// Makes the objects that hold the source's data.
///
/// # Errors
/// What source, chain and store fail with.
pub(super) fn make(
    app: &AppContext,
    options: &Options,
    source: &dyn Source,
    builder: &ObjectBuilder<'_>,
    onto: Option<Onto<'_>>,
) -> anyhow::Result<(Vec<ObjectRecord>, ChainStats, Captured)> {
    let mode = options.mode.clone();
    match options.kind {
        BackupKind::Snapshot => {
            let parent = onto.map(|onto| onto.map);
            let request = CaptureRequest { scope: builder.name.scope, mode, parent };
            let (data, trail, captured) =
                builder.archive(Role::Data, |out| source.capture(&request, out, &app.ctx))?;
            Ok((vec![data], trail, captured))
        }
        BackupKind::Export => {
            let work = scratch::make(app, scratch::Use::Work)?;
            let (chain, record) = match onto {
                Some(onto) => (onto.chain, Some(onto.map.record)),
                None => (Vec::new(), None),
            };
            let request = ExportRequest { mode, chain: &chain, record, scratch: work.folder() };
            let mut objects = Objects::new(builder);
            let captured = source.export(&request, &mut objects, &app.ctx)?;
            let (objects, trail) = objects.finish()?;
            Ok((objects, trail, captured))
        }
        BackupKind::Replica => {
            let chain = onto.map(|onto| onto.chain).unwrap_or_default();
            let request = ReplicaRequest { id: builder.name.id, chain: &chain };
            let mut objects = Objects::new(builder);
            let captured = source.replicate(&request, &mut objects, &app.ctx)?;
            let (objects, trail) = objects.finish()?;
            Ok((objects, trail, captured))
        }
        BackupKind::Log => {
            let fault = Fault::new(Kind::Usage, "a log is shipped segment by segment");
            Err(fault.hint("use `bkp logs`").into())
        }
    }
}
