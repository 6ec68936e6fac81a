//! Bringing files of a log to a server that recovers.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;

use super::push::file_kind;
use super::spool::{Spool, write};
use crate::catalog::Catalog;
use crate::concurrent;
use crate::config::settings::SourceSettings;
use crate::domain::log_file::LogFileName;
use crate::error::{Fault, Kind};
use crate::keys::keyring::Keyring;
use crate::ops::log_history::newest;
use crate::ops::report::Report;
use crate::pipeline::log_files::LogFiles;
use crate::source::kinds;
use crate::source::logs::{FilePlace, LogFileKind, Neighbours};
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
    keys: Keyring,
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
    if (files.place)(file).is_none() {
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

impl Fetcher<'_> {
    fn of(&self) -> (crate::domain::names::BackupType, &str) {
        (self.settings.backup_type, self.source)
    }

    /// Brings a file from the first store that has it whole; false if none has it.
    fn fetch(&self, file: &str, target: &Path) -> anyhow::Result<bool> {
        let place = (self.files.place)(file);
        let folder = place.as_ref().and_then(FilePlace::folder);
        let mut failure = None;
        for store in &self.stores {
            let archive = LogFiles::new(&**store, &self.keys, self.of(), &self.app.ctx);
            let name = archive.name(&self.stream, folder, file);
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
            self.prove_not_shipped(&**store, file)?;
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

    /// Makes sure that no manifest is about a missing file: then somebody removed it.
    fn prove_not_shipped(&self, store: &dyn ReadStore, file: &str) -> anyhow::Result<()> {
        let (app, source) = (self.app, self.source);
        let catalog = Catalog::new(store, &self.keys, &app.ctx);
        let kind = kinds::log_kind_of(self.settings.backup_type)?;
        for mode in kind.modes {
            let newest = newest(store, &catalog, source, (kind, mode.name), None, &app.ctx)?;
            let of_log = newest.filter(|newest| newest.segment.stream == self.stream);
            if let Some(newest) =
                of_log.filter(|newest| (self.files.is_shipped)(file, &newest.capture))
            {
                let message = format!(
                    "{}: `{file}` is missing, although segment {} lists it or a later one",
                    store.url(),
                    newest.id
                );
                let hint = "another store may have it; `bkp verify SOURCE --logs` tells what else is missing";
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
        write(&target, |out| Ok(out.write_all(b"left by a killed server")?)).unwrap();
        let failed = write(&target, |out| {
            out.write_all(b"half")?;
            anyhow::bail!("the store is away")
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(&target).unwrap(), b"left by a killed server");
        write(&target, |out| Ok(out.write_all(b"whole")?)).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"whole");
        let spooled = folder.path().join("ahead");
        write(&spooled, |out| Ok(out.write_all(b"next")?)).unwrap();
        assert!(take(&spooled, &target).unwrap() && !take(&spooled, &target).unwrap());
        assert_eq!(fs::read(&target).unwrap(), b"next");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left behind");
    }
}
