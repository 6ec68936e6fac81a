//! Transfers that were imported with times of the past, accounts that were created closed: a log of mode
//! query restores them as they were, or says when it is shipped that it cannot.

use std::time::Duration;

use serde_json::Value;
use tigerbeetle_unofficial::{Account, Transfer};

use crate::support::bed::Bed;
use crate::support::books::{self, Books};
use crate::support::logs::{bed, restore_at, spelled, window, with_server};
use crate::support::tb;

const PENDING: u16 = 2;
const CLOSING_DEBIT: u16 = 64;
const DEBITS_LIMITED: u16 = 2;
const HISTORY: u16 = 8;
const CLOSED: u16 = 32;

/// Books of a few accounts: 1 and 2 as they are, 3 with a limit and a history.
struct Scene {
    _folder: tempfile::TempDir,
    _server: tb::Server,
    bed: Bed,
    books: Books,
}

fn scene() -> Scene {
    let folder = tempfile::tempdir().unwrap();
    let server = tb::Server::solo(folder.path());
    let address = server.address().to_owned();
    let bed = bed(server.data_file(), &address, "");
    let mut books = books::open(&address);
    // Its own transfers have other ids than those here.
    books.go_on(1000);
    let account = |id: u128, flags: u16| {
        let mut account = Account::new(books::account_id(id), books::LEDGER, 5);
        account.as_raw_mut().flags = flags;
        account
    };
    books.create(vec![account(1, 0), account(2, 0), account(3, DEBITS_LIMITED | HISTORY)]);
    books.post(&[transfer(1, 2, 3, 10, 0)]).unwrap();
    Scene { _folder: folder, _server: server, bed, books }
}

fn transfer(id: u128, debit: u128, credit: u128, amount: u128, flags: u16) -> Transfer {
    books::transfer(id, debit, credit, amount, flags)
}

impl Scene {
    /// A pending transfer that has expired; returns its time.
    fn expired(&self, id: u128, debit: u128, amount: u128, flags: u16) -> u64 {
        let pending = transfer(id, debit, 2, amount, PENDING | flags).with_timeout(1);
        self.books.post(&[pending]).unwrap();
        self.books.let_expire();
        self.books.transfers().last().unwrap().timestamp
    }

    /// Imports a transfer with this time.
    fn import(&self, id: u128, debit: u128, amount: u128, at: u64) {
        let mut imported = transfer(id, debit, 1, amount, books::IMPORTED);
        if debit == 1 {
            imported = transfer(id, debit, 2, amount, books::IMPORTED);
        }
        imported.as_raw_mut().timestamp = at;
        self.books.post(&[imported]).unwrap();
    }

    fn ship(&self) {
        self.bed.run(&["logs", "asked"]).done();
    }

    /// Restores the end of the log and compares it with the cluster. Returns what is said to differ.
    #[track_caller]
    fn restored(&mut self) -> String {
        let moment = self.books.moment();
        self.ship();
        let original = self.books.transfers();
        let (file, report) = restore_at(&self.bed, "asked", &["--at", &spelled(moment.at)]);
        with_server(&file, |books| books::assert_replayed(books, &original, &moment));
        report["differences"].to_string()
    }
}

/// The expiry is in an earlier segment than the transfer that was imported with a time before it.
#[test]
fn an_import_before_an_expiry_that_was_shipped_restores() {
    let mut scene = scene();
    let at = scene.expired(2, 1, 5, 0);
    scene.ship();
    scene.import(3, 1, 7, at + 1000);
    let said = scene.restored();
    assert!(said.contains("1 of these voids are dated before"), "{said}");
    // A moment before the import: it is not there, whatever its own time is.
    let until = window(&scene.bed, "asked")["until_nanoseconds"].as_u64().unwrap();
    assert!(until > at);
}

/// The import uses what the expiry gave back.
#[test]
fn an_import_that_needs_an_expiry_restores() {
    let mut scene = scene();
    scene.ship();
    let at = scene.expired(2, 3, 10, 0);
    scene.import(3, 3, 10, at + 1000);
    let said = scene.restored();
    assert!(said.contains("1 imported transfers are dated before an expiry"), "{said}");
    // Between the import's time and the expiry: the cluster took the import later.
    let (_, report) = restore_at(&scene.bed, "asked", &["--at", &spelled(at + 2000)]);
    let said = report["differences"].to_string();
    assert!(said.contains("1 imported transfers are dated by this moment and left out"), "{said}");
}

/// The import uses an account that the expiry opened again.
#[test]
fn an_import_into_a_reopened_account_restores() {
    let mut scene = scene();
    let at = scene.expired(2, 1, 0, CLOSING_DEBIT);
    scene.import(3, 1, 4, at + 1000);
    scene.import(4, 3, 4, at + 2000);
    scene.restored();
}

/// Where no time is left for the expiry the log says so when it is shipped, and promises nothing beyond.
#[test]
fn what_cannot_be_replayed_is_said_when_it_is_shipped() {
    let mut scene = scene();
    let moment = scene.books.moment();
    scene.ship();
    let original = scene.books.transfers();
    let at = scene.expired(2, 3, 10, 0);
    scene.import(3, 3, 10, at + 1);
    let run = scene.bed.run(&["logs", "asked", "--json"]);
    assert_eq!(run.code, Some(3), "{} {}", run.stdout, run.stderr);
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    let said = report["gap"].as_str().unwrap();
    assert!(said.contains("no room") && said.contains("mode wal"), "{said}");
    let beyond = scene.books.moment();
    scene.bed.run(&["logs", "asked"]).done();
    let until = window(&scene.bed, "asked")["until_nanoseconds"].as_u64().unwrap();
    assert!((moment.at..at).contains(&until), "{until}");
    let words = ["restore", "asked", "--at", &spelled(beyond.at), "--to", "x", "--yes"];
    scene.bed.run(&words).failed(14, "is outside the restorable");
    let (file, _) = restore_at(&scene.bed, "asked", &["--at", &spelled(moment.at)]);
    with_server(&file, |books| books::assert_replayed(books, &original, &moment));
    scene.bed.run(&["verify", "asked", "--logs"]).done();
}

/// An account that is closed since it was created stays so; one that a transfer of nothing closed comes
/// back closed by that.
#[test]
fn an_account_that_was_created_closed_stays_closed() {
    let mut scene = scene();
    let account = |id: u128, flags: u16| {
        let mut account = Account::new(books::account_id(id), books::LEDGER, 5);
        account.as_raw_mut().flags = flags;
        account
    };
    scene.books.create(vec![account(4, CLOSED), account(5, 0)]);
    let closing = transfer(2, 5, 2, 0, PENDING | CLOSING_DEBIT);
    scene.books.post(&[closing]).unwrap();
    let before = scene.books.moment();
    std::thread::sleep(Duration::from_millis(5));
    let said = scene.restored();
    assert!(!said.contains("is open"), "{said}");
    let (file, _) = restore_at(&scene.bed, "asked", &["--at", &spelled(before.at)]);
    with_server(&file, |books| {
        assert!(books.post(&[transfer(9, 4, 2, 1, 0)]).is_err());
        assert!(books.post(&[transfer(10, 5, 2, 1, 0)]).is_err());
    });
}
