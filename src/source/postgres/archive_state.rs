//! What a server says of its archiver and of the slot of a follower.

use super::client::{ClientError, Connection, Lsn, Row};
use super::wal::name::{SegmentSize, WalFileName};
use crate::domain::health::LogLag;

/// What a server says of the archiving of its log.
#[derive(Debug)]
pub(super) struct ArchiveState {
    /// Whether it archives by itself: `archive_mode`, and what a standby makes of it.
    pub(super) is_archiving: bool,
    /// Whether it was told how: `archive_command` or `archive_library`.
    pub(super) has_command: bool,
    /// Up to where its log is written, or received by a standby.
    written: Option<u64>,
    /// Up to where it is archived by the archiver.
    archived: Option<u64>,
    /// Bytes of a segment.
    segment_bytes: Option<u64>,
    /// Files that were archived since the server's counters began.
    pub(super) successes: u64,
    /// Attempts that failed since then.
    pub(super) failures: u64,
    /// The file of the last attempt, if that failed and the server still archives.
    pub(super) failing: Option<WalFileName>,
    /// The files that wait, where the role may see them.
    pub(super) waiting: Option<WaitingFiles>,
    /// The follower's slot, if there is one.
    pub(super) slot: Option<SlotState>,
}

/// Files that wait to be archived.
#[derive(Debug, Clone, Copy)]
pub(super) struct WaitingFiles {
    pub(super) count: u64,
    /// For how long the oldest one has been waiting, seconds.
    oldest_seconds: u64,
}

/// The slot of a follower.
#[derive(Debug)]
pub(super) struct SlotState {
    name: String,
    /// Whether somebody follows.
    pub(super) is_active: bool,
    /// Whether the server keeps what it has not passed on.
    pub(super) status: SlotStatus,
    /// Up to where the follower has everything.
    restart: Option<u64>,
    /// Whether the server keeps only so much for it: `max_slot_wal_keep_size`.
    pub(super) is_limited: bool,
}

/// What `wal_status` of a slot comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SlotStatus {
    /// All of it is there and stays.
    Kept,
    /// The next checkpoint removes some.
    Unreserved,
    /// Some is gone.
    Lost,
}

impl ArchiveState {
    /// Asks a server.
    ///
    /// # Errors
    /// What the server or the connection fails with.
    pub(super) fn ask(sql: &mut Connection, slot: &str) -> Result<ArchiveState, ClientError> {
        let rows = sql.query(
            "select current_setting('archive_mode') = 'always' \
               or (current_setting('archive_mode') = 'on' and not pg_is_in_recovery()), \
             case when pg_is_in_recovery() then pg_last_wal_receive_lsn() else pg_current_wal_lsn() end, \
             last_archived_wal, (select setting from pg_settings where name = 'wal_segment_size'), \
             archived_count, failed_count, \
             case when last_failed_time > coalesce(last_archived_time, '-infinity') then last_failed_wal end, \
             current_setting('archive_command') not in ('', '(disabled)') \
               or current_setting('archive_library') <> '' \
             from pg_catalog.pg_stat_archiver",
        )?;
        let row = rows.first();
        let text = |column| row.and_then(|row: &Row| row.get(column));
        let number = |column| text(column).and_then(|text| text.parse::<u64>().ok());
        let size = number(3).and_then(SegmentSize::new);
        let is_archiving = text(0) == Some("t");
        let written = text(1).and_then(position);
        let waiting = WaitingFiles::ask(sql)?;
        let archived = match waiting {
            // Everything but the segment that is written to.
            Some(WaitingFiles { count: 0, .. }) => {
                written.zip(size).map(|(at, size)| at - at % size.bytes())
            }
            Some(_) | None => text(2).zip(size).and_then(|(name, size)| end_of(name, size)),
        };
        Ok(ArchiveState {
            is_archiving,
            has_command: text(7) == Some("t"),
            written,
            archived: archived.filter(|_| is_archiving),
            segment_bytes: size.map(SegmentSize::bytes),
            successes: number(4).unwrap_or(0),
            failures: number(5).unwrap_or(0),
            failing: text(6).filter(|_| is_archiving).and_then(|name| name.parse().ok()),
            waiting,
            slot: SlotState::ask(sql, slot)?,
        })
    }

    /// How far the archive is behind; `None` where nothing is archived.
    pub(super) fn lag(&self) -> Option<LogLag> {
        if !self.is_archiving && self.slot.is_none() {
            return None;
        }
        let waiting = self.waiting.filter(|_| self.is_archiving);
        let bytes = self.bytes();
        Some(LogLag {
            bytes,
            seconds: waiting.map(|waiting| waiting.oldest_seconds),
            waiting: waiting.map(|waiting| waiting.count),
            failures: self.is_archiving.then_some(self.failures),
            stalled: self.stalled(),
            at_risk: self.slot.as_ref().and_then(SlotState::at_risk),
        })
    }

