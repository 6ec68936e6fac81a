//! Copies of files of logs, which have no manifest: each is authentic by itself.

use std::iter::Peekable;

use super::replication::{COPIES, Replication};
use super::report::CopiesReport;
use crate::concurrent::each_of_few;
use crate::domain::log_file::LogFileName;
use crate::domain::names::BackupType;
use crate::error::{Fault, Kind};
use crate::pipeline::log_files::ListedFile;
use crate::source::kinds::SOURCES;
use crate::store::{ObjectInfo, StoreError};

/// Files that are gathered before they are copied.
const BATCH: usize = 64;

impl Replication<'_> {
    /// Copies the files of every log that the other store lacks. A log that cannot be copied keeps no other one
    /// from it.
    pub(super) fn log_files(&self, report: &mut CopiesReport) -> anyhow::Result<()> {
        let with_files = SOURCES
            .iter()
            .filter(|entry| entry.log.as_ref().is_some_and(|log| log.files.is_some()));
        for entry in with_files {
            let backup_type = entry.kind.backup_type;
            for source in self.sources(backup_type)? {
                let archive = self.catalog.log_files(backup_type, &source);
                for stream in archive.streams()? {
                    let prefix = LogFileName::prefix(backup_type, &source);
                    let prefix = format!("{prefix}/{stream}");
                    if let Err(error) = self.stream((backup_type, &source), &prefix, report) {
                        self.confirm()?;
                        report.problems.push(format!("{prefix}: {error:#}"));
                    }
                }
            }
        }
        Ok(())
    }

    /// The sources that have something of this type.
    fn sources(&self, backup_type: BackupType) -> anyhow::Result<Vec<String>> {
        if let Some(source) = self.source {
            return Ok(vec![source.to_owned()]);
        }
        let name = |folder: String| {
            let name = folder.trim_end_matches('/').rsplit('/').next();
            name.unwrap_or_default().to_owned()
        };
        Ok(self.origin.folders(backup_type.as_str())?.into_iter().map(name).collect())
    }

    /// Copies the files of one log, in order up to the first that cannot be. Both listings are read side by side:
    /// there may be very many.
    fn stream(
        &self,
        of: (BackupType, &str),
        prefix: &str,
        report: &mut CopiesReport,
    ) -> anyhow::Result<()> {
        let here = self.origin.list(prefix)?;
        let mut there =
            SideBySide { listing: self.destination.list(prefix)?.peekable(), last: None };
        let mut batch: Vec<ListedFile> = Vec::new();
        for object in here {
            self.app.ctx.cancel.check()?;
            let object = object?;
            let Some(name) = LogFileName::parse(&object.key) else { continue };
            match there.look(&object.key)? {
                Found::Same(bytes) if bytes == object.bytes => continue,
                Found::Same(bytes) => {
                    let why = format!(
                        "`{}` has {} bytes here and {bytes} in {}",
                        object.key,
                        object.bytes,
                        self.destination.url()
                    );
                    let hint = "`bkp verify --logs --store NAME` says which of them is right";
                    return Err(Fault::new(Kind::Integrity, why).hint(hint).into());
                }
                // A cleanup removed the beginning there.
                Found::Later if name.folder.is_some() => continue,
                Found::Nothing | Found::Later | Found::Between => {}
            }
            // The first of a folder goes alone: what stands before the first one is never copied again.
            let is_first = there.is_first(&name);
            batch.push(ListedFile { name, bytes: object.bytes });
            if is_first || batch.len() >= BATCH {
                self.copy_files(of, &batch, report)?;
                batch.clear();
            }
        }
        self.copy_files(of, &batch, report)
    }

    fn copy_files(
        &self,
        (backup_type, source): (BackupType, &str),
        files: &[ListedFile],
        report: &mut CopiesReport,
    ) -> anyhow::Result<()> {
        let archive = self.catalog.log_files(backup_type, source);
        if !self.dry_run {
            self.confirm()?;
            each_of_few(files, COPIES, &self.app.ctx.cancel, |file| {
                archive.copy(file, self.destination)
            })?;
        }
        report.log_files += files.len();
        report.log_file_bytes += files.iter().map(|file| file.bytes).sum::<u64>();
        Ok(())
    }
}

/// What the other store has under a key.
enum Found {
    /// An object of this size.
    Same(u64),
    /// Nothing, and nothing in its folder.
    Nothing,
    /// Nothing, but something that comes later in its folder, and nothing that comes before.
    Later,
    /// Nothing, but something that comes before it in its folder.
    Between,
}

/// The listing of the other store, followed by keys in their order.
struct SideBySide<I: Iterator<Item = Result<ObjectInfo, StoreError>>> {
    listing: Peekable<I>,
    /// The folder of the last object that was passed there, or is being copied.
    last: Option<String>,
}

impl<I: Iterator<Item = Result<ObjectInfo, StoreError>>> SideBySide<I> {
    fn look(&mut self, key: &str) -> Result<Found, StoreError> {
        loop {
            let is_before = |next: &Result<ObjectInfo, StoreError>| {
                next.as_ref().is_ok_and(|object| object.key.as_str() < key)
            };
            match self.listing.next_if(is_before) {
                Some(passed) => self.last = Some(folder(&passed?.key).to_owned()),
                None => break,
            }
        }
        if let Some(Err(_)) = self.listing.peek() {
            return self
                .listing
                .next()
                .map_or(Ok(Found::Nothing), |failed| failed.map(|_never| Found::Nothing));
        }
        let next = self.listing.peek().and_then(|next| next.as_ref().ok());
        if let Some(same) = next.filter(|next| next.key == key) {
            return Ok(Found::Same(same.bytes));
        }
        let is_beside = |other: &str| other == folder(key);
        if self.last.as_deref().is_some_and(is_beside) {
            return Ok(Found::Between);
        }
        let is_later = next.is_some_and(|next| is_beside(folder(&next.key)));
        Ok(if is_later { Found::Later } else { Found::Nothing })
    }

    /// Whether a file is the first of its folder that is copied; then its folder is no longer empty.
    fn is_first(&mut self, name: &LogFileName) -> bool {
        let key = name.key();
        let own = folder(&key);
        let is_first = self.last.as_deref() != Some(own);
        self.last = Some(own.to_owned());
        is_first
    }
}

/// Where an object is.
fn folder(key: &str) -> &str {
    key.rsplit_once('/').map_or("", |(folder, _)| folder)
}
