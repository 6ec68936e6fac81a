//! The account totals of a running cluster, which a drill compares.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tigerbeetle_unofficial::core::query_filter;
use tigerbeetle_unofficial::error::SendError;
use tigerbeetle_unofficial::{Client, QueryFilter};

use super::address::listens;
use crate::ctx::Ctx;
use crate::rt;
use crate::source::SourceError;

/// Accounts per page: what one message of 1 MiB holds.
const PAGE: u32 = 8189;

/// Sums over all accounts of a cluster.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// How many accounts there are.
    pub accounts: u64,
    /// What was posted to their debits, all together. Accounts and this only grow.
    #[serde(with = "decimal")]
    pub debits_posted: u128,
    /// The same of their credits.
    #[serde(with = "decimal")]
    pub credits_posted: u128,
}

impl std::fmt::Display for Totals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Totals { accounts, debits_posted, credits_posted } = self;
        write!(f, "{accounts} accounts, {debits_posted} debited, {credits_posted} credited")
    }
}

/// Numbers beyond 2^53 as decimal text, which every JSON reader keeps exact.
mod decimal {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(
        number: &u128,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(number)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<u128, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

// Posted sums and the number of accounts only grow. So whatever a cluster held at some moment lies
// between the totals taken before and after it, even if the accounts were read one by one.
/// Totals taken before and after a capture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TotalsBracket {
    pub(crate) before: Totals,
    pub(crate) after: Totals,
}

impl TotalsBracket {
    /// Whether `found` lies between the two; equal to both if nothing was written meanwhile.
    pub(crate) fn admits(&self, found: &Totals) -> bool {
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
pub(crate) struct TotalsAnswer {
    pub(crate) totals: Totals,
    /// When the newest account or transfer was made, in the cluster's time (nanoseconds since 1970).
    /// It was there when the totals were complete, and every replica that has the next op of the
    /// log knows that it is committed.
    pub(crate) newest: u64,
}

/// Asks the cluster at `addresses` for the totals over all its accounts.
///
/// A client waits for ever for a cluster that is away or has another id, hence `deadline`. Each
/// call takes one of the cluster's 64 client sessions.
///
/// # Errors
/// [`SourceError::Engine`] if it does not answer in time or evicts the client.
pub(crate) fn ask_totals(
    cluster: u128,
    addresses: &str,
    deadline: Duration,
    ctx: &Ctx,
) -> Result<TotalsAnswer, SourceError> {
    let failed = |reason: String| SourceError::Engine {
        what: format!("TigerBeetle at {addresses}"),
        reason,
        hint: "check that the cluster runs at these addresses with the configured cluster id"
            .into(),
    };
    // A client waits for ever for somebody who listens.
    if !listens(addresses, deadline, ctx) {
        return Err(failed("nothing is listening there".into()));
    }
    rt::silence_clients();
    let client = Client::new(cluster, addresses).map_err(|error| failed(error.to_string()))?;
    let answer = rt::within(deadline, ask_client(&client));
    let answer = answer.map_err(|error| failed(error.to_string()))?;
    let answer = answer.map_err(|elapsed| failed(elapsed.to_string()))?;
    answer.map_err(|error| failed(error.to_string()))
}

/// The totals first: then what they count is not newer than `newest`. Each question is an op of the
/// log that says up to where the log is committed, so one more follows the one that counts.
async fn ask_client(client: &Client) -> Result<TotalsAnswer, SendError> {
    let totals = sum_accounts(client).await?;
    let last = || {
        let flags = query_filter::Flags::REVERSED;
        Box::new(QueryFilter::new(1).with_flags(flags))
    };
    let transfers = client.query_transfers(last()).await?;
    let accounts = client.query_accounts(last()).await?;
    let transfer = transfers.first().map_or(0, |transfer| transfer.as_raw().timestamp);
    let account = accounts.first().map_or(0, |account| account.as_raw().timestamp);
    client.query_accounts(last()).await?;
    Ok(TotalsAnswer { totals, newest: transfer.max(account) })
}

async fn sum_accounts(client: &Client) -> Result<Totals, SendError> {
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
    fn a_bracket_admits_what_lies_between() {
        let at = |n: u64| Totals { accounts: n, debits_posted: n.into(), credits_posted: n.into() };
        let bracket = TotalsBracket { before: at(5), after: at(7) };
        assert!((5..=7).all(|n| bracket.admits(&at(n))));
        assert!(!bracket.admits(&at(4)) && !bracket.admits(&at(8)));
        assert!(!bracket.admits(&Totals { credits_posted: 4, ..at(6) }));
    }
}
