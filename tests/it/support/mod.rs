//! Everything that tests need and that is no test: beds, servers, engines that know nothing of bkp, and faults.
//! It knows no test; tests know it, and not each other.

pub(crate) mod bed;
pub(crate) mod books;
pub(crate) mod by_hand;
pub(crate) mod cleanup;
pub(crate) mod duck;
pub(crate) mod fault;
pub(crate) mod headroom;
pub(crate) mod iam;
pub(crate) mod jobs;
pub(crate) mod kms;
pub(crate) mod logs;
pub(crate) mod machine;
pub(crate) mod memory;
pub(crate) mod planted;
pub(crate) mod ports;
pub(crate) mod postgres;
pub(crate) mod s3;
pub(crate) mod schema;
pub(crate) mod sealed;
pub(crate) mod second;
pub(crate) mod smtp;
pub(crate) mod status;
pub(crate) mod tb;
pub(crate) mod trace;
pub(crate) mod wait;
pub(crate) mod web;
