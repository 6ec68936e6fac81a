//! `bkp logs --push` and `--fetch`: hooks by which a server hands over the files of its log, and asks for them
//! when it recovers.
//!
//! A run of these takes no lease, writes no manifest and tells the ledger nothing: a file is whole by itself, and
//! made once. The job `logs` says later, in one manifest, what has arrived.

use std::path::PathBuf;

pub(super) mod fetch;
pub(super) mod push;
mod spool;

/// What a server asks of a hook.
#[derive(Debug, Clone)]
pub enum Request {
    /// Archive the file at this path.
    Push(PathBuf),
    /// Bring the file of this name to this path.
    Fetch {
        /// The name that the server has for it.
        file: String,
        /// Where it wants it.
        target: PathBuf,
    },
}

/// What a hook was asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// The source's name.
    pub source: String,
    /// What to do.
    pub request: Request,
}

/// Does what a server asks for.
///
/// # Errors
/// Whatever keeps it from being done; then the server has to ask again. A file that is proven not to be archived
/// is no error: the report's outcome is [`Kind::NotFound`](crate::error::Kind::NotFound).
pub fn run(
    app: &crate::wire::AppContext,
    options: &Options,
) -> anyhow::Result<crate::ops::report::Report> {
    match &options.request {
        Request::Push(path) => push::run(app, &options.source, path),
        Request::Fetch { file, target } => fetch::run(app, &options.source, (file, target)),
    }
}
