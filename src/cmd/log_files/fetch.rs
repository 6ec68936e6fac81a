//! Bringing files of a log to a server that recovers.

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use schemars::JsonSchema;
use serde::Serialize;

use super::push::file_kind;
use super::spool::Spool;
use crate::concurrent;
use crate::config::settings::SourceSettings;
use crate::domain::log_file::LogFileName;
use crate::error::{Fault, Kind};
use crate::fs::staged_file::{StagedFile, folder_of};
use crate::keys::KeyProvider;
use crate::ops::report::Report;
use crate::pipeline::log_files::LogFiles;
use crate::source::logs::{LogFileKind, Neighbours};
use crate::store::{ReadStore, StoreError};
use crate::wire::AppContext;

/// Files that are fetched in one run at most: the one that is wanted, and those that will be.
const FILES_MAX: usize = 6;

/// The stable shape `bkp.log-fetch/1`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct FetchReport<'a> {
    source: &'a str,
    /// The file that was wanted.
    file: &'a str,
    /// False if it is proven not to be archived.
    is_there: bool,
    /// Others that were fetched ahead.
    ahead: usize,
}

/// What one run works with.
struct Fetcher<'a> {
    app: &'a AppContext,
    settings: &'a SourceSettings,
    source: &'a str,
    files: &'static LogFileKind,
    keys: Vec<Box<dyn KeyProvider>>,
    stores: Vec<Box<dyn ReadStore>>,
    stream: String,
}

/// Brings a file to its target, or proves that it is not archived, and nothing that comes after it.
///
/// # Errors
/// Whatever leaves that open.
pub(super) fn run(
    app: &AppContext,
    source: &str,
    (file, target): (&str, &Path),
) -> anyhow::Result<Report> {
    let settings = app.source_settings(source)?;
    let files = file_kind(settings, source)?;
    let stream = (files.stream_at)(target)?;
    let spool = Spool::of(app, source, &stream).fetched();
    let report = |is_there, ahead| {
        let body = FetchReport { source, file, is_there, ahead };
        Ok(Report::done("bkp.log-fetch/1", &body, String::new())?.routine())
    };
    if (files.folder)(file).is_none() {
        let message = format!("`{file}` is not the name of a file of such a log");
        return Err(Fault::new(Kind::Usage, message)
            .hint("pass %f and %p of restore_command")
            .into());
    }
    if let Ok(spool) = &spool
        && take(&spool.join(file), target)?
    {
        return report(true, 0);
    }
    let keys = app.keys_to_read()?;
    let stores = app.stores_read(Some(settings))?;
    let fetcher = Fetcher { app, settings, source, files, keys, stores, stream };
    let mut wanted = vec![(file.to_owned(), target.to_owned())];
    if let Ok(spool) = &spool {
        let following = (files.following)(file, FILES_MAX - 1).into_iter();
        let missing = following.map(|name| (name.clone(), spool.join(name)));
        wanted.extend(missing.filter(|(_, place)| !place.exists()));
    }
    let outcomes = concurrent::each_of_few(&wanted, FILES_MAX, &app.ctx.cancel, |item| {
        let (name, place) = item;
        Ok(fetcher.fetch(name, place))
    })?;
    let mut outcomes = outcomes.into_iter();
    let own = outcomes.next();
    if own.unwrap_or_else(|| Err(Fault::new(Kind::Failed, "nothing to fetch").into()))? {
        return report(true, outcomes.filter(|other| matches!(other, Ok(true))).count());
    }
    fetcher.prove_absence(file)?;
    if let Ok(spool) = &spool {
        // The recovery is at its end; what was fetched ahead belongs to another one.
        let _left = fs::remove_dir_all(spool);
    }
    Ok(report(false, 0)?.with_outcome(Some(Kind::NotFound)))
}

