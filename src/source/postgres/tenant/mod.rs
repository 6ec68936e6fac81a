//! One tenant's rows brought back in a database that many share.
//!
//! - [`map`]: whose row is whose, as configured. [`propose`]: a map made of foreign keys, or one that is checked.
//! - [`schema`]: the tables of a database. [`plan`]: the map, held against them. [`statements`]: the SQL of it.
//! - [`state`]: a server of ours that has the earlier rows. [`database`]: the one that they are for.
//! - [`apply`]: the transaction that puts them back. [`proof`]: that nobody else's row changed in it.
//!
//! ```text
//! server of ours    COPY of the tenant's rows  ->  temporary tables of a session of the database
//! database          one transaction: lock, hash, delete what came, update what differs, insert what is gone,
//!                   hash again, commit
//! ```

mod apply;
mod database;
pub(super) mod map;
mod plan;
mod proof;
mod propose;
mod schema;
mod state;
mod statements;

use self::database::Target;
use self::map::TenantMap;
use self::plan::differences;
use self::schema::{Schema, begin_session};
use self::statements::PutBack;
use super::client::Connection;
use super::configured::Server;
use super::dump::selection::{bounded, plain};
use super::settings;
use crate::ctx::Ctx;
use crate::error::{Fault, Kind};
use crate::source::tenants::{TenantKind, TenantRequest, TenantRestored, TenantState};

pub(super) use self::propose::check;

/// What is done with tenants.
pub(super) const KIND: TenantKind = TenantKind {
    restore: |(name, table), request, state, ctx| {
        restore(&settings::server(name, table)?, request, state, ctx)
    },
    map: |(name, table), request, ctx| {
        propose::tenant_map(&settings::server(name, table)?, request, ctx)
    },
};

/// Brings the rows of one tenant back.
///
/// # Errors
/// [`Kind::Config`] without a map; [`Kind::Refused`] for what cannot be brought back safely, with its name;
/// [`Kind::NotFound`] for a tenant that the state does not have; [`Kind::Failed`] if the database does not take it.
fn restore(
    server: &Server,
    request: &TenantRequest<'_>,
    state: &TenantState<'_>,
    ctx: &Ctx,
) -> anyhow::Result<TenantRestored> {
    let map = server.tenants.as_ref().ok_or_else(|| {
        let message = format!("{} has no map of tenants", server.place);
        Fault::new(Kind::Config, message).hint(
            "`bkp config tenants SOURCE --root SCHEMA.TABLE` proposes one from the foreign keys",
        )
    })?;
    // What does not fit is told before hours of restoring.
    let mut early = Target::open(request.into, (map, server.dumps.lock_timeout), ctx)?;
    apply::check_mode(&mut early, request.mode)?;
    let named = early.database.clone();
    drop(early);
    let database = request.database.or(map.database.as_deref()).unwrap_or(&named);
    let mut restored = None;
    let mut used = |sql: &mut Connection, is_recovered: bool| {
        begin_session(sql)?;
        let then = Schema::read(sql)?;
        let mut target = Target::open(request.into, (map, server.dumps.lock_timeout), ctx)?;
        check_state(map, &target, (&then, is_recovered))?;
        let key = target.take_state((sql, &then), request, ctx)?;
        restored = Some(put_back(&mut target, request, (key, &then))?);
        Ok(())
    };
    match state {
        TenantState::Export(chain) => {
            state::of_export(chain, request, (map, database), ctx, &mut used)?;
        }
        TenantState::Moment(moment) => {
            state::of_moment(moment, request, database, ctx, &mut used)?;
        }
    }
    restored.ok_or_else(|| Fault::new(Kind::Failed, "nothing was restored").into())
}

fn put_back(
    target: &mut Target,
    request: &TenantRequest<'_>,
    (key, then): (String, &Schema),
) -> anyhow::Result<TenantRestored> {
    let preview = target.preview()?;
    apply::check_dependents(&mut target.sql, &target.plan, PutBack::InPlace)?;
    let mut restored = TenantRestored {
        tenant: request.tenant.to_owned(),
        key,
        target: target.shown(),
        mode: request.mode,
        tables: preview,
        unchanged_rows: 0,
        quiet_triggers: target.quiet_triggers(request.mode),
        sequences: Vec::new(),
        notes: target.plan.notes.clone(),
    };
    if request.dry_run {
        return Ok(restored);
    }
    let (added, changed, removed) = restored.totals();
    (request.confirm)(&format!(
        "restore tenant {} in {}: {added} row(s) added, {changed} changed, {removed} removed",
        plain(request.tenant),
        restored.target,
    ))?;
    let applied = apply::apply(target, request.mode, then)?;
    restored.tables = applied.tables;
    restored.unchanged_rows = applied.unchanged_rows;
    restored.sequences = applied.sequences;
    Ok(restored)
}

/// Refuses a state whose tables are not those of the database.
fn check_state(map: &TenantMap, target: &Target, state: (&Schema, bool)) -> Result<(), Fault> {
    let found = differences(map, &target.schema, state);
    if found.is_empty() {
        return Ok(());
    }
    let shown = bounded(found.iter().map(String::as_str));
    let message = format!("the backup does not fit the database: {shown}");
    Err(Fault::new(Kind::Refused, message).hint(
        "nothing was changed; restore the whole database beside it, and move the rows by hand",
    ))
}
