//! Decorators: stores that wrap stores. [`crate::wire`] stacks them, tests add their own.
//!
//! - [`retry`]: retries transient failures, with growing pauses, within a total deadline.
//! - [`trace`]: records every call, so that tests can assert what was asked of a store.
//! - [`mirrored`]: several stores as one.
//! - [`fault`]: fails the n-th call of a kind, or damages what is read.

pub mod fault;
pub mod mirrored;
pub mod retry;
pub mod trace;
