//! The command line: what can be typed, and nothing else.
//!
//! The files hold clap structs and their conversion into the `Options` of [`crate::cmd`], mostly one
//! file per subcommand; [`flags`] holds what several share. Nothing here opens a file or decides anything.

use std::ffi::OsString;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::cmd;
use crate::config::settings::Flags;
use crate::ops::exclusive_run::run_when_free;
use crate::ops::report::Report;
use crate::wire::AppContext;

mod docs;
pub mod flags;
mod hook;

mod catalog;
mod cleanup;
mod completions;
mod config;
mod doctor;
mod export;
mod init;
mod keys;
mod list;
mod logs;
mod pin;
mod replicate;
mod restore;
mod run;
mod snapshot;
mod status;
mod verify;

use flags::GlobalArgs;
pub use hook::{Ended, Hook};

/// What was typed.
#[derive(Debug, Parser)]
#[command(
    name = "bkp",
    about = "Backs up a live ledger stack and proves that the backups restore",
    propagate_version = false,
    after_help = "Exit codes: 0 done, 2 usage, 78 configuration; bkp(1) lists all of them.\n\
                  Example: bkp snapshot books && bkp verify books"
)]
pub struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::Args),
    Snapshot(snapshot::Args),
    Export(export::Args),
    Replicate(replicate::Args),
    Logs(logs::Args),
    List(list::Args),
    Verify(verify::Args),
    Restore(Box<restore::Args>),
    Catalog(catalog::Args),
    Run(run::Args),
    Status(status::Args),
    Cleanup(cleanup::Args),
    Pin(pin::PinArgs),
    Unpin(pin::UnpinArgs),
    Note(pin::NoteArgs),
    Keys(keys::Args),
    Config(config::Args),
    Doctor(doctor::Args),
    Completions(completions::Args),
    #[command(hide = true)]
    HelpFiles(docs::Args),
}

/// What was typed is no command to run: a mistake, or a question that clap answers itself.
#[derive(Debug)]
pub enum ParseExit {
    /// Help or version, for standard output.
    Answer(String),
    /// A mistake: the text for people (with colours if `coloured`), and its first paragraph alone.
    Mistake {
        /// The whole text, with colours.
        coloured: String,
        /// The whole text, without.
        plain: String,
        /// The first line, without its `error: `.
        summary: String,
    },
}

/// The names of all subcommands that are shown.
#[must_use]
pub fn commands() -> Vec<String> {
    let all = Cli::command();
    let shown = all.get_subcommands().filter(|command| !command.is_hide_set());
    shown.map(|command| command.get_name().to_owned()).collect()
}

/// Man page and completions: path below the repository, and content.
///
/// # Errors
/// None in practice: they are written to memory.
pub fn generated() -> std::io::Result<Vec<(&'static str, String)>> {
    docs::files(&Cli::command())
}

/// Reads the command line.
///
/// # Errors
/// [`ParseExit`] if there is nothing to run.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, ParseExit> {
    let command = Cli::command().version(crate::version::text());
    let matches = command.try_get_matches_from(arguments).and_then(|m| Cli::from_arg_matches(&m));
    matches.map_err(|error| {
        let coloured = error.render().ansi().to_string();
        let plain = error.render().to_string();
        let answers = [ErrorKind::DisplayHelp, ErrorKind::DisplayVersion];
        if answers.contains(&error.kind()) {
            return ParseExit::Answer(plain);
        }
        let first = plain.split("\n\n").next().unwrap_or_default();
        let words: Vec<&str> = first.split_whitespace().collect();
        // Here clap shows the help instead of saying what is wrong.
        let bare = error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
        let summary = if bare {
            "a subcommand or argument is missing".to_owned()
        } else {
            words.join(" ").trim_start_matches("error: ").to_owned()
        };
        ParseExit::Mistake { coloured, plain, summary }
    })
}

impl Cli {
    /// What the command line says about the configuration.
    #[must_use]
    pub fn flags(&self) -> Flags {
        self.global.flags()
    }

    /// Whether output is for programs.
    #[must_use]
    pub fn json(&self) -> bool {
        self.global.json
    }

    /// Whether only results, warnings and errors are wanted.
    #[must_use]
    pub fn quiet(&self) -> bool {
        self.global.quiet
    }

    /// How often `-v` was given.
    #[must_use]
    pub fn verbose(&self) -> u8 {
        self.global.verbose
    }

    /// Whether the operator has said yes already.
    #[must_use]
    pub fn yes(&self) -> bool {
        matches!(&self.command, Command::Restore(args) if args.yes())
    }

    /// Whether the command works without a configuration file, which it makes.
    #[must_use]
    pub fn needs_no_file(&self) -> bool {
        matches!(self.command, Command::Init(_))
    }

