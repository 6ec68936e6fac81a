//! From the files that a server sends into the archive.

use std::collections::HashMap;
use std::io::{self, Read};

use crate::archive::{EntrySink, ForeignKind, ForeignMember};
use crate::error::{Fault, FirstError, Kind};
use crate::source::postgres::block_map::{
    BLOCK_BYTES, BlockHasher, ChangedBlocks, NewMap, ParentSums, SUM_BYTES,
};
use crate::source::postgres::file_list::FileList;
use crate::source::postgres::layout::{BLOCKS_PREFIX, DATA_PREFIX, Layout, is_below};

/// Bytes that are read at a time.
const CHUNK_BYTES: usize = 256 << 10;
/// Blocks that are compared at a time.
const PART_BLOCKS: usize = 2048;

/// Where the server lists the links to its tablespaces, which bkp makes itself.
pub(in crate::source::postgres) const TABLESPACE_MAP: &[u8] = b"tablespace_map";
/// What a server's own name of a file with changed blocks begins with.
pub(in crate::source::postgres) const INCREMENTAL: &[u8] = b"INCREMENTAL.";

/// How changed blocks are found.
#[derive(Debug)]
pub(super) enum Method {
    /// By the server, which knows them.
    Native,
    /// By hashes, compared with those of the parent if there is one.
    Blocks(BlockHasher, Option<Box<ParentSums>>),
    /// Not at all.
    None,
}

/// Puts files into the archive, and remembers what the server has to confirm at the end.
pub(super) struct Recorder<'a> {
    pub(super) out: &'a mut dyn EntrySink,
    pub(super) layout: Layout,
    pub(super) method: Method,
    /// The map that is being made, where blocks are hashed.
    pub(super) map: Option<NewMap>,
    /// Size and CRC-32C of each file, by its path.
    sums: HashMap<Vec<u8>, (u64, u32)>,
    /// Bytes of all files.
    pub(super) bytes: u64,
    pub(super) first_error: FirstError,
    chunk: Vec<u8>,
}

impl<'a> Recorder<'a> {
    pub(super) fn new(
        out: &'a mut dyn EntrySink,
        method: Method,
        map: Option<NewMap>,
        first_error: FirstError,
    ) -> Self {
        Recorder {
            out,
            layout: Layout::default(),
            method,
            map,
            sums: HashMap::new(),
            bytes: 0,
            first_error,
            chunk: vec![0; CHUNK_BYTES],
        }
    }

    /// Takes a member of the tar of the tablespace with this number, or of the data folder.
    pub(super) fn member(
        &mut self,
        tablespace: Option<u32>,
        member: &ForeignMember,
        body: &mut dyn Read,
    ) -> anyhow::Result<()> {
        let path = member.path.strip_prefix(b"./").unwrap_or(&member.path);
        let path = match tablespace {
            None => path.to_vec(),
            Some(oid) => [format!("pg_tblspc/{oid}/").as_bytes(), path].concat(),
        };
        match member.kind {
            ForeignKind::Folder => self.layout.add_folder(&path),
            // The links to tablespaces.
            ForeignKind::Other => {}
            ForeignKind::File if path == TABLESPACE_MAP => {
                self.left_out(&path, member.bytes, body)?;
            }
            ForeignKind::File => self.file(&path, member.bytes, body)?,
        }
        Ok(())
    }

    fn file(&mut self, path: &[u8], size: u64, body: &mut dyn Read) -> anyhow::Result<()> {
        if !is_below(path) {
            let message = format!("the server sends a file `{}`", path.escape_ascii());
            let hint = "a path in a base backup stays below the data folder; report this";
            return Err(Fault::new(Kind::Source, message).hint(hint).into());
        }
        let name = self.layout.member_of(path);
        let crc = match &self.method {
            // The names of other members are of this backup alone: the same one is another file in the parent.
            Method::Blocks(_, Some(parent))
                if name.starts_with(DATA_PREFIX) && NewMap::takes(size) && parent.has(&name) =>
            {
                self.changed(&name, size, body)?
            }
            Method::Blocks(..) | Method::Native | Method::None => self.whole(&name, size, body)?,
        };
        self.bytes += size;
        self.sums.insert(path.to_vec(), (size, crc));
        Ok(())
    }

