//! Chains of backups, and how the next one goes on from one.

use crate::ctx::Ctx;
use crate::pipeline::BackupReader;

/// The chain of a backup, base first, each opened on demand.
pub type Chain<'a> = [BackupReader<'a>];

/// How the next backup goes on from a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Continuation {
    /// It builds on the first so many links: on all of them, or it has again what the others add.
    Onto(usize),
    /// It begins a new chain.
    Full {
        /// On so many links it builds if an increment was asked for all the same.
        else_onto: usize,
    },
}

/// A chain is continued from this many links no more: a restore reads all of them.
pub const CHAIN_LINKS_MAX: usize = 28;

/// Every backup builds on the one before it, until the chain is long.
///
/// # Errors
/// None.
pub fn link_by_link(chain: &Chain<'_>, _ctx: &Ctx) -> anyhow::Result<Continuation> {
    let links = chain.len();
    Ok(if links < CHAIN_LINKS_MAX {
        Continuation::Onto(links)
    } else {
        Continuation::Full { else_onto: links }
    })
}
