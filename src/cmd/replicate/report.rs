//! What `bkp replicate --to` reports.

use std::fmt::Write as _;

use humansize::{BINARY, format_size};
use schemars::JsonSchema;
use serde::Serialize;

use crate::catalog::Entry;
use crate::domain::id::BackupId;
use crate::pipeline::log_files::ListedFile;

/// The stable shape `bkp.copies/1`.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(in crate::cmd) struct CopiesReport {
    /// URL of the store that has the backups.
    pub(super) from: String,
    /// URL of the store that gets the copies.
    pub(super) to: String,
    /// Nothing was copied, only decided.
    pub(super) dry_run: bool,
    /// The copies are sealed anew, under other data keys; otherwise they are the same bytes.
    pub(super) reseal: bool,
    /// Who can open copies that are sealed anew, as configured.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) recipients: Vec<String>,
    /// Backups that were copied, or whose copy was completed.
    pub(super) copied: usize,
    /// Backups whose copy was there already.
    pub(super) present: usize,
    /// Of those, copies that were sealed anew: the same content in other bytes.
    pub(super) present_resealed: usize,
    /// Backups that were not to be copied.
    pub(super) left_out: usize,
    /// Backups that could not be copied.
    pub(super) failed: usize,
    /// Sum over the objects of backups that were copied, bytes.
    pub(super) copied_bytes: u64,
    /// Pins, notes and what takes them back that were copied.
    pub(super) annotations: usize,
    /// Files of logs that were copied.
    pub(super) log_files: usize,
    /// Sum over those, bytes.
    pub(super) log_file_bytes: u64,
    /// What was copied, what is left out and what failed; not what was there.
    pub(super) items: Vec<CopyItem>,
    /// What else failed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) problems: Vec<String>,
}

/// What became of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum CopyAction {
    /// It is there now.
    Copied,
    /// It is not wanted there.
    LeftOut,
    /// It is not there, or not whole.
    Failed,
}

/// A backup that was not there.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct CopyItem {
    pub(super) id: BackupId,
    pub(super) source: String,
    /// Key of its manifest.
    pub(super) key: String,
    /// Its size, bytes.
    pub(super) bytes: u64,
    pub(super) action: CopyAction,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
}

impl CopiesReport {
    /// Counts a backup and notes what became of it.
    pub(super) fn add(&mut self, entry: &Entry, action: CopyAction, reason: Option<String>) {
        let count = match action {
            CopyAction::Copied => &mut self.copied,
            CopyAction::LeftOut => &mut self.left_out,
            CopyAction::Failed => &mut self.failed,
        };
        *count += 1;
        self.items.push(CopyItem {
            id: entry.name.id,
            source: entry.name.source.clone(),
            key: entry.name.manifest_key(),
            bytes: entry.stored_bytes(),
            action,
            reason,
        });
    }

    /// Counts a file of a log that is there now.
    pub(super) fn add_log_file(&mut self, file: &ListedFile) {
        self.log_files += 1;
        self.log_file_bytes += file.bytes;
    }
}

/// The report as text.
pub(super) fn render(report: &CopiesReport) -> anyhow::Result<String> {
    let mut text = String::new();
    for CopyItem { id, source, action, bytes, reason, .. } in &report.items {
        let verb = match action {
            CopyAction::Copied => verb(report),
            // There may be very many, the same in each run.
            CopyAction::LeftOut => continue,
            CopyAction::Failed => "FAILED",
        };
        let size = format_size(*bytes, BINARY);
        let reason = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        writeln!(text, "{verb:<10}  {size:>10}  {id} of {source}{reason}")?;
    }
    for problem in &report.problems {
        writeln!(text, "FAILED: {problem}")?;
    }
    let CopiesReport { from, to, copied, present, left_out, failed, .. } = report;
    let [size, log_size] =
        [report.copied_bytes, report.log_file_bytes].map(|bytes| format_size(bytes, BINARY));
    let verb = verb(report);
    let plural = if *copied == 1 { "" } else { "s" };
    write!(
        text,
        "{verb} {copied} backup{plural} ({size}) from {from} to {to}; {present} already there"
    )?;
    if report.present_resealed > 0 {
        write!(text, " ({} of them sealed anew)", report.present_resealed)?;
    }
    let others = [
        (report.log_files, format!("log files copied ({log_size})")),
        (report.annotations, "annotations copied".to_owned()),
        (*left_out, "left out".to_owned()),
        (*failed, "FAILED".to_owned()),
    ];
    for (count, what) in others.iter().filter(|(count, _)| *count > 0) {
        write!(text, ", {count} {what}")?;
    }
    writeln!(text)?;
    if report.reseal {
        writeln!(text, "new copies open with: {}", report.recipients.join(", "))?;
        let kept = report.copied + report.log_files > 0 && !report.dry_run;
        if kept {
            writeln!(text, "{from} still has the old bytes, and the old keys open them")?;
        }
    }
    Ok(text)
}

/// What is done to backups.
fn verb(report: &CopiesReport) -> &'static str {
    match (report.reseal, report.dry_run) {
        (false, true) => "would copy",
        (false, false) => "copied",
        (true, true) => "would reseal",
        (true, false) => "resealed",
    }
}
