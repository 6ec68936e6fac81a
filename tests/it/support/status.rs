//! What `bkp status` reports, as JSON and as metrics.
#![expect(clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use super::bed::Bed;

/// Adds lines to the table `[status]`.
pub(crate) fn set(bed: &Bed, lines: &str) {
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    fs::write(bed.path("bkp.toml"), config.replace("[status]\n", &format!("[status]\n{lines}\n")))
        .unwrap();
}

/// Level by rule and subject.
pub(crate) fn findings(report: &Value) -> BTreeMap<(String, String), String> {
    let text = |finding: &Value, field: &str| finding[field].as_str().unwrap().to_owned();
    let findings = report["findings"].as_array().unwrap().iter();
    findings.map(|one| ((text(one, "rule"), text(one, "subject")), text(one, "level"))).collect()
}

pub(crate) fn status(bed: &Bed, code: i32) -> Value {
    let run = bed.run(&["status", "--json"]);
    assert_eq!(run.code, Some(code), "{}{}", run.stdout, run.stderr);
    serde_json::from_str(&run.stdout).unwrap()
}

pub(crate) fn has(report: &Value, rule: &str, subject: &str, level: &str) {
    let found = findings(report);
    let found = found.get(&(rule.to_owned(), subject.to_owned()));
    assert_eq!(found.map(String::as_str), Some(level), "{rule} of {subject}: {report:#}");
}

/// What a metrics file says: value by name and labels. Strict about the format.
pub(crate) fn parse(text: &str) -> BTreeMap<String, f64> {
    let (mut found, mut typed, mut current) = (BTreeMap::new(), Vec::new(), String::new());
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            rest.split(' ').next().unwrap().clone_into(&mut current);
            assert!(rest.len() > current.len() + 1, "no help: {line}");
            assert!(!typed.contains(&current), "two families {current}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            assert_eq!(rest, format!("{current} gauge"));
            typed.push(current.clone());
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let name = series.split('{').next().unwrap();
            assert_eq!(name, current, "a sample apart from its family");
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'));
            if let Some(labels) = series.strip_prefix(&format!("{name}{{")) {
                let labels = labels.strip_suffix("\"}").unwrap_or_else(|| panic!("{line}"));
                for label in labels.split("\",") {
                    let (label, _) = label.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
                    assert!(label.chars().all(|c| c.is_ascii_lowercase()), "{line}");
                }
            }
            let before = found.insert(series.to_owned(), value.parse().unwrap());
            assert_eq!(before, None, "twice: {line}");
        }
    }
    found
}
