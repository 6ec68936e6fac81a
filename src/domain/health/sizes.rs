//! Whether a size differs greatly from earlier ones.

/// How many earlier sizes a size is compared with at least.
pub(super) const SIZES_MIN: usize = 3;

/// Whether the newest of `sizes` (oldest first, bytes, all of one scope) is far from those before it:
/// less than half or more than three times their median. A source that was emptied looks so, and one
/// that somebody encrypts.
#[must_use]
pub fn is_odd(sizes: &[u64]) -> bool {
    let Some((newest, before)) = sizes.split_last() else { return false };
    if before.len() < SIZES_MIN {
        return false;
    }
    // Only the recent past: sources grow.
    let mut recent: Vec<u64> = before.iter().rev().take(15).copied().collect();
    recent.sort_unstable();
    let median = recent.get(recent.len() / 2).copied().unwrap_or(0);
    *newest < median / 2 || *newest > median.saturating_mul(3)
}
