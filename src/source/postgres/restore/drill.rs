//! The drill: a server of ours starts on a restored folder, replays the log, answers, is checked and stopped.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use super::recovery;
use super::tree::Tree;
use crate::ctx::Ctx;
use crate::error::{Fault, Kind, diagnose};
use crate::source::logs::LogDrill;
use crate::source::postgres::record::{BaseRecord, Tables};
use crate::source::postgres::server::account::Account;
use crate::source::postgres::server::programs::{Programs, Task};
use crate::source::postgres::server::{Recovery, StartRequest, ThrowAway};
use crate::source::{Chain, Check, Compared, DrillTools, Drilled};

/// How long a recovery may take, and later each stop.
const RECOVERY_DEADLINE: Duration = Duration::from_hours(24);
const STOP_DEADLINE: Duration = Duration::from_hours(1);
/// How long the server may say nothing to a question.
const SILENCE: Duration = Duration::from_mins(10);

/// Restores a chain to a folder in `scratch`, starts the server on it, and checks it.
///
/// # Errors
/// [`Kind::Integrity`] if anything is amiss; what a program or the folder fails with.
pub(in crate::source::postgres) fn drill(
    chain: &Chain<'_>,
    scratch: &Path,
    tools: &DrillTools,
    ctx: &Ctx,
) -> anyhow::Result<Drilled> {
    let began = Instant::now();
    let record = BaseRecord::of_newest(chain)?;
    let data = scratch.join("data");
    let spaces: BTreeMap<u32, _> = record
        .tablespaces
        .iter()
        .map(|space| (space.oid, scratch.join(format!("tablespace-{}", space.oid))))
        .collect();
    let mut tree = Tree::begin(data.clone(), spaces.clone())?;
    tree.build(chain, ctx)?;
    for (oid, folder) in &spaces {
        std::fs::create_dir_all(data.join("pg_tblspc"))?;
        std::os::unix::fs::symlink(folder, data.join(format!("pg_tblspc/{oid}")))?;
    }
    let restored = RestoredServer { record: &record, data: &data, scratch, settings: &[] };
    let (found, answered, mut checks) = restored.run(tools, ctx)?;
    let rto_seconds = (answered - began).as_secs_f64();
    let (compared, check) = compare(&record, &found);
    checks.push(check);
    fail_if_amiss("drill", &checks)?;
    Ok(Drilled { rto_seconds, compared, checks })
}

/// Starts the server on what a log was restored to, and checks it.
///
/// # Errors
/// As [`drill`].
pub(in crate::source::postgres) fn drill_log(
    drill: &LogDrill<'_>,
    ctx: &Ctx,
) -> anyhow::Result<Vec<Check>> {
    let record = drill.before.map(BaseRecord::read).transpose().map_err(anyhow::Error::msg)?;
    let record = record.ok_or_else(|| {
        Fault::new(Kind::Integrity, "there is no record of the base backup before the moment")
    })?;
    let scratch = drill.file.parent().unwrap_or(Path::new("."));
    let settings = recovery::read(drill.file)?;
    let restored =
        RestoredServer { record: &record, data: drill.file, scratch, settings: &settings };
    let (_tables, _answered, checks) = restored.run(drill.tools, ctx)?;
    fail_if_amiss("drill of the log", &checks)?;
    Ok(checks)
}

fn fail_if_amiss(what: &str, checks: &[Check]) -> anyhow::Result<()> {
    match checks.iter().find(|check| !check.ok) {
        None => Ok(()),
        Some(failed) => {
            let message = format!("{what}: {}: {}", failed.what, failed.found);
            Err(Fault::new(Kind::Integrity, message).into())
        }
    }
}

/// A start of the server on a restored folder.
struct RestoredServer<'a> {
    record: &'a BaseRecord,
    data: &'a Path,
    scratch: &'a Path,
    settings: &'a [(String, String)],
}

