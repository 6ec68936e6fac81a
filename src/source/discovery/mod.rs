//! What there is to back up on this machine: servers that run here and databases that are open, and the
//! table of a source for what an operator names.
//!
//! Only what every user may see is looked at, and nothing is opened or asked: who sets up a backup confirms
//! what was found, and `bkp doctor` tries it.

pub(in crate::source) mod candidate;
pub(in crate::source) mod finder;
pub(in crate::source) mod processes;

pub use self::candidate::Candidate;

use super::entry::SourceEntry;
use super::kinds::SOURCES;
use crate::table::ConfigError;

/// Everything that is in use on this machine, as far as this user may see.
#[must_use]
pub fn find() -> Vec<Candidate> {
    let processes = processes::running();
    let mut found: Vec<Candidate> = Vec::new();
    let finders = SOURCES.iter().filter_map(|entry| entry.finder.as_ref());
    for candidate in finders.flat_map(|finder| (finder.find)(&processes)) {
        if !found.iter().any(|other| other.is_same_place(&candidate)) {
            found.push(candidate);
        }
    }
    found
}

/// The source that `text` names, `KIND:PLACE` or `NAME=KIND:PLACE`. What `found` knows of that place
/// besides, such as the addresses of a cluster, is taken from there.
///
/// # Errors
/// [`ConfigError::Invalid`] if that is no source.
pub fn named(text: &str, found: &[Candidate]) -> Result<Candidate, ConfigError> {
    let known = || {
        let with = |entry: &'static SourceEntry| {
            entry.finder.as_ref().map(|finder| (entry.kind.backup_type.as_str(), finder))
        };
        SOURCES.iter().filter_map(with)
    };
    let usage = || {
        let kinds = known().map(|(word, finder)| format!("{word}:{}", finder.place));
        format!("write {}, with NAME= in front to name it", kinds.collect::<Vec<_>>().join(" or "))
    };
    let invalid = |problem: &str| ConfigError::invalid("--source", problem).suggest(usage());
    let (head, place) = text.split_once(':').ok_or_else(|| invalid("not KIND:PLACE"))?;
    let (name, kind) = head.split_once('=').map_or((None, head), |(name, kind)| (Some(name), kind));
    let finder = known().find(|(word, _)| *word == kind).map(|(_, finder)| finder);
    let finder = finder.ok_or_else(|| invalid(&format!("no kind of source `{kind}`")))?;
    if place.is_empty() {
        return Err(invalid("the place of the source is missing"));
    }
    let asked = (finder.at)(place);
    let mut candidate =
        found.iter().find(|other| other.is_same_place(&asked)).cloned().unwrap_or(asked);
    if let Some(name) = name {
        name.clone_into(&mut candidate.name);
    }
    Ok(candidate)
}

#[cfg(test)]
mod tests {
    use super::processes::Process;
    use super::*;
    use crate::source::tigerbeetle;

    #[test]
    fn a_source_is_named_by_its_kind_and_place() {
        let asked = named("ledger=tigerbeetle:/a/0_0.tigerbeetle", &[]).expect("named");
        assert_eq!(asked.name, "ledger");
        assert_eq!(asked.keys["data_file"].as_str(), Some("/a/0_0.tigerbeetle"));
        let asked = named("postgres:host=/run/postgresql user=bkp", &[]).expect("named");
        assert_eq!(asked.keys["conninfo"].as_str(), Some("host=/run/postgresql user=bkp"));
        for (text, problem) in [
            ("/a/b", "not KIND:PLACE"),
            ("oracle:/a", "no kind of source `oracle`"),
            ("duckdb:", "the place of the source is missing"),
        ] {
            let error = named(text, &[]).expect_err(text).to_string();
            assert!(error.ends_with(problem), "{error}");
        }
    }

    #[test]
    fn what_was_found_adds_what_it_knows() {
        let process = Process::of(7, "tigerbeetle start --addresses=3001 /a/0_0.tigerbeetle");
        let found = (tigerbeetle::ENTRY.finder.expect("found").find)(&[process]);
        let asked = named("tigerbeetle:/a/0_0.tigerbeetle", &found).expect("named");
        assert_eq!(asked.keys["addresses"].to_string(), "[\"127.0.0.1:3001\"]");
        let other = named("tigerbeetle:/b/0_0.tigerbeetle", &found).expect("named");
        assert!(!other.keys.contains_key("addresses"));
    }
}
