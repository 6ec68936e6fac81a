//! Rules for the sources: which module may use what, read from the sources themselves.
//!
//! Lists of exceptions may only shrink: one that is no longer needed fails the test too.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Third-party crates that belong into one place. A name in two rooms means that one of them is
/// wrong.
const HOMES: &[(&str, &[&str])] = &[
    ("aws_config::", &["src/aws.rs"]),
    ("aws_sdk_kms::", &["src/keys/kms.rs", "src/keys/kms/"]),
    ("aws_runtime::", &["src/aws.rs"]),
    ("aws_sdk_s3::", &["src/store/s3/"]),
    ("aws_smithy_http_client::", &["src/aws.rs"]),
    ("aws_smithy_runtime_api::", &["src/aws.rs", "src/store/s3/answer.rs"]),
    (
        "aegis::",
        &["src/source/postgres/block_map.rs", "src/source/tigerbeetle/data_file/checksum.rs"],
    ),
    ("clap::", &["src/cli/"]),
    ("clap_complete::", &["src/cli/"]),
    ("clap_mangen::", &["src/cli/"]),
    ("crc32c::", &["src/source/postgres/"]),
    ("data_encoding::", &["src/domain/hex.rs"]),
    (
        "duckdb::",
        &[
            "src/version.rs",
            "src/source/kinds.rs",
            "src/source/duckdb/engine/clock.rs",
            "src/source/duckdb/engine/sequences.rs",
            "src/source/duckdb/engine/serve.rs",
            "src/source/duckdb/engine/parser.rs",
            "src/source/duckdb/engine/raw.rs",
            "src/source/duckdb/engine/row_hash.rs",
            "src/source/duckdb/engine/tally.rs",
        ],
    ),
    ("linkme::", &["src/error.rs"]),
    ("croner::", &["src/domain/schedule.rs"]),
    ("flate2::", &["src/stage/gzip.rs"]),
    ("globset::", &["src/source/parquet/walk.rs"]),
    (
        "getrandom::",
        &[
            "src/cmd/verify_logs.rs",
            "src/fs/lock.rs",
            "src/fs/staged_file.rs",
            "src/source/postgres/block_map.rs",
            "src/source/postgres/tenant/apply.rs",
            "src/source/tigerbeetle/logs/query/proof.rs",
            "src/store/layer/retry.rs",
        ],
    ),
    ("indicatif::", &["src/ui/"]),
    ("lettre::", &["src/notify/email.rs"]),
    ("ureq::", &["src/notify/http.rs"]),
    ("jiff::", &["src/domain/calendar.rs"]),
    ("parquet::", &["src/source/kinds.rs", "src/source/parquet/footer.rs"]),
    ("postgres_protocol::", &["src/source/postgres/client/"]),
    ("rustls::", &["src/source/postgres/client/"]),
    ("rustls_native_certs::", &["src/source/postgres/client/tls.rs"]),
    ("ring::", &["src/keys/", "src/stage/seal.rs", "src/source/duckdb/engine/row_hash.rs"]),
    ("signal_hook::", &["src/main.rs", "src/ctx.rs", "src/source/duckdb/engine/confine.rs"]),
    ("serde_path_to_error::", &["src/table/mod.rs"]),
    ("tar::", &["src/archive.rs"]),
    (
        "tigerbeetle_unofficial::",
        &[
            "src/source/tigerbeetle/cluster/totals.rs",
            "src/source/tigerbeetle/logs/client/",
            "src/ledger/tigerbeetle/",
        ],
    ),
    ("tokio::", &["src/rt.rs"]),
    (
        "async ",
        &[
            "src/rt.rs",
            "src/aws.rs",
            "src/keys/kms.rs",
            "src/keys/kms/",
            "src/store/s3/",
            "src/source/tigerbeetle/cluster/totals.rs",
            "src/ledger/tigerbeetle/",
        ],
    ),
    (
        "std::env::",
        &[
            "src/config/",
            "src/keys/secret.rs",
            "src/main.rs",
            "src/process.rs",
            "src/source/tigerbeetle/logs/client/private.rs",
        ],
    ),
    (
        "unsafe ",
        &[
            "src/version.rs",
            "src/rt.rs",
            "src/source/duckdb/engine/confine.rs",
            "src/source/duckdb/engine/parser.rs",
            "src/source/duckdb/engine/raw.rs",
            "src/source/duckdb/engine/row_hash.rs",
            "src/source/duckdb/engine/siphash.rs",
            "src/source/duckdb/engine/tally.rs",
        ],
    ),
];

