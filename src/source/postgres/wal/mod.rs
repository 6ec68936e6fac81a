//! Files of the write-ahead log, as PostgreSQL 15 to 18 name and write them. Nothing here opens a file.
//!
//! - [`lsn`]: positions in the log.
//! - [`name`]: names of files, and which positions a segment holds.
//! - [`history`]: timelines, and which files a recovery along them reads.
//! - [`scan`]: what a segment says of itself, from its [`records`]; those are read from [`page`]s by [`body`], and
//!   understood by [`event`].
//! - [`flaw`]: what can be wrong with a segment.
//!
//! Whoever can write to the folder that files are taken from writes them, so a file is read as one that anybody may
//! have written: memory does not depend on what it says, beyond a bounded number of names.

pub mod event;
pub mod flaw;
pub mod history;
pub mod lsn;
pub mod name;
pub mod records;
pub mod scan;

mod body;
mod page;
