//! Plans a point-in-time restore: which log, which snapshot, which segments.

use std::fmt;

use time::OffsetDateTime;

use crate::catalog::{self, Catalog, FoundBackup};
use crate::ctx::Ctx;
use crate::domain::id::BackupId;
use crate::domain::manifest::hex;
use crate::domain::names::BackupType;
use crate::domain::segment::{Base, Link, Target, needed};
use crate::domain::timestamp::{rfc3339, spelled};
use crate::error::{Fault, Kind, diagnose};
use crate::ops::log_history::{History, LogBreak, LogWindow, is_segment};
use crate::pipeline::BackupReader;

/// The moment that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// A time.
    At(OffsetDateTime),
    /// An operation of the log.
    Op(u64),
    /// The last moment that restores.
    Latest,
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Moment::Op(op) => write!(f, "op {op}"),
            Moment::At(time) => f.write_str(&rfc3339(*time)),
            Moment::Latest => f.write_str("the latest moment"),
        }
    }
}

/// Which moment of which source.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PitrRequest<'a> {
    pub(crate) source: &'a str,
    pub(crate) moment: Moment,
    /// How the id of the snapshot to begin with begins; else it is the newest one before the moment.
    pub(crate) base: Option<&'a str>,
}

/// How a moment is reached.
pub(crate) struct PitrPlan<'a> {
    pub(crate) mode: String,
    pub(crate) target: Target,
    /// Whether it begins with a snapshot.
    pub(crate) needs_base: bool,
    /// Snapshots that it can begin with, newest first; none where it needs none.
    bases: Vec<&'a Base>,
    pub(crate) run: &'a [Link],
}

/// What a way leads over, every manifest authentic.
pub(crate) struct OpenedPlan<'c> {
    /// The chain of the snapshot; empty where none is needed.
    pub(crate) base: Vec<BackupReader<'c>>,
    pub(crate) segments: Vec<BackupReader<'c>>,
    pub(crate) backup_type: BackupType,
}

impl PitrPlan<'_> {
    /// Opens what it leads over. A snapshot that is not whole is passed over and said: an older one and
    /// more of the log lead to the same moment.
    ///
    /// # Errors
    /// What store and keys fail with; [`Kind::Integrity`] if no snapshot or not every segment can be
    /// relied on.
    pub(crate) fn open<'c>(
        &self,
        catalog: &Catalog<'c>,
        found: &[FoundBackup],
        ctx: &Ctx,
    ) -> anyhow::Result<OpenedPlan<'c>> {
        let (begin, base) = if self.needs_base {
            let (begin, chain) = self.base(catalog, found, ctx)?;
            (Some(begin), chain)
        } else {
            (None, Vec::new())
        };
        let segments = authentic(catalog, found, &needed(self.run, begin, self.target))?;
        let first = base.last().or(segments.first()).map(|reader| reader.manifest().backup_type);
        let backup_type =
            first.ok_or_else(|| Fault::new(Kind::Failed, "no snapshot precedes this moment"))?;
        Ok(OpenedPlan { base, segments, backup_type })
    }

    /// The newest snapshot that is whole, as far as that can be told without reading it, and that no
    /// verification has found damaged if there is another one; with its chain.
    fn base<'c>(
        &self,
        catalog: &Catalog<'c>,
        found: &[FoundBackup],
        ctx: &Ctx,
    ) -> anyhow::Result<(&Base, Vec<BackupReader<'c>>)> {
        let (mut newest_error, mut marked) = (None, None);
        for base in self.bases.iter().copied() {
            let chain = chain_of(catalog, found, base.id);
            let whole = chain.and_then(|chain| {
                chain.iter().try_for_each(|link| link.check_data(ctx))?;
                Ok(chain)
            });
            match whole {
                Ok(chain) => match chain.iter().find(|link| is_damaged(found, link)) {
                    None => return Ok((base, chain)),
                    Some(link) => {
                        let (id, link) = (base.id, link.manifest().id);
                        let why = format!("a verification found {link} damaged");
                        ctx.monitor
                            .warn(&format!("snapshot {id} is used only as a last resort: {why}"));
                        marked.get_or_insert((base, chain));
                    }
                },
                Err(error) => {
                    let kind = diagnose(&error).kind;
                    let is_of_it = matches!(kind, Kind::Integrity | Kind::NotFound);
                    if !is_of_it && !catalog::is_unproven(&error) {
                        return Err(error);
                    }
                    ctx.monitor.warn(&format!("skipping snapshot {}: {error:#}", base.id));
                    newest_error.get_or_insert(error);
                }
            }
        }
        // It is all there is; reading it will show whether it does.
        marked.ok_or_else(|| {
            newest_error.unwrap_or_else(|| {
                Fault::new(Kind::NotFound, "no snapshot can be rolled forward to this moment")
                    .into()
            })
        })
    }
}

