//! One client session that asks in TigerBeetle's own records, with a deadline on every answer.
//!
//! The client of the ledger and of drills knows no change events, and copies records into types and
//! back. Here questions and answers stay bytes. A client waits for ever for a cluster that is away or
//! has another id; a cluster has 64 sessions, and closing a client does not give its own back. So a
//! run has one, made when there is something to ask.

use std::os::fd::OwnedFd;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant, UNIX_EPOCH};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tigerbeetle_unofficial::core::error::SendErrorKind;
use tigerbeetle_unofficial::core::{Callbacks, Client, OperationKind, Packet, Reply, UserData};

use super::answer::{ClusterAnswer, RequestError};
use super::private::PrivateServer;
use super::record::{
    CREATE_ACCOUNTS, CREATE_TRANSFERS, GET_ACCOUNT_TRANSFERS, GET_CHANGE_EVENTS, QUERY_ACCOUNTS,
    QUERY_TRANSFERS, query_filter,
};
use crate::ctx::Ctx;
use crate::rt;
use crate::source::SourceError;
use crate::source::tigerbeetle::cluster::address::listens;
use crate::source::tigerbeetle::server::ENDED;

/// The longest time for which a waiting run does not look at the wish to stop.
const POLL_EVERY: Duration = Duration::from_millis(50);

/// What to do about a server of ours that ended while it was asked.
const NO_SERVER: &str = "make sure that there is memory for it (the kernel's log names what was killed), and run it again; this says nothing about the backup";

/// A session.
pub(crate) struct Session {
    line: Transport,
    addresses: String,
    deadline: Duration,
    /// The server, if it is one of ours.
    server: Option<OwnedFd>,
}

/// The way to the cluster.
enum Transport {
    /// A client here.
    Client(Client<&'static Delivery>),
    /// A client in a private network.
    Private(PrivateServer),
}

/// An answer that is awaited.
pub(crate) struct PendingAnswer {
    answer: Receiver<Result<ClusterAnswer, RequestError>>,
    since: Instant,
}

/// Takes answers to where they are awaited.
pub(crate) struct Delivery;

static DELIVERY: Delivery = Delivery;

/// A question on its way.
pub(crate) struct Question {
    bytes: Vec<u8>,
    answer: SyncSender<Result<ClusterAnswer, RequestError>>,
}

impl UserData for Question {
    fn data(&self) -> &[u8] {
        &self.bytes
    }
}

impl Callbacks for Delivery {
    type UserDataPtr = Box<Question>;

