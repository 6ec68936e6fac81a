//! The drill: every dump is loaded into a new server of ours, and its rows are counted.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use super::index::{Database, Index, export};
use super::load::{LoadMethod, load};
use super::selection::{Selection, bounded, plain};
use super::target::create_statement;
use super::unpack::{self, UnpackedDump};
use crate::ctx::Ctx;
use crate::error::{Fault, Kind};
use crate::source::postgres::client::{Connection, quote_identifier, quoted};
use crate::source::postgres::server::account::Account;
use crate::source::postgres::server::programs::{Programs, Task};
use crate::source::postgres::server::{Recovery, StartRequest, ThrowAway};
use crate::source::{Chain, Check, Compared, DrillTools, Drilled};

/// How long a new server may take until it answers, and to stop.
const START_DEADLINE: Duration = Duration::from_mins(10);
/// How long the server may say nothing to a question: a table may have many rows.
const SILENCE: Duration = Duration::from_hours(6);
/// The role that the new server begins with.
pub(in crate::source::postgres) const SUPERUSER: &str = "bkp_drill";

/// Loads every dump of an export into a new server in `scratch`, and compares it with what was recorded.
///
/// # Errors
/// [`Kind::Integrity`] if one does not load, or has other rows; what a program or the folder fails with.
pub(in crate::source::postgres) fn drill(
    chain: &Chain<'_>,
    scratch: &Path,
    tools: &DrillTools,
    ctx: &Ctx,
) -> anyhow::Result<Drilled> {
    let began = Instant::now();
    let link = export(chain)?;
    let index = Index::of(link, ctx)?;
    let programs = Programs::find(index.major()?, tools.postgres.as_deref())?;
    let account = Account::choose(None)?;
    let data = scratch.join("data");
    make_cluster(&programs, &account, &data, scratch, ctx)?;
    let request = StartRequest {
        programs: &programs,
        account: &account,
        data: &data,
        scratch,
        superuser: SUPERUSER,
        settings: &[],
    };
    let mut server = ThrowAway::start(request, ctx)?;
    if server.wait_until_recovered(START_DEADLINE, ctx)? != Recovery::Finished {
        return Err(Fault::new(Kind::Failed, "a new server does not take connections").into());
    }
    let mut checks = Vec::new();
    for (number, database) in index.databases.iter().enumerate() {
        ctx.cancel.check()?;
        let dump = unpack::dump(link, database, (scratch, "database.dump"), ctx)?;
        account.give(&dump.path)?;
        let name = format!("drill_{number}");
        let loading = DumpLoading { server: &server, index: &index, database, dump: &dump };
        let loaded = loading.load_into(&name, &Selection::default(), ctx);
        std::fs::remove_file(&dump.path)?;
        let shown = plain(&database.name);
        loaded.map_err(|error| {
            if ctx.cancel.check().is_err() {
                return error;
            }
            let message = format!("drill: the dump of database {shown} does not load: {error:#}");
            Fault::new(Kind::Integrity, message).into()
        })?;
        checks.push(compare(&mut server.connect(&name, SILENCE, ctx)?, database)?);
    }
    let rto_seconds = began.elapsed().as_secs_f64();
    server.stop_clean(START_DEADLINE, ctx)?;
    match checks.iter().find(|check| !check.ok) {
        None => Ok(Drilled { rto_seconds, compared: Compared::Equal, checks }),
        Some(failed) => {
            let message = format!("drill: {}: {}", failed.what, failed.found);
            Err(Fault::new(Kind::Integrity, message).into())
        }
    }
}

/// Makes the data folder of a new server.
///
/// # Errors
/// What `initdb` fails with.
pub(crate) fn make_cluster(
    programs: &Programs,
    account: &Account,
    data: &Path,
    scratch: &Path,
    ctx: &Ctx,
) -> anyhow::Result<()> {
    std::fs::create_dir(data)?;
    account.give(data)?;
    let data = data.to_string_lossy();
    let words = [
        "--pgdata",
        &data,
        "--username",
        SUPERUSER,
        "--encoding",
        "UTF8",
        "--locale",
        "C",
        "--auth",
        "trust",
        "--no-sync",
        "--no-instructions",
    ];
    let task = Task { name: "initdb", words: &words, variables: &[] };
    programs.run(&task, account, scratch, ctx).map(drop)
}

