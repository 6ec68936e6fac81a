//! Bytes to and from a server, of which none is waited for without end.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustls::{ClientConnection, StreamOwned};

use super::certificate::end_point;
use super::error::ClientError;
use crate::ctx::Ctx;

/// How long a socket blocks before the wish to stop is looked at.
const TICK: Duration = Duration::from_millis(200);

/// A way to a server.
#[derive(Debug)]
pub(super) enum Io {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Io {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Io::Tcp(socket) => socket.read(buffer),
            Io::Unix(socket) => socket.read(buffer),
            Io::Tls(session) => session.read(buffer),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Io::Tcp(socket) => socket.write(bytes),
            Io::Unix(socket) => socket.write(bytes),
            Io::Tls(session) => session.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Io::Tls(session) = self { session.flush() } else { Ok(()) }
    }

    fn set_read_timeout(&self, length: Duration) -> io::Result<()> {
        match self {
            Io::Tcp(socket) => socket.set_read_timeout(Some(length)),
            Io::Unix(socket) => socket.set_read_timeout(Some(length)),
            Io::Tls(session) => session.sock.set_read_timeout(Some(length)),
        }
    }

    fn set_write_timeout(&self, length: Duration) -> io::Result<()> {
        match self {
            Io::Tcp(socket) => socket.set_write_timeout(Some(length)),
            Io::Unix(socket) => socket.set_write_timeout(Some(length)),
            Io::Tls(session) => session.sock.set_write_timeout(Some(length)),
        }
    }
}

/// What a read came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// So many bytes, at least one.
    Bytes(usize),
    /// Nothing in time.
    Nothing,
}

/// A connection with one server.
#[derive(Debug)]
pub(super) struct Stream {
    io: Io,
    /// The host as messages name it.
    pub(super) host: String,
    pub(super) ctx: Ctx,
    /// How long nothing may come, and nothing be taken.
    pub(super) silence: Duration,
    /// When the last bytes came.
    pub(super) last_heard: Instant,
    /// How long a read blocks at present.
    tick: Duration,
}

impl Stream {
    pub(super) fn new(
        io: Io,
        host: String,
        silence: Duration,
        ctx: &Ctx,
    ) -> Result<Stream, ClientError> {
        let set = io.set_read_timeout(TICK).and_then(|()| io.set_write_timeout(TICK));
        let stream =
            Stream { io, host, ctx: ctx.clone(), silence, last_heard: Instant::now(), tick: TICK };
        set.map_err(|problem| stream.lost(problem))?;
        Ok(stream)
    }

    /// Whether nobody on the network can read along.
    pub(super) fn is_confidential(&self) -> bool {
        !matches!(self.io, Io::Tcp(_))
    }

    /// What channel binding binds to, if the server has shown a certificate that allows for it.
    pub(super) fn end_point(&self) -> Option<Vec<u8>> {
        let Io::Tls(session) = &self.io else { return None };
        end_point(session.conn.peer_certificates()?.first()?)
    }

    pub(super) fn lost(&self, problem: io::Error) -> ClientError {
        ClientError::Lost { host: self.host.clone(), problem }
    }

    pub(super) fn silent(&self) -> ClientError {
        ClientError::Silent { host: self.host.clone(), seconds: self.silence.as_secs() }
    }

    /// Reads what is there, waiting until `until` at most. One read is tried in any case.
    ///
    /// # Errors
    /// [`ClientError::Lost`], also at the end of the stream; [`ClientError::Stopped`].
    pub(super) fn read(&mut self, to: &mut [u8], until: Instant) -> Result<Heard, ClientError> {
        loop {
            self.ctx.cancel.check()?;
            let rest = until.saturating_duration_since(Instant::now());
            // A socket takes no timeout of zero: that would be for ever.
            let tick = rest.clamp(Duration::from_millis(1), TICK);
            if tick != self.tick {
                self.io.set_read_timeout(tick).map_err(|problem| self.lost(problem))?;
                self.tick = tick;
            }
            match self.io.read(to) {
                Ok(0) => return Err(self.lost(ErrorKind::UnexpectedEof.into())),
                Ok(count) => {
                    self.last_heard = Instant::now();
                    return Ok(Heard::Bytes(count));
                }
                Err(error) if is_later(&error) => {}
                Err(error) => return Err(self.lost(error)),
            }
            if Instant::now() >= until {
                return Ok(Heard::Nothing);
            }
        }
    }

    /// Sends all of `bytes`.
    ///
    /// # Errors
    /// [`ClientError::Silent`] if the server takes nothing for too long; otherwise as [`Stream::read`].
    pub(super) fn write_all(&mut self, mut bytes: &[u8]) -> Result<(), ClientError> {
        let mut until = Instant::now() + self.silence;
        loop {
            self.ctx.cancel.check()?;
            let step =
                if bytes.is_empty() { self.io.flush().map(|()| 0) } else { self.io.write(bytes) };
            match step {
                Ok(_) if bytes.is_empty() => return Ok(()),
                Ok(0) => return Err(self.lost(ErrorKind::WriteZero.into())),
                Ok(count) => {
                    bytes = bytes.get(count..).unwrap_or_default();
                    until = Instant::now() + self.silence;
                }
                Err(error) if is_later(&error) => {}
                Err(error) => return Err(self.lost(error)),
            }
            if Instant::now() >= until {
                return Err(self.silent());
            }
        }
    }

    /// Sends what can be sent at once; for a farewell.
    pub(super) fn write_once(&mut self, bytes: &[u8]) {
        if self.io.write(bytes).is_ok() {
            // Who is gone already needs no farewell.
            let _gone = self.io.flush();
        }
    }

    /// Goes on with TLS over the same socket.
    ///
    /// # Errors
    /// The stream, whole, if it has TLS already or is no TCP.
    pub(super) fn into_tls(self, session: ClientConnection) -> Result<Stream, ClientError> {
        let Io::Tcp(socket) = self.io else {
            return Err(ClientError::protocol(&self.host, "TLS is for TCP only"));
        };
        let io = Io::Tls(Box::new(StreamOwned::new(session, socket)));
        let mut stream = Stream { io, ..self };
        stream.shake_hands()?;
        Ok(stream)
    }

    fn shake_hands(&mut self) -> Result<(), ClientError> {
        let until = Instant::now() + self.silence;
        loop {
            self.ctx.cancel.check()?;
            let Io::Tls(session) = &mut self.io else { return Ok(()) };
            if !session.conn.is_handshaking() {
                return Ok(());
            }
            let StreamOwned { conn, sock } = &mut **session;
            match conn.complete_io(sock) {
                Ok(_) => {}
                Err(error) if is_later(&error) => {}
                Err(error) => return Err(self.lost(error)),
            }
            if Instant::now() >= until {
                return Err(self.silent());
            }
        }
    }

    /// What both sides agreed to speak over TLS.
    pub(super) fn alpn(&self) -> Option<&[u8]> {
        if let Io::Tls(session) = &self.io { session.conn.alpn_protocol() } else { None }
    }
}

/// Whether the same may be tried again at once.
fn is_later(error: &io::Error) -> bool {
    [ErrorKind::WouldBlock, ErrorKind::TimedOut, ErrorKind::Interrupted].contains(&error.kind())
}
