//! The database that a restore makes, or fills if it is empty.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::index::{Database, Facts, Index};
use super::selection::{Selected, bounded, plain};
use crate::ctx::{Ctx, user};
use crate::error::{Fault, Kind};
use crate::process;
use crate::source::postgres::client::{
    ClientError, Connection, Conninfo, Purpose, Surroundings, quote_identifier, quote_literal,
};

/// How long the server may say nothing: dropping and making a database waits for a checkpoint.
const SILENCE: Duration = Duration::from_mins(10);
/// Where a database is made and dropped from.
const MAINTENANCE: &str = "postgres";
/// What the SQLSTATE of a database that does not exist is.
const NO_DATABASE: &str = "3D000";

/// What is in a database that a restore could collide with.
const CONTENT: &str = "
select count(*) from (
    select oid from pg_class where oid >= 16384
    union all select oid from pg_proc where oid >= 16384
    union all select oid from pg_type where oid >= 16384
    union all select oid from pg_namespace where oid >= 16384 and nspname !~ '^pg_'
    union all select oid from pg_extension where oid >= 16384
    union all select oid from pg_largeobject_metadata
    union all select oid from pg_publication
    union all select oid from pg_event_trigger
) found";

/// Whether what `--to` names is a server.
pub(in crate::source::postgres) fn is_server(to: &Path) -> bool {
    let text = to.to_string_lossy();
    ["postgresql://", "postgres://"].iter().any(|scheme| text.starts_with(scheme))
}

/// The server and the database that a restore is for.
pub(super) struct TargetDatabase {
    pub(super) conninfo: Conninfo,
    /// A connection to the database if it exists, else to the one that others are made from.
    pub(super) sql: Connection,
    pub(super) exists: bool,
    pub(super) version_number: u32,
}

impl TargetDatabase {
    /// Connects, and looks whether the database is there.
    ///
    /// # Errors
    /// [`Kind::Usage`] for an address with a password; [`Kind::Refused`] if the database has something in it.
    pub(super) fn open(to: &Path, ctx: &Ctx) -> anyhow::Result<TargetDatabase> {
        let surroundings = Surroundings {
            variable: &process::variable,
            home: process::variable("HOME").map(PathBuf::from),
            user: user(),
        };
        let conninfo = Conninfo::parse(&to.to_string_lossy(), &surroundings)?;
        if conninfo.has_password_in_text() {
            let hint = "every user can read it there: put it into PGPASSWORD or ~/.pgpass";
            return Err(Fault::new(Kind::Usage, "--to has a password in it").hint(hint).into());
        }
        let connect = |database: &str| {
            let database = Some(database.to_owned());
            Connection::connect(
                &conninfo,
                &Purpose { replication: false, database, silence: SILENCE },
                ctx,
            )
        };
        let (mut sql, exists) = match connect(&conninfo.database) {
            Ok(sql) => (sql, true),
            Err(error) if error.sqlstate() == Some(NO_DATABASE) => (connect(MAINTENANCE)?, false),
            Err(error) => return Err(error.into()),
        };
        sql.query("SET search_path = ''")?;
        if exists && sql.query_value(CONTENT)? != "0" {
            let message = format!("database {} is not empty", plain(&conninfo.database));
            return Err(Fault::new(Kind::Refused, message)
                .hint("name one that does not exist yet: bkp creates it")
                .into());
        }
        let version_number = sql.server_version()?;
        Ok(TargetDatabase { conninfo, sql, exists, version_number })
    }

