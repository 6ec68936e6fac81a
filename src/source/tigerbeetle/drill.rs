//! The drill: the real server starts on a restored copy, answers, and says the same totals.

use std::fs::File;
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
/// What a failed start shows of the server's log, characters.
const LOG_TAIL_CHARS: usize = 600;
/// Times that a server is started because another program took its port.
const PORT_TRIES: u32 = 5;
/// The server's cache: its default of 1 GiB may be more than a machine for drills has.
const CACHE: &str = "--cache-grid=256MiB";

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
    // From the first byte on: a killed drill leaves neither a server nor the books in the clear.
    let script = "[ -z \"$told\" ] || kill -KILL \"$told\"; rm -rf -- \"$1\"";
    let mut watchdog = Watchdog::begin("", script, &[scratch.as_os_str()])?;
    let data_file = scratch.join("drill.tigerbeetle");
    let file = File::options().write(true).create_new(true).open(&data_file)?;
    // One replica of a cluster does not answer alone; the copy is made a cluster of one.
    write_file(chain, &file, &data_file, ctx, &|superblock| superblock.with_replica(0, 1))?;
    drop(file);
    let cluster = record.get("cluster").and_then(Value::as_str).unwrap_or_default();
    let cluster = cluster.parse().unwrap_or_default();
    let found = answer(program, &data_file, &mut watchdog, cluster, ctx)
        .map_err(|error| explain(error, program, &record))?;
    let rto_seconds = began.elapsed().as_secs_f64();
    drop(watchdog);
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

/// Starts the server on the restored copy and returns its first answer; it is stopped then.
fn answer(
    program: &Path,
    data_file: &Path,
    watchdog: &mut Watchdog,
    cluster: u128,
    ctx: &Ctx,
) -> anyhow::Result<Totals> {
    for _ in 1..PORT_TRIES {
        let mut server = Server::start(program, data_file, watchdog)?;
        match server.first_answer(cluster, ctx) {
            // Another program took the port between our look and the server's.
            Err(_) if server.log().contains("AddressInUse") => {}
            answered => return answered,
        }
    }
    Server::start(program, data_file, watchdog)?.first_answer(cluster, ctx)
}

/// A server of ours; killed when dropped, or, by the watchdog, when we are.
struct Server {
    child: Child,
    address: String,
    log: PathBuf,
}

impl Server {
    fn start(program: &Path, data_file: &Path, watchdog: &mut Watchdog) -> anyhow::Result<Server> {
        // The listener is closed before the server binds the port; nothing else is told of it.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let address = format!("127.0.0.1:{port}");
        let log = data_file.with_extension("log");
        let output = File::create(&log)?;
        let child = Command::new(program)
            .args(["start", CACHE])
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
        Ok(Server { child, address, log })
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

    /// What it has said so far; nothing if that cannot be read.
    fn log(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// A server that does not answer, with the end of its log. Only if it says itself that the file
    /// is broken is the backup to blame: else it may be the machine.
    fn failed(&self, reason: &str) -> anyhow::Error {
        let log = self.log();
        let tail: String = log.chars().rev().take(LOG_TAIL_CHARS).collect();
        let tail: String = tail.chars().rev().collect();
        let message =
            format!("drill: {reason}; its log ends with: {}", tail.trim().replace('\n', " | "));
        let broken = ["panic", "WALCorrupt", "SuperBlock", "unreachable", "corrupt"];
        if broken.iter().any(|word| log.contains(word)) {
            return Fault::new(Kind::Integrity, message).into();
        }
        Fault::new(Kind::Source, message)
            .hint("give the drill memory, room and a whole `tigerbeetle` binary, and run it again; it says nothing of the backup yet")
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
