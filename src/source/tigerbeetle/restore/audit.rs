//! Checks, while blocks stream by in any order, that a file refers to exactly the blocks it contains.

use crate::blockfile::map::{BlockMap, Checksum};
use crate::error::{Fault, Kind};
use crate::source::tigerbeetle::data_file::block::{Block, BlockKind, Reference};
use crate::source::tigerbeetle::data_file::superblock::Superblock;
use crate::source::tigerbeetle::layout::Layout;

/// Follows references without keeping blocks.
#[derive(Debug)]
pub(super) struct Audit {
    /// Blocks of the file that nothing has referred to yet.
    unreferenced: BlockMap,
}

impl Audit {
    /// An audit of the file that `layout` describes.
    pub(super) fn new(layout: &Layout) -> Audit {
        Audit { unreferenced: layout.grid.clone() }
    }

    /// Follows the references of a block that belongs to the file.
    ///
    /// # Errors
    /// [`Kind::Integrity`] if it refers to a block that the file does not have.
    pub(super) fn block(&mut self, layout: &Layout, block: Block<'_>) -> anyhow::Result<()> {
        match block.kind() {
            Some(BlockKind::Value) => Ok(()),
            Some(BlockKind::Index) => {
                if block.values().count() != block.value_count() {
                    return Err(broken("an index block is shorter than it says"));
                }
                block.values().try_for_each(|value| self.refer(layout, value))
            }
            Some(BlockKind::Manifest) => {
                // The log names tables that later entries remove or replace: those may be gone.
                for event in block.tables().filter(|event| layout.wants(event.index)) {
                    self.refer(layout, event.index)?;
                }
                // The oldest block still names the one before it, which is gone.
                block
                    .previous()
                    .filter(|previous| layout.wants(*previous))
                    .map_or(Ok(()), |previous| self.refer(layout, previous))
            }
            Some(BlockKind::FreeSet | BlockKind::ClientSessions) => {
                block.previous().map_or(Ok(()), |previous| self.refer(layout, previous))
            }
            None => Err(broken("a block is of a kind unknown to this bkp")),
        }
    }

    /// Follows the references of the superblock.
    ///
    /// # Errors
    /// As [`Audit::block`].
    pub(super) fn superblock(
        &mut self,
        layout: &Layout,
        superblock: &Superblock,
    ) -> anyhow::Result<()> {
        let roots = [
            superblock.free_set_acquired().last,
            superblock.free_set_released().last,
            superblock.client_sessions().last,
            superblock.manifest_newest(),
            superblock.manifest_oldest(),
        ];
        roots.into_iter().flatten().try_for_each(|root| self.refer(layout, root))
    }

    /// Ends the audit: every block of the file was referred to.
    ///
    /// # Errors
    /// [`Kind::Integrity`] if one was not.
    pub(super) fn finish(self) -> anyhow::Result<()> {
        match self.unreferenced.iter().next() {
            None => Ok(()),
            Some((address, _)) => Err(broken(&format!(
                "{} blocks are unreferenced, for example block {address}",
                self.unreferenced.len()
            ))),
        }
    }

    fn refer(&mut self, layout: &Layout, reference: Reference) -> anyhow::Result<()> {
        if !layout.wants(reference) {
            let Reference { address, checksum } = reference;
            return Err(broken(&format!("block {address} with checksum {checksum} is missing")));
        }
        self.unreferenced.set(reference.address, Checksum(0));
        Ok(())
    }
}

/// A failure of the structure inside authentic bytes.
pub(super) fn broken(what: &str) -> anyhow::Error {
    Fault::new(Kind::Integrity, format!("the snapshot is not a complete data file: {what}")).into()
}