/// What a room must not know.
const WALLS: &[(&str, &[&str])] = &[
    (
        "src/domain/",
        &["std::fs", "std::net", "std::thread", "crate::store", "crate::source", "crate::cmd"],
    ),
    (
        "src/cmd/",
        &[
            "crate::cli",
            "crate::ui",
            "store::local",
            "store::s3",
            "tigerbeetle::",
            "keys::passphrase",
        ],
    ),
    ("src/source/", &["crate::cmd", "crate::cli", "crate::store", "crate::wire"]),
    (
        "src/store/",
        &["crate::cmd", "crate::cli", "crate::source", "crate::pipeline", "crate::wire"],
    ),
    ("src/stage/", &["crate::cmd", "crate::cli", "crate::source", "crate::pipeline"]),
    ("src/keys/", &["crate::cmd", "crate::cli", "crate::store", "crate::pipeline"]),
    (
        "src/ledger/",
        &["crate::cmd", "crate::cli", "crate::source", "crate::pipeline", "crate::wire"],
    ),
    ("src/notify/", &["crate::cmd", "crate::cli", "crate::store", "crate::wire"]),
    ("src/cli/", &["crate::store", "crate::source", "crate::pipeline", "crate::ledger"]),
];

/// Rooms that know nothing of what is backed up: what they need of it, a source brings.
const GENERIC_ROOMS: [&str; 4] = ["src/catalog", "src/cmd", "src/domain", "src/ops"];
/// What no code in them names.
const DATABASES: [&str; 3] = ["tigerbeetle", "duckdb", "postgres"];
/// Files that name one all the same, each with its reason.
const NAMES_A_DATABASE: &[(&str, &str)] = &[
    ("src/catalog/table.rs", "the catalog itself is a DuckDB database"),
    ("src/cmd/config.rs", "shows `[tools] tigerbeetle`"),
    ("src/cmd/doctor.rs", "looks for the program that drills of TigerBeetle start"),
    ("src/domain/event.rs", "numbers of the types of backups"),
    ("src/domain/limits.rs", "all limits are in one place"),
    ("src/domain/names.rs", "types of backups"),
];

/// Files with more lines of code than this, tests and comments not counted, hold two ideas.
const CODE_LINES_MAX: usize = 330;
/// Those that are longer, each with its reason.
const LONG: &[(&str, &str)] = &[];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for item in fs::read_dir(folder).unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// Every source file with its path from the root and its code: no comments, no unit tests.
fn sources() -> Vec<(String, String)> {
    let rust = files(&root().join("src"))
        .into_iter()
        .filter(|path| path.extension() == Some("rs".as_ref()));
    rust.map(|path| {
        let text = fs::read_to_string(&path).unwrap();
        let tests = ["#[cfg(test)]\nmod tests", "#[cfg(test)]\npub(crate) mod tests"];
        let code = tests.iter().fold(&*text, |code, tests| code.split(tests).next().unwrap());
        let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        (name, lines.collect::<Vec<_>>().join("\n"))
    })
    .filter(|(name, _)| name != "src/build.rs" && !name.ends_with("/tests.rs"))
    .collect()
}

fn lives_in(name: &str, homes: &[&str]) -> bool {
    homes
        .iter()
        .any(|home| if home.ends_with('/') { name.starts_with(home) } else { name == *home })
}

#[test]
fn third_party_crates_are_used_only_where_allowed() {
    for (name, code) in sources() {
        for (krate, homes) in HOMES {
            let used = code.match_indices(krate).any(|(at, _)| {
                let before = code[..at].chars().next_back();
                !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
            });
            assert!(!used || lives_in(&name, homes), "{name} knows `{krate}`");
        }
    }
}

