//! The only place where asynchronous clients meet the synchronous core.

use std::time::Duration;

/// The deadline of [`within`] passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no answer within {} s", .0.as_secs_f32())]
pub struct Elapsed(pub Duration);

/// Runs `work` on this thread until it ends or `deadline` has passed; then it is dropped.
///
/// # Errors
/// [`Elapsed`]; the outer error if no runtime can be made (out of file descriptors).
pub fn within<F: Future>(
    deadline: Duration,
    work: F,
) -> std::io::Result<Result<F::Output, Elapsed>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let outcome = runtime.block_on(async { tokio::time::timeout(deadline, work).await });
    Ok(outcome.map_err(|_elapsed| Elapsed(deadline)))
}
