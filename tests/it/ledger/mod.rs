//! The ledger: every run is recorded, tampering is named, and runs do not depend on its availability
//! unless so configured.

mod lease;
mod promise;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use sha2::Digest as _;
use tempfile::TempDir;
use tigerbeetle_unofficial::error::{CreateTransfersError, SendError};
use tigerbeetle_unofficial::{Client, QueryFilter, Transfer, transfer};

use crate::support::bed::Bed;
use crate::support::tb;

/// A server for the ledger, and a bed whose source is a data file that nobody writes.
struct LedgerBed {
    folder: TempDir,
    server: Option<tb::Server>,
    bed: Bed,
}

impl LedgerBed {
    fn new(more: &str) -> LedgerBed {
        let folder = tempfile::tempdir().unwrap();
        let data_file = folder.path().join("books.tigerbeetle");
        tb::format(&data_file, 0, 1);
        let server = tb::Server::solo(folder.path());
        let bed = Bed::new(&data_file, "");
        bed.set_ledger(server.address(), "2m", more);
        LedgerBed { folder, server: Some(server), bed }
    }

    fn stop(&mut self) -> PathBuf {
        self.server.take().unwrap().stop()
    }

    /// Starts the server again, at another address.
    fn start(&mut self, data_file: &Path) {
        let server = tb::Server::start_existing(data_file);
        self.bed.set_ledger(server.address(), "2m", "");
        self.server = Some(server);
    }

    fn address(&self) -> &str {
        self.server.as_ref().unwrap().address()
    }

    fn events(&self) -> Vec<Value> {
        self.bed.json(&["list", "--from-ledger"])["events"].as_array().unwrap().clone()
    }

    /// The differences that `verify --ledger` finds, as `what id`.
    fn differences(&self) -> Vec<String> {
        let run = self.bed.run(&["verify", "--ledger", "--json"]);
        let report: Value = serde_json::from_str(&run.stdout).unwrap();
        let found = report["differences"].as_array().unwrap();
        assert_eq!(run.code, Some(if found.is_empty() { 0 } else { 13 }), "{report}");
        assert_eq!(report["ok"], found.is_empty());
        let word = |found: &Value| {
            let id = found["id"].as_str().unwrap_or("-");
            format!("{} {id}", found["what"].as_str().unwrap())
        };
        found.iter().map(word).collect()
    }

    fn outbox(&self) -> Vec<PathBuf> {
        let Ok(items) = fs::read_dir(self.bed.path("state/outbox")) else { return Vec::new() };
        items.map(|item| item.unwrap().path()).collect()
    }
}

/// Asks a cluster as any other program would.
fn ask<T>(address: &str, question: &impl AsyncFn(&Client) -> T) -> T {
    let client = Client::new(tb::CLUSTER, address).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let answer = async { tokio::time::timeout(Duration::from_mins(1), question(&client)).await };
    runtime.block_on(answer).unwrap()
}

fn transfers(address: &str, code: u16) -> Vec<Transfer> {
    let filter = QueryFilter::new(8189).with_code(code);
    let found: Result<Vec<Transfer>, SendError> =
        ask(address, &async |client| client.query_transfers(Box::new(filter)).await);
    found.unwrap()
}

fn plant(address: &str, transfer: Transfer) {
    let done: Result<(), CreateTransfersError> =
        ask(address, &async |client| client.create_transfers(vec![transfer]).await);
    done.unwrap();
}

fn number(id: &str) -> u128 {
    u128::from_str_radix(&id.replace('-', ""), 16).unwrap()
}

