//! Writes to a `TigerBeetle` cluster as fast as it takes it, notes what was acknowledged and when,
//! and later tells whether a server still holds all of it.
//!
//! The quickstart, the tests and the benchmarks share it: it is the judge of a restored backup, so
//! it knows nothing of `bkp`. It uses the same client library but none of `bkp`'s own code.
//!
//! A *stream* is what one client wrote in one run. Its transfers have the ids `stream << 64 | n`,
//! with n = 1, 2, 3 …; the next batch is sent when the last one was acknowledged. So one line in the
//! record says that every id up to its `n` was there at that time.
//!
//! Every client takes one of the 64 sessions of a cluster and a closed client does not give it
//! back: `load` takes as many as it has clients, `check` and `totals` one each. A client waits for
//! ever for a cluster that is away or has another id, so every call here has a deadline.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

use std::collections::BTreeMap;
use std::fs::File;
use std::future::Future;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, bail, ensure};
use clap::{Args, Parser, Subcommand};
use serde_json::{Value, json};
use tigerbeetle_unofficial::error::{CreateAccountErrorKind, CreateAccountsError};
use tigerbeetle_unofficial::{Account, Client, QueryFilter, Transfer};
use tokio::task::JoinSet;

/// Events or rows in one message of 1 MiB: the largest batch a server takes.
const BATCH_MAX: u32 = 8189;
/// Ids in one lookup of `check --every`.
const LOOKUP_BATCH: usize = 8000;
/// Earlier ids that `check` without `--every` looks up in each stream.
const SAMPLE_PER_STREAM: u64 = 200;
/// Missing ids that a report names.
const MISSING_NAMED_MAX: usize = 10;
/// Clients per run: a cluster has 64 sessions, and other programs want some.
const CLIENTS_MAX: u64 = 60;
/// Ledger and code of everything written here.
const LEDGER: u32 = 1;
const CODE: u16 = 1;

/// Loads a ledger, and checks that what it acknowledged is there.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Write transfers of amount 1 until the time or the number is reached, or on SIGTERM.
    Load(LoadArgs),
    /// Look up what a record says was acknowledged; exit 1 if anything is missing.
    Check(CheckArgs),
    /// Sum up all accounts.
    Totals(ClusterArgs),
    /// Read all accounts and all transfers, page by page, as fast as one client can.
    Pages(ClusterArgs),
}

#[derive(Args)]
struct ClusterArgs {
    /// The replicas' addresses, as `tigerbeetle start --addresses` takes them.
    #[arg(long)]
    addresses: String,
    /// The cluster id.
    #[arg(long)]
    cluster: u128,
    /// Seconds: the longest wait for one batch (load), or for everything (check, totals).
    #[arg(long, default_value_t = 60)]
    timeout: u64,
}

#[derive(Args)]
struct LoadArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Transfers per batch.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=i64::from(BATCH_MAX)))]
    batch: u32,
    /// Clients that write at the same time; each one takes a session of the cluster.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=CLIENTS_MAX))]
    clients: u64,
    /// Stop after that many seconds.
    #[arg(long, required_unless_present = "transfers", conflicts_with = "transfers")]
    seconds: Option<u64>,
    /// Stop after that many transfers, of all clients together.
    #[arg(long)]
    transfers: Option<u64>,
    /// The file that gets a line for each acknowledged batch: `stream n batch unix-time`.
    #[arg(long)]
    record: PathBuf,
    /// Accounts to spread the transfers over; those that are missing are created.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(2..))]
    accounts: u64,
}

