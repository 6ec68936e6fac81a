//! Which due jobs run now, which wait, and which may run concurrently: rules without I/O.

use std::collections::{BTreeMap, BTreeSet};

use time::OffsetDateTime;

use crate::config::settings::jobs::JobSettings;

/// What is to be done with a job that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartDecision {
    /// It may start.
    Now,
    /// It has to wait for something that runs or will run.
    Later,
    /// It does not run this time, because this job, which goes first, ended so.
    Not(String, JobEnd),
}

/// How a job ended in this tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobEnd {
    /// It did what it should, here or on another host.
    Done,
    /// It failed, or waits for one that did, whose run began then.
    Failed(Option<OffsetDateTime>),
    /// Another run is at it.
    Busy,
}

/// Jobs that are due, that run, and that are over.
#[derive(Debug, Default)]
pub struct Pool {
    /// Names of the jobs that wait for their turn.
    pub waiting: BTreeSet<String>,
    /// Names of those that run.
    pub running: BTreeSet<String>,
    /// Those that are over.
    pub finished: BTreeMap<String, JobEnd>,
}

impl Pool {
    /// Whether a job waits for its turn or runs.
    #[must_use]
    pub fn is_taken(&self, name: &str) -> bool {
        self.waiting.contains(name) || self.running.contains(name)
    }

    /// Whether a job that waits may start, with at most `parallel` at the same time.
    #[must_use]
    pub fn start_decision(
        &self,
        job: &JobSettings,
        jobs: &BTreeMap<String, JobSettings>,
        parallel: usize,
    ) -> StartDecision {
        for other in &job.after {
            if self.is_taken(other) {
                return StartDecision::Later;
            }
            match self.finished.get(other) {
                None | Some(JobEnd::Done) => {}
                Some(finished @ (JobEnd::Failed(_) | JobEnd::Busy)) => {
                    return StartDecision::Not(other.clone(), *finished);
                }
            }
        }
        let mut running = self.running.iter().filter_map(|name| jobs.get(name));
        if self.running.len() >= parallel || running.any(|other| !may_run_together(job, other)) {
            return StartDecision::Later;
        }
        StartDecision::Now
    }
}

/// Whether two jobs may run at the same time: they are about different sources, or what they do is
/// declared safe together.
fn may_run_together(a: &JobSettings, b: &JobSettings) -> bool {
    let same = a.source.is_some() && a.source == b.source;
    !same
        || (a.run.compatible_commands().contains(&b.run)
            && b.run.compatible_commands().contains(&a.run))
}
