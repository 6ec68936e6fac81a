//! What somebody can do who writes the bucket or the database, or has an account on the host, but
//! has no key: each test is one attack, with the fewest lines that make the point.

mod bucket;
mod engine;
mod host;
mod logs;
mod manifests;
mod records;
