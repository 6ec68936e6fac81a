//! The free set: which blocks of the grid are in use.

/// The addresses in an encoded free set: words of 64 bits, EWAH-compressed. Bit `i` stands for
/// address `i + 1`. `None` if the encoding is not valid.
pub(crate) fn decode_free_set(encoded: &[u8], blocks_max: u64) -> Option<Vec<u64>> {
    let (words, rest) = encoded.as_chunks::<8>();
    let mut words = words.iter().map(|word| u64::from_le_bytes(*word));
    let mut decoded = Vec::new();
    let words_max = usize::try_from(blocks_max.div_ceil(64)).ok()?.next_multiple_of(64) + 64;
    while let Some(marker) = words.next() {
        let run = usize::try_from(marker >> 1 & 0x7fff_ffff).ok()?;
        let literals = usize::try_from(marker >> 32).ok()?;
        let filler = if marker & 1 == 1 { u64::MAX } else { 0 };
        if decoded.len() + run + literals > words_max && filler != 0 {
            return None;
        }
        // Trailing zeros carry nothing; do not let a hostile marker allocate for them.
        let zeros = run.min(words_max.saturating_sub(decoded.len()));
        decoded.resize(decoded.len() + if filler == 0 { zeros } else { run }, filler);
        for _ in 0..literals {
            decoded.push(words.next()?);
        }
    }
    rest.is_empty().then_some(decoded)
}

/// Number of blocks and whether one is in a set as [`decode_free_set`] returns it.
pub(crate) fn contains(set: &[u64], address: u64) -> bool {
    let Some(index) = address.checked_sub(1) else {
        return false;
    };
    let word = usize::try_from(index / 64).ok().and_then(|at| set.get(at));
    word.is_some_and(|word| word >> (index % 64) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_set_decodes() {
        // One word of ones, one literal, two words of zeros, one literal.
        let words = [1 | 1 << 1 | 1 << 32, 0b101, 2 << 1 | 1 << 32, 1_u64];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let set = decode_free_set(&bytes, 1024).expect("valid");
        assert_eq!(set, [u64::MAX, 0b101, 0, 0, 1]);
        assert!(contains(&set, 1) && contains(&set, 65) && !contains(&set, 66));
        assert!(contains(&set, 257) && !contains(&set, 0) && !contains(&set, 99_999));
    }

    #[test]
    fn a_hostile_free_set_does_not_allocate() {
        let marker: u64 = 0x7fff_ffff << 1 | 1;
        assert_eq!(decode_free_set(&marker.to_le_bytes(), 1024), None);
        let zeros: u64 = 0x7fff_ffff << 1;
        assert!(decode_free_set(&zeros.to_le_bytes(), 1024).is_some_and(|set| set.len() < 200));
        assert_eq!(decode_free_set(&(5_u64 << 32).to_le_bytes(), 1024), None);
    }
}
