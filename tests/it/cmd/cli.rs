//! The program as its users meet it: arguments, configuration, errors and exit codes.
#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// A folder with a configuration in it, and the program run on that alone.
struct Bed {
    folder: TempDir,
}

/// What a run left.
struct Run {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

const CONFIG: &str = r#"
[store.main]
url = "file://FOLDER/store"
[keys]
recipients = ["file:key"]
[source.books]
kind = "tigerbeetle"
data_file = "0_0.tigerbeetle"
"#;

impl Bed {
    /// A bed with a valid configuration.
    #[must_use]
    fn new() -> Bed {
        Bed::with(CONFIG)
    }

    #[must_use]
    fn with(config: &str) -> Bed {
        let bed = Bed { folder: tempfile::tempdir().expect("a folder") };
        let text = config.replace("FOLDER", &bed.folder.path().display().to_string());
        bed.file("bkp.toml", &text);
        fs::create_dir(bed.path("store")).expect("created");
        bed
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        File::create(&path).expect("created").write_all(text.as_bytes()).expect("written");
        path
    }

    /// The program with a clean environment.
    fn command(&self, words: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bkp"));
        command.args(words.split_whitespace()).env_clear().stdin(Stdio::null());
        command.env("HOME", self.folder.path()).env("PATH", "/usr/bin:/bin");
        command.env("BKP_CONFIG", self.path("bkp.toml")).env("STATE_DIRECTORY", self.path("state"));
        command
    }

