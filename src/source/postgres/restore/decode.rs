//! Reads a chain without restoring it: every file that was sent whole is compared with the server's list, and changed
//! blocks are understood.

use std::collections::BTreeMap;
use std::io::Read;

use super::contents::Contents;
use crate::ctx::Ctx;
use crate::error::{Fault, Kind};
use crate::pipeline::BackupReader;
use crate::source::postgres::block_map::ChangedBlocks;
use crate::source::postgres::capture::recorder::TABLESPACE_MAP;
use crate::source::postgres::layout::{BLOCKS_PREFIX, DATA_PREFIX};
use crate::source::{Chain, DecodeTools};

/// Bytes that are read at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// Size and CRC-32C of files, by their members.
type Sums = BTreeMap<String, (u64, u32)>;

/// Decodes every backup of a chain.
///
/// # Errors
/// [`Kind::Integrity`] if one is not what it was.
pub(in crate::source::postgres) fn decode(
    chain: &Chain<'_>,
    _tools: &DecodeTools<'_>,
    ctx: &Ctx,
) -> anyhow::Result<()> {
    chain.iter().try_for_each(|link| decode_link(link, ctx))
}

fn decode_link(link: &BackupReader<'_>, ctx: &Ctx) -> anyhow::Result<()> {
    let broken = |what: String| Fault::new(Kind::Integrity, format!("the base backup {what}"));
    let mut sums = Sums::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    let Contents { layout, list } = Contents::read(link, ctx, &mut |member, _size, body| {
        if member.starts_with(BLOCKS_PREFIX) {
            let mut bytes = Vec::new();
            body.read_to_end(&mut bytes)?;
            return ChangedBlocks::decode(&bytes, &mut |_number, _block| Ok(()));
        }
        sums.insert(member.to_owned(), sum(body, &mut chunk)?);
        Ok(())
    })?;
    let other: BTreeMap<Vec<u8>, &str> =
        layout.other_paths()?.into_iter().map(|(member, path)| (path, member)).collect();
    for (path, file) in list.by_path() {
        let plain = || std::str::from_utf8(&path).ok().map(|path| format!("{DATA_PREFIX}{path}"));
        let member = other.get(&path).map(|member| (*member).to_owned()).or_else(plain);
        // An increment has no file that did not change.
        let Some((size, crc)) = member.and_then(|member| sums.get(&member)) else { continue };
        let is_same = *size == file.size && file.crc32c().is_none_or(|sent| sent == *crc);
        if path != TABLESPACE_MAP && !is_same {
            return Err(
                broken(format!("has another `{}` than it lists", path.escape_ascii())).into()
            );
        }
    }
    let is_full = link.manifest().parent.is_none();
    let missing = list.by_path().into_keys().find(|path| {
        let plain = std::str::from_utf8(path).ok().map(|path| format!("{DATA_PREFIX}{path}"));
        path.as_slice() != TABLESPACE_MAP
            && !other.contains_key(path)
            && plain.is_none_or(|member| !sums.contains_key(&member))
    });
    match missing.filter(|_| is_full) {
        None => Ok(()),
        Some(path) => Err(broken(format!("lacks `{}`", path.escape_ascii())).into()),
    }
}

/// Size and CRC-32C of what is read.
fn sum(body: &mut dyn Read, chunk: &mut [u8]) -> std::io::Result<(u64, u32)> {
    let (mut size, mut crc) = (0, 0);
    loop {
        let count = body.read(chunk)?;
        let read = chunk.get(..count).unwrap_or_default();
        if read.is_empty() {
            return Ok((size, crc));
        }
        size += count as u64;
        crc = crc32c::crc32c_append(crc, read);
    }
}
