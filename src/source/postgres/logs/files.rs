//! What the hooks know of a file of the log.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::facts::SegmentFacts;
use super::segment::SegmentRecord;
use crate::error::{Fault, Kind};
use crate::fs::staged_file::folder_of;
use crate::pipeline::log_files::Content;
use crate::source::logs::{ExaminedFile, FilePlace, LogFileKind, Neighbours};
use crate::source::postgres::wal::flaw::WalError;
use crate::source::postgres::wal::name::{SegmentName, SegmentSize, Timeline, WalFileName};
use crate::source::postgres::wal::records::Records;
use crate::source::postgres::wal::scan::scan;

/// Where a server has its control file, below the data folder. It begins with the system identifier
/// (`src/include/catalog/pg_control.h`).
const CONTROL_FILE: &str = "global/pg_control";
/// The folder beside files of the log where it is noted which of them wait to be archived.
const STATUS_FOLDER: &str = "archive_status";
/// Longest history or label that is archived, bytes.
const TEXT_BYTES_MAX: u64 = 1 << 20;

/// What the hooks know.
pub(super) const FILES: LogFileKind = LogFileKind {
    place,
    examine,
    stream_at,
    waiting,
    following,
    is_before,
    is_shipped,
    neighbours,
};

fn parse(name: &str) -> Option<WalFileName> {
    name.parse().ok()
}

/// The folder of a segment is its timeline.
fn place(name: &str) -> Option<FilePlace> {
    Some(match parse(name)? {
        WalFileName::Segment(segment)
        | WalFileName::Partial(segment)
        | WalFileName::BackupLabel(segment, _) => FilePlace::Folder(segment.timeline.folder()),
        WalFileName::History(_) => FilePlace::Root,
    })
}

fn unreadable(path: &Path, error: &io::Error) -> Fault {
    Fault::new(Kind::Source, format!("cannot read {}: {error}", path.display()))
        .hint("pass %p of archive_command, and run as the user of the server")
}

/// Looks at a file that a server hands over: that it is what its name says, of the server whose folder it is in.
fn examine(path: &Path, name: &str) -> anyhow::Result<ExaminedFile> {
    let parsed = parse(name).ok_or_else(|| {
        Fault::new(Kind::Usage, format!("`{name}` is not the name of a file of a write-ahead log"))
    })?;
    let content = File::open(path).and_then(Content::of);
    let mut content = content.map_err(|error| unreadable(path, &error))?;
    // Before it is looked at: what is archived is compared with this.
    let (bytes, sha256) = content.measure().map_err(|error| unreadable(path, &error))?;
    let server = control_file_of(path).and_then(|path| system_in(&path).ok());
    let (stream, facts) = match parsed {
        WalFileName::Segment(segment) => {
            let (system, facts) = segment_facts(segment, &mut content, path)?;
            (system, serde_json::to_value(facts)?)
        }
        WalFileName::Partial(segment) => {
            let input = content.read().map_err(|error| unreadable(path, &error))?;
            let system = Records::open(&[segment], input).map(|records| records.origin().system);
            (system.map_err(|error| refused(path, &error))?, Value::Null)
        }
        WalFileName::BackupLabel(..) | WalFileName::History(_) => {
            let system = server.ok_or_else(|| {
                let message =
                    format!("{} does not stand in the folder of a server", path.display());
                Fault::new(Kind::Source, message).hint("pass %p of archive_command")
            })?;
            (system, Value::Null)
        }
    };
    if let Some(server) = server.filter(|server| *server != stream) {
        let message =
            format!("{} is of the cluster {stream}, the server's is {server}", path.display());
        let hint = "a file of another server is in its pg_wal: move it away";
        return Err(Fault::new(Kind::Refused, message).hint(hint).into());
    }
    let is_text = matches!(parsed, WalFileName::BackupLabel(..) | WalFileName::History(_));
    if is_text && bytes > TEXT_BYTES_MAX {
        let message = format!("{} has {bytes} bytes, more than any such file", path.display());
        return Err(Fault::new(Kind::Source, message).into());
    }
    Ok(ExaminedFile { content, bytes, sha256, stream: stream.to_string(), facts })
}

