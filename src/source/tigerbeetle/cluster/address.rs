//! Addresses of a cluster's replicas, and whether something is listening there.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::ctx::Ctx;

/// How long a connection attempt may take.
const CONNECT_DEADLINE: Duration = Duration::from_millis(500);

/// What to write where an address was not one.
pub(crate) const ADDRESS_HINT: &str =
    "write IP:PORT, as `tigerbeetle start --addresses` takes it; names are not resolved";

/// Whether one of `addresses` accepts a connection before `deadline` is over or the run should stop.
pub(crate) fn listens(addresses: &str, deadline: Duration, ctx: &Ctx) -> bool {
    let began = Instant::now();
    loop {
        if addresses.split(',').any(|address| probe(address) == Presence::There) {
            return true;
        }
        // A refused connection costs nothing; half a connection attempt's time is a fair pause.
        if began.elapsed() >= deadline || ctx.pause(CONNECT_DEADLINE / 2).is_err() {
            return false;
        }
    }
}

/// What a look at an address finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    /// Something accepts connections.
    There,
    /// The host says that nothing does.
    Absent,
    /// No answer in time, or no way there: nobody knows.
    Unknown,
}

/// Looks whether something accepts connections at `address`.
pub(crate) fn probe(address: &str) -> Presence {
    let Some(place) = parse_address(address) else {
        return Presence::Unknown;
    };
    match TcpStream::connect_timeout(&place, CONNECT_DEADLINE) {
        Ok(_) => Presence::There,
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Presence::Absent,
        Err(_) => Presence::Unknown,
    }
}

/// An address as TigerBeetle spells them: `IP:PORT`, a port on this host, or an IP with the usual
/// port (`vsr.parse_addresses`). It resolves no names.
pub(crate) fn parse_address(text: &str) -> Option<SocketAddr> {
    const PORT: u16 = 3001;
    let text = text.trim();
    let port = || Some(SocketAddr::from((Ipv4Addr::LOCALHOST, text.parse().ok()?)));
    let host = || Some(SocketAddr::from((text.parse::<IpAddr>().ok()?, PORT)));
    text.parse().ok().or_else(port).or_else(host)
}

/// The address `IP:PORT` at which this host reaches what listens on `text`; `None` if that is no address. What
/// listens on every address of the host is reached through the loopback.
pub(crate) fn loopback_address(text: &str) -> Option<String> {
    let mut address = parse_address(text)?;
    if address.ip().is_unspecified() {
        address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    Some(address.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_spelled_as_tigerbeetle_does() {
        let parsed = |text| parse_address(text).map(|address| address.to_string());
        assert_eq!(parsed("3001").as_deref(), Some("127.0.0.1:3001"));
        assert_eq!(parsed(" 10.0.0.1:3003").as_deref(), Some("10.0.0.1:3003"));
        assert_eq!(parsed("10.0.0.1").as_deref(), Some("10.0.0.1:3001"));
        assert_eq!(parsed("[::1]:3002").as_deref(), Some("[::1]:3002"));
        assert!(
            ["", "host:3001", "70000", "1.2.3.4:", "a b"].map(parsed).iter().all(Option::is_none)
        );
    }
}
