//! What a data folder says of the server that it is from, by `pg_controldata`.

use std::path::Path;

use super::account::Account;
use super::programs::{Programs, Task};
use crate::ctx::Ctx;
use crate::source::SourceError;

/// Settings that a server which recovers must have at least as high as the one it is from, by what
/// `pg_controldata` calls them.
const LIMITS: [(&str, &str); 6] = [
    ("max_connections setting", "max_connections"),
    ("max_worker_processes setting", "max_worker_processes"),
    ("max_wal_senders setting", "max_wal_senders"),
    ("max_prepared_xacts setting", "max_prepared_transactions"),
    ("max_locks_per_xact setting", "max_locks_per_transaction"),
    ("track_commit_timestamp setting", "track_commit_timestamp"),
];

/// What it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ControlData {
    /// What the cluster is doing, as `shut down`.
    pub(crate) state: String,
    /// Settings with the values of the server that it is from.
    pub(crate) limits: Vec<(String, String)>,
}

impl ControlData {
    /// Asks `pg_controldata`, which is run as `account`, whose the folder is.
    ///
    /// # Errors
    /// As [`Programs::run`]; [`SourceError::Engine`] if it says something else than what is asked.
    pub(crate) fn read(
        programs: &Programs,
        account: &Account,
        data: &Path,
        scratch: &Path,
        ctx: &Ctx,
    ) -> anyhow::Result<ControlData> {
        let folder = data.display().to_string();
        let words = ["-D", folder.as_str()];
        let task = Task { name: "pg_controldata", words: &words, variables: &[] };
        let said = programs.run(&task, account, scratch, ctx)?;
        parse(&said).ok_or_else(|| {
            SourceError::Engine {
                what: programs.path("pg_controldata").display().to_string(),
                reason: format!("says nothing of the state or the settings of {folder}"),
                hint: "install the programs of the version that the backup is of".into(),
            }
            .into()
        })
    }
}

fn parse(said: &str) -> Option<ControlData> {
    let value = |name: &str| {
        let mut lines = said.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(found, _)| *found == name).map(|(_, value)| value.trim().to_owned())
    };
    let state = value("Database cluster state")?;
    let limits = LIMITS.iter().map(|(said, name)| Some(((*name).to_owned(), value(said)?)));
    Some(ControlData { state, limits: limits.collect::<Option<_>>()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "pg_control version number:            1300
Database cluster state:               shut down in recovery
wal_level setting:                    replica
max_connections setting:              100
max_worker_processes setting:         8
max_wal_senders setting:              10
max_prepared_xacts setting:           5
max_locks_per_xact setting:           64
track_commit_timestamp setting:       off
";

    #[test]
    fn state_and_limits_are_read() {
        let found = parse(SAID).unwrap();
        assert_eq!(found.state, "shut down in recovery");
        assert_eq!(found.limits.len(), LIMITS.len());
        let wanted = ("max_prepared_transactions".to_owned(), "5".to_owned());
        assert!(found.limits.contains(&wanted));
        assert_eq!(parse("Database cluster state: x"), None);
    }
}