    #[track_caller]
    fn run(&self, words: &str) -> Run {
        Run::of(self.command(words).output().expect("bkp starts"))
    }
}

impl Run {
    fn of(output: Output) -> Run {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        let Output { status, stdout, stderr } = output;
        Run { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
    }

    #[track_caller]
    fn expect(self, code: i32) -> Run {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// Standard output as the one JSON object it has to be.
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }

    /// The error object on standard error.
    #[track_caller]
    fn error(&self) -> Value {
        serde_json::from_str(&self.stderr)
            .unwrap_or_else(|error| panic!("{error}: {}", self.stderr))
    }
}

#[test]
fn every_subcommand_has_help_with_an_example() {
    let bed = Bed::new();
    for words in [
        "snapshot",
        "list",
        "verify",
        "restore",
        "keys",
        "keys generate",
        "config",
        "config check",
        "config show",
        "config lifecycle",
        "config tenants",
        "config schema",
        "doctor",
        "completions",
    ] {
        let help = bed.run(&format!("{words} --help")).expect(0);
        assert!(help.stdout.contains("Example: bkp "), "{words}: {}", help.stdout);
        assert!(help.stdout.contains("Exit codes:"), "{words}: {}", help.stdout);
        assert_eq!(help.stderr, "", "{words}");
    }
    assert!(bed.run("help").expect(0).stdout.contains("snapshot"));
    assert!(bed.run("help restore").expect(0).stdout.contains("--addresses"));
}

#[test]
fn short_and_long_version_are_the_same_and_name_the_engines() {
    let bed = Bed::new();
    let (short, long) = (bed.run("-V").expect(0), bed.run("--version").expect(0));
    assert_eq!(short.stdout, long.stdout);
    let lines: Vec<&str> = long.stdout.lines().collect();
    assert_eq!(lines[0], concat!("bkp ", env!("CARGO_PKG_VERSION")));
    assert!(lines[1].starts_with("DuckDB "), "{}", long.stdout);
    assert!(lines[1].ends_with("(linked)") || lines[1].ends_with("(bundled)"), "{}", long.stdout);
    assert!(lines[2].starts_with("TigerBeetle client 0."), "{}", long.stdout);
    assert_eq!(lines.len(), 3);
}

#[test]
fn a_wrong_command_line_is_exit_2() {
    let bed = Bed::new();
    for words in
        ["", "snapshto books", "snapshot", "verify", "restore books", "verify --level deep x"]
    {
        let run = bed.run(words).expect(2);
        assert_eq!(run.stdout, "", "{words}");
        assert!(
            run.stderr.contains("Usage: bkp") || run.stderr.contains("--help"),
            "{}",
            run.stderr
        );
    }
    assert!(bed.run("snapshto").expect(2).stderr.contains("snapshot"), "suggests the right word");
    let error = bed.run("verify --json").expect(2).error();
    assert_eq!(error["schema"], "bkp.error/1");
    assert_eq!(error["kind"], "usage");
}

#[test]
fn an_unknown_key_is_exit_78_and_named_with_line_and_suggestion() {
    let bed = Bed::with(&CONFIG.replace("data_file", "datafile"));
    for command in ["config check", "list", "doctor", "keys generate"] {
        let run = bed.run(command).expect(78);
        let place =
            format!("{}:8: source.books.datafile: unknown key", bed.path("bkp.toml").display());
        assert!(run.stderr.contains(&place), "{}", run.stderr);
        assert!(run.stderr.contains("hint: did you mean `data_file`?"), "{}", run.stderr);
    }
}

#[test]
fn an_unknown_table_is_exit_78() {
    let run = Bed::with("[jobs.x]\nrun = \"y\"").run("config check").expect(78);
    assert!(run.stderr.contains(":1: jobs: unknown key"), "{}", run.stderr);
}

#[test]
fn a_secret_in_the_configuration_is_refused_and_not_repeated() {
    let bed = Bed::with("[keys]\nrecipients = [\"passphrase:hunter2\"]");
    for words in ["config check", "config check --json"] {
        let run = bed.run(words).expect(78);
        assert!(run.stderr.contains("keys.recipients[0]"), "{}", run.stderr);
        assert!(!run.stderr.contains("hunter2"), "{}", run.stderr);
    }
}

#[test]
fn a_named_configuration_must_exist() {
    let bed = Bed::new();
    let run = bed.run("list --config /nonexistent/bkp.toml").expect(78);
    assert!(run.stderr.contains("/nonexistent/bkp.toml"), "{}", run.stderr);
    assert!(run.stderr.contains("caused by: "), "{}", run.stderr);
}

#[test]
fn without_a_configuration_check_names_the_searched_paths() {
    let bed = Bed::new();
    let output = bed.command("config check").env_remove("BKP_CONFIG").output().expect("starts");
    let run = Run::of(output).expect(78);
    assert!(run.stderr.contains("/etc/bkp/bkp.toml"), "{}", run.stderr);
    assert!(run.stderr.contains(".config/bkp/bkp.toml"), "{}", run.stderr);
}

#[test]
fn without_a_configuration_flags_are_enough() {
    let bed = Bed::new();
    let mut command = bed.command("config show --origin --store file:///b --key file:/k");
    let run = Run::of(command.env_remove("BKP_CONFIG").output().expect("starts")).expect(0);
    assert!(run.stdout.contains("recipients = [\"file:/k\"]  # flag"), "{}", run.stdout);
    assert!(run.stdout.contains("# environment"), "state_dir: {}", run.stdout);
}

#[test]
fn an_unusable_environment_is_an_error() {
    let bed = Bed::new();
    let output = bed.command("config check").env("BKP_STORE", "").output().expect("starts");
    let run = Run::of(output).expect(78);
    assert!(run.stderr.contains("$BKP_STORE: set but empty"), "{}", run.stderr);
}

#[test]
fn the_configuration_is_checked_shown_and_described() {
    let bed = Bed::new();
    let check = bed.run("config check --json").expect(0).json();
    assert_eq!(check["schema"], "bkp.config-check/1");
    assert_eq!(check["valid"], true);

    let show = bed.run("config show --origin --json").expect(0).json();
    assert_eq!(show["schema"], "bkp.config/1");
    let key = format!("file:{}", bed.path("key").display());
    assert_eq!(show["settings"]["keys"]["recipients"][0], key);
    let data_file = bed.path("0_0.tigerbeetle").display().to_string();
    assert_eq!(show["settings"]["source"]["books"]["data_file"], data_file);
    assert_eq!(show["settings"]["source"]["books"]["compression"], "zstd");
    assert_eq!(show["origins"]["source.books.data_file"], "file");
    assert_eq!(show["origins"]["source.books.compression"], "default");
    assert_eq!(show["origins"]["state_dir"], "environment");

    let schema = bed.run("config schema --json").expect(0).json();
    assert_eq!(schema["schema"], "bkp.config-schema/1");
    assert!(schema["json_schema"]["properties"]["state_dir"].is_object());
    let plain: Value =
        serde_json::from_str(&bed.run("config schema").expect(0).stdout).expect("JSON");
    assert_eq!(plain, schema["json_schema"]);
}

#[test]
fn what_config_show_prints_is_a_valid_configuration() {
    let bed = Bed::new();
    let shown = bed.run("config show").expect(0).stdout;
    let again = bed.file("shown.toml", &shown);
    bed.run(&format!("config check --config {}", again.display())).expect(0);
}

#[test]
fn the_schema_needs_no_valid_configuration() {
    Bed::with("nonsense").run("config schema").expect(0);
    Bed::with("nonsense").run("completions bash").expect(0);
}

#[test]
fn the_example_configuration_is_valid() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/bkp.toml");
    Bed::new().run(&format!("config check --config {}", example.display())).expect(0);
}

#[test]
fn the_example_policies_are_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/policies");
    let mut names = Vec::new();
    for item in fs::read_dir(folder).expect("a folder") {
        let path = item.expect("an entry").path();
        Bed::new().run(&format!("config check --config {}", path.display())).expect(0);
        names.push(path.file_name().expect("a name").to_owned());
    }
    assert_eq!(names.len(), 5, "{names:?}");
}