#[test]
fn every_run_is_recorded() {
    let ledger_bed = LedgerBed::new("");
    let full = ledger_bed.bed.snapshot("full");
    let increment = ledger_bed.bed.snapshot("incremental");
    let data_file = ledger_bed.folder.path().join("books.tigerbeetle");
    fs::rename(&data_file, data_file.with_extension("away")).unwrap();
    ledger_bed.bed.run(&["snapshot", "books"]).failed(15, "books.tigerbeetle");

    let events = ledger_bed.events();
    let words: Vec<&str> = events.iter().map(|event| event["status"].as_str().unwrap()).collect();
    assert_eq!(words, ["started", "completed", "started", "completed", "started", "failed"]);
    for (id, event, scope) in [(&full, &events[1], "full"), (&increment, &events[3], "incremental")]
    {
        let file = fs::read(ledger_bed.bed.object(id, "manifest.json")).unwrap();
        let manifest: Value = serde_json::from_slice(&file).unwrap();
        let sha256 = bkp::domain::manifest::hex(&sha2::Sha256::digest(&file));
        assert_eq!(event["id"], **id);
        assert_eq!(event["scope"], scope);
        assert_eq!(event["digest"], sha256[..18]);
        assert_eq!(event["stored_bytes"], manifest["sizes"]["stored_bytes"]);
        assert_eq!(manifest["ledger"]["transfer"], number(id).to_string());
    }
    assert_eq!(events[5]["stored_bytes"], 0);
    assert_eq!(events[4]["id"], events[5]["id"]);
    assert!(
        ledger_bed.bed.path("store/leases/books").exists(),
        "a run without the ledger looks there"
    );

    // As DESIGN says it is packed: type, scope, compression, encryption, status, retention, digest.
    let packed = transfers(ledger_bed.address(), 12)
        .iter()
        .find(|t| t.id() == number(&full))
        .unwrap()
        .user_data_128();
    let digest = u128::from_str_radix(events[1]["digest"].as_str().unwrap(), 16).unwrap();
    assert_eq!(packed, 0x0101_0302_0200_0000_u128 << 64 | digest);
    assert_eq!(ledger_bed.differences(), Vec::<String>::new());
}

#[test]
fn every_kind_of_tampering_is_named() {
    let mut ledger_bed = LedgerBed::new("");
    let (id, other) = (ledger_bed.bed.snapshot("full"), ledger_bed.bed.snapshot("incremental"));
    // Nothing of this needs a key.
    fs::rename(ledger_bed.bed.path("key"), ledger_bed.bed.path("key-away")).unwrap();
    assert_eq!(ledger_bed.differences(), Vec::<String>::new());

    let manifest = ledger_bed.bed.object(&id, "manifest.json");
    let object = ledger_bed.bed.object(&id, "tar.zst.enc");
    let (good, data) = (fs::read(&manifest).unwrap(), fs::read(&object).unwrap());
    let text = String::from_utf8(good.clone()).unwrap();

    fs::write(&manifest, text.replacen("\"host\": \"", "\"host\": \"x", 1)).unwrap();
    assert_eq!(ledger_bed.differences(), [format!("changed {id}")]);
    fs::write(&manifest, "{}").unwrap();
    assert_eq!(ledger_bed.differences(), [format!("changed {id}")]);
    fs::remove_file(&manifest).unwrap();
    assert_eq!(ledger_bed.differences(), [format!("removed {id}"), "balance -".into()]);
    fs::write(&manifest, &good).unwrap();

    fs::remove_file(&object).unwrap();
    assert_eq!(ledger_bed.differences(), [format!("object {id}"), "balance -".into()]);
    fs::write(&object, &data[..data.len() - 1]).unwrap();
    assert_eq!(ledger_bed.differences(), [format!("object {id}"), "balance -".into()]);
    fs::write(&object, &data).unwrap();

    // The same backup once more, under another source's name.
    let copy = PathBuf::from(manifest.to_str().unwrap().replace("/books/", "/cooks/"));
    fs::create_dir_all(copy.parent().unwrap()).unwrap();
    fs::write(&copy, &good).unwrap();
    assert_eq!(ledger_bed.differences()[0], format!("changed {id}"));
    fs::remove_file(&copy).unwrap();
    assert_eq!(ledger_bed.differences(), Vec::<String>::new());

    tampered_events(&ledger_bed, &other);
    planted_backup(&mut ledger_bed);
}

