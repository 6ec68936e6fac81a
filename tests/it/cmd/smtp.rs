//! E-mail to a real server: encrypted, authenticated, and never in the clear.

use std::fs;
use std::path::Path;

use crate::support::bed::{Bed, Run};
use crate::support::jobs::{SNAPSHOT, add, bed, hide};
use crate::support::smtp::Server;

fn notify(bed: &Bed, url: &str) {
    add(
        bed,
        &format!(
            "[notify.post]\nkind = \"email\"\nurl = \"{url}\"\nfrom = \"bkp@example.org\"\nto = [\"ops@example.org\"]\nuser = \"bkp\"\npassword = \"file:{}\"\n",
            bed.path("password").display()
        ),
    );
    fs::write(bed.path("password"), "swordfish").unwrap();
    bed.chmod("password", 0o600);
}

/// A failing run, with these authorities.
fn fail(bed: &Bed, authorities: Option<&Path>) -> Run {
    let mut command = bed.command(&["run", "nightly"]);
    if let Some(path) = authorities {
        command.env("SSL_CERT_FILE", path);
    }
    let run = Run::of(&command.output().unwrap());
    assert_eq!(run.code, Some(15), "{}{}", run.stdout, run.stderr);
    run
}

#[test]
fn mail_goes_encrypted_to_a_server_that_is_who_it_says() {
    let (folder, bed) = bed(&format!("{SNAPSHOT}retries = 0\n"));
    let server = Server::start(folder.path(), "speaks");
    notify(&bed, &format!("smtp://127.0.0.1:{}?tls=required", server.port));
    bed.run(&["run"]).done();
    let _back = hide(folder.path());
    // Nobody vouches for this server: nothing is said to it but that TLS is wanted.
    let run = fail(&bed, None);
    assert!(run.stderr.contains("could not notify `post`"), "{}", run.stderr);
    assert!(!run.stderr.contains("swordfish"), "{}", run.stderr);
    assert!(!folder.path().join("mail-2").exists());
    let ca = folder.path().join("ca.pem");
    let run = fail(&bed, Some(&ca));
    assert!(!run.stderr.contains("could not notify"), "{}", run.stderr);
    let mails = ["mail-1", "mail-2"].map(|name| fs::read_to_string(folder.path().join(name)));
    let [first, second] = mails.map(Result::unwrap);
    assert!(!first.contains("login") && !first.contains("MAIL"), "{first}");
    assert!(second.contains("tls login bkp swordfish"), "{second}");
    assert!(second.contains("tls RCPT TO:<ops@example.org>"), "{second}");
    assert!(second.contains("tls body critical: nightly"), "{second}");
    assert!(second.lines().all(|line| {
        !line.starts_with("clear") || line.contains("EHLO") || line.contains("STARTTLS")
    }));
}

#[test]
fn a_password_never_goes_in_the_clear_wherever_the_url_is_written() {
    let (folder, bed) = bed(&format!("{SNAPSHOT}retries = 0\n"));
    let server = Server::start(folder.path(), "speaks");
    let url = bed.path("mail-url");
    notify(&bed, &format!("file:{}", url.display()));
    bed.run(&["run"]).done();
    let _back = hide(folder.path());
    for wrong in [
        format!("smtp://127.0.0.1:{}", server.port),
        format!("smtps://bkp:swordfish@127.0.0.1:{}", server.port),
        "127.0.0.1 swordfish".to_owned(),
        "smtps://swordfish:x:y/swordfish".to_owned(),
    ] {
        fs::write(&url, &wrong).unwrap();
        bed.chmod("mail-url", 0o600);
        let run = fail(&bed, None);
        assert!(run.stderr.contains("could not notify `post`"), "{wrong}: {}", run.stderr);
        let host = run.stderr.replace("smtps://swordfish", "");
        assert!(!host.contains("swordfish"), "{wrong}: {}", run.stderr);
    }
    assert!(!folder.path().join("mail-1").exists(), "nothing was said to anybody");
}

#[test]
fn a_server_that_never_answers_ends_in_time() {
    let (folder, bed) = bed(&format!("{SNAPSHOT}retries = 0\n"));
    let server = Server::start(folder.path(), "silent");
    notify(&bed, &format!("smtp://127.0.0.1:{}?tls=required", server.port));
    bed.run(&["run"]).done();
    let _back = hide(folder.path());
    let run = fail(&bed, None);
    assert!(run.stderr.contains("could not notify `post`"), "{}", run.stderr);
}