    /// Runs a command that needs no configuration; `None` if this is none.
    #[must_use]
    pub fn run_alone(&self) -> Option<anyhow::Result<Report>> {
        match &self.command {
            Command::Completions(args) => Some(completions::run(args, &Cli::command())),
            Command::HelpFiles(args) => Some(docs::run(args, &Cli::command())),
            Command::Config(args) => args.run_alone(),
            Command::Init(_)
            | Command::Snapshot(_)
            | Command::Logs(_)
            | Command::Export(_)
            | Command::Replicate(_)
            | Command::Catalog(_)
            | Command::List(_)
            | Command::Verify(_)
            | Command::Restore(_)
            | Command::Run(_)
            | Command::Status(_)
            | Command::Cleanup(_)
            | Command::Pin(_)
            | Command::Unpin(_)
            | Command::Note(_)
            | Command::Keys(_)
            | Command::Doctor(_) => None,
        }
    }

    /// Runs the command.
    ///
    /// # Errors
    /// What the command fails with.
    pub fn run(self, app: &AppContext) -> anyhow::Result<Report> {
        match self.command {
            Command::Init(args) => cmd::init::run(app, &args.into()),
            Command::Snapshot(args) => {
                let (patience, options) = (args.wait.patience(), args.into());
                backup(app, patience, &options)
            }
            Command::Export(args) => {
                let (patience, options) = (args.wait.patience(), args.into());
                backup(app, patience, &options)
            }
            Command::Replicate(args) => {
                if let Some(options) = args.copies() {
                    return cmd::replicate::run(app, &options);
                }
                let (patience, options) = (args.wait.patience(), args.into());
                backup(app, patience, &options)
            }
            Command::Catalog(args) => cmd::catalog_file::run(app, &args.into()),
            Command::Logs(args) => {
                if let Some(options) = args.hook() {
                    return cmd::log_files::run(app, &options);
                }
                let (patience, options) = (args.wait.patience(), args.into());
                ship(app, patience, &options)
            }
            Command::List(args) => list(&args.store_at.of(app), args),
            Command::Verify(args) => verify(&args.store_at.of(app), args),
            Command::Restore(args) => restore(&args.store_at.of(app), *args),
            Command::Run(args) => cmd::run::run(app, &args.into()),
            Command::Status(_) => cmd::status::run(app),
            Command::Cleanup(args) => cmd::cleanup::run(app, &args.into()),
            Command::Pin(args) => cmd::pin::run(app, &args.into()),
            Command::Unpin(args) => cmd::pin::run(app, &args.into()),
            Command::Note(args) => cmd::pin::run(app, &args.into()),
            Command::Keys(args) => args.run(app),
            Command::Config(args) => cmd::config::run(app, &args.into()),
            Command::Doctor(_) => cmd::doctor::run(app),
            Command::Completions(args) => completions::run(&args, &Cli::command()),
            Command::HelpFiles(args) => docs::run(&args, &Cli::command()),
        }
    }
}

fn list(app: &AppContext, args: list::Args) -> anyhow::Result<Report> {
    if let Some(options) = args.runs() {
        return cmd::runs::run(app, &options);
    }
    match (args.query(), args.events(), args.windows()) {
        (Some((sql, source)), _, _) => cmd::catalog_file::query(app, sql, source),
        (None, Some(options), _) => cmd::history::run(app, &options),
        (None, None, Some(source)) => cmd::windows::run(app, source),
        (None, None, None) => cmd::list::run(app, &args.into()),
    }
}

fn verify(app: &AppContext, args: verify::Args) -> anyhow::Result<Report> {
    match (args.ledger(), args.logs()) {
        (Some(options), _) => cmd::ledger_diff::run(app, options),
        (None, Some(options)) => cmd::verify_logs::run(app, &options),
        (None, None) => cmd::verify::run(app, &args.into()),
    }
}

fn restore(app: &AppContext, args: restore::Args) -> anyhow::Result<Report> {
    let (tenant, renamed, moment) = (args.tenant()?, args.renamed(), args.moment());
    let (base, event, exclusive) = (args.base(), args.event(), args.exclusive());
    let restore: cmd::restore::Options = args.into();
    let at = moment.map(|(source, moment)| {
        let restore = restore.clone();
        cmd::restore_at::Options { source, moment, event, exclusive, base, restore }
    });
    match (tenant, at) {
        (Some((tenant, into, mode)), at) => {
            let options = cmd::restore_tenant::Options { tenant, into, mode, renamed, at, restore };
            cmd::restore_tenant::run(app, &options)
        }
        (None, Some(at)) => cmd::restore_at::run(app, &at),
        (None, None) => cmd::restore::run(app, &restore),
    }
}

fn ship(
    app: &AppContext,
    patience: Duration,
    options: &cmd::logs::Options,
) -> anyhow::Result<Report> {
    run_when_free(app, &options.source, patience, || cmd::logs::run(app, options))
}

fn backup(
    app: &AppContext,
    patience: Duration,
    options: &cmd::snapshot::Options,
) -> anyhow::Result<Report> {
    run_when_free(app, &options.source, patience, || cmd::snapshot::run(app, options))
}

#[cfg(test)]
mod tests;
