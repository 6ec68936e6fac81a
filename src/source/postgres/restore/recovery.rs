//! What a server is told that starts on a restored folder: from where to take the log, and where to end.
//!
//! The files of the log stand in the folder themselves, checked: the start needs neither bkp, nor its keys or the
//! store. PostgreSQL takes 1 of `restore_command` for the end of the log; a copy that fails otherwise must not end it.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use time::OffsetDateTime;
use time::format_description::FormatItem;
use time::macros::format_description;

/// The folder for files of the log, in the data folder: where a server looks for nothing, and `pg_verifybackup` does
/// not look.
pub(in crate::source::postgres) const WAL_FOLDER: &str = "pg_wal/bkp";
/// The file that makes a server recover from an archive.
const SIGNAL: &str = "recovery.signal";
/// The file that makes it a standby, whatever else it is told.
const STANDBY_SIGNAL: &str = "standby.signal";
/// Where a server keeps settings that it was told by SQL; the last of all that it reads.
const AUTO_CONF: &str = "postgresql.auto.conf";
/// What stands before bkp's own settings.
const MARK: &str = "# The recovery that bkp restored this folder for.";
/// A time as PostgreSQL reads it.
const TIME: &[FormatItem<'_>] =
    format_description!("[year]-[month]-[day] [hour]:[minute]:[second].[subsecond digits:6]+00");

/// Where a recovery ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::source::postgres) enum End {
    /// Before the first transaction that ended after this time, nanoseconds since 1970, or at it.
    Time {
        /// The time.
        at: u64,
        /// Whether one that ended at it is still a part of it.
        inclusive: bool,
    },
    /// With the record at this position, or right before it.
    Position {
        /// The position of the record.
        lsn: u64,
        /// Whether the record is still a part of it.
        inclusive: bool,
    },
    /// With the last record.
    LastRecord,
}

/// The settings of a recovery along a timeline.
pub(in crate::source::postgres) fn settings(
    end: End,
    timeline: u32,
) -> Vec<(&'static str, String)> {
    let copy =
        format!("test -f \"{WAL_FOLDER}/%f\" || exit 1; cp \"{WAL_FOLDER}/%f\" \"%p\" || exit 126");
    let mut settings = vec![
        ("restore_command", copy),
        ("recovery_end_command", format!("rm -rf {WAL_FOLDER}")),
        ("recovery_target_timeline", timeline.to_string()),
        ("recovery_target_action", "promote".to_owned()),
    ];
    let names = [
        "recovery_target",
        "recovery_target_time",
        "recovery_target_lsn",
        "recovery_target_xid",
        "recovery_target_name",
    ];
    let chosen = match end {
        End::Time { at: nanos, inclusive } => {
            let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(nanos));
            let text = at.ok().and_then(|at| at.format(TIME).ok()).unwrap_or_default();
            Some(("recovery_target_time", text, inclusive))
        }
        End::Position { lsn, inclusive } => {
            Some(("recovery_target_lsn", crate::source::postgres::wal::lsn::text(lsn), inclusive))
        }
        End::LastRecord => None,
    };
    let wanted = chosen.as_ref().map(|(name, ..)| *name);
    // What an earlier recovery left in this file would be a second target.
    settings.extend(
        names.into_iter().filter(|name| Some(*name) != wanted).map(|name| (name, String::new())),
    );
    if let Some((name, text, inclusive)) = chosen {
        settings.push((name, text));
        settings.push(("recovery_target_inclusive", inclusive.to_string()));
    }
    settings
}

/// Removes what told the server to recover that the backup was made of. A copy of a standby would follow its primary for
/// ever, and never come to its own end; `pg_verifybackup` does not look for these files.
///
/// # Errors
/// What the file system says.
pub(in crate::source::postgres) fn forget(data: &Path) -> std::io::Result<()> {
    [SIGNAL, STANDBY_SIGNAL].iter().try_for_each(|signal| {
        match fs::remove_file(data.join(signal)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            Err(_) | Ok(()) => Ok(()),
        }
    })
}

/// Keeps a server that starts on the folder from archiving: where the original's `archive_command` is, a copy would
/// write into its log, and take it over. Whoever lets it take the original's place turns it on again.
///
/// # Errors
/// What the file system says.
pub(in crate::source::postgres) fn do_not_archive(data: &Path) -> std::io::Result<()> {
    append(
        data,
        "# A copy does not write into the log of its original: see bkp-postgres(7).\narchive_mode = 'off'\n",
    )
}

fn append(data: &Path, text: &str) -> std::io::Result<()> {
    let path = data.join(AUTO_CONF);
    let mut file = File::options().create(true).append(true).open(path)?;
    file.write_all(b"\n")?;
    file.write_all(text.as_bytes())
}

/// Writes the settings behind those that the server was told, and the signal to recover.
///
/// # Errors
/// What the file system says.
pub(in crate::source::postgres) fn write(
    data: &Path,
    settings: &[(&'static str, String)],
) -> std::io::Result<()> {
    let mut text = format!("{MARK}\n");
    for (name, value) in settings {
        writeln!(text, "{name} = '{}'", value.replace('\'', "''"))
            .map_err(std::io::Error::other)?;
    }
    append(data, &text)?;
    File::options().write(true).create_new(true).open(data.join(SIGNAL)).map(drop)
}

/// The settings that [`write`] has written.
///
/// # Errors
/// What the file system says.
pub(in crate::source::postgres) fn read(data: &Path) -> std::io::Result<Vec<(String, String)>> {
    let text = match fs::read_to_string(data.join(AUTO_CONF)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        read => read?,
    };
    let own = text.rsplit_once(MARK).map(|(_, own)| own).unwrap_or_default();
    let settings = own.lines().filter_map(|line| {
        let (name, value) = line.split_once(" = '")?;
        Some((name.to_owned(), value.strip_suffix('\'')?.replace("''", "'")))
    });
    Ok(settings.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_target_is_set_and_every_other_is_not() {
        for end in [
            End::Time { at: 1_700_000_000_123_456_789, inclusive: true },
            End::Position { lsn: 0x1_0000_0028, inclusive: false },
            End::LastRecord,
        ] {
            let settings = settings(end, 3);
            let target = |name: &&str| {
                name.starts_with("recovery_target")
                    && ![
                        "recovery_target_timeline",
                        "recovery_target_action",
                        "recovery_target_inclusive",
                    ]
                    .contains(name)
            };
            let set: Vec<_> =
                settings.iter().filter(|(name, value)| target(name) && !value.is_empty()).collect();
            match end {
                End::Time { .. } => assert_eq!(set[0].1, "2023-11-14 22:13:20.123456+00"),
                End::Position { .. } => assert_eq!(set[0].1, "1/28"),
                End::LastRecord => assert!(set.is_empty()),
            }
            assert!(set.len() <= 1 && settings.contains(&("recovery_target_timeline", "3".into())));
        }
    }

    #[test]
    fn a_quote_stays_in_its_value() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &[("restore_command", "a'b".into())]).unwrap();
        let text = fs::read_to_string(folder.path().join(AUTO_CONF)).unwrap();
        assert!(text.ends_with("restore_command = 'a''b'\n"), "{text}");
        assert_eq!(read(folder.path()).unwrap(), [("restore_command".into(), "a'b".into())]);
        assert!(folder.path().join(SIGNAL).exists());
    }
}