#[test]
fn a_world_writable_configuration_is_refused() {
    let bed = Bed::new();
    let permissions = fs::Permissions::from_mode(0o666);
    fs::set_permissions(bed.path("bkp.toml"), permissions).expect("chmod");
    let run = bed.run("config check").expect(78);
    assert!(run.stderr.contains("writable by others"), "{}", run.stderr);
    let error = bed.run("config check --json").expect(78).error();
    assert_eq!(error["kind"], "config");
}

#[test]
fn keys_are_generated_for_their_owner_and_never_overwritten() {
    let bed = Bed::new();
    bed.run("keys generate --dry-run").expect(0);
    assert!(!bed.path("key").exists());
    let made = bed.run("keys generate --json").expect(0).json();
    assert_eq!(made["schema"], "bkp.keys/1");
    assert_eq!(made["keys"][0]["state"], "generated");
    let permissions = fs::metadata(bed.path("key")).expect("a key").permissions().mode();
    assert_eq!(permissions & 0o7777, 0o600);

    let key = fs::read(bed.path("key")).expect("a key");
    let again = bed.run("keys generate --json").expect(0).json();
    assert_eq!(again["keys"][0]["state"], "exists");
    let path = bed.path("key").display().to_string();
    let refused = bed.run(&format!("keys generate {path}")).expect(12);
    assert!(refused.stderr.contains(&path), "{}", refused.stderr);
    assert_eq!(fs::read(bed.path("key")).expect("a key"), key);
}

#[test]
fn the_doctor_tries_store_and_key_and_leaves_nothing_behind() {
    let bed = Bed::with(CONFIG.split("[source").next().expect("the beginning"));
    let sick = bed.run("doctor --json").expect(12);
    assert_eq!(sick.json()["ok"], false, "there is no key yet");
    bed.run("keys generate").expect(0);
    let well = bed.run("doctor --json").expect(0).json();
    assert_eq!(well["schema"], "bkp.doctor/1");
    assert_eq!(well["ok"], true);
    let what: Vec<&str> = well["checks"]
        .as_array()
        .expect("checks")
        .iter()
        .filter_map(|c| c["what"].as_str())
        .collect();
    for part in ["configuration", "state directory", "DuckDB", "store main", "key file:"] {
        assert!(what.iter().any(|line| line.starts_with(part)), "{part}: {what:?}");
    }
    assert_eq!(files_below(&bed.path("store")), Vec::<PathBuf>::new());
    assert!(!bed.path("state").exists(), "a doctor creates nothing");
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

#[test]
fn the_doctor_names_a_source_that_cannot_be_read() {
    let bed = Bed::new();
    bed.run("keys generate").expect(0);
    let run = bed.run("doctor").expect(15);
    assert!(run.stdout.contains("FAILED  source books"), "{}", run.stdout);
}

#[test]
fn completions_are_printed_for_each_shell() {
    let bed = Bed::new();
    for shell in ["bash", "zsh", "fish"] {
        let run = bed.run(&format!("completions {shell}")).expect(0);
        assert!(run.stdout.contains("snapshot"), "{shell}");
        assert!(!run.stdout.is_empty());
    }
    bed.run("completions tcsh").expect(2);
}

#[test]
fn errors_have_a_subject_and_an_instruction() {
    let bed = Bed::new();
    let text = bed.run("list --config /nonexistent").expect(78).stderr;
    assert!(text.starts_with("error: ") && text.contains("\nhint: "), "{text}");
    let error = bed.run("list --json --config /nonexistent").expect(78).error();
    assert_eq!(error["schema"], "bkp.error/1");
    assert_eq!(error["exit_code"], 78);
    assert_eq!(error["kind"], "config");
    assert!(error["message"].as_str().expect("text").contains("/nonexistent"));
    assert!(error["causes"].is_array() && error["hint"].is_string());
    let fields: Vec<&String> = error.as_object().expect("an object").keys().collect();
    assert_eq!(fields, ["schema", "exit_code", "kind", "message", "causes", "hint"]);
}

#[test]
fn a_closed_output_pipe_is_not_an_error() {
    let bed = Bed::new();
    let mut child = bed
        .command("completions bash")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("bkp starts");
    drop(child.stdout.take());
    let run = Run::of(child.wait_with_output().expect("ends")).expect(0);
    assert_eq!(run.stderr, "");
}