#[derive(Args)]
struct CheckArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// The file that `load` wrote; several runs may have appended to it.
    #[arg(long)]
    record: PathBuf,
    /// Unix time: only what was acknowledged before it must be there. Default: everything.
    #[arg(long, default_value_t = f64::INFINITY)]
    before: f64,
    /// Look up every id instead of the last one and 200 random earlier ones of each stream.
    #[arg(long)]
    every: bool,
    /// Do not try a write afterwards.
    #[arg(long)]
    read_only: bool,
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(run(Cli::parse().task)),
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("ledgerload: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Does one task and prints one line of JSON; false if a check failed.
async fn run(task: Task) -> anyhow::Result<bool> {
    let report = match task {
        Task::Load(args) => load(args).await?,
        Task::Check(args) => within(args.cluster.timeout, "check", check(&args)).await?,
        Task::Totals(args) => {
            let client = connect(&args)?;
            let totals = within(args.timeout, "totals", totals(&client)).await?;
            totals.to_json()?
        }
        Task::Pages(args) => {
            let client = connect(&args)?;
            within(args.timeout, "pages", pages(&client)).await?
        }
    };
    println!("{report}");
    Ok(report.get("ok").is_none_or(|ok| ok == true))
}

fn connect(cluster: &ClusterArgs) -> anyhow::Result<Client> {
    Client::new(cluster.cluster, &cluster.addresses)
        .with_context(|| format!("cannot make a client for {}", cluster.addresses))
}

/// Awaits `work`, but not longer than that many seconds.
async fn within<T>(
    seconds: u64,
    what: &str,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    tokio::time::timeout(Duration::from_secs(seconds), work).await.with_context(|| {
        format!("{what}: no answer in {seconds} s (server away, or another cluster id?)")
    })?
}

// --- load -----------------------------------------------------------------------------------

/// When a load ends: at a time, and for each client after a number of transfers.
struct Limits {
    until: Option<Instant>,
    stop: Arc<AtomicBool>,
}

async fn load(args: LoadArgs) -> anyhow::Result<Value> {
    let args = Arc::new(args);
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        // The first signal asks, the second one ends the process.
        signal_hook::flag::register_conditional_default(signal, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let mut clients = Vec::new();
    for _ in 0..args.clients {
        clients.push(connect(&args.cluster)?);
    }
    if let Some(first) = clients.first() {
        create_accounts(first, &args).await?;
    }
    let began = Instant::now();
    let until = args.seconds.map(|seconds| began + Duration::from_secs(seconds));
    let limits = Arc::new(Limits { until, stop });
    let mut streams = JoinSet::new();
    for (client, index) in clients.into_iter().zip(0..) {
        streams.spawn(write_stream(client, index, Arc::clone(&args), Arc::clone(&limits)));
    }
    let (mut transfers, mut batches) = (0, 0);
    while let Some(stream) = streams.join_next().await {
        let written = stream??;
        transfers += written.transfers;
        batches += written.batches;
    }
    let seconds = began.elapsed().as_secs_f64();
    Ok(json!({
        "streams": args.clients, "transfers": transfers, "batches": batches,
        "seconds": seconds, "transfers_per_second": per_second(transfers, seconds),
    }))
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate to look at"
)]
fn per_second(count: u64, seconds: f64) -> u64 {
    (count as f64 / seconds.max(0.001)) as u64
}

/// Creates the accounts 1 to `--accounts`; those that are there already are fine.
async fn create_accounts(client: &Client, args: &LoadArgs) -> anyhow::Result<()> {
    let mut first = 1;
    while first <= args.accounts {
        let last = args.accounts.min(first + u64::from(BATCH_MAX) - 1);
        let accounts: Vec<Account> =
            (first..=last).map(|id| Account::new(id.into(), LEDGER, CODE)).collect();
        let created = async { Ok(client.create_accounts(accounts).await) };
        match within(args.cluster.timeout, "create accounts", created).await? {
            Ok(()) => {}
            Err(CreateAccountsError::Api(refused))
                if refused
                    .as_slice()
                    .iter()
                    .all(|one| matches!(one.kind(), CreateAccountErrorKind::Exists)) => {}
            Err(error) => return Err(error).context("create accounts"),
        }
        first = last + 1;
    }
    Ok(())
}

/// What one client wrote.
struct Written {
    transfers: u64,
    batches: u64,
}

async fn write_stream(
    client: Client,
    index: u64,
    args: Arc<LoadArgs>,
    limits: Arc<Limits>,
) -> anyhow::Result<Written> {
    let stream = new_stream(index);
    let quota = args
        .transfers
        .map_or(u64::MAX, |all| all / args.clients + u64::from(index < all % args.clients));
    // Each stream has its own handle: a line is one append, which the kernel does not tear apart.
    let mut record = File::options().append(true).create(true).open(&args.record)?;
    let mut random = Random(stream);
    let mut written = Written { transfers: 0, batches: 0 };
    while written.transfers < quota
        && !limits.stop.load(Ordering::Relaxed)
        && limits.until.is_none_or(|until| Instant::now() < until)
    {
        let size = u64::from(args.batch).min(quota - written.transfers);
        let last = written.transfers + size;
        let batch: Vec<Transfer> = (written.transfers + 1..=last)
            .map(|n| transfer(stream, n, random.pair(args.accounts)))
            .collect();
        let acknowledged = async { Ok(client.create_transfers(batch).await?) };
        within(args.cluster.timeout, "create transfers", acknowledged).await?;
        let line = format!("{stream} {last} {size} {:.6}\n", unix_time());
        record.write_all(line.as_bytes()).context("cannot append to the record")?;
        written = Written { transfers: last, batches: written.batches + 1 };
    }
    Ok(written)
}

/// A transfer of amount 1 between two accounts.
fn transfer(stream: u64, n: u64, (debit, credit): (u128, u128)) -> Transfer {
    Transfer::new(transfer_id(stream, n))
        .with_debit_account_id(debit)
        .with_credit_account_id(credit)
        .with_amount(1)
        .with_ledger(LEDGER)
        .with_code(CODE)
}

fn transfer_id(stream: u64, n: u64) -> u128 {
    u128::from(stream) << 64 | u128::from(n)
}

/// A number that no other run on this machine has: second, process, client (31 + 22 + 8 bits).
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole seconds")]
fn new_stream(index: u64) -> u64 {
    (unix_time() as u64) << 30 | u64::from(std::process::id()) << 8 | index
}

#[expect(clippy::disallowed_methods, reason = "this program is not bkp and has no Ctx")]
fn unix_time() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// `SplitMix64` (Steele, Lea, Flood 2014): enough to scatter accounts and to pick samples.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Two different numbers of 1 to `count`.
    fn pair(&mut self, count: u64) -> (u128, u128) {
        let first = self.next() % count;
        let second = (first + 1 + self.next() % (count - 1)) % count;
        (u128::from(first + 1), u128::from(second + 1))
    }
}

