//! A configured server: how to reach it, and what it says of itself.

use std::path::PathBuf;
use std::time::Duration;

use zeroize::Zeroizing;

use super::archive_state::ArchiveState;
use super::block_map::BLOCK_BYTES;
use super::client::{Checkpoint, Connection, Conninfo, Purpose, Surroundings, SystemIdentity};
use super::record::{Increments, Tables};
use super::tenant::map::TenantMap;
use crate::ctx::{Ctx, user};
use crate::error::{Fault, Kind};
use crate::keys::secret;
use crate::process;
use crate::source::SourceError;

/// Major versions that are known to work.
const VERSIONS: std::ops::RangeInclusive<u32> = 15..=18;
/// The first one whose server can tell what has changed.
const NATIVE_SINCE: u32 = 17;
/// How long a server may say nothing, where it does not wait for a checkpoint.
const SILENCE: Duration = Duration::from_mins(1);
/// How long it may say nothing before the first byte of a base backup: a checkpoint that is spread takes most of
/// the time between two, which is a day at most.
const SILENCE_OF_BACKUP: Duration = Duration::from_hours(6);
/// The database that every server has.
const DATABASE: &str = "postgres";

/// What the configuration says of increments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IncrementChoice {
    Auto,
    Native,
    Blocks,
    Off,
}

/// What the configuration says of the log.
#[derive(Debug, Clone)]
pub(super) struct LogSettings {
    /// The slot of a follower.
    pub(super) slot: String,
    /// How long something waits in a segment that is not full.
    pub(super) switch_after: Option<Duration>,
    /// The pause between two looks of a follower.
    pub(super) every: Duration,
}

/// What the configuration says of exports.
#[derive(Debug, Clone)]
pub(super) struct DumpSettings {
    /// The databases that are dumped; all but templates if there is none.
    pub(super) databases: Vec<String>,
    /// Patterns of what is left out of each.
    pub(super) exclude: Vec<String>,
    /// How long a dump waits for the lock of a table.
    pub(super) lock_timeout: Duration,
}

/// A configured server.
#[derive(Debug, Clone)]
pub(super) struct Server {
    /// Its table.
    pub(super) place: String,
    pub(super) conninfo: String,
    pub(super) password: Option<String>,
    pub(super) checkpoint: Checkpoint,
    pub(super) choice: IncrementChoice,
    pub(super) max_rate_kib: Option<u32>,
    pub(super) logs: LogSettings,
    pub(super) dumps: DumpSettings,
    pub(super) tenants: Option<TenantMap>,
}

/// What a server says of itself.
#[derive(Debug, Clone)]
pub(super) struct ServerFacts {
    pub(super) system: String,
    pub(super) timeline: u32,
    pub(super) lsn: u64,
    pub(super) version: String,
    pub(super) version_number: u32,
    pub(super) segment_bytes: u64,
    pub(super) data_checksums: bool,
    pub(super) summarizes: bool,
    pub(super) standby: bool,
    pub(super) superuser: Option<String>,
}

impl Server {
    /// How to reach it.
    ///
    /// # Errors
    /// [`Kind::Config`] for a connection string that is none, or has a password in it.
    pub(super) fn reach(&self, ctx: &Ctx) -> anyhow::Result<Conninfo> {
        let surroundings = Surroundings {
            variable: &process::variable,
            home: process::variable("HOME").map(PathBuf::from),
            user: user(),
        };
        let conninfo = Conninfo::parse(&self.conninfo, &surroundings).map_err(|fault| {
            Fault::new(Kind::Config, format!("{}.conninfo: {fault}", self.place))
                .hint("write it as libpq does: host=/var/run/postgresql user=bkp")
        })?;
        if conninfo.has_password_in_text() {
            let message = format!("{}.conninfo has a password in it", self.place);
            let hint = "remove it, and set `password` to a reference: file:PATH, env:NAME, credential:NAME or cmd:COMMAND";
            return Err(Fault::new(Kind::Config, message).hint(hint).into());
        }
        let Some(reference) = &self.password else { return Ok(conninfo) };
        let password: Zeroizing<Vec<u8>> = secret::read(reference, &ctx.cancel)?;
        Ok(conninfo.with_password(password))
    }

