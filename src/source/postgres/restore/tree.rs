//! A data folder that is being built of the backups of a chain, base first.
//!
//! Each backup is laid over what the ones before it made: whole files replace, changed blocks are put into the file
//! that is there. What the newest one does not list is removed at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::contents::Contents;
use super::patch;
use crate::blockfile::target::{SparseFile, Target as _, unwritten};
use crate::ctx::Ctx;
use crate::error::{Fault, Kind};
use crate::pipeline::BackupReader;
use crate::source::Chain;
use crate::source::postgres::capture::recorder::{INCREMENTAL, TABLESPACE_MAP};
use crate::source::postgres::file_list::ListedFile;
use crate::source::postgres::layout::{BLOCKS_PREFIX, DATA_PREFIX, MANIFEST_MEMBER, is_below};

/// The folder of the log: only the newest backup's is wanted.
const WAL_FOLDER: &[u8] = b"pg_wal/";
/// Where a server finds from where it has to replay the log.
const BACKUP_LABEL: &[u8] = b"backup_label";
/// What a line of it begins with that only an incremental backup has.
const INCREMENTAL_FROM: &[u8] = b"INCREMENTAL FROM ";
/// Bytes that are read at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// A data folder that is being built.
pub(in crate::source::postgres) struct Tree {
    root: PathBuf,
    /// The folders of tablespaces that do not stand in the data folder, by their numbers.
    spaces: BTreeMap<u32, PathBuf>,
    /// Files that hold changed blocks on top of older ones.
    patched: BTreeSet<Vec<u8>>,
    /// Files of the newest backup that its list does not have.
    unlisted: BTreeSet<Vec<u8>>,
    /// Bytes written.
    pub(super) written: u64,
    /// What is being read, [`CHUNK_BYTES`].
    chunk: Vec<u8>,
}

impl Tree {
    /// An empty one at `root`, whose folder is made.
    pub(super) fn begin(root: PathBuf, spaces: BTreeMap<u32, PathBuf>) -> anyhow::Result<Tree> {
        folder(&root)?;
        spaces.values().try_for_each(|space| folder(space))?;
        let (patched, unlisted) = (BTreeSet::new(), BTreeSet::new());
        let chunk = vec![0; CHUNK_BYTES];
        Ok(Tree { root, spaces, patched, unlisted, written: 0, chunk })
    }

    /// Lays every backup of a chain over what is there, and removes what the newest does not have.
    ///
    /// # Errors
    /// [`Kind::Integrity`] if a backup is not what it was; what the file system says.
    pub(super) fn build(&mut self, chain: &Chain<'_>, ctx: &Ctx) -> anyhow::Result<()> {
        let mut newest = None;
        for (at, link) in chain.iter().enumerate() {
            newest = Some(self.lay(link, at + 1 == chain.len(), ctx)?);
        }
        let newest = newest.ok_or_else(|| Fault::new(Kind::Integrity, "the chain is empty"))?;
        for path in newest.layout.all_folders()? {
            folder(&self.place(&path)?)?;
        }
        self.finish(&newest, ctx)
    }

    fn lay(
        &mut self,
        link: &BackupReader<'_>,
        is_newest: bool,
        ctx: &Ctx,
    ) -> anyhow::Result<Contents> {
        let mut other = BTreeMap::new();
        let contents = Contents::read(link, ctx, &mut |member, size, body| {
            self.member(member, (size, is_newest), body, &mut other)
        })?;
        // Only the last member says what these are called.
        for (member, path) in contents.layout.other_paths()? {
            if let Some(kept) = other.remove(member) {
                let place = self.place(&path)?;
                make_room(&place)?;
                fs::rename(kept, place)?;
            }
        }
        Ok(contents)
    }

    fn member(
        &mut self,
        member: &str,
        (size, is_newest): (u64, bool),
        body: &mut dyn Read,
        other: &mut BTreeMap<String, PathBuf>,
    ) -> anyhow::Result<()> {
        if let Some(path) = member.strip_prefix(DATA_PREFIX) {
            return self.file(path.as_bytes(), (size, is_newest), body);
        }
        if let Some((path, first)) =
            member.strip_prefix(BLOCKS_PREFIX).and_then(|rest| rest.rsplit_once('/'))
        {
            let first = first.parse().map_err(|_odd| unknown(member))?;
            let file = self.existing(path.as_bytes())?;
            self.written += size;
            return patch::own(&file, first, body);
        }
        let number = member.strip_prefix("other/").ok_or_else(|| unknown(member))?;
        let kept = self.root.join(format!(".bkp-other-{number}"));
        self.write(&kept, body)?;
        other.insert(member.to_owned(), kept);
        Ok(())
    }

