//! From segments of mode `query` to a new cluster with the same accounts and transfers.
//!
//! Everything is imported with the time that it had. What the protocol cannot import is said:
//! timeouts, expiries (which become voids at the same time), and the memory of refused transfers.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::record::{
    self, CREATE_ACCOUNTS, CREATE_TRANSFERS, EXPIRY_BYTES, Expiry, LINKED, RECORD_BYTES,
    RECORDS_PER_PAGE, account_to_import, transfer_to_import, void_to_import,
};
use super::segment::{Sort, of, records};
use super::session::{Asked, Session};
use crate::ctx::Ctx;
use crate::domain::segment::Target;
use crate::draft::Draft;
use crate::error::{Fault, Kind};
use crate::source::logs::{RewindRequest, Rewound};
use crate::source::tigerbeetle::guard;
use crate::source::tigerbeetle::server::{CLEAN_UP, PORT_TRIES, Server, log_of, missing};
use crate::source::tigerbeetle::watchdog::Watchdog;
use crate::source::{Restored, SourceError};

/// What a failing server was started for.
const WORK: &str = "restore to a moment";
/// How long the new cluster may take for an answer; opening its file reads 1 GiB.
const DEADLINE: Duration = Duration::from_mins(5);
/// What the ids of voids in place of expiries are made of.
const EXPIRY_DOMAIN: &[u8] = b"bkp expiry 1";

/// Makes a cluster with everything that the log has up to a moment.
pub(super) fn rewind(request: &RewindRequest<'_>, ctx: &Ctx) -> anyhow::Result<Rewound> {
    let Target::Time(until) = request.target else {
        let message = "a log of mode query restores to a time, not to an op";
        return Err(Fault::new(Kind::Refused, message).hint("use --at").into());
    };
    let Some(first) = request.segments.first() else {
        return Err(Fault::new(Kind::NotFound, "there is no segment to restore from").into());
    };
    let cluster: u128 = of(first)?.cluster.parse()?;
    let target = &request.restore.target;
    let path = Draft::hidden_name(target);
    let log = log_of(&path);
    let watchdog = Watchdog::begin("", CLEAN_UP, &[path.as_os_str(), log.as_os_str()])?;
    let program = request.tools.tigerbeetle.as_deref().unwrap_or(Path::new("tigerbeetle"));
    format(program, cluster, &path)?;
    let draft = Draft::adopt(&path)?;
    let (server, session, starts) = start(program, cluster, &path, &watchdog, ctx)?;
    let mut import = Import::new(&session, until, ctx);
    for segment in request.segments {
        let mut sent = Ok(());
        records(segment, ctx, &mut |sort, page| {
            // What the cluster refuses is told apart from what is wrong with the segment.
            if sent.is_ok() {
                sent = import.page(sort, page);
            }
            Ok(())
        })?;
        sent.map_err(|error| error.context(format!("segment {}", segment.manifest().id)))?;
    }
    import.finish()?;
    let (differences, timestamp) = (import.differences(), import.newest);
    drop((session, server));
    draft.file().sync_all()?;
    let bytes = draft.file().metadata()?.len();
    let _lock = if request.restore.force { guard::hold(target)? } else { None };
    let moved_aside = draft.publish_at(target, request.restore.force)?;
    drop(watchdog);
    Ok(Rewound {
        restored: Restored {
            target: target.clone(),
            bytes,
            bytes_written: bytes,
            moved_aside,
            next: format!("tigerbeetle start --addresses=<address> {}", target.display()),
            lost: Vec::new(),
        },
        op: None,
        timestamp,
        server_starts: starts,
        differences,
        notes: Vec::new(),
    })
}

/// Makes an empty cluster of one.
fn format(program: &Path, cluster: u128, path: &Path) -> anyhow::Result<()> {
    let output = Command::new(program)
        .arg("format")
        .arg(format!("--cluster={cluster}"))
        .args(["--replica=0", "--replica-count=1"])
        .arg(path)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| missing(program, &error))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(SourceError::Engine {
        what: program.display().to_string(),
        reason: format!("cannot format {}: {}", path.display(), said.trim()),
        hint: "give it room (1.1 GiB) and a folder that it may write to, or choose another --to"
            .into(),
    }
    .into())
}

