//! How an object is split into parts.

/// Parts of one size before the next size begins.
const STEP: u64 = 1000;
/// Largest part that the service takes, bytes.
const PART_BYTES_MAX: u64 = 5 << 30;
/// Most parts of an object; the service's limit.
pub(super) const PARTS_MAX: u64 = 10_000;

/// Size of part `number` (from 1), bytes: every thousand parts it doubles. Beginning with 8 MiB,
/// the last of 10 000 parts ends at 8 TiB, so that a stream of unknown length does not end for
/// want of parts.
pub(super) fn part_bytes(first: u64, number: u64) -> u64 {
    let doubled = u32::try_from(number.saturating_sub(1) / STEP).unwrap_or(u32::MAX);
    let factor = 1_u64.checked_shl(doubled).unwrap_or(u64::MAX);
    first.saturating_mul(factor).min(PART_BYTES_MAX)
}

/// How many parts of this size may fly at a time; the one that is being filled does not count. They
/// hold no more bytes than `connections` of the `first` parts do; one may always fly.
///
/// With 4 connections and parts of 8 MiB that is 32 MiB in flight and 8 MiB being filled. Larger parts
/// come with larger objects: beyond 24 GiB an upload holds two parts of 32 MiB, beyond 56 GiB two of
/// 64 MiB, and so on: about a thousandth of the object.
pub(super) fn in_flight_max(part_bytes: u64, first: u64, connections: usize) -> usize {
    let bytes = first.saturating_mul(connections as u64);
    usize::try_from((bytes / part_bytes.max(1)).max(1)).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousand_parts_hold_eight_tebibytes() {
        let total: u64 = (1..=PARTS_MAX).map(|number| part_bytes(8 << 20, number)).sum();
        assert!(total > 7 << 40, "{total}");
        let widest: u64 = (1..=PARTS_MAX).map(|number| part_bytes(64 << 20, number)).sum();
        assert!(widest > 20 << 40, "{widest}");
    }

    #[test]
    fn sizes_double_every_thousand_parts_up_to_the_limit() {
        let sizes = [1, 1000, 1001, 2001, 10_000].map(|number| part_bytes(8 << 20, number) >> 20);
        assert_eq!(sizes, [8, 8, 16, 32, 4096]);
        assert_eq!(part_bytes(1 << 30, 10_000), PART_BYTES_MAX);
    }

    #[test]
    fn memory_is_what_is_said() {
        let mib = |bytes: u64| bytes << 20;
        assert_eq!([8, 16, 32, 64].map(|size| in_flight_max(mib(size), mib(8), 4)), [4, 2, 1, 1]);
        assert_eq!(in_flight_max(mib(8), mib(8), 16), 16);
    }
}