    fn file(
        &mut self,
        path: &[u8],
        (size, is_newest): (u64, bool),
        body: &mut dyn Read,
    ) -> anyhow::Result<()> {
        if path.starts_with(WAL_FOLDER) {
            if !is_newest {
                return Ok(());
            }
            self.unlisted.insert(path.to_vec());
        }
        let (above, name) = split(path);
        if let Some(name) = name.strip_prefix(INCREMENTAL) {
            let file = self.existing(&[above, name].concat())?;
            self.written += size;
            return patch::native(&file, body);
        }
        self.patched.remove(path);
        let place = self.place(path)?;
        make_room(&place)?;
        self.write(&place, body)
    }

    fn write(&mut self, place: &Path, body: &mut dyn Read) -> anyhow::Result<()> {
        let file = File::options().write(true).create_new(true).mode(0o600).open(place);
        let file = file.map_err(|error| unwritten(&error, place))?;
        let mut target = SparseFile::new(&file, place);
        loop {
            let count = body.read(&mut self.chunk)?;
            let read = self.chunk.get(..count).unwrap_or_default();
            if read.is_empty() {
                self.written += target.bytes_written;
                return Ok(());
            }
            target.put(target.bytes_written, read)?;
        }
    }

    /// A file of an older backup, to be changed.
    fn existing(&mut self, path: &[u8]) -> anyhow::Result<File> {
        let place = self.place(path)?;
        self.patched.insert(path.to_vec());
        File::options().read(true).write(true).open(&place).map_err(|_missing| {
            let message =
                format!("changed blocks of `{}`, which no older backup has", path.escape_ascii());
            Fault::new(Kind::Integrity, message).into()
        })
    }

    /// Where the file at a path below the data folder is built.
    fn place(&self, path: &[u8]) -> anyhow::Result<PathBuf> {
        if !is_below(path) {
            let message =
                format!("the path `{}` leads out of the data folder", path.escape_ascii());
            return Err(Fault::new(Kind::Integrity, message).into());
        }
        let path = Path::new(std::ffi::OsStr::from_bytes(path));
        for (oid, space) in &self.spaces {
            if let Ok(rest) = path.strip_prefix(format!("pg_tblspc/{oid}")) {
                return Ok(space.join(rest));
            }
        }
        Ok(self.root.join(path))
    }

    /// Removes what the newest backup does not have, gives files their length, and writes the list of what is there
    /// now.
    fn finish(&mut self, newest: &Contents, ctx: &Ctx) -> anyhow::Result<()> {
        let mut files = Vec::new();
        let mut kept: BTreeSet<Vec<u8>> = std::mem::take(&mut self.unlisted);
        for (path, file) in newest.list.by_path() {
            ctx.cancel.check()?;
            if path == TABLESPACE_MAP {
                continue;
            }
            let (above, name) = split(&path);
            let is_native = name.starts_with(INCREMENTAL);
            let path = [above, name.strip_prefix(INCREMENTAL).unwrap_or(name)].concat();
            let listed = match path.as_slice() {
                BACKUP_LABEL => self.label(&self.listed(&path, (file, is_native))?)?,
                _ => self.listed(&path, (file, is_native))?,
            };
            files.push(listed);
            kept.insert(path);
        }
        self.prune(&kept)?;
        let place = self.root.join(MANIFEST_MEMBER);
        self.write(&place, &mut newest.list.of_files(&files)?.as_slice())
    }

