//! Dumps of an export as files: every byte is authentic and every dump complete before a program sees it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::custom_format::Contents;
use super::decode::check;
use super::index::Database;
use super::selection::plain;
use crate::ctx::Ctx;
use crate::error::{Fault, Kind};
use crate::pipeline::BackupReader;

/// A dump in a file of ours.
#[derive(Debug)]
pub(crate) struct UnpackedDump {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// What is in it.
    pub(crate) contents: Contents,
    /// Its size, bytes.
    pub(crate) bytes: u64,
}

/// Writes the dump of a database to a new file `name` in `folder`, which nobody else can read.
///
/// # Errors
/// [`Kind::Integrity`] if it is not what was recorded; [`Kind::Failed`] if `folder` has no room for it.
pub(crate) fn dump(
    link: &BackupReader<'_>,
    database: &Database,
    (folder, name): (&Path, &str),
    ctx: &Ctx,
) -> anyhow::Result<UnpackedDump> {
    make_room(link.object_named(&database.object, ctx)?.plaintext.bytes, folder)?;
    let path = folder.join(name);
    let mut contents = Contents::default();
    let bytes = write(link, &database.object, &path, ctx, &mut |input| {
        contents = Contents::read(input).map_err(|flaw| {
            let name = plain(&database.name);
            Fault::new(Kind::Integrity, format!("the dump of database {name}: {flaw}"))
        })?;
        check(&contents, database)
    })?;
    Ok(UnpackedDump { path, contents, bytes })
}

/// Writes an object to a new file, which is durable then, while `look` reads it. Its size, bytes.
///
/// # Errors
/// What `look`, the store and the file system fail with.
pub(super) fn write(
    link: &BackupReader<'_>,
    object: &str,
    path: &Path,
    ctx: &Ctx,
    look: &mut dyn FnMut(&mut dyn Read) -> anyhow::Result<()>,
) -> anyhow::Result<u64> {
    let failed = |error: io::Error| {
        Fault::new(Kind::Failed, format!("cannot write {}: {error}", path.display()))
            .hint("make room, or choose another folder")
    };
    let mut options = File::options();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    link.named(object, ctx, &mut |input| {
        let mut copied = Copied { input, file: &mut file, ctx, failed: None };
        let looked = look(&mut copied);
        if let Some(error) = copied.failed.take() {
            return Err(failed(error).into());
        }
        looked
    })?;
    file.sync_all().map_err(failed)?;
    Ok(file.metadata()?.len())
}

/// Makes sure that there is room for so many bytes.
fn make_room(bytes: u64, folder: &Path) -> anyhow::Result<()> {
    let found = rustix::fs::statvfs(folder).map_err(io::Error::from)?;
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    if free > bytes {
        return Ok(());
    }
    let message = format!("{} has {free} bytes left, and the dump takes {bytes}", folder.display());
    Err(Fault::new(Kind::Failed, message)
        .hint("make room; a dump is unpacked to a file in state_dir before it is restored")
        .into())
}

/// What is read, which goes to a file as well.
struct Copied<'a> {
    input: &'a mut dyn Read,
    file: &'a mut File,
    ctx: &'a Ctx,
    /// What is wrong with the file.
    failed: Option<io::Error>,
}

impl Read for Copied<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        if let Err(error) = self.file.write_all(buffer.get(..count).unwrap_or_default()) {
            self.failed = Some(error);
            return Err(io::Error::other("not written"));
        }
        self.ctx.monitor.advance(0);
        Ok(count)
    }
}
