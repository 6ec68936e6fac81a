//! SipHash-1-3 (Aumasson and Bernstein, 2012) of many messages side by side.
//!
//! One message is a chain of operations of which each waits for the one before; a processor has room for
//! several chains. Messages here are whole words, and the same word of all of them is added at once, which
//! the compiler turns into vector instructions. What comes out is what the crate `siphasher` computes, message
//! by message: the tests compare.

/// Messages that are hashed together: their states fit into a processor's first cache.
pub(crate) const LANES: usize = 256;

/// Bytes of a key.
pub(crate) const KEY_BYTES: usize = 16;

/// The states of up to [`LANES`] messages, which are numbered from 0.
pub(crate) struct SipLanes {
    key: u128,
    v0: [u64; LANES],
    v1: [u64; LANES],
    v2: [u64; LANES],
    v3: [u64; LANES],
    /// Words that each has.
    words: [u64; LANES],
}

/// One step of the compression of a state.
macro_rules! round {
    ($v0:ident, $v1:ident, $v2:ident, $v3:ident) => {
        $v0 = $v0.wrapping_add($v1);
        $v2 = $v2.wrapping_add($v3);
        $v1 = $v1.rotate_left(13) ^ $v0;
        $v3 = $v3.rotate_left(16) ^ $v2;
        $v0 = $v0.rotate_left(32);
        $v2 = $v2.wrapping_add($v1);
        $v0 = $v0.wrapping_add($v3);
        $v1 = $v1.rotate_left(17) ^ $v2;
        $v3 = $v3.rotate_left(21) ^ $v0;
        $v2 = $v2.rotate_left(32);
    };
}

impl SipLanes {
    /// States of empty messages.
    pub(crate) fn new(key: &[u8; KEY_BYTES]) -> SipLanes {
        let mut lanes = SipLanes {
            key: u128::from_le_bytes(*key),
            v0: [0; LANES],
            v1: [0; LANES],
            v2: [0; LANES],
            v3: [0; LANES],
            words: [0; LANES],
        };
        lanes.clear();
        lanes
    }

    /// Makes every message empty again.
    pub(crate) fn clear(&mut self) {
        #[expect(clippy::cast_possible_truncation, reason = "the key's halves")]
        let (low, high) = (self.key as u64, (self.key >> 64) as u64);
        // The constants of the paper.
        self.v0.fill(low ^ 0x736f_6d65_7073_6575);
        self.v1.fill(high ^ 0x646f_7261_6e64_6f6d);
        self.v2.fill(low ^ 0x6c79_6765_6e65_7261);
        self.v3.fill(high ^ 0x7465_6462_7974_6573);
        self.words.fill(0);
    }

    /// Adds a word to each of the first messages.
    pub(crate) fn add(&mut self, words: &[u64]) {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl") {
                #[expect(unsafe_code, reason = "instructions that not every processor has")]
                // SAFETY: this one has them.
                return unsafe { self.add_avx512(words) };
            }
            if is_x86_feature_detected!("avx2") {
                #[expect(unsafe_code, reason = "instructions that not every processor has")]
                // SAFETY: this one has them.
                return unsafe { self.add_avx2(words) };
            }
        }
        self.add_plain(words);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512vl")]
    fn add_avx512(&mut self, words: &[u64]) {
        self.add_plain(words);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn add_avx2(&mut self, words: &[u64]) {
        self.add_plain(words);
    }

    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "it becomes vector instructions only inside of others"
    )]
    fn add_plain(&mut self, words: &[u64]) {
        let states = self.v0.iter_mut().zip(&mut self.v1).zip(&mut self.v2).zip(&mut self.v3);
        let states = states.zip(&mut self.words).zip(words);
        for (((((state0, state1), state2), state3), count), word) in states {
            let (mut v0, mut v1, mut v2, mut v3) = (*state0, *state1, *state2, *state3);
            v3 ^= word;
            round!(v0, v1, v2, v3);
            v0 ^= word;
            (*state0, *state1, *state2, *state3) = (v0, v1, v2, v3);
            *count = count.wrapping_add(1);
        }
    }

    /// Adds words to one message.
    pub(crate) fn add_to(&mut self, lane: usize, words: impl Iterator<Item = u64>) {
        let SipLanes { v0, v1, v2, v3, words: counts, .. } = self;
        let state = v0.get_mut(lane).zip(v1.get_mut(lane)).zip(v2.get_mut(lane));
        let state = state.zip(v3.get_mut(lane)).zip(counts.get_mut(lane));
        let Some(((((state0, state1), state2), state3), count)) = state else { return };
        let (mut v0, mut v1, mut v2, mut v3) = (*state0, *state1, *state2, *state3);
        for word in words {
            v3 ^= word;
            round!(v0, v1, v2, v3);
            v0 ^= word;
            *count = count.wrapping_add(1);
        }
        (*state0, *state1, *state2, *state3) = (v0, v1, v2, v3);
    }

    /// Puts the hashes of the first messages into `hashes`.
    pub(crate) fn finish(&mut self, hashes: &mut [u64]) {
        // The last word of any message is the number of its bytes.
        let ends = self.words.map(|words| words << 59);
        self.add(ends.get(..hashes.len()).unwrap_or_default());
        let states = self.v0.iter().zip(&self.v1).zip(&self.v2).zip(&self.v3);
        for (hash, (((v0, v1), v2), v3)) in hashes.iter_mut().zip(states) {
            let (mut v0, mut v1, mut v2, mut v3) = (*v0, *v1, *v2 ^ 0xff, *v3);
            round!(v0, v1, v2, v3);
            round!(v0, v1, v2, v3);
            round!(v0, v1, v2, v3);
            *hash = v0 ^ v1 ^ v2 ^ v3;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use siphasher::sip::SipHasher13;

    use super::*;

    proptest! {
        #[test]
        fn hashes_are_those_of_siphash(
            key: [u8; KEY_BYTES],
            steps in prop::collection::vec((0..LANES, prop::collection::vec(any::<u64>(), 0..40)), 0..20),
            count in 1..=LANES,
        ) {
            let mut lanes = SipLanes::new(&key);
            lanes.add(&[1; LANES]);
            lanes.clear();
            let mut messages = vec![Vec::new(); LANES];
            for (lane, words) in &steps {
                lanes.add_to(*lane, words.iter().copied());
                messages[*lane].extend(words.iter().copied());
                let one_each: Vec<u64> = (0..count as u64).map(|lane| lane << 40 ^ words.len() as u64).collect();
                lanes.add(&one_each);
                for (message, word) in messages.iter_mut().zip(one_each) {
                    message.push(word);
                }
            }
            let mut hashes = [0; LANES];
            lanes.finish(&mut hashes);
            for (message, hash) in messages.iter().zip(hashes) {
                let bytes: Vec<u8> = message.iter().flat_map(|word| word.to_le_bytes()).collect();
                prop_assert_eq!(SipHasher13::new_with_key(&key).hash(&bytes), hash);
            }
        }

        #[test]
        fn vector_instructions_change_nothing(words in prop::collection::vec(any::<u64>(), 0..=LANES)) {
            let (mut one, mut other) = (SipLanes::new(&[7; KEY_BYTES]), SipLanes::new(&[7; KEY_BYTES]));
            one.add(&words);
            other.add_plain(&words);
            prop_assert_eq!((one.v0, one.v1, one.v2, one.v3), (other.v0, other.v1, other.v2, other.v3));
        }
    }
}
