//! Copies of files of logs, which have no manifest: each is authentic by itself.

use std::iter::Peekable;

use super::replication::{COPIES, Replication};
use super::report::CopiesReport;
use crate::concurrent::each_of_few;
use crate::domain::log_file::LogFileName;
use crate::domain::names::BackupType;
use crate::pipeline::log_files::{ListedFile, folder_names};
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
        for object in self.origin.list(&prefix)? {
            self.app.ctx.cancel.check()?;
            let object = object?;
            let Some(name) = LogFileName::parse(&object.key) else { continue };
            match bytes_under(&mut there, &object.key)? {
                Some(bytes) if bytes == object.bytes => continue,
                Some(bytes) => {
                    let ObjectInfo { key, bytes: expected, .. } = object;
                    let to = self.destination.url();
                    failures.push(format!("{to}: `{key}` has {bytes} bytes, the original {expected}; `bkp verify --logs --store NAME` tells which is right"));
                    continue;
                }
                None => batch.push(ListedFile { name, bytes: object.bytes }),
            }
            if batch.len() >= BATCH {
                failures.extend(self.copy_files((backup_type, source), &batch, report)?);
                batch.clear();
            }
        }
        failures.extend(self.copy_files((backup_type, source), &batch, report)?);
        let more = failures.len().saturating_sub(NAMED_MAX);
        report.problems.extend(failures.into_iter().take(NAMED_MAX));
        report.problems.extend((more > 0).then(|| format!("{prefix}: {more} more files")));
        Ok(())
    }

    /// Copies these files; what is wrong with those that could not be.
    fn copy_files(
        &self,
        (backup_type, source): (BackupType, &str),
        files: &[ListedFile],
        report: &mut CopiesReport,
    ) -> anyhow::Result<Vec<String>> {
        let mut failures = Vec::new();
        if !self.dry_run && !files.is_empty() {
            self.confirm()?;
            let archive = self.catalog.log_files(backup_type, source);
            let copied = each_of_few(files, COPIES, &self.app.ctx.cancel, |file| {
                Ok(archive.copy(file, self.destination).err())
            })?;
            for (file, error) in files.iter().zip(copied) {
                match error {
                    None => report.add_log_file(file),
                    Some(error) => failures.push(format!("{}: {error:#}", file.name.key())),
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
