//! Connects a socket to one place, without waiting for ever and without being deaf to the wish to stop.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::addr::SocketAddrArg;
use rustix::net::sockopt::{
    set_socket_keepalive, set_tcp_keepcnt, set_tcp_keepidle, set_tcp_keepintvl, set_tcp_nodelay,
    set_tcp_user_timeout, socket_error,
};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::conninfo::{Endpoint, Keepalive};
use super::error::ClientError;
use super::stream::Io;
use crate::ctx::Ctx;

/// The same as a time for `poll`.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
const POLL_EVERY: Duration = Duration::from_millis(50);

/// Connects to `place`, to each of its addresses for `patience` at most.
///
/// # Errors
/// [`ClientError::Unreachable`]; [`ClientError::Stopped`].
pub(super) fn dial(
    place: &Endpoint,
    keepalive: &Keepalive,
    patience: Duration,
    ctx: &Ctx,
) -> Result<Io, ClientError> {
    let unreachable = |problem| ClientError::Unreachable { host: place.to_string(), problem };
    if let Some(path) = place.socket() {
        let address = SocketAddrUnix::new(&path).map_err(|error| unreachable(error.into()))?;
        let socket = open(AddressFamily::UNIX, &address, patience, ctx)?.map_err(unreachable)?;
        let socket = UnixStream::from(socket);
        socket.set_nonblocking(false).map_err(unreachable)?;
        return Ok(Io::Unix(socket));
    }
    let addresses = match place.address {
        Some(address) => vec![SocketAddr::new(address, place.port)],
        None => resolve(place, patience, ctx)?.map_err(unreachable)?,
    };
    let mut problem = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        match open(family, &address, patience, ctx)?.and_then(|socket| ready(socket, keepalive)) {
            Ok(socket) => return Ok(Io::Tcp(socket)),
            Err(error) => problem = error,
        }
    }
    Err(unreachable(problem))
}

/// Asks for the addresses of a name. The system's resolver cannot be interrupted, so a thread asks it.
fn resolve(
    place: &Endpoint,
    patience: Duration,
    ctx: &Ctx,
) -> Result<io::Result<Vec<SocketAddr>>, ClientError> {
    let (say, hear) = mpsc::channel();
    let asked = (place.host.clone(), place.port);
    thread::spawn(move || say.send(asked.to_socket_addrs().map(Iterator::collect)));
    let until = Instant::now() + patience;
    loop {
        match hear.recv_timeout(POLL_EVERY) {
            Ok(Ok(found)) => return Ok(Ok(found)),
            // The resolver's errors have no kind, and it is the name that is to be looked at.
            Ok(Err(error)) => return Ok(Err(error)),
            Err(RecvTimeoutError::Disconnected) => return Ok(Err(ErrorKind::Other.into())),
            Err(RecvTimeoutError::Timeout) => ctx.cancel.check()?,
        }
        if Instant::now() >= until {
            let error = io::Error::new(ErrorKind::TimedOut, "the name was not resolved in time");
            return Ok(Err(error));
        }
    }
}

/// A socket that is connected to `address`, and does not block. The outer error is the wish to stop.
fn open(
    family: AddressFamily,
    address: &impl SocketAddrArg,
    patience: Duration,
    ctx: &Ctx,
) -> Result<io::Result<OwnedFd>, ClientError> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = match socket_with(family, SocketType::STREAM, flags, None) {
        Ok(socket) => socket,
        Err(error) => return Ok(Err(error.into())),
    };
    let until = Instant::now() + patience;
    loop {
        match connect(&socket, address) {
            Ok(()) | Err(Errno::ISCONN) => return Ok(Ok(socket)),
            Err(Errno::INPROGRESS | Errno::ALREADY | Errno::INTR) => {
                let mut watched = [PollFd::new(&socket, PollFlags::OUT)];
                match poll(&mut watched, Some(&LOOK)) {
                    Ok(0) | Err(Errno::INTR) => {}
                    Ok(_) => {
                        let outcome = socket_error(&socket).and_then(|outcome| outcome);
                        return Ok(outcome.map(|()| socket).map_err(io::Error::from));
                    }
                    Err(error) => return Ok(Err(error.into())),
                }
                ctx.cancel.check()?;
            }
            // Nobody takes connections from a socket's queue, which is full.
            Err(Errno::AGAIN) => ctx.pause(POLL_EVERY)?,
            Err(error) => return Ok(Err(error.into())),
        }
        if Instant::now() >= until {
            return Ok(Err(ErrorKind::TimedOut.into()));
        }
    }
}

/// Sets what a connection over TCP needs.
fn ready(socket: OwnedFd, keepalive: &Keepalive) -> io::Result<TcpStream> {
    set_tcp_nodelay(&socket, true)?;
    if keepalive.enabled {
        set_socket_keepalive(&socket, true)?;
        if let Some(idle) = keepalive.idle {
            set_tcp_keepidle(&socket, idle)?;
        }
        if let Some(interval) = keepalive.interval {
            set_tcp_keepintvl(&socket, interval)?;
        }
        if let Some(count) = keepalive.count {
            set_tcp_keepcnt(&socket, count)?;
        }
    }
    if let Some(length) = keepalive.user_timeout {
        set_tcp_user_timeout(&socket, length)?;
    }
    let socket = TcpStream::from(socket);
    socket.set_nonblocking(false)?;
    Ok(socket)
}