/// What somebody does who can write to the ledger. None of it can be undone: each adds to the last.
fn tampered_events(ledger_bed: &LedgerBed, other: &str) {
    let address = ledger_bed.address();
    let events = transfers(address, 12);
    let mut real = *events.iter().find(|event| event.id() == number(other)).unwrap();
    real.as_raw_mut().timestamp = 0;
    let (debit, credit) = (real.debit_account_id(), real.credit_account_id());

    // An event of a backup that never was.
    let fake = number("01935a3c-7a00-7abc-8def-0123456789ab");
    plant(address, real.with_id(fake).with_amount(5));
    let fake = "removed 01935a3c-7a00-7abc-8def-0123456789ab";
    assert_eq!(ledger_bed.differences(), [fake, "balance -"]);
    // Bytes that no event accounts for.
    plant(address, real.with_id(77).with_code(99).with_amount(1));
    assert_eq!(ledger_bed.differences(), [fake, "balance -"]);
    // A transfer that only looks like an event.
    plant(address, real.with_id(78).with_amount(0));
    assert_eq!(ledger_bed.differences(), ["foreign -", fake, "balance -"]);
    // The deletion of a backup that is still there.
    let deleted = number(other) & !(0xf << 76) | 4 << 76;
    let packed = real.user_data_128() & !(0xff << 88) | 4 << 88;
    let reverse = real.with_id(deleted).with_user_data_128(packed);
    plant(address, reverse.with_debit_account_id(credit).with_credit_account_id(debit));
    let returned = format!("returned {other}");
    assert_eq!(ledger_bed.differences(), ["foreign -", &returned, fake, "balance -"]);
    // Then it is really removed: that is how a deletion looks.
    fs::remove_file(ledger_bed.bed.object(other, "manifest.json")).unwrap();
    assert_eq!(ledger_bed.differences(), ["foreign -", fake, "balance -"]);
}

/// A backup that somebody with a key, but without the ledger, puts into the store.
fn planted_backup(ledger_bed: &mut LedgerBed) {
    fs::rename(ledger_bed.bed.path("key-away"), ledger_bed.bed.path("key")).unwrap();
    let address = ledger_bed.address().to_owned();
    ledger_bed.bed.set_ledger("", "2m", "");
    let planted = ledger_bed.bed.snapshot("full");
    ledger_bed.bed.set_ledger(&address, "2m", "");
    assert!(ledger_bed.differences().contains(&format!("unrecorded {planted}")));
}

#[test]
fn a_run_without_an_answer_ends_with_17_and_a_later_one_delivers() {
    let mut ledger_bed = LedgerBed::new("");
    ledger_bed.bed.snapshot("full");
    let data_file = ledger_bed.stop();
    let mut ids = Vec::new();
    for _ in 0..2 {
        let run = ledger_bed.bed.run(&["snapshot", "books", "--json"]);
        assert_eq!(run.code, Some(17), "{}", run.stderr);
        assert!(run.stderr.contains("nothing is listening there"), "{}", run.stderr);
        assert!(run.stderr.contains("waits in the outbox"), "{}", run.stderr);
        let report: Value = serde_json::from_str(&run.stdout).unwrap();
        ids.push(report["manifest"]["id"].as_str().unwrap().to_owned());
    }
    // The backups are durable, and the events wait for their owner alone, with that of the verification.
    ledger_bed.bed.run(&["verify", "books", "--level", "decode"]).done();
    let waiting = ledger_bed.outbox();
    assert_eq!(waiting.len(), 3);
    for path in &waiting {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o7777, 0o600);
    }
    ledger_bed.bed.run(&["doctor"]).failed_in_text(16, "nothing is listening");
    let kept: Vec<(PathBuf, Vec<u8>)> =
        waiting.iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect();

    ledger_bed.start(&data_file);
    let doctor = ledger_bed.bed.run(&["doctor"]).done();
    assert!(doctor.stdout.contains("3 event(s) in the outbox wait"), "{}", doctor.stdout);
    ledger_bed.bed.snapshot("incremental");
    assert_eq!(ledger_bed.outbox(), Vec::<PathBuf>::new());
    assert_eq!(ledger_bed.differences(), Vec::<String>::new());
    let count = ledger_bed.events().len();
    for id in &ids {
        assert!(ledger_bed.events().iter().any(|e| e["id"] == **id && e["status"] == "completed"));
    }

    // Delivered twice is delivered once; what cannot be delivered stays and is named.
    for (path, text) in &kept {
        fs::write(path, text).unwrap();
    }
    fs::write(ledger_bed.bed.path("state/outbox/broken.event"), "{}").unwrap();
    let run = ledger_bed.bed.run(&["verify", "--ledger"]).done();
    assert!(run.stderr.contains("broken.event"), "{}", run.stderr);
    assert_eq!(ledger_bed.outbox(), [ledger_bed.bed.path("state/outbox/broken.event")]);
    assert_eq!(ledger_bed.events().len(), count);
}