    /// A connection for replication, with a server of a version that is known to work.
    ///
    /// # Errors
    /// What the server or the way to it fails with; [`SourceError::Unsupported`] for another version.
    pub(super) fn replication(&self, ctx: &Ctx) -> anyhow::Result<Connection> {
        let purpose = Purpose { replication: true, database: None, silence: SILENCE };
        let mut connection = Connection::connect(&self.reach(ctx)?, &purpose, ctx)?;
        let number = version_number(&mut connection)?;
        if VERSIONS.contains(&(number / 10_000)) {
            connection.set_silence(SILENCE_OF_BACKUP);
            return Ok(connection);
        }
        let reason = format!(
            "is PostgreSQL {}, which this version of bkp was not tried with",
            connection.parameter("server_version").unwrap_or("of an unknown version")
        );
        Err(SourceError::Unsupported { what: connection.host().to_owned(), reason }.into())
    }

    /// A connection for SQL.
    ///
    /// # Errors
    /// What the server or the way to it fails with.
    pub(super) fn sql(&self, ctx: &Ctx) -> anyhow::Result<Connection> {
        self.sql_in(DATABASE, ctx)
    }

    fn sql_in(&self, database: &str, ctx: &Ctx) -> anyhow::Result<Connection> {
        self.connect(database, SILENCE, ctx)
    }

    /// A connection for SQL in a database, which may say nothing for as long as `silence`.
    ///
    /// # Errors
    /// What the server or the way to it fails with.
    pub(super) fn connect(
        &self,
        database: &str,
        silence: Duration,
        ctx: &Ctx,
    ) -> anyhow::Result<Connection> {
        let database = Some(database.to_owned());
        let purpose = Purpose { replication: false, database, silence };
        Ok(Connection::connect(&self.reach(ctx)?, &purpose, ctx)?)
    }

    /// What it says of itself.
    ///
    /// # Errors
    /// What the server or the connection fails with.
    pub(super) fn facts(
        &self,
        connection: &mut Connection,
        ctx: &Ctx,
    ) -> anyhow::Result<ServerFacts> {
        let SystemIdentity { system_id, timeline, lsn } = connection.identify_system()?;
        let version_number = version_number(connection)?;
        let segment = show(connection, "wal_segment_size")?;
        let segment_bytes = bytes(&segment).ok_or_else(|| SourceError::Unsupported {
            what: connection.host().to_owned(),
            reason: format!("has segments of {segment}"),
        })?;
        let block = show(connection, "block_size")?;
        if block != BLOCK_BYTES.to_string() {
            let (what, reason) =
                (connection.host().to_owned(), format!("has blocks of {block} bytes"));
            return Err(SourceError::Unsupported { what, reason }.into());
        }
        let summarizes =
            version_number / 10_000 >= NATIVE_SINCE && show(connection, "summarize_wal")? == "on";
        Ok(ServerFacts {
            system: system_id.to_string(),
            timeline,
            lsn: lsn.0,
            version: show(connection, "server_version")?,
            version_number,
            segment_bytes,
            data_checksums: show(connection, "data_checksums")? == "on",
            summarizes,
            standby: connection.parameter("in_hot_standby") == Some("on"),
            superuser: self.superuser(ctx),
        })
    }

    /// The role that the cluster began with, which a drill uses; `None` where bkp's own may not ask for it.
    fn superuser(&self, ctx: &Ctx) -> Option<String> {
        let mut connection = self.sql(ctx).ok()?;
        let rows =
            connection.query("select rolname from pg_catalog.pg_roles where oid = 10").ok()?;
        rows.first()?.get(0).map(str::to_owned)
    }