/// A dump that is loaded into a server of ours.
pub(in crate::source::postgres) struct DumpLoading<'a> {
    pub(in crate::source::postgres) server: &'a ThrowAway<'a>,
    pub(in crate::source::postgres) index: &'a Index,
    pub(in crate::source::postgres) database: &'a Database,
    pub(in crate::source::postgres) dump: &'a UnpackedDump,
}

impl DumpLoading<'_> {
    /// Makes a database, the roles that the dump names, and loads what is selected of it.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if the dump does not have it; what the server or `pg_restore` fails with.
    pub(in crate::source::postgres) fn load_into(
        &self,
        name: &str,
        selection: &Selection,
        ctx: &Ctx,
    ) -> anyhow::Result<()> {
        let DumpLoading { server, index, database, dump } = self;
        let mut sql = server.connect("postgres", SILENCE, ctx)?;
        let rows = sql.query("select rolname from pg_catalog.pg_roles")?;
        let known: BTreeSet<&str> = rows.iter().filter_map(|row| row.get(0)).collect();
        let roles = database.facts.roles.iter().map(String::as_str);
        let roles: BTreeSet<&str> = roles.chain(dump.contents.owners()).collect();
        for role in roles.difference(&known) {
            // A view that is filled is filled with the rights of its owner.
            let is_superuser = database.facts.superusers.iter().any(|superuser| superuser == role);
            let rights = if is_superuser { "SUPERUSER" } else { "BYPASSRLS" };
            sql.query(&format!("CREATE ROLE {} {rights}", quote_identifier(role)))?;
        }
        // The order of text may be one that only the machine of the original has.
        let created = sql.query(&create_statement(name, &database.facts, index.version_number));
        if let Err(error) = created {
            ctx.monitor.warn(&format!("{error}; the order of text is C there instead"));
            sql.query(&format!(
                "CREATE DATABASE {} TEMPLATE template0 ENCODING {} LOCALE 'C' LOCALE_PROVIDER libc",
                quote_identifier(name),
                crate::source::postgres::client::quote_literal(&database.facts.encoding)
            ))?;
        }
        let selected = selection.choose(&dump.contents)?;
        let run = |program: &str, words: &[&str]| server.run(program, words, ctx);
        let dbname = format!("dbname={}", quoted(name));
        load(dump, &selected, (&dbname, LoadMethod::Parallel), false, &run)
    }
}

/// Counts the rows of every table, and compares with what the dump has.
fn compare(sql: &mut Connection, database: &Database) -> anyhow::Result<Check> {
    let (mut rows, mut different) = (0_u64, Vec::new());
    for table in &database.tables {
        let name = format!("{}.{}", quote_identifier(&table.schema), quote_identifier(&table.name));
        let found: u64 = sql.query_value(&format!("select count(*) from only {name}"))?.parse()?;
        rows = rows.saturating_add(found);
        if found != table.rows {
            different.push(format!("{name} has {found} rows instead of {}", table.rows));
        }
    }
    let large_objects =
        sql.query_value("select count(*) from pg_catalog.pg_largeobject_metadata")?;
    if large_objects != database.large_objects.to_string() {
        let recorded = database.large_objects;
        different.push(format!("{large_objects} large objects instead of {recorded}"));
    }
    let (tables, name) = (database.tables.len(), plain(&database.name));
    let found = if different.is_empty() {
        format!(
            "{tables} tables with {rows} rows, {large_objects} large objects: as many as were dumped"
        )
    } else {
        bounded(different.iter().map(String::as_str))
    };
    Ok(Check {
        what: format!("database {name} loads"),
        ok: different.is_empty(),
        found,
        hint: None,
    })
}
