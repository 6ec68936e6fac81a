//! From a chain of snapshots back to one data file.
//!
//! The newest snapshot's block map says what the file consists of. Each snapshot of the chain
//! streams by once, oldest first; a block is placed when its address and checksum are wanted, so
//! every byte is written once and nothing stale is ever in the file. Everything is checked on the
//! way: each block against its checksum, each reference, the hash chain of the log. The superblock,
//! which alone makes the file a data file, comes last.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::audit::{Audit, broken};
use super::guard;
use crate::blockfile::map::{BlockMap, Checksum};
use crate::blockfile::target::{NullTarget, SparseFile, Target};
use crate::ctx::Ctx;
use crate::fs::staged_file::StagedFile;
use crate::source::tigerbeetle::data_file::block::{Block, Reference};
use crate::source::tigerbeetle::data_file::prepare::{PrepareHeader, reply_bytes};
use crate::source::tigerbeetle::data_file::rings::restored_header_ring;
use crate::source::tigerbeetle::data_file::superblock::Superblock;
use crate::source::tigerbeetle::data_file::zones::{
    HEADER_BYTES, MESSAGE_BYTES, REPLIES_AT, SLOTS, SUPERBLOCK_COPIES, SUPERBLOCK_STRIDE,
    WAL_HEADERS_AT, WAL_PREPARES_AT, block_offset,
};
use crate::source::tigerbeetle::layout::{Hex, LAYOUT_MEMBER, Layout, LayoutFile as _, Member};
use crate::source::{Chain, DecodeTools, RestoreRequest, Restored};

/// Decodes a chain and checks its structure.
pub(crate) fn decode(chain: &Chain<'_>, _tools: &DecodeTools<'_>, ctx: &Ctx) -> anyhow::Result<()> {
    assemble(chain, &mut NullTarget, ctx).map(|_assembled| ())
}

/// What a chain was assembled to: everything is in place but the superblock.
pub(crate) struct Assembled {
    pub(crate) superblock: Superblock,
    pub(crate) file_bytes: u64,
}

/// Streams a chain into `target`, all but the superblock.
fn assemble(chain: &Chain<'_>, target: &mut dyn Target, ctx: &Ctx) -> anyhow::Result<Assembled> {
    let Some((newest, _older)) = chain.split_last() else {
        return Err(broken("its chain is empty"));
    };
    let layout = newest.map_or_copy(ctx, LAYOUT_MEMBER, &mut |input| Layout::read(input))?;
    let mut assembly = Assembly::new(&layout, target);
    for reader in chain {
        let is_newest = reader.manifest().id == newest.manifest().id;
        reader.entries(ctx, &mut |name, size, body| {
            let member = Member::parse(name);
            let member = member.ok_or_else(|| broken(&format!("it has a member `{name}`")))?;
            assembly.member(member, size, body, is_newest)
        })?;
    }
    assembly.finish()
}

/// Puts members in their places and knows what is still missing.
struct Assembly<'a> {
    layout: &'a Layout,
    target: &'a mut dyn Target,
    audit: Audit,
    blocks_missing: BlockMap,
    prepares: BTreeMap<u64, PrepareHeader>,
    replies_missing: BTreeMap<u64, Checksum>,
    superblock: Option<Superblock>,
    headers: Vec<u8>,
    layout_seen: bool,
    buffer: Vec<u8>,
}

impl<'a> Assembly<'a> {
    fn new(layout: &'a Layout, target: &'a mut dyn Target) -> Self {
        Assembly {
            layout,
            target,
            audit: Audit::new(layout),
            blocks_missing: layout.grid.clone(),
            prepares: BTreeMap::new(),
            replies_missing: layout.replies.iter().map(|(slot, Hex(sum))| (*slot, *sum)).collect(),
            superblock: None,
            headers: Vec::new(),
            layout_seen: false,
            buffer: Vec::with_capacity(MESSAGE_BYTES),
        }
    }

