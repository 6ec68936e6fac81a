//! `bkp keys`.

use std::path::PathBuf;

use clap::Subcommand;

use crate::cmd::keys::NewKey;
use crate::cmd::{key_inventory, keys, rewrap};
use crate::ops::report::Report;
use crate::wire::AppContext;

/// Generate key files, show what each key opens, and open existing backups with new keys
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: see bkp(1).\nExample: bkp keys generate /etc/bkp/key")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Generate a key; never overwrites an existing file
    #[command(after_help = "Exit codes: 12 if the file exists; all of them: see bkp(1).\n\
                            Example: bkp keys generate /etc/bkp/key")]
    Generate {
        /// Where to write it [default: every configured file of that kind that does not exist]
        #[arg(value_name = "PATH")]
        path: Option<PathBuf>,

        /// Generate the key that this host signs its backups with, and print the public one
        #[arg(long, conflicts_with = "age")]
        signing: bool,

        /// Generate a private key of age, and print the public one, for hosts that are not to open backups
        #[arg(long)]
        age: bool,

        /// Show what would be done, without doing it
        #[arg(long)]
        dry_run: bool,
    },

    /// List the keys of the configuration and of all backups, and how many each opens
    ///
    /// Counts what manifests say, and the envelopes beside them that a key at hand or a trusted signer proves.
    #[command(after_help = "Exit codes: see bkp(1).\nExample: bkp keys list")]
    List {
        /// Only the backups of this source
        #[arg(value_name = "SOURCE")]
        source: Option<String>,
    },

    /// Show the age and state of every configured key
    #[command(
        after_help = "Exit codes: 18 if a key is disabled, about to be deleted or unusable; all of them: see bkp(1).\n\
                            Example: bkp keys status"
    )]
    Status,

    /// Let new recipients open existing backups, in every store
    ///
    /// Adds a small object beside each backup that a recipient cannot open yet. Backups themselves do not change,
    /// and no key is revoked. A key that opens the backups now has to be configured, or passed with --key.
    #[command(
        after_help = "Exit codes: 3 if a backup was not rewrapped; all of them: see bkp(1).\n\
                            Example: bkp keys rewrap --to kms:alias/backup-2027"
    )]
    Rewrap {
        /// Recipient that is to open the backups; may be repeated [default: every configured recipient]
        #[arg(long, value_name = "RECIPIENT")]
        to: Vec<String>,

        /// Only the backups of this source
        #[arg(value_name = "SOURCE")]
        source: Option<String>,

        /// Show how many backups lack a recipient, without writing anything
        #[arg(long)]
        dry_run: bool,
    },
}

impl Args {
    /// Runs the subcommand.
    ///
    /// # Errors
    /// What it fails with.
    pub(super) fn run(self, app: &AppContext) -> anyhow::Result<Report> {
        match self.command {
            Command::Generate { path, signing, age, dry_run } => {
                let kind = match (signing, age) {
                    (true, _) => NewKey::Signing,
                    (false, true) => NewKey::Age,
                    (false, false) => NewKey::File,
                };
                keys::run(app, &keys::Options { path, kind, dry_run })
            }
            Command::List { source } => key_inventory::list(app, source.as_deref()),
            Command::Status => key_inventory::status(app),
            Command::Rewrap { to, source, dry_run } => {
                rewrap::run(app, &rewrap::Options { to, source, dry_run })
            }
        }
    }
}
