//! Archiving files of a log.

use std::ffi::OsStr;
use std::io::Seek as _;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::thread;

use schemars::JsonSchema;
use serde::Serialize;

use super::spool::Spool;
use crate::concurrent;
use crate::config::settings::SourceSettings;
use crate::domain::manifest::hex;
use crate::error::{Fault, Kind};
use crate::keys::KeyProvider;
use crate::ops::report::Report;
use crate::pipeline::log_files::{Archiving, LogFiles, NewLogFile};
use crate::source::kinds;
use crate::source::logs::LogFileKind;
use crate::stage::Compression;
use crate::store::layer::mirrored::MirroredStore;
use crate::wire::AppContext;

/// Files that are archived in one run at most: the one that was handed over, and others that wait.
const FILES_MAX: usize = 12;
/// Level of the compression, where the configuration says that there is none.
const LEVEL_DEFAULT: i32 = 3;

/// The stable shape `bkp.log-push/1`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct PushReport<'a> {
    source: &'a str,
    /// The file that was handed over.
    file: &'a str,
    /// False if it was there already, with the same content.
    is_new: bool,
    /// Other files that were waiting, and are archived now, too.
    ahead: usize,
}

/// What one run works with.
struct Pusher<'a> {
    app: &'a AppContext,
    settings: &'a SourceSettings,
    source: &'a str,
    files: &'static LogFileKind,
    keys: Vec<Box<dyn KeyProvider>>,
    stores: MirroredStore,
    /// Threads that compress a file.
    threads: usize,
}

/// Archives a file, and as many others as wait beside it: a server that is behind hands them over one by one.
/// When this returns without an error, the file is in every store of the source.
///
/// # Errors
/// [`Kind::Refused`] if another file of that name is archived; whatever else keeps it from being archived.
pub(super) fn run(app: &AppContext, source: &str, path: &Path) -> anyhow::Result<Report> {
    let settings = app.source_settings(source)?;
    let files = file_kind(settings, source)?;
    let file = file_name(path)?;
    let keys = app.keys()?;
    let stores = app.stores_append(Some(settings))?;
    let waiting = (files.waiting)(path, FILES_MAX - 1);
    let at_a_time = at_a_time();
    let threads = if waiting.is_empty() { 2 } else { 1 };
    let pusher = Pusher { app, settings, source, files, keys, stores, threads };
    let paths: Vec<(usize, PathBuf)> =
        [path.to_owned()].into_iter().chain(waiting).enumerate().collect();
    let outcomes = concurrent::each_of_few(&paths, at_a_time, &app.ctx.cancel, |item| {
        let (index, path) = item;
        Ok(pusher.push(path, *index > 0))
    })?;
    let mut outcomes = outcomes.into_iter();
    let own = outcomes.next();
    let own = own.unwrap_or_else(|| Err(Fault::new(Kind::Failed, "nothing to push").into()))?;
    let ahead = outcomes.filter(|other| matches!(other, Ok(Archiving::Done))).count();
    let report = PushReport { source, file: &file, is_new: own == Archiving::Done, ahead };
    // A server keeps what its hooks print.
    Ok(Report::done("bkp.log-push/1", &report, String::new())?.routine())
}

/// What is known of the files of a source's log.
pub(super) fn file_kind(
    settings: &SourceSettings,
    source: &str,
) -> anyhow::Result<&'static LogFileKind> {
    let kind = kinds::log_kind_of(settings.backup_type)?;
    let files = kind.files.as_ref();
    Ok(files.ok_or_else(|| {
        let message = format!(
            "`{source}` is a {} source, whose log is not made of files that a server hands over",
            settings.backup_type
        );
        Fault::new(Kind::Usage, message).hint("omit --push and --fetch")
    })?)
}

/// The name of a file, which is that in the store.
fn file_name(path: &Path) -> anyhow::Result<String> {
    let name = path.file_name().and_then(OsStr::to_str);
    let name = name.ok_or_else(|| {
        let message = format!("{} has no name that a log file could have", path.display());
        Fault::new(Kind::Usage, message).hint("pass %p of archive_command")
    })?;
    Ok(name.to_owned())
}

/// Files that are archived at a time: as many as the machine compresses, and some that wait for a store.
fn at_a_time() -> usize {
    (2 * thread::available_parallelism().map_or(1, NonZero::get)).clamp(4, 8)
}

impl Pusher<'_> {
    /// Archives one file in every store. Of one that nobody has asked for yet it is noted that it is done.
    fn push(&self, path: &Path, is_ahead: bool) -> anyhow::Result<Archiving> {
        let file = file_name(path)?;
        let folder = (self.files.folder)(&file).ok_or_else(|| {
            let message = format!("`{file}` is not the name of a file of such a log");
            Fault::new(Kind::Usage, message).hint("pass %p of archive_command")
        })?;
        let examined = (self.files.examine)(path, &file)?;
        let spool = Spool::of(self.app, self.source, &examined.stream);
        let sha256 = hex(&examined.sha256);
        if !is_ahead && spool.was_pushed(&file, &sha256, &self.stores.urls()) {
            spool.forget_pushed(&file);
            return Ok(Archiving::Done);
        }
        let mut outcome = Archiving::WasThere;
        let mut content = examined.file;
        for (_, store) in self.stores.stores() {
            let of = (self.settings.backup_type, self.source);
            let archive = LogFiles::new(&**store, &self.keys, of, &self.app.ctx);
            let name = archive.name(&examined.stream, folder.as_deref(), &file);
            content.rewind()?;
            let new = NewLogFile {
                name: &name,
                bytes: examined.bytes,
                sha256: examined.sha256,
                facts: examined.facts.clone(),
            };
            let done = archive.put(&**store, &new, &mut content, (self.level(), self.threads))?;
            if done == Archiving::Done {
                outcome = done;
            }
        }
        let lost =
            self.stores.outcomes().into_iter().find_map(|store| Some((store.url, store.lost?)));
        if let Some((url, why)) = lost {
            let message = format!("`{file}` is not archived in {url}: {why}");
            let hint = "the server keeps the file and hands it over again; repair the store, or remove it from the source's `store`";
            return Err(Fault::new(Kind::Store, message).hint(hint).into());
        }
        if is_ahead {
            spool.note_pushed(&file, &sha256, &self.stores.urls());
        }
        Ok(outcome)
    }

    fn level(&self) -> i32 {
        match self.settings.compression {
            Compression::Zstd(level) => level,
            Compression::None | Compression::Gzip(_) => LEVEL_DEFAULT,
        }
    }
}