    /// Names everything that the dump needs and the server does not have, or does not permit.
    ///
    /// # Errors
    /// [`Kind::Refused`] with all of it.
    pub(super) fn check(
        &mut self,
        (index, database): (&Index, &Database),
        selected: &Selected<'_>,
    ) -> anyhow::Result<Vec<String>> {
        let (own, theirs) = (self.version_number / 10_000, index.version_number / 10_000);
        let mut missing = Vec::new();
        if own < theirs {
            missing.push(format!("the server is PostgreSQL {own}, the dump is of {theirs}"));
        }
        let rows = self
            .sql
            .query("select rolsuper, rolcreatedb from pg_roles where rolname = current_user")?;
        let is = |column| rows.first().and_then(|row| row.get(column)) == Some("t");
        let (is_superuser, creates) = (is(0), is(0) || is(1));
        if !self.exists && !creates {
            missing.push(format!("role {} may not create databases (CREATEDB)", self.sql.user()));
        }
        missing.extend(self.missing_roles(database, selected, is_superuser)?);
        missing.extend(self.missing_extensions(selected, is_superuser)?);
        if !is_superuser {
            missing.extend(for_superusers(database, selected));
        }
        if !missing.is_empty() {
            let message = format!("the dump does not restore there: {}", missing.join("; "));
            return Err(Fault::new(Kind::Refused, message)
                .hint("nothing was changed; create what is missing (globals.sql of the backup has the roles: --to FOLDER), or connect as a superuser")
                .into());
        }
        let spaces = self.missing_tablespaces(selected)?;
        Ok(spaces
            .map(|names| {
                format!("the server has no tablespace {names}: its tables go to the default one")
            })
            .into_iter()
            .collect())
    }

    /// Which of these names a query for names does not find.
    fn missing_of(&mut self, names: &[String], query: &str) -> anyhow::Result<Vec<String>> {
        let rows = self.sql.query(query)?;
        let known: Vec<&str> = rows.iter().filter_map(|row| row.get(0)).collect();
        Ok(names.iter().filter(|name| !known.contains(&name.as_str())).cloned().collect())
    }

    fn missing_roles(
        &mut self,
        database: &Database,
        selected: &Selected<'_>,
        is_superuser: bool,
    ) -> anyhow::Result<Option<String>> {
        let mut roles: Vec<String> =
            selected.entries.iter().filter_map(|entry| entry.owner.clone()).collect();
        roles.sort();
        roles.dedup();
        let others = database.facts.roles.iter().filter(|role| {
            let is_named = |text: &String| {
                let is_part = |c: char| !(c.is_alphanumeric() || c == '_' || c == '$');
                text.contains(&quote_identifier(role)) || text.split(is_part).any(|w| w == *role)
            };
            selected.entries.iter().any(|entry| is_named(&entry.statement))
        });
        let named: Vec<String> = roles.iter().cloned().chain(others.cloned()).collect();
        let missing = self.missing_of(&named, "select rolname from pg_roles")?;
        if !missing.is_empty() {
            let shown = bounded(missing.iter().map(String::as_str));
            return Ok(Some(format!("there is no role {shown}")));
        }
        if is_superuser {
            return Ok(None);
        }
        let right = if self.version_number >= 160_000 { "SET" } else { "MEMBER" };
        let query = format!("select rolname from pg_roles where pg_has_role(oid, '{right}')");
        let missing = self.missing_of(&roles, &query)?;
        let shown = bounded(missing.iter().map(String::as_str));
        Ok((!missing.is_empty()).then(|| {
            format!(
                "role {} may not make things of role {shown} (GRANT it that role)",
                self.sql.user()
            )
        }))
    }

    fn missing_extensions(
        &mut self,
        selected: &Selected<'_>,
        is_superuser: bool,
    ) -> anyhow::Result<Option<String>> {
        let extensions = selected.entries.iter().filter(|entry| entry.kind == "EXTENSION");
        let names: Vec<String> = extensions.map(|entry| entry.name.clone()).collect();
        let missing = self.missing_of(&names, "select name from pg_available_extensions")?;
        if !missing.is_empty() {
            let names = bounded(missing.iter().map(String::as_str));
            return Ok(Some(format!("there is no extension {names}")));
        }
        let trusted =
            "select name from pg_available_extension_versions where trusted or not superuser";
        let untrusted = if is_superuser { Vec::new() } else { self.missing_of(&names, trusted)? };
        let names = bounded(untrusted.iter().map(String::as_str));
        Ok((!untrusted.is_empty()).then(|| format!("only a superuser creates extension {names}")))
    }

