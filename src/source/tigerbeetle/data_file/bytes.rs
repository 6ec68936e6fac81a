//! Numbers at their offsets in a header.

use crate::blockfile::map::Checksum;

/// The bytes `at..at + N` of a header whose size the caller has fixed.
pub(super) fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let found = bytes.get(at..at + N).and_then(|slice| slice.try_into().ok());
    debug_assert!(found.is_some(), "offset {at} is beyond a header of {} bytes", bytes.len());
    found.unwrap_or([0; N])
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(field(bytes, at))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(field(bytes, at))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(field(bytes, at))
}

pub(super) fn u128_at(bytes: &[u8], at: usize) -> u128 {
    u128::from_le_bytes(field(bytes, at))
}

pub(super) fn checksum_at(bytes: &[u8], at: usize) -> Checksum {
    Checksum(u128_at(bytes, at))
}

/// `bytes` without the first `at`; empty if there are fewer.
pub(super) fn tail(bytes: &[u8], at: usize) -> &[u8] {
    bytes.get(at..).unwrap_or_default()
}
