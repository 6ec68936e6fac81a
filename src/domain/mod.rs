//! Plain data and rules: no I/O, no clock, no threads. Everything here can be tested by value.
//!
//! - [`id`]: what a backup is called.
//! - [`names`]: backup types, scopes and the grammar of keys in a store.
//! - [`manifest`]: what a backup says of itself, and the MAC that makes it trustworthy.
//! - [`event`]: what the ledger keeps of a run.
//! - [`chain`]: which backups a restore needs, oldest first.
//! - [`segment`]: which segments make up a change log, and from when to when it restores.
//! - [`retention`]: which backups are kept; [`schedule`]: when a job is due; [`record`]: what a store
//!   keeps of a run; [`health`]: what is wrong; [`calendar`]: days and weeks of a time zone.
//! - [`cost`]: what backups cost to keep; [`tier`]: when their data moves to a colder storage class,
//!   which is a matter of the age of their chains ([`chain_age`]); [`thaw`]: bringing it back.
//! - [`text`]: text of somebody else, as it may be shown; [`timestamp`]: times as people read them.
//! - [`limits`]: every bound, with the arithmetic behind it.

pub mod backup_kind;
pub mod calendar;
pub mod chain;
pub mod chain_age;
pub mod cost;
pub mod event;
pub mod health;
pub mod hex;
pub mod id;
pub mod key_facts;
pub mod limits;
pub mod log_file;
pub mod manifest;
pub mod names;
pub mod protection;
pub mod recipient;
pub mod record;
pub mod recorded_manifests;
pub mod resealed;
pub mod retention;
pub mod schedule;
pub mod segment;
pub mod text;
pub mod thaw;
pub mod tier;
pub mod timestamp;
pub mod verify_level;