// --- check ----------------------------------------------------------------------------------

async fn check(args: &CheckArgs) -> anyhow::Result<Value> {
    let began = Instant::now();
    let streams = acknowledged(&args.record, args.before)?;
    let transfers: u64 = streams.values().sum();
    ensure!(transfers > 0, "{}: nothing was acknowledged before that time", args.record.display());
    let client = connect(&args.cluster)?;
    let (looked_up, missing) = look_up(&client, &streams, args.every).await?;
    let totals = totals(&client).await?;
    let mut reasons = Vec::new();
    if !missing.is_empty() {
        reasons.push(format!("{} acknowledged transfers are missing", missing.len()));
    }
    if totals.debits_posted != totals.credits_posted {
        reasons.push("debits and credits differ".to_owned());
    }
    if totals.debits_posted < u128::from(transfers) {
        reasons.push("the accounts hold less than was acknowledged".to_owned());
    }
    let written = if args.read_only { None } else { Some(try_write(&client, &totals).await) };
    if let Some(Err(error)) = &written {
        reasons.push(format!("a new write fails: {error:#}"));
    }
    let mut report = totals.to_json()?;
    let found = json!({
        "streams": streams.len(), "acknowledged": transfers, "looked_up": looked_up,
        "missing": missing.len(),
        "missing_ids": missing.iter().take(MISSING_NAMED_MAX).map(|id| format!("{id:#x}"))
            .collect::<Vec<_>>(),
        "wrote": written.is_some_and(|outcome| outcome.is_ok()),
        "seconds": began.elapsed().as_secs_f64(),
        "reasons": reasons, "ok": reasons.is_empty(),
    });
    if let (Some(report), Value::Object(found)) = (report.as_object_mut(), found) {
        report.extend(found);
    }
    Ok(report)
}

/// Reads a record: for each stream the highest `n` acknowledged before `before`.
fn acknowledged(record: &Path, before: f64) -> anyhow::Result<BTreeMap<u64, u64>> {
    let text = std::fs::read_to_string(record)
        .with_context(|| format!("cannot read {}", record.display()))?;
    let mut streams = BTreeMap::new();
    // A writer that was killed may leave a last line without its end: it does not count.
    for (line, number) in text.split_inclusive('\n').zip(1..) {
        let Some(line) = line.strip_suffix('\n') else {
            break;
        };
        let (stream, last, time) = parse_line(line)
            .with_context(|| format!("{}: line {number}: {line:?}", record.display()))?;
        if time < before {
            let highest = streams.entry(stream).or_insert(0);
            *highest = last.max(*highest);
        }
    }
    Ok(streams)
}

fn parse_line(line: &str) -> anyhow::Result<(u64, u64, f64)> {
    let mut fields = line.split(' ');
    let mut next = || fields.next().context("a field is missing");
    let (stream, last, _batch, time) = (next()?, next()?, next()?, next()?);
    Ok((stream.parse()?, last.parse()?, time.parse()?))
}

