//! Archiving files of a log.

use std::ffi::OsStr;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::Serialize;

use super::spool::{Spool, Stamp};
use crate::concurrent;
use crate::config::settings::SourceSettings;
use crate::error::{Fault, Kind};
use crate::keys::keyring::Keyring;
use crate::ops::report::Report;
use crate::pipeline::log_files::{Archiving, LogFiles, NewLogFile};
use crate::source::kinds;
use crate::source::logs::LogFileKind;
use crate::stage::Compression;
use crate::store::layer::mirrored::MirroredStore;
use crate::wire::AppContext;

/// Files that are archived in one run at most: the one that was handed over, and others that wait.
const FILES_MAX: usize = 64;
/// Files that are looked at for others that wait.
const WAITING_MAX: usize = 256;
/// For how long files are begun that wait: the server learns only when the run has ended what is archived, and
/// cannot be stopped before.
const AHEAD: Duration = Duration::from_secs(10);
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
    keys: Keyring,
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
    let began = Instant::now();
    let mut pusher = Pusher::begin(app, source)?;
    let file = file_name(path)?;
    // A server keeps what its hooks print.
    let report = |is_new, ahead| -> anyhow::Result<Report> {
        let report = PushReport { source, file: &file, is_new, ahead };
        Ok(Report::done("bkp.log-push/1", &report, String::new())?.routine())
    };
    if pusher.was_pushed(path, &file) {
        return report(true, 0);
    }
    let waiting = pusher.waiting(path);
    let at_a_time = at_a_time();
    if !waiting.is_empty() {
        pusher.threads = 1;
    }
    let paths: Vec<(usize, PathBuf)> =
        [path.to_owned()].into_iter().chain(waiting).enumerate().collect();
    let outcomes = concurrent::each_of_few(&paths, at_a_time, &app.ctx.cancel, |item| {
        let (index, path) = item;
        let is_ahead = *index > 0;
        let is_begun = !is_ahead || began.elapsed() < AHEAD;
        Ok(is_begun.then(|| pusher.push(path, is_ahead)))
    })?;
    let mut outcomes = outcomes.into_iter().flatten();
    let own = outcomes.next();
    let own = own.unwrap_or_else(|| Err(Fault::new(Kind::Failed, "nothing to push").into()))?;
    // What failed of the others is said when the server hands it over, and of a history by the job that ships the log.
    let ahead = outcomes.filter(|other| matches!(other, Ok(Archiving::Done))).count();
    report(own == Archiving::Done, ahead)
}

/// The folder where this process receives files of a log. Those of processes that are gone are removed.
pub(in crate::cmd) fn receiving(app: &AppContext, source: &str) -> PathBuf {
    let all = app.settings.state_dir.join("log-files").join(source).join("receiving");
    for other in std::fs::read_dir(&all).into_iter().flatten().flatten() {
        if !Path::new("/proc").join(other.file_name()).exists() {
            let _gone = std::fs::remove_dir_all(other.path());
        }
    }
    all.join(std::process::id().to_string())
}

/// Archives a file that was received.
///
/// # Errors
/// As `bkp logs --push`.
pub(in crate::cmd) fn archive(app: &AppContext, source: &str, path: &Path) -> anyhow::Result<()> {
    Pusher::begin(app, source)?.push(path, false).map(drop)
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

/// Files that are archived at a time: as many as the machine compresses, and some that wait for a store. Each takes about
/// 40 MiB, and all of them together less than 256.
fn at_a_time() -> usize {
    (2 * thread::available_parallelism().map_or(1, NonZero::get)).clamp(4, 6)
}

impl<'a> Pusher<'a> {
    fn begin(app: &'a AppContext, source: &'a str) -> anyhow::Result<Pusher<'a>> {
        let settings = app.source_settings(source)?;
        let files = file_kind(settings, source)?;
        let (keys, stores) = (app.keys()?, app.stores_append(Some(settings))?);
        Ok(Pusher { app, settings, source, files, keys, stores, threads: 2 })
    }

    /// Whether a run before this one has archived the file already. Then that is forgotten, since nobody asks again.
    fn was_pushed(&self, path: &Path, file: &str) -> bool {
        let Ok(stream) = (self.files.stream_at)(path) else { return false };
        let spool = Spool::of(self.app, self.source, &stream);
        // A store that is away has no part in what the others are called together.
        let is_whole = self.stores.outcomes().iter().all(|store| store.lost.is_none());
        let was_pushed = is_whole && spool.was_pushed(file, path, &self.stores.urls());
        if was_pushed {
            spool.forget_pushed(file);
        }
        was_pushed
    }

    /// Other files that wait and that no run has archived ahead.
    fn waiting(&self, path: &Path) -> Vec<PathBuf> {
        let Ok(stream) = (self.files.stream_at)(path) else { return Vec::new() };
        let spool = Spool::of(self.app, self.source, &stream);
        let mut waiting = (self.files.waiting)(path, WAITING_MAX);
        waiting.retain(|other| file_name(other).is_ok_and(|name| !spool.has_note(&name)));
        waiting.truncate(FILES_MAX - 1);
        waiting
    }

    /// Archives one file in every store. Of one that nobody has asked for yet it is noted that it is done.
    fn push(&self, path: &Path, is_ahead: bool) -> anyhow::Result<Archiving> {
        let file = file_name(path)?;
        let place = (self.files.place)(&file).ok_or_else(|| {
            let message = format!("`{file}` is not the name of a file of such a log");
            Fault::new(Kind::Usage, message).hint("pass %p of archive_command")
        })?;
        let stamp = Stamp::of(path);
        let examined = (self.files.examine)(path, &file)?;
        if Stamp::of(path) != stamp {
            let message = format!("{} changed while it was read", path.display());
            let hint = "a server finishes a file before it hands it over; check what writes to it";
            return Err(Fault::new(Kind::Source, message).hint(hint).into());
        }
        let spool = Spool::of(self.app, self.source, &examined.stream);
        let (mut outcome, mut failure) = (Archiving::WasThere, None);
        let mut content = examined.content;
        for (_, store) in self.stores.stores() {
            let of = (self.settings.backup_type, self.source);
            let archive = LogFiles::new(&**store, &self.keys, of, &self.app.ctx);
            let name = archive.name(&examined.stream, place.folder(), &file);
            let new = NewLogFile {
                name: &name,
                bytes: examined.bytes,
                sha256: examined.sha256,
                facts: examined.facts.clone(),
            };
            // What one store does not take, the others still get.
            match archive.put(&**store, &new, &mut content, (self.level(), self.threads)) {
                Ok(Archiving::Done) => outcome = Archiving::Done,
                Ok(Archiving::WasThere) => {}
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        if let Some(failure) = failure {
            return Err(failure);
        }
        let lost =
            self.stores.outcomes().into_iter().find_map(|store| Some((store.url, store.lost?)));
        if let Some((url, why)) = lost {
            let message = format!("`{file}` is not archived in {url}: {why}");
            let hint = "the server keeps the file and hands it over again; repair the store, or remove it from the source's `store`";
            return Err(Fault::new(Kind::Store, message).hint(hint).into());
        }
        match stamp.filter(|stamp| is_ahead && stamp.is_settled(self.app.ctx.now())) {
            Some(stamp) => spool.note_pushed(&file, stamp, &self.stores.urls()),
            None => spool.forget_pushed(&file),
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
