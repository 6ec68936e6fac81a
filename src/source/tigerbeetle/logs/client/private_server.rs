//! The bkp process inside a private network: it starts the server and forwards the requests from the
//! pipe.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::frame::{ANSWER, FAILURE, HELLO, WORD, read_frame, write_frame};
use super::start::start;
use crate::ctx::{Cancel, Ctx, NullMonitor};
use crate::error::{Kind, diagnose};
use crate::source::tigerbeetle::server::CLEAN_UP;
use crate::source::watchdog::Watchdog;

/// What bkp does if it was started in a private network; `None` if it was not.
pub(crate) fn serve_if_private(words: &[OsString]) -> Option<ExitCode> {
    let [_own, word, program, data_file, cluster] = words else { return None };
    if word != OsStr::new(WORD) {
        return None;
    }
    let cluster = cluster.to_str()?.parse().ok()?;
    let served = serve(&PathBuf::from(program), &PathBuf::from(data_file), cluster);
    Some(if served.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn serve(program: &Path, data_file: &Path, cluster: u128) -> io::Result<()> {
    raise_loopback()?;
    let mut out = io::stdout().lock();
    out.write_all(&[HELLO])?;
    out.flush()?;
    let ctx = Ctx::new(Cancel::default(), Arc::new(NullMonitor));
    // It ends the server if we are killed; what is to be removed is for whoever started us.
    let watchdog = Watchdog::begin("", CLEAN_UP, &[])?;
    let (server, session, starts) = match start(program, cluster, data_file, &watchdog, &ctx) {
        Ok(started) => started,
        Err(error) => {
            let told = diagnose(&error);
            let code = Kind::ALL.iter().position(|kind| *kind == told.kind).unwrap_or(0);
            let text = format!("{error:#}\n{}", told.hint);
            return write_frame(&mut out, FAILURE, code as u64, text.as_bytes());
        }
    };
    write_frame(&mut out, ANSWER, starts.into(), &[])?;
    let mut input = io::stdin().lock();
    // Until whoever asks has ended.
    while let Ok((operation, _, bytes)) = read_frame(&mut input) {
        match session.ask(operation, bytes, &ctx) {
            Ok(answer) => write_frame(&mut out, ANSWER, answer.timestamp, &answer.bytes)?,
            Err(error) => write_frame(&mut out, FAILURE, 0, format!("{error:#}").as_bytes())?,
        }
    }
    drop((session, server, watchdog));
    Ok(())
}

/// Lets the loopback interface of a new network work: asks the kernel by netlink (rtnetlink(7)).
fn raise_loopback() -> io::Result<()> {
    const LENGTH: u32 = 32;
    const SET_LINK: u16 = 16;
    const REQUEST_AND_ACKNOWLEDGE: u16 = 1 | 4;
    const LOOPBACK: i32 = 1;
    const UP: u32 = 1;
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let mut message = Vec::with_capacity(LENGTH as usize);
    message.extend(LENGTH.to_ne_bytes());
    message.extend(SET_LINK.to_ne_bytes());
    message.extend(REQUEST_AND_ACKNOWLEDGE.to_ne_bytes());
    // A number of ours, and no port.
    message.extend(1_u32.to_ne_bytes());
    message.extend(0_u32.to_ne_bytes());
    // Any family and type; which interface, and of its flags the one.
    message.extend([0; 4]);
    message.extend(LOOPBACK.to_ne_bytes());
    message.extend(UP.to_ne_bytes());
    message.extend(UP.to_ne_bytes());
    rustix::net::send(&socket, &message, SendFlags::empty())?;
    let mut reply = [0; 64];
    let (length, _) = rustix::net::recv(&socket, &mut reply, RecvFlags::empty())?;
    let code = reply.get(..length).and_then(|reply| reply.get(16..20)?.try_into().ok());
    match code.map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(-code)),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_not_for_the_private_network() {
        assert!(serve_if_private(&["bkp", "list"].map(OsString::from)).is_none());
    }
}
