//! A server of ours that has the earlier rows: with a dump loaded into it, or recovered to a moment.

use std::collections::BTreeSet;
use std::time::Duration;

use super::map::{Role, TenantMap};
use crate::ctx::Ctx;
use crate::error::{Fault, Kind};
use crate::source::Chain;
use crate::source::logs::RestoreAtRequest;
use crate::source::postgres::client::Connection;
use crate::source::postgres::dump::custom_format::Contents;
use crate::source::postgres::dump::drill::{DumpLoading, SUPERUSER, make_cluster};
use crate::source::postgres::dump::index::{Index, export};
use crate::source::postgres::dump::selection::{Selection, bounded, plain};
use crate::source::postgres::dump::unpack;
use crate::source::postgres::logs::LOG;
use crate::source::postgres::record::BaseRecord;
use crate::source::postgres::restore::recovery;
use crate::source::postgres::server::account::Account;
use crate::source::postgres::server::programs::Programs;
use crate::source::postgres::server::{Recovery, StartRequest, ThrowAway};
use crate::source::tenants::TenantRequest;

/// How long a recovery may take.
const RECOVERY_DEADLINE: Duration = Duration::from_hours(24);
/// How long the server may say nothing to a question: a table may have many rows.
const SILENCE: Duration = Duration::from_hours(6);
/// The database that a dump is loaded into.
const LOADED: &str = "state";

/// What is done with the earlier rows. It is told whether the server recovered from a base backup.
pub(super) type Use<'a> = &'a mut dyn FnMut(&mut Connection, bool) -> anyhow::Result<()>;

/// Has a server of ours with a dump's tables of the map in it, for as long as `used` takes.
///
/// # Errors
/// [`Kind::Refused`] if the dump has tables that the map does not name; what loading it or `used` fails with.
pub(super) fn of_export(
    chain: &Chain<'_>,
    request: &TenantRequest<'_>,
    (map, database): (&TenantMap, &str),
    ctx: &Ctx,
    used: Use<'_>,
) -> anyhow::Result<()> {
    let link = export(chain)?;
    let index = Index::of(link, ctx)?;
    let database = index.database(Some(database))?;
    let programs = Programs::find(index.major()?, request.tools.postgres.as_deref())?;
    let account = Account::choose(None)?;
    let dump = unpack::dump(link, database, (request.scratch, "database.dump"), ctx)?;
    let selection = of_map(map, &dump.contents)?;
    let data = request.scratch.join("data");
    make_cluster(&programs, &account, &data, request.scratch, ctx)?;
    account.give(&dump.path)?;
    let server = start(&programs, &account, (&data, SUPERUSER), &[], request, ctx)?;
    let loading = DumpLoading { server: &server, index: &index, database, dump: &dump };
    loading.load_into(LOADED, &selection, ctx)?;
    std::fs::remove_file(&dump.path)?;
    used(&mut server.connect(LOADED, SILENCE, ctx)?, false)
}

/// Has a server of ours that recovered to a moment, for as long as `used` takes.
///
/// # Errors
/// What the restore, the recovery or `used` fails with.
pub(super) fn of_moment(
    moment: &RestoreAtRequest<'_>,
    request: &TenantRequest<'_>,
    database: &str,
    ctx: &Ctx,
    used: Use<'_>,
) -> anyhow::Result<()> {
    let record = BaseRecord::of_newest(moment.base)?;
    (LOG.restore_at)(moment, ctx)?;
    let data = &moment.restore.target;
    let settings = recovery::read(data)?;
    let programs =
        Programs::find(u8::try_from(record.major())?, request.tools.postgres.as_deref())?;
    let account = Account::choose(None)?;
    let server = start(&programs, &account, (data, record.superuser()), &settings, request, ctx)?;
    used(&mut server.connect(database, SILENCE, ctx)?, true)
}

fn start<'a>(
    programs: &'a Programs,
    account: &'a Account,
    (data, superuser): (&'a std::path::Path, &'a str),
    settings: &'a [(String, String)],
    request: &TenantRequest<'a>,
    ctx: &Ctx,
) -> anyhow::Result<ThrowAway<'a>> {
    let scratch = request.scratch;
    let start = StartRequest { programs, account, data, scratch, superuser, settings };
    let mut server = ThrowAway::start(start, ctx)?;
    match server.wait_until_recovered(RECOVERY_DEADLINE, ctx)? {
        Recovery::Finished => Ok(server),
        other @ (Recovery::Paused | Recovery::ShutDown) => {
            let message = format!("the restored server did not end its recovery: {other:?}");
            Err(Fault::new(Kind::Integrity, message).into())
        }
    }
}

/// The tables of a dump that the map has rules for, or that all share.
fn of_map(map: &TenantMap, contents: &Contents) -> Result<Selection, Fault> {
    let names = |kind: &str| -> BTreeSet<String> {
        let entries = contents.entries.iter().filter(|entry| entry.kind == kind);
        entries
            .filter_map(|entry| Some(format!("{}.{}", entry.schema.as_ref()?, entry.name)))
            .collect()
    };
    let (all, partitions) = (names("TABLE"), names("TABLE ATTACH"));
    let tables: Vec<&String> = all.difference(&partitions).collect();
    let is = |name: &str, unknown: bool| match map.role(name) {
        Role::Root | Role::Ruled(_) | Role::Shared => !unknown,
        Role::Unknown => unknown,
        Role::Excluded => false,
    };
    let unknown: Vec<&str> =
        tables.iter().filter(|name| is(name, true)).map(|name| name.as_str()).collect();
    if !unknown.is_empty() {
        let shown = bounded(unknown.into_iter());
        let message = format!("the map of tenants does not name tables of the backup: {shown}");
        return Err(Fault::new(Kind::Refused, message)
            .hint(format!("nothing was changed; name them in [{}]", map.place)));
    }
    let tables: Vec<String> = tables.into_iter().filter(|name| is(name, false)).cloned().collect();
    if tables.is_empty() {
        let message = format!("the backup has no table {}", plain(&map.root));
        return Err(Fault::new(Kind::Refused, message).hint("choose another backup or database"));
    }
    Ok(Selection { schemas: Vec::new(), tables })
}
