//! The transfers that replace expiries in a cluster into which a log was replayed.

use sha2::{Digest as _, Sha256};

use crate::source::tigerbeetle::logs::client::record::{
    RECORD_BYTES, VOID, flags, id, pending_id, timestamp, void_to_import,
};

/// What the ids of voids in place of expiries are made of.
const EXPIRY_DOMAIN: &[u8] = b"bkp expiry 1";

/// The id of the void in place of an expiry, which follows from the pending transfer's.
pub(super) fn void_id(pending: u128) -> u128 {
    let digest = Sha256::new().chain_update(EXPIRY_DOMAIN).chain_update(pending.to_le_bytes());
    let digest: [u8; 32] = digest.finalize().into();
    digest.first_chunk().map_or(0, |first: &[u8; 16]| u128::from_le_bytes(*first))
}

/// Whether a transfer stands in place of an expiry.
pub(super) fn is_of_expiry(transfer: &[u8]) -> bool {
    flags(transfer) & VOID != 0 && id(transfer) == void_id(pending_id(transfer))
}

/// What of such a void is known before the cluster takes it.
pub(super) fn void_to_compare(void: &[u8]) -> [u8; RECORD_BYTES] {
    void_to_import(id(void), pending_id(void), timestamp(void))
}
