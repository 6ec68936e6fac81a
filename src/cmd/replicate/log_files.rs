//! Copies of files of logs, which have no manifest: each is authentic by itself.

use std::collections::HashSet;
use std::iter::Peekable;
use std::sync::Arc;

use super::replication::{COPIES, Replication};
use super::report::CopiesReport;
use crate::concurrent::each_of_few;
use crate::domain::log_file::LogFileName;
use crate::domain::names::BackupType;
use crate::keys::keyring::Keyring;
use crate::pipeline::copies::CopyOutcome;
use crate::pipeline::log_files::resealing::Comparison;
use crate::pipeline::log_files::{ListedFile, LogFiles, folder_names};
use crate::source::kinds::SOURCES;
use crate::store::{ObjectInfo, StoreError};

/// Files that are gathered before they are copied.
const BATCH: usize = 64;
/// Failures of one log that are named; the others are counted.
const NAMED_MAX: usize = 20;

impl Replication<'_> {
    /// Copies the files of every log that the other store lacks. One that cannot be copied is named, and keeps no
    /// other from it.
    ///
    /// # Errors
    /// What a store fails with that no longer answers; that the run is to stop, or was overtaken.
    pub(super) fn log_files(&self, report: &mut CopiesReport) -> anyhow::Result<()> {
        let with_files = SOURCES
            .iter()
            .filter(|entry| entry.log.as_ref().is_some_and(|log| log.files.is_some()));
        for entry in with_files {
            let backup_type = entry.kind.backup_type;
            let sources = match self.source {
                Some(source) => vec![source.to_owned()],
                None => folder_names(self.origin, backup_type.as_str())?,
            };
            for source in sources {
                for stream in self.catalog.log_files(backup_type, &source).streams()? {
                    self.stream((backup_type, &source), &stream, report)?;
                }
            }
        }
        Ok(())
    }

    /// Copies the files of one log. Both listings are read side by side: there may be very many.
    fn stream(
        &self,
        (backup_type, source): (BackupType, &str),
        stream: &str,
        report: &mut CopiesReport,
    ) -> anyhow::Result<()> {
        let prefix = format!("{}/{stream}", LogFileName::prefix(backup_type, source));
        let mut there = self.destination.list(&prefix)?.peekable();
        let (mut batch, mut failures) = (Vec::new(), Vec::new());
        let keys = self.reseal.map(|reseal| reseal.keys(source)).transpose()?;
        let archive = self.catalog.log_files(backup_type, source);
        let mut log = Log { archive, keys, longer_by: HashSet::new() };
        for object in self.origin.list(&prefix)? {
            self.app.ctx.cancel.check()?;
            let object = object?;
            let Some(name) = LogFileName::parse(&object.key) else { continue };
            let file = ListedFile { name, bytes: object.bytes };
            match bytes_under(&mut there, &object.key)? {
                Some(bytes) if bytes == file.bytes && log.keys.is_none() => continue,
                Some(bytes) if log.keys.is_none() => {
                    failures.extend(self.resealed_before(&mut log, &file, bytes)?);
                    continue;
                }
                Some(_) if self.dry_run => {
                    let keys = log.keys.as_deref();
                    let found = keys
                        .map(|keys| log.archive.confirm_resealed(&file, self.destination, keys));
                    let error = found.and_then(Result::err);
                    failures.extend(error.map(|error| format!("{}: {error:#}", file.name.key())));
                }
                Some(_) | None => batch.push(file),
            }
            if batch.len() >= BATCH {
                failures.extend(self.copy_files(&log, &batch, report)?);
                batch.clear();
            }
        }
        failures.extend(self.copy_files(&log, &batch, report)?);
        let more = failures.len().saturating_sub(NAMED_MAX);
        report.problems.extend(failures.into_iter().take(NAMED_MAX));
        report.problems.extend((more > 0).then(|| format!("{prefix}: {more} more files")));
        Ok(())
    }

    /// Whether the copy of a file that is of another size was sealed anew; what is wrong if it was not. The headers of
    /// one log are of few lengths, so few files are looked at: of those of equal size none is.
    fn resealed_before(
        &self,
        log: &mut Log<'_>,
        file: &ListedFile,
        bytes: u64,
    ) -> anyhow::Result<Option<String>> {
        let longer_by = i128::from(bytes) - i128::from(file.bytes);
        if log.longer_by.contains(&longer_by) {
            return Ok(None);
        }
        let why = match log.archive.compare_sizes(file, (self.destination, bytes)) {
            Ok(Comparison::Resealed) => {
                log.longer_by.insert(longer_by);
                return Ok(None);
            }
            Ok(Comparison::Different) => "they differ".to_owned(),
            Err(error) => {
                self.app.ctx.cancel.check()?;
                format!("{error:#}")
            }
        };
        let (to, key, expected) = (self.destination.url(), file.name.key(), file.bytes);
        Ok(Some(format!(
            "{to}: `{key}` has {bytes} bytes, the original {expected}: {why}; `bkp verify --logs --store NAME` tells which is right"
        )))
    }

    /// Copies these files; what is wrong with those that could not be.
    fn copy_files(
        &self,
        log: &Log<'_>,
        files: &[ListedFile],
        report: &mut CopiesReport,
    ) -> anyhow::Result<Vec<String>> {
        let mut failures = Vec::new();
        if !self.dry_run && !files.is_empty() {
            self.confirm()?;
            let copied = each_of_few(files, COPIES, &self.app.ctx.cancel, |file| {
                Ok(match &log.keys {
                    None => log.archive.copy(file, self.destination),
                    Some(keys) => log.archive.reseal(file, self.destination, keys),
                })
            })?;
            for (file, outcome) in files.iter().zip(copied) {
                match outcome {
                    // Where copies are sealed anew, those that are there are looked at, too.
                    Ok(CopyOutcome::WasThere) if log.keys.is_some() => {}
                    Ok(CopyOutcome::Copied | CopyOutcome::WasThere) => report.add_log_file(file),
                    Err(error) => failures.push(format!("{}: {error:#}", file.name.key())),
                }
            }
            if !failures.is_empty() {
                self.confirm()?;
                self.check_answering()?;
            }
        } else {
            for file in files {
                report.add_log_file(file);
            }
        }
        Ok(failures)
    }
}

/// The files of one log, and what is known of their copies.
struct Log<'a> {
    archive: LogFiles<'a>,
    /// For whom copies are sealed anew; nothing if they are to be the same bytes.
    keys: Option<Arc<Keyring>>,
    /// By how many bytes copies differ in size of which one was found to be sealed anew.
    longer_by: HashSet<i128>,
}

/// The size of the object under a key, in a listing that is passed over up to there.
fn bytes_under<I>(listing: &mut Peekable<I>, key: &str) -> Result<Option<u64>, StoreError>
where
    I: Iterator<Item = Result<ObjectInfo, StoreError>>,
{
    let is_passed = |next: &Result<ObjectInfo, StoreError>| {
        next.as_ref().map_or(true, |object| object.key.as_str() < key)
    };
    while let Some(passed) = listing.next_if(is_passed) {
        passed?;
    }
    let next = listing.peek().and_then(|next| next.as_ref().ok());
    Ok(next.filter(|next| next.key == key).map(|next| next.bytes))
}
