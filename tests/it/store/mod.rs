//! Where backups are: what stores promise, and what is promised of them.

mod catalog;
mod contract_store;
mod copies;
mod damage;
mod mirrored_stores;
mod resealed;
mod resealed_sources;
mod s3;
mod sweep;
mod two_stores;
