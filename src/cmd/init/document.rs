//! The text of a first configuration.

use std::fmt::Write as _;

use crate::domain::backup_kind::BackupKind;
use crate::source::discovery::Candidate;
use crate::source::kinds::entry_of;
use crate::table::units::spelled;

/// What a first configuration says.
#[derive(Debug)]
pub(super) struct FirstConfiguration {
    pub(super) state_dir: String,
    pub(super) store: String,
    pub(super) recipients: Vec<String>,
    pub(super) sources: Vec<Candidate>,
    /// How often or when; `None` for what suits each source.
    pub(super) schedule: Option<String>,
}

impl FirstConfiguration {
    /// As TOML, with what an operator has to know beside it.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a text cannot fail.
        self.write(&mut text).unwrap_or_default();
        text
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let (state_dir, store) = (quoted(&self.state_dir), quoted(&self.store));
        let recipients = toml::Value::from(self.recipients.clone());
        writeln!(
            out,
            "# Written by `bkp init`; bkp.toml(5) describes every key. After a change: bkp doctor\n\
             \nstate_dir = {state_dir}\n\
             \n# Where backups go. Best is a place that is not lost with this machine.\n\
             [store.main]\nurl = {store}\n\
             \n# Any one of these opens the backups. Keep a copy apart from both the machine and the store:\n\
             # without a key no backup can be opened, by anyone.\n\
             [keys]\nrecipients = {recipients}"
        )?;
        let mut tools = toml::Table::new();
        self.sources.iter().for_each(|source| tools.extend(source.tools.clone()));
        if !tools.is_empty() {
            writeln!(out, "\n# What drills start on a restored copy.\n[tools]")?;
            write_keys(out, &tools)?;
        }
        self.sources.iter().try_for_each(|source| self.write_source(out, source))?;
        writeln!(
            out,
            "\n# Removes what no retention keeps.\n[job.cleanup]\nrun = \"cleanup\"\nat = \"daily at 05:17\""
        )
    }

    fn write_source(&self, out: &mut String, source: &Candidate) -> std::fmt::Result {
        let name = &source.name;
        writeln!(out, "\n[source.{name}]\nkind = \"{}\"", source.backup_type.source_kind())?;
        write_keys(out, &source.keys)?;
        let run = command(source);
        let schedule = match &self.schedule {
            None => every(source),
            Some(when) if when.contains(char::is_whitespace) => format!("at = {}", quoted(when)),
            Some(every) => format!("every = {}", quoted(every)),
        };
        writeln!(
            out,
            "\n# `bkp run`, from bkp-run.timer or cron, starts every job that is due.\n\
             [job.{name}-{run}]\nrun = \"{run}\"\nsource = \"{name}\"\n{schedule}\n\
             retention = {{ keep_daily = 7, keep_weekly = 4, keep_monthly = 12, min_keep = 3 }}"
        )?;
        if makes(source).contains(&BackupKind::Log) {
            writeln!(
                out,
                "\n# Any moment between two snapshots can be restored where the change log is shipped; see bkp-pitr(7).\n\
                 # [job.{name}-log]\n# run = \"logs\"\n# source = \"{name}\"\n# every = \"15m\"\n# keep_log = \"35d\""
            )?;
        }
        writeln!(
            out,
            "\n# Restores the newest backup to a scratch folder and checks it there, with the real server if it has one.\n\
             [job.{name}-drill]\nrun = \"verify\"\nsource = \"{name}\"\nat = \"weekly on sunday at 04:47\"\nlevel = \"drill\""
        )
    }
}

/// The command that makes the backups of a source.
pub(super) fn command(source: &Candidate) -> &'static str {
    if makes(source).contains(&BackupKind::Replica) { "replicate" } else { "snapshot" }
}

fn makes(source: &Candidate) -> &'static [BackupKind] {
    entry_of(source.backup_type).map(|entry| entry.makes).unwrap_or_default()
}

/// How often a backup of this source is made where nobody says.
fn every(source: &Candidate) -> String {
    let entry = entry_of(source.backup_type);
    let first = entry.and_then(|entry| Some((entry, entry.makes.first()?)));
    let interval = first.map(|(entry, kind)| spelled((entry.interval)(*kind, None)));
    format!("every = {}", quoted(interval.as_deref().unwrap_or("1d")))
}

fn write_keys(out: &mut String, table: &toml::Table) -> std::fmt::Result {
    table.iter().try_for_each(|(key, value)| writeln!(out, "{key} = {value}"))
}

fn quoted(text: &str) -> toml::Value {
    toml::Value::from(text)
}
