//! Actions around a run: the operator's hooks, and pings.

use serde::Serialize;
use time::OffsetDateTime;

use super::child::RunResult;
use crate::config::settings::jobs::JobSettings;
use crate::ctx::host;
use crate::domain::id::BackupId;
use crate::exit;
use crate::notify::hook;
use crate::notify::http::{Ping, ping};
use crate::wire::AppContext;

/// What a hook gets on its standard input, schema `bkp.hook/1`.
#[derive(Debug, Serialize)]
struct HookInput<'a> {
    schema: &'static str,
    event: &'static str,
    job: &'a str,
    command: &'static str,
    source: Option<&'a str>,
    host: String,
    #[serde(with = "time::serde::rfc3339")]
    started: OffsetDateTime,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backup: Option<BackupId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
}

/// One run of one job, for those around it.
#[derive(Clone, Copy)]
pub(super) struct RunHooks<'a> {
    pub(super) app: &'a AppContext,
    pub(super) job: &'a JobSettings,
    pub(super) began: OffsetDateTime,
    /// Why it was started: `scheduled` or `manual`.
    pub(super) trigger: &'static str,
}

impl RunHooks<'_> {
    /// Before the run.
    ///
    /// # Errors
    /// If the hook fails: then the run must not begin.
    pub(super) fn before(&self) -> anyhow::Result<()> {
        self.ping(Ping::Start, "");
        self.hook("before", &self.job.hooks.before, None)
    }

    /// After the run. What fails is said, and changes nothing.
    pub(super) fn after(&self, ended: &RunResult) {
        let hooks = &self.job.hooks;
        // A backup that is only in part where it should be is no success, nor is one that waits.
        let (event, words) = if ended.code == exit::DONE {
            ("after", &hooks.after)
        } else {
            ("failed", &hooks.failed)
        };
        for (event, words) in [(event, words), ("finally", &hooks.finally)] {
            if let Err(error) = self.hook(event, words, Some(ended)) {
                self.warn(&format!("the hook `{event}` failed: {error:#}"));
            }
        }
        self.ping(Ping::End(ended.code), ended.message.as_deref().unwrap_or_default());
    }

    fn hook(
        &self,
        event: &'static str,
        words: &[String],
        ended: Option<&RunResult>,
    ) -> anyhow::Result<()> {
        if words.is_empty() {
            return Ok(());
        }
        let input = HookInput {
            schema: "bkp.hook/1",
            event,
            job: &self.job.name,
            command: self.job.run.word(),
            source: self.job.source.as_deref(),
            host: host(),
            started: self.began,
            exit_code: ended.map(|ended| ended.code),
            backup: ended.and_then(RunResult::backup),
            message: ended.and_then(|ended| ended.message.as_deref()),
        };
        hook::run(words, &serde_json::to_vec(&input)?, self.job.hooks.timeout)
    }

    fn ping(&self, what: Ping, message: &str) {
        let Some(url) = &self.job.ping else { return };
        if let Err(error) = ping(url, what, message) {
            self.warn(&format!("cannot ping: {error:#}"));
        }
    }

    fn warn(&self, why: &str) {
        self.app.ctx.monitor.warn(&format!("{}: {why}", self.job.name));
    }
}
