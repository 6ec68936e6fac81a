//! `bkp verify`.

use std::path::PathBuf;

use clap::ValueEnum;

use super::flags::{SelectArgs, StoreAtArgs, ThawArgs};
use crate::cmd::verify::{Options, VerifyTarget};
use crate::cmd::{ledger_diff, verify_logs};
use crate::domain::verify_level::VerifyLevel;

/// Check a backup, from its existence to a restore drill, or the ledger against the stores
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag that was typed")]
#[command(after_help = "Exit codes: 13 if a check finds damage; all of them: see bkp(1).\n\
                        Example: bkp verify books --level drill, or bkp verify --all for every backup")]
pub(super) struct Args {
    #[command(flatten)]
    select: SelectArgs,

    /// Every backup of SOURCE, or of the store
    #[arg(long, group = "backup", conflicts_with_all = ["latest", "id", "at"])]
    all: bool,

    /// Use the exports of SOURCE instead of its snapshots
    #[arg(long, conflicts_with_all = ["all", "ledger", "logs"])]
    from_export: bool,

    /// Depth of the check; each level includes the previous ones
    #[arg(long, value_enum, default_value_t = LevelArg::Digest)]
    level: LevelArg,

    /// Folder for restores of a drill and for unpacking exports [default: in the state directory]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,

    #[arg(long, help = "Ask for objects in GLACIER or DEEP_ARCHIVE that have to be read; without it they are skipped", conflicts_with_all = ["logs", "ledger"])]
    thaw: bool,

    #[command(flatten)]
    thaw_options: ThawArgs,

    /// Check the log of SOURCE instead: its segments are consecutive and readable; with --level drill, a
    /// random moment is also restored and its server started
    #[arg(long, requires = "source", conflicts_with_all = ["latest", "id", "at", "all", "ledger"])]
    logs: bool,

    /// Compare the ledger with every configured store instead, to find changed, removed or planted
    /// backups; needs no key
    #[arg(long, group = "backup", conflicts_with_all = ["source", "latest", "id", "all", "level", "scratch"])]
    ledger: bool,

    #[command(flatten)]
    pub(super) store_at: StoreAtArgs,

    /// Record authentic backups missing from the ledger; needs a key
    #[arg(long, requires = "ledger", conflicts_with_all = ["source", "latest", "id", "all", "store_at"])]
    record: bool,
}

impl Args {
    /// What is to be compared, if it is not one backup that is to be checked.
    pub(super) fn ledger(&self) -> Option<ledger_diff::Options> {
        self.ledger.then_some(ledger_diff::Options { record: self.record })
    }

    /// The log that is to be verified.
    pub(super) fn logs(&self) -> Option<verify_logs::Options> {
        let source = self.select.source_alone().filter(|_source| self.logs)?.to_owned();
        Some(verify_logs::Options {
            source,
            drill: self.level == LevelArg::Drill,
            scratch: self.scratch.clone(),
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LevelArg {
    /// Manifest and objects exist, are authentic and have the right size
    Exists,
    /// Every stored object has the SHA-256 in the manifest
    Digest,
    /// Everything decrypts, decompresses and is complete; every row of an export matches what was exported
    Decode,
    /// The real engine starts on a restored copy and answers as at capture
    Drill,
}

impl From<LevelArg> for VerifyLevel {
    fn from(level: LevelArg) -> VerifyLevel {
        match level {
            LevelArg::Exists => VerifyLevel::Exists,
            LevelArg::Digest => VerifyLevel::Digest,
            LevelArg::Decode => VerifyLevel::Decode,
            LevelArg::Drill => VerifyLevel::Drill,
        }
    }
}

impl From<Args> for Options {
    fn from(args: Args) -> Options {
        let level = args.level.into();
        let which = if args.all {
            VerifyTarget::All(args.select.source())
        } else {
            VerifyTarget::One(args.select.into())
        };
        let thaw = args.thaw.then(|| args.thaw_options.options(false));
        Options { which, from_export: args.from_export, level, thaw, scratch: args.scratch }
    }
}
