//! E-mail to a real server: encrypted, authenticated, and never in the clear.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::bed::{Bed, Run};
use crate::notify::hide;
use crate::run::{SNAPSHOT, add, bed};

/// A mail server in a page: STARTTLS with a certificate of our own, a login, and one file for every
/// message. With `silent` it greets nobody.
const SERVER: &str = r#"
import base64, socket, ssl, sys, threading
folder, mode = sys.argv[1], sys.argv[2]
listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen()
print(listener.getsockname()[1], flush=True)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(folder + "/server.pem", folder + "/server.key")
def converse(plain):
    kept, stream = [], plain.makefile("rwb")
    def say(text):
        stream.write(text.encode() + b"\r\n")
        stream.flush()
    say("220 test ESMTP")
    while True:
        line = stream.readline()
        if not line:
            return kept
        word = line.split()[0].upper()
        kept.append(("tls " if isinstance(plain, ssl.SSLSocket) else "clear ") + line.decode().strip())
        if word == b"EHLO":
            say("250-test")
            say("250 AUTH PLAIN" if isinstance(plain, ssl.SSLSocket) else "250 STARTTLS")
        elif word == b"STARTTLS":
            say("220 go on")
            stream.close()
            plain = context.wrap_socket(plain, server_side=True)
            stream = plain.makefile("rwb")
        elif word == b"AUTH":
            kept[-1] = "tls login " + base64.b64decode(line.split()[2]).decode().replace("\0", " ").strip()
            say("235 welcome")
        elif word == b"DATA":
            say("354 go on")
            while (line := stream.readline()) != b".\r\n":
                kept.append("tls body " + line.decode().strip())
            say("250 kept")
        elif word == b"QUIT":
            say("221 bye")
            return kept
        else:
            say("250 ok")
number = 0
while True:
    plain, _ = listener.accept()
    if mode == "silent":
        threading.Event().wait()
    try:
        kept = converse(plain)
    except (ssl.SSLError, OSError) as error:
        kept = ["broken " + str(error)]
    number += 1
    with open(f"{folder}/mail-{number}", "w") as file:
        file.write("\n".join(kept))
"#;

struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start(folder: &Path, mode: &str) -> Server {
        let make = [
            "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem",
            "req -newkey rsa:2048 -nodes -subj /CN=mail -addext subjectAltName=IP:127.0.0.1 -keyout server.key -out server.csr",
            "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -copy_extensions copy -out server.pem",
        ];
        for line in make {
            let words = line.split(' ');
            let output = Command::new("openssl").args(words).current_dir(folder).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        let mut command = Command::new("python3");
        command.arg("-c").arg(SERVER).arg(folder).arg(mode).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Server { port: line.trim().parse().unwrap(), child }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

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