/// What is worth knowing of a segment. One that is damaged behind its beginning is archived all the same, since the
/// server has no other; what it says is that no recovery goes on over it.
fn segment_facts(
    name: SegmentName,
    content: &mut Content,
    path: &Path,
) -> anyhow::Result<(u64, SegmentFacts)> {
    let names = [name];
    let input = content.read().map_err(|error| unreadable(path, &error))?;
    let origin = Records::open(&names, input).map(|records| records.origin());
    let origin = origin.map_err(|error| refused(path, &error))?;
    let input = content.read().map_err(|error| unreadable(path, &error))?;
    match scan(name, input) {
        Ok(found) => Ok((origin.system, SegmentFacts::of(&found))),
        Err(error @ WalError::Damaged { .. }) => {
            let bytes = origin.segment_size.bytes();
            Ok((origin.system, SegmentFacts::flawed(bytes, error.to_string())))
        }
        Err(error @ WalError::Unreadable { .. }) => Err(refused(path, &error)),
    }
}

fn refused(path: &Path, error: &WalError) -> anyhow::Error {
    let message = format!("{} is not the segment that its name says: {error}", path.display());
    Fault::new(Kind::Refused, message)
        .hint("nothing was archived; look at the server's disk, and at who writes to its pg_wal")
        .into()
}

/// Where the server that has a file of the log keeps its control file.
fn control_file_of(path: &Path) -> Option<PathBuf> {
    let beside = folder_of(folder_of(path)).join(CONTROL_FILE);
    let here = PathBuf::from(CONTROL_FILE);
    [beside, here].into_iter().find(|path| path.is_file())
}

