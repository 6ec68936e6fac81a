//! A server for hooks, pings and webhooks.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// A server that answers every HTTP request as it is told and keeps its path and body.
pub(crate) struct Web {
    port: u16,
    heard: Arc<Mutex<Vec<(String, String)>>>,
    pub(crate) answer: Arc<Mutex<&'static str>>,
}

impl Web {
    pub(crate) fn start() -> Web {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = Arc::<Mutex<Vec<(String, String)>>>::default();
        let answer = Arc::new(Mutex::new("200 OK"));
        let (keep, say) = (Arc::clone(&heard), Arc::clone(&answer));
        // It ends with the process.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let request = request(stream.unwrap(), *say.lock().unwrap());
                keep.lock().unwrap().push(request);
            }
        });
        Web { port, heard, answer }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }

    pub(crate) fn heard(&self) -> Vec<(String, String)> {
        std::mem::take(&mut *self.heard.lock().unwrap())
    }
}

pub(crate) fn request(stream: TcpStream, answer: &str) -> (String, String) {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
    }
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-length").then(|| value.parse::<usize>().unwrap())
    });
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).unwrap();
    let text = format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    reader.get_mut().write_all(text.as_bytes()).unwrap();
    let path = head.split(' ').nth(1).unwrap().to_owned();
    (path, String::from_utf8(body).unwrap())
}
