//! What a PostgreSQL server sends: whoever is between bkp and it, or in its place, writes that, and it is read in the
//! process that holds the keys.
//!
//! The first byte says what is asked of the server. The rest is what it answers, from the login on, or behind one that
//! lets everybody in.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{LazyLock, Mutex};
use std::thread;
use std::time::Duration;

use bkp::ctx::Ctx;
use bkp::source::postgres::client::{
    BackupOptions, Checkpoint, ClientError, Connection, Conninfo, Lsn, Purpose, Surroundings,
    WalEvent, WalStatus,
};
use tempfile::TempDir;

const LOGIN: u8 = 0;
const QUERY: u8 = 1;
const IDENTITY: u8 = 2;
const BACKUP: u8 = 3;
const LOG: u8 = 4;
const HISTORY: u8 = 5;

/// How long the client waits at most; a server that has said everything closes.
const SILENCE: Duration = Duration::from_secs(5);

/// A server that says what it is told to say, once to each client.
struct Server {
    folder: TempDir,
    /// What it is to say, and that it has.
    talk: Mutex<(Sender<Vec<u8>>, Receiver<()>)>,
}

static SERVER: LazyLock<Server> = LazyLock::new(|| {
    let folder = super::scratch();
    let listener = UnixListener::bind(folder.path().join(".s.PGSQL.5432")).unwrap();
    let (answers, next) = channel::<Vec<u8>>();
    let (tell, done) = channel();
    thread::spawn(move || {
        for answer in next {
            let (client, _) = listener.accept().unwrap();
            serve(client, &answer);
            drop(answer);
            tell.send(()).unwrap();
        }
    });
    Server { folder, talk: Mutex::new((answers, done)) }
});

/// Says everything, and hears the client out.
fn serve(mut client: UnixStream, answer: &[u8]) {
    // A client that has heard enough hangs up.
    let _said = client.write_all(answer).and_then(|()| client.shutdown(Shutdown::Write));
    let mut heard = [0; 4096];
    while client.read(&mut heard).is_ok_and(|count| count > 0) {}
}

pub(crate) fn run(data: &[u8]) {
    let Some((asked, said)) = data.split_first() else { return };
    let asked = asked % 6;
    // Whatever a server says, the worst is an error.
    let _refused = talk(asked, said);
}

/// Has a server answer what is asked of it.
fn talk(asked: u8, said: &[u8]) -> Result<(), ClientError> {
    let said = if asked == LOGIN { said.to_vec() } else { [&welcome(), said].concat() };
    let (answers, done) = &*SERVER.talk.lock().unwrap();
    answers.send(said).unwrap();
    let outcome = ask(asked);
    done.recv().unwrap();
    outcome
}

/// Everybody is let in, and the server waits for a command.
fn welcome() -> Vec<u8> {
    let version = message(b'S', b"server_version\x0017.10\0");
    [message(b'R', &[0; 4]), version, message(b'Z', b"I")].concat()
}

/// That the conversations of the seeds are understood: a fuzzer that gets no further than the login finds nothing.
pub(crate) fn understands_seeds() {
    for seed in seeds() {
        let (asked, said) = seed.split_first().unwrap();
        let outcome = talk(*asked, said);
        // The one question is answered, the next one with an error.
        let is_error = matches!(&outcome, Err(ClientError::Server(_)));
        assert!(
            *asked == LOGIN || outcome.is_ok() || (*asked == QUERY && is_error),
            "{asked} {outcome:?}"
        );
    }
}

fn ask(asked: u8) -> Result<(), ClientError> {
    let ctx = Ctx::fixed(super::now);
    let nothing = |_: &str| None;
    let surroundings = Surroundings { variable: &nothing, home: None, user: "bkp".into() };
    let text = format!("host={} password=secret", SERVER.folder.path().display());
    let conninfo = Conninfo::parse(&text, &surroundings).unwrap();
    let purpose = Purpose { replication: asked > QUERY, database: None, silence: SILENCE };
    let mut connection = Connection::connect(&conninfo, &purpose, &ctx)?;
    match asked {
        QUERY => {
            let sets = connection.query_sets("select")?;
            let columns = |row: &bkp::source::postgres::client::Row| row.get(0).map(str::len);
            let _lengths: Vec<_> = sets.iter().flat_map(|set| &set.rows).map(columns).collect();
            assert!(connection.is_ready());
            connection.query("select")?;
        }
        IDENTITY => {
            connection.identify_system()?;
            connection.read_replication_slot("bkp")?;
        }
        BACKUP => backup(&mut connection)?,
        LOG => log(&mut connection)?,
        HISTORY => {
            connection.timeline_history(2)?;
        }
        _ => {}
    }
    Ok(())
}

/// A base backup to its end, of which nothing is said to be a backup before the server says so.
fn backup(connection: &mut Connection) -> Result<(), ClientError> {
    let options = BackupOptions {
        label: "bkp".into(),
        checkpoint: Checkpoint::Fast,
        wal: true,
        verify_checksums: true,
        incremental: false,
        max_rate_kib: None,
    };
    let mut backup = connection.base_backup(&options)?;
    while backup.next_event()?.is_some() {}
    backup.finish()?;
    assert!(connection.is_ready());
    Ok(())
}

