//! The walk over every block that is live at a checkpoint, from the superblock down.
//!
//! Each block is checked against the checksum in the block that refers to it. Grid blocks are
//! copied on write: one that is live at a checkpoint is not overwritten before the next checkpoint
//! is durable. A block that is not what its reference says was recycled since, and the attempt is
//! over; what it has pushed stays pushed, so the next attempt only moves the difference.

use std::sync::mpsc;

use crate::archive::EntrySink;
use crate::blockfile::map::{BlockMap, Checksum};
use crate::ctx::Ctx;
use crate::source::device::{Buffer, Device};
use crate::source::tigerbeetle::attempt_error::{AttemptError, torn};
use crate::source::tigerbeetle::data_file::block::{Block, BlockKind, Reference, TableChange};
use crate::source::tigerbeetle::data_file::checksum::checksum;
use crate::source::tigerbeetle::data_file::free_set::{contains, decode_free_set};
use crate::source::tigerbeetle::data_file::superblock::{Superblock, Trailer};
use crate::source::tigerbeetle::data_file::zones::{BLOCK_BYTES, GRID_AT, block_offset};
use crate::source::tigerbeetle::layout::block_member;
use crate::source::{Held, SourceError};

/// Most blocks that one read takes.
const RUN_BLOCKS: usize = 8;
/// Buffers that travel between the reading thread and the walk.
const RUNS_IN_FLIGHT: usize = 3;

/// A walk over the live blocks of one checkpoint.
pub(super) struct Walk<'a> {
    device: &'a Device,
    out: &'a mut dyn EntrySink,
    parent: Option<&'a Held>,
    sent: &'a mut BlockMap,
    ctx: &'a Ctx,
    /// The last address in the file.
    address_max: u64,
}