#[test]
fn a_lost_outbox_can_be_recreated_and_a_forged_backup_is_not_recorded() {
    let mut ledger_bed = LedgerBed::new("");
    ledger_bed.bed.snapshot("full");
    let data_file = ledger_bed.stop();
    let run = ledger_bed.bed.run(&["snapshot", "books", "--json"]);
    assert_eq!(run.code, Some(17), "{}", run.stderr);
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    let lost = report["manifest"]["id"].as_str().unwrap();
    fs::remove_dir_all(ledger_bed.bed.path("state/outbox")).unwrap();
    ledger_bed.start(&data_file);
    assert_eq!(ledger_bed.differences(), [format!("unrecorded {lost}"), "balance -".into()]);

    // Made by somebody who has the store but no key.
    let manifest = ledger_bed.bed.object(lost, "manifest.json");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replacen("\"host\": \"", "\"host\": \"x", 1)).unwrap();
    let run = ledger_bed.bed.run(&["verify", "--ledger", "--record"]);
    assert_eq!(run.code, Some(13), "{}", run.stdout);
    assert!(run.stderr.contains("not authentic"), "{}", run.stderr);

    fs::write(&manifest, &text).unwrap();
    let report = ledger_bed.bed.json(&["verify", "--ledger", "--record"]);
    assert_eq!(report["recorded"].as_array().unwrap().len(), 1);
    assert_eq!(ledger_bed.differences(), Vec::<String>::new());
}

/// Such a backup has an object that lists the others, which is no part of the recorded size.
#[test]
fn the_ledger_balances_for_a_backup_of_more_objects_than_a_manifest_names() {
    let folder = tempfile::tempdir().unwrap();
    let tier = folder.path().join("tier");
    fs::create_dir(&tier).unwrap();
    for number in 0..1100 {
        fs::write(tier.join(format!("{number}")), number.to_string()).unwrap();
    }
    let server = tb::Server::solo(folder.path());
    let bed = Bed::of_source(&format!(
        "[source.tier]\nkind = \"parquet\"\nstore = \"main\"\npath = {tier:?}\nfiles = [\"**/*\"]\n"
    ));
    bed.set_ledger(server.address(), "2m", "");
    let ledger_bed = LedgerBed { folder, server: Some(server), bed };
    let made = ledger_bed.bed.json(&["replicate", "tier"]);
    let id = made["manifest"]["id"].as_str().unwrap();
    assert_eq!(ledger_bed.differences(), Vec::<String>::new());

    let objects = made["manifest"]["objects"].as_array().unwrap();
    let list = objects.iter().find(|object| object["role"] == "objects").unwrap();
    let list = ledger_bed.bed.path("store").join(list["key"].as_str().unwrap());
    let kept = fs::read(&list).unwrap();
    fs::remove_file(&list).unwrap();
    assert_eq!(ledger_bed.differences(), [format!("object {id}")]);
    fs::write(&list, kept).unwrap();

    let unnamed = ledger_bed.bed.stored().into_iter().find(|path| {
        let named = |object: &Value| path.ends_with(object["key"].as_str().unwrap());
        !path.ends_with(ledger_bed.bed.object(id, "manifest.json")) && !objects.iter().any(named)
    });
    fs::remove_file(unnamed.expect("an object that only the list names")).unwrap();
    assert_eq!(ledger_bed.differences(), ["balance -".to_owned()]);
}

#[test]
fn a_required_ledger_that_does_not_answer_keeps_a_run_from_starting() {
    let mut ledger_bed = LedgerBed::new("required = true");
    ledger_bed.bed.snapshot("full");
    let (before, address) = (ledger_bed.bed.stored().len(), ledger_bed.address().to_owned());
    for (cluster, reason) in
        [("8", "cluster 8 did not answer within 2 s"), ("7", "nothing is listening")]
    {
        if cluster == "7" {
            ledger_bed.stop();
        }
        ledger_bed.bed.set_ledger(&address, "2m", "required = true\ndeadline = \"2s\"");
        let config = fs::read_to_string(ledger_bed.bed.path("bkp.toml")).unwrap();
        let config = config.replace("cluster = \"7\"", &format!("cluster = \"{cluster}\""));
        fs::write(ledger_bed.bed.path("bkp.toml"), config).unwrap();
        for words in [&["snapshot", "books"][..], &["verify", "--ledger"]] {
            ledger_bed.bed.run(words).failed(16, reason);
        }
        ledger_bed.bed.run(&["list", "--from-ledger"]).failed(16, reason);
    }
    assert_eq!(ledger_bed.bed.stored().len(), before);
    assert_eq!(ledger_bed.outbox(), Vec::<PathBuf>::new());
    ledger_bed.bed.set_ledger("", "2m", "");
    ledger_bed.bed.run(&["verify", "--ledger"]).failed(78, "no ledger is configured");
}