    /// The label without what says that the backup is an incremental one, which it is not any more.
    fn label(&self, file: &ListedFile) -> anyhow::Result<ListedFile> {
        let place = self.root.join("backup_label");
        let text = fs::read(&place).map_err(|_missing| differs(BACKUP_LABEL, "is missing"))?;
        let lines = text.split_inclusive(|byte| *byte == b'\n');
        let kept: Vec<u8> =
            lines.filter(|line| !line.starts_with(INCREMENTAL_FROM)).flatten().copied().collect();
        if kept == text {
            return Ok(file.clone());
        }
        fs::remove_file(&place)?;
        let mut file_of_label =
            File::options().write(true).create_new(true).mode(0o600).open(&place)?;
        io::Write::write_all(&mut file_of_label, &kept)?;
        Ok(file.rebuilt("backup_label", kept.len() as u64, crc32c::crc32c(&kept)))
    }

    /// What the list says of a file as it is now. A file that was sent whole is as it was sent; of one that holds
    /// changed blocks the server's checksum is compared if there is one.
    fn listed(
        &self,
        path: &[u8],
        (file, is_native): (&ListedFile, bool),
    ) -> anyhow::Result<ListedFile> {
        if !is_native && !self.patched.contains(path) {
            let length = self.place(path)?.metadata().map(|found| found.len());
            // Not a block of it changed, but it may have become shorter or longer.
            if length.is_ok_and(|length| length == file.size) {
                return Ok(file.clone());
            }
        }
        let opened = File::options().read(true).write(true).open(self.place(path)?);
        let opened = opened.map_err(|_missing| differs(path, "is missing"))?;
        if !is_native {
            opened.set_len(file.size)?;
        }
        let (size, crc) = checksum(&opened)?;
        if !is_native {
            if file.crc32c().is_some_and(|sent| sent != crc) {
                return Err(differs(path, "is not what the server had").into());
            }
            return Ok(file.clone());
        }
        let path = std::str::from_utf8(path).map_err(|_odd| differs(path, "has an odd name"))?;
        Ok(file.rebuilt(path, size, crc))
    }

    /// Removes every file that is not kept.
    fn prune(&self, kept: &BTreeSet<Vec<u8>>) -> anyhow::Result<()> {
        let mut folders = vec![(self.root.clone(), Vec::new())];
        for (oid, space) in &self.spaces {
            folders.push((space.clone(), format!("pg_tblspc/{oid}/").into_bytes()));
        }
        while let Some((folder, path)) = folders.pop() {
            for item in fs::read_dir(&folder)? {
                let item = item?;
                let mut below = path.clone();
                below.extend_from_slice(item.file_name().as_bytes());
                if item.file_type()?.is_dir() {
                    below.push(b'/');
                    folders.push((item.path(), below));
                } else if !kept.contains(&below) {
                    fs::remove_file(item.path())?;
                }
            }
        }
        Ok(())
    }

    /// Makes everything durable.
    pub(super) fn sync(&self) -> anyhow::Result<()> {
        for place in [&self.root].into_iter().chain(self.spaces.values()) {
            rustix::fs::syncfs(File::open(place)?)?;
        }
        Ok(())
    }
}

/// A path up to its last slash, and the rest.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let at = path.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    path.split_at_checked(at).unwrap_or((&[], path))
}

fn folder(place: &Path) -> anyhow::Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(place);
    made.map_err(|error| unwritten(&error, place))
}

/// Makes the folder of a file, and removes what stands in its place.
fn make_room(place: &Path) -> anyhow::Result<()> {
    match fs::remove_file(place) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            place.parent().map_or(Ok(()), folder)
        }
        Err(error) => Err(unwritten(&error, place)),
    }
}

fn checksum(file: &File) -> io::Result<(u64, u32)> {
    let (mut at, mut crc, mut chunk) = (0, 0, vec![0; CHUNK_BYTES]);
    loop {
        let count = file.read_at(&mut chunk, at)?;
        let read = chunk.get(..count).unwrap_or_default();
        if read.is_empty() {
            return Ok((at, crc));
        }
        crc = crc32c::crc32c_append(crc, read);
        at += count as u64;
    }
}

fn unknown(member: &str) -> Fault {
    let message = format!("the base backup has an unknown member `{}`", member.escape_debug());
    Fault::new(Kind::Integrity, message)
}

fn differs(path: &[u8], what: &str) -> Fault {
    Fault::new(Kind::Integrity, format!("`{}` {what} after the restore", path.escape_ascii()))
}
