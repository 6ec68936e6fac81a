//! Checks of notification channels, and of what only some jobs need.

use crate::config::settings::jobs::JobKind;
use std::io::{self, Write};

use crate::archive::EntrySink;
use crate::cmd::doctor::check::{CheckResult, bad, good, tried};
use crate::cmd::doctor::probe;
use crate::error::{Fault, Kind};
use crate::notify;
use crate::ops::scratch;
use crate::pipeline::objects::{ObjectBody, ObjectSink};
use crate::source::{ExportRequest, ResourceLimits};
use crate::wire::AppContext;

/// Every channel and every ping: what is secret of them can be read. Nobody is told anything.
pub(crate) fn channels(app: &AppContext) -> Vec<CheckResult> {
    let channels = app
        .settings
        .notify
        .iter()
        .map(|to| (format!("notify.{}", to.channel.name), notify::check_secrets(&to.channel)));
    let pings = app.settings.jobs.values().filter_map(|job| {
        let url = job.ping.as_deref()?;
        Some((format!("job.{}.ping", job.name), notify::url_of(url).map(drop)))
    });
    let found = channels.chain(pings).map(|(place, outcome)| {
        let hint = format!(
            "correct what `{place}` refers to: a file with mode 600, owned by the user who runs bkp"
        );
        let named = outcome.map_err(|error| {
            anyhow::Error::from(Fault::new(Kind::Config, format!("{error:#}")).hint(hint))
        });
        tried(place, named.map(|()| "its secrets can be read; nothing was sent".to_owned()))
    });
    found.collect()
}

/// Largest database of which an export is tried, bytes: of a larger one that takes long.
const TRIED_BYTES_MAX: u64 = 1 << 30;

/// How much of what an export would lack is said.
const MISSING_MAX: usize = 5;

/// Every source of which a job makes exports: an export works on a copy in the state directory. One of a
/// database that is not large is made, and thrown away.
pub(crate) fn exports(app: &AppContext) -> Vec<CheckResult> {
    let jobs = app.settings.jobs.values().filter(|job| job.run == JobKind::Export);
    let mut names: Vec<&str> = jobs.filter_map(|job| job.source.as_deref()).collect();
    names.sort_unstable();
    names.dedup();
    let found = names.into_iter().filter_map(|name| {
        let path = app.settings.sources.get(name)?.table.get("path")?.as_str()?;
        let what = format!("export of {name}");
        // Those who look at the source and at the state directory say what these lack.
        let bytes = std::fs::metadata(path).ok()?.len();
        let free = probe::free_bytes(&app.settings.state_dir).ok()?;
        if free < bytes {
            let why = format!("the state directory has {free} bytes free, the copy needs {bytes}");
            let hint = "free space there, or point `state_dir` to a larger file system";
            return Some((Kind::Config, bad(what, why, hint)));
        }
        if bytes > TRIED_BYTES_MAX {
            let found = format!(
                "the state directory has room for the copy; not tried, since the database has {bytes} bytes"
            );
            return Some((Kind::Config, good(what, found)));
        }
        Some(match export(app, name) {
            Ok((bytes, missing)) if missing.is_empty() => {
                (Kind::Source, good(what, format!("made one of {bytes} bytes and discarded it")))
            }
            Ok((_, missing)) => {
                let some = missing.iter().take(MISSING_MAX).cloned().collect::<Vec<_>>().join("; ");
                let why = format!("{} item(s) cannot be exported, so runs exit with 3: {some}", missing.len());
                let hint = "exclude what is not needed with `exclude`; a snapshot contains everything";
                (Kind::Source, bad(what, why, hint))
            }
            Err(error) => tried(what, Err(error)),
        })
    });
    found.collect()
}

/// Makes an export and throws it away: how many bytes its tables have, and what it lacks.
fn export(app: &AppContext, name: &str) -> anyhow::Result<(u64, Vec<String>)> {
    let work = scratch::make(app, scratch::ScratchPurpose::Work)?;
    let request = ExportRequest {
        mode: None,
        chain: &[],
        record: None,
        scratch: work.folder(),
        tools: &app.drill_tools(ResourceLimits::default()),
    };
    let mut counted = ByteCounter::default();
    let captured = app.source(name)?.export(&request, &mut counted, &app.ctx)?;
    Ok((counted.0, captured.lost))
}

/// Counts what it takes and keeps nothing.
#[derive(Default)]
struct ByteCounter(u64);

impl Write for ByteCounter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl ObjectSink for ByteCounter {
    fn object(
        &mut self,
        _role: &str,
        _name: &str,
        _sealed: bool,
        body: &mut ObjectBody<'_>,
    ) -> anyhow::Result<()> {
        body(self)
    }

    fn compressed(
        &mut self,
        _role: &str,
        _name: &str,
        body: &mut ObjectBody<'_>,
    ) -> anyhow::Result<()> {
        body(self)
    }

    fn archive(
        &mut self,
        push: &mut dyn FnMut(&mut dyn EntrySink) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        push(self)
    }
}

impl EntrySink for ByteCounter {
    fn entry(&mut self, _name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        self.0 += bytes.len() as u64;
        Ok(())
    }

    fn stream(
        &mut self,
        _name: &str,
        _size: u64,
        body: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
    ) -> anyhow::Result<()> {
        Ok(body(self)?)
    }
}
