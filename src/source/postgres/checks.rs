//! What `bkp doctor` tells of a server.

use super::archive_state::{ArchiveState, SlotState, SlotStatus};
use super::client::Connection;
use super::configured::{Server, ServerFacts, show};
use crate::ctx::Ctx;
use crate::error::diagnose;
use crate::source::Check;

/// Looks at everything that backups and logs need of the server.
pub(super) fn checks(server: &Server, ctx: &Ctx) -> Vec<Check> {
    let mut connection = match server.replication(ctx) {
        Ok(connection) => connection,
        Err(error) => return vec![failed("connection for replication", &error)],
    };
    let facts = match server.facts(&mut connection, ctx) {
        Ok(facts) => facts,
        Err(error) => return vec![failed("what the server says of itself", &error)],
    };
    let mut checks = vec![connected(&connection, &facts), increments(server, &facts)];
    let settings: Vec<Check> = SETTINGS
        .iter()
        .filter_map(|wanted| wanted.check(&mut connection).transpose())
        .map(|check| check.unwrap_or_else(|error| failed("settings", &error)))
        .collect();
    checks.extend(settings);
    checks.push(page_checksums(&facts));
    match server.sql(ctx) {
        Ok(mut sql) => match ArchiveState::ask(&mut sql, &server.logs.slot) {
            Ok(state) => {
                checks.push(archiving_at_all(&state, &facts));
                checks.extend(archiving(&state));
            }
            Err(error) => checks.push(failed("archiver", &error.into())),
        },
        Err(error) => checks.extend([
            archive_mode(&mut connection),
            Check {
                what: "connection for SQL".into(),
                ok: true,
                found: format!("not possible, so the archiver's state is not known: {error:#}"),
                hint: Some(
                    "allow the role in pg_hba.conf to connect to the database postgres".into(),
                ),
            },
        ]),
    }
    checks
}

fn failed(what: &str, error: &anyhow::Error) -> Check {
    Check {
        what: what.to_owned(),
        ok: false,
        found: format!("{error:#}"),
        hint: Some(diagnose(error).hint),
    }
}

fn connected(connection: &Connection, facts: &ServerFacts) -> Check {
    let kind = if facts.standby { "standby" } else { "primary" };
    Check {
        what: "connection for replication".into(),
        ok: true,
        found: format!(
            "PostgreSQL {} at {}, {kind}, system {}, timeline {}, as role {}",
            facts.version,
            connection.host(),
            facts.system,
            facts.timeline,
            connection.user()
        ),
        hint: None,
    }
}

fn increments(server: &Server, facts: &ServerFacts) -> Check {
    match server.increments(facts) {
        Ok(how) => {
            let found = match how {
                super::record::Increments::Native => {
                    "by the server, which keeps summaries of its log"
                }
                super::record::Increments::Blocks => {
                    "by hashes of blocks: the server sends everything each time"
                }
                super::record::Increments::Off => "off",
            };
            Check { what: "increments".into(), ok: true, found: found.into(), hint: None }
        }
        Err(error) => failed("increments", &error),
    }
}

/// A setting that something needs.
struct WantedSetting {
    name: &'static str,
    is_right: fn(&str) -> bool,
    hint: &'static str,
}

const SETTINGS: &[WantedSetting] = &[
    WantedSetting {
        name: "wal_level",
        is_right: |value| matches!(value, "replica" | "logical"),
        hint: "set wal_level = replica and restart the server",
    },
    WantedSetting {
        name: "max_wal_senders",
        is_right: |value| value.parse().is_ok_and(|count: u32| count >= 2),
        hint: "set max_wal_senders to 2 or more and restart the server",
    },
    WantedSetting {
        name: "max_replication_slots",
        is_right: |value| value.parse().is_ok_and(|count: u32| count >= 1),
        hint: "set max_replication_slots to 1 or more and restart the server: a base backup keeps its log by one",
    },
    WantedSetting {
        name: "full_page_writes",
        is_right: |value| value == "on",
        hint: "set full_page_writes = on: without it no backup of a server at work is consistent",
    },
];