    /// Makes sure that a log at rest is not one that the server cannot archive.
    ///
    /// # Errors
    /// [`SourceError::Engine`] if its archiver fails. One that cannot be reached is a warning.
    pub(super) fn check_archiver(&self, ctx: &Ctx) -> anyhow::Result<()> {
        if self.conninfo.is_empty() {
            return Ok(());
        }
        let mut sql = match self.sql(ctx) {
            Ok(sql) => sql,
            // The archive is what counts; where there is no server there is nothing to archive.
            Err(error) => {
                ctx.cancel.check()?;
                ctx.monitor.warn(&format!("cannot ask the server whether it archives: {error:#}"));
                return Ok(());
            }
        };
        let state = ArchiveState::ask(&mut sql, &self.logs.slot).ok();
        let Some(file) = state.and_then(|state| state.failing) else { return Ok(()) };
        Err(SourceError::Engine {
            what: sql.host().to_owned(),
            reason: format!("its archiver fails, since `{file}`"),
            hint: "the server's log has the message of archive_command; run that command by hand as the server's user".into(),
        }
        .into())
    }

    /// How many tables it has, where bkp's role may connect to every database.
    pub(super) fn tables(&self, ctx: &Ctx) -> Option<Tables> {
        Tables::count(&|database| self.sql_in(database, ctx)).ok()
    }

    /// The time by the server's clock if it can be asked, else by ours; nanoseconds since 1970.
    pub(super) fn clock(&self, ctx: &Ctx) -> u64 {
        let asked = || {
            let mut connection = self.sql(ctx).ok()?;
            let sql = "select (extract(epoch from pg_catalog.clock_timestamp()) * 1000000)::bigint";
            let rows = connection.query(sql).ok()?;
            let micros: u64 = rows.first()?.get(0)?.parse().ok()?;
            micros.checked_mul(1000)
        };
        let ours = || u64::try_from(ctx.now().unix_timestamp_nanos()).unwrap_or_default();
        asked().unwrap_or_else(ours)
    }

    /// How increments are made of it today.
    ///
    /// # Errors
    /// [`Kind::Config`] if they are to be made in a way that the server does not know.
    pub(super) fn increments(&self, facts: &ServerFacts) -> anyhow::Result<Increments> {
        match self.choice {
            IncrementChoice::Auto | IncrementChoice::Native if facts.summarizes => {
                Ok(Increments::Native)
            }
            IncrementChoice::Auto | IncrementChoice::Blocks => Ok(Increments::Blocks),
            IncrementChoice::Off => Ok(Increments::Off),
            IncrementChoice::Native => {
                let message = format!(
                    "{}.incremental = \"native\": the server keeps no summaries of its log",
                    self.place
                );
                Err(Fault::new(Kind::Config, message)
                    .hint("set summarize_wal = on in its configuration (17 and later), or use auto")
                    .into())
            }
        }
    }
}

fn version_number(connection: &mut Connection) -> anyhow::Result<u32> {
    let text = show(connection, "server_version_num")?;
    Ok(text.parse().map_err(|_odd| SourceError::Unsupported {
        what: connection.host().to_owned(),
        reason: format!("has the version `{text}`"),
    })?)
}

/// The value of a setting of the server.
pub(super) fn show(connection: &mut Connection, name: &str) -> anyhow::Result<String> {
    let rows = connection.query(&format!("SHOW {name}"))?;
    Ok(rows.first().and_then(|row| row.get(0)).unwrap_or_default().to_owned())
}

/// A size as the server shows it: `16MB`.
fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let factor = match unit {
        "kB" => 1 << 10,
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_servers_show_them() {
        assert_eq!(bytes("16MB"), Some(16 << 20));
        assert_eq!(bytes("1GB"), Some(1 << 30));
        assert_eq!(bytes("1024kB"), Some(1 << 20));
        for wrong in ["", "MB", "16", "16XB", "99999999999999999999GB"] {
            assert_eq!(bytes(wrong), None, "{wrong}");
        }
    }
}