#[test]
fn every_allowed_use_of_a_crate_exists() {
    let sources = sources();
    for (krate, homes) in HOMES {
        for home in *homes {
            let used =
                sources.iter().any(|(name, code)| lives_in(name, &[home]) && code.contains(krate));
            assert!(used, "{home} no longer needs `{krate}`: shorten the list");
        }
    }
}

#[test]
fn modules_do_not_name_forbidden_modules() {
    for (name, code) in sources() {
        for (_, hidden) in WALLS.iter().filter(|(room, _)| name.starts_with(room)) {
            for what in *hidden {
                assert!(!code.contains(what), "{name} must not know `{what}`");
            }
        }
    }
}

#[test]
fn generic_modules_name_no_database() {
    for (name, code) in sources() {
        if !GENERIC_ROOMS.iter().any(|room| name.starts_with(room)) {
            continue;
        }
        let code = code.to_lowercase();
        let named: Vec<&&str> = DATABASES.iter().filter(|word| code.contains(**word)).collect();
        let excused = NAMES_A_DATABASE.iter().any(|(file, _)| *file == name);
        let hint = if excused { ": shorten the list" } else { "" };
        assert_eq!(!named.is_empty(), excused, "{name} names {named:?}{hint}");
    }
    let files: BTreeSet<String> = sources().into_iter().map(|(name, _)| name).collect();
    for (file, _) in NAMES_A_DATABASE {
        assert!(files.contains(*file), "{file} does not exist: shorten the list");
    }
}

#[test]
fn files_do_not_exceed_their_length() {
    for (name, code) in sources() {
        let lines = code.lines().filter(|line| !line.trim().is_empty()).count();
        let excused = LONG.iter().any(|(long, _)| *long == name);
        assert_eq!(lines > CODE_LINES_MAX, excused, "{name} has {lines} lines of code");
    }
}

#[test]
fn every_classified_error_is_found_by_diagnose() {
    let mut defined = BTreeSet::new();
    for (_, code) in sources() {
        for line in code.lines() {
            if let Some(rest) = line.trim().strip_prefix("impl Classify for ") {
                defined.insert(rest.trim_end_matches(" {").to_owned());
            }
        }
    }
    let mut found = BTreeSet::from(["Fault".to_owned()]);
    for (_, code) in sources() {
        let named = code.lines().filter_map(|line| line.trim().strip_prefix("diagnosed!("));
        found.extend(named.map(|rest| rest.trim_end_matches(");").to_owned()));
    }
    assert_eq!(defined, found);
}

#[test]
fn every_adapter_is_in_its_table() {
    for (folder, table, not_adapters) in [
        ("src/store", "src/store/kinds.rs", &["mod", "kinds", "object"][..]),
        (
            "src/keys",
            "src/keys/kinds.rs",
            &[
                "mod",
                "kinds",
                "begun_copies",
                "mac",
                "manifest_mac",
                "envelope",
                "secret",
                "wrap",
                "key_set",
                "keyring",
                "object_keys",
                "signature",
            ],
        ),
        (
            "src/source",
            "src/source/kinds.rs",
            &[
                "mod",
                "attempt_error",
                "chain",
                "device",
                "discovery",
                "entry",
                "kinds",
                "logs",
                "requests",
                "tenants",
                "watchdog",
            ],
        ),
    ] {
        let contract = fs::read_to_string(root().join(table)).unwrap();
        for item in fs::read_dir(root().join(folder)).unwrap() {
            let path = item.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            if name != "layer" && !not_adapters.contains(&name.as_str()) {
                assert!(
                    contract.contains(&format!("{name}::KIND"))
                        || contract.contains(&format!("{name}::ENTRY")),
                    "{name} is not in {table}"
                );
            }
        }
    }
}

