//! What a session of the engine is opened with.

use std::path::Path;

use crate::ctx::Ctx;
use crate::domain::text::plain;
use crate::error::Kind;
use crate::source::duckdb::engine::limits::EngineLimits;

/// How a database is opened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SessionOptions<'a> {
    /// A folder of ours, in which the engine lives: with the database, and what does not fit into memory.
    /// Without one it has no file at all.
    pub(crate) folder: Option<&'a Path>,
    /// What a failure means.
    pub(crate) kind: Kind,
    /// What the engine may take.
    pub(crate) limits: EngineLimits,
    /// The run, whose end is also that of a statement.
    pub(crate) ctx: Option<&'a Ctx>,
}

/// Which database is opened.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct DatabaseTarget<'a> {
    /// The file; in memory if there is none.
    pub(crate) file: Option<&'a Path>,
    pub(crate) write: bool,
    /// The storage version of a file that is made.
    pub(crate) storage_version: Option<&'a str>,
    /// Others beside it, by name, to be written.
    pub(crate) beside: &'a [(&'a str, &'a Path)],
    /// Whether statements of ours read and write files in the folder. Where others run there are none.
    pub(crate) files: bool,
    /// Whether its log is put into the file first.
    pub(crate) settle: bool,
}

impl DatabaseTarget<'_> {
    /// What it is, for messages.
    pub(super) fn described(&self) -> String {
        let path = self.file.map(|path| plain(&path.display().to_string()));
        path.unwrap_or_else(|| "a database in memory".to_owned())
    }
}
