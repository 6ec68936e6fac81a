//! Ports for servers of tests that are told where to listen: no port is handed out twice in a run of the tests, or
//! to two that run at the same time.
//!
//! A port that the system hands out for zero is free again once its listener is closed: while a server of a test is
//! stopped, anybody may get it. So these come from outside the range in which the system looks for free ones, in
//! blocks, and a process that has taken a block keeps it to its end.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail as tests do; clippy sees tests only in marked functions"
)]

use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::Mutex;

/// Ports of a block.
const BLOCK_PORTS: u16 = 128;
/// Below it are those of well-known services, which run on some machines.
const FIRST_PORT: u16 = 10_000;

/// Ports that this process has taken and not handed out, and what keeps others from taking them.
#[derive(Debug)]
struct Taken {
    left: Range<u16>,
    /// Blocks from this port on have not been tried.
    untried: u16,
    /// One name for each block: the system lets go of them with the process, however that ends.
    names: Vec<UnixListener>,
}

static TAKEN: Mutex<Taken> =
    Mutex::new(Taken { left: 0..0, untried: FIRST_PORT, names: Vec::new() });

/// A port on which nobody listens, which no other test gets, whether a server is on it or not.
pub(crate) fn reserved() -> u16 {
    let mut taken = TAKEN.lock().unwrap();
    loop {
        match taken.left.next() {
            Some(port) if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() => return port,
            Some(_in_use) => {}
            None => taken.take_block(),
        }
    }
}

impl Taken {
    fn take_block(&mut self) {
        let handed_out = handed_out_by_system();
        loop {
            let first = self.untried;
            let Some(end) = first.checked_add(BLOCK_PORTS) else { panic!("no ports are left") };
            self.untried = end;
            let is_apart = end <= handed_out.start || first >= handed_out.end;
            if is_apart && let Some(name) = claim(first) {
                self.names.push(name);
                self.left = first..end;
                return;
            }
        }
    }
}

/// The ports among which the system chooses by itself.
fn handed_out_by_system() -> Range<u16> {
    let told = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let mut ends = told.split_whitespace().map(|port| port.parse::<u16>().unwrap());
    let (first, last) = ends.next().zip(ends.next()).unwrap();
    first..last.saturating_add(1)
}

/// The right to a block of ports; nothing if another process has it.
fn claim(first: u16) -> Option<UnixListener> {
    let name = SocketAddr::from_abstract_name(format!("bkp-test-ports-{first}")).unwrap();
    match UnixListener::bind_addr(&name) {
        Ok(claimed) => Some(claimed),
        Err(error) if error.kind() == ErrorKind::AddrInUse => None,
        Err(error) => panic!("cannot claim the ports from {first}: {error}"),
    }
}