#[test]
fn nothing_is_left_unfinished_and_nothing_is_private_to_a_machine() {
    // Put together here, so that this file does not find itself.
    let words =
        ["TO", "FIX"].map(|half| format!("{half}{}", if half == "TO" { "DO" } else { "ME" }));
    let places = ["ht", "tps://crates", ".io"].concat();
    let folders = ["src", "tests", "examples", "benches", "systemd", ".ci"];
    for path in folders.iter().flat_map(|folder| files(&root().join(folder))) {
        let bytes = fs::read(&path).unwrap();
        assert!(bytes.len() <= 256 << 10, "{} is a large blob", path.display());
        let text = String::from_utf8_lossy(&bytes);
        for word in words.iter().chain([&places]) {
            assert!(!text.contains(word.as_str()), "{} has `{word}` in it", path.display());
        }
    }
}

#[test]
fn the_top_level_holds_only_listed_files() {
    const WANTED: &str = "CHANGELOG.md CONTRIBUTING.md Cargo.lock Cargo.toml LICENSE README.md SECURITY.md benches completions examples man src systemd target tests";
    for item in fs::read_dir(root()).unwrap() {
        let name = item.unwrap().file_name().into_string().unwrap();
        assert!(
            name.starts_with('.') || WANTED.split(' ').any(|wanted| wanted == name),
            "{name} does not belong into the repository"
        );
    }
}

#[test]
fn the_readme_lists_the_commands() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    for command in bkp::cli::commands() {
        assert!(readme.contains(&format!("`bkp {command}")), "`bkp {command}` is not in README.md");
    }
}

/// What the page for contributors tells them to open is there.
#[test]
fn files_that_contributors_are_sent_to_exist() {
    let page = fs::read_to_string(root().join("CONTRIBUTING.md")).unwrap();
    let rooms = ["src/", "tests/", "man/", "examples/", "benches/", "completions/", ".ci/"];
    let named = page.split('`').skip(1).step_by(2);
    let mut count = 0;
    for path in named.filter(|word| rooms.iter().any(|room| word.starts_with(room))) {
        let path = path.split([' ', '*']).next().unwrap();
        if path.contains("NAME") || path.contains("TARGET") {
            continue;
        }
        count += 1;
        assert!(root().join(path).exists(), "CONTRIBUTING.md names `{path}`");
    }
    assert!(count > 20, "{count}");
}

/// Names that say nothing to who has not read the code. Those that took their place are in the glossary of
/// CONTRIBUTING.md, or speak for themselves.
const BANNED: &[&str] = &[
    "Alone",
    "Around",
    "Asked",
    "Bench",
    "Blame",
    "Caught",
    "Chained",
    "Course",
    "Deposit",
    "Doubts",
    "Everything",
    "Fan",
    "FanUpload",
    "Fared",
    "Fate",
    "Going",
    "Hop",
    "House",
    "Judged",
    "Known",
    "Lacking",
    "Laid",
    "Letter",
    "Look",
    "Looked",
    "LooksAt",
    "Makes",
    "Means",
    "Met",
    "Nowhere",
    "Onto",
    "Placing",
    "Ran",
    "Recipe",
    "Recorded",
    "Renames",
    "Rereading",
    "Rewind",
    "Round",
    "Said",
    "Setback",
    "Settle",
    "Sheet",
    "Sieve",
    "Sight",
    "Spell",
    "Stretch",
    "Struck",
    "Tidy",
    "Told",
    "Trail",
    "Trial",
    "Unopened",
    "Untold",
    "Wanted",
    "Way",
    "Word",
    "Workshop",
    "alone",
    "around",
    "course",
    "draft",
    "exporting",
    "journal",
    "kept",
    "look",
    "marks",
    "means",
    "news",
    "one",
    "onto",
    "overlay",
    "reconcile",
    "recorded",
    "refusal",
    "rehearse",
    "retold",
    "rewind",
    "setback",
    "shape",
    "sheet",
    "sighted",
    "tell",
    "telling",
    "told",
    "trial",
    "verified",
    "wanted",
    "way",
    "words",
    "workshop",
];

#[test]
fn no_type_or_module_has_a_banned_name() {
    for (name, code) in sources() {
        let words =
            code.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|w| !w.is_empty());
        let words: Vec<&str> = words.collect();
        for pair in words.windows(2) {
            let defines = ["struct", "enum", "trait", "type", "mod"].contains(&pair[0]);
            assert!(!defines || !BANNED.contains(&pair[1]), "{name} defines `{}`", pair[1]);
        }
    }
}
