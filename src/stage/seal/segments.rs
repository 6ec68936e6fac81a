//! Where the segments of an object are.

use std::ops::Range;

use super::{Prelude, SEALED_SEGMENT_BYTES, TAG_BYTES};
use crate::domain::limits::SEGMENT_BYTES;

/// Consecutive segments of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segments {
    /// The number of the first one.
    pub first: u64,
    /// What of the object has to be read for them.
    pub stored: Range<u64>,
    /// The plaintext that they have.
    pub plain: Range<u64>,
}

impl Prelude {
    /// Bytes of a whole object behind this prelude that has so many of plaintext.
    #[must_use]
    pub fn object_bytes(&self, plain_bytes: u64) -> u64 {
        let segments = plain_bytes.div_ceil(SEGMENT_BYTES as u64).max(1);
        self.bytes
            .saturating_add(plain_bytes)
            .saturating_add(segments.saturating_mul(TAG_BYTES as u64))
    }

    /// The segments of an object of `plain_bytes` of plaintext that have the bytes `part` of it.
    #[must_use]
    pub fn segments(&self, part: &Range<u64>, plain_bytes: u64) -> Segments {
        let size = SEGMENT_BYTES as u64;
        let end = part.end.min(plain_bytes);
        let (first, behind) = (part.start.min(end) / size, end.div_ceil(size));
        let at = |segment: u64| {
            let offset = segment.saturating_mul(SEALED_SEGMENT_BYTES as u64);
            self.bytes.saturating_add(offset)
        };
        // Only the byte behind a segment tells that it is not the last one.
        let stored_end = at(behind).saturating_add(1).min(self.object_bytes(plain_bytes));
        let plain = first * size..behind.saturating_mul(size).min(plain_bytes);
        Segments { first, stored: at(first)..stored_end, plain }
    }
}
