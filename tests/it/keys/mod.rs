//! Who can open a backup.

mod age;
mod kms;
mod recipients;
mod rewrap;