/// Looks up ids of each stream; returns how many, and those that are not there.
async fn look_up(
    client: &Client,
    streams: &BTreeMap<u64, u64>,
    every: bool,
) -> anyhow::Result<(u64, Vec<u128>)> {
    let mut looked_up = 0;
    let mut missing = Vec::new();
    let mut batch = Vec::with_capacity(LOOKUP_BATCH);
    for (&stream, &last) in streams {
        let mut random = Random(stream);
        let count = if every { last } else { last.min(SAMPLE_PER_STREAM + 1) };
        for n in 0..count {
            let n = if every {
                n + 1
            } else if n == 0 {
                last
            } else {
                1 + random.next() % last
            };
            batch.push(transfer_id(stream, n));
            if batch.len() == LOOKUP_BATCH {
                looked_up += look_up_batch(client, &mut batch, &mut missing).await?;
            }
        }
    }
    looked_up += look_up_batch(client, &mut batch, &mut missing).await?;
    Ok((looked_up, missing))
}

async fn look_up_batch(
    client: &Client,
    batch: &mut Vec<u128>,
    missing: &mut Vec<u128>,
) -> anyhow::Result<u64> {
    batch.sort_unstable();
    batch.dedup();
    let asked = std::mem::take(batch);
    let mut found: Vec<u128> = Vec::with_capacity(asked.len());
    for transfer in client.lookup_transfers(asked.clone()).await? {
        ensure!(transfer.amount() == 1, "{:#x} has amount {}", transfer.id(), transfer.amount());
        found.push(transfer.id());
    }
    found.sort_unstable();
    missing.extend(asked.iter().filter(|id| found.binary_search(id).is_err()));
    Ok(asked.len().try_into()?)
}

/// Writes one transfer between the first two accounts.
async fn try_write(client: &Client, totals: &Totals) -> anyhow::Result<()> {
    let Totals { first_ids: [Some(debit), Some(credit)], .. } = totals else {
        bail!("there are no two accounts")
    };
    // No load has that many clients, so the id is new.
    let id = new_stream(u64::from(u8::MAX));
    client.create_transfers(vec![transfer(id, 1, (*debit, *credit))]).await?;
    Ok(())
}

// --- totals ---------------------------------------------------------------------------------

/// Sums over all accounts.
#[derive(Default)]
struct Totals {
    accounts: u64,
    first_ids: [Option<u128>; 2],
    debits_posted: u128,
    credits_posted: u128,
    debits_pending: u128,
    credits_pending: u128,
}

impl Totals {
    fn add(&mut self, account: &Account) {
        if let Some(free) = self.first_ids.iter_mut().find(|id| id.is_none()) {
            *free = Some(account.id());
        }
        self.accounts += 1;
        self.debits_posted += account.debits_posted();
        self.credits_posted += account.credits_posted();
        self.debits_pending += account.debits_pending();
        self.credits_pending += account.credits_pending();
    }

    fn to_json(&self) -> anyhow::Result<Value> {
        Ok(json!({
            "accounts": self.accounts,
            "debits_posted": u64::try_from(self.debits_posted)?,
            "credits_posted": u64::try_from(self.credits_posted)?,
            "debits_pending": u64::try_from(self.debits_pending)?,
            "credits_pending": u64::try_from(self.credits_pending)?,
        }))
    }
}

/// Reads all accounts in the order of their timestamps, which no two of them share.
async fn totals(client: &Client) -> anyhow::Result<Totals> {
    let mut totals = Totals::default();
    let mut after = 0;
    loop {
        let mut filter = QueryFilter::new(BATCH_MAX);
        filter.as_raw_mut().timestamp_min = after + 1;
        let page = client.query_accounts(Box::new(filter)).await?;
        let Some(last) = page.last() else {
            return Ok(totals);
        };
        after = last.as_raw().timestamp;
        for account in &page {
            totals.add(account);
        }
    }
}

/// Reads all accounts and all transfers in the order of their timestamps, and keeps nothing.
async fn pages(client: &Client) -> anyhow::Result<Value> {
    let began = Instant::now();
    let (mut accounts, mut transfers, mut after) = (0, 0, 0);
    let filter = |after: u64| {
        let mut filter = QueryFilter::new(BATCH_MAX);
        filter.as_raw_mut().timestamp_min = after + 1;
        Box::new(filter)
    };
    while let page = client.query_accounts(filter(after)).await?
        && let Some(last) = page.last()
    {
        after = last.as_raw().timestamp;
        accounts += page.len();
    }
    after = 0;
    while let page = client.query_transfers(filter(after)).await?
        && let Some(last) = page.last()
    {
        after = last.as_raw().timestamp;
        transfers += page.len();
    }
    let seconds = began.elapsed().as_secs_f64();
    Ok(json!({ "accounts": accounts, "transfers": transfers, "seconds": seconds }))
}
