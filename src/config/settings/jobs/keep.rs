//! The retention settings of a job.

use super::job::{JobKind, LONGEST};
use crate::config::file::jobs::RetentionTable;
use crate::domain::calendar::{Period, TimeZone};
use crate::domain::names::BackupType;
use crate::domain::retention::Policy;
use crate::source::kinds;
use crate::table::ConfigError;
use crate::table::join;
use crate::table::units::duration;

/// How many of the newest backups stay, however old they are, if a job says nothing else.
const DEFAULT_LAST: u32 = 30;
/// For how long backups are kept if no source says, days.
const DAYS: i64 = 90;

/// Which backups of a job are kept.
pub(super) fn retention(
    place: &str,
    run: JobKind,
    table: Option<&RetentionTable>,
    backup_type: Option<BackupType>,
    zone: TimeZone,
) -> Result<Option<Policy>, ConfigError> {
    let place = join(place, "retention");
    match (run.makes(), table) {
        (None, Some(_)) => {
            let problem = format!("`{}` does not make backups", run.word());
            let error = ConfigError::invalid(place, problem);
            let of_store = "set `retention` in the table of the store that gets the copies";
            Err(if run == JobKind::Copy { error.suggest(of_store) } else { error })
        }
        (None, None) => Ok(None),
        (Some(_), Some(table)) => policy(&place, table, zone),
        (Some(_), None) => Ok(Some(default_policy(backup_type, zone))),
    }
}

fn default_policy(backup_type: Option<BackupType>, zone: TimeZone) -> Policy {
    let days = backup_type.and_then(kinds::entry_of).map_or(DAYS, |entry| entry.kept_days);
    let within = Some(time::Duration::days(days));
    // A count beside the age: a clock that is far ahead makes everything old, but nothing fewer.
    let last = DEFAULT_LAST;
    Policy { zone, within, last, min_keep: 3, removed_percent_max: 50, ..Policy::empty() }
}

/// `None` keeps everything.
pub(in crate::config::settings) fn policy(
    place: &str,
    table: &RetentionTable,
    zone: TimeZone,
) -> Result<Option<Policy>, ConfigError> {
    let within = table.keep_within.as_ref();
    let within =
        within.map(|text| duration(&join(place, "keep_within"), text, 60, LONGEST)).transpose()?;
    let percent = table.max_removed_percent.unwrap_or(50);
    if !(1..=100).contains(&percent) {
        let problem = format!("{percent} is not between 1 and 100");
        return Err(ConfigError::invalid(join(place, "max_removed_percent"), problem));
    }
    let policy = Policy {
        zone,
        within: within.and_then(|within| time::Duration::try_from(within).ok()),
        last: table.keep_last,
        periods: vec![
            (Period::Hour, table.keep_hourly),
            (Period::Day, table.keep_daily),
            (Period::Week, table.keep_weekly),
            (Period::Month, table.keep_monthly),
            (Period::Year, table.keep_yearly),
        ],
        min_keep: table.min_keep.unwrap_or(3),
        removed_percent_max: percent,
        frozen_after: None,
    };
    match (policy.is_empty(), table.keep_all) {
        // A rule like others: what it wants stays although another job's policy is about it, too.
        (true, true) => Ok(Some(Policy { last: u32::MAX, ..policy })),
        (false, false) => Ok(Some(policy)),
        (true, false) => Err(ConfigError::invalid(place, "this policy keeps nothing").suggest(
            "set what to keep: keep_daily = 7, keep_within = \"90d\"; or keep_all = true",
        )),
        (false, true) => {
            let error =
                ConfigError::invalid(join(place, "keep_all"), "other rules are set as well");
            Err(error.suggest("remove keep_all, or the others"))
        }
    }
}
