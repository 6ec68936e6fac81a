//! What `examples` has for containers and monitoring, checked by the tools of those who run it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::bed::bare;
use crate::support::s3::tool;

fn examples(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(folder)
}

fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let items = fs::read_dir(examples(folder)).unwrap().map(|item| item.unwrap().path());
    let found: Vec<PathBuf> =
        items.filter(|path| path.extension() == Some(extension.as_ref())).collect();
    assert!(!found.is_empty(), "{folder}");
    found
}

#[track_caller]
fn passes(mut command: Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned();
    assert!(status.success(), "{command:?}: {text}");
    text
}

fn python(program: &str) -> Command {
    Command::new(tool(&format!("deployments/bin/{program}")))
}

/// A YAML file as JSON documents.
fn documents(path: &Path) -> Vec<Value> {
    let mut command = python("python");
    let program =
        "import json, sys, yaml\nprint(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    command.args(["-c", program]).arg(path);
    serde_json::from_str(&passes(command)).unwrap()
}

/// All values of `key`, however deep.
fn values_of<'v>(value: &'v Value, key: &str, found: &mut Vec<&'v Value>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get(key));
            fields.values().for_each(|inner| values_of(inner, key, found));
        }
        Value::Array(items) => items.iter().for_each(|inner| values_of(inner, key, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A command line that bkp understands fails for want of its configuration alone.
fn is_understood(words: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let words = [&["--config", "absent.toml"], words].concat();
    let output = bare(folder.path(), &words).output().unwrap();
    assert_eq!(output.status.code(), Some(78), "{words:?}: {output:?}");
}

/// The configuration passes `bkp config check`.
fn is_valid(text: &str) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("bkp.toml"), text).unwrap();
    let output =
        bare(folder.path(), &["--config", "bkp.toml", "config", "check"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn kubernetes_takes_the_manifests_and_bkp_their_command_lines() {
    for version in ["1.28", "1.33", "1.37"] {
        let mut command = python("kubernetes-validate");
        passes({
            command.args(["--strict", "-k", version]).args(files("kubernetes", "yaml"));
            command
        });
    }
    let documents: Vec<Value> =
        files("kubernetes", "yaml").iter().flat_map(|path| documents(path)).collect();
    let mut containers = Vec::new();
    for document in &documents {
        values_of(document, "args", &mut containers);
    }
    assert_eq!(containers.len(), 3, "{containers:?}");
    for arguments in containers {
        let words: Vec<&str> =
            arguments.as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
        is_understood(&words);
    }
    let mut texts = Vec::new();
    for document in &documents {
        values_of(document, "bkp.toml", &mut texts);
    }
    assert_eq!(texts.len(), 1);
    is_valid(texts[0].as_str().unwrap());
}

#[test]
fn compose_takes_its_file_and_bkp_the_command_lines() {
    let mut command = python("check-jsonschema");
    command.args(["--builtin-schema", "vendor.compose-spec"]).args(files("compose", "yaml"));
    passes(command);
    let found = documents(&examples("compose/compose.yaml"));
    let mut lines = Vec::new();
    values_of(&found[0], "entrypoint", &mut lines);
    assert_eq!(lines.len(), 3, "{lines:?}");
    for line in lines {
        let words: Vec<&str> =
            line.as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
        match words[..] {
            ["bkp", ref words @ ..] => is_understood(words),
            ["/bin/sh", "-c", script] => {
                assert!(script.contains("bkp -q run;"), "{script}");
                is_understood(&["-q", "run"]);
            }
            _ => panic!("{words:?}"),
        }
    }
    is_valid(&fs::read_to_string(examples("compose/bkp.toml")).unwrap());
}

#[test]
fn prometheus_takes_the_alerts_and_they_fire() {
    let promtool = || {
        let mut command = Command::new(tool("promtool/promtool"));
        command.current_dir(examples("monitoring"));
        command
    };
    let mut check = promtool();
    check.args(["check", "rules", "alerts.yml"]);
    passes(check);
    let mut test = promtool();
    test.args(["test", "rules", "alerts-test.yml"]);
    passes(test);
}

/// Words of `text` that name a metric.
fn metrics(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("bkp_")).map(str::to_owned).collect()
}

#[test]
fn alerts_and_dashboard_use_metrics_that_bkp_writes() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cmd/status/metrics.rs");
    let written = metrics(&fs::read_to_string(source).unwrap());
    let dashboard = fs::read_to_string(examples("monitoring/dashboard.json")).unwrap();
    let parsed: Value = serde_json::from_str(&dashboard).unwrap();
    assert!(parsed["panels"].as_array().unwrap().len() > 10);
    let alerts = fs::read_to_string(examples("monitoring/alerts.yml")).unwrap();
    let used = metrics(&(dashboard + &alerts));
    assert!(used.len() > 10, "{used:?}");
    let unknown: Vec<&String> = used.difference(&written).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}
