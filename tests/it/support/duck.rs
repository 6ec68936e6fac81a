//! Engines of DuckDB of other versions than the linked one (see `duck/engine.py`), and beds with a database.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use bkp::catalog::Catalog;
use bkp::domain::manifest::Manifest;
use bkp::pipeline::ObjectBuilder;
use bkp::stage::Compression;
use serde_json::Value;

use super::bed::{Bed, Run};
use super::s3::tool;

/// The engines that write, with a storage version each.
pub(crate) const WRITERS: [(&str, &str); 3] =
    [("1.5.6", "v1.0.0"), ("1.5.6", "v1.4.0"), ("2.0.0", "v2.0.0")];

pub(crate) fn rounds() -> usize {
    std::env::var("BKP_TEST_ROUNDS").map_or(6, |text| text.parse().unwrap())
}

pub(crate) fn engine(version: &str, words: &[&str]) -> Command {
    let mut command = Command::new(tool(&format!("duckdb-writer-{version}/bin/python")));
    command
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/support/duck/engine.py"))
        .args(words);
    command
}

/// Runs statements; returns the rows of the last one.
#[track_caller]
pub(crate) fn sql(version: &str, file: &Path, statements: &[&str]) -> Value {
    let words: Vec<&str> =
        ["sql", file.to_str().unwrap()].into_iter().chain(statements.iter().copied()).collect();
    let run = Run::of(&engine(version, &words).output().unwrap()).done();
    serde_json::from_str(&run.stdout).unwrap()
}

/// Runs statements and dies with the database open.
pub(crate) fn abandon(version: &str, file: &Path, statements: &[&str]) {
    let words: Vec<&str> =
        ["abandon", file.to_str().unwrap()].into_iter().chain(statements.iter().copied()).collect();
    let status = engine(version, &words).status().unwrap();
    assert_eq!(status.code(), None, "it died");
}

pub(crate) fn bed(file: &Path) -> Bed {
    bed_with(file, "")
}

pub(crate) fn bed_with(file: &Path, more: &str) -> Bed {
    Bed::of_source(&format!("[source.analytics]\nkind = \"duckdb\"\npath = {file:?}\n{more}\n"))
}

/// Takes a snapshot and returns its manifest.
#[track_caller]
pub(crate) fn snapshot(bed: &Bed, words: &[&str]) -> Value {
    let words: Vec<&str> = ["snapshot", "analytics"].iter().chain(words).copied().collect();
    bed.json(&words)["manifest"].clone()
}

#[track_caller]
pub(crate) fn restore(bed: &Bed, id: &str) -> PathBuf {
    let target = bed.path(&format!("restored-{id}.duckdb"));
    bed.run(&["restore", "--id", id, "--to", target.to_str().unwrap(), "--yes"]).done();
    target
}

/// A process that commits all the time.
pub(crate) struct Writer {
    child: Child,
    version: &'static str,
    file: PathBuf,
}

impl Writer {
    pub(crate) fn start(version: &'static str, storage: &str, file: &Path, rows: u32) -> Writer {
        let words = ["write", file.to_str().unwrap(), storage, &rows.to_string()];
        let child = engine(version, &words).stdin(Stdio::piped()).spawn().unwrap();
        let writer = Writer { child, version, file: file.to_owned() };
        writer.reach(5);
        writer
    }

    /// The number of the last commit.
    pub(crate) fn committed(&self) -> u64 {
        let text = fs::read_to_string(self.beside("committed")).unwrap_or_default();
        text.trim().parse().unwrap_or_default()
    }

    /// Waits until this many commits are done.
    pub(crate) fn reach(&self, commits: u64) {
        let began = Instant::now();
        while self.committed() < commits {
            assert!(began.elapsed() < Duration::from_mins(2), "the writer does not write");
            std::thread::yield_now();
        }
    }

    pub(crate) fn beside(&self, extension: &str) -> PathBuf {
        PathBuf::from(format!("{}.{extension}", self.file.display()))
    }

    /// Judges a restored file: it must hold a state between these commits.
    #[track_caller]
    pub(crate) fn judge(&self, restored: &Path, low: u64, high: u64) {
        let words = ["check", restored.to_str().unwrap(), &low.to_string(), &high.to_string()];
        Run::of(&engine(self.version, &words).output().unwrap()).done();
    }