    fn completion(&self, packet: Packet<Box<Question>>, reply: Option<Reply<'_>>) {
        let status = packet.status();
        let question = packet.into_user_data();
        let answer = status.map(|()| {
            let (bytes, at) = reply.map_or((Vec::new(), UNIX_EPOCH), |reply| {
                (reply.payload.to_vec(), reply.timestamp)
            });
            let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
            ClusterAnswer { bytes, timestamp: u64::try_from(since.as_nanos()).unwrap_or(0) }
        });
        // Nobody waits any more after a deadline.
        let _awaited = question.answer.send(answer.map_err(RequestError::Client));
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl Session {
    /// Connects, once somebody listens at one of `addresses`.
    ///
    /// # Errors
    /// [`SourceError::Engine`] if nobody does within `deadline`.
    pub(crate) fn open(
        cluster: u128,
        addresses: &[String],
        deadline: Duration,
        ctx: &Ctx,
    ) -> anyhow::Result<Session> {
        let addresses = addresses.join(",");
        // A client waits for ever for somebody who listens.
        if !listens(&addresses, deadline, ctx) {
            ctx.cancel.check()?;
            return Err(failed(&addresses, "nothing is listening there".into()).into());
        }
        rt::silence_clients();
        let client = Client::with_callback(cluster, &addresses, &DELIVERY)
            .map_err(|error| failed(&addresses, error.to_string()))?;
        Ok(Session { line: Transport::Client(client), addresses, deadline, server: None })
    }

    /// The same to a server of ours, by the pidfd of its process: nobody answers once that has ended.
    pub(crate) fn watching(self, server: OwnedFd) -> Session {
        Session { server: Some(server), ..self }
    }

    /// The session of a server in a private network.
    pub(crate) fn within(private: PrivateServer, deadline: Duration) -> Session {
        let addresses = "its private network".to_owned();
        Session { line: Transport::Private(private), addresses, deadline, server: None }
    }

    /// Asks, and does not wait. `operation` is one of those that [`super::record`] names.
    pub(crate) fn submit(&self, operation: u8, bytes: Vec<u8>) -> anyhow::Result<PendingAnswer> {
        let kind = match operation {
            GET_ACCOUNT_TRANSFERS => OperationKind::GetAccountTransfers,
            GET_CHANGE_EVENTS => OperationKind::GetChangeEvents,
            CREATE_ACCOUNTS => OperationKind::CreateAccounts,
            CREATE_TRANSFERS => OperationKind::CreateTransfers,
            QUERY_ACCOUNTS => OperationKind::QueryAccounts,
            QUERY_TRANSFERS => OperationKind::QueryTransfers,
            other => return Err(self.failed(format!("operation {other} is not asked")).into()),
        };
        let (sender, answer) = mpsc::sync_channel(1);
        match &self.line {
            Transport::Client(client) => {
                let question = Box::new(Question { bytes, answer: sender });
                client.submit(Packet::new(question, kind));
            }
            Transport::Private(private) => private
                .submit(operation, &bytes, sender)
                .map_err(|error| self.failed(format!("it has ended: {error}")))?,
        }
        Ok(PendingAnswer { answer, since: Instant::now() })
    }

    /// Waits for an answer.
    ///
    /// # Errors
    /// [`SourceError::Engine`] if there is none within the deadline, or the cluster refuses the client;
    /// a cancellation.
    pub(crate) fn wait(&self, asked: &PendingAnswer, ctx: &Ctx) -> anyhow::Result<ClusterAnswer> {
        loop {
            match asked.answer.recv_timeout(POLL_EVERY) {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => return Err(self.refused(error).into()),
                Err(RecvTimeoutError::Timeout) if self.has_ended() => {
                    return Err(engine_error(&self.addresses, ENDED.into(), NO_SERVER).into());
                }
                Err(RecvTimeoutError::Timeout) if asked.since.elapsed() < self.deadline => {
                    ctx.cancel.check()?;
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(self.failed("it ended without an answer".into()).into());
                }
                Err(RecvTimeoutError::Timeout) => {
                    let seconds = self.deadline.as_secs();
                    return Err(self.failed(format!("no answer within {seconds} s")).into());
                }
            }
        }
    }

    /// Whether the server is one of ours and no longer runs. Only a client asks that: where the server is in a
    /// private network, the client is in there, too.
    fn has_ended(&self) -> bool {
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        self.server.as_ref().is_some_and(|server| {
            poll(&mut [PollFd::new(server, PollFlags::IN)], Some(&at_once))
                .is_ok_and(|ended| ended > 0)
        })
    }

    /// Asks and waits.
    pub(crate) fn ask(
        &self,
        operation: u8,
        bytes: Vec<u8>,
        ctx: &Ctx,
    ) -> anyhow::Result<ClusterAnswer> {
        self.wait(&self.submit(operation, bytes)?, ctx)
    }

    /// The cluster's time; everything that it took before is committed.
    pub(crate) fn now(&self, ctx: &Ctx) -> anyhow::Result<u64> {
        Ok(self.ask(QUERY_ACCOUNTS, query_filter(0, 0, 1), ctx)?.timestamp)
    }

    /// A failure of this session.
    pub(crate) fn failed(&self, reason: String) -> SourceError {
        failed(&self.addresses, reason)
    }

    fn refused(&self, failure: RequestError) -> SourceError {
        let error = match failure {
            RequestError::Client(error) => error,
            RequestError::Text(said) => return self.failed(said),
        };
        if !matches!(error.kind(), SendErrorKind::ClientEvicted) {
            return self.failed(error.to_string());
        }
        let reason = "the cluster closed the session: all 64 are in use".into();
        let hint = "let fewer clients connect to this cluster, or use logs in mode wal, which need no session";
        engine_error(&self.addresses, reason, hint)
    }
}

fn failed(addresses: &str, reason: String) -> SourceError {
    let hint = "check that the cluster runs at these addresses with the configured cluster id";
    engine_error(addresses, reason, hint)
}

fn engine_error(addresses: &str, reason: String, hint: &str) -> SourceError {
    SourceError::Engine { what: format!("TigerBeetle at {addresses}"), reason, hint: hint.into() }
}
