//! What a server says of its databases, for those who bring them back.

use serde::Deserialize;

use super::index::Facts;
use crate::error::{Fault, Kind};
use crate::source::SourceError;
use crate::source::postgres::client::Connection;
use crate::source::postgres::configured::Server;

/// What a dump has to know of the server.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct ServerState {
    pub(super) system: String,
    pub(super) version: String,
    pub(super) version_number: u32,
    pub(super) is_superuser: bool,
    /// Whether the role may read the passwords of roles.
    pub(super) reads_passwords: bool,
    pub(super) tablespaces: Vec<String>,
    /// The databases that are dumped.
    #[serde(default)]
    pub(super) databases: Vec<String>,
    /// Those that are not although nobody left them out, and why.
    #[serde(default)]
    pub(super) left_out: Vec<String>,
}

const STATE: &str = "
select json_build_object(
    'system', (select system_identifier::text from pg_control_system()),
    'version', current_setting('server_version'),
    'version_number', current_setting('server_version_num')::int,
    'is_superuser', (select rolsuper from pg_roles where rolname = current_user),
    'reads_passwords', has_table_privilege('pg_catalog.pg_authid', 'select'),
    'tablespaces', (select coalesce(json_agg(spcname order by spcname), '[]') from pg_tablespace where oid >= 16384)
)::text";

/// What a database is, what is in it, and when that was so. The names of two columns differ between versions.
const FACTS: &str = "
select json_build_object(
    'owner', pg_get_userbyid(d.datdba),
    'encoding', pg_encoding_to_char(d.encoding),
    'provider', d.datlocprovider,
    'collate', d.datcollate,
    'ctype', d.datctype,
    'locale', {locale},
    'rules', {rules},
    'roles', (select coalesce(json_agg(distinct r.rolname), '[]')
        from pg_shdepend s join pg_roles r on r.oid = s.refobjid
        where s.refclassid = 'pg_authid'::regclass and s.dbid = d.oid),
    'superusers', (select coalesce(json_agg(rolname order by rolname), '[]') from pg_roles where rolsuper),
    'extensions', (select coalesce(json_agg(json_build_object('name', extname, 'version', extversion) order by extname), '[]')
        from pg_extension),
    'publications', (select coalesce(json_agg(json_build_object('name', pubname, 'all_tables', puballtables) order by pubname), '[]')
        from pg_publication),
    'subscriptions', (select coalesce(json_agg(subname order by subname), '[]')
        from pg_subscription where subdbid = d.oid)
)::text,
to_char(transaction_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'),
(case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_insert_lsn() end)::text
from pg_database d where d.datname = current_database()";

/// Asks what a dump has to know, and which databases there are.
///
/// # Errors
/// [`Kind::Config`] if none of those that are wanted is there; what the server fails with.
pub(super) fn server_state(sql: &mut Connection, server: &Server) -> anyhow::Result<ServerState> {
    sql.query("SET search_path = ''")?;
    let text = sql.query_value(STATE)?;
    let mut state: ServerState =
        serde_json::from_str(&text).map_err(|error| unread(sql, &error))?;
    let rows = sql.query(
        "select datname, datallowconn, datistemplate from pg_database order by datname = 'postgres', datname",
    )?;
    let wanted = &server.dumps.databases;
    let mut unused: Vec<&String> = wanted.iter().collect();
    for row in &rows {
        let is = |column: usize| row.get(column) == Some("t");
        let Some(name) = row.get(0) else { continue };
        let is_named = wanted.iter().any(|wanted| wanted == name);
        unused.retain(|wanted| *wanted != name);
        if !is_named && (is(2) || !wanted.is_empty()) {
            continue;
        }
        if is(1) {
            state.databases.push(name.to_owned());
        } else {
            state.left_out.push(format!("database {name} takes no connections"));
        }
    }
    if let Some(name) = unused.first() {
        let message =
            format!("{}.databases names `{name}`, which the server does not have", server.place);
        let hint = "correct the name: it is that of a database, not a pattern";
        return Err(Fault::new(Kind::Config, message).hint(hint).into());
    }
    Ok(state)
}

/// What the database of a connection is at this moment, the moment, and the position of the log.
///
/// # Errors
/// What the server fails with.
pub(super) fn facts_of(sql: &mut Connection) -> anyhow::Result<(Facts, String, String)> {
    let version = sql.server_version()?;
    let locale = if version >= 170_000 { "d.datlocale" } else { "d.daticulocale" };
    let rules = if version >= 160_000 { "d.daticurules" } else { "null" };
    let query = FACTS.replace("{locale}", locale).replace("{rules}", rules);
    let rows = sql.query(&query)?;
    let row = rows.first();
    let value = |column| row.and_then(|row| row.get(column)).unwrap_or_default();
    let facts = serde_json::from_str(value(0)).map_err(|error| unread(sql, &error))?;
    Ok((facts, value(1).to_owned(), value(2).to_owned()))
}

fn unread(sql: &Connection, error: &serde_json::Error) -> SourceError {
    let reason = format!("describes its databases in an unknown way: {error}");
    SourceError::Unsupported { what: sql.host().to_owned(), reason }
}
