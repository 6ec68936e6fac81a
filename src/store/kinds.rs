//! The table of stores: the only place that names them.

use super::{StoreKind, local, s3};

/// Every kind of store.
pub const STORES: &[StoreKind] = &[local::KIND, s3::KIND];
