//! What `bkp doctor` tells of exports: none of it is needed by base backups, so nothing here is a failure.

use std::path::Path;
use std::time::Duration;

use super::facts::server_state;
use super::selection::plain;
use crate::ctx::Ctx;
use crate::source::Check;
use crate::source::postgres::configured::Server;
use crate::source::postgres::server::programs::Programs;

/// How long the server may say nothing.
const SILENCE: Duration = Duration::from_mins(1);

/// What the role cannot read in a database that is dumped.
const UNREADABLE: &str = "
select
    (select count(*) from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where c.relkind in ('r', 'p', 'm', 'S') and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
        and not (has_table_privilege(c.oid, 'select') and has_schema_privilege(n.oid, 'usage'))),
    (select count(*) from pg_class where relrowsecurity and row_security_active(oid)),
    (select count(*) from pg_largeobject_metadata m where current_setting('lo_compat_privileges') = 'off'
        and not (select rolsuper from pg_roles where rolname = current_user)
        and not pg_has_role(m.lomowner, 'usage')
        and not exists (select from aclexplode(m.lomacl) a where a.privilege_type = 'SELECT'
            and (a.grantee = 0 or pg_has_role(a.grantee, 'usage')))),
    (select count(*) from pg_subscription where not (select rolsuper from pg_roles where rolname = current_user))";

/// Looks at what exports need.
pub(in crate::source::postgres) fn check(
    server: &Server,
    programs: Option<&Path>,
    ctx: &Ctx,
) -> Vec<Check> {
    let line = |what: &str, found: String, hint: Option<&str>| Check {
        what: what.to_owned(),
        ok: true,
        found,
        hint: hint.map(str::to_owned),
    };
    let (what, rights) = ("exports (bkp export)", "see LEAST RIGHTS in bkp-postgres(7)");
    let look = || -> anyhow::Result<Vec<Check>> {
        let mut sql = server.connect("postgres", SILENCE, ctx)?;
        let state = server_state(&mut sql, server)?;
        let major = u8::try_from(state.version_number / 10_000)?;
        let programs = Programs::client("pg_dump", major, programs)?;
        let mut obstacles = Vec::new();
        for name in &state.databases {
            let mut sql = server.connect(name, SILENCE, ctx)?;
            sql.query("SET search_path = ''")?;
            let rows = sql.query(UNREADABLE)?;
            let count = |column| {
                rows.first().and_then(|row| row.get(column)?.parse::<u64>().ok()).unwrap_or(0)
            };
            let found = [
                (count(0), "tables or sequences that the role may not read"),
                (count(1), "tables of which row security shows the role a part"),
                (count(2), "large objects that the role may not read"),
                (count(3), "subscriptions, which only a superuser dumps"),
            ];
            let found = found.iter().filter(|(count, _)| *count > 0);
            obstacles.extend(found.map(|(count, what)| format!("{}: {count} {what}", plain(name))));
        }
        let count = state.databases.len();
        let found = format!("pg_dump {}, {count} database(s)", programs.version);
        let ready = line(what, found, None);
        let obstacles =
            obstacles.into_iter().map(|found| line("exports: rights", found, Some(rights)));
        Ok(std::iter::once(ready).chain(obstacles).collect())
    };
    look()
        .unwrap_or_else(|error| vec![line(what, format!("not possible: {error:#}"), Some(rights))])
}