/// The log until the server ends it.
fn log(connection: &mut Connection) -> Result<(), ClientError> {
    let mut stream = connection.start_replication(Some("bkp"), Lsn(0), 1)?;
    loop {
        match stream.recv(SILENCE)? {
            Some(WalEvent::Xlog { start, bytes, .. }) => {
                let Lsn(start) = start;
                let at = Lsn(start.wrapping_add(bytes.len() as u64));
                stream.send_status(WalStatus { written: at, flushed: at, applied: at })?;
            }
            Some(WalEvent::Keepalive { .. }) => {}
            Some(WalEvent::TimelineEnd { .. } | WalEvent::Closed) | None => break,
        }
    }
    stream.stop()
}

/// A message: tag, length, body.
fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    [&[tag], &length[..], body].concat()
}

/// The columns of a result set.
fn columns(names: &[&str]) -> Vec<u8> {
    let count = u16::try_from(names.len()).unwrap().to_be_bytes();
    let column = |name: &&str| [name.as_bytes(), &[0; 19]].concat();
    message(b'T', &[&count[..], &names.iter().flat_map(column).collect::<Vec<_>>()].concat())
}

/// A row of texts and nulls.
fn row(values: &[Option<&str>]) -> Vec<u8> {
    let count = u16::try_from(values.len()).unwrap().to_be_bytes();
    let value = |value: Option<&str>| match value {
        Some(text) => {
            [&u32::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat()
        }
        None => vec![0xff; 4],
    };
    message(
        b'D',
        &[&count[..], &values.iter().copied().flat_map(value).collect::<Vec<_>>()].concat(),
    )
}

fn set(names: &[&str], rows: &[&[Option<&str>]]) -> Vec<u8> {
    let rows = rows.iter().flat_map(|values| row(values));
    [columns(names), rows.collect(), message(b'C', b"SELECT\0")].concat()
}

/// What is asked, and what the server says to it.
fn conversation(asked: u8, parts: &[&[u8]]) -> Vec<u8> {
    [&[asked], &parts.concat()[..]].concat()
}

/// Each kind of login, and conversations as a server has them.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let of = conversation;
    let logins = [
        of(LOGIN, &[&welcome()]),
        of(LOGIN, &[&message(b'R', b"\0\0\0\x03"), &welcome()]),
        of(LOGIN, &[&message(b'R', b"\0\0\0\x05abcd"), &welcome()]),
        of(
            LOGIN,
            &[
                &message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0"),
                &message(b'R', b"\0\0\0\x0br=nonce,s=c2FsdA==,i=4096"),
            ],
        ),
    ];
    logins.into_iter().chain(conversations()).collect()
}

fn conversations() -> Vec<Vec<u8>> {
    let ready = message(b'Z', b"I");
    let error = message(b'E', b"SERROR\0VERROR\0C58P01\0Mno such file\0\0");
    let notice = message(b'N', b"SWARNING\0VWARNING\0C01000\0Mwait\0\0");
    let identity = set(
        &["systemid", "timeline", "xlogpos", "dbname"],
        &[&[Some("7312489563028147712"), Some("1"), Some("1F/A0000028"), None]],
    );
    let slot = set(
        &["slot_type", "restart_lsn", "restart_tli"],
        &[&[Some("physical"), Some("0/3000000"), Some("1")]],
    );
    let position = set(&["recptr", "tli"], &[&[Some("0/3000028"), Some("1")]]);
    let spaces = set(
        &["spcoid", "spclocation", "size"],
        &[&[Some("16384"), Some("/srv/beside"), Some("10")], &[None, None, Some("20")]],
    );
    let data = |kind: u8, body: &[u8]| message(b'd', &[&[kind], body].concat());
    let xlog = data(b'w', &[&[0; 24][..], &[7; 64]].concat());
    let alive = data(b'k', &[&[0; 16][..], &[1]].concat());
    let next = set(&["next_tli", "next_tli_startpos"], &[&[Some("2"), Some("0/5000000")]]);
    let of = conversation;
    vec![
        of(QUERY, &[&notice, &set(&["a"], &[&[Some("1")], &[None]]), &ready, &error, &ready]),
        of(IDENTITY, &[&identity, &ready, &slot, &ready]),
        of(
            BACKUP,
            &[
                &position,
                &spaces,
                &message(b'H', &[0; 3]),
                &data(b'n', b"16384.tar\0/srv/beside\0"),
                &data(b'd', &[0; 512]),
                &data(b'n', b"base.tar\0\0"),
                &data(b'd', &[0; 1024]),
                &data(b'p', &[0; 8]),
                &data(b'm', b""),
                &data(b'd', b"{}"),
                &message(b'c', b""),
                &position,
                &message(b'C', b"SELECT\0"),
                &ready,
            ],
        ),
        of(
            LOG,
            &[
                &message(b'W', &[0; 3]),
                &xlog,
                &alive,
                &message(b'c', b""),
                &next,
                &message(b'C', b"START_STREAMING\0"),
                &ready,
            ],
        ),
        of(
            HISTORY,
            &[
                &set(&["filename", "content"], &[&[Some("00000002.history"), Some("1\t0/5\tx\n")]]),
                &ready,
            ],
        ),
    ]
}
