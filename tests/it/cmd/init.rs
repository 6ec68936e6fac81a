//! `bkp init`, from nothing to a first backup.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::bed::{self, Run, bare};
use crate::support::{duck, tb};

fn init(folder: &Path, words: &[&str]) -> Run {
    Run::of(&bed::init(folder, words).output().unwrap())
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// A database in `folder`, as `--source` and `--store` name what `init` is to use.
fn flags(folder: &Path) -> (String, String) {
    let database = folder.join("books.duckdb");
    duck::sql("1.5.6", &database, &["CREATE TABLE t AS SELECT 1 i"]);
    let store = format!("file://{}", folder.join("store").display());
    (format!("duckdb:{}", database.display()), store)
}

#[test]
fn a_configuration_is_written_once_and_works() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (source, store) = flags(folder);
    let words = ["--config", "etc/bkp.toml", "--source", &source, "--store", &store];
    let report: Value =
        serde_json::from_str(&init(folder, &[&words[..], &["--json"]].concat()).done().stdout)
            .unwrap();
    let (config, key) = (folder.join("etc/bkp.toml"), folder.join("state/key"));
    assert_eq!(report["file"], config.to_str().unwrap());
    assert_eq!(report["keys"], serde_json::json!([key.to_str().unwrap()]));
    assert_eq!(report["sources"], serde_json::json!(["books"]));
    assert_eq!(report["first_backup"], Value::Null);
    assert!(
        report["checks"].as_array().unwrap().iter().all(|check| check["ok"] == true),
        "{report}"
    );
    let next = report["next"][0].as_str().unwrap();
    assert!(next.starts_with(&format!("copy {}", key.display())), "{next}");
    assert_eq!((mode(&config), mode(&key)), (0o600, 0o600));
    assert_eq!((mode(&folder.join("state")), mode(&folder.join("store"))), (0o700, 0o700));
    let run = |words: &[&str]| {
        let words = [&["--config", "etc/bkp.toml"], words].concat();
        Run::of(&bare(folder, &words).output().unwrap())
    };
    run(&["run"]).done();
    run(&["verify", "books", "--level", "drill"]).done();
    run(&["restore", "books", "--to", "restored.duckdb", "--yes"]).done();
    let rows = duck::sql("1.5.6", &folder.join("restored.duckdb"), &["FROM t"]);
    assert_eq!(rows, serde_json::json!([[1]]));
    // Neither is touched by another one.
    let before = (fs::read(&config).unwrap(), fs::read(&key).unwrap());
    init(folder, &words).failed(14, "there is a configuration already");
    assert_eq!((fs::read(&config).unwrap(), fs::read(&key).unwrap()), before);
}

#[test]
fn what_is_printed_is_what_would_be_written_and_nothing_is() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (source, store) = flags(folder);
    let words = ["--config", "etc/bkp.toml", "--source", &source, "--store", &store];
    let words = [&words[..], &["--schedule", "daily at 03:00"]].concat();
    let printed = init(folder, &[&words[..], &["--print"]].concat()).done().stdout;
    assert!(printed.contains("at = \"daily at 03:00\""), "{printed}");
    for made in ["etc", "state", "store"] {
        assert!(!folder.join(made).exists(), "{made}");
    }
    init(folder, &words).done();
    assert_eq!(
        printed.trim_end(),
        fs::read_to_string(folder.join("etc/bkp.toml")).unwrap().trim_end()
    );
}

#[test]
fn what_makes_no_configuration_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (source, store) = flags(folder);
    let cases: &[(&[&str], &str)] = &[
        (&["--source", "oracle:/a", "--store", &store], "no kind of source `oracle`"),
        (&["--source", &source, "--store", "backups"], "not a URL"),
        (&["--source", &source], "--store"),
        (&["--source", &source, "--store", &store, "--schedule", "sometimes"], "sometimes"),
    ];
    for (words, naming) in cases {
        init(folder, &[&["--config", "etc/bkp.toml"], *words].concat()).failed(78, naming);
        for made in ["etc", "state", "store"] {
            assert!(!folder.join(made).exists(), "{made} after {naming}");
        }
    }
}

#[test]
fn what_was_made_before_a_failure_is_named_and_used_by_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (source, store) = flags(folder);
    fs::write(folder.join("etc"), "in the way").unwrap();
    let words = ["--config", "etc/bkp.toml", "--source", &source, "--store", &store];
    let failed = init(folder, &words);
    let key = folder.join("state/key");
    assert!(!matches!(failed.code, Some(0) | None), "{failed:?}");
    assert!(failed.stderr.contains(key.to_str().unwrap()), "{}", failed.stderr);
    let made = fs::read(&key).unwrap();
    fs::remove_file(folder.join("etc")).unwrap();
    init(folder, &words).done();
    assert_eq!(fs::read(&key).unwrap(), made);
}

#[test]
fn a_running_replica_is_found_with_its_address() {
    let folder = tempfile::tempdir().unwrap();
    let server = tb::Server::solo(folder.path());
    let source = format!("tigerbeetle:{}", server.data_file().display());
    let words = ["--config", "bkp.toml", "--source", &source, "--store", "file:///b", "--print"];
    let printed = init(folder.path(), &words).done().stdout;
    let config: toml::Table = printed.parse().unwrap();
    let address = config["source"]["books"]["addresses"][0].as_str().unwrap();
    assert!(address.ends_with(server.address()), "{printed}");
    assert!(config["tools"]["tigerbeetle"].as_str().unwrap().ends_with("tigerbeetle"), "{printed}");
}

/// On a terminal, which script(1) makes.
#[test]
fn who_sits_at_a_terminal_is_asked() {
    use std::io::Write as _;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (source, store) = flags(folder);
    let direct = bed::init(folder, &["--config", "bkp.toml", "--source", &source]);
    let words = std::iter::once(direct.get_program()).chain(direct.get_args());
    let line = words.map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ");
    let mut command = Command::new("script");
    command.args(["-qec", &line, "/dev/null"]).current_dir(folder).env_clear();
    command.envs(direct.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env("TERM", "xterm").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut answers = child.stdin.take().unwrap();
    answers.write_all(format!("{store}\n\nyes\n").as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    drop(answers);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}");
    for said in ["Where do backups go?", "How often?", "Make the first backup now?"] {
        assert!(text.contains(said), "{text}");
    }
    let listed = bare(folder, &["--config", "bkp.toml", "list", "books", "--json"]);
    let listed = Run::of(&{ listed }.output().unwrap()).done().stdout;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed["backups"].as_array().unwrap().len(), 1);
}
