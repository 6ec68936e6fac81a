//! The way to a service, and what happens on it: an HTTP proxy that breaks what a plan says.
//!
//! It forwards whole requests, whose signatures stay valid, to one upstream. A test asserts that
//! every fault it planned was reached.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What happens to a request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// The service answers with this status and code, and has done nothing.
    Status(u16, &'static str),
    /// The connection breaks off before the service has seen the request.
    ResetBefore,
    /// The request stands still for this long, and then the connection breaks off.
    ResetLate(Duration),
    /// The service does as asked, and the connection breaks off before its answer.
    ResetAfter,
    /// The answer's body ends after so many bytes.
    Cut(usize),
    /// The answer's body stands still after so many bytes.
    Stall(usize),
    /// A bit of the first byte of the answer's body is wrong.
    Flip,
    /// The answer's body takes a while: a pause after so many bytes.
    Slow(usize, Duration),
    /// The service never sees this header.
    Without(&'static str),
    /// In the answer's body the second text stands wherever the first one should.
    Replace(&'static str, &'static str),
    /// So many blanks follow the answer's body.
    Pad(usize),
}

/// Which requests a fault happens to.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    /// Of this method.
    pub(crate) method: &'static str,
    /// With this in path or query.
    pub(crate) target: &'static str,
    /// Not to the first so many.
    pub(crate) skip: u32,
    /// To at most so many.
    pub(crate) times: u32,
    pub(crate) fault: Fault,
    met: u32,
}

impl Rule {
    /// A fault of the first `times` requests of this method with this in their target.
    pub(crate) fn new(
        method: &'static str,
        target: &'static str,
        times: u32,
        fault: Fault,
    ) -> Rule {
        Rule { method, target, skip: 0, times, fault, met: 0 }
    }

    /// The same, but `skip` requests later.
    pub(crate) fn after(self, skip: u32) -> Rule {
        Rule { skip, ..self }
    }
}

type Rules = Arc<Mutex<Vec<Rule>>>;
type Seen = Arc<Mutex<Vec<Head>>>;

/// A proxy in front of a service. It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    port: u16,
    rules: Rules,
    seen: Seen,
    ended: Arc<AtomicBool>,
}

impl Proxy {
    /// A proxy that forwards everything to `upstream` on loopback.
    pub(crate) fn before(upstream: u16) -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (rules, ended) = (Rules::default(), Arc::new(AtomicBool::new(false)));
        let (theirs, end, seen) = (Arc::clone(&rules), Arc::clone(&ended), Seen::default());
        let heads = Arc::clone(&seen);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if end.load(Ordering::Relaxed) {
                    return;
                }
                let (rules, end) = (Arc::clone(&theirs), Arc::clone(&end));
                let heads = Arc::clone(&heads);
                // A connection that fails on the way is what this is for.
                thread::spawn(move || drop(serve(client, upstream, (&rules, &heads), &end)));
            }
        });
        Proxy { port, rules, seen, ended }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Replaces what is planned.
    pub(crate) fn plan(&self, rules: &[Rule]) {
        *self.rules.lock().unwrap() = rules.to_vec();
    }

    /// The requests since the last time this was asked.
    pub(crate) fn seen(&self) -> Vec<Head> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }

    /// How many requests have met a rule.
    pub(crate) fn met(&self) -> u32 {
        self.rules.lock().unwrap().iter().map(|rule| rule.met).sum()
    }

    /// Everything that was planned has happened; from here on nothing is.
    #[track_caller]
    pub(crate) fn happened(&self) {
        let rules = std::mem::take(&mut *self.rules.lock().unwrap());
        for rule in rules {
            assert!(rule.met > rule.skip, "was never reached: {rule:?}");
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // Wakes the listener.
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)));
    }
}

/// A message of HTTP without its body.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    lines: Vec<String>,
}

impl Head {
    /// The next message; `None` where the connection ends.
    fn read(from: &mut BufReader<TcpStream>) -> io::Result<Option<Head>> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if from.read_line(&mut line)? == 0 {
                return Ok(None);
            }
            match line.trim_end() {
                "" => return Ok(Some(Head { lines })),
                line => lines.push(line.to_owned()),
            }
        }
    }

    pub(crate) fn first(&self) -> &str {
        &self.lines[0]
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.lines[1..].iter().filter_map(|line| line.split_once(':'));
        headers.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    fn without(&mut self, name: &str) {
        self.lines.retain(|line| {
            !line.split_once(':').is_some_and(|(found, _)| found.eq_ignore_ascii_case(name))
        });
    }

    fn bytes(&self) -> Vec<u8> {
        format!("{}\r\n\r\n", self.lines.join("\r\n")).into_bytes()
    }

    /// The body, whatever way its length is told.
    fn body(&self, from: &mut BufReader<TcpStream>) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        if self.header("transfer-encoding").is_some_and(|how| how.contains("chunked")) {
            loop {
                let mut line = String::new();
                from.read_line(&mut line)?;
                let length = usize::from_str_radix(line.trim().split(';').next().unwrap(), 16);
                let length = length.map_err(io::Error::other)?;
                let mut chunk = vec![0; length + 2];
                from.read_exact(&mut chunk)?;
                if length == 0 {
                    return Ok(body);
                }
                body.extend_from_slice(&chunk[..length]);
            }
        }
        let length = self.header("content-length").map_or(0, |length| length.parse().unwrap());
        body.resize(length, 0);
        from.read_exact(&mut body)?;
        Ok(body)
    }
}

