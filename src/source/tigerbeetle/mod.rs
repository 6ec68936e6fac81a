//! The TigerBeetle source: snapshots of a live data file.
//!
//! - [`format`]: the file's layout and checksums.
//! - [`mode`], [`quorum`], [`capture`], [`wal`], [`walk`]: from the file into the chain.
//! - [`layout`]: what a snapshot consists of.
//! - [`guard`], [`audit`], [`assemble`], [`target`]: from the chain back to a file.
//! - [`drill`], [`totals`]: starting the real server on it and comparing.
//! - [`server`]: a server of ours. [`logs`]: the change log, and the way back to a moment.
//! - [`watchdog`]: what is put right when bkp is killed.
//!
//! What a capture holds is *transaction-consistent*: the state after one operation of the log. A
//! cluster of one has nothing acknowledged that its capture lacks. A replica of several may lag
//! behind its cluster: where the cluster can be asked, a capture is not taken before the replica
//! has what was acknowledged when the capture began; else it holds what this replica knew to be
//! committed.

mod assemble;
mod audit;
mod capture;
mod drill;
mod format;
mod guard;
mod layout;
mod logs;
mod mode;
mod quorum;
mod server;
mod totals;
mod wal;
mod walk;
mod watchdog;

use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

pub use self::logs::{LOG, inside};

use self::capture::Capturing;
use self::format::Superblock;
use self::layout::{Layout, Listed as _};
use self::mode::Mode;
use self::quorum::look;
use self::totals::{Bracket, Presence};
use crate::archive::EntrySink;
use crate::blockfile::target;
use crate::ctx::Ctx;
use crate::domain::manifest::Identity;
use crate::domain::names::BackupType;
use crate::domain::segment::Mode as LogMode;
use crate::error::{Fault, Kind};
use crate::source::logs::{LogSource, OwnEvents};
use crate::source::{
    CaptureRequest, Captured, Check, Held, Opened, Source, SourceError, SourceKind, on_this_host,
};
use crate::table::{ConfigError, parse_table};

/// Attempts of an online capture if the configuration does not say otherwise. Under the heaviest
/// load measured 16 were needed.
const ATTEMPTS_DEFAULT: u32 = 64;

/// How long a capture waits for a replica that lags, for each attempt that it may take.
const LAG_PATIENCE: Duration = Duration::from_secs(1);

/// How long a capture waits for the cluster to tell its totals.
const TOTALS_DEADLINE: Duration = Duration::from_secs(10);

/// The line in the table of sources.
pub const KIND: SourceKind = SourceKind {
    backup_type: BackupType::Tigerbeetle,
    // Measured on 5 million transfers: level 1 stores 216 MB in 3.3 s, level 3 stores 237 MB in 3.9 s.
    zstd_level: 1,
    open,
    schema: || schemars::schema_for!(Table).to_value(),
    read_map,
    decode: assemble::decode,
    guard: guard::guard,
    restore: assemble::restore,
    drill: drill::drill,
};

/// The keys of a `[source.NAME]` table with `kind = "tigerbeetle"`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Table {
    /// The replica's data file.
    #[schemars(extend("format" = "path"))]
    data_file: PathBuf,
    /// The cluster's id, decimal. If given, a file of another cluster is refused.
    #[serde(default)]
    cluster: Option<String>,
    /// Addresses of the cluster's replicas, in order. If given, account totals are recorded with
    /// each snapshot, a snapshot waits for a replica that lags, and a restore with `--replica` is
    /// refused while one of them answers.
    #[serde(default)]
    addresses: Vec<String>,
    /// How to capture: online (default), reflink, stopped or pause.
    #[serde(default)]
    mode: Option<String>,
    /// Attempts of an online capture before it gives up. Default 64.
    #[serde(default)]
    attempts: Option<u32>,
    /// How `bkp logs` ships the change log.
    #[serde(default)]
    logs: Option<logs::Table>,
}

/// Why an attempt at a capture ended.
type Setback = crate::source::setback::Setback<Cause>;

/// What kept an attempt from its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// The file moved on under it.
    Moved,
    /// A part is not what it should be: overwritten since, being written, or damaged.
    Torn,
    /// The replica lags behind its cluster, or has something to repair from it.
    Behind,
}

fn moved(why: impl Into<String>) -> Setback {
    Setback::Again(Cause::Moved, why.into())
}

fn behind(why: impl Into<String>) -> Setback {
    Setback::Again(Cause::Behind, why.into())
}

fn torn(why: impl Into<String>) -> Setback {
    Setback::Again(Cause::Torn, why.into())
}

