//! The objects of a backup: one archive of a snapshot, many files of an export.

use super::options::Options;
use super::plan::ParentChain;
use crate::cmd::key_set::StoredKeys;
use crate::domain::backup_kind::BackupKind;
use crate::domain::manifest::ObjectRecord;
use crate::error::{Fault, Kind};
use crate::ops::scratch;
use crate::pipeline::objects::Objects;
use crate::pipeline::{BackupReader, ObjectBuilder};
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
    (parent_chain, skipped): (Option<ParentChain<'_>>, Vec<BackupReader<'_>>),
) -> anyhow::Result<(Vec<ObjectRecord>, ChainStats, Captured)> {
    let mode = options.mode.clone();
    match options.kind {
        BackupKind::Snapshot => {
            let (chain, parent) = match parent_chain {
                Some(parent_chain) => (parent_chain.chain, Some(parent_chain.map)),
                None => (Vec::new(), None),
            };
            let scratch = || scratch::make(app, scratch::ScratchPurpose::Work);
            let scope = builder.name.scope;
            let keys = &StoredKeys::of(app, &options.source);
            let chain = &chain;
            let request = CaptureRequest { scope, mode, parent, chain, scratch: &scratch, keys };
            let (data, stats, captured) =
                builder.archive(Role::Data, |out| source.capture(&request, out, &app.ctx))?;
            Ok((vec![data], stats, captured))
        }
        BackupKind::Export => {
            let work = scratch::make(app, scratch::ScratchPurpose::Work)?;
            let (chain, record) = match parent_chain {
                Some(parent_chain) => (parent_chain.chain, Some(parent_chain.map.record)),
                None => (Vec::new(), None),
            };
            let request = ExportRequest {
                mode,
                chain: &chain,
                record,
                scratch: work.folder(),
                tools: &app.drill_tools(source.share()),
            };
            let mut objects = Objects::new(builder);
            let captured = source.export(&request, &mut objects, &app.ctx)?;
            let (objects, stats) = objects.finish()?;
            Ok((objects, stats, captured))
        }
        BackupKind::Replica => {
            let chain = parent_chain.map(|parent_chain| parent_chain.chain).unwrap_or_default();
            let request = ReplicaRequest { id: builder.name.id, chain: &chain, skipped: &skipped };
            let mut objects = Objects::new(builder);
            let captured = source.replicate(&request, &mut objects, &app.ctx)?;
            let (objects, stats) = objects.finish()?;
            Ok((objects, stats, captured))
        }
        BackupKind::Log => {
            let fault = Fault::new(Kind::Usage, "a log is shipped segment by segment");
            Err(fault.hint("use `bkp logs`").into())
        }
    }
}