/// The fault of this request, counted.
fn fault_of(rules: &Rules, head: &Head) -> Option<Fault> {
    let mut words = head.first().split(' ');
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let mut rules = rules.lock().unwrap();
    let rule = rules.iter_mut().find(|rule| {
        let meant = rule.method == method && target.contains(rule.target);
        meant && rule.met < rule.skip.saturating_add(rule.times)
    })?;
    rule.met += 1;
    (rule.met > rule.skip).then_some(rule.fault)
}

fn serve(
    client: TcpStream,
    upstream: u16,
    (rules, seen): (&Rules, &Seen),
    end: &AtomicBool,
) -> io::Result<()> {
    let mut to_client = client.try_clone()?;
    let mut from_client = BufReader::new(client);
    while let Some(mut head) = Head::read(&mut from_client)? {
        seen.lock().unwrap().push(head.clone());
        let fault = fault_of(rules, &head);
        if matches!(fault, Some(Fault::ResetBefore)) {
            // Closing with bytes unread resets the connection.
            return Ok(());
        }
        if let Some(Fault::ResetLate(after)) = fault {
            thread::sleep(after);
            return Ok(());
        }
        if head.header("expect").is_some() {
            to_client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            head.without("expect");
        }
        let body = head.body(&mut from_client)?;
        if let Some(Fault::Status(status, code)) = fault {
            let text = format!("<Error><Code>{code}</Code><Message>planned</Message></Error>");
            let is_bare = code.is_empty() || head.first().starts_with("HEAD");
            let text = if is_bare { "" } else { &text };
            let length = text.len();
            write!(
                to_client,
                "HTTP/1.1 {status} planned\r\ncontent-type: application/xml\r\ncontent-length: {length}\r\n\r\n{text}"
            )?;
            continue;
        }
        if let Some(Fault::Without(name)) = fault {
            head.without(name);
        }
        let (mut answer, mut body) = forward(&mut head, &body, upstream)?;
        match fault {
            Some(Fault::Replace(text, other)) => {
                body = String::from_utf8(body).unwrap().replace(text, other).into_bytes();
            }
            Some(Fault::Pad(blanks)) => body.resize(body.len() + blanks, b' '),
            _ => {}
        }
        if answer.header("content-length").is_some() && !head.first().starts_with("HEAD") {
            answer.without("content-length");
            answer.lines.push(format!("content-length: {}", body.len()));
        }
        if matches!(fault, Some(Fault::ResetAfter)) {
            return to_client.shutdown(Shutdown::Both);
        }
        to_client.write_all(&answer.bytes())?;
        if !send_body(&mut to_client, body, fault, end)? {
            return Ok(());
        }
    }
    Ok(())
}

/// Asks the service, on a connection of its own.
fn forward(head: &mut Head, body: &[u8], upstream: u16) -> io::Result<(Head, Vec<u8>)> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, upstream))?;
    // A client that was told of a proxy asks for whole URLs.
    if let Some((before, rest)) = head.first().split_once("http://") {
        let path = rest.find('/').map_or("/", |at| &rest[at..]);
        head.lines[0] = format!("{before}{path}");
    }
    head.without("connection");
    head.without("content-length");
    head.lines.push(format!("content-length: {}", body.len()));
    head.lines.push("connection: close".to_owned());
    stream.write_all(&head.bytes())?;
    stream.write_all(body)?;
    let mut from = BufReader::new(stream);
    let mut answer = loop {
        let answer = Head::read(&mut from)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        if !answer.first().contains(" 100 ") {
            break answer;
        }
    };
    let none = head.first().starts_with("HEAD") || answer.first().contains(" 204 ");
    let body = if none { Vec::new() } else { answer.body(&mut from)? };
    answer.without("connection");
    if !none {
        answer.without("transfer-encoding");
        answer.without("content-length");
        answer.lines.push(format!("content-length: {}", body.len()));
    }
    Ok((answer, body))
}

/// Sends a body, or what the fault leaves of it; false if the connection is to end.
fn send_body(
    to: &mut TcpStream,
    mut body: Vec<u8>,
    fault: Option<Fault>,
    end: &AtomicBool,
) -> io::Result<bool> {
    match fault {
        Some(Fault::Cut(bytes)) => {
            to.write_all(&body[..bytes.min(body.len())])?;
            return Ok(false);
        }
        Some(Fault::Stall(bytes)) => {
            to.write_all(&body[..bytes.min(body.len())])?;
            let mut gone = [0];
            to.set_read_timeout(Some(Duration::from_millis(100)))?;
            // Until the client hangs up or the test ends.
            while !end.load(Ordering::Relaxed) && !matches!(to.read(&mut gone), Ok(0)) {}
            return Ok(false);
        }
        Some(Fault::Flip) => {
            if let Some(first) = body.first_mut() {
                *first ^= 1;
            }
        }
        Some(Fault::Slow(bytes, pause)) => {
            for some in body.chunks(bytes) {
                to.write_all(some)?;
                thread::park_timeout(pause);
            }
            return Ok(true);
        }
        _ => {}
    }
    to.write_all(&body)?;
    Ok(true)
}
