//! The drill: the real server starts on a restored copy, answers, and says the same totals.

use std::fs::File;
use std::io::Read as _;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::assemble::write_file;
use super::totals::{self, Bracket, Totals};
use super::watchdog::Watchdog;
use crate::ctx::Ctx;
use crate::error::{Fault, Kind};
use crate::source::{Chain, Check, Compared, DrillTools, Drilled, SourceError};

/// How long a restored server may take until it answers, and each later question.
const ANSWER_DEADLINE: Duration = Duration::from_mins(5);
/// How long one question waits before the server is looked at again.
const ASK_DEADLINE: Duration = Duration::from_secs(10);
/// What a failed start shows of the server's log, bytes.
const LOG_TAIL_BYTES: usize = 600;

/// Restores a chain to a file in `scratch`, starts the server on it alone, on loopback, compares
/// its account totals with those recorded at capture, and stops it.
pub(super) fn drill(
    chain: &Chain<'_>,
    scratch: &Path,
    tools: &DrillTools,
    ctx: &Ctx,
) -> anyhow::Result<Drilled> {
    let record = chain.last().map(|newest| newest.manifest().capture.clone()).unwrap_or_default();
    let program = tools.tigerbeetle.as_deref().unwrap_or(Path::new("tigerbeetle"));
    let began = Instant::now();
    let data_file = scratch.join("drill.tigerbeetle");
    let file = File::options().write(true).create_new(true).open(&data_file)?;
    // One replica of a cluster does not answer alone; the copy is made a cluster of one.
    write_file(chain, &file, &data_file, ctx, &|superblock| superblock.with_replica(0, 1))?;
    drop(file);
    let mut server = Server::start(program, &data_file, scratch)?;
    let cluster = record.get("cluster").and_then(Value::as_str).unwrap_or_default();
    let answered = server.first_answer(cluster.parse().unwrap_or_default(), ctx);
    let found = answered.map_err(|error| explain(error, program, &record))?;
    let rto_seconds = began.elapsed().as_secs_f64();
    drop(server);
    let (compared, check) = totals_check(&record, &found);
    let checks = vec![answer_check(&found), check];
    if let Some(failed) = checks.iter().find(|check| !check.ok) {
        let message = format!("drill: {}: {}", failed.what, failed.found);
        return Err(Fault::new(Kind::Integrity, message).into());
    }
    Ok(Drilled { rto_seconds, compared, checks })
}

fn answer_check(found: &Totals) -> Check {
    let balanced = found.debits_posted == found.credits_posted;
    Check {
        what: "the restored server answers and its books balance".into(),
        ok: balanced,
        found: found.to_string(),
        hint: None,
    }
}

fn totals_check(record: &Value, found: &Totals) -> (Compared, Check) {
    let bracket: Option<Bracket> =
        record.get("totals").and_then(|totals| serde_json::from_value(totals.clone()).ok());
    let (compared, what, ok, against) = match bracket {
        None => (
            Compared::Nothing,
            "account totals were not compared",
            true,
            "none were recorded at capture".to_owned(),
        ),
        Some(bracket @ Bracket { before, after }) if before == after => (
            Compared::Equal,
            "account totals equal those recorded at capture",
            bracket.admits(found),
            format!("recorded: {before}"),
        ),
        Some(bracket @ Bracket { before, after }) => (
            Compared::Within,
            "account totals lie between those recorded before and after the capture",
            bracket.admits(found),
            format!("recorded: {before}; then {after}"),
        ),
    };
    let hint = (compared == Compared::Nothing).then(|| {
        "set `addresses` in the source's table, so that snapshots record totals".to_owned()
    });
    (compared, Check { what: what.to_owned(), ok, found: format!("{found}; {against}"), hint })
}

/// A server that does not start although it is of another release than the backup says nothing of
/// the backup.
fn explain(error: anyhow::Error, program: &Path, record: &Value) -> anyhow::Error {
    let wanted = record.get("release").and_then(Value::as_str).unwrap_or_default();
    let output = Command::new(program).arg("version").stdin(Stdio::null()).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    // TigerBeetle version 0.16.78+c9bca54
    let mut words = text.as_deref().unwrap_or_default().split([' ', '+', '\n']);
    match words.find(|word| word.starts_with(|first: char| first.is_ascii_digit())) {
        Some(found) if found != wanted => SourceError::Engine {
            what: program.display().to_string(),
            reason: format!("is release {found}, the backup is of {wanted}: {error:#}"),
            hint: format!(
                "set `tigerbeetle` under [tools] in the configuration to a binary of release {wanted}, or verify with --level decode"
            ),
        }
        .into(),
        _ => error,
    }
}

/// A server of ours; killed when dropped, or when we are.
struct Server {
    child: Child,
    address: String,
    log: PathBuf,
    _watchdog: Watchdog,
}

impl Server {
    fn start(program: &Path, data_file: &Path, scratch: &Path) -> anyhow::Result<Server> {
        // The listener is closed before the server binds the port; nothing else is told of it.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let address = format!("127.0.0.1:{port}");
        let log = scratch.join("drill.log");
        let output = File::options().write(true).create_new(true).open(&log)?;
        let script = "[ -z \"$told\" ] || kill -KILL \"$told\"; rm -rf -- \"$1\"";
        let mut watchdog = Watchdog::begin(script, &[scratch.as_os_str()])?;
        let child = Command::new(program)
            .arg("start")
            .arg(format!("--addresses={address}"))
            .arg(data_file)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .map_err(|error| {
                let message = format!("cannot start {}: {error}", program.display());
                Fault::new(Kind::Config, message).hint("install the TigerBeetle release of the backup and set `tigerbeetle` under [tools] in the configuration, or verify with --level decode")
            })?;
        watchdog.tell(&child.id().to_string());
        Ok(Server { child, address, log, _watchdog: watchdog })
    }

    /// Asks until the server answers, dies, or the deadline is over.
    fn first_answer(&mut self, cluster: u128, ctx: &Ctx) -> anyhow::Result<Totals> {
        let began = Instant::now();
        loop {
            ctx.cancel.check()?;
            let asked = totals::ask(cluster, &self.address, ASK_DEADLINE, ctx);
            if let Some(status) = self.child.try_wait()? {
                return Err(self.failed(&format!("the server ended: {status}")));
            }
            match asked {
                Ok(found) => return Ok(found.totals),
                Err(_) if began.elapsed() < ANSWER_DEADLINE => {}
                Err(error) => return Err(self.failed(&error.to_string())),
            }
        }
    }

    /// A failed drill is the worst news: with the end of the server's log.
    fn failed(&self, reason: &str) -> anyhow::Error {
        let mut log = Vec::new();
        // The log explains; that it cannot be read must not hide the failure.
        let _unread = File::open(&self.log).and_then(|mut file| file.read_to_end(&mut log));
        let tail = log.len().saturating_sub(LOG_TAIL_BYTES);
        let tail = String::from_utf8_lossy(log.get(tail..).unwrap_or_default()).into_owned();
        let message =
            format!("drill: {reason}; its log ends with: {}", tail.trim().replace('\n', " | "));
        Fault::new(Kind::Integrity, message)
            .hint("check that the program's release is the one in the backup's manifest; if it is, restore from another backup and keep this one for analysis")
            .into()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The copy is scratch: nothing in it needs an orderly end. Both calls fail only if the
        // server is gone already.
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}