    /// The tablespaces that the server does not have.
    pub(super) fn missing_tablespaces(
        &mut self,
        selected: &Selected<'_>,
    ) -> anyhow::Result<Option<String>> {
        let mut names: Vec<String> =
            selected.entries.iter().filter_map(|entry| entry.tablespace.clone()).collect();
        names.sort();
        names.dedup();
        let missing = self.missing_of(&names, "select spcname from pg_tablespace")?;
        let names = bounded(missing.iter().map(String::as_str));
        Ok((!missing.is_empty()).then_some(names))
    }

    /// Makes a database like the one that was dumped.
    ///
    /// # Errors
    /// What the server fails with.
    pub(super) fn create(&mut self, name: &str, facts: &Facts) -> Result<(), ClientError> {
        self.sql.query(&create_statement(name, facts, self.version_number)).map(drop)
    }

    /// Drops a database that was made, if it is still there. A failure is told, and leaves it.
    pub(super) fn abandon(&mut self, name: &str, ctx: &Ctx) {
        let drop = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quote_identifier(name));
        if let Err(error) = self.sql.query(&drop) {
            ctx.monitor.warn(&format!("cannot drop database {name}: {error}; drop it by hand"));
        }
    }

    /// Gives a database that is complete the name, and the owner where this role may.
    ///
    /// # Errors
    /// What the server fails with, as if somebody has made one of the name meanwhile.
    pub(super) fn publish(&mut self, name: &str, facts: &Facts) -> Result<(), ClientError> {
        let (from, to) = (quote_identifier(name), quote_identifier(&self.conninfo.database));
        let owns = format!(
            "select pg_has_role(r.oid, 'MEMBER') from pg_roles r where r.rolname = {}",
            quote_literal(&facts.owner)
        );
        if self.sql.query(&owns)?.first().and_then(|row| row.get(0)) == Some("t") {
            self.sql.query(&format!(
                "ALTER DATABASE {from} OWNER TO {}",
                quote_identifier(&facts.owner)
            ))?;
        }
        self.sql.query(&format!("ALTER DATABASE {from} RENAME TO {to}")).map(drop)
    }
}

/// The statement that makes a database like the one that was dumped.
pub(super) fn create_statement(name: &str, facts: &Facts, version_number: u32) -> String {
    let sql = format!(
        "CREATE DATABASE {} TEMPLATE template0 ENCODING {} LC_COLLATE {} LC_CTYPE {}",
        quote_identifier(name),
        quote_literal(&facts.encoding),
        quote_literal(&facts.collate),
        quote_literal(&facts.ctype)
    );
    let locale = facts.locale.as_deref().map(quote_literal);
    let rules = facts.rules.as_deref().filter(|_| version_number >= 160_000);
    let rules = rules.map(|rules| format!(" ICU_RULES {}", quote_literal(rules)));
    match (facts.provider.as_str(), locale) {
        ("i", Some(locale)) => {
            let rules = rules.unwrap_or_default();
            format!("{sql} LOCALE_PROVIDER icu ICU_LOCALE {locale}{rules}")
        }
        ("b", Some(locale)) => format!("{sql} LOCALE_PROVIDER builtin BUILTIN_LOCALE {locale}"),
        _ => format!("{sql} LOCALE_PROVIDER libc"),
    }
}

/// What only a superuser makes.
fn for_superusers(database: &Database, selected: &Selected<'_>) -> Option<String> {
    let is_of_all = |name: &str| {
        let known = database.facts.publications.iter().find(|known| known.name == name);
        known.is_some_and(|known| known.all_tables)
    };
    let names = selected.entries.iter().filter(|entry| match entry.kind.as_str() {
        "EVENT TRIGGER" | "PUBLICATION TABLES IN SCHEMA" | "SUBSCRIPTION" => true,
        "PUBLICATION" => is_of_all(&entry.name),
        _ => false,
    });
    let names: Vec<String> =
        names.map(|entry| format!("{} {}", entry.kind.to_ascii_lowercase(), entry.name)).collect();
    let shown = bounded(names.iter().map(String::as_str));
    (!names.is_empty()).then(|| format!("only a superuser creates {shown}"))
}
