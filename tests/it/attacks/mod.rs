//! Attacks by someone who can write to the bucket or the database, or has an account on the host, but
//! has no key: one per test, in as few lines as possible.

mod bucket;
mod engine;
mod host;
mod logs;
mod manifests;
mod records;