impl RestoredServer<'_> {
    /// Starts, asks, checks and stops; says what tables there are, and when the server answered.
    fn run(&self, tools: &DrillTools, ctx: &Ctx) -> anyhow::Result<(Tables, Instant, Vec<Check>)> {
        let major = u8::try_from(self.record.major())?;
        let programs = Programs::find(major, tools.postgres.as_deref())?;
        let account = Account::choose(None)?;
        let request = StartRequest {
            programs: &programs,
            account: &account,
            data: self.data,
            scratch: self.scratch,
            superuser: self.record.superuser(),
            settings: self.settings,
        };
        let mut server = ThrowAway::start(request, ctx)?;
        let recovery = server.wait_until_recovered(RECOVERY_DEADLINE, ctx)?;
        if recovery != Recovery::Finished {
            let message = format!("the restored server did not end its recovery: {recovery:?}");
            return Err(Fault::new(Kind::Integrity, message).into());
        }
        let tables = Tables::count(&|database| server.connect(database, SILENCE, ctx))?;
        let answered = Instant::now();
        let mut checks = vec![Check {
            what: "the restored server replays the log and answers".into(),
            ok: true,
            found: format!("PostgreSQL {}, {}", programs.version, said(&tables)),
            hint: None,
        }];
        checks.push(amcheck(&server, &programs, ctx)?);
        server.stop_clean(STOP_DEADLINE, ctx)?;
        if self.record.data_checksums {
            let data = self.data.to_string_lossy();
            let words = ["--check", "--pgdata", &data];
            let task = Task { name: "pg_checksums", words: &words, variables: &[] };
            checks.push(passed(
                "checksums of all pages",
                programs.run(&task, &account, self.scratch, ctx),
            )?);
        }
        Ok((tables, answered, checks))
    }
}

/// Runs `pg_amcheck` over every database, where the server's package has it.
fn amcheck(server: &ThrowAway<'_>, programs: &Programs, ctx: &Ctx) -> anyhow::Result<Check> {
    let what = "tables and indexes (pg_amcheck)";
    let left_out = |why: &str| Check {
        what: what.to_owned(),
        ok: true,
        found: format!("not run: {why}"),
        hint: Some("install the package with the server's contrib modules".to_owned()),
    };
    if !programs.has("pg_amcheck") {
        return Ok(left_out("there is no such program"));
    }
    let words = ["--all", "--install-missing", "--jobs", "2"];
    match server.run("pg_amcheck", &words, ctx) {
        Err(error) if format!("{error:#}").contains("amcheck.control") => {
            Ok(left_out("the server has no extension amcheck"))
        }
        outcome => passed(what, outcome),
    }
}

/// A check by a program: it passes if that ends well.
fn passed(what: &str, outcome: anyhow::Result<String>) -> anyhow::Result<Check> {
    let check = |ok, found| Check { what: what.to_owned(), ok, found, hint: None };
    match outcome {
        Ok(_) => Ok(check(true, "nothing wrong".to_owned())),
        Err(error) if matches!(diagnose(&error).kind, Kind::Interrupted | Kind::Terminated) => {
            Err(error)
        }
        Err(error) => Ok(check(false, format!("{error:#}"))),
    }
}

fn said(tables: &Tables) -> String {
    let Tables(databases) = tables;
    let count: u64 = databases.values().sum();
    format!("{} database(s) with {count} tables", databases.len())
}

/// Compares with what was counted before and after the capture.
fn compare(record: &BaseRecord, found: &Tables) -> (Compared, Check) {
    let Some((before, after)) = record.tables_before.as_ref().zip(record.tables_after.as_ref())
    else {
        let check = Check {
            what: "tables were not compared".into(),
            ok: true,
            found: "none were counted at capture".into(),
            hint: Some("allow the role in pg_hba.conf to connect to the databases".into()),
        };
        return (Compared::Nothing, check);
    };
    let is_equal = before == after;
    let ok = if is_equal { found == before } else { found.is_between(before, after) };
    let (compared, what) = if is_equal {
        (Compared::Equal, "as many tables as were counted at capture")
    } else {
        (Compared::Within, "as many tables as were counted before or after the capture, or between")
    };
    let text = format!("{}; counted: {}, then {}", said(found), said(before), said(after));
    (compared, Check { what: what.into(), ok, found: text, hint: None })
}
