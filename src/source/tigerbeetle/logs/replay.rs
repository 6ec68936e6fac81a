//! From segments of mode `query` to a new cluster with the same accounts and transfers.
//!
//! Everything is imported with the time that it had. What the protocol cannot import is said:
//! timeouts, expiries (which become voids), and the memory of refused transfers.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use super::import::Import;
use super::private::Private;
use super::proof;
use super::segment::{of, records};
use super::session::Session;
use crate::ctx::Ctx;
use crate::domain::segment::Target;
use crate::draft::workshop::Workshop;
use crate::error::{Fault, Kind};
use crate::source::Restored;
use crate::source::logs::{RewindRequest, Rewound};
use crate::source::tigerbeetle::guard;
use crate::source::tigerbeetle::server::{self, CLEAN_UP, PORT_TRIES, Server};
use crate::source::tigerbeetle::watchdog::Watchdog;

/// What a failing server was started for.
const WORK: &str = "restore to a moment";
/// What is to be known where the server could be reached by others.
const SHARED: &str = "this user cannot make a network namespace, so the log was replayed into a server that every user of this machine could reach; what it holds was compared with the log";
/// How long the new cluster may take for an answer; opening its file reads 1 GiB.
const DEADLINE: Duration = Duration::from_mins(5);
/// Makes a cluster with everything that the log has up to a moment.
pub(super) fn rewind(request: &RewindRequest<'_>, ctx: &Ctx) -> anyhow::Result<Rewound> {
    let Target::Time(until) = request.target else {
        let message = "a log of mode query restores to a time, not to an op";
        return Err(Fault::new(Kind::Refused, message).hint("use --at").into());
    };
    let Some(first) = request.segments.first() else {
        return Err(Fault::new(Kind::NotFound, "there is no segment to restore from").into());
    };
    let cluster: u128 = of(first)?.cluster.parse()?;
    let target = &request.restore.target;
    // Programs make files of their own beside the data file.
    let workshop = Workshop::beside(target)?;
    let watchdog = Watchdog::begin("", CLEAN_UP, &[workshop.folder().as_os_str()])?;
    let path = workshop.path("restored.tigerbeetle");
    let program = request.tools.tigerbeetle.as_deref().unwrap_or(Path::new("tigerbeetle"));
    server::format(program, cluster, &path, &watchdog)?;
    let private = Private::open(program, cluster, &path, &watchdog, ctx)?;
    let is_private = private.is_some();
    let (server, session, starts) = if let Some(private) = private {
        let starts = private.starts();
        (None, Session::within(private, DEADLINE), starts)
    } else {
        let (server, session, starts) = start(program, cluster, &path, &watchdog, ctx)?;
        (Some(server), session, starts)
    };
    let mut import = Import::new(&session, until, ctx);
    for segment in request.segments {
        import.segment(of(segment)?.position.last_timestamp);
        let mut sent = Ok(());
        records(segment, ctx, &mut |sort, page| {
            // What the cluster refuses is told apart from what is wrong with the segment.
            if sent.is_ok() {
                sent = import.page(sort, page);
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
    let _lock = if request.restore.force { guard::hold(target)? } else { None };
    let moved_aside = workshop.publish(&path, target, &[], request.restore.force)?;
    drop(watchdog);
    Ok(Rewound {
        restored: Restored {
            target: target.clone(),
            bytes,
            bytes_written: bytes,
            moved_aside,
            next: format!("tigerbeetle start --addresses=<address> {}", target.display()),
            lost: Vec::new(),
        },
        op: None,
        timestamp,
        server_starts: starts,
        differences,
        notes: if is_private { Vec::new() } else { vec![SHARED.to_owned()] },
    })
}

/// Starts the server and connects to it.
pub(super) fn start(
    program: &Path,
    cluster: u128,
    path: &Path,
    watchdog: &Watchdog,
    ctx: &Ctx,
) -> anyhow::Result<(Server, Session, u32)> {
    let mut starts = 0;
    loop {
        starts += 1;
        let mut server = Server::start(program, path, watchdog)?;
        let address = [server.address.clone()];
        let listening = server.await_listening(WORK, DEADLINE, ctx);
        if server.lost_its_port() && starts < PORT_TRIES {
            continue;
        }
        listening?;
        let opened = Session::open(cluster, &address, DEADLINE, ctx).and_then(|session| {
            session.now(ctx)?;
            Ok(session)
        });
        match opened {
            Ok(session) => return Ok((server, session, starts)),
            Err(_) if server.lost_its_port() && starts < PORT_TRIES => {}
            Err(error) => return Err(server.failed(WORK, &format!("{error:#}"))),
        }
    }
}