impl<'a> Walk<'a> {
    /// A walk over what is live at `superblock`. `parent` is what the chain of this backup holds
    /// already, `sent` what it has pushed, in this attempt and in earlier ones.
    pub(super) fn new(
        device: &'a Device,
        out: &'a mut dyn EntrySink,
        parent: Option<&'a Held>,
        sent: &'a mut BlockMap,
        ctx: &'a Ctx,
        superblock: &Superblock,
    ) -> Walk<'a> {
        let grid_bytes = superblock.storage_bytes().saturating_sub(GRID_AT);
        Walk { device, out, parent, sent, ctx, address_max: grid_bytes / BLOCK_BYTES as u64 }
    }

    /// Visits every live block and returns them all, pushing those that neither the parent nor `sent` holds.
    pub(super) fn run(&mut self, superblock: &Superblock) -> Result<BlockMap, AttemptError> {
        let mut live = BlockMap::default();
        let free_set = BlockKind::FreeSet;
        let acquired = self.trailer(superblock.free_set_acquired(), free_set, &mut live)?;
        let released = self.trailer(superblock.free_set_released(), free_set, &mut live)?;
        // The blocks of the free set itself are not acquired in it.
        let free_set_blocks = live.clone();
        self.trailer(superblock.client_sessions(), BlockKind::ClientSessions, &mut live)?;
        let tables = self.manifest(superblock, &mut live)?;
        let (mut values, mut outside) = (BlockMap::default(), None);
        let address_max = self.address_max;
        let mut short = false;
        self.visit(&tables, BlockKind::Index, &mut |block| {
            short |= block.values().count() != block.value_count();
            for value in block.values() {
                if (1..=address_max).contains(&value.address) {
                    values.set(value.address, value.checksum);
                } else {
                    outside = Some(value);
                }
            }
        })?;
        outside.map_or(Ok(()), |value| self.check_inside(value).map(|_| ()))?;
        if short {
            return Err(self.unexpected_block("an index block shorter than it says"));
        }
        let unknown = self.unknown(&values);
        self.visit(&unknown, BlockKind::Value, &mut |_block| {})?;
        for (address, checksum) in tables.iter().chain(values.iter()) {
            live.set(address, checksum);
        }
        let blocks_max = superblock.storage_bytes() / BLOCK_BYTES as u64;
        let decode = |encoded: &[u8]| {
            decode_free_set(encoded, blocks_max)
                .ok_or_else(|| self.unexpected_block("the free set"))
        };
        self.check_free_set(&live, &decode(&acquired)?, &decode(&released)?, &free_set_blocks)?;
        Ok(live)
    }

    /// The blocks of `values` that nobody holds yet.
    fn unknown(&self, values: &BlockMap) -> BlockMap {
        let mut unknown = BlockMap::default();
        for (address, checksum) in values.iter() {
            if !self.is_held(Reference { address, checksum }) {
                unknown.set(address, checksum);
            }
        }
        unknown
    }

    fn is_held(&self, Reference { address, checksum }: Reference) -> bool {
        self.sent.holds(address, checksum)
            || self.parent.is_some_and(|parent| parent.blocks.holds(address, checksum))
    }

    /// Pushes a block that nobody holds yet. One of another `kind` than its reference is meant for is
    /// refused: no restore would take it.
    fn push(
        &mut self,
        reference: Reference,
        block: Block<'_>,
        kind: BlockKind,
    ) -> Result<(), AttemptError> {
        if block.kind() != Some(kind) {
            let address = reference.address;
            return Err(
                self.unexpected_block(&format!("a block {address} that is not of kind {kind:?}"))
            );
        }
        if !self.is_held(reference) {
            self.out.entry(&block_member(reference.address), block.bytes())?;
            self.sent.set(reference.address, reference.checksum);
        }
        Ok(())
    }

    /// Reads a chain of blocks from its last one and returns the data in it.
    fn trailer(
        &mut self,
        trailer: Trailer,
        kind: BlockKind,
        live: &mut BlockMap,
    ) -> Result<Vec<u8>, AttemptError> {
        let mut buffer = Buffer::new(BLOCK_BYTES);
        let mut parts = Vec::new();
        let mut next = trailer.last;
        while let Some(reference) = next {
            let reference = self.check_inside(reference)?;
            let block = read_block(self.device, &mut buffer, reference)?;
            self.push(reference, block, kind)?;
            if live.set(reference.address, reference.checksum).is_some() {
                return Err(self.unexpected_block("a cyclic chain of blocks"));
            }
            parts.push(block.body().to_vec());
            next = block.previous();
        }
        parts.reverse();
        let data = parts.concat();
        if data.len() as u64 != trailer.bytes || checksum(&data) != trailer.checksum {
            return Err(self.unexpected_block("a trailer other than the one in the superblock"));
        }
        Ok(data)
    }

    /// Reads the manifest log from its newest block and returns the index blocks of live tables.
    fn manifest(
        &mut self,
        superblock: &Superblock,
        live: &mut BlockMap,
    ) -> Result<BlockMap, AttemptError> {
        let mut buffer = Buffer::new(BLOCK_BYTES);
        let (mut tables, mut removed) = (BlockMap::default(), BlockMap::default());
        let mut next = superblock.manifest_newest();
        for _block in 0..superblock.manifest_blocks() {
            let reference =
                next.ok_or_else(|| self.unexpected_block("a manifest log that ends early"))?;
            let reference = self.check_inside(reference)?;
            let block = read_block(self.device, &mut buffer, reference)?;
            self.push(reference, block, BlockKind::Manifest)?;
            live.set(reference.address, reference.checksum);
            for event in block.tables() {
                let Reference { address, checksum } = self.check_inside(event.index)?;
                // Newest first: a removal hides everything older down to the table's insertion.
                match event.change {
                    TableChange::Remove => {
                        removed.set(address, Checksum(1));
                    }
                    TableChange::Insert if removed.get(address).is_some() => {
                        removed.set(address, Checksum(0));
                    }
                    TableChange::Update if removed.get(address).is_some() => {}
                    TableChange::Insert | TableChange::Update => {
                        if tables.get(address).is_none() {
                            tables.set(address, checksum);
                        }
                    }
                }
            }
            let last = superblock.manifest_oldest() == Some(reference);
            next = block.previous().filter(|_| !last);
        }
        if next.is_some() {
            return Err(self.unexpected_block("a manifest log longer than the superblock says"));
        }
        Ok(tables)
    }

    /// Reads the blocks of one kind in `wanted` by ascending address, checks and pushes them, and shows them to
    /// `show`. Reading and checking run ahead on a thread of their own.
    fn visit(
        &mut self,
        wanted: &BlockMap,
        kind: BlockKind,
        show: &mut dyn FnMut(Block<'_>),
    ) -> Result<(), AttemptError> {
        let (full_tx, full_rx) = mpsc::sync_channel(RUNS_IN_FLIGHT);
        let (empty_tx, empty_rx) = mpsc::channel();
        for _buffer in 0..RUNS_IN_FLIGHT {
            // The receiver lives until the end of this function.
            let _unreachable = empty_tx.send(Buffer::new(RUN_BLOCKS * BLOCK_BYTES));
        }
        let device = self.device;
        std::thread::scope(|scope| {
            // Owned here, so that an early return drops it before the scope waits for the thread.
            let empty_tx = empty_tx;
            let reader = std::thread::Builder::new().name("read".into());
            let spawned = reader.spawn_scoped(scope, move || {
                for run in BlockRuns::new(wanted) {
                    let Ok(mut buffer) = empty_rx.recv() else {
                        return;
                    };
                    let outcome = read_run(device, &mut buffer, &run);
                    if full_tx.send((run, buffer, outcome)).is_err() {
                        return;
                    }
                }
            });
            spawned.map_err(|error| AttemptError::Fatal(error.into()))?;
            // Dropping both ends of ours ends the thread, whatever it is waiting for.
            for (run, buffer, outcome) in full_rx {
                self.ctx.cancel.check().map_err(anyhow::Error::from)?;
                outcome?;
                let blocks = buffer.slice(run.len() * BLOCK_BYTES).chunks(BLOCK_BYTES);
                for (reference, bytes) in run.iter().zip(blocks) {
                    let block = Block::trusted(bytes);
                    show(block);
                    self.push(*reference, block, kind)?;
                }
                self.ctx.monitor.advance((run.len() * BLOCK_BYTES) as u64);
                let _reader_is_done = empty_tx.send(buffer);
            }
            Ok(())
        })
    }

    /// The free set and the walk must agree on what is live. They always do for a layout that this
    /// module understands; if not, the file has something that it does not know, and a capture
    /// would be incomplete.
    fn check_free_set(
        &self,
        live: &BlockMap,
        acquired: &[u64],
        released: &[u64],
        free_set_blocks: &BlockMap,
    ) -> Result<(), AttemptError> {
        let expected = |address| {
            (contains(acquired, address) && !contains(released, address))
                || free_set_blocks.get(address).is_some()
        };
        let extra = live.iter().filter(|(address, _)| !expected(*address)).count();
        let addresses = (1..=acquired.len() as u64 * 64).filter(|address| expected(*address));
        let missing = addresses.filter(|address| live.get(*address).is_none()).count();
        if extra + missing > 0 {
            let what =
                format!("{missing} unreferenced live blocks, {extra} referenced free blocks");
            return Err(self.unexpected_block(&what));
        }
        Ok(())
    }

    /// Refuses a reference out of the file: a block map grows with the addresses in it.
    fn check_inside(&self, reference: Reference) -> Result<Reference, AttemptError> {
        if (1..=self.address_max).contains(&reference.address) {
            return Ok(reference);
        }
        let Reference { address, .. } = reference;
        Err(self.unexpected_block(&format!("a reference to block {address} beyond its end")))
    }

    fn unexpected_block(&self, what: &str) -> AttemptError {
        let error = SourceError::Unsupported {
            what: self.device.path().display().to_string(),
            reason: format!("the file has {what}: its layout is unknown to this bkp"),
        };
        AttemptError::Fatal(error.into())
    }
}