/// A segment that no key at hand proves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unproven(pub(crate) BackupId);

impl fmt::Display for Unproven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "segment {} is not proven", self.0)
    }
}

fn is_damaged(found: &[FoundBackup], link: &BackupReader<'_>) -> bool {
    let id = link.manifest().id;
    found.iter().any(|found| found.name.id == id && found.is_damaged())
}

/// Chooses the log, and the snapshots that it can begin with.
///
/// # Errors
/// [`Kind::Refused`] if the moment lies in no window, with the windows in the message; [`Kind::Integrity`]
/// if that is because of damage; [`Kind::NotFound`] for a wanted snapshot that does not lead there.
pub(crate) fn find<'a>(
    history: &'a History,
    request: &PitrRequest<'_>,
) -> anyhow::Result<PitrPlan<'a>> {
    let windows = history.windows();
    let target = match request.moment {
        // A window of any mode may be the one that goes on longest.
        Moment::Latest => Target::Time(latest(history, &windows, request.source)?),
        Moment::Op(op) => Target::Position(op),
        Moment::At(time) => {
            let nanoseconds = time.unix_timestamp_nanos();
            // Before 1970 nothing was, and what is too far ahead lies outside of every window.
            Target::Time(u64::try_from(nanoseconds.max(0)).unwrap_or(u64::MAX))
        }
    };
    // After a source was restored to an earlier state positions come twice, and the last ones are meant; but
    // at a time within the first log the source was as that log says.
    let of_mode = |windows: &[LogWindow<'a>]| {
        let mut admit = windows.iter().filter(|one| one.window.admits(target));
        let chosen = match target {
            Target::Time(_) => admit.next(),
            Target::Position(_) => admit.next_back(),
        };
        chosen.and_then(|chosen| Some((chosen.run, &chosen.run.first()?.segment)))
    };
    // The best mode that leads there.
    let Some((run, first)) = windows.chunk_by(LogWindow::is_like).find_map(of_mode) else {
        return Err(outside(history, &windows, target, request).into());
    };
    let leads = |base: &&Base| {
        let wanted = request.base.is_none_or(|id| base.id.to_string().starts_with(id));
        wanted && base.is_of(run) && !target.is_before(base.position, base.timestamp)
    };
    let of_run = history.bases.iter().filter(|_base| first.needs_base);
    let mut bases: Vec<&Base> = of_run.filter(leads).collect();
    bases.sort_by_key(|base| std::cmp::Reverse(base.position));
    if let Some(id) = request.base.filter(|_| bases.is_empty()) {
        let message = format!(
            "no snapshot {id} of `{}` can be rolled forward to this moment",
            request.source
        );
        let hint = "omit --base, or choose one from `bkp list SOURCE` before the moment and in the same window";
        return Err(Fault::new(Kind::NotFound, message).hint(hint).into());
    }
    let (mode, needs_base) = (first.mode.clone(), first.needs_base);
    Ok(PitrPlan { mode, target, needs_base, bases, run })
}

