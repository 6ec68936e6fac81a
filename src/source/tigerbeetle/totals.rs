//! What a running cluster says of its accounts: the numbers that a drill compares.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tigerbeetle_unofficial::core::query_filter;
use tigerbeetle_unofficial::error::SendError;
use tigerbeetle_unofficial::{Client, QueryFilter};

use crate::ctx::Ctx;
pub(super) use crate::domain::segment::Totals;
use crate::rt;
use crate::source::SourceError;

/// How long a connection attempt may take.
const CONNECT_DEADLINE: Duration = Duration::from_millis(500);

/// Accounts per page: what one message of 1 MiB holds.
const PAGE: u32 = 8189;

// Posted sums and the number of accounts only grow. So whatever a cluster held at some moment lies
// between the totals taken before and after it, even if the accounts were read one by one.
/// Totals taken before and after a capture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Bracket {
    pub(super) before: Totals,
    pub(super) after: Totals,
}

impl Bracket {
    /// Whether `found` lies between the two; equal to both if nothing was written meanwhile.
    pub(super) fn admits(&self, found: &Totals) -> bool {
        let fits = |part: fn(&Totals) -> u128| {
            (part(&self.before)..=part(&self.after)).contains(&part(found))
        };
        fits(|totals| u128::from(totals.accounts))
            && fits(|totals| totals.debits_posted)
            && fits(|totals| totals.credits_posted)
    }
}

/// What a cluster answers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer {
    pub(super) totals: Totals,
    /// When the newest account or transfer was made, in the cluster's time (nanoseconds since 1970).
    /// It was there when the totals were complete, and every replica that has the next op of the
    /// log knows that it is committed.
    pub(super) newest: u64,
}

/// Asks the cluster at `addresses` for the totals over all its accounts.
///
/// A client waits for ever for a cluster that is away or has another id, hence `deadline`. Each
/// call takes one of the cluster's 64 client sessions.
///
/// # Errors
/// [`SourceError::Engine`] if it does not answer in time or evicts the client.
pub(super) fn ask(
    cluster: u128,
    addresses: &str,
    deadline: Duration,
    ctx: &Ctx,
) -> Result<Answer, SourceError> {
    let failed = |reason: String| SourceError::Engine {
        what: format!("TigerBeetle at {addresses}"),
        reason,
        hint: "check that the cluster runs at these addresses and has the configured cluster id"
            .into(),
    };
    // A client waits for ever for somebody who listens.
    if !listens(addresses, deadline, ctx) {
        return Err(failed("nobody listens there".into()));
    }
    rt::silence_clients();
    let client = Client::new(cluster, addresses).map_err(|error| failed(error.to_string()))?;
    let answer = rt::within(deadline, answer(&client));
    let answer = answer.map_err(|error| failed(error.to_string()))?;
    let answer = answer.map_err(|elapsed| failed(elapsed.to_string()))?;
    answer.map_err(|error| failed(error.to_string()))
}

/// Whether one of `addresses` accepts a connection before `deadline` is over or the run should stop.
pub(super) fn listens(addresses: &str, deadline: Duration, ctx: &Ctx) -> bool {
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
pub(super) enum Presence {
    /// Something accepts connections.
    There,
    /// The host says that nothing does.
    Absent,
    /// No answer in time, or no way there: nobody knows.
    Unknown,
}

/// Looks whether something accepts connections at `address`.
pub(super) fn probe(address: &str) -> Presence {
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
pub(super) fn parse_address(text: &str) -> Option<SocketAddr> {
    const PORT: u16 = 3001;
    let text = text.trim();
    let port = || Some(SocketAddr::from((Ipv4Addr::LOCALHOST, text.parse().ok()?)));
    let host = || Some(SocketAddr::from((text.parse::<IpAddr>().ok()?, PORT)));
    text.parse().ok().or_else(port).or_else(host)
}

/// The totals first: then what they count is not newer than `newest`. Each question is an op of the
/// log that says up to where the log is committed, so one more follows the one that counts.
async fn answer(client: &Client) -> Result<Answer, SendError> {
    let totals = sum(client).await?;
    let last = || {
        let flags = query_filter::Flags::REVERSED;
        Box::new(QueryFilter::new(1).with_flags(flags))
    };
    let transfers = client.query_transfers(last()).await?;
    let accounts = client.query_accounts(last()).await?;
    let transfer = transfers.first().map_or(0, |transfer| transfer.as_raw().timestamp);
    let account = accounts.first().map_or(0, |account| account.as_raw().timestamp);
    client.query_accounts(last()).await?;
    Ok(Answer { totals, newest: transfer.max(account) })
}

async fn sum(client: &Client) -> Result<Totals, SendError> {
    let mut totals = Totals::default();
    let mut after = 0;
    loop {
        let mut filter = QueryFilter::new(PAGE);
        filter.as_raw_mut().timestamp_min = after + 1;
        let page = client.query_accounts(Box::new(filter)).await?;
        for account in &page {
            totals.accounts += 1;
            totals.debits_posted = totals.debits_posted.saturating_add(account.debits_posted());
            totals.credits_posted = totals.credits_posted.saturating_add(account.credits_posted());
            after = after.max(account.as_raw().timestamp);
        }
        // A cluster may hold fewer than a page in a message, so only an empty page is the last.
        if page.is_empty() {
            return Ok(totals);
        }
    }
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

    #[test]
    fn a_bracket_admits_what_lies_between() {
        let at = |n: u64| Totals { accounts: n, debits_posted: n.into(), credits_posted: n.into() };
        let bracket = Bracket { before: at(5), after: at(7) };
        assert!((5..=7).all(|n| bracket.admits(&at(n))));
        assert!(!bracket.admits(&at(4)) && !bracket.admits(&at(8)));
        assert!(!bracket.admits(&Totals { credits_posted: 4, ..at(6) }));
    }
}
