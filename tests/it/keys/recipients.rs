//! Who can open a backup: any one of its recipients, wherever their keys come from.

use std::fs;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::bed::{Bed, Run};
use crate::support::tb;

fn bed(folder: &tempfile::TempDir) -> Bed {
    let file = folder.path().join("0_0.tigerbeetle");
    tb::format(&file, 0, 1);
    Bed::new(&file, "")
}

/// Changes a line of the configuration.
fn configure(bed: &Bed, from: &str, to: &str) {
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    assert!(config.contains(from), "{config}");
    fs::write(bed.path("bkp.toml"), config.replace(from, to)).unwrap();
}

#[test]
fn a_key_that_is_lost_does_not_keep_the_others_from_reading() {
    let folder = tempfile::tempdir().unwrap();
    let bed = bed(&folder);
    configure(&bed, "[\"file:key\"]", "[\"file:other\", \"file:key\"]");
    bed.run(&["keys", "generate"]).done();
    bed.snapshot("full");
    fs::remove_file(bed.path("other")).unwrap();
    for words in [&["verify", "books"][..], &["restore", "books", "--to", "x", "--yes"]] {
        let run = bed.run(words).done();
        assert!(run.stderr.contains("continuing without recipient file:"), "{}", run.stderr);
    }
    // A new backup is for every recipient or for none.
    bed.run(&["snapshot", "books"]).failed(12, "other").failed(12, "bkp keys generate");
    fs::remove_file(bed.path("key")).unwrap();
    bed.run(&["verify", "books"]).failed(12, "other");
}

#[test]
fn a_key_may_be_a_credential_of_systemd() {
    let folder = tempfile::tempdir().unwrap();
    let bed = bed(&folder);
    fs::create_dir(bed.path("credentials")).unwrap();
    fs::copy(bed.path("key"), bed.path("credentials/books-key")).unwrap();
    bed.chmod("credentials/books-key", 0o440);
    configure(&bed, "[\"file:key\"]", "[\"credential:books-key\"]");
    let run = |words: &[&str]| {
        let mut command = bed.command(words);
        command.env("CREDENTIALS_DIRECTORY", bed.path("credentials"));
        Run::of(&command.output().unwrap())
    };
    run(&["snapshot", "books"]).done();
    run(&["verify", "books", "--level", "decode"]).done();
    bed.run(&["verify", "books", "--key", "file:key"]).done();
    bed.run(&["verify", "books"]).failed(12, "no credentials").failed(12, "LoadCredential=");
    run(&["verify", "books", "--key", "credential:../key"]).failed(12, "credential:../key");
}

/// The manifest of a backup with other recipients, as whoever can write the bucket would make it.
fn with_recipients(bed: &Bed, id: &str, recipients: &[Value]) {
    let path = bed.object(id, "manifest.json");
    let mut manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    manifest["keys"] = recipients.into();
    fs::write(&path, serde_json::to_vec(&manifest).unwrap()).unwrap();
}

fn expensive_recipient() -> Value {
    json!({
        "kind": "passphrase", "id": "passphrase", "wrapped": "A".repeat(80),
        "kdf": "pbkdf2-hmac-sha256", "salt": "AAAAAAAAAAAAAAAAAAAAAA==", "rounds": 10_000_000,
    })
}

#[test]
fn a_backup_for_too_many_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let bed = bed(&folder);
    let id = bed.snapshot("full");
    with_recipients(&bed, &id, &vec![expensive_recipient(); 33]);
    bed.run(&["verify", "books"]).failed(13, "33 recipients are more than 32");
}

#[test]
fn expensive_recipients_stop_when_cancelled() {
    let folder = tempfile::tempdir().unwrap();
    let bed = bed(&folder);
    let id = bed.snapshot("full");
    let recipients: Vec<Value> = (0..32)
        .map(|index| {
            let mut recipient = expensive_recipient();
            recipient["salt"] = format!("{}==", ["A", "Q", "g", "w"][index % 4].repeat(22)).into();
            recipient["rounds"] = (9_999_000 + index).into();
            recipient
        })
        .collect();
    with_recipients(&bed, &id, &recipients);
    fs::write(bed.path("pass"), "correct horse").unwrap();
    bed.chmod("pass", 0o600);
    let words = ["verify", "--id", &id, "--key", "passphrase:file:pass", "-q"];
    let mut child = bed.command(&words).stderr(Stdio::null()).spawn().unwrap();
    // It is at work: it has used a quarter of a second of processor time.
    let ticks = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        stat.split_whitespace().nth(13).unwrap().parse::<u64>().unwrap()
    };
    while ticks() < 25 {
        std::thread::yield_now();
    }
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn a_command_that_gives_a_passphrase_is_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let bed = bed(&folder);
    configure(&bed, "[\"file:key\"]", "[\"passphrase:cmd:printf hunter2\"]");
    for words in [&["config", "show"][..], &["config", "show", "--json"], &["doctor"]] {
        let run = bed.run(words).done();
        assert!(run.stdout.contains("passphrase:cmd:printf ..."), "{}", run.stdout);
        assert!(!format!("{run:?}").contains("hunter2"), "{run:?}");
    }
}
