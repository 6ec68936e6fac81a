//! Mail servers: one in the clear, and one that wants encryption and a login.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

/// A server that speaks just enough SMTP, and keeps the messages.
pub(crate) fn mail_server() -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let kept = Arc::<Mutex<Vec<String>>>::default();
    let keep = Arc::clone(&kept);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let message = converse(stream.unwrap());
            keep.lock().unwrap().push(message);
        }
    });
    (port, kept)
}

pub(crate) fn converse(stream: TcpStream) -> String {
    let mut reader = BufReader::new(stream);
    let mut kept = String::new();
    let say = |reader: &mut BufReader<TcpStream>, text: &str| {
        reader.get_mut().write_all(format!("{text}\r\n").as_bytes()).unwrap();
    };
    say(&mut reader, "220 test");
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap() == 0 {
            return kept;
        }
        kept.push_str(&line);
        match line.split_whitespace().next().unwrap_or_default() {
            "DATA" => {
                say(&mut reader, "354 go on");
                loop {
                    let mut line = String::new();
                    reader.read_line(&mut line).unwrap();
                    if line == ".\r\n" {
                        break;
                    }
                    kept.push_str(&line);
                }
                say(&mut reader, "250 kept");
            }
            "QUIT" => {
                say(&mut reader, "221 bye");
                return kept;
            }
            _ => say(&mut reader, "250 ok"),
        }
    }
}

/// A mail server in a page: STARTTLS with a certificate of our own, a login, and one file for every
/// message. With `silent` it greets nobody.
pub(crate) const SERVER: &str = r#"
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

pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
}

impl Server {
    pub(crate) fn start(folder: &Path, mode: &str) -> Server {
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
