//! A whole store in which somebody has planted objects who has no key: what commands make of it.
//!
//! The store has a snapshot and an increment of it. An input says which command runs, and what was
//! planted beside them: keys, each on a line, and what is under them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use bkp::cli;
use bkp::config::settings::Flags;
use bkp::config::{Environment, Settings};
use bkp::ctx::{Cancel, Ctx};
use bkp::domain::names::{BackupType, Scope};
use bkp::error::{Kind, diagnose};
use bkp::keys::{self, DataKey, manifest_mac};
use bkp::store::{ReadStore as _, is_key};
use bkp::wire::AppContext;
use serde_json::json;
use tempfile::TempDir;

use super::bytes::Bytes;
use super::chain::Made;
use super::memory::Memory;

const FULL: &str = "01935a3c-7a00-7abc-8def-0123456789ab";
const INCREMENT: &str = "01935a3c-7a01-7abc-8def-0123456789ab";

const CONFIG: &str = r#"
state_dir = "state"
[keys]
recipients = ["file:key"]
[source.books]
kind = "duckdb"
path = "books.duckdb"
[job.nightly]
run = "snapshot"
source = "books"
every = "6h"
retention = { keep_last = 1, min_keep = 1 }
[job.checked]
run = "verify"
source = "books"
every = "1d"
[job.tidy]
run = "cleanup"
every = "1d"
"#;

/// What an input can ask for. `cleanup` is the only one that removes anything.
const COMMANDS: &[&[&str]] = &[
    &["list"],
    &["list", "--long"],
    &["list", "--windows", "books"],
    &["status"],
    &["verify", "--all"],
    &["verify", "--all", "--level", "exists"],
    &["verify", "--id", INCREMENT],
    &["cleanup", "--dry-run"],
    &["cleanup"],
    &["run", "--dry-run"],
    &["pin", INCREMENT],
    &["unpin", FULL],
    &["note", FULL, "some words"],
    &["verify", "--logs", "books"],
];

/// The store as its owner made it.
struct Honest {
    folder: TempDir,
    app: AppContext,
    objects: Vec<(String, Vec<u8>)>,
}

static HONEST: LazyLock<Honest> = LazyLock::new(honest);

fn honest() -> Honest {
    let folder = super::scratch();
    let path = |name: &str| -> PathBuf { folder.path().join(name) };
    keys::file::generate(&path("key")).unwrap();
    let url = format!("[store.main]\nurl = \"file://{}\"\n", path("store").display());
    fs::write(path("bkp.toml"), [CONFIG, &url].concat()).unwrap();
    let key =
        keys::kinds::open(&format!("file:{}", path("key").display()), &Cancel::default()).unwrap();

    let store = Memory::default();
    let members = vec![("headers".to_owned(), vec![7; 100])];
    let record = json!({"mode": "online", "consistency": "transaction-consistent"});
    let mut made = Made::new(BackupType::Duckdb, record, members);
    for (id, scope) in [(FULL, Scope::Full), (INCREMENT, Scope::Incremental)] {
        (made.name.id, made.name.scope) = (id.parse().unwrap(), scope);
        let full = FULL.parse().unwrap();
        made.parent = (scope != Scope::Full).then_some((full, full));
        let data_key = DataKey::generate().unwrap();
        made.recipients = vec![key.wrap(&data_key, made.name.id, "books").unwrap()];
        let manifest = manifest_mac::encode(made.store(&store, &data_key), &data_key).unwrap();
        store.put(&made.name.manifest_key(), &manifest);
    }
    let keys: Vec<String> = store.list("").unwrap().map(|object| object.unwrap().key).collect();
    let read = |key: String| {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut store.open(&key, None).unwrap(), &mut bytes).unwrap();
        (key, bytes)
    };
    let flags = Flags { config: Some(path("bkp.toml")), ..Flags::default() };
    let settings = Settings::load(&flags, &Environment::default()).unwrap();
    let app = AppContext {
        settings,
        ctx: Ctx::fixed(super::now),
        confirm: Arc::new(|_| Ok(())),
        ask: Arc::new(|_, _| Ok(None)),
        layer: None,
    };
    Honest { folder, app, objects: keys.into_iter().map(read).collect() }
}

/// Puts an object where its key says, if that is a place for one.
fn plant(store: &Path, key: &str, bytes: &[u8]) {
    let path = store.join(key);
    if path.parent().is_some_and(|folder| fs::create_dir_all(folder).is_ok()) && !path.exists() {
        let _no_place = fs::write(path, bytes);
    }
}