/// Moves a file that was fetched ahead to where it is wanted; false if there is none.
fn take(spooled: &Path, target: &Path) -> anyhow::Result<bool> {
    if fs::rename(spooled, target).is_ok() {
        return Ok(true);
    }
    // Another file system, as a rule.
    let Ok(bytes) = fs::read(spooled) else { return Ok(false) };
    write(target, |out| Ok(out.write_all(&bytes)?))?;
    fs::remove_file(spooled)?;
    Ok(true)
}

/// Writes a file that appears at `target` once it is whole and durable, in place of what stands there.
fn write(
    target: &Path,
    content: impl FnOnce(&mut fs::File) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let failed = |error: &dyn std::fmt::Display| {
        Fault::new(Kind::Failed, format!("cannot write {}: {error}", target.display()))
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::open(folder_of(target), flags, Mode::empty());
    let staged = folder.and_then(StagedFile::named).map_err(|error| failed(&error))?;
    content(&mut staged.file().try_clone()?)?;
    staged.file().sync_all().map_err(|error| failed(&error))?;
    let name: &OsStr = target.file_name().ok_or_else(|| failed(&"it has no name"))?;
    staged.replace(name).map_err(|error| failed(&error))?;
    Ok(())
}

impl Fetcher<'_> {
    fn of(&self) -> (crate::domain::names::BackupType, &str) {
        (self.settings.backup_type, self.source)
    }

    /// Brings a file from the first store that has it whole; false if none has it.
    fn fetch(&self, file: &str, target: &Path) -> anyhow::Result<bool> {
        let folder = (self.files.folder)(file).flatten();
        let mut failure = None;
        for store in &self.stores {
            let archive = LogFiles::new(&**store, &self.keys, self.of(), &self.app.ctx);
            let name = archive.name(&self.stream, folder.as_deref(), file);
            match fetch_from(&archive, &name, target) {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(error) => {
                    self.app.ctx.cancel.check()?;
                    failure = failure.or(Some(error));
                }
            }
        }
        failure.map_or(Ok(false), Err)
    }

    /// Makes sure that nothing that comes after a missing file is archived in any store: then it is not the end
    /// of the log that is missing, but a part of it.
    fn prove_absence(&self, file: &str) -> anyhow::Result<()> {
        let Some(Neighbours { folder, implies }) = (self.files.neighbours)(file) else {
            return Ok(());
        };
        for store in &self.stores {
            let archive = LogFiles::new(&**store, &self.keys, self.of(), &self.app.ctx);
            let others = archive.list(&self.stream, Some(&folder))?;
            let later = others.iter().find(|other| implies(file, &other.name.file));
            if let Some(later) = later {
                let message = format!(
                    "{}: `{file}` is missing, although `{}`, which comes after it, is archived",
                    store.url(),
                    later.name.file
                );
                let hint = "a recovery that ended here would lose what comes after; another store may have the file; else restore to a moment before it, or from a later backup";
                return Err(Fault::new(Kind::Integrity, message).hint(hint).into());
            }
        }
        Ok(())
    }
}

/// Brings a file from one store; false if it is not there.
fn fetch_from(archive: &LogFiles<'_>, name: &LogFileName, target: &Path) -> anyhow::Result<bool> {
    let mut is_there = true;
    let written = write(target, |out| {
        let read = archive.read(name, out).map(drop);
        is_there = !read.as_ref().is_err_and(is_missing);
        read
    });
    match written {
        Ok(()) => Ok(true),
        Err(_) if !is_there => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_missing(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<StoreError>(), Some(StoreError::Missing { .. }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("RECOVERYXLOG");
        fs::write(&target, b"left by a killed server").unwrap();
        let failed = write(&target, |out| {
            out.write_all(b"half")?;
            anyhow::bail!("the store is away")
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(&target).unwrap(), b"left by a killed server");
        write(&target, |out| Ok(out.write_all(b"whole")?)).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"whole");
        let spooled = folder.path().join("ahead");
        fs::write(&spooled, b"next").unwrap();
        assert!(take(&spooled, &target).unwrap() && !take(&spooled, &target).unwrap());
        assert_eq!(fs::read(&target).unwrap(), b"next");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left behind");
    }
}