#[test]
fn a_cluster_with_another_id_is_given_up_in_time() {
    let ledger_bed = LedgerBed::new("");
    let config = fs::read_to_string(ledger_bed.bed.path("bkp.toml")).unwrap();
    let config = config.replace("cluster = \"7\"", "cluster = \"8\"\ndeadline = \"1s\"");
    fs::write(ledger_bed.bed.path("bkp.toml"), config).unwrap();
    let run = ledger_bed.bed.run(&["snapshot", "books"]);
    assert_eq!(run.code, Some(17), "{}", run.stderr);
    assert!(run.stderr.contains("cluster 8 did not answer within 1 s"), "{}", run.stderr);
    assert_eq!(ledger_bed.outbox().len(), 1);
}

#[test]
fn other_peoples_accounts_are_refused() {
    let ledger_bed = LedgerBed::new("number = 13");
    ledger_bed.bed.snapshot("full");
    // The operator of ledger 13 is an account of another ledger now.
    let operator = transfers(ledger_bed.address(), 12)[0].debit_account_id();
    let more = format!("number = 14\naccounts = {{ operator = \"{operator}\" }}");
    ledger_bed.bed.set_ledger(ledger_bed.address(), "2m", &more);
    ledger_bed.bed.run(&["snapshot", "books"]).failed(78, "ExistsWithDifferentLedger");
    let more = "number = 14\naccounts = { operator = \"4711\", tigerbeetle = \"4712\" }";
    ledger_bed.bed.set_ledger(ledger_bed.address(), "2m", more);
    ledger_bed.bed.snapshot("full");
    let chosen = transfers(ledger_bed.address(), 12);
    let last = chosen.last().unwrap();
    assert_eq!((last.debit_account_id(), last.credit_account_id()), (4711, 4712));
    assert_eq!(last.flags(), transfer::Flags::empty());
}

#[test]
fn a_run_uses_at_most_one_ledger_session() {
    let ledger_bed = LedgerBed::new("");
    // A client has the same number in each of its connections, and one session.
    let sessions = || {
        let log = ledger_bed.server.as_ref().unwrap().log_text();
        let lines =
            log.lines().filter_map(|line| line.split_once("connection from client_likely="));
        lines.map(|(_, client)| client.to_owned()).collect::<BTreeSet<String>>().len()
    };
    for words in [&["list"][..], &["verify", "--latest", "books"], &["config", "check"]] {
        ledger_bed.bed.run(words);
    }
    assert_eq!(sessions(), 0, "nothing was to be said");
    ledger_bed.bed.snapshot("full");
    assert_eq!(sessions(), 1);
    ledger_bed.bed.run(&["doctor"]).done();
    assert_eq!(sessions(), 2);
}

#[test]
fn restores_and_verifications_are_recorded_and_move_nothing() {
    let ledger_bed = LedgerBed::new("");
    let id = ledger_bed.bed.snapshot("full");
    ledger_bed.bed.run(&["verify", "books"]).done();
    let target = ledger_bed.folder.path().join("back.tigerbeetle");
    ledger_bed.bed.run(&["restore", "books", "--to", target.to_str().unwrap(), "--yes"]).done();
    assert_eq!(ledger_bed.differences(), Vec::<String>::new());
    let digest = {
        let file = fs::read(ledger_bed.bed.object(&id, "manifest.json")).unwrap();
        u128::from_str_radix(&bkp::domain::manifest::hex(&sha2::Sha256::digest(&file))[..18], 16)
    };
    // As any other client sees them: no amount, ids of their own, the digest of the manifest.
    let found = transfers(ledger_bed.address(), 12);
    for status in [5, 6] {
        let of = |one: &&Transfer| one.user_data_128() >> 88 & 0xff == status;
        let one = found.iter().filter(of).collect::<Vec<_>>();
        assert_eq!(one.len(), 1, "{found:?}");
        assert_eq!(one[0].amount(), 0);
        assert_eq!(Ok(one[0].user_data_128() & ((1 << 72) - 1)), digest);
        assert_ne!(one[0].id() & !(0xf << 76), number(&id) & !(0xf << 76));
    }
    let words: Vec<Value> = ledger_bed.events().iter().map(|one| one["status"].clone()).collect();
    assert_eq!(words, ["started", "completed", "verified", "restored"]);
}
