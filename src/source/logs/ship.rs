//! Shipping a change log in segments.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::archive::EntrySink;
use crate::ctx::Ctx;
use crate::pipeline::log_files::LogFiles;

/// Where bkp records its own runs: what happens there does not make a log busy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnEvents {
    /// The cluster's id.
    pub cluster: u128,
    /// The ledger number in it, which nobody else uses.
    pub ledger: u32,
}

/// What to do when the log lost a part before it was shipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnGap {
    /// Say so, and begin a new window with the next snapshot.
    Report,
    /// Say so, and take a snapshot at once.
    Snapshot,
}

/// A log that is open for shipping. It may be asked many times, and keeps its connection.
///
/// Segments are told by the `capture` records of their manifests.
pub trait LogSource: Send {
    /// What it consists of.
    fn mode(&self) -> &'static str;

    /// What the configuration says of gaps.
    fn on_gap(&self) -> OnGap;

    /// The pause between two looks while the log is followed.
    fn every(&self) -> Duration;

    /// Waits until it is time for another look. A log that can be received as it is written is received meanwhile: its
    /// files go into `spool`, an own folder, and each is archived by `archive`.
    ///
    /// # Errors
    /// What server and archive fail with; a cancellation.
    fn wait(
        &mut self,
        _spool: &Path,
        _archive: &mut dyn FnMut(&Path) -> anyhow::Result<()>,
        ctx: &Ctx,
    ) -> anyhow::Result<()> {
        Ok(ctx.pause(self.every())?)
    }

    /// Whether what was shipped last is only a part of what there was.
    fn has_more(&self) -> bool {
        false
    }

    /// Whether there is something to ship after `after`. Own events alone are nothing. Reads no more
    /// than it needs to know that.
    ///
    /// # Errors
    /// [`SourceError`](crate::source::SourceError) if the source cannot be read or does not answer within its deadline.
    fn news(
        &mut self,
        after: Option<&Value>,
        files: &LogFiles<'_>,
        ctx: &Ctx,
    ) -> anyhow::Result<bool>;

    /// Pushes what happened after `after` into `out`, in bounded memory, and says what that is. Where
    /// it cannot continue `after`, it begins as early as it can and names the gap. The digest of the
    /// parent, `parent_sha256`, is left to the caller.
    ///
    /// # Errors
    /// As [`LogSource::news`], and what `out` failed with.
    fn ship(
        &mut self,
        after: Option<&Value>,
        files: &LogFiles<'_>,
        out: &mut dyn EntrySink,
        ctx: &Ctx,
    ) -> anyhow::Result<Value>;
}