    /// Ends it; nothing has ever failed in it.
    pub(crate) fn stop(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
        assert!(!self.beside("failed").exists());
    }
}

/// The version of the linked DuckDB.
pub(crate) fn linked() -> String {
    let versions = bkp::version::versions();
    versions.into_iter().find(|(name, _)| name == "DuckDB").unwrap().1
}

/// The version of the engine that writes and compares.
pub(crate) const V: &str = "1.5.6";

/// Exports and returns the manifest.
#[track_caller]
pub(crate) fn export(bed: &Bed, words: &[&str]) -> Value {
    let words: Vec<&str> = ["export", "analytics"].iter().chain(words).copied().collect();
    bed.json(&words)["manifest"].clone()
}

pub(crate) fn id(manifest: &Value) -> &str {
    manifest["id"].as_str().unwrap()
}

/// Everything in a database, in words.
#[track_caller]
pub(crate) fn dump(file: &Path) -> Value {
    let run = Run::of(&engine(V, &["dump", file.to_str().unwrap()]).output().unwrap()).done();
    serde_json::from_str(&run.stdout).unwrap()
}

/// Keys of the objects with a role.
pub(crate) fn objects<'m>(manifest: &'m Value, role: &str) -> Vec<&'m str> {
    let objects = manifest["objects"].as_array().unwrap().iter();
    let wanted = objects.filter(|object| object["role"] == role);
    wanted.map(|object| object["key"].as_str().unwrap()).collect()
}

/// Puts another index in the place of that of an export, sealed with the same key.
pub(crate) fn reindex(bed: &Bed, manifest: &Value, change: &dyn Fn(&mut Value)) {
    let app = bed.app(None);
    let (keys, store) = (app.keys().unwrap(), app.stores_append(None).unwrap());
    let path = bed.object(id(manifest), "manifest.json");
    let at = path.strip_prefix(bed.path("store")).unwrap().to_str().unwrap();
    let mut told = Manifest::parse(&fs::read(&path).unwrap(), at).unwrap();
    let name = told.name();
    let (reader, _) = Catalog::new(&store, &keys, &app.ctx).open(&name).unwrap();
    let read = reader.map(&app.ctx, &mut |input| Ok(serde_json::from_reader(input)?));
    let mut index: Value = read.unwrap();
    change(&mut index);
    let key = keys.providers()[0].unwrap(&told.keys[0], told.id).unwrap();
    let old = told.objects.iter_mut().find(|object| object.role == "map").unwrap();
    fs::remove_file(bed.path("store").join(&old.key)).unwrap();
    let builder = ObjectBuilder {
        store: &store,
        name: &name,
        key: &key,
        recipients: &told.keys,
        compression: Compression::None,
        retain_until: None,
        ctx: &app.ctx,
    };
    let bytes = serde_json::to_vec(&index).unwrap();
    *old = builder.map(&|out| out.write_all(&bytes)).unwrap().0;
    fs::write(&path, bkp::keys::manifest_mac::encode(told, &key).unwrap()).unwrap();
}

/// Hidden names in a folder.
pub(crate) fn hidden(folder: &Path) -> Vec<PathBuf> {
    let items = fs::read_dir(folder).into_iter().flatten().map(|item| item.unwrap().path());
    let is_hidden = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with('.');
    items.filter(is_hidden).collect()
}

/// A process that makes, changes and compares databases: see `duck/generate.py`.
pub(crate) struct Generator {
    child: Child,
    asked: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Generator {
    pub(crate) fn start() -> Generator {
        let script =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/support/duck/generate.py");
        let mut command = Command::new(tool("duckdb-writer-1.5.6/bin/python"));
        command.arg(script).arg("serve").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let asked = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Generator { child, asked, answers }
    }

    /// What it says to these words, which it has to do; `what` is for whoever reads of a failure.
    #[track_caller]
    pub(crate) fn ask(&mut self, words: &[&str], what: &str) {
        writeln!(self.asked, "{}", serde_json::to_string(words).unwrap()).unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        let (status, text): (i32, String) = serde_json::from_str(&line).unwrap();
        assert_eq!(status, 0, "{what}: {words:?}: {text}");
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        // Its end is of no matter: it has answered everything.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}
