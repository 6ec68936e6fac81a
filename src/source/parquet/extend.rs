//! On which earlier replica the next one builds.
//!
//! A tier of cold files grows for years, and may not be copied again every month only because a chain must not
//! become long. So a chain of [`CHAIN_LINKS_MAX`] links is shortened instead: the next replica builds on one
//! further back, and has again what the links in between had, which is little where they are chosen well. The
//! links that nothing builds on any more go when the retention says so, and what was deleted with them.

use std::collections::BTreeMap;

use super::copy::CARRIED_MAX;
use super::inventory::Inventory;
use crate::ctx::Ctx;
use crate::pipeline::BackupReader;
use crate::source::{CHAIN_LINKS_MAX, Chain, Continuation};

/// Bytes of files that are not there any more for which a chain is not given up.
const DEAD_BYTES_MIN: u64 = 256 << 20;

/// How much of a link is still needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LinkUse {
    /// Bytes of files that it has.
    bytes: u64,
    /// Bytes of those that the newest replica refers to.
    needed_bytes: u64,
    /// How many those are.
    needed_files: usize,
}

/// How the next replica goes on from a chain.
///
/// # Errors
/// What reading the inventories fails with.
pub(super) fn extend(chain: &Chain<'_>, ctx: &Ctx) -> anyhow::Result<Continuation> {
    let inventory = Inventory::of(chain, ctx)?;
    let of = |link: &BackupReader<'_>| {
        let manifest = link.manifest();
        let bytes = manifest.capture.get("copied_bytes").and_then(serde_json::Value::as_u64);
        let held = inventory.0.values().filter(|file| file.backup == manifest.id);
        // Files of the same content share an object.
        let objects: BTreeMap<_, _> = held.map(|file| (&file.object, file.bytes)).collect();
        let needed_bytes = objects.values().fold(0, |sum: u64, bytes| sum.saturating_add(*bytes));
        let bytes = bytes.unwrap_or(needed_bytes);
        LinkUse { bytes, needed_bytes, needed_files: objects.len() }
    };
    Ok(choose(&chain.iter().map(of).collect::<Vec<_>>()))
}

/// Continues a chain, or gives it up if most of what it stores is of files that are gone, and one backup has room
/// for the others.
fn choose(links: &[LinkUse]) -> Continuation {
    let sum = |of: fn(&LinkUse) -> u64| links.iter().map(of).fold(0, u64::saturating_add);
    let needed = sum(|link| link.needed_bytes);
    let dead = sum(|link| link.bytes).saturating_sub(needed);
    let files = links.iter().map(|link| link.needed_files).sum::<usize>();
    let onto = links_kept(links);
    if dead > needed.max(DEAD_BYTES_MIN) && files <= CARRIED_MAX {
        return Continuation::Full { else_onto: onto };
    }
    Continuation::Onto(onto)
}

/// On how many links to go on: on all of them, or where the chain is long up to the link after which the fewest
/// bytes have to be copied again for the square of the links that are left out. Over a year of hourly runs that
/// copies each byte four times; for the links themselves, not squared, it is seven times, since links are left out
/// a few at a time. The base always stays: it is the largest.
fn links_kept(links: &[LinkUse]) -> usize {
    let mut best: Option<(usize, u128, u128)> = None;
    let (mut again_bytes, mut again_files) = (0_u128, 0);
    let may_be_left_out = links.iter().enumerate().skip(1).rev();
    for (kept, link) in may_be_left_out.filter(|_| links.len() >= CHAIN_LINKS_MAX) {
        again_bytes += u128::from(link.needed_bytes);
        again_files += link.needed_files;
        if again_files > CARRIED_MAX {
            break;
        }
        let gain = ((links.len() - kept) as u128).pow(2);
        if best.is_none_or(|(_, bytes, of)| again_bytes * of <= bytes * gain) {
            best = Some((kept, again_bytes, gain));
        }
    }
    best.map_or(links.len(), |(kept, ..)| kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(bytes: u64) -> LinkUse {
        LinkUse { bytes, needed_bytes: bytes, needed_files: 1 }
    }

    /// A year of runs every hour: no chain is long, the base is never copied again, and everything else only a
    /// few times.
    #[test]
    fn a_year_of_runs_copies_little_again() {
        for new in [[1_000_000, 1_000_000, 1_000_000], [0, 0, 5_000_000], [1, 1_000, 1_000_000]] {
            let mut chain = vec![link(1 << 40)];
            let (mut fresh, mut copied) = (0_u64, 0_u64);
            for run in 0..8766 {
                let Continuation::Onto(links) = choose(&chain) else { panic!("a new chain") };
                assert!((1..CHAIN_LINKS_MAX).contains(&links));
                let again = chain.split_off(links).iter().map(|link| link.bytes).sum::<u64>();
                fresh += new[run % 3];
                copied += again + new[run % 3];
                chain.push(link(again + new[run % 3]));
            }
            assert!(copied < fresh * 4, "{new:?}: {copied} of {fresh}");
            assert_eq!(chain.iter().map(|link| link.bytes).sum::<u64>(), (1 << 40) + fresh);
        }
    }

    #[test]
    fn a_chain_of_what_is_gone_is_given_up() {
        let dead = LinkUse { bytes: 2 << 30, needed_bytes: 100, needed_files: 1 };
        assert_eq!(choose(&[link(1 << 30), dead]), Continuation::Full { else_onto: 2 });
        assert_eq!(choose(&[link(3 << 30), dead]), Continuation::Onto(2));
        let small = LinkUse { bytes: 1000, needed_bytes: 0, needed_files: 0 };
        assert_eq!(choose(&[small, small]), Continuation::Onto(2));
    }

    /// What one backup has no room for is not copied again at once.
    #[test]
    fn very_many_files_stay_where_they_are() {
        let many = LinkUse { bytes: 2 << 30, needed_bytes: 100, needed_files: CARRIED_MAX };
        assert_eq!(choose(&[many, many]), Continuation::Onto(2));
        let mut chain = vec![link(1 << 40); CHAIN_LINKS_MAX];
        chain[CHAIN_LINKS_MAX - 1].needed_files = CARRIED_MAX + 1;
        assert_eq!(choose(&chain), Continuation::Onto(CHAIN_LINKS_MAX));
        chain[CHAIN_LINKS_MAX - 1].needed_files = 1;
        chain[5].needed_files = CARRIED_MAX;
        assert_eq!(choose(&chain), Continuation::Onto(6));
    }
}
