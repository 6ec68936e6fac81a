//! Who can open a backup.

mod kms;
mod recipients;
mod rewrap;
