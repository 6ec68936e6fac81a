//! The man page and completions in the repository match the program's declarations. `BLESS=1
//! tests/run.sh generated` writes them anew.

use std::fs;
use std::path::Path;

#[test]
fn generated_files_are_current() {
    let bless = std::env::vars_os().any(|(name, _)| name == "BLESS");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut stale = Vec::new();
    for (path, content) in bkp::cli::generated().expect("generated") {
        let file = root.join(path);
        if fs::read_to_string(&file).ok().as_deref() == Some(content.as_str()) {
            continue;
        }
        if bless {
            use std::io::Write as _;
            fs::create_dir_all(file.parent().expect("a folder")).expect("created");
            let mut file = fs::File::create(&file).expect("created");
            file.write_all(content.as_bytes()).expect("written");
        } else {
            stale.push(path);
        }
    }
    assert!(stale.is_empty(), "run the tests with BLESS=1 and commit: {stale:?}");
}

#[test]
fn the_man_page_lists_every_exit_code_and_command() {
    let files = bkp::cli::generated().expect("generated");
    let (_, page) = files.iter().find(|(path, _)| *path == "man/bkp.1").expect("a man page");
    for kind in bkp::error::Kind::ALL {
        assert!(page.contains(&format!("\\fB{}\\fR", bkp::exit::code(kind))), "{kind:?}");
    }
    for command in
        ["SNAPSHOT", "LIST", "VERIFY", "RESTORE", "KEYS GENERATE", "CONFIG CHECK", "DOCTOR"]
    {
        assert!(page.contains(&format!(".SH \"BKP {command}\"")), "{command}");
    }
    assert!(!page.contains("HELP-FILES"), "hidden commands stay hidden");
}
