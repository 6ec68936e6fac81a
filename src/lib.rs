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
//!    block for each of a few block maps. Nothing is staged on disk, except that an export of tables
//!    works on a private copy of the database.
//! 6. Killing bkp at any instruction leaves either a whole backup or none, and no lock that outlives
//!    its lease.
//! 7. The bucket is untrusted input: not one unauthenticated byte reaches a restore target, and no
//!    name in a backup can lead out of it.
//! 8. What was recorded cannot be quietly changed: every manifest's digest is in the ledger, which
//!    only ever grows.
//!
//! # The map
//!
//! Data flows one way:
//!
//! ```text
//! cli -> config -> wire -> cmd -> catalog, pipeline, ledger -> source | store | keys
//!                           |                       -> stage, archive
//!                           +-> Report -> ui -> exit code
//! ```
//!
//! Commands know neither clap nor an adapter, sources know of the chain what they push into
//! ([`source::EntrySink`]) and read from ([`pipeline::BackupReader`]), and `tests/it/tidy.rs` holds
//! those walls, and each third-party crate in its room.
//!
//! - [`cli`], [`config`], [`ui`]: what was typed, what it means here, what is shown.
//! - [`wire`]: goes from names to adapters and stacks decorators.
//! - [`cmd`]: one file per subcommand: plan, then apply, then report.
//! - [`catalog`]: a store seen as backups. [`pipeline`]: the chain, forwards and backwards.
//! - [`source`], [`store`], [`keys`]: each a contract, a table of adapters, and the adapters. A new
//!   one is one file and one line in the table.
//! - [`ledger`]: where runs are recorded, and the leases that keep them apart.
//! - [`tell`]: news for people, and programs around a run.
//! - [`stage`], [`archive`]: what bytes pass through. [`blockfile`]: files made of checksummed blocks.
//! - [`domain`]: plain data and rules, without I/O.
//! - [`ctx`], [`error`], [`exit`], [`lock`], [`draft`], [`cache`], [`process`], [`rt`], [`version`]:
//!   what every room needs.
//!   [`aws`]: what the S3 store and the KMS recipients share.
//!
//! # Where to start reading
//!
//! [`cmd::snapshot::run`] is the whole story in one function. From there [`pipeline::Recipe`] shows
//! how a chain is built, and `source/tigerbeetle/capture.rs` how a file is captured while a replica
//! writes it. The way back begins at [`cmd::restore::run`] and ends in
//! `source/tigerbeetle/assemble.rs`.

pub mod archive;
pub mod aws;
pub mod blockfile;
pub mod cache;
pub mod catalog;
pub mod cli;
pub mod cmd;
pub mod config;
pub mod ctx;
pub mod domain;
pub mod draft;
pub mod error;
pub mod exit;
pub mod keys;
pub mod ledger;
pub mod lock;
pub mod pipeline;
pub mod process;
pub mod rt;
pub mod source;
pub mod stage;
pub mod store;
pub mod tell;
pub mod ui;
pub mod version;
pub mod wire;
