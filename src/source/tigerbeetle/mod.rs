//! The TigerBeetle source: snapshots of a live data file.
//!
//! - [`format`]: the file's layout and checksums.
//! - [`mode`], [`capture`], [`wal`], [`walk`]: from the file into the chain.
//! - [`layout`]: what a snapshot consists of.
//! - [`guard`], [`audit`], [`assemble`], [`target`]: from the chain back to a file.
//! - [`drill`], [`totals`]: starting the real server on it and comparing.
//!
//! What a capture holds is *transaction-consistent*: the state of the replica after one operation
//! of its log, with everything it had acknowledged before the capture began.

mod assemble;
mod audit;
mod capture;
mod drill;
mod format;
mod guard;
mod layout;
mod mode;
mod target;
mod totals;
mod wal;
mod walk;

use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use self::capture::Capturing;
use self::format::Superblock;
use self::layout::Layout;
use self::mode::Mode;
use self::totals::Bracket;
use crate::config::{ConfigError, parse_table};
use crate::ctx::Ctx;
use crate::domain::names::BackupType;
use crate::error::{Fault, Kind};
use crate::source::{
    CaptureRequest, Captured, Check, EntrySink, Held, Opened, Source, SourceError, SourceKind,
};

/// Attempts of an online capture if the configuration does not say otherwise. Under the heaviest
/// load measured 16 were needed.
const ATTEMPTS_DEFAULT: u32 = 64;

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
    /// each snapshot, and a restore into the running cluster is refused.
    #[serde(default)]
    addresses: Vec<String>,
    /// How to capture: online (default), reflink, stopped or pause.
    #[serde(default)]
    mode: Option<String>,
    /// Attempts of an online capture before it gives up. Default 64.
    #[serde(default)]
    attempts: Option<u32>,
}

/// Why an attempt at a capture ended.
#[derive(Debug)]
enum Setback {
    /// The file moved on under the attempt; another one may succeed.
    Moved(String),
    /// Trying again cannot help.
    Fatal(anyhow::Error),
}

impl From<SourceError> for Setback {
    fn from(error: SourceError) -> Self {
        Setback::Fatal(error.into())
    }
}

impl From<anyhow::Error> for Setback {
    fn from(error: anyhow::Error) -> Self {
        Setback::Fatal(error)
    }
}

fn moved(why: impl Into<String>) -> Setback {
    Setback::Moved(why.into())
}

/// A configured TigerBeetle replica.
#[derive(Debug)]
struct Replica {
    data_file: PathBuf,
    cluster: Option<u128>,
    addresses: Vec<String>,
    mode: Mode,
    attempts: u32,
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
    }))
}

fn read_map(input: &mut dyn Read) -> anyhow::Result<Held> {
    Ok(Layout::read(input)?.into_held())
}

impl Replica {
    /// Refuses a file of another cluster, and a parent of another replica.
    fn check_identity(
        &self,
        superblock: &Superblock,
        parent: Option<&Value>,
    ) -> Result<(), SourceError> {
        let refuse = |reason: String| {
            let what = self.data_file.display().to_string();
            Err(SourceError::Unsupported { what, reason })
        };
        let found = superblock.cluster();
        if let Some(wanted) = self.cluster.filter(|wanted| *wanted != found) {
            return refuse(format!(
                "the file belongs to cluster {found}, the configuration says {wanted}"
            ));
        }
        let same = |key: &str, value: &str| {
            parent.is_none_or(|parent| parent.get(key).and_then(Value::as_str) == Some(value))
        };
        let replica_id = format!("{:032x}", superblock.replica_id());
        if !same("cluster", &found.to_string()) || !same("replica_id", &replica_id) {
            return refuse(
                "the previous backup is of another replica: take a full one (--scope full)".into(),
            );
        }
        Ok(())
    }

    /// Totals of the running cluster, if there are addresses to ask at. A cluster that does not
    /// answer is no reason to have no backup.
    fn totals(&self, cluster: u128, ctx: &Ctx) -> Option<totals::Totals> {
        if self.addresses.is_empty() {
            return None;
        }
        let asked = totals::ask(cluster, &self.addresses.join(","), TOTALS_DEADLINE);
        asked
            .inspect_err(|error| {
                ctx.monitor.warn(&format!("no account totals recorded for drills: {error}"));
            })
            .ok()
    }
}

impl Source for Replica {
    fn modes(&self) -> &'static [&'static str] {
        Mode::NAMES
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
        let cluster = look(&self.data_file)?.cluster();
        let before = if mode == Mode::Stopped { None } else { self.totals(cluster, ctx) };
        let held = mode::hold(&self.data_file, mode, ctx)?;
        let parent = request.parent.as_ref();
        let capturing = Capturing {
            device: &held.device,
            out,
            parent: parent.map(|parent| &parent.held),
            attempts_max: mode.attempts_max(self.attempts),
            ctx,
        };
        let record = parent.map(|parent| &parent.record);
        let captured = capturing.run(&|superblock| self.check_identity(superblock, record))?;
        drop(held);
        let mut record = captured.record;
        if let Value::Object(fields) = &mut record {
            fields.insert("mode".into(), mode.name().into());
            let after = before.and_then(|_| self.totals(cluster, ctx));
            if let Some((before, after)) = before.zip(after) {
                fields.insert("totals".into(), json!(Bracket { before, after }));
            }
        }
        let layout = captured.layout;
        Ok(Captured { record, map: Some(Box::new(move |out| layout.write(out))) })
    }

    fn check(&self, _ctx: &Ctx) -> Vec<Check> {
        let what = format!("data file {}", self.data_file.display());
        let looked = look(&self.data_file).and_then(|superblock| {
            self.check_identity(&superblock, None)?;
            Ok(superblock)
        });
        vec![match looked {
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
        }]
    }

    fn addresses(&self) -> &[String] {
        &self.addresses
    }
}

/// The superblock of a file that may be live.
fn look(path: &std::path::Path) -> anyhow::Result<Superblock> {
    let device = crate::blockfile::device::Device::open(path)?;
    let superblock = capture::read_superblock(&device);
    let supported = superblock.and_then(|superblock| {
        capture::check_supported(&device, &superblock)?;
        Ok(superblock)
    });
    supported.map_err(|setback| match setback {
        Setback::Fatal(error) => error,
        Setback::Moved(why) => {
            SourceError::Unsupported { what: path.display().to_string(), reason: why }.into()
        }
    })
}
