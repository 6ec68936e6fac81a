//! TigerBeetle's checksum.

use std::sync::LazyLock;

use aegis::aegis128l::Aegis128L;

use crate::blockfile::map::Checksum;

static HASHER: LazyLock<Aegis128L<16>> = LazyLock::new(|| Aegis128L::new(&[0; 16], &[0; 16]));

/// TigerBeetle's checksum: the AEGIS-128L tag over the bytes as associated data, with key and nonce
/// zero.
pub(crate) fn checksum(bytes: &[u8]) -> Checksum {
    let (_empty, tag) = HASHER.encrypt(&[], bytes);
    Checksum(u128::from_le_bytes(tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_tigerbeetles() {
        // The checksum of nothing, a constant in TigerBeetle's source.
        assert_eq!(checksum(&[]).0, 0x49F1_7461_8255_402D_E6E7_E3C4_0D60_CC83);
    }
}
