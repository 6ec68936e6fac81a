//! From segments of mode `query` to a new cluster with the same accounts and transfers.
//!
//! Everything is imported with the time that it had. What the protocol cannot import is said:
//! timeouts, expiries (which become voids), and the memory of refused transfers.

use std::fs::File;
use std::path::Path;

use super::import::Import;
use super::proof;
use crate::ctx::Ctx;
use crate::domain::segment::Target;
use crate::error::{Fault, Kind};
use crate::fs::scratch_dir::ScratchDir;
use crate::source::Restored;
use crate::source::logs::{RestoreAtRequest, RestoredAt};
use crate::source::tigerbeetle::logs::client::private::PrivateServer;
use crate::source::tigerbeetle::logs::client::session::Session;
use crate::source::tigerbeetle::logs::client::start::{ANSWER_DEADLINE, start};
use crate::source::tigerbeetle::logs::segment::{each_page, manifest_segment};
use crate::source::tigerbeetle::restore::guard;
use crate::source::tigerbeetle::server::{CLEAN_UP, format_data_file};
use crate::source::watchdog::Watchdog;

/// What is to be known where the server could be reached by others.
const SHARED: &str = "this user cannot create a network namespace, so the log was replayed into a server reachable by every user of this machine; its content was compared with the log";

/// Makes a cluster with everything that the log has up to a moment.
pub(crate) fn restore_at(request: &RestoreAtRequest<'_>, ctx: &Ctx) -> anyhow::Result<RestoredAt> {
    let Target::Time(until) = request.target else {
        let message = "a log of mode query restores to a time, not to an op";
        return Err(Fault::new(Kind::Refused, message).hint("use --at").into());
    };
    let Some(first) = request.segments.first() else {
        return Err(Fault::new(Kind::NotFound, "no segment to restore from").into());
    };
    let cluster: u128 = manifest_segment(first)?.cluster.parse()?;
    let target = &request.restore.target;
    // Programs make files of their own beside the data file.
    let scratch = ScratchDir::beside(target)?;
    let watchdog = Watchdog::begin("", CLEAN_UP, &[scratch.folder().as_os_str()])?;
    let path = scratch.path("restored.tigerbeetle");
    let program = request.tools.tigerbeetle.as_deref().unwrap_or(Path::new("tigerbeetle"));
    format_data_file(program, cluster, &path, &watchdog)?;
    let private = PrivateServer::open(program, cluster, &path, &watchdog, ctx)?;
    let is_private = private.is_some();
    let (server, session, starts) = if let Some(private) = private {
        let starts = private.starts();
        (None, Session::within(private, ANSWER_DEADLINE), starts)
    } else {
        let (server, session, starts) = start(program, cluster, &path, &watchdog, ctx)?;
        (Some(server), session, starts)
    };
    let mut import = Import::new(&session, until, ctx)?;
    for segment in request.segments {
        import.segment(manifest_segment(segment)?.position.last_timestamp);
        let mut sent = Ok(());
        each_page(segment, ctx, &mut |kind, page| {
            // What the cluster refuses is told apart from what is wrong with the segment.
            if sent.is_ok() {
                sent = import.page(kind, page);
            }
            Ok(())
        })?;
        sent.map_err(|error| error.context(format!("segment {}", segment.manifest().id)))?;
    }
    import.finish()?;
    let (differences, timestamp) = (import.differences(), import.newest);
    let compared = proof::compare(&session, &import.sum, ctx)?;
    drop((session, server));
    proof::nothing_since(&path, compared, ctx)?;
    let file = File::open(&path)?;
    file.sync_all()?;
    let bytes = file.metadata()?.len();
    let _lock = if request.restore.force { guard::lock_data_file(target)? } else { None };
    let moved_aside = scratch.publish(&path, target, &[], request.restore.force)?;
    drop(watchdog);
    Ok(RestoredAt {
        restored: Restored {
            target: target.clone(),
            bytes,
            bytes_written: bytes,
            moved_aside,
            next: format!("tigerbeetle start --addresses=<address> {}", target.display()),
            lost: Vec::new(),
        },
        position: None,
        timestamp,
        server_starts: starts,
        differences,
        notes: if is_private { Vec::new() } else { vec![SHARED.to_owned()] },
    })
}
