//! A replica as a source of backups.

use std::time::Duration;

use serde_json::{Value, json};

use super::capture::attempts::{CaptureRun, await_log};
use super::capture::hold::hold;
use super::capture::mode::CaptureMode;
use super::cluster::address::{Presence, probe};
use super::cluster::totals::{TotalsAnswer, TotalsBracket, ask_totals};
use super::data_file::quorum::read_live_superblock;
use super::data_file::superblock::Superblock;
use super::layout::LayoutFile as _;
use super::logs;
use super::replica::Replica;
use crate::archive::EntrySink;
use crate::ctx::Ctx;
use crate::domain::manifest::Identity;
use crate::error::{Fault, Kind};
use crate::source::logs::{LogSource, OwnEvents};
use crate::source::{
    CaptureRequest, Captured, Check, DrillTools, Source, SourceError, on_this_host,
};

/// How long a capture waits for a replica that lags, for each attempt that it may take.
const LAG_PATIENCE: Duration = Duration::from_secs(1);

/// How long a capture waits for the cluster to tell its totals.
const TOTALS_DEADLINE: Duration = Duration::from_secs(10);

impl Replica {
    /// What the running cluster says, if there are addresses to ask at.
    ///
    /// # Errors
    /// If it does not answer and has several replicas: then this one may be cut off from the others, and
    /// nobody could tell how far it lags behind them. The only replica lags behind nobody.
    fn ask_cluster(
        &self,
        superblock: &Superblock,
        ctx: &Ctx,
    ) -> Result<Option<TotalsAnswer>, SourceError> {
        if self.addresses.is_empty() {
            return Ok(None);
        }
        let (cluster, addresses) = (superblock.cluster(), self.addresses.join(","));
        match ask_totals(cluster, &addresses, TOTALS_DEADLINE, ctx) {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if superblock.replica_count() > 1 => Err(SourceError::Engine {
                what: self.data_file.display().to_string(),
                reason: format!("cannot tell how far the replica lags behind its cluster: {error}"),
                hint: "start the cluster or correct `addresses`; or accept the state of this replica: remove `addresses`, or stop it and pass --mode stopped".into(),
            }),
            Err(error) => {
                ctx.monitor.warn(&format!("no account totals for drills: {error}"));
                Ok(None)
            }
        }
    }

    /// Whether somebody answers at the configured addresses. Asks nothing: a cluster has few client
    /// sessions.
    fn check_servers(&self) -> Check {
        let answer = |address: &&String| probe(address) == Presence::There;
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
        let superblock = read_live_superblock(&self.data_file, ctx)?;
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
        if is_same_replica(&read_live_superblock(&self.data_file, ctx)?, record) {
            return Ok(());
        }
        let message =
            format!("that backup is not of the replica that writes {}", self.data_file.display());
        Err(Fault::new(Kind::Refused, message).hint("take a full backup: --scope full").into())
    }

    fn capture(
        &self,
        request: &CaptureRequest<'_>,
        out: &mut dyn EntrySink,
        ctx: &Ctx,
    ) -> anyhow::Result<Captured> {
        let mode = match request.mode.as_deref() {
            None => self.mode,
            Some(text) => CaptureMode::parse(text).ok_or_else(|| {
                Fault::new(Kind::Usage, format!("a tigerbeetle source has no mode `{text}`"))
                    .hint(format!("modes: {}", CaptureMode::NAMES.join(", ")))
            })?,
        };
        // Asked before the superblock is read: everything counted here must be in the capture.
        let superblock = read_live_superblock(&self.data_file, ctx)?;
        let before =
            if mode == CaptureMode::Stopped { None } else { self.ask_cluster(&superblock, ctx)? };
        let barrier = before.map_or(0, |answer| answer.newest);
        // Before the file is held: what is held does not catch up.
        await_log(&self.data_file, barrier, LAG_PATIENCE * self.attempts, ctx)?;
        let held = hold(&self.data_file, mode, ctx)?;
        let parent = request.parent.as_ref();
        let capturing = CaptureRun {
            device: &held.device,
            out,
            parent: parent.map(|parent| &parent.held),
            attempts_max: mode.attempts_max(self.attempts),
            still: mode != CaptureMode::Online,
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
            let after = before.and_then(|_| self.ask_cluster(&superblock, ctx).ok().flatten());
            if let Some((before, after)) = before.zip(after) {
                let bracket = TotalsBracket { before: before.totals, after: after.totals };
                fields.insert("totals".into(), json!(bracket));
            }
        }
        let layout = captured.layout;
        Ok(Captured { record, map: Some(Box::new(move |out| layout.write(out))), lost: Vec::new() })
    }

    fn check(&self, _tools: &DrillTools, ctx: &Ctx) -> Vec<Check> {
        let what = format!("data file {}", self.data_file.display());
        let looked = read_live_superblock(&self.data_file, ctx).and_then(|superblock| {
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
        mode: Option<&str>,
        own: Option<OwnEvents>,
    ) -> anyhow::Result<Box<dyn LogSource>> {
        logs::open(self, mode, own)
    }
}