    /// A file that is not kept, and is still to be in the server's list.
    fn left_out(&mut self, path: &[u8], size: u64, body: &mut dyn Read) -> anyhow::Result<()> {
        let mut content = Vec::new();
        body.read_to_end(&mut content).map_err(|error| self.first_error.or(error))?;
        self.sums.insert(path.to_vec(), (size, crc32c::crc32c(&content)));
        Ok(())
    }

    /// A file with all its bytes. Returns its CRC-32C.
    fn whole(&mut self, name: &str, size: u64, body: &mut dyn Read) -> anyhow::Result<u32> {
        let (mut crc, mut left, mut sums) = (0, size, Vec::new());
        let hasher = match &self.method {
            Method::Blocks(hasher, _) if NewMap::takes(size) => Some(hasher.clone()),
            Method::Blocks(..) | Method::Native | Method::None => None,
        };
        let chunk = &mut self.chunk;
        self.out
            .stream(name, size, &mut |out| {
                while left > 0 {
                    let part = part(chunk, left)?;
                    body.read_exact(part)?;
                    crc = crc32c::crc32c_append(crc, part);
                    if let Some(hasher) = &hasher {
                        hasher.sums(part, &mut sums);
                    }
                    out.write_all(part)?;
                    left -= part.len() as u64;
                }
                Ok(())
            })
            .map_err(|error| self.first_error.or(error))?;
        if let Some(map) = self.map.as_mut().filter(|_| NewMap::takes(size)) {
            map.add(name, size, &sums)?;
        }
        Ok(crc)
    }

    /// Those blocks of a file that have changed since the parent.
    fn changed(&mut self, name: &str, size: u64, body: &mut dyn Read) -> anyhow::Result<u32> {
        let Method::Blocks(hasher, Some(parent)) = &self.method else {
            return self.whole(name, size, body);
        };
        let (mut crc, mut left, mut all, mut first) = (0, size, Vec::new(), 0);
        let mut buffer = vec![0; PART_BLOCKS * BLOCK_BYTES];
        while left > 0 {
            let part = part(&mut buffer, left)?;
            body.read_exact(part).map_err(|error| self.first_error.or(error))?;
            crc = crc32c::crc32c_append(crc, part);
            let from = all.len();
            hasher.sums(part, &mut all);
            let sums = all.get(from..).unwrap_or_default();
            let before = parent.sums(name, first, PART_BLOCKS)?;
            let changed = ChangedBlocks::of(part, sums, &before);
            if !changed.is_empty() {
                let path = name.strip_prefix(DATA_PREFIX).unwrap_or(name);
                let entry = format!("{BLOCKS_PREFIX}{path}/{first}");
                self.out.entry(&entry, &changed.encode())?;
            }
            first += sums.len() / SUM_BYTES;
            left -= part.len() as u64;
        }
        if let Some(map) = &mut self.map {
            map.add(name, size, &all)?;
        }
        Ok(crc)
    }

    /// Compares what arrived with what the server says that it sent.
    ///
    /// # Errors
    /// [`Kind::Source`] if a file is missing or differs.
    pub(super) fn confirm(&self, list: &FileList) -> anyhow::Result<()> {
        for (path, file) in list.by_path() {
            let arrived = self.sums.get(&path);
            let is_whole = arrived.is_some_and(|(size, crc)| {
                *size == file.size && file.crc32c().is_none_or(|sent| sent == *crc)
            });
            if !is_whole {
                let what = if arrived.is_some() { "arrived damaged" } else { "did not arrive" };
                let message = format!("`{}` {what}, by the server's own list", path.escape_ascii());
                let hint = "run it again; if it stays, check the network and the server's memory";
                return Err(Fault::new(Kind::Source, message).hint(hint).into());
            }
        }
        Ok(())
    }

    /// Files that arrived.
    pub(super) fn files(&self) -> usize {
        self.sums.len()
    }
}

/// The beginning of `buffer` for what is next of `left` bytes.
fn part(buffer: &mut [u8], left: u64) -> io::Result<&mut [u8]> {
    let length = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
    buffer.get_mut(..length).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}
