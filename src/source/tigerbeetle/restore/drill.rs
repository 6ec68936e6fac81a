//! The drill: the real server starts on a restored copy, answers, and reports the same totals.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::assemble::write_file;
use crate::ctx::Ctx;
use crate::error::{Fault, Kind};
use crate::fs::staged_file::folder_of;
use crate::process;
use crate::source::logs::LogDrill;
use crate::source::tigerbeetle::cluster::totals::{Totals, TotalsBracket, ask_totals};
use crate::source::tigerbeetle::server::{CLEAN_UP, ENDED, PORT_TRIES, Server};
use crate::source::watchdog::Watchdog;
use crate::source::{Chain, Check, Compared, DrillTools, Drilled, SourceError};

/// How long a restored server may take until it answers, and each later question.
const ANSWER_DEADLINE: Duration = Duration::from_mins(5);
/// How long one question waits before the server is looked at again.
const ASK_DEADLINE: Duration = Duration::from_secs(10);
/// What a failing server was started for.
const WORK: &str = "drill";

/// Restores a chain to a file in `scratch`, starts the server on it alone, on loopback, compares
/// its account totals with those recorded at capture, and stops it.
pub(crate) fn drill(
    chain: &Chain<'_>,
    scratch: &Path,
    tools: &DrillTools,
    ctx: &Ctx,
) -> anyhow::Result<Drilled> {
    let record = chain.last().map(|newest| newest.manifest().capture.clone()).unwrap_or_default();
    let program = tools.tigerbeetle.as_deref().unwrap_or(Path::new("tigerbeetle"));
    let began = Instant::now();
    // From the first byte on.
    let watchdog = Watchdog::begin("", CLEAN_UP, &[scratch.as_os_str()])?;
    let data_file = scratch.join("drill.tigerbeetle");
    let file = File::options().write(true).create_new(true).open(&data_file)?;
    // One replica of a cluster does not answer alone; the copy is made a cluster of one.
    write_file(chain, &file, &data_file, ctx, &|superblock| superblock.with_replica(0, 1))?;
    drop(file);
    let cluster = record.get("cluster").and_then(Value::as_str).unwrap_or_default();
    let cluster = cluster.parse().unwrap_or_default();
    let found = first_totals(program, &data_file, &watchdog, cluster, ctx)
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

/// What a backup recorded of the totals: a snapshot those before and after it, a segment those at its end.
fn totals_on_record(record: Option<&Value>) -> Option<TotalsBracket> {
    let totals = record?.get("totals")?;
    let bracket = serde_json::from_value(totals.clone()).ok();
    bracket.or_else(|| {
        let at_end: Totals = serde_json::from_value(totals.clone()).ok()?;
        Some(TotalsBracket { before: at_end, after: at_end })
    })
}

/// Starts the server on what a log was restored to, and compares its totals with what is on record.
pub(crate) fn drill_log(drill: &LogDrill<'_>, ctx: &Ctx) -> anyhow::Result<Vec<Check>> {
    let program = drill.tools.tigerbeetle.as_deref().unwrap_or(Path::new("tigerbeetle"));
    let folder = folder_of(drill.file);
    let watchdog = Watchdog::begin("", CLEAN_UP, &[folder.as_os_str()])?;
    let cluster = drill.stream.parse()?;
    let found = first_totals(program, drill.file, &watchdog, cluster, ctx)?;
    drop(watchdog);
    let least = totals_on_record(drill.before).map(|totals| totals.before);
    let most = totals_on_record(drill.after).map(|totals| totals.after);
    let bounds = TotalsBracket {
        before: least.unwrap_or_default(),
        after: most.unwrap_or(Totals {
            accounts: u64::MAX,
            debits_posted: u128::MAX,
            credits_posted: u128::MAX,
        }),
    };
    let said = |totals: Option<Totals>| {
        totals.map_or_else(|| "nothing on record".to_owned(), |totals| totals.to_string())
    };
    let within = Check {
        what: "account totals are between those recorded before and after the moment".into(),
        ok: bounds.admits(&found),
        found: format!("{found}; before: {}; after: {}", said(least), said(most)),
        hint: None,
    };
    let checks = vec![answer_check(&found), within];
    match checks.iter().find(|check| !check.ok) {
        None => Ok(checks),
        Some(failed) => {
            let message = format!("drill of the log: {}: {}", failed.what, failed.found);
            Err(Fault::new(Kind::Integrity, message).into())
        }
    }
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
    let bracket: Option<TotalsBracket> =
        record.get("totals").and_then(|totals| serde_json::from_value(totals.clone()).ok());
    let (compared, what, ok, against) = match bracket {
        None => (
            Compared::Nothing,
            "account totals were not compared",
            true,
            "none were recorded at capture".to_owned(),
        ),
        Some(bracket @ TotalsBracket { before, after }) if before == after => (
            Compared::Equal,
            "account totals equal those recorded at capture",
            bracket.admits(found),
            format!("recorded: {before}"),
        ),
        Some(bracket @ TotalsBracket { before, after }) => (
            Compared::Within,
            "account totals are between those recorded before and after the capture",
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
    let output = process::helper_command(program).arg("version").stdin(Stdio::null()).output();
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
fn first_totals(
    program: &Path,
    data_file: &Path,
    watchdog: &Watchdog,
    cluster: u128,
    ctx: &Ctx,
) -> anyhow::Result<Totals> {
    for _ in 1..PORT_TRIES {
        let mut server = Server::start(program, data_file, watchdog)?;
        match await_answer(&mut server, cluster, ctx) {
            Err(_) if server.lost_its_port() => {}
            answered => return answered,
        }
    }
    await_answer(&mut Server::start(program, data_file, watchdog)?, cluster, ctx)
}

/// Asks until the server answers, dies, or the deadline is over.
fn await_answer(server: &mut Server, cluster: u128, ctx: &Ctx) -> anyhow::Result<Totals> {
    server.await_listening(WORK, ANSWER_DEADLINE, ctx)?;
    let began = Instant::now();
    loop {
        ctx.cancel.check()?;
        let asked = ask_totals(cluster, &server.address, ASK_DEADLINE, ctx);
        if server.child.try_wait()?.is_some() {
            return Err(server.failed(WORK, ENDED));
        }
        match asked {
            Ok(found) => return Ok(found.totals),
            Err(_) if began.elapsed() < ANSWER_DEADLINE => {}
            Err(error) => return Err(server.failed(WORK, &error.to_string())),
        }
    }
}
