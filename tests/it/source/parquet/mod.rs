//! Replicas of a folder: what comes back is what was there, whoever writes meanwhile, and other programs read it.
//!
//! `BKP_TEST_ROUNDS` sets how often a replica is taken from under writers (default 6).

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use bkp::cmd::{restore, snapshot};
use bkp::domain::backup_kind::BackupKind;
use bkp::error::diagnose;
use bkp::ops::selection::Select;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::bed::{Bed, Run};
use crate::support::s3::tool;

mod changing;
mod faults;

fn rounds() -> usize {
    std::env::var("BKP_TEST_ROUNDS").map_or(6, |text| text.parse().unwrap())
}

/// A folder, and a bed whose source `tier` it is.
struct Tier {
    folder: tempfile::TempDir,
    bed: Bed,
}

impl Tier {
    fn new(more: &str) -> Tier {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let table = format!("[source.tier]\nkind = \"parquet\"\npath = {path:?}\n{more}\n");
        Tier { bed: Bed::of_source(&table), folder }
    }

    /// Of files of any kind.
    fn of_any() -> Tier {
        Tier::new("files = [\"**/*\"]")
    }

    fn write(&self, path: impl AsRef<OsStr>, content: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn path(&self, path: impl AsRef<OsStr>) -> PathBuf {
        self.folder.path().join(path.as_ref())
    }

    fn remove(&self, path: &str) {
        fs::remove_file(self.path(path)).unwrap();
    }

    /// Takes a replica and returns its manifest.
    #[track_caller]
    fn replicate(&self) -> Value {
        self.bed.json(&["replicate", "tier"])["manifest"].clone()
    }

    #[track_caller]
    fn restore(&self, words: &[&str]) -> Files {
        let target = self.bed.path("restored");
        let _none = fs::remove_dir_all(&target);
        let words = [&["restore", "--yes", "--to", target.to_str().unwrap()], words].concat();
        self.bed.run(&words).done();
        files(&target)
    }

    fn files(&self) -> Files {
        files(self.folder.path())
    }
}

/// Every file below a folder, with its content and when it was modified.
type Files = BTreeMap<PathBuf, (Vec<u8>, SystemTime)>;

fn files(folder: &Path) -> Files {
    let mut found = Files::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(at) = folders.pop() {
        for item in fs::read_dir(at).unwrap() {
            let item = item.unwrap();
            let kind = item.file_type().unwrap();
            if kind.is_dir() {
                folders.push(item.path());
            } else if kind.is_file() {
                let path = item.path().strip_prefix(folder).unwrap().to_owned();
                let modified = item.metadata().unwrap().modified().unwrap();
                found.insert(path, (fs::read(item.path()).unwrap(), modified));
            }
        }
    }
    found
}

fn id(manifest: &Value) -> &str {
    manifest["id"].as_str().unwrap()
}

/// A run that made a backup of a part, and names what is missing.
#[track_caller]
fn partly(run: &Run, missing: &str) {
    assert_eq!(run.code, Some(3), "{}", run.stderr);
    assert!(run.stderr.contains("missing from the backup: "), "{}", run.stderr);
    assert!(run.stderr.contains(missing), "{}", run.stderr);
}

/// Lets a file be one of yesterday.
fn age(path: &Path) {
    let yesterday = SystemTime::now() - Duration::from_hours(24);
    fs::File::options().append(true).open(path).unwrap().set_modified(yesterday).unwrap();
}

/// Writes Parquet files with DuckDB: `rows` rows each.
fn write_parquet(paths: &[PathBuf], rows: u32) {
    let script = "
import duckdb, sys
for path in sys.argv[2:]:
    duckdb.sql(f\"COPY (SELECT range AS id, 'x' || range AS name, range / 3 AS v FROM range({sys.argv[1]})) TO '{path}' (FORMAT parquet)\")";
    let python = tool("duckdb-writer-1.5.6/bin/python");
    let mut command = Command::new(python);
    command.args(["-c", script, &rows.to_string()]).args(paths);
    Run::of(&command.output().unwrap()).done();
}

/// Sums of a column, as pyarrow and as DuckDB read it.
fn sums(paths: &[PathBuf]) -> [Vec<u64>; 2] {
    let scripts = [
        (
            "pyarrow/bin/python",
            "import pyarrow.parquet as p, pyarrow.compute as c, sys\nfor f in sys.argv[1:]: print(c.sum(p.read_table(f)['id']))",
        ),
        (
            "duckdb-writer-2.0.0/bin/python",
            "import duckdb, sys\nfor f in sys.argv[1:]: print(duckdb.connect().execute(f\"SELECT sum(id) FROM read_parquet('{f}')\").fetchone()[0])",
        ),
    ];
    scripts.map(|(python, script)| {
        let output = Command::new(tool(python)).args(["-c", script]).args(paths).output().unwrap();
        let run = Run::of(&output).done();
        run.stdout.lines().map(|line| line.parse().unwrap()).collect()
    })
}

#[test]
fn every_state_comes_back_with_odd_names_and_times() {
    let tier = Tier::of_any();
    let odd = OsStr::from_bytes(b"a b/\xff\xfe\n\"'$(x)");
    tier.write("one", "1");
    tier.write("2026/11/two", "two");
    tier.write(odd, "odd");
    tier.write("empty", "");
    let long = "x".repeat(255);
    tier.write(&long, "long");
    let full = tier.replicate();
    assert_eq!((&full["scope"], &full["kind"]), (&json!("full"), &json!("replica")));
    assert_eq!(full["capture"]["files"], 5);
    let mut states = vec![(id(&full).to_owned(), tier.files())];
    // Replaced, deleted, new, renamed, a folder in the place of a file.
    tier.write("one", "uno");
    tier.remove("2026/11/two");
    tier.write("2026/12/three", "three");
    fs::rename(tier.path(odd), tier.path("renamed")).unwrap();
    tier.remove("empty");
    tier.write("empty/not", "any more");
    let next = tier.replicate();
    assert_eq!(next["scope"], "incremental");
    assert_eq!(next["capture"]["copied"], 3, "a renamed file is not copied again: {next}");
    assert_eq!(next["capture"]["deleted"], 3);
    states.push((id(&next).to_owned(), tier.files()));
    let same = tier.replicate();
    assert_eq!(same["capture"]["copied"], 0);
    states.push((id(&same).to_owned(), tier.files()));
    for (id, files) in &states {
        assert!(tier.restore(&["--id", id]) == *files, "{id}");
    }
    let stored = tier.bed.stored();
    let names_it = |path: &PathBuf| path.to_string_lossy().contains("three");
    assert!(!stored.iter().any(names_it), "a key tells the name of a sealed file");
    // By time, and the newest.
    assert!(tier.restore(&["tier", "--at", full["ended"].as_str().unwrap()]) == states[0].1);
    assert!(tier.restore(&["tier"]) == states[2].1);
    tier.bed.run(&["verify", "tier", "--level", "decode"]).done();
    let drilled = tier.bed.json(&["verify", "tier", "--level", "drill"]);
    assert_eq!(drilled["drill"]["compared"], "equal");
}

#[test]
fn only_what_is_asked_for_comes_back() {
    let tier = Tier::of_any();
    for path in ["a.parquet", "2025/a.parquet", "2026/a.parquet", "2026/01/a.parquet", "2026/x"] {
        age_after(&tier, path);
    }
    partly(&tier.bed.run(&["replicate", "tier"]), "it was copied unchanged");
    let names = |words: &[&str]| -> Vec<String> {
        let words = [&["tier"], words].concat();
        tier.restore(&words).into_keys().map(|path| path.display().to_string()).collect()
    };
    assert_eq!(names(&["--file", "2026/*"]), ["2026/a.parquet", "2026/x"]);
    assert_eq!(names(&["--file", "2026/**"]), ["2026/01/a.parquet", "2026/a.parquet", "2026/x"]);
    assert_eq!(
        names(&["--file", "a.parquet", "--file", "2025/*"]),
        ["2025/a.parquet", "a.parquet"]
    );
    let to = tier.bed.path("none");
    let words = ["restore", "tier", "--yes", "--to", to.to_str().unwrap(), "--file"];
    tier.bed.run(&[&words[..], &["a"]].concat()).failed(2, "no file of this replica matches");
    assert_eq!(names(&["--file", "./2025/"]), ["2025/a.parquet"]);
    tier.bed.run(&[&words[..], &["{a"]].concat()).failed(2, "{a");
    assert!(!to.exists());
}

fn age_after(tier: &Tier, path: &str) {
    tier.write(path, path);
    age(&tier.path(path));
}

/// Plain files in a store are what any program reads; sealed ones are nothing but noise.
#[test]
fn foreign_readers_read_replicas_where_they_are_and_after_a_restore() {
    for (encryption, is_plain) in [("none", true), ("aes256-gcm", false)] {
        let tier = Tier::new(&format!("encryption = \"{encryption}\""));
        let paths: Vec<PathBuf> = (0..3).map(|n| tier.path(format!("{n}.parquet"))).collect();
        for (path, rows) in paths.iter().zip([50_000, 40_000, 30_000]) {
            write_parquet(std::slice::from_ref(path), rows);
        }
        let of = [50_000_u64, 40_000, 30_000].map(|rows| rows * (rows - 1) / 2).to_vec();
        let expected = [of.clone(), of];
        assert_eq!(sums(&paths), expected);
        let replica = tier.replicate();
        assert_eq!(replica["capture"]["rows"], 120_000);
        let objects = replica["objects"].as_array().unwrap();
        let data = objects.iter().filter(|object| object["role"] == "data");
        let keys: Vec<PathBuf> = data
            .map(|object| tier.bed.path("store").join(object["key"].as_str().unwrap()))
            .collect();
        assert_eq!(keys.len(), 3);
        if is_plain {
            assert_eq!(sums(&keys), expected);
        } else {
            assert!(!fs::read(&keys[0]).unwrap().windows(4).any(|bytes| bytes == b"PAR1"));
        }
        tier.restore(&["tier"]);
        let restored: Vec<PathBuf> =
            (0..3).map(|n| tier.bed.path("restored").join(format!("{n}.parquet"))).collect();
        assert_eq!(sums(&restored), expected);
        let drilled = tier.bed.json(&["verify", "tier", "--level", "drill"]);
        let found = &drilled["drill"]["checks"][1]["found"];
        assert_eq!(found, "3 files, 120000 rows, every page read");
    }
}

/// More objects than a manifest has room for.
#[test]
fn ten_thousand_files_are_ten_thousand_objects() {
    let tier = Tier::of_any();
    for n in 0..10_000 {
        tier.write(format!("{}/{n}", n % 100), format!("file {n}"));
    }
    let replica = tier.replicate();
    assert_eq!(replica["capture"]["copied"], 10_000);
    let objects = replica["objects"].as_array().unwrap();
    let list = objects.iter().find(|object| object["role"] == "objects").expect("a list");
    assert!(objects.len() < 2_000);
    let stored = tier.bed.stored();
    assert!(stored.len() > 10_000);
    let sizes: u64 = stored
        .iter()
        .filter(|path| path.to_string_lossy().contains(id(&replica)))
        .map(|path| fs::metadata(path).unwrap().len())
        .sum();
    let listed = list["bytes"].as_u64().unwrap();
    let manifest = fs::metadata(tier.bed.object(id(&replica), "manifest.json")).unwrap().len();
    assert_eq!(replica["sizes"]["stored_bytes"].as_u64().unwrap(), sizes - listed - manifest);
    let again = tier.replicate();
    assert_eq!((&again["capture"]["copied"], &again["scope"]), (&json!(0), &json!("incremental")));
    assert!(tier.restore(&["tier"]) == tier.files());
    tier.bed.run(&["verify", "tier", "--level", "digest"]).done();
    // What the manifest does not name itself is missed all the same.
    let victim = stored.iter().find(|path| path.to_string_lossy().contains(".09000.enc")).unwrap();
    let content = fs::read(victim).unwrap();
    fs::remove_file(victim).unwrap();
    tier.bed.run(&["verify", "tier", "--level", "exists"]).failed(13, "is missing");
    fs::write(victim, content).unwrap();
    tier.bed.run(&["verify", "tier", "--level", "exists"]).done();
    let list = tier.bed.path("store").join(list["key"].as_str().unwrap());
    fs::remove_file(list).unwrap();
    tier.bed.run(&["verify", "tier", "--level", "exists"]).failed(13, "objects.json");
}

/// Runs that build on each other for a long time restore every state that is kept, and no chain is long.
#[test]
fn a_chain_stays_short_and_its_base_is_copied_once() {
    let tier = Tier::of_any();
    tier.write("base", vec![7; 3 << 20]);
    let base = tier.replicate();
    let mut states = Vec::new();
    for run in 0..60 {
        tier.write(format!("{run}"), format!("run {run}").repeat(1 + run % 3));
        let made = tier.replicate();
        assert_eq!((&made["scope"], &made["base"]), (&json!("incremental"), &base["id"]), "{run}");
        assert!(made["capture"]["copied_bytes"].as_u64().unwrap() < 1 << 20, "{made}");
        let verified = tier.bed.json(&["verify", "--id", id(&made), "--level", "exists"]);
        assert!(verified["chain"].as_array().unwrap().len() <= 29, "{run}: {verified}");
        states.push((id(&made).to_owned(), run));
    }
    for (id, run) in states.iter().step_by(7).chain(states.last()) {
        let restored = tier.restore(&["--id", id]);
        assert_eq!(restored.len(), run + 2);
    }
    assert!(tier.restore(&["tier"]) == tier.files());
}

#[test]
fn a_file_that_its_writer_has_not_ended_is_taken_by_the_next_run() {
    let tier = Tier::new("");
    let whole = tier.path("whole.parquet");
    write_parquet(std::slice::from_ref(&whole), 1_000);
    let bytes = fs::read(&whole).unwrap();
    tier.write("going.parquet", &bytes[..bytes.len() / 2]);
    tier.write("ignored.csv", "1,2");
    let run = tier.bed.run(&["replicate", "tier"]).done();
    assert!(run.stderr.contains("`going.parquet` is still being written"), "{}", run.stderr);
    assert_eq!(tier.restore(&["tier"]).len(), 1);
    tier.write("going.parquet", &bytes);
    assert_eq!(tier.replicate()["capture"]["copied"], 0, "the same content is held already");
    assert_eq!(tier.restore(&["tier"]).len(), 2);
    // One that nobody will end is damage, and copied as it is.
    tier.write("broken.parquet", &bytes[..bytes.len() - 3]);
    age(&tier.path("broken.parquet"));
    partly(&tier.bed.run(&["replicate", "tier"]), "a valid Parquet file `broken.parquet`");
    // It is named once.
    tier.bed.run(&["replicate", "tier"]).done();
    assert_eq!(tier.restore(&["tier"]).len(), 3);
    tier.bed.run(&["verify", "tier", "--level", "drill"]).done();
}

/// Whoever can write to the folder cannot have anything else copied, or a replica ended by a pipe.
#[test]
fn nothing_outside_of_the_folder_is_read() {
    let tier = Tier::of_any();
    let secret = tier.bed.path("secret");
    fs::write(&secret, "a secret").unwrap();
    tier.write("file", "1");
    std::os::unix::fs::symlink(&secret, tier.path("link")).unwrap();
    std::os::unix::fs::symlink(secret.parent().unwrap(), tier.path("folder")).unwrap();
    let made = Command::new("mkfifo").arg(tier.path("pipe")).status().unwrap();
    assert!(made.success());
    let run = tier.bed.run(&["replicate", "tier"]).done();
    for name in ["link", "folder", "pipe"] {
        assert!(run.stderr.contains(&format!("`{name}` is not a regular file")), "{}", run.stderr);
    }
    let restored = tier.restore(&["tier"]);
    assert_eq!(restored.keys().collect::<Vec<_>>(), [Path::new("file")]);
}

/// A disk that is not mounted is not a folder whose files were all deleted.
#[test]
fn an_empty_folder_is_not_taken_for_a_deletion_of_everything() {
    let tier = Tier::of_any();
    tier.write("a", "1");
    tier.write("b/c", "2");
    tier.replicate();
    let files = tier.files();
    tier.remove("a");
    tier.remove("b/c");
    tier.bed.run(&["replicate", "tier"]).failed(15, "none of the 2 files");
    assert!(tier.restore(&["tier"]) == files);
    let empty = tier.bed.json(&["replicate", "tier", "--scope", "full"])["manifest"].clone();
    assert_eq!(empty["capture"]["files"], 0);
    assert!(tier.restore(&["tier"]).is_empty());
    tier.write("a", "1");
    assert_eq!(tier.replicate()["capture"]["files"], 1);
}

#[test]
fn a_restore_takes_nobodys_place() {
    let tier = Tier::of_any();
    tier.write("a/b", "1");
    tier.replicate();
    let to = |name: &str| tier.bed.path(name).to_str().unwrap().to_owned();
    let run = |to: &str, more: &[&str]| {
        tier.bed.run(&[&["restore", "tier", "--yes", "--to", to], more].concat())
    };
    fs::write(to("file"), "x").unwrap();
    run(&to("file"), &[]).failed(14, "is not a folder");
    run(&to("file"), &["--force"]).failed(14, "is not a folder");
    fs::create_dir(to("full")).unwrap();
    fs::write(tier.bed.path("full").join("mine"), "x").unwrap();
    run(&to("full"), &[]).failed(14, "already exists");
    assert_eq!(files(&tier.bed.path("full")).len(), 1);
    run(&to("full"), &["--force"]).done();
    assert!(files(&tier.bed.path("full")) == tier.files());
    assert!(tier.bed.path("full.before-restore-1").join("mine").exists());
    fs::create_dir(to("empty")).unwrap();
    run(&to("empty"), &[]).done();
    assert!(files(&tier.bed.path("empty")) == tier.files());
    run(&to("full/"), &["--force"]).done();
    assert!(tier.bed.path("full.before-restore-2").exists());
    run(&to("new/"), &[]).done();
    assert!(files(&tier.bed.path("new")) == tier.files());
    run(&to("store/inside"), &[]).failed(14, "is inside the store");
    run(&to("missing/new"), &[]).failed(14, "does not exist");
    let mode = |path: &str| {
        use std::os::unix::fs::PermissionsExt as _;
        fs::metadata(tier.bed.path(path)).unwrap().permissions().mode() & 0o777
    };
    assert_eq!([mode("new"), mode("new/a"), mode("new/a/b")], [0o700, 0o700, 0o600]);
}

#[test]
fn what_a_source_does_not_make_is_refused_by_name() {
    let tier = Tier::of_any();
    tier.bed.run(&["snapshot", "tier"]).failed(2, "which has no snapshots");
    tier.bed.run(&["export", "tier"]).failed(2, "bkp replicate tier");
    let run = tier.bed.run(&["replicate", "tier", "--scope", "differential"]);
    assert_eq!(run.code, Some(2), "{}", run.stderr);
    tier.write("a", "1");
    tier.replicate();
    let to = tier.bed.path("new");
    let words = ["restore", "tier", "--yes", "--to", to.to_str().unwrap()];
    tier.bed.run(&[&words[..], &["--replica", "1"]].concat()).failed(2, "--replica");
    tier.bed.run(&[&words[..], &["--table", "a.b"]].concat()).failed(2, "--file");
    let config = tier.bed.path("bkp.toml");
    let text = fs::read_to_string(&config).unwrap();
    let check = |more: &str| {
        fs::write(&config, text.replace("files = [\"**/*\"]", more)).unwrap();
        tier.bed.run(&["config", "check"])
    };
    let job = |run: &str| format!("[job.j]\nrun = \"{run}\"\nsource = \"tier\"");
    for (more, naming) in [
        ("files = []", "source.tier.files"),
        ("files = [\"{a\"]", "source.tier.files"),
        ("exclude = [\"[\"]", "source.tier.exclude"),
        ("encryption = \"rot13\"", "source.tier.encryption"),
        ("mode = \"online\"", "source.tier.mode"),
        (&job("snapshot"), "job.j.run"),
        (&format!("{}\nscope = \"differential\"", job("replicate")), "job.j.scope"),
        (&job("logs"), "job.j.run"),
    ] {
        check(more).failed(78, naming);
    }
    check(&job("replicate")).done();
}

#[test]
fn a_store_inside_of_the_folder_is_refused() {
    let tier = Tier::of_any();
    let inside = tier.path("store");
    fs::create_dir(&inside).unwrap();
    let more = format!("[store.second]\nurl = \"file://{}\"\n", inside.display());
    let config = tier.bed.path("bkp.toml");
    let text = fs::read_to_string(&config).unwrap();
    let text = text.replace("[source.tier]", &format!("{more}[source.tier]\nstore = \"main\""));
    fs::write(&config, text).unwrap();
    tier.bed.run(&["config", "check"]).failed(78, "source.tier.path");
}

/// Paths as long as the system takes them, of bytes that take the most room when they are written down.
#[test]
fn the_longest_paths_come_back() {
    let tier = Tier::of_any();
    tier.write("a", "1");
    let root = fs::File::open(tier.folder.path()).unwrap();
    let mut folder = root.try_clone().unwrap();
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
    let name = OsStr::from_bytes(&[1; 255]);
    for depth in 0..15 {
        rustix::fs::mkdirat(&folder, name, 0o700.into()).unwrap();
        let inner = rustix::fs::openat(&folder, name, flags, rustix::fs::Mode::empty()).unwrap();
        folder = fs::File::from(inner);
        let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CREATE;
        let file = rustix::fs::openat(&folder, "file", flags, 0o600.into()).unwrap();
        std::io::Write::write_all(&mut fs::File::from(file), &[depth]).unwrap();
    }
    let made = tier.replicate();
    assert_eq!(made["capture"]["files"], 16);
    let target = tier.bed.path("restored");
    tier.bed.run(&["restore", "tier", "--yes", "--to", target.to_str().unwrap()]).done();
    tier.bed.run(&["verify", "tier", "--level", "drill"]).done();
    let listed = |folder: &Path| {
        let mut command = Command::new("find");
        let output =
            command.current_dir(folder).args([".", "-type", "f", "-printf", "%P %s\n"]).output();
        let mut lines: Vec<Vec<u8>> =
            output.unwrap().stdout.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        lines.sort();
        lines
    };
    assert!(listed(&target) == listed(tier.folder.path()));
    // One folder more, and the path is none that the system takes at once: the file is named.
    rustix::fs::mkdirat(&folder, name, 0o700.into()).unwrap();
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
    let inner = rustix::fs::openat(&folder, name, flags, rustix::fs::Mode::empty()).unwrap();
    let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CREATE;
    drop(rustix::fs::openat(&inner, "x".repeat(255), flags, 0o600.into()).unwrap());
    partly(&tier.bed.run(&["replicate", "tier"]), "longer than 4096 bytes");
    assert_eq!(tier.bed.json(&["list"])["backups"].as_array().unwrap().len(), 2);
}

/// Footers that claim more than any machine has, or nest deeper than any stack.
#[test]
fn footers_that_lie_cost_nothing() {
    let tier = Tier::new("");
    let file = |footer: &[u8]| {
        let length = u32::try_from(footer.len()).unwrap().to_le_bytes();
        [b"PAR1".as_slice(), footer, &length, b"PAR1"].concat()
    };
    let group = [0x48, 1, b'g', 0x15, 2, 0];
    // 20 001.
    let count = [0xa1, 0x9c, 0x01];
    let schema =
        [&[0x15, 2, 0x19, 0xfc][..], &count, &group.repeat(20_000), &[0x48, 1, b'c', 0]].concat();
    let deep = [&schema[..], &[0x16, 2, 0x19, 0x0c, 0]].concat();
    tier.write("deep.parquet", file(&deep));
    tier.write("many.parquet", file(&[0x15, 2, 0x19, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x0f]));
    age(&tier.path("many.parquet"));
    partly(&tier.bed.run(&["replicate", "tier"]), "`many.parquet`");
    assert_eq!(tier.restore(&["tier"]).len(), 2);
    tier.bed.run(&["verify", "tier", "--level", "decode"]).done();
    let drilled = tier.bed.run(&["verify", "tier", "--level", "drill"]);
    assert_eq!(drilled.code, Some(3), "{}", drilled.stderr);
    assert!(drilled.stdout.contains("not read: 20001 columns and groups"), "{}", drilled.stdout);
}
