//! `bkp completions`.

use clap::Command;
use clap_complete::{Shell, generate};

use crate::cmd::schema::Completions;
use crate::ops::report::Report;

/// Print the completion script for a shell
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: see bkp(1).\nExample: bkp completions fish > ~/.config/fish/completions/bkp.fish"
)]
pub(super) struct Args {
    /// Shell
    #[arg(value_enum, value_name = "SHELL")]
    shell: Shell,
}

pub(super) fn run(args: &Args, command: &Command) -> anyhow::Result<Report> {
    let script = script(args.shell, command);
    let body = Completions { shell: args.shell.to_string(), script: script.clone() };
    Report::done("bkp.completions/1", &body, script)
}

/// The completion script of a shell for `command`.
pub(super) fn script(shell: Shell, command: &Command) -> String {
    let mut bytes = Vec::new();
    generate(shell, &mut command.clone(), "bkp", &mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}
