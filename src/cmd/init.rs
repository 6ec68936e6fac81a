//! `bkp init`: a first configuration and its key, checked.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::Context as _;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cmd::doctor;
use crate::config::Settings;
use crate::config::settings::MACHINE_FILE;
use crate::error::{Fault, Kind};
use crate::exit;
use crate::keys::file;
use crate::ops::report::Report;
use crate::process;
use crate::source::Check;
use crate::wire::{AppContext, Ask};

mod document;
mod owner;
mod plan;

use self::document::{FirstConfiguration, command};
use self::owner::Owner;
use self::plan::plan;

/// What `bkp init` was asked for.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Sources as `KIND:PLACE` or `NAME=KIND:PLACE`; none asks, or takes the only one that is found.
    pub sources: Vec<String>,
    /// An interval, or a time with a space in it; `None` asks, or takes what suits the source.
    pub schedule: Option<String>,
    /// Who is to run the backups.
    pub user: Option<String>,
    /// Report the configuration, and do nothing else.
    pub print: bool,
}

/// The stable shape `bkp.init-plan/1`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct InitPlanReport {
    /// Where the configuration belongs.
    file: String,
    /// Its text.
    text: String,
}

/// The stable shape `bkp.init/1`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct InitReport {
    /// The configuration that was written.
    file: String,
    /// The key files that were generated; one that existed is used as it is.
    keys: Vec<String>,
    /// Folders that were created.
    folders: Vec<String>,
    /// The names of the sources.
    sources: Vec<String>,
    /// Who the backups are to be run by, if not who ran this.
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    /// What `bkp doctor` found.
    checks: Vec<Check>,
    /// Whether a first backup was made; `null` if nobody wanted one.
    first_backup: Option<bool>,
    /// What is left to do.
    next: Vec<String>,
}

/// What is read of a report of `bkp doctor`.
#[derive(Deserialize)]
struct Doctor {
    checks: Vec<Check>,
}

/// Writes a configuration and its key, tries them as the user who is to run the backups, and offers the
/// first backup. Nothing is overwritten, and nothing is written before everything is known and valid.
///
/// # Errors
/// [`Kind::Refused`] if there is a configuration already; [`ConfigError`](crate::table::ConfigError) if what was asked for does not make
/// a valid one; whatever keeps a file from being written.
pub fn run(app: &AppContext, options: &Options) -> anyhow::Result<Report> {
    let path = app.settings.file.clone().unwrap_or_default();
    if !options.print {
        refuse_second(app)?;
    }
    let owner = if options.print { None } else { Owner::choose(options.user.as_deref())? };
    let nobody: Ask = Arc::new(|_, _| Ok(None));
    let ask = if options.print { &nobody } else { &app.ask };
    let first = plan(&app.settings, ask, &options.sources, options.schedule.as_deref())?;
    let text = first.text();
    Settings::check_text(&path, &text)?;
    if options.print {
        let body = InitPlanReport { file: path.display().to_string(), text: text.clone() };
        return Report::done("bkp.init-plan/1", &body, text);
    }
    let mut made = Made::default();
    write(owner.as_ref(), &first, &path, &text, &mut made).map_err(|error| made.left_by(error))?;
    let Made { keys, folders } = made;
    let ran = own(app, owner.as_ref(), &path, &["doctor", "--json"])?;
    let found: Doctor = serde_json::from_slice(&ran.stdout)
        .context("the configuration was written, but `bkp doctor` gave no report")?;
    let failed =
        Kind::ALL.into_iter().find(|kind| ran.status.code() == Some(exit::code(*kind).into()));
    let first_backup =
        if failed.is_none() { backup(app, owner.as_ref(), &path, &first)? } else { None };
    let body = InitReport {
        file: path.display().to_string(),
        sources: first.sources.iter().map(|source| source.name.clone()).collect(),
        next: next(&path, &keys, &first, owner.as_ref(), failed.is_none(), first_backup),
        user: owner.map(|owner| owner.name),
        keys,
        folders,
        checks: found.checks,
        first_backup,
    };
    Ok(Report::done("bkp.init/1", &body, shown(&body))?.with_outcome(failed))
}

/// A configuration that is found anywhere would hide the new one, or be hidden by it.
fn refuse_second(app: &AppContext) -> Result<(), Fault> {
    let places = app.settings.provenance.looked.iter();
    let there = places.filter(|place| Path::new(place).symlink_metadata().is_ok());
    there.map(|place| format!("there is a configuration already: {place}")).next().map_or(
        Ok(()),
        |message| {
            let hint = "change that one, or name another place with --config; --print shows what would be written";
            Err(Fault::new(Kind::Refused, message).hint(hint))
        },
    )
}

/// What was made so far.
#[derive(Debug, Default)]
struct Made {
    keys: Vec<String>,
    folders: Vec<String>,
}

