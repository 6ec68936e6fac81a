//! Starts a server of bkp's own and connects to it.

use std::path::Path;
use std::time::Duration;

use super::session::Session;
use crate::ctx::Ctx;
use crate::source::tigerbeetle::server::{PORT_TRIES, Server};
use crate::source::watchdog::Watchdog;

/// What a failing server was started for.
const WORK: &str = "restore to a moment";
/// How long the new cluster may take for an answer; opening its file reads 1 GiB.
pub(crate) const ANSWER_DEADLINE: Duration = Duration::from_mins(5);

/// Starts the server and connects to it.
pub(crate) fn start(
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
        let listening = server.await_listening(WORK, ANSWER_DEADLINE, ctx);
        if server.lost_its_port() && starts < PORT_TRIES {
            continue;
        }
        listening?;
        let pidfd = server.pidfd()?;
        let opened = Session::open(cluster, &address, ANSWER_DEADLINE, ctx).and_then(|session| {
            let session = session.watching(pidfd);
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
