//! What the manifest of a segment is made of.

use serde_json::Value;

use crate::domain::manifest::{Identity, Manifest, ObjectRecord, Sizes};
use crate::domain::names::BackupName;
use crate::domain::recipient::Recipient;
use crate::ops::log_history::NewestSegment;
use crate::ops::manifest_builder;
use crate::ops::manifest_builder::ManifestContent;
use crate::stage::ChainStats;
use crate::wire::AppContext;

/// What a segment's manifest is made of.
pub(super) struct SegmentContent<'a> {
    pub(super) name: &'a BackupName,
    pub(super) before: Option<&'a NewestSegment>,
    pub(super) identity: Identity,
    pub(super) capture: Value,
    pub(super) data: ObjectRecord,
    pub(super) stats: ChainStats,
}

impl SegmentContent<'_> {
    /// Without what only the run knows.
    pub(super) fn manifest(self, app: &AppContext, keys: Vec<Recipient>) -> Manifest {
        let SegmentContent { name, before, identity, capture, data, stats } = self;
        let links = before.map(|before| (before.base, before.id));
        let objects = vec![data];
        manifest_builder::new(
            app,
            name,
            ManifestContent {
                links,
                identity,
                capture,
                sizes: Sizes::of(&objects),
                objects,
                stats,
                keys,
            },
        )
    }
}