fn system_in(path: &Path) -> io::Result<u64> {
    let mut bytes = [0; 8];
    File::open(path)?.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// The system identifier of the server that wants a file at this path.
fn stream_at(target: &Path) -> anyhow::Result<String> {
    let missing = || {
        let message = format!("{} does not stand in the folder of a server", target.display());
        Fault::new(Kind::Usage, message).hint(
            "PostgreSQL starts restore_command in its data folder; run it there, with %f and %p",
        )
    };
    let path = control_file_of(target).ok_or_else(missing)?;
    Ok(system_in(&path).map_err(|error| unreadable(&path, &error))?.to_string())
}

/// Files that the server notes as waiting, beside the one at `path`.
fn waiting(path: &Path, most: usize) -> Vec<PathBuf> {
    let folder = folder_of(path);
    let history = history_beside(path);
    let Ok(items) = fs::read_dir(folder.join(STATUS_FOLDER)) else {
        return history.into_iter().collect();
    };
    let own = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let ready = items.filter_map(|item| {
        let name = item.ok()?.file_name().into_string().ok()?;
        let name = name.strip_suffix(".ready").filter(|name| *name != own)?;
        parse(name).map(|_known| name.to_owned())
    });
    let mut names: Vec<String> = ready.collect();
    names.sort_unstable();
    names.truncate(most);
    history.into_iter().chain(names.into_iter().map(|name| folder.join(name))).collect()
}

/// The history of the timeline of a segment. A server hands it over only if it archived when it was promoted, and
/// without it nothing tells where the timeline belongs.
fn history_beside(path: &Path) -> Option<PathBuf> {
    let name = path.file_name().and_then(OsStr::to_str).and_then(parse)?;
    let WalFileName::Segment(segment) = name else { return None };
    let history = folder_of(path).join(WalFileName::History(segment.timeline).to_string());
    history.is_file().then_some(history)
}

/// The segments after one, as most servers number them; of others, some of these names do not exist.
fn following(name: &str, most: usize) -> Vec<String> {
    let Some(WalFileName::Segment(segment)) = parse(name) else { return Vec::new() };
    let next = |segment: &SegmentName| segment.next(SegmentSize::DEFAULT);
    std::iter::successors(next(&segment), next).take(most).map(|name| name.to_string()).collect()
}

/// Whether a manifest is about the segment of this name, or about later ones of its timeline.
fn is_shipped(name: &str, capture: &Value) -> bool {
    let Some(WalFileName::Segment(segment)) = parse(name) else { return false };
    let Ok(record) = SegmentRecord::read(capture) else { return false };
    let start = record.size().and_then(|size| segment.start(size));
    record.position.last_timeline == segment.timeline.number()
        && start.zip(record.end()).is_some_and(|(start, end)| start < end)
}

/// Whether a segment, or what belongs to one, lies before what a manifest is about. A history never does.
fn is_before(name: &str, capture: &Value) -> bool {
    let segment = match parse(name) {
        Some(
            WalFileName::Segment(segment)
            | WalFileName::Partial(segment)
            | WalFileName::BackupLabel(segment, _),
        ) => segment,
        Some(WalFileName::History(_)) | None => return false,
    };
    let end = |record: &SegmentRecord| segment.next(record.size()?)?.start(record.size()?);
    let Ok(record) = SegmentRecord::read(capture) else { return false };
    end(&record).zip(record.begin()).is_some_and(|(end, begin)| end <= begin)
}

/// A segment is missed where its timeline has a later one, a history where its timeline has any.
fn neighbours(name: &str) -> Option<Neighbours> {
    let timeline = match parse(name)? {
        WalFileName::Segment(segment) => segment.timeline,
        // The first timeline has no history, and a server that ends its recovery on it asks for one.
        WalFileName::History(timeline) if timeline != Timeline::FIRST => timeline,
        WalFileName::History(_) | WalFileName::Partial(_) | WalFileName::BackupLabel(..) => {
            return None;
        }
    };
    Some(Neighbours { folder: timeline.folder(), implies })
}

fn implies(missing: &str, other: &str) -> bool {
    match (parse(missing), parse(other)) {
        (
            Some(WalFileName::Segment(missing)),
            Some(WalFileName::Segment(other) | WalFileName::Partial(other)),
        ) => missing.timeline == other.timeline && missing < other,
        (Some(WalFileName::Segment(missing)), Some(WalFileName::BackupLabel(other, _))) => {
            missing.timeline == other.timeline && missing <= other
        }
        (Some(WalFileName::History(missing)), Some(WalFileName::Segment(other))) => {
            missing == other.timeline
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: &str = "0000000100000000000000A3";

    #[test]
    fn every_file_has_its_folder() {
        let in_folder = Some(FilePlace::Folder("00000001".into()));
        assert_eq!(place(SEGMENT), in_folder);
        assert_eq!(place("0000000100000000000000A3.partial"), in_folder);
        let label = "0000000100000000000000A3.00000028.backup";
        assert_eq!(place(label), in_folder);
        assert_eq!(place("00000002.history"), Some(FilePlace::Root));
        assert_eq!(place("postgresql.conf"), None);
    }

    #[test]
    fn what_comes_after_a_missing_file_tells_that_it_is_missed() {
        let later = "0000000100000000000000A4";
        assert!(implies(SEGMENT, later) && !implies(later, SEGMENT));
        assert!(implies(SEGMENT, "000000010000000100000000"));
        assert!(!implies(SEGMENT, "0000000200000000000000A4"), "of another timeline");
        assert!(!implies(SEGMENT, "0000000100000000000000A3.partial"));
        assert!(implies(SEGMENT, "0000000100000000000000A4.partial"));
        assert!(implies(SEGMENT, "0000000100000000000000A3.00000028.backup"));
        assert!(implies("00000002.history", "0000000200000000000000A4"));
        assert!(!implies("00000002.history", SEGMENT));
        assert_eq!(neighbours("00000002.history").unwrap().folder, "00000002");
        assert!(neighbours("00000001.history").is_none(), "there is none");
        assert!(neighbours("0000000100000000000000A3.partial").is_none());
    }

    #[test]
    fn the_next_segments_are_known() {
        assert_eq!(following(SEGMENT, 2), ["0000000100000000000000A4", "0000000100000000000000A5"]);
        assert_eq!(following("0000000100000000000000FF", 1), ["000000010000000100000000"]);
        assert!(following("00000002.history", 3).is_empty());
    }
}