impl WantedSetting {
    fn check(&self, connection: &mut Connection) -> anyhow::Result<Option<Check>> {
        let value = show(connection, self.name)?;
        let ok = (self.is_right)(&value);
        let hint = (!ok).then(|| self.hint.to_owned());
        Ok(Some(Check { what: self.name.to_owned(), ok, found: value, hint }))
    }
}

/// What can be told of archiving by a connection for replication alone.
fn archive_mode(connection: &mut Connection) -> Check {
    let value = match show(connection, "archive_mode") {
        Ok(value) => value,
        Err(error) => return failed("archive_mode", &error),
    };
    let ok = value != "off";
    Check {
        what: "archive_mode".into(),
        ok,
        found: value,
        hint: (!ok).then(|| NOT_ARCHIVED.to_owned()),
    }
}

/// What to do about a log that goes nowhere.
const NOT_ARCHIVED: &str = "set archive_mode = on and archive_command = 'bkp logs SOURCE --push %p', or run bkp logs SOURCE --follow: without the log only the moments of base backups restore";

/// Whether its log goes anywhere: by its archiver, or by a follower.
fn archiving_at_all(state: &ArchiveState, facts: &ServerFacts) -> Check {
    let (ok, found) = match (state.is_archiving, &state.slot) {
        (true, _) if !state.has_command => {
            (false, "archive_mode is on, and archive_command is empty")
        }
        (true, _) => (true, "the server archives it"),
        (false, Some(_)) => (true, "a replication slot keeps it for a follower"),
        (false, None) if facts.standby => (true, "a standby: its primary archives it"),
        (false, None) => (false, "nobody archives it"),
    };
    let hint = (!ok).then(|| NOT_ARCHIVED.to_owned());
    Check { what: "write-ahead log".into(), ok, found: found.into(), hint }
}

fn page_checksums(facts: &ServerFacts) -> Check {
    let found =
        if facts.data_checksums { "on" } else { "off: a damaged page is backed up as it is" };
    let hint = (!facts.data_checksums).then(|| {
        "stop the server and run pg_checksums --enable; base backups check every page then"
            .to_owned()
    });
    Check { what: "data checksums".into(), ok: true, found: found.into(), hint }
}

/// What the server says of its archiver, and of a follower's slot.
fn archiving(state: &ArchiveState) -> Vec<Check> {
    let is_failing = state.failing.is_some();
    let failing = state.failing.as_ref();
    let failing = failing.map(|file| format!(", the last one of {file} and not archived since"));
    let archiver = Check {
        what: "archiver".into(),
        ok: !is_failing,
        found: format!(
            "{} file(s) archived, {} failure(s){}",
            state.successes,
            state.failures,
            failing.unwrap_or_default()
        ),
        hint: is_failing.then(|| {
            "the server's log has the message of archive_command; run that command by hand as the server's user".to_owned()
        }),
    };
    let what = "files that wait to be archived";
    let is_behind = state.lag().is_some_and(|lag| lag.has_backlog());
    let waiting = match &state.waiting {
        Some(waiting) => Check {
            what: what.into(),
            ok: !is_behind,
            found: waiting.count.to_string(),
            hint: is_behind
                .then(|| "the archive is behind: look at the archiver and at the store".to_owned()),
        },
        None => Check {
            what: what.into(),
            ok: true,
            found: "not known".into(),
            hint: Some("grant pg_monitor to the role to see it".into()),
        },
    };
    let slot = state.slot.as_ref().map(follower);
    let own = [archiver, waiting].into_iter().filter(|_| state.is_archiving);
    own.chain(slot).collect()
}

fn follower(slot: &SlotState) -> Check {
    let active = if slot.is_active { "in use" } else { "not in use" };
    let status = match slot.status {
        SlotStatus::Kept => "all of its log is kept",
        SlotStatus::Unreserved => "its log is about to be removed",
        SlotStatus::Lost => "some of its log was removed",
    };
    let unlimited = (!slot.is_limited).then(|| {
        "set max_slot_wal_keep_size: without it the log of a follower that stays away fills the server's disk".to_owned()
    });
    Check {
        what: "replication slot".into(),
        ok: slot.at_risk().is_none(),
        found: format!("{active}, {status}"),
        hint: slot.at_risk().or(unlimited),
    }
}
