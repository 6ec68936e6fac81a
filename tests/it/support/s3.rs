//! Real S3 services for tests, on loopback.
//!
//! No service checks everything, so there are two, and each property is tested on one that keeps
//! it: [`usual`] (`ministack`: conditional writes, encryption, classes, locks, tags, checksums of
//! parts) and [`strict`] (`s3s-fs`: signatures, sizes of parts, lengths of keys). `tests/run.sh`
//! gets both; without them these tests fail: a test that is skipped for want of a service must be
//! red.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail as tests do; clippy sees tests only in marked functions"
)]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bkp::store::StoreLocation;
use tempfile::TempDir;

pub(crate) mod proxy;

use super::ports;

/// The key id and the secret of every service here.
const KEY_ID: &str = "test";
const SECRET: &str = "testsecret";
/// How long a service may take until it answers, on a busy machine.
const READY: Duration = Duration::from_mins(2);
/// The bucket that every service has.
const BUCKET: &str = "backups";

/// A service that runs as long as this process.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) port: u16,
    folder: TempDir,
    /// Holds the pipe open until this process ends.
    _shell: Child,
}

/// The service that most properties are tested on.
pub(crate) fn usual() -> &'static Service {
    static SERVICE: OnceLock<Service> = OnceLock::new();
    SERVICE.get_or_init(|| {
        let service = Service::start(|port, folder| {
            let mut command = Command::new(tool("ministack/bin/ministack"));
            command.env("BIND_HOST", "127.0.0.1").env("GATEWAY_PORT", port.to_string());
            command.env("SERVICES", "s3,kms,sts").env("LOG_LEVEL", "WARNING");
            command.env("S3_PERSIST", "1").env("S3_DATA_DIR", folder);
            command
        });
        service.ask("PUT", &format!("/{BUCKET}"), &[]).done();
        service
    })
}

/// The service that checks signatures and limits.
pub(crate) fn strict() -> &'static Service {
    static SERVICE: OnceLock<Service> = OnceLock::new();
    SERVICE.get_or_init(|| {
        Service::start(|port, folder| {
            fs::create_dir(folder.join(BUCKET)).unwrap();
            let mut command = Command::new(tool("s3s/bin/s3s-fs"));
            command.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
            command.args(["--access-key", KEY_ID, "--secret-key", SECRET]);
            command.args(["--domain", "s3.test"]).arg(folder);
            command
        })
    })
}

/// The folder for what `examples/prepare.sh` gets, beside the build.
pub(crate) fn tools() -> PathBuf {
    let release = Path::new(env!("CARGO_BIN_EXE_bkp")).parent().unwrap();
    release.parent().unwrap().join("tools")
}

/// A program that `examples/prepare.sh` put there.
pub(crate) fn tool(path: &str) -> PathBuf {
    let tool = tools().join(path);
    assert!(tool.exists(), "{} is missing: run tests/run.sh, which gets it", tool.display());
    tool
}

/// Whatever is unique in this process.
pub(crate) fn number() -> u32 {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

impl Service {
    /// Starts a service and waits until it listens. It ends with this process, however that ends:
    /// its shell waits for the end of a pipe that only this process holds.
    pub(crate) fn start(command: impl Fn(u16, &Path) -> Command) -> Service {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        fs::create_dir(&data).unwrap();
        let port = ports::reserved();
        let server = command(port, &data);
        let mut shell = Command::new("sh");
        shell.args(["-c", "\"$@\" </dev/null & cat >/dev/null; kill $!", "sh"]);
        shell.arg(server.get_program()).args(server.get_args());
        for (name, value) in server.get_envs() {
            shell.env(name, value.unwrap());
        }
        let log = fs::File::create(folder.path().join("log")).unwrap();
        shell.stdin(Stdio::piped()).stdout(log.try_clone().unwrap()).stderr(log);
        let shell = shell.spawn().unwrap();
        let began = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            let log = || fs::read_to_string(folder.path().join("log")).unwrap();
            assert!(
                began.elapsed() < READY,
                "{:?} does not start: {}",
                server.get_program(),
                log()
            );
            std::thread::park_timeout(Duration::from_millis(20));
        }
        let credentials =
            format!("[default]\naws_access_key_id = {KEY_ID}\naws_secret_access_key = {SECRET}\n");
        fs::write(folder.path().join("credentials"), credentials).unwrap();
        Service { port, folder, _shell: shell }
    }

    /// The address that clients are told.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The credentials of the service.
    pub(crate) fn credentials(&self) -> PathBuf {
        self.folder.path().join("credentials")
    }

    /// The lines of a `[store.NAME]` table for a new, empty store of this service, reached at
    /// `endpoint`.
    pub(crate) fn table_at(&self, endpoint: &str, bucket: &str, more: &str) -> String {
        format!(
            "url = \"s3://{bucket}/test-{}\"\nendpoint = \"{endpoint}\"\ncredentials_file = {:?}\n{more}\n",
            number(),
            self.credentials()
        )
    }

    /// A new, empty store of this service.
    pub(crate) fn place(&self, bucket: &str, more: &str) -> StoreLocation {
        place(&self.table_at(&self.endpoint(), bucket, more))
    }

    /// A new, empty store that has a bucket for itself: the longest keys leave no room for a prefix.
    pub(crate) fn bucket(&self) -> StoreLocation {
        let name = format!("whole-{}", number());
        // The strict service wants a signature for that, but its buckets are folders.
        if !self.ask("PUT", &format!("/{name}"), &[]).is_done() {
            fs::create_dir(self.folder.path().join("data").join(&name)).unwrap();
        }
        let place = self.place(BUCKET, "");
        StoreLocation { url: format!("s3://{name}"), ..place }
    }

    /// Asks the service without signing: the usual one answers.
    pub(crate) fn ask(&self, method: &str, path: &str, headers: &[&str]) -> Answer {
        self.send(method, path, headers, "")
    }

    /// Posts a body without signing.
    pub(crate) fn post(&self, path: &str, headers: &[&str], body: &str) -> Answer {
        self.send("POST", path, headers, body)
    }

    /// Asks with a body, without signing.
    pub(crate) fn send(&self, method: &str, path: &str, headers: &[&str], body: &str) -> Answer {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        let headers = headers.iter().flat_map(|header| [*header, "\r\n"]).collect::<String>();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut text = Vec::new();
        stream.read_to_end(&mut text).unwrap();
        Answer(String::from_utf8_lossy(&text).into_owned())
    }
}

/// The store that a table describes.
pub(crate) fn place(table: &str) -> StoreLocation {
    let mut table: toml::Table = table.parse().unwrap();
    let url = table.remove("url").unwrap().as_str().unwrap().to_owned();
    StoreLocation { name: "store.test".to_owned(), url, table }
}

/// What a service answered: head and body.
#[derive(Debug)]
pub(crate) struct Answer(pub(crate) String);

impl Answer {
    #[track_caller]
    pub(crate) fn done(self) -> Answer {
        assert!(self.is_done(), "{}", self.0);
        self
    }

    pub(crate) fn body(&self) -> &str {
        self.0.split_once("\r\n\r\n").map_or("", |(_, body)| body)
    }

    fn is_done(&self) -> bool {
        self.0.starts_with("HTTP/1.1 2")
    }

    /// The value of a header, `None` if it is not there.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let head = self.0.split("\r\n\r\n").next()?;
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}