    /// Takes one member. Which of several with one name is meant, the block map says by checksum;
    /// only superblock, headers and map are those of the newest snapshot in any case.
    fn member(
        &mut self,
        member: Member,
        size: u64,
        body: &mut dyn Read,
        is_newest: bool,
    ) -> anyhow::Result<()> {
        if self.layout_seen && is_newest {
            return Err(broken("it has data after its block map"));
        }
        match member {
            Member::Layout => {
                self.layout_seen = is_newest;
                return if is_newest { self.compare_layout(body) } else { Ok(()) };
            }
            Member::Superblock | Member::Headers if !is_newest => return Ok(()),
            Member::Superblock
            | Member::Headers
            | Member::Block(_)
            | Member::Prepare(_)
            | Member::Reply(_) => {}
        }
        let bytes = self.load(size, body)?;
        let taken = match member {
            Member::Block(address) => self.block(address, &bytes),
            Member::Prepare(op) => self.prepare(op, &bytes),
            Member::Reply(slot) => self.reply(slot, &bytes),
            Member::Superblock => self.take_superblock(&bytes),
            Member::Headers => {
                self.headers.clone_from(&bytes);
                Ok(())
            }
            Member::Layout => Ok(()),
        };
        self.buffer = bytes;
        taken
    }

    /// Reads a member into the buffer, which the caller gives back.
    fn load(&mut self, size: u64, body: &mut dyn Read) -> anyhow::Result<Vec<u8>> {
        if size > MESSAGE_BYTES as u64 {
            return Err(broken(&format!("a member of {size} bytes exceeds the maximum")));
        }
        let mut bytes = std::mem::take(&mut self.buffer);
        bytes.clear();
        body.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn block(&mut self, address: u64, bytes: &[u8]) -> anyhow::Result<()> {
        let claim = Block::claim(bytes).filter(|claim| claim.address == address);
        let Some(Reference { checksum, .. }) = claim else {
            return Err(broken(&format!("the member of block {address} is not that block")));
        };
        if !self.blocks_missing.holds(address, checksum) {
            // Superseded, or no longer live at the end of the chain.
            return Ok(());
        }
        let block = Block::check(bytes, Reference { address, checksum });
        let block = block.filter(|block| block.bytes().len() == bytes.len());
        let block = block.ok_or_else(|| broken(&format!("block {address} is damaged")))?;
        self.audit.block(self.layout, block)?;
        self.target.put(block_offset(address), bytes)?;
        self.blocks_missing.set(address, Checksum(0));
        Ok(())
    }

    fn prepare(&mut self, op: u64, bytes: &[u8]) -> anyhow::Result<()> {
        let first = self.layout.wal.first().map_or(0, |(first, _)| *first);
        let index = usize::try_from(op.wrapping_sub(first)).unwrap_or(usize::MAX);
        let wanted = self.layout.wal.get(index).map(|(_, Hex(checksum))| *checksum);
        let header = PrepareHeader::read(bytes).filter(|header| Some(header.checksum()) == wanted);
        let Some(header) = header else {
            return Ok(());
        };
        let slot = op % SLOTS;
        let whole = header.fits(self.layout.cluster(), slot)
            && header.op() == op
            && header.size() == bytes.len()
            && header.has_body(bytes);
        if !whole {
            return Err(broken(&format!("op {op} of the log is damaged")));
        }
        self.target.put(WAL_PREPARES_AT + slot * MESSAGE_BYTES as u64, bytes)?;
        self.prepares.insert(op, header);
        Ok(())
    }

    fn reply(&mut self, slot: u64, bytes: &[u8]) -> anyhow::Result<()> {
        let found = reply_bytes(bytes).filter(|(_, size)| *size == bytes.len());
        let (checksum, _) = found.ok_or_else(|| broken(&format!("reply {slot} is damaged")))?;
        if self.replies_missing.get(&slot) == Some(&checksum) {
            self.target.put(REPLIES_AT + slot * MESSAGE_BYTES as u64, bytes)?;
            self.replies_missing.remove(&slot);
        }
        Ok(())
    }

    fn take_superblock(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let found = Superblock::parse(bytes).ok_or_else(|| broken("its superblock is damaged"))?;
        if Hex(found.checksum()) == self.layout.superblock {
            self.superblock = Some(found);
        }
        Ok(())
    }

    /// The map that travelled by itself and the one in the tar must be the same.
    fn compare_layout(&self, body: &mut dyn Read) -> anyhow::Result<()> {
        let inside = Layout::read(body)?;
        let same = inside.superblock == self.layout.superblock
            && inside.wal == self.layout.wal
            && inside.replies == self.layout.replies
            && inside.file_bytes == self.layout.file_bytes
            && inside.grid.iter().eq(self.layout.grid.iter());
        if same { Ok(()) } else { Err(broken("its two block maps differ")) }
    }

    fn finish(mut self) -> anyhow::Result<Assembled> {
        if !self.layout_seen {
            return Err(broken("it ends before its block map"));
        }
        if let Some((address, checksum)) = self.blocks_missing.iter().next() {
            let count = self.blocks_missing.len();
            return Err(broken(&format!(
                "{count} blocks are missing, for example block {address} ({checksum})"
            )));
        }
        if let Some(slot) = self.replies_missing.keys().next() {
            return Err(broken(&format!("reply {slot} is missing")));
        }
        let superblock = self.superblock.take().ok_or_else(|| broken("it has no superblock"))?;
        self.audit.superblock(self.layout, &superblock)?;
        self.finish_log(&superblock)?;
        self.audit.finish()?;
        Ok(Assembled { superblock, file_bytes: self.layout.file_bytes })
    }

    /// Checks the log's hash chain against the superblock, and fills the slots that it leaves.
    fn finish_log(&mut self, superblock: &Superblock) -> anyhow::Result<()> {
        let checkpoint = superblock.checkpoint();
        for (op, _) in &self.layout.wal {
            let Some(header) = self.prepares.get(op) else {
                return Err(broken(&format!("op {op} of the log is missing")));
            };
            let before = op.checked_sub(1).and_then(|before| self.prepares.get(&before));
            let chained = before.is_none_or(|before| before.checksum() == header.parent());
            let anchored = *op != checkpoint.op() + 1 || header.parent() == checkpoint.checksum();
            if !chained || !anchored {
                return Err(broken(&format!(
                    "op {op} of the log does not follow the one before it"
                )));
            }
        }
        let headers = restored_header_ring(superblock.cluster(), &self.prepares);
        let mut ring = Vec::with_capacity(HEADER_BYTES * headers.len());
        for (slot, header) in (0..SLOTS).zip(&headers) {
            if header.is_reserved() {
                self.target.put(WAL_PREPARES_AT + slot * MESSAGE_BYTES as u64, header.bytes())?;
            }
            ring.extend_from_slice(header.bytes());
        }
        if self.headers != ring {
            return Err(broken("its header ring does not match its log"));
        }
        self.target.put(WAL_HEADERS_AT, &ring)
    }
}

/// Brings a chain back as a data file.
pub(crate) fn restore(
    chain: &Chain<'_>,
    request: &RestoreRequest,
    ctx: &Ctx,
) -> anyhow::Result<Restored> {
    let staged = StagedFile::beside(&request.target)?;
    let identity = |superblock: Superblock| match request.replica {
        Some(replica) => {
            let count = superblock.replica_count();
            superblock.with_replica(replica, count)
        }
        None => superblock,
    };
    let written = write_file(chain, staged.file(), &request.target, ctx, &identity)?;
    // From here to the end no server can start on what is moved aside.
    let _lock = if request.force { guard::lock_data_file(&request.target)? } else { None };
    let moved_aside = staged.publish_at(&request.target, request.force)?;
    let id = chain.last().map(|newest| newest.manifest().id);
    Ok(Restored {
        target: request.target.clone(),
        bytes: written.file_bytes,
        bytes_written: written.bytes_written,
        moved_aside,
        next: id.map_or_else(String::new, |id| guard::next_steps(&written.superblock, request, id)),
        lost: Vec::new(),
    })
}

/// A data file that was written and is durable.
pub(crate) struct WrittenFile {
    pub(crate) superblock: Superblock,
    pub(crate) file_bytes: u64,
    pub(crate) bytes_written: u64,
}

/// Writes a whole data file and makes it durable; `place` is its path, for messages.
pub(crate) fn write_file(
    chain: &Chain<'_>,
    file: &File,
    place: &Path,
    ctx: &Ctx,
    identity: &dyn Fn(Superblock) -> Superblock,
) -> anyhow::Result<WrittenFile> {
    let mut target = SparseFile::new(file, place);
    let Assembled { superblock, file_bytes } = assemble(chain, &mut target, ctx)?;
    file.set_len(file_bytes)?;
    file.sync_data()?;
    let superblock = identity(superblock);
    for copy in 0..SUPERBLOCK_COPIES {
        let bytes = superblock.clone().with_copy(copy);
        target.put(u64::from(copy) * SUPERBLOCK_STRIDE, bytes.bytes())?;
    }
    file.sync_all()?;
    Ok(WrittenFile { superblock, file_bytes, bytes_written: target.bytes_written })
}
