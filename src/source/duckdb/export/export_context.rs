//! An export in progress.

use std::path::{Path, PathBuf};

use crate::ctx::Ctx;
use crate::source::ResourceLimits;
use crate::source::duckdb::engine::Session;
use crate::source::duckdb::schema::table_filter::TableFilter;

/// What is exported, and from where.
pub(crate) struct ExportContext<'a> {
    pub(crate) session: Session,
    pub(crate) storage_version: String,
    pub(crate) wanted: &'a TableFilter,
    /// Whether tables are sealed; keys and hashes always are.
    pub(crate) sealed: bool,
    /// What the engine may take.
    pub(crate) share: ResourceLimits,
    /// The file that the session has open.
    pub(crate) file: PathBuf,
    /// A folder of ours.
    pub(crate) scratch: &'a Path,
    pub(crate) ctx: &'a Ctx,
    /// The keys of the rows' hashes, once they are chosen.
    pub(crate) row_keys: String,
    /// Groups of rows that the index has.
    pub(crate) groups_recorded: usize,
}
