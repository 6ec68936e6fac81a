//! What is known of the runs of jobs, and what of it counts.

pub mod evidence;
pub mod state;
pub mod witness;