/// The last moment that the log of a source leads to.
fn latest(history: &History, windows: &[LogWindow<'_>], source: &str) -> Result<u64, Fault> {
    let last = windows.iter().map(|one| one.window.until).max().unwrap_or(0);
    if history.bases.iter().all(|base| base.timestamp <= last) {
        return Ok(last);
    }
    let message = format!("a snapshot of `{source}` is newer than the end of its log");
    Err(Fault::new(Kind::Refused, message)
        .hint("ship the log up to now with `bkp logs SOURCE`, or restore that snapshot: omit --at"))
}

/// Why no window admits the moment.
fn outside(
    history: &History,
    windows: &[LogWindow<'_>],
    target: Target,
    request: &PitrRequest<'_>,
) -> Fault {
    let source = request.source;
    let wanted = match target {
        Target::Position(_) => request.moment.to_string(),
        Target::Time(at) => spelled(at).unwrap_or_else(|| at.to_string()),
    };
    let damage = history.breaks().into_iter().find(|broken| broken.is_damage);
    if let Some(LogBreak { segment: id, why, .. }) = damage {
        let message = format!(
            "{wanted} cannot be restored: the log of `{source}` is damaged at segment {id}: {why}; restorable: {}",
            listed(windows)
        );
        return Fault::new(Kind::Integrity, message).hint(format!(
            "check it with `bkp verify {source} --logs`, and choose a restorable moment"
        ));
    }
    let message =
        format!("{wanted} is outside the restorable windows of `{source}`: {}", listed(windows));
    Fault::new(Kind::Refused, message).hint(format!(
        "choose a moment from `bkp list {source} --windows`, or a snapshot with --id"
    ))
}

/// Windows in words.
fn listed(windows: &[LogWindow<'_>]) -> String {
    if windows.is_empty() {
        return "none, since no log continues a snapshot".into();
    }
    let words = windows.iter().map(|LogWindow { kind, window, .. }| {
        let time = |at: u64| spelled(at).unwrap_or_else(|| at.to_string());
        let positions =
            window.positions.map(|(first, last)| format!(" ({})", kind.positions(first, last)));
        format!("{} to {}{}", time(window.from), time(window.until), positions.unwrap_or_default())
    });
    words.collect::<Vec<_>>().join(", ")
}

fn gone(id: BackupId) -> Fault {
    Fault::new(Kind::NotFound, format!("backup {id} no longer exists"))
}

/// A snapshot of which only the id is known, with what it builds on. Whoever can write to the store can give
/// its id to something of another scope: all of that id are looked at until one is authentic.
fn chain_of<'c>(
    catalog: &Catalog<'c>,
    found: &[FoundBackup],
    id: BackupId,
) -> anyhow::Result<Vec<BackupReader<'c>>> {
    let of_id = found.iter().filter(|found| found.name.id == id && !is_segment(found));
    let mut first = None;
    for found in of_id {
        match catalog.chain(&found.name) {
            Ok(chain) => return Ok(chain),
            Err(error) => {
                first.get_or_insert(error);
            }
        }
    }
    Err(first.unwrap_or_else(|| gone(id).into()))
}

/// The segment of this id: there is one at most.
fn segment_of(found: &[FoundBackup], id: BackupId) -> anyhow::Result<&FoundBackup> {
    let segment = found.iter().find(|found| found.name.id == id && is_segment(found));
    Ok(segment.ok_or_else(|| gone(id))?)
}

/// Opens segments, and makes sure that they are those that the plan was made from.
fn authentic<'c>(
    catalog: &Catalog<'c>,
    found: &[FoundBackup],
    links: &[&Link],
) -> anyhow::Result<Vec<BackupReader<'c>>> {
    let open = |link: &&Link| {
        let opened = catalog.open(&segment_of(found, link.id)?.name);
        let (reader, sha256) = opened.map_err(|error| {
            let is_planted = catalog::is_unproven(&error) && !catalog::is_altered(&error);
            if is_planted { error.context(Unproven(link.id)) } else { error }
        })?;
        if hex(&reader.manifest().original_sha256(&sha256)) != link.sha256 {
            let message = format!("the manifest of segment {} changed while it was read", link.id);
            return Err(Fault::new(Kind::Integrity, message).into());
        }
        Ok(reader)
    };
    links.iter().map(open).collect()
}