/// Reads and checks one block.
pub(super) fn read_block<'b>(
    device: &Device,
    buffer: &'b mut Buffer,
    reference: Reference,
) -> Result<Block<'b>, AttemptError> {
    let bytes = device.read(buffer, block_offset(reference.address), BLOCK_BYTES)?;
    Block::check(bytes, reference).ok_or_else(|| stale(reference))
}

/// A block that was recycled since, or is damaged.
fn stale(reference: Reference) -> AttemptError {
    torn(format!("block {} is not the one its reference names", reference.address))
}

/// Reads and checks a run of neighbouring blocks.
fn read_run(device: &Device, buffer: &mut Buffer, run: &[Reference]) -> Result<(), AttemptError> {
    let Some(first) = run.first() else {
        return Ok(());
    };
    let bytes = device.read(buffer, block_offset(first.address), run.len() * BLOCK_BYTES)?;
    for (index, reference) in run.iter().enumerate() {
        let block =
            bytes.get(index * BLOCK_BYTES..).and_then(|rest| Block::check(rest, *reference));
        if block.is_none() {
            return Err(stale(*reference));
        }
    }
    Ok(())
}

/// Cuts a map into runs of neighbouring addresses.
struct BlockRuns<I: Iterator<Item = (u64, Checksum)>> {
    blocks: std::iter::Peekable<I>,
}

impl<'m> BlockRuns<Box<dyn Iterator<Item = (u64, Checksum)> + Send + 'm>> {
    fn new(map: &'m BlockMap) -> Self {
        let blocks: Box<dyn Iterator<Item = _> + Send + 'm> = Box::new(map.iter());
        BlockRuns { blocks: blocks.peekable() }
    }
}

impl<I: Iterator<Item = (u64, Checksum)>> Iterator for BlockRuns<I> {
    type Item = Vec<Reference>;

    fn next(&mut self) -> Option<Vec<Reference>> {
        let (address, checksum) = self.blocks.next()?;
        let mut run = vec![Reference { address, checksum }];
        while run.len() < RUN_BLOCKS {
            let neighbour = address + run.len() as u64;
            let Some((address, checksum)) = self.blocks.next_if(|(next, _)| *next == neighbour)
            else {
                break;
            };
            run.push(Reference { address, checksum });
        }
        Some(run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_neighbours_of_limited_length() {
        let mut map = BlockMap::default();
        for address in (1..=10).chain([12, 13, 5000]) {
            map.set(address, Checksum(1));
        }
        let runs: Vec<Vec<u64>> = BlockRuns::new(&map)
            .map(|run| run.iter().map(|block| block.address).collect())
            .collect();
        assert_eq!(runs, [vec![1, 2, 3, 4, 5, 6, 7, 8], vec![9, 10], vec![12, 13], vec![5000]]);
    }
}
