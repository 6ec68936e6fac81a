//! Files and folders of ours: a file that is not there until it is whole, a scratch folder, renames that are undone
//! together, a lock that ends with its process.

pub mod lock;
pub mod rename_transaction;
pub mod scratch_dir;
pub mod staged_file;
