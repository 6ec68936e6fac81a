//! The order of the repository itself.

mod architecture;
mod generated;
mod tidy;
mod units;