/// Whatever was planted, a command ends with a report or with an error of a kind that says what is wrong;
/// the honest backups are listed and verified as before, and nothing of them is removed.
pub(crate) fn run(data: &[u8]) {
    let Honest { folder, app, objects } = &*HONEST;
    let (store, state) = (folder.path().join("store"), folder.path().join("state"));
    for folder in [&store, &state] {
        let _absent = fs::remove_dir_all(folder);
    }
    fs::create_dir(&store).unwrap();
    for (key, bytes) in objects {
        plant(&store, key, bytes);
    }
    let mut input = Bytes(data);
    let words = COMMANDS[input.number::<1>() % COMMANDS.len()];
    while !input.0.is_empty() {
        let key = String::from_utf8_lossy(input.line()).into_owned();
        let count = input.number::<2>();
        let bytes = input.take(count);
        if is_key(&key) {
            plant(&store, &key, bytes);
        }
    }
    let arguments = ["bkp"].iter().chain(words).map(Into::into);
    let Ok(cli) = cli::parse(arguments) else { panic!("{words:?} is no command") };
    let outcome = cli.run(app);
    match &outcome {
        Ok(report) => {
            assert!(report.value.get("schema").is_some(), "{}", report.value);
            if words.first() == Some(&"list") && words.len() < 3 {
                let listed = report.value.to_string();
                assert!(listed.contains(FULL) && listed.contains(INCREMENT), "{listed}");
            }
        }
        Err(error) => {
            let found = diagnose(error);
            assert_ne!(found.kind, Kind::Failed, "{words:?}: {error:#}");
            assert!(!found.hint.is_empty());
        }
    }
    if words.contains(&"--id") {
        let report = outcome.unwrap_or_else(|error| panic!("not verified: {error:#}"));
        assert_eq!(report.outcome, None, "{}", report.text);
    }
    for (key, bytes) in objects {
        let found = fs::read(store.join(key));
        assert!(found.is_ok_and(|found| found == *bytes), "{words:?} took {key}");
    }
}

/// One of each object that bkp writes beside backups, under every command.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let day = "duckdb/books/full/2024/11/23/duckdb-snapshot-";
    let other = "01935a3c-7a02-7abc-8def-0123456789ab";
    let said = |word: &str| {
        format!(
            r#"{{"schema":"bkp.mark/1","word":"{word}","at":"2026-11-21T12:00:00Z","host":"there","process":7,"note":"some words","level":"digest"}}"#
        )
    };
    let term = r#"{"schema":"bkp.lease/1","job":"cleanup.all","run":"01935a3c-7a00-7abc-8def-0123456789ab","host":"there","process":4711,"place":"00000000deadbeef","begun":"2026-11-22T11:59:30Z","until":"2026-11-22T12:01:30Z"}"#;
    let manifest = Honest::manifest(&HONEST, FULL).replace(FULL, other);
    let run = "01935a3c-7a00-7abc-8def-0123456789ab";
    let planted = [
        (format!("{day}{FULL}.pin-0001.json"), said("pin")),
        (format!("{day}{FULL}.unpin-65535.json"), String::new()),
        (format!("{day}{FULL}.note-0001.json"), said("note")),
        (format!("{day}{FULL}.damaged-0001.json"), said("damaged")),
        (format!("{day}{FULL}.sound-0002.json"), said("sound")),
        (format!("{day}{FULL}.deleting.json"), "{}".into()),
        (format!("{day}{FULL}.wrapped-0001.json"), r#"{"schema":"bkp.wrapped/1"}"#.into()),
        (format!("{day}{other}.manifest.json"), manifest),
        (format!("{day}{other}.tar.enc"), "BKPSEAL1".into()),
        ("leases/cleanup.all/00000000000000000001".into(), term.into()),
        ("leases/books/18446744073709551615".into(), term.into()),
        (format!("runs/nightly/2024/11/{run}-0-12.json"), r#"{"schema":"bkp.run/1"}"#.into()),
        (
            format!("audit/2024/11/23/deleted-{run}-120000.json"),
            r#"{"schema":"bkp.audit/1"}"#.into(),
        ),
    ];
    let object = |(key, text): &(String, String)| {
        let count = u16::try_from(text.len()).unwrap().to_le_bytes();
        [key.as_bytes(), b"\n", &count, text.as_bytes()].concat()
    };
    let all: Vec<u8> = planted.iter().flat_map(object).collect();
    let commands = 0..u8::try_from(COMMANDS.len()).unwrap();
    let mut seeds: Vec<Vec<u8>> = commands.map(|command| [&[command], &all[..]].concat()).collect();
    seeds.extend(planted.iter().map(|one| [vec![1], object(one)].concat()));
    seeds
}

impl Honest {
    /// The text of the manifest of one of its backups.
    fn manifest(&self, id: &str) -> String {
        let is_it = |key: &str| key.contains(id) && key.ends_with(".manifest.json");
        let found = self.objects.iter().find(|(key, _)| is_it(key));
        String::from_utf8(found.unwrap().1.clone()).unwrap()
    }
}
