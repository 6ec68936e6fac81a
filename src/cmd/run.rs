//! `bkp run`: starts every job that is due, the scheduler's tick; or one job on demand.
//!
//! Whoever ticks, a timer or cron, may do so at any time and on any number of hosts: a job is due by
//! what the stores say of its past, and a lock and a lease keep its runs apart. As long as a job runs,
//! the tick goes on looking, so that a long run holds nothing back that may run beside it, and goes on
//! telling people what is wrong.

pub mod child;
mod job_run;
mod notifications;
mod options;
pub mod pool;
mod report;
mod run_hooks;
mod tick;

pub use self::options::Options;
pub(super) use self::report::RunReport;
use self::tick::Tick;
use crate::error::{Fault, Kind};
use crate::ops::report::Report;
use crate::wire::AppContext;

/// Runs what is due, or one job.
///
/// # Errors
/// [`Kind::NotFound`] for a job that is not configured; [`Kind::Busy`] if the one job that was asked
/// for runs already. What a run fails with is no error here: it is a warning, the report has it, and its
/// outcome is that of the run, or [`Kind::Partial`] if others did what they should.
pub fn run(app: &AppContext, options: &Options) -> anyhow::Result<Report> {
    let jobs = &app.settings.jobs;
    if jobs.is_empty() {
        // Whoever has a timer for this means something to happen.
        return Err(Fault::new(Kind::Config, "no job is configured")
            .hint("add [job.NAME] tables to the configuration, or name its file with --config or BKP_CONFIG")
            .into());
    }
    let mut tick = Tick::new(app, options);
    match &options.job {
        Some(name) if !jobs.contains_key(name) => {
            let known = jobs.keys().cloned().collect::<Vec<_>>().join(", ");
            let message = format!("no job `{name}` in the configuration");
            let fault = Fault::new(Kind::NotFound, message);
            return Err(fault.hint(format!("configured jobs: {known}")).into());
        }
        Some(name) => tick.enqueue(name),
        None => tick.enqueue_due(app.ctx.now()),
    }
    if options.dry_run {
        return tick.report_plan();
    }
    tick.run_until_idle();
    app.ctx.cancel.check()?;
    tick.finish()
}