/// A configured TigerBeetle replica.
#[derive(Debug, Clone)]
struct Replica {
    data_file: PathBuf,
    cluster: Option<u128>,
    addresses: Vec<String>,
    mode: Mode,
    attempts: u32,
    logs: logs::Settings,
}

fn open(name: &str, table: toml::Table) -> Opened {
    let place = format!("source.{name}");
    let table: Table = parse_table(&place, table)?;
    let invalid = |key: &str, problem: String, hint: &str| ConfigError::Invalid {
        place: format!("{place}.{key}"),
        problem,
        hint: Some(hint.to_owned()),
    };
    let cluster = match &table.cluster {
        None => None,
        Some(text) => Some(text.parse().map_err(|error| {
            let problem = format!("`{text}` is not a cluster id: {error}");
            invalid(
                "cluster",
                problem,
                "write the decimal number that `tigerbeetle format --cluster` got",
            )
        })?),
    };
    if let Some(text) = table.addresses.iter().find(|text| totals::parse_address(text).is_none()) {
        let problem = format!("`{text}` is no address of a replica");
        return Err(invalid("addresses", problem, guard::ADDRESS_HINT));
    }
    let mode = match &table.mode {
        None => Mode::Online,
        Some(text) => Mode::parse(text).ok_or_else(|| {
            invalid(
                "mode",
                format!("no mode `{text}`"),
                &format!("modes: {}", Mode::NAMES.join(", ")),
            )
        })?,
    };
    let attempts = table.attempts.unwrap_or(ATTEMPTS_DEFAULT);
    if attempts == 0 {
        return Err(invalid("attempts", "0 attempts capture nothing".into(), "use at least 1"));
    }
    Ok(Box::new(Replica {
        data_file: table.data_file,
        cluster,
        addresses: table.addresses,
        mode,
        attempts,
        logs: logs::settings(&place, table.logs)?,
    }))
}

fn read_map(input: &mut dyn Read) -> anyhow::Result<Held> {
    Ok(Layout::read(input)?.into_held())
}

impl Replica {
    fn unsupported(&self, reason: String) -> SourceError {
        SourceError::Unsupported { what: self.data_file.display().to_string(), reason }
    }

    /// Refuses a file of another cluster than the configured one.
    fn check_cluster(&self, superblock: &Superblock) -> Result<(), SourceError> {
        let found = superblock.cluster();
        match self.cluster.filter(|wanted| *wanted != found) {
            None => Ok(()),
            Some(wanted) => Err(self.unsupported(format!(
                "the file belongs to cluster {found}, the configuration says {wanted}"
            ))),
        }
    }

    /// What the running cluster says, if there are addresses to ask at.
    ///
    /// # Errors
    /// If it does not answer and has several replicas: then this one may be cut off from the others, and
    /// nobody could tell how far it lags behind them. The only replica lags behind nobody.
    fn ask(
        &self,
        superblock: &Superblock,
        ctx: &Ctx,
    ) -> Result<Option<totals::Answer>, SourceError> {
        if self.addresses.is_empty() {
            return Ok(None);
        }
        let (cluster, addresses) = (superblock.cluster(), self.addresses.join(","));
        match totals::ask(cluster, &addresses, TOTALS_DEADLINE, ctx) {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if superblock.replica_count() > 1 => Err(SourceError::Engine {
                what: self.data_file.display().to_string(),
                reason: format!("nobody can tell how far the replica lags behind its cluster: {error}"),
                hint: "start the cluster or correct `addresses`; or say that you take what this replica has: leave out `addresses`, or stop it and give --mode stopped".into(),
            }),
            Err(error) => {
                ctx.monitor.warn(&format!("no account totals for drills: {error}"));
                Ok(None)
            }
        }
    }
}

impl Replica {
    /// Whether somebody answers at the configured addresses. Asks nothing: a cluster has few client
    /// sessions.
    fn check_servers(&self) -> Check {
        let answer = |address: &&String| totals::probe(address) == Presence::There;
        let there = self.addresses.iter().filter(answer).count();
        Check {
            what: format!("servers at {}", self.addresses.join(",")),
            ok: there > 0,
            found: format!("{there} of {} accept connections", self.addresses.len()),
            hint: (there == 0).then(|| {
                "start the cluster or correct `addresses`; without it snapshots record no account totals for drills".into()
            }),
        }
    }
}

/// Whether a backup with this `capture` record is of the replica that wrote this superblock.
fn is_same_replica(superblock: &Superblock, record: &Value) -> bool {
    let is = |key: &str, value: String| record.get(key).and_then(Value::as_str) == Some(&*value);
    is("cluster", superblock.cluster().to_string())
        && is("replica_id", format!("{:032x}", superblock.replica_id()))
}

