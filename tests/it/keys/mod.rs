//! Who can open a backup.

mod age;
mod keyset;
mod kms;
mod recipients;
mod rewrap;