    /// Bytes that are written and not archived.
    fn bytes(&self) -> Option<u64> {
        let followed = self.slot.as_ref().and_then(|slot| slot.restart);
        let archived = self.archived.max(followed)?;
        Some(self.written?.saturating_sub(archived))
    }

    fn stalled(&self) -> Option<String> {
        if self.is_archiving && !self.has_command {
            return Some("archive_mode is on, and archive_command is empty".to_owned());
        }
        if let Some(file) = &self.failing {
            return Some(format!(
                "the server fails to archive `{file}`; its log has the message of archive_command"
            ));
        }
        // A follower leaves its slot for the moments in which it makes a manifest.
        let is_behind =
            self.bytes().zip(self.segment_bytes).is_some_and(|(bytes, one)| bytes >= one);
        let slot = self.slot.as_ref().filter(|slot| !slot.is_active && !self.is_archiving)?;
        is_behind.then(|| format!("nobody follows the replication slot `{}`", slot.name))
    }
}

impl WaitingFiles {
    fn ask(sql: &mut Connection) -> Result<Option<WaitingFiles>, ClientError> {
        // A refusal would stand in the server's log, again and again.
        let may =
            "select has_function_privilege('pg_catalog.pg_ls_archive_statusdir()', 'execute')";
        if sql.query_value(may)? != "t" {
            return Ok(None);
        }
        let rows = sql.query(
            "select count(*), extract(epoch from clock_timestamp() - min(modification))::bigint \
             from pg_catalog.pg_ls_archive_statusdir() where name like '%.ready'",
        )?;
        let number = |column| rows.first().and_then(|row| row.get(column)?.parse().ok());
        let (count, oldest_seconds) = (number(0).unwrap_or(0), number(1).unwrap_or(0));
        Ok(Some(WaitingFiles { count, oldest_seconds }))
    }
}

impl SlotState {
    fn ask(sql: &mut Connection, name: &str) -> Result<Option<SlotState>, ClientError> {
        // The configuration takes no name with an odd letter in it.
        let rows = sql.query(&format!(
            "select active, wal_status, restart_lsn, current_setting('max_slot_wal_keep_size') <> '-1' \
             from pg_catalog.pg_replication_slots where slot_name = '{name}'"
        ))?;
        Ok(rows.first().map(|row| SlotState {
            name: name.to_owned(),
            is_active: row.get(0) == Some("t"),
            status: match row.get(1) {
                Some("lost") => SlotStatus::Lost,
                Some("unreserved") => SlotStatus::Unreserved,
                _ => SlotStatus::Kept,
            },
            restart: row.get(2).and_then(position),
            is_limited: row.get(3) == Some("t"),
        }))
    }

    /// Why log that was not received may be gone.
    pub(super) fn at_risk(&self) -> Option<String> {
        let SlotState { name, status, is_limited, .. } = self;
        let limit = if *is_limited { " (max_slot_wal_keep_size)" } else { "" };
        match status {
            SlotStatus::Kept => None,
            SlotStatus::Unreserved => Some(format!(
                "the server removes log at its next checkpoint that the replication slot `{name}` has not passed on{limit}: look at `bkp logs --follow` now"
            )),
            SlotStatus::Lost => Some(format!(
                "the server has removed log that the replication slot `{name}` had not passed on{limit}: drop the slot, start `bkp logs --follow` again and make a base backup"
            )),
        }
    }
}

fn position(text: &str) -> Option<u64> {
    let Lsn(position) = text.parse().ok()?;
    Some(position)
}

/// The end of a segment; `None` for other files of the log, which say nothing of how far it is archived.
fn end_of(name: &str, size: SegmentSize) -> Option<u64> {
    match name.parse().ok()? {
        WalFileName::Segment(segment) => segment.start(size)?.checked_add(size.bytes()),
        WalFileName::Partial(_) | WalFileName::BackupLabel(..) | WalFileName::History(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_archived_up_to_its_end() {
        let up_to = |name| end_of(name, SegmentSize::DEFAULT);
        assert_eq!(up_to("000000010000000200000003"), Some(0x2_0400_0000));
        for other in ["000000010000000200000003.00000028.backup", "00000002.history", "x"] {
            assert_eq!(up_to(other), None, "{other}");
        }
    }
}