impl Source for Replica {
    fn identity(&self, ctx: &Ctx) -> anyhow::Result<Identity> {
        let superblock = look(&self.data_file, ctx)?;
        let mut identity = Identity::from([
            ("cluster".to_owned(), superblock.cluster().to_string()),
            ("replica_id".to_owned(), format!("{:032x}", superblock.replica_id())),
        ]);
        // 0 is the cluster of everybody's trials, and the ids of its replicas follow from that.
        if superblock.cluster() == 0 {
            identity.extend(on_this_host(&self.data_file));
        }
        Ok(identity)
    }

    fn check_parent(&self, record: &Value, ctx: &Ctx) -> anyhow::Result<()> {
        if is_same_replica(&look(&self.data_file, ctx)?, record) {
            return Ok(());
        }
        let message =
            format!("that backup is not of the replica that writes {}", self.data_file.display());
        Err(Fault::new(Kind::Refused, message).hint("take a full backup: --scope full").into())
    }

    fn capture(
        &self,
        request: &CaptureRequest,
        out: &mut dyn EntrySink,
        ctx: &Ctx,
    ) -> anyhow::Result<Captured> {
        let mode = match request.mode.as_deref() {
            None => self.mode,
            Some(text) => Mode::parse(text).ok_or_else(|| {
                Fault::new(Kind::Usage, format!("a tigerbeetle source has no mode `{text}`"))
                    .hint(format!("modes: {}", Mode::NAMES.join(", ")))
            })?,
        };
        // Asked before the superblock is read: everything counted here must be in the capture.
        let superblock = look(&self.data_file, ctx)?;
        let before = if mode == Mode::Stopped { None } else { self.ask(&superblock, ctx)? };
        let barrier = before.map_or(0, |answer| answer.newest);
        // Before the file is held: what is held does not catch up.
        capture::await_log(&self.data_file, barrier, LAG_PATIENCE * self.attempts, ctx)?;
        let held = mode::hold(&self.data_file, mode, ctx)?;
        let parent = request.parent.as_ref();
        let capturing = Capturing {
            device: &held.device,
            out,
            parent: parent.map(|parent| &parent.held),
            attempts_max: mode.attempts_max(self.attempts),
            still: mode != Mode::Online,
            barrier,
            ctx,
        };
        let captured = capturing.run(&|superblock| {
            self.check_cluster(superblock)?;
            match parent.filter(|parent| !is_same_replica(superblock, &parent.record)) {
                None => Ok(()),
                Some(_) => Err(self.unsupported("the file was replaced by another one".into())),
            }
        })?;
        drop(held);
        let mut record = captured.record;
        if let Value::Object(fields) = &mut record {
            fields.insert("mode".into(), mode.name().into());
            // What is captured is captured; without this only a drill compares less.
            let after = before.and_then(|_| self.ask(&superblock, ctx).ok().flatten());
            if let Some((before, after)) = before.zip(after) {
                let bracket = Bracket { before: before.totals, after: after.totals };
                fields.insert("totals".into(), json!(bracket));
            }
        }
        let layout = captured.layout;
        Ok(Captured { record, map: Some(Box::new(move |out| layout.write(out))), lost: Vec::new() })
    }

    fn check(&self, ctx: &Ctx) -> Vec<Check> {
        let what = format!("data file {}", self.data_file.display());
        let looked = look(&self.data_file, ctx).and_then(|superblock| {
            self.check_cluster(&superblock)?;
            Ok(superblock)
        });
        let file = match looked {
            Ok(superblock) => Check {
                what,
                ok: true,
                found: format!(
                    "cluster {}, replica {} of {}, release {}, checkpoint op {}",
                    superblock.cluster(),
                    superblock.replica().unwrap_or_default(),
                    superblock.replica_count(),
                    superblock.release(),
                    superblock.checkpoint().op(),
                ),
                hint: None,
            },
            Err(error) => Check {
                what,
                ok: false,
                found: format!("{error:#}"),
                hint: Some(crate::error::diagnose(&error).hint),
            },
        };
        let servers = (!self.addresses.is_empty()).then(|| self.check_servers());
        [file].into_iter().chain(servers).collect()
    }

    fn addresses(&self) -> &[String] {
        &self.addresses
    }

    fn log(
        &self,
        mode: Option<LogMode>,
        own: Option<OwnEvents>,
    ) -> anyhow::Result<Box<dyn LogSource>> {
        logs::open(self, mode, own)
    }
}
