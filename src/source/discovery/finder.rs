//! How the sources of a kind are found and described.

use super::candidate::Candidate;
use super::processes::Process;

/// How the sources of a kind are found and described.
#[derive(Debug)]
pub struct Finder {
    /// What has to be named for one: `PATH`, for a message.
    pub(in crate::source) place: &'static str,
    /// What the processes of this machine have in use.
    pub(in crate::source) find: fn(&[Process]) -> Vec<Candidate>,
    /// The one at a place that was named.
    pub(in crate::source) at: fn(&str) -> Candidate,
}
