//! One client session, opened on demand, with a deadline on everything.
//!
//! A client of `TigerBeetle` waits for ever for a cluster that is away or has another id. A cluster
//! has 64 sessions; closing a client does not give its own back, and a 65th evicts the one that was
//! idle for longest. So a process has one; if that was evicted while the run worked, the question is
//! asked again in a new one. That is safe because every transfer has an id of its own.

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tigerbeetle_unofficial::error::{
    CreateAccountErrorKind, CreateAccountsError, CreateTransferErrorKind, CreateTransfersError,
    SendError, SendErrorKind,
};
use tigerbeetle_unofficial::{Account, Client, Transfer};

use crate::ctx::Cancel;
use crate::ledger::LedgerError;
use crate::ledger::LedgerSettings;
use crate::rt;

/// How long a connection attempt may take.
const CONNECT_DEADLINE: Duration = Duration::from_millis(500);
/// Sessions that one question may use up. More than 64 programs that start at once evict each
/// other; each of these tries costs only a registration.
const SESSIONS_MAX: u32 = 20;

/// What the cluster says of one transfer that it does not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is there already, as it is.
    Exists,
    /// The debit account has too little: the lease is held.
    Exceeds,
    /// Its id was refused before and can never be used.
    Spent,
    /// The lease it refers to has expired, or was given back.
    Ended,
    /// Another one of its chain was not taken.
    Linked,
    /// Anything else.
    Other(String),
}

impl Verdict {
    /// For messages.
    pub(super) fn reason(&self) -> String {
        match self {
            Verdict::Other(reason) => reason.clone(),
            Verdict::Exists
            | Verdict::Exceeds
            | Verdict::Spent
            | Verdict::Ended
            | Verdict::Linked => format!("{self:?}"),
        }
    }
}

/// The connection to a ledger's cluster.
pub(super) struct Link {
    pub(super) name: String,
    cluster: u128,
    addresses: Vec<String>,
    deadline: Duration,
    cancel: Cancel,
    client: Mutex<Option<Client>>,
}

impl Link {
    /// A link that is not connected yet.
    pub(super) fn new(settings: &LedgerSettings, cancel: &Cancel) -> Link {
        let addresses = settings.addresses.clone();
        Link {
            name: format!("at {} (cluster {})", addresses.join(","), settings.cluster),
            cluster: settings.cluster,
            addresses,
            deadline: settings.deadline,
            cancel: cancel.clone(),
            client: Mutex::default(),
        }
    }

    /// Asks the cluster. `question` may be asked several times.
    ///
    /// # Errors
    /// [`LedgerError::Away`] if there is no answer within the deadline; [`LedgerError::Refused`] if the
    /// cluster does not talk to this client; [`LedgerError::Stopped`].
    pub(super) fn ask<T>(
        &self,
        question: &impl AsyncFn(&Client) -> Result<T, SendError>,
    ) -> Result<T, LedgerError> {
        let began = Instant::now();
        let mut slot = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..SESSIONS_MAX {
            let client = match slot.take() {
                Some(client) => client,
                None => self.connect(began)?,
            };
            let left = self.deadline.saturating_sub(began.elapsed());
            let answer = match rt::wait(&self.cancel, rt::limit(left, question(&client))) {
                Ok(answer) => answer,
                Err(rt::Stopped::Cancelled(fault)) => return Err(fault.into()),
                Err(rt::Stopped::Runtime(error)) => return Err(self.away(error.to_string())),
            };
            // A client that did not answer is dropped: what it was asked would stay in its queue.
            match answer.map_err(|_elapsed| self.away(self.silence()))? {
                Ok(answer) => {
                    *slot = Some(client);
                    return Ok(answer);
                }
                Err(error) if matches!(error.kind(), SendErrorKind::ClientEvicted) => {}
                Err(error) => return Err(self.refused("this client", error.to_string())),
            }
        }
        Err(self.away("the cluster has no free client session".into()))
    }