impl Made {
    /// The error, with what was made before it: the next `bkp init` uses that as it is.
    fn left_by(&self, error: anyhow::Error) -> anyhow::Error {
        let all: Vec<&str> = self.folders.iter().chain(&self.keys).map(String::as_str).collect();
        if all.is_empty() {
            return error;
        }
        error.context(format!(
            "no configuration was written; made before and left: {}",
            all.join(", ")
        ))
    }
}

/// Makes what does not exist yet: folders, keys, and last the configuration, which makes them count.
fn write(
    owner: Option<&Owner>,
    first: &FirstConfiguration,
    path: &Path,
    text: &str,
    made: &mut Made,
) -> anyhow::Result<()> {
    let store = first.store.strip_prefix("file://").map(PathBuf::from);
    let mut folder = |folder: &Path| {
        if Owner::make_folder(owner, folder)? {
            made.folders.push(folder.display().to_string());
        }
        anyhow::Ok(())
    };
    folder(Path::new(&first.state_dir))?;
    store.as_deref().map(&mut folder).transpose()?;
    let files = first.recipients.iter().filter_map(|text| text.strip_prefix("file:"));
    for key in files.map(Path::new) {
        // A dangling link is something too.
        if key.symlink_metadata().is_err() {
            file::generate(key)?;
            made.keys.push(key.display().to_string());
            Owner::give(owner, key)?;
        }
    }
    if let Some(above) = path.parent()
        && Owner::make_folder(owner, above)?
    {
        made.folders.push(above.display().to_string());
    }
    Owner::write(owner, path, text)
}

/// Runs bkp itself with the new configuration, as the user who is to run the backups, and returns what it
/// said; its warnings and errors are shown.
fn own(
    app: &AppContext,
    owner: Option<&Owner>,
    path: &Path,
    words: &[&str],
) -> anyhow::Result<std::process::Output> {
    let program = app.settings.program.clone().unwrap_or_else(|| PathBuf::from("bkp"));
    let mut command = match owner {
        None => Command::new(&program),
        Some(owner) => {
            // It gives the process all groups of the user, through which sources are read.
            let mut command = process::operator_command("runuser");
            command.args(["-u", &owner.name, "--"]).arg(&program);
            command
        }
    };
    command.arg("--config").arg(path).args(words).stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = command.output();
    output.with_context(|| format!("cannot start {} {}", program.display(), words.join(" ")))
}

/// Makes the first backup of every source if somebody wants it; whether all were made.
fn backup(
    app: &AppContext,
    owner: Option<&Owner>,
    path: &Path,
    first: &FirstConfiguration,
) -> anyhow::Result<Option<bool>> {
    let asked = (app.ask)("Everything works. Make the first backup now? yes or no", "yes")?;
    if asked.is_none_or(|said| !said.eq_ignore_ascii_case("yes")) {
        return Ok(None);
    }
    let mut all = true;
    for source in &first.sources {
        all &= own(app, owner, path, &[command(source), &source.name])?.status.success();
    }
    Ok(Some(all))
}

/// What is left to do, as sentences and commands.
fn next(
    path: &Path,
    keys: &[String],
    first: &FirstConfiguration,
    owner: Option<&Owner>,
    works: bool,
    first_backup: Option<bool>,
) -> Vec<String> {
    let prefix = owner.map(|owner| format!("runuser -u {} -- ", owner.name)).unwrap_or_default();
    let bkp = format!("{prefix}bkp --config {}", path.display());
    let mut next: Vec<String> = Vec::new();
    for key in keys {
        next.push(format!("copy {key} to a safe place apart from this machine and the store: without it no backup can be opened"));
    }
    if !works {
        next.push(format!("mend what failed, then: {bkp} doctor"));
    }
    if first_backup != Some(true) {
        let lines = first.sources.iter();
        next.extend(lines.map(|source| format!("{bkp} {} {}", command(source), source.name)));
    }
    if path == Path::new(MACHINE_FILE)
        && let Some(folder) = first.store.strip_prefix("file://")
    {
        next.push(format!("the service may write to the store only if a drop-in says so: systemctl edit bkp-run.service, [Service] ReadWritePaths={folder}"));
    }
    next.push(if path == Path::new(MACHINE_FILE) {
        "systemctl enable --now bkp-run.timer".to_owned()
    } else {
        format!(
            "start what is due every few minutes, in a crontab: */5 * * * * bkp --config {} -q run",
            path.display()
        )
    });
    next
}

fn shown(body: &InitReport) -> String {
    let made = body.folders.iter().chain(&body.keys).chain([&body.file]);
    let made = made.map(|path| format!("wrote   {path}")).collect::<Vec<_>>().join("\n");
    let next =
        body.next.iter().map(|step| format!("next    {step}")).collect::<Vec<_>>().join("\n");
    format!("{made}\n{}\n{next}", doctor::lines(&body.checks))
}
