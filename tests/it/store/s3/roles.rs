//! The policies of `examples/aws` in an account where policies hold: what each role does with bkp, and what a thief with
//! its credentials could do.

use std::fs;
use std::sync::OnceLock;

use serde_json::Value;

use crate::support::bed::{Bed, Run};
use crate::support::iam::Account;
use crate::support::{sealed, tb};

fn account() -> &'static Account {
    static ACCOUNT: OnceLock<Account> = OnceLock::new();
    ACCOUNT.get_or_init(Account::start)
}

/// A bed whose backups go to the bucket in parts, for the key of the account.
fn bed() -> Bed {
    let folder = tempfile::tempdir().unwrap().keep();
    let server = tb::Server::solo(&folder);
    tb::fill(server.address(), &folder.join("record"), 1000, 100_000);
    let bed = Bed::with(&server.stop(), "", "compression = \"none\"");
    let endpoint = account().service.endpoint();
    // moto tells checksums of parts in a form of its own.
    bed.store_is(&format!(
        "url = \"s3://acme-backups/prod\"\nregion = \"eu-central-1\"\nendpoint = \"{endpoint}\"\npart_mib = 5\nheld_mib = 0\nchecksum = \"when-required\"\n"
    ));
    let job = "[job.books]\nrun = \"snapshot\"\nsource = \"books\"\nretention = { keep_last = 1, min_keep = 1 }\n";
    let config = fs::read_to_string(bed.path("bkp.toml")).unwrap();
    fs::write(bed.path("bkp.toml"), config + job).unwrap();
    bed.recipients_are(&[&account().recipient()]);
    bed
}

fn act_as(bed: &Bed, role: &str) {
    fs::create_dir_all(bed.path(".aws")).unwrap();
    fs::write(bed.path(".aws/credentials"), account().profile(role)).unwrap();
}

#[test]
fn every_role_does_its_work_and_no_more() {
    let bed = bed();
    act_as(&bed, "append");
    let doctor = bed.run(&["doctor"]).done();
    let cannot =
        "these credentials cannot overwrite, delete or remove the former versions of backups";
    assert!(doctor.stdout.contains(cannot), "{}", doctor.stdout);
    assert!(doctor.stdout.contains("may not unwrap it"), "{}", doctor.stdout);
    bed.snapshot("full");
    let id = bed.snapshot("full");
    // It cannot open what it made, so it cannot build on it either.
    bed.run(&["verify", "--id", &id, "--level", "decode"]).failed(12, "AccessDenied");
    bed.run(&["restore", "--id", &id, "--to", "x", "--yes"]).failed(12, "AccessDenied");
    assert!(doctor.stdout.contains("needs a `signing_key`"), "{}", doctor.stdout);
    let again = bed.json(&["snapshot", "books"]);
    assert_eq!(again["manifest"]["scope"], "full", "{again}");

    act_as(&bed, "read");
    bed.run(&["verify", "--id", &id, "--level", "decode"]).done();
    bed.restore(&id);
    bed.run(&["snapshot", "books"]).failed(16, "AccessDenied");

    act_as(&bed, "read-mfa");
    bed.run(&["list"]).failed(16, "AccessDenied");
    act_as(&bed, "read-with-mfa");
    bed.restore_again(&id);

    act_as(&bed, "prune");
    bed.run(&["restore", "--id", &id, "--to", "x", "--yes"]).failed(12, "AccessDenied");
    // Nobody proves to it which backups are authentic, so nothing goes, and nothing counts.
    let kept = bed.json(&["cleanup"]);
    assert_eq!(kept["stores"][0]["removed"], 0, "{kept}");
    // With the ledger it is told so; with neither it believes the bucket, and says so.
    bed.recipients_are(&[]);
    let run = bed.run(&["cleanup"]).done();
    assert!(run.stderr.contains("neither a key nor a ledger is available"), "{}", run.stderr);
    assert_eq!(bed.json(&["list"])["backups"].as_array().unwrap().len(), 1, "{}", run.stdout);
    builds_on_what_it_signed(&bed);
}

/// With a signing key a host that may not open its backups knows which ones it made.
fn builds_on_what_it_signed(bed: &Bed) {
    act_as(bed, "append");
    sealed::generate(bed, "--signing", "signing.key");
    let recipients = [account().recipient()];
    let lines = format!("recipients = {recipients:?}\nsigning_key = \"file:signing.key\"");
    let signed =
        |words: &[&str]| Run::of(&sealed::on(bed, "signer", &lines, words).output().unwrap());
    let doctor = signed(&["doctor"]).done();
    assert!(doctor.stdout.contains("may not unwrap it"), "{}", doctor.stdout);
    assert!(!doctor.stdout.contains("needs a `signing_key`"), "{}", doctor.stdout);
    for scope in ["full", "incremental"] {
        let run = signed(&["snapshot", "books", "--json"]).done();
        let made: Value = serde_json::from_str(&run.stdout).unwrap();
        assert_eq!(made["manifest"]["scope"], scope, "{made}");
    }
}

#[test]
fn what_a_thief_could_do_with_each_role() {
    let account = Account::start();
    let adds = ["add", "add in parts"];
    for (role, expected) in [
        ("append", [&adds[..], &["list", "make a data key", "read"]].concat()),
        ("read", vec!["decrypt", "list", "read"]),
        ("read-mfa", vec![]),
        ("read-with-mfa", vec!["decrypt", "list", "read"]),
        // Who may do anything in the account, but is none of these roles.
        (
            "other",
            [
                &["add", "add elsewhere", "add in parts"][..],
                &["list", "list what is not bkp's", "read"],
            ]
            .concat(),
        ),
        // Last, since it removes what the others try.
        ("prune", [&adds[..1], &["delete", "delete version", "list", "read"]].concat()),
    ] {
        let mut can = account.can_do(role);
        can.sort();
        assert_eq!(can, expected, "{role}");
    }
}
