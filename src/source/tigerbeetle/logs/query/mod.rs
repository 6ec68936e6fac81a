//! Mode `query`: records queried from the cluster.
//!
//! - [`ship`], [`shipment`], [`order`]: from answers into segments, in an order that can be replayed.
//! - [`replay`], [`import`], [`proof`]: from segments into a new cluster, which is compared with them.
//! - [`voids`]: what stands there in place of expiries.

mod import;
mod order;
mod proof;
pub(super) mod replay;
pub(super) mod ship;
mod shipment;
mod voids;
