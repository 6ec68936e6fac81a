//! Files and folders of bkp's own: files that appear only once complete, scratch folders, renames that
//! are undone together, and locks that are released with their process.

pub mod lock;
pub mod rename_transaction;
pub mod scratch_dir;
pub mod staged_file;
