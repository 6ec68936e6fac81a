//! What a server says of its archiver and of the slot of a follower.

use super::client::{ClientError, Connection, Lsn, Row};
use super::wal::name::{SegmentSize, WalFileName};
use crate::domain::health::LogLag;

/// What a server says of the archiving of its log.
#[derive(Debug)]
pub(super) struct ArchiveState {
    /// Whether it archives by itself: `archive_mode`, and what a standby makes of it.
    pub(super) is_archiving: bool,
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
    /// The file of the last attempt, if that failed.
    pub(super) failing: Option<String>,
    /// Since when nothing has been archived, seconds.
    idle_seconds: Option<u64>,
    /// The files that wait, where the role may see them.
    pub(super) waiting: Result<WaitingFiles, ClientError>,
    /// The follower's slot, if there is one.
    pub(super) slot: Option<SlotState>,
}

/// Files that wait to be archived.
#[derive(Debug, Clone, Copy)]
pub(super) struct WaitingFiles {
    pub(super) count: u64,
    /// For how long the oldest one has been waiting, seconds.
    oldest_seconds: Option<u64>,
}

/// The slot of a follower.
#[derive(Debug)]
pub(super) struct SlotState {
    name: String,
    /// Whether somebody follows.
    pub(super) is_active: bool,
    /// `wal_status`: reserved, extended, unreserved or lost.
    pub(super) status: String,
    /// Up to where the follower has everything.
    restart: Option<u64>,
    /// `max_slot_wal_keep_size`: how much the server keeps for it.
    pub(super) keeps: String,
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
             extract(epoch from clock_timestamp() - last_archived_time)::bigint \
             from pg_catalog.pg_stat_archiver",
        )?;
        let row = rows.first();
        let text = |column| row.and_then(|row: &Row| row.get(column));
        let number = |column| text(column).and_then(|text| text.parse::<u64>().ok());
        let segment_bytes = number(3);
        let archived = text(2).zip(segment_bytes.and_then(SegmentSize::new));
        let archived = archived.and_then(|(name, size)| archived_up_to(name, size));
        let (written, failing) = (text(1).and_then(position), text(6).map(str::to_owned));
        let (successes, failures) = (number(4).unwrap_or(0), number(5).unwrap_or(0));
        let (is_archiving, idle_seconds) = (text(0) == Some("t"), number(7));
        Ok(ArchiveState {
            is_archiving,
            written,
            archived,
            segment_bytes,
            successes,
            failures,
            failing,
            idle_seconds,
            waiting: WaitingFiles::ask(sql),
            slot: SlotState::ask(sql, slot)?,
        })
    }

    /// How far the archive is behind; `None` where nothing is archived.
    pub(super) fn lag(&self) -> Option<LogLag> {
        if !self.is_archiving && self.slot.is_none() {
            return None;
        }
        let followed = self.slot.as_ref().and_then(|slot| slot.restart);
        let archived = self.archived.filter(|_| self.is_archiving).max(followed);
        let bytes = self.written.zip(archived).map(|(at, archived)| at.saturating_sub(archived));
        let waiting = self.waiting.as_ref().ok().filter(|_| self.is_archiving);
        // Where the files that wait are not to be seen, one that is full tells that there are some.
        let has_more = || bytes.zip(self.segment_bytes).is_some_and(|(bytes, one)| bytes >= one);
        let seconds = match waiting {
            Some(waiting) => Some(waiting.oldest_seconds.unwrap_or(0)),
            None => self.idle_seconds.filter(|_| self.is_archiving && has_more()),
        };
        Some(LogLag {
            bytes,
            seconds,
            waiting: waiting.map(|waiting| waiting.count),
            failures: self.is_archiving.then_some(self.failures),
            stalled: self.stalled(),
            at_risk: self.slot.as_ref().and_then(SlotState::at_risk),
        })
    }

    fn stalled(&self) -> Option<String> {
        if let Some(file) = self.failing.as_ref().filter(|_| self.is_archiving) {
            return Some(format!(
                "the server fails to archive `{file}`; its log has the message of archive_command"
            ));
        }
        let slot = self.slot.as_ref().filter(|slot| !self.is_archiving && !slot.is_active)?;
        Some(format!("nobody follows the replication slot `{}`", slot.name))
    }
}

impl WaitingFiles {
    fn ask(sql: &mut Connection) -> Result<WaitingFiles, ClientError> {
        let rows = sql.query(
            "select count(*), extract(epoch from clock_timestamp() - min(modification))::bigint \
             from pg_catalog.pg_ls_archive_statusdir() where name like '%.ready'",
        )?;
        let number = |column| rows.first().and_then(|row| row.get(column)?.parse().ok());
        Ok(WaitingFiles { count: number(0).unwrap_or(0), oldest_seconds: number(1) })
    }
}

impl SlotState {
    fn ask(sql: &mut Connection, name: &str) -> Result<Option<SlotState>, ClientError> {
        // The configuration takes no name with an odd letter in it.
        let rows = sql.query(&format!(
            "select active, wal_status, restart_lsn, current_setting('max_slot_wal_keep_size') \
             from pg_catalog.pg_replication_slots where slot_name = '{name}'"
        ))?;
        Ok(rows.first().map(|row| {
            let text = |column| row.get(column).unwrap_or_default().to_owned();
            SlotState {
                name: name.to_owned(),
                is_active: text(0) == "t",
                status: text(1),
                restart: row.get(2).and_then(position),
                keeps: text(3),
            }
        }))
    }

    /// Why log that was not received may be gone.
    pub(super) fn at_risk(&self) -> Option<String> {
        let SlotState { name, status, keeps, .. } = self;
        match status.as_str() {
            "lost" => Some(format!(
                "the server has removed log that the replication slot `{name}` had not passed on (max_slot_wal_keep_size = {keeps}): drop the slot, start `bkp logs --follow` again and make a base backup"
            )),
            "unreserved" => Some(format!(
                "the server removes log at its next checkpoint that the replication slot `{name}` has not passed on (max_slot_wal_keep_size = {keeps}): look at `bkp logs --follow` now"
            )),
            _ => None,
        }
    }
}

fn position(text: &str) -> Option<u64> {
    let Lsn(position) = text.parse().ok()?;
    Some(position)
}

/// The end of a segment that was archived last, or of the one that what was archived last belongs to.
fn archived_up_to(name: &str, size: SegmentSize) -> Option<u64> {
    match name.parse().ok()? {
        WalFileName::Segment(segment) => segment.start(size)?.checked_add(size.bytes()),
        WalFileName::Partial(segment) | WalFileName::BackupLabel(segment, _) => segment.start(size),
        WalFileName::History(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_archived_up_to_its_end() {
        let up_to = |name| archived_up_to(name, SegmentSize::DEFAULT);
        assert_eq!(up_to("000000010000000200000003"), Some(0x2_0400_0000));
        assert_eq!(up_to("000000010000000200000003.00000028.backup"), Some(0x2_0300_0000));
        assert_eq!(up_to("00000002.history"), None);
    }
}
