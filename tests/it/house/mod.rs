//! The order of the repository itself.

mod architecture;
mod deployments;
mod generated;
mod tidy;
mod units;
