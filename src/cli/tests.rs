use super::*;
use crate::cmd::{restore, verify};
use crate::ops::selection::Select;

fn parse_words(words: &str) -> Result<Cli, ParseExit> {
    parse(words.split_whitespace().map(OsString::from))
}

fn restore_options(words: &str) -> restore::Options {
    let cli = parse_words(words).expect("valid");
    let Command::Restore(args) = cli.command else { panic!("{words}: another command") };
    (*args).into()
}

fn mistake(words: &str) -> String {
    match parse_words(words).expect_err("a mistake") {
        ParseExit::Mistake { summary, .. } => summary,
        ParseExit::Answer(text) => panic!("{text}"),
    }
}

#[test]
fn the_declarations_are_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn a_backup_is_named_in_one_of_five_ways() {
    let select = |words: &str| restore_options(&format!("bkp restore --to /t {words}")).select;
    assert_eq!(select("books"), Select::Latest("books".into()));
    assert_eq!(select("--latest books"), Select::Latest("books".into()));
    assert_eq!(select("--id 0193"), Select::Id("0193".into()));
    assert_eq!(select("books --id 0193"), Select::IdOf("books".into(), "0193".into()));
    let at = time::macros::datetime!(2026-11-21 02:00 UTC);
    assert_eq!(select("books --at 2026-11-21T02:00:00Z"), Select::At("books".into(), at));
}

#[test]
fn contradictions_are_mistakes() {
    for words in [
        "bkp restore --to /t",
        "bkp restore --to /t --at 2026-11-21T02:00:00Z",
        "bkp restore --to /t books --at 2026-11-21",
        "bkp restore --to /t books --id 0 --at 2026-11-21T02:00:00Z",
        "bkp restore --to /t books --latest books",
        "bkp restore books",
        "bkp list --type mysql",
        "bkp list --from-ledger books",
        "bkp list --from-ledger --long",
        "bkp verify --ledger books",
        "bkp verify --ledger --all",
        "bkp verify --ledger --id 0",
        "bkp verify --ledger --level drill",
        "bkp verify --record books",
        "bkp list -q -v",
        "bkp",
    ] {
        assert!(!mistake(words).is_empty(), "{words}");
    }
}

#[test]
fn lists_and_repeated_flags_are_read() {
    let options =
        restore_options("bkp restore books --to /t --addresses a:1,b:2 --replica 2 --yes");
    assert_eq!(options.addresses, ["a:1", "b:2"]);
    assert_eq!((options.replica, options.yes), (Some(2), true));
    let cli = parse_words("bkp --key file:/a list --key file:/b").expect("valid");
    assert!(cli.flags().keys.contains(&"file:/b".to_owned()));
}

#[test]
fn a_verification_reads_every_byte_unless_told_otherwise() {
    let cli = parse_words("bkp verify books").expect("valid");
    let Command::Verify(args) = cli.command else { panic!("another command") };
    assert_eq!(verify::Options::from(args).level, crate::domain::verify_level::VerifyLevel::Digest);
}

#[test]
fn the_version_names_the_engines() {
    for flag in ["-V", "--version"] {
        let Err(ParseExit::Answer(text)) = parse_words(&format!("bkp {flag}")) else {
            panic!("{flag}")
        };
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("bkp 0."), "{text}");
        assert!(lines[1].starts_with("DuckDB "), "{text}");
        assert!(lines[2].starts_with("TigerBeetle client "), "{text}");
    }
}
