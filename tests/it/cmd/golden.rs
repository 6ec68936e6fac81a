//! What an operator reads, word for word: the help of every command, an error of each kind, every report for people.
//!
//! The texts are in `tests/it/cmd/golden/`; `SNAPSHOTS=overwrite tests/run.sh golden` writes them anew. What differs
//! from run to run, ids, times, sizes and paths, is replaced by a word in brackets.

use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;
use snapbox::assert::DEFAULT_ACTION_ENV;
use snapbox::{Assert, Data};

use crate::support::bed::{Bed, Run, bare};
use crate::support::tb;

/// What is replaced, in this order.
const VARIES: &[(&str, &str)] = &[
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "[ID]"),
    (r"\b20\d\d-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z| UTC)?", "[TIME]"),
    (r"\b20\d\d[-/]\d\d[-/]\d\d\b", "[DAY]"),
    (r"\b\d+(\.\d+)? (B|KiB|MiB|GiB|TiB)\b", "[SIZE]"),
    (r"\b\d+(\.\d+)? (s|ms|min|h|d)\b", "[TIME SPAN]"),
    (r"ratio \d+\.\d+", "ratio [N]"),
    (r"\b[0-9a-f]{16,64}\b", "[HEX]"),
    (r"\bprocess \d+", "process [N]"),
    (r" {2,}", "  "),
];

/// A text with everything replaced that varies, and the folder of the bed.
fn settled(text: &str, folder: &Path) -> String {
    let mut text = text.replace(folder.to_str().unwrap().trim_end_matches('/'), "[BED]");
    text = text.replace(&format!(" on {}", bkp::ctx::host()), " on [HOST]");
    for (pattern, word) in VARIES {
        text = Regex::new(pattern).unwrap().replace_all(&text, *word).into_owned();
    }
    text = text.replace(&format!("manual  {}", bkp::ctx::user()), "manual  [USER]");
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n") + "\n"
}

fn is(name: &str, text: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/cmd/golden").join(name);
    let assert = Assert::new().action_env(DEFAULT_ACTION_ENV);
    assert.eq(text.to_owned(), Data::read_from(&file, None).raw());
}

/// What a run printed, and its exit code.
fn printed(bed: &Bed, words: &[&str]) -> String {
    let run = bed.run(words);
    let text = format!(
        "$ bkp {}\n{}{}exit code {}",
        words.join(" "),
        run.stdout,
        run.stderr,
        run.code.unwrap()
    );
    settled(&text, &bed.path(""))
}

fn data_file(folder: &Path) -> PathBuf {
    let file = folder.join("0_0.tigerbeetle");
    tb::format(&file, 0, 1);
    file
}

#[test]
fn the_help_of_every_command_is_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let help =
        |words: &[&str]| Run::of(&bare(folder.path(), words).output().unwrap()).done().stdout;
    is("help/bkp.txt", &help(&["--help"]));
    for command in bkp::cli::commands() {
        is(&format!("help/{command}.txt"), &help(&[&command, "--help"]));
    }
}

#[test]
fn an_error_of_each_kind_is_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let bed = Bed::new(&data_file(folder.path()), "");
    let id = bed.snapshot("full");
    let target = bed.path("there");
    fs::write(&target, "").unwrap();
    let to = target.to_str().unwrap();
    is("errors/usage.txt", &printed(&bed, &["lst"]));
    is("errors/not-found.txt", &printed(&bed, &["snapshot", "boks"]));
    is("errors/refused.txt", &printed(&bed, &["restore", "books", "--to", to, "--yes"]));
    let new = bed.path("new");
    let new = new.to_str().unwrap();
    is("errors/not-confirmed.txt", &printed(&bed, &["restore", "books", "--to", new]));
    let other = tempfile::tempdir().unwrap();
    let stranger = Bed::new(&data_file(other.path()), "");
    let key = stranger.path("key");
    let with_key = ["verify", "books", "--key", &format!("file:{}", key.display())];
    let text = printed(&bed, &with_key)
        .replace(stranger.path("").to_str().unwrap().trim_end_matches('/'), "[OTHER]");
    is("errors/key.txt", &text);
    fs::rename(folder.path().join("0_0.tigerbeetle"), folder.path().join("away")).unwrap();
    let text = printed(&bed, &["snapshot", "books"]);
    is("errors/source.txt", &text.replace(folder.path().to_str().unwrap(), "[SOURCE]"));
    let object = bed.object(&id, "tar.zst.enc");
    let mut bytes = fs::read(&object).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&object, bytes).unwrap();
    is("errors/integrity.txt", &printed(&bed, &["verify", "books"]));
    fs::rename(bed.path("store"), bed.path("elsewhere")).unwrap();
    is("errors/store.txt", &printed(&bed, &["list"]));
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    fs::write(bed.path("bkp.toml"), config.replace("state_dir", "state_dri")).unwrap();
    is("errors/config.txt", &printed(&bed, &["list"]));
}

#[test]
fn every_report_for_people_is_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let more = "[job.nightly]\nrun = \"snapshot\"\nsource = \"books\"\nat = \"daily at 03:00\"\n[job.tidy]\nrun = \"cleanup\"\n[status]\nmin_free_percent = 0\n";
    let bed = Bed::with(&data_file(folder.path()), "", more);
    let report = |name: &str, words: &[&str]| {
        let text = printed(&bed, words).replace(folder.path().to_str().unwrap(), "[SOURCE]");
        is(&format!("reports/{name}.txt"), &text);
    };
    let to = bed.path("restored.tigerbeetle");
    let to = to.to_str().unwrap();
    report("list-empty", &["list"]);
    report("snapshot-plan", &["snapshot", "books", "--dry-run"]);
    report("snapshot", &["snapshot", "books"]);
    report("snapshot-incremental", &["snapshot", "books", "--scope", "incremental"]);
    report("list", &["list"]);
    report("verify", &["verify", "books"]);
    report("list-runs", &["list", "--runs"]);
    report("verify-decode", &["verify", "books", "--level", "decode"]);
    report("restore-plan", &["restore", "books", "--to", to, "--dry-run"]);
    report("restore", &["restore", "books", "--to", to, "--yes"]);
    let listed = bed.json(&["list"]);
    let id = listed["backups"][1]["id"].as_str().unwrap();
    report("note", &["note", id, "before the audit"]);
    report("pin", &["pin", id, "--note", "the end of the year"]);
    report("list-long", &["list", "--long"]);
    report("unpin", &["unpin", id]);
    report("cleanup-plan", &["cleanup", "--dry-run"]);
    report("cleanup", &["cleanup"]);
    report("config-check", &["config", "check"]);
    report("run-plan", &["run", "--dry-run"]);
    report("status", &["status"]);
    report("keys", &["keys", "generate", bed.path("other").to_str().unwrap()]);
}