    /// Creates accounts; those that are there already are success.
    pub(super) fn create_accounts(&self, accounts: &[Account]) -> Result<(), LedgerError> {
        let answer =
            self.ask(&async |client| match client.create_accounts(accounts.to_vec()).await {
                Ok(()) => Ok(Ok(Vec::new())),
                Err(CreateAccountsError::Api(errors)) => Ok(Ok(errors.as_slice().to_vec())),
                Err(CreateAccountsError::Send(error)) => Err(error),
                Err(other) => Ok(Err(other.to_string())),
            })?;
        let failures = answer.map_err(|reason| self.refused("its accounts", reason))?;
        let found = |kind: CreateAccountErrorKind| matches!(kind, CreateAccountErrorKind::Exists);
        match failures.iter().find(|failure| !found(failure.kind())) {
            None => Ok(()),
            Some(failure) => {
                let account = accounts.get(failure.index() as usize).map_or(0, Account::id);
                let reason = format!("{:?}", failure.kind());
                Err(self.refused(&format!("account {account}"), reason))
            }
        }
    }

    /// Creates transfers. Returns those that were not taken, by their index, in order.
    pub(super) fn create_transfers(
        &self,
        transfers: &[Transfer],
    ) -> Result<Vec<(usize, Verdict)>, LedgerError> {
        let answer =
            self.ask(&async |client| match client.create_transfers(transfers.to_vec()).await {
                Ok(()) => Ok(Ok(Vec::new())),
                Err(CreateTransfersError::Api(errors)) => Ok(Ok(errors.as_slice().to_vec())),
                Err(CreateTransfersError::Send(error)) => Err(error),
                Err(other) => Ok(Err(other.to_string())),
            })?;
        let failures = answer.map_err(|reason| self.refused("its transfers", reason))?;
        let verdicts =
            failures.iter().map(|failure| (failure.index() as usize, verdict(failure.kind())));
        Ok(verdicts.collect())
    }

    fn connect(&self, began: Instant) -> Result<Client, LedgerError> {
        // A client never gives up; it is made only once somebody listens. A server that has as many connections as it can hold
        // keeps others waiting: that is no refusal.
        while !self.listens()? {
            self.cancel.check()?;
            if began.elapsed() >= self.deadline {
                return Err(self.away(self.silence()));
            }
        }
        rt::silence_clients();
        let client = Client::new(self.cluster, self.addresses.join(","));
        client.map_err(|error| self.refused("the configured addresses", error.to_string()))
    }

    /// Whether one of the addresses takes a connection now; false if one may do so later.
    ///
    /// # Errors
    /// [`LedgerError::Away`] if all of them refuse.
    fn listens(&self) -> Result<bool, LedgerError> {
        let mut later = false;
        for place in self.addresses.iter().flat_map(|address| resolved(address)) {
            match TcpStream::connect_timeout(&place, CONNECT_DEADLINE) {
                Ok(_) => return Ok(true),
                Err(error) => later |= error.kind() == io::ErrorKind::TimedOut,
            }
        }
        if later { Ok(false) } else { Err(self.away("nothing is listening there".into())) }
    }

    fn silence(&self) -> String {
        let seconds = self.deadline.as_secs();
        format!("cluster {} did not answer within {seconds} s", self.cluster)
    }

    pub(super) fn away(&self, reason: String) -> LedgerError {
        LedgerError::Away { ledger: self.name.clone(), reason }
    }

    pub(super) fn refused(&self, what: &str, reason: String) -> LedgerError {
        LedgerError::Refused { ledger: self.name.clone(), what: what.to_owned(), reason }
    }
}

fn verdict(kind: CreateTransferErrorKind) -> Verdict {
    use CreateTransferErrorKind as K;
    let ended = matches!(
        kind,
        K::PendingTransferExpired
            | K::PendingTransferAlreadyVoided
            | K::PendingTransferAlreadyPosted
            | K::PendingTransferNotFound
    );
    let known = [
        (matches!(kind, K::Exists), Verdict::Exists),
        (matches!(kind, K::ExceedsCredits), Verdict::Exceeds),
        (matches!(kind, K::IdAlreadyFailed), Verdict::Spent),
        (matches!(kind, K::LinkedEventFailed), Verdict::Linked),
        (ended, Verdict::Ended),
    ];
    let found = known.into_iter().find_map(|(is, verdict)| is.then_some(verdict));
    found.unwrap_or_else(|| Verdict::Other(format!("{kind:?}")))
}

/// What `address` stands for: `host:port`, or a port on this host.
fn resolved(address: &str) -> Vec<SocketAddr> {
    let spelled =
        if address.contains(':') { address.to_owned() } else { format!("127.0.0.1:{address}") };
    spelled.to_socket_addrs().map(Iterator::collect).unwrap_or_default()
}
