//! `bkp verify`.

use std::path::PathBuf;

use clap::ValueEnum;

use super::flags::SelectArgs;
use crate::cmd::verify::{Options, Which};
use crate::cmd::{ledger_diff, verify_logs};
use crate::ops::verify_level::VerifyLevel;

/// Check a backup, from "it is there" to "it starts", or the ledger against the stores
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag that was typed")]
#[command(after_help = "Exit codes: 13 if a check finds damage; all of them: see bkp(1).\n\
                        Example: bkp verify books --level drill, or bkp verify --all for every backup")]
pub(super) struct Args {
    #[command(flatten)]
    select: SelectArgs,

    /// Every backup of SOURCE, or of the store, one after the other
    #[arg(long, group = "backup", conflicts_with_all = ["latest", "id", "at"])]
    all: bool,

    /// The exports of SOURCE, not its snapshots
    #[arg(long, conflicts_with_all = ["all", "ledger", "logs"])]
    from_export: bool,

    /// How deep to look; each level includes those before it
    #[arg(long, value_enum, default_value_t = LevelArg::Digest)]
    level: LevelArg,

    /// Folder that a drill restores to, and that a decode of an export unpacks in [default: one in the state directory]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,

    /// The log of SOURCE instead: that its segments follow each other, and every one reads; with --level
    /// drill also that a random moment of it restores and its server starts
    #[arg(long, requires = "source", conflicts_with_all = ["latest", "id", "at", "all", "ledger"])]
    logs: bool,

    /// Compare the ledger with every configured store instead: what was changed, removed or planted.
    /// Needs no key
    #[arg(long, group = "backup", conflicts_with_all = ["source", "latest", "id", "all", "level", "scratch"])]
    ledger: bool,

    /// Record the authentic backups that the ledger does not have; needs a key
    #[arg(long, requires = "ledger", conflicts_with_all = ["source", "latest", "id", "all"])]
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
    /// Manifest and objects are there, authentic, and of the right size
    Exists,
    /// Every stored byte has the SHA-256 that the manifest names
    Digest,
    /// Everything decrypts, decompresses, and refers only to what is there; every row of an export is the one that was exported
    Decode,
    /// The real engine starts on a restored copy and answers as it did at capture
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
            Which::All(args.select.source())
        } else {
            Which::One(args.select.into())
        };
        Options { which, from_export: args.from_export, level, scratch: args.scratch }
    }
}
