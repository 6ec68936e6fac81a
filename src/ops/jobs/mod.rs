//! The known runs of jobs, and which of them count.

pub mod evidence;
pub mod state;
pub mod witness;
