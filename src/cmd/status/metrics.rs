//! The status in the text format of Prometheus, for the textfile collector of the node exporter.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use time::OffsetDateTime;

use super::rows::{JobRow, LogRow, SourceRow, Status, StoreRow};
use crate::domain::health::{Finding, LogLag};

/// One family of metrics: name, help, and samples with their labels.
struct Family {
    name: &'static str,
    help: &'static str,
    samples: Vec<(Vec<(&'static str, String)>, f64)>,
}

/// The text of the file.
#[must_use]
pub(super) fn text(status: &Status) -> String {
    let mut text = String::new();
    for Family { name, help, samples } in families(status) {
        if samples.is_empty() {
            continue;
        }
        let mut lines = format!("# HELP {name} {help}\n# TYPE {name} gauge\n");
        for (labels, value) in samples {
            let labels: Vec<String> = labels
                .into_iter()
                .map(|(label, value)| format!("{label}=\"{}\"", escaped(&value)))
                .collect();
            let labels =
                if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            // It does not fail: it writes to a string.
            let _written = writeln!(lines, "{name}{labels} {value}");
        }
        text.push_str(&lines);
    }
    text
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn labels(finding: &Finding) -> Vec<(&'static str, String)> {
    vec![
        ("rule", finding.rule.to_string()),
        ("subject", finding.subject.clone()),
        ("store", finding.store.clone().unwrap_or_default()),
        ("level", finding.level.as_str().to_owned()),
    ]
}

/// The same with the label `tenant`, where there is one: series of sources without one keep their names.
fn with_tenant(
    mut labels: Vec<(&'static str, String)>,
    tenant: Option<&String>,
) -> Vec<(&'static str, String)> {
    labels.extend(tenant.map(|tenant| ("tenant", tenant.clone())));
    labels
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus knows only floating point")]
#[expect(clippy::too_many_lines, reason = "a table")]
fn families(status: &Status) -> Vec<Family> {
    let seconds = |at: OffsetDateTime| at.unix_timestamp() as f64;
    let of_jobs = |name, help, value: &dyn Fn(&JobRow) -> Option<f64>| {
        let sample = |row: &JobRow| {
            let source = row.source.clone().unwrap_or_default();
            let labels = vec![("job", row.job.clone()), ("source", source)];
            Some((with_tenant(labels, row.tenant.as_ref()), value(row)?))
        };
        Family { name, help, samples: status.jobs.iter().filter_map(sample).collect() }
    };
    let of_sources = |name, help, value: &dyn Fn(&SourceRow) -> Option<f64>| {
        let sample = |row: &SourceRow| {
            let labels = vec![("source", row.source.clone()), ("store", row.store.clone())];
            Some((with_tenant(labels, row.tenant.as_ref()), value(row)?))
        };
        Family { name, help, samples: status.sources.iter().filter_map(sample).collect() }
    };
    let of_stores = |name, help, value: &dyn Fn(&StoreRow) -> Option<f64>| {
        let sample = |row: &StoreRow| Some((vec![("store", row.store.clone())], value(row)?));
        Family { name, help, samples: status.stores.iter().filter_map(sample).collect() }
    };
    let of_logs = |name, help, value: &dyn Fn(&LogLag) -> Option<u64>| {
        let sample =
            |row: &LogRow| Some((vec![("source", row.source.clone())], value(&row.lag)? as f64));
        Family { name, help, samples: status.logs.iter().filter_map(sample).collect() }
    };
    let flag = |is: bool| Some(f64::from(u8::from(is)));
    // Two findings may differ in their words alone, and Prometheus takes no series twice.
    let findings: BTreeSet<Vec<_>> = status.findings.iter().map(labels).collect();
    let findings = findings.into_iter().map(|labels| (labels, 1.0)).collect();
    let plain = |name, help, value| Family { name, help, samples: vec![(vec![], value)] };
    vec![
        of_jobs(
            "bkp_last_success_timestamp_seconds",
            "Start of the last successful run.",
            &|row| row.last_success.map(seconds),
        ),
        of_jobs("bkp_last_run_timestamp_seconds", "Start of the last run.", &|row| {
            row.last_run.map(seconds)
        }),
        of_jobs("bkp_last_run_exit_code", "Exit code of the last run.", &|row| {
            row.last_exit_code.map(f64::from)
        }),
        of_jobs("bkp_last_run_duration_seconds", "Duration of the last run.", &|row| {
            row.last_seconds.map(f64::from)
        }),
        of_jobs("bkp_failures", "Consecutive failed runs.", &|row| Some(f64::from(row.failures))),
        of_jobs("bkp_next_run_timestamp_seconds", "When the next run is due.", &|row| {
            row.next.map(seconds)
        }),
        of_jobs(
            "bkp_warning_age_seconds",
            "Age of the last successful run that raises a warning.",
            &|row| Some(row.warning_seconds as f64),
        ),
        of_jobs(
            "bkp_critical_age_seconds",
            "Age of the last successful run that is critical.",
            &|row| Some(row.critical_seconds as f64),
        ),
        of_jobs("bkp_job_enabled", "Whether the job is enabled.", &|row| flag(row.enabled)),
        of_sources("bkp_backups", "Backups in a store.", &|row| Some(row.backups as f64)),
        of_sources("bkp_stored_bytes", "Stored bytes of a source in a store.", &|row| {
            Some(row.stored_bytes as f64)
        }),
        of_sources("bkp_newest_backup_timestamp_seconds", "Start of the newest backup.", &|row| {
            row.newest.map(seconds)
        }),
        of_sources("bkp_last_verify_timestamp_seconds", "Last successful verification.", &|row| {
            row.last_verify.map(seconds)
        }),
        of_sources("bkp_last_drill_timestamp_seconds", "Last successful drill.", &|row| {
            row.last_drill.map(seconds)
        }),
        of_sources(
            "bkp_last_drill_rto_seconds",
            "Duration of the restore in the last drill.",
            &|row| row.last_drill_rto_seconds,
        ),
        of_sources("bkp_cost_per_month", "Cost of storage per month.", &|row| {
            Some(row.cost_per_month)
        }),
        of_sources(
            "bkp_cost_per_month_in_a_year",
            "Projected monthly cost of storage a year from now.",
            &|row| Some(row.cost_per_month_in_a_year),
        ),
        of_logs("bkp_log_lag_bytes", "Log written and not archived.", &|lag| lag.bytes),
        of_logs(
            "bkp_log_lag_seconds",
            "Age of the oldest file of the log that waits to be archived.",
            &|lag| lag.seconds,
        ),
        of_logs("bkp_log_waiting_files", "Files of the log that wait to be archived.", &|lag| {
            lag.waiting
        }),
        of_logs("bkp_log_archive_failures", "Failed attempts to archive a file.", &|lag| {
            lag.failures
        }),
        of_stores("bkp_store_up", "Whether the store is reachable.", &|row| {
            flag(row.problem.is_none())
        }),
        of_stores("bkp_store_bytes", "Bytes stored.", &|row| Some(row.stored_bytes as f64)),
        of_stores("bkp_store_free_bytes", "Bytes free.", &|row| {
            row.space.map(|space| space.free_bytes as f64)
        }),
        Family { name: "bkp_finding", help: "Findings of bkp status.", samples: findings },
        plain("bkp_outbox_events", "Events pending for the ledger.", status.outbox as f64),
        plain("bkp_status_timestamp_seconds", "When the status was taken.", seconds(status.at)),
    ]
}