/// Starts the server and connects to it.
fn start(
    program: &Path,
    cluster: u128,
    path: &Path,
    watchdog: &Watchdog,
    ctx: &Ctx,
) -> anyhow::Result<(Server, Session, u32)> {
    let mut starts = 0;
    loop {
        starts += 1;
        let server = Server::start(program, path, watchdog)?;
        let address = [server.address.clone()];
        let opened = Session::open(cluster, &address, DEADLINE, ctx).and_then(|session| {
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

/// Records on their way into the new cluster.
struct Import<'s> {
    session: &'s Session,
    ctx: &'s Ctx,
    /// The last moment.
    until: u64,
    /// What the batch creates.
    sort: Sort,
    batch: Vec<u8>,
    /// A batch that is on its way, for the message if it is refused.
    asked: Option<(Asked, Sort, Vec<u8>)>,
    accounts: u64,
    transfers: u64,
    timeouts: u64,
    expiries: u64,
    newest: u64,
}

impl<'s> Import<'s> {
    fn new(session: &'s Session, until: u64, ctx: &'s Ctx) -> Self {
        Import {
            session,
            ctx,
            until,
            sort: Sort::Accounts,
            batch: Vec::new(),
            asked: None,
            accounts: 0,
            transfers: 0,
            timeouts: 0,
            expiries: 0,
            newest: 0,
        }
    }

    /// Takes a page of a segment.
    fn page(&mut self, sort: Sort, page: &[u8]) -> anyhow::Result<()> {
        // A void is a transfer.
        let batch_of = if sort == Sort::Accounts { Sort::Accounts } else { Sort::Transfers };
        if batch_of != self.sort {
            self.finish()?;
            self.sort = batch_of;
        }
        match sort {
            Sort::Expiries => {
                for expiry in page.chunks(EXPIRY_BYTES).map(Expiry::read) {
                    if expiry.timestamp <= self.until {
                        self.expiries += 1;
                        self.add(expiry.timestamp, void(expiry))?;
                    }
                }
            }
            Sort::Accounts | Sort::Transfers => {
                let (whole, _rest) = page.as_chunks::<RECORD_BYTES>();
                let until = self.until;
                for record in whole.iter().filter(|one| record::timestamp(*one) <= until) {
                    self.record(sort, *record)?;
                }
            }
        }
        Ok(())
    }

    fn record(&mut self, sort: Sort, mut record: [u8; RECORD_BYTES]) -> anyhow::Result<()> {
        if sort == Sort::Accounts {
            self.accounts += 1;
            account_to_import(&mut record);
        } else {
            self.transfers += 1;
            self.timeouts += u64::from(record::timeout(&record) > 0);
            transfer_to_import(&mut record);
        }
        self.add(record::timestamp(&record), record)
    }

    fn add(&mut self, timestamp: u64, record: [u8; RECORD_BYTES]) -> anyhow::Result<()> {
        self.newest = self.newest.max(timestamp);
        self.batch.extend_from_slice(&record);
        if self.batch.len() >= RECORDS_PER_PAGE as usize * RECORD_BYTES {
            self.send()?;
        }
        Ok(())
    }

    /// Sends the batch, up to the end of its last whole chain.
    fn send(&mut self) -> anyhow::Result<()> {
        let chained = self.batch.rchunks(RECORD_BYTES);
        let open = chained.take_while(|record| record::flags(record) & LINKED != 0).count();
        let rest = self.batch.split_off(self.batch.len() - open * RECORD_BYTES);
        let batch = std::mem::replace(&mut self.batch, rest);
        self.settle()?;
        if !batch.is_empty() {
            let operation =
                if self.sort == Sort::Accounts { CREATE_ACCOUNTS } else { CREATE_TRANSFERS };
            let asked = self.session.submit(operation, batch.clone())?;
            self.asked = Some((asked, self.sort, batch));
        }
        Ok(())
    }

    /// Sends the batch and waits until everything was taken. A chain that is still open did not exist
    /// at this moment: the moment lies between its records, and the cluster took them as one.
    fn finish(&mut self) -> anyhow::Result<()> {
        self.send()?;
        self.settle()?;
        let open = (self.batch.len() / RECORD_BYTES) as u64;
        self.batch.clear();
        let counted =
            if self.sort == Sort::Accounts { &mut self.accounts } else { &mut self.transfers };
        *counted = counted.saturating_sub(open);
        Ok(())
    }

    /// Waits for the batch on its way.
    fn settle(&mut self) -> anyhow::Result<()> {
        let Some((asked, sort, batch)) = self.asked.take() else { return Ok(()) };
        let answer = self.session.wait(&asked, self.ctx)?.bytes;
        self.ctx.monitor.advance(batch.len() as u64);
        let Some((index, code)) = record::first_refusal(&answer) else { return Ok(()) };
        let refused = batch.chunks(RECORD_BYTES).nth(index).map_or(0, record::id);
        let message = format!(
            "{} of {} records are refused in {}; the first: id {refused}, result {code} of tb_client.h",
            answer.len() / 8,
            batch.len() / RECORD_BYTES,
            sort.word(),
        );
        Err(Fault::new(Kind::Failed, message)
            .hint("restore from a snapshot, and ship this cluster's log in mode wal")
            .into())
    }

    /// In what the result differs from the original.
    fn differences(&self) -> Vec<String> {
        let Import { accounts, transfers, timeouts, expiries, .. } = *self;
        let mut differences = vec![
            format!("{accounts} accounts and {transfers} transfers carry the flag `imported`"),
            "ids of transfers that were refused are not remembered: such a transfer can be sent again".to_owned(),
            "an account that was closed when it was created is open".to_owned(),
        ];
        if timeouts > 0 {
            differences.push(format!(
                "{timeouts} pending transfers have timeout 0: those still pending do not expire by themselves"
            ));
        }
        if expiries > 0 {
            differences.push(format!(
                "{expiries} expired pending transfers are voided instead, by as many transfers that the original does not have"
            ));
        }
        differences
    }
}

/// The void in place of an expiry, with an id that follows from the pending transfer's.
fn void(expiry: Expiry) -> [u8; RECORD_BYTES] {
    let digest =
        Sha256::new().chain_update(EXPIRY_DOMAIN).chain_update(expiry.pending.to_le_bytes());
    let digest: [u8; 32] = digest.finalize().into();
    let id = digest.first_chunk().map_or(0, |first: &[u8; 16]| u128::from_le_bytes(*first));
    void_to_import(id, expiry.pending, expiry.timestamp)
}
