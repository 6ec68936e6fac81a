//! bkp backs up a live ledger stack and proves that the backups restore.
//!
//! # Promises
//!
//! 1. A backup exists if and only if its manifest exists: objects first, manifest last, both
//!    create-only. Anything else in a store is garbage.
//! 2. Exit 0 means: captured consistently, stored durably, confirmed by the store in size and
//!    SHA-256, manifest visible, ledger told if there is one.
//! 3. Nothing is ever overwritten: the same key twice is a conflict.
//! 4. A restore needs the manifest, the objects and one key; not today's configuration. It can be
//!    done by hand, as `bkp-format(5)` says.
//! 5. Memory is bounded, whatever the size of the source: a fixed number of frames, and 16 bytes per
//!    block for each of a few block maps. A backup stages nothing on disk, except that an export of tables
//!    works on a private copy of the database, and an increment on the rows of the last full export.
//! 6. Killing bkp at any instruction leaves either a whole backup or none, and no lock that outlives
//!    its lease.
//! 7. The bucket is untrusted input: not one unauthenticated byte reaches a restore target, and no
//!    name in a backup can lead out of it.
//! 8. What was recorded cannot be quietly changed: every manifest's digest is in the ledger, which
//!    only ever grows.
//!
//! # The map
//!
//! Layers, from the top. What stands in a line imports only what stands below it, and nobody imports the line
//! it stands in or one above; `tests/it/house/architecture.rs` computes that from the sources.
//!
//! ```text
//! main
//! cli, ui                        what was typed, what is shown
//! cmd                            the subcommands: plan, then apply, then report
//! ops                            what subcommands share: locks and records of a run, what of a store is authentic
//! wire                           from names to adapters, with decorators
//! catalog, config                a store seen as backups; TOML, environment and flags as settings
//! source                         what is backed up: contract, adapters, table of them (`kinds`)
//! pipeline                       the chain, forwards and backwards
//! archive                        the tar inside a backup
//! ledger, notify, stage          runs on record, and leases; news for people; what bytes pass through
//! keys, store                    who can open a backup; where it is: contract, adapters, table
//! cache, domain, rt              domain: plain data and rules, without I/O and without cryptography
//! concurrent, fs                 many questions at a time; staged files, scratch folders, renames, locks
//! blockfile, ctx, exit, table    table: how adapters read their part of the configuration
//! aws, error, process, version
//! ```
//!
//! A new source, store, recipient or channel is one folder or file, and one line in the `kinds.rs` beside it.
//! Third-party crates have rooms of their own, which `tests/it/house/tidy.rs` holds.
//!
//! # Where to start reading
//!
//! [`cmd::snapshot::run`] is the whole story in one function. From there [`pipeline::ObjectBuilder`] shows
//! how a chain is built, and `source/tigerbeetle/capture` how a file is captured while a replica
//! writes it. The way back begins at [`cmd::restore::run`] and ends in
//! `source/tigerbeetle/restore/assemble.rs`.

pub mod archive;
pub mod aws;
pub mod blockfile;
pub mod cache;
pub mod catalog;
pub mod cli;
pub mod cmd;
pub mod concurrent;
pub mod config;
pub mod ctx;
pub mod domain;
pub mod error;
pub mod exit;
pub mod fs;
pub mod keys;
pub mod ledger;
pub mod notify;
pub mod ops;
pub mod pipeline;
pub mod process;
pub mod rt;
pub mod source;
pub mod stage;
pub mod store;
pub mod table;
pub mod ui;
pub mod version;
pub mod wire;
