//! Block maps: the checksum of the block at each address.

use std::fmt;

/// Addresses per page: one page is 64 KiB.
const PAGE: usize = 4096;

/// The checksum of a block, as its file format defines it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Checksum(pub u128);

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A map from block address to checksum. Takes 16 bytes per address in every range of 4096
/// addresses that has one, so 32 MiB per TiB of a file with blocks of 512 KiB.
///
/// Checksum 0 stands for "no block": no format here gives a block that checksum.
#[derive(Clone, Default)]
pub struct BlockMap {
    pages: Vec<Option<Box<[Checksum]>>>,
    len: usize,
}

impl BlockMap {
    /// The checksum at `address`, if there is a block.
    #[must_use]
    pub fn get(&self, address: u64) -> Option<Checksum> {
        let (page, slot) = locate(address)?;
        let found = *self.pages.get(page)?.as_ref()?.get(slot)?;
        (found != Checksum(0)).then_some(found)
    }

    /// Whether the block at `address` has this checksum.
    #[must_use]
    pub fn holds(&self, address: u64, checksum: Checksum) -> bool {
        self.get(address) == Some(checksum)
    }

    /// Sets the checksum at `address`; `Checksum(0)` removes the block. Returns what was there.
    pub fn set(&mut self, address: u64, checksum: Checksum) -> Option<Checksum> {
        let (page, slot) = locate(address)?;
        if self.pages.len() <= page {
            self.pages.resize_with(page + 1, || None);
        }
        let page = self.pages.get_mut(page)?;
        let page = page.get_or_insert_with(|| vec![Checksum(0); PAGE].into_boxed_slice());
        let cell = page.get_mut(slot)?;
        let before = std::mem::replace(cell, checksum);
        let (had, has) = (before != Checksum(0), checksum != Checksum(0));
        self.len = self.len + usize::from(has) - usize::from(had);
        had.then_some(before)
    }

    /// Number of blocks.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no block.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Every block, by ascending address.
    pub fn iter(&self) -> impl Iterator<Item = (u64, Checksum)> + '_ {
        let pages = self.pages.iter().enumerate();
        pages.filter_map(|(at, page)| Some((at, page.as_ref()?))).flat_map(|(at, page)| {
            let cells = page.iter().enumerate();
            cells
                .filter(|(_, checksum)| **checksum != Checksum(0))
                .map(move |(slot, checksum)| ((at * PAGE + slot) as u64, *checksum))
        })
    }
}

impl fmt::Debug for BlockMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlockMap({} blocks)", self.len)
    }
}

fn locate(address: u64) -> Option<(usize, usize)> {
    let address = usize::try_from(address).ok()?;
    Some((address / PAGE, address % PAGE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn behaves_like_a_map(steps in proptest::collection::vec((0_u64..20_000, 0_u128..4), 0..200)) {
            let (mut map, mut model) = (BlockMap::default(), BTreeMap::new());
            for (address, checksum) in steps {
                let before = map.set(address, Checksum(checksum));
                let expected = if checksum == 0 {
                    model.remove(&address)
                } else {
                    model.insert(address, Checksum(checksum))
                };
                prop_assert_eq!(before, expected);
                prop_assert_eq!(map.len(), model.len());
            }
            prop_assert_eq!(map.iter().collect::<Vec<_>>(), model.into_iter().collect::<Vec<_>>());
        }
    }
}
