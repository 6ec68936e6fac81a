//! A source that could be backed up.

use std::path::Path;

use crate::domain::names::BackupType;

/// A source that could be backed up, as the tables of a configuration would have it.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Its kind.
    pub backup_type: BackupType,
    /// A name for it.
    pub name: String,
    /// The keys of its `[source.NAME]` table besides `kind`; the first of them says where it is.
    pub keys: toml::Table,
    /// Keys of `[tools]` that its drills need.
    pub tools: toml::Table,
    /// How it was found; `None` if it was named.
    pub evidence: Option<String>,
    /// The key that says where it is.
    pub place_key: &'static str,
}

impl Candidate {
    /// One of this kind, called `name`, with nothing known but where it is.
    pub(in crate::source) fn new(
        backup_type: BackupType,
        name: &str,
        place_key: &'static str,
        place: impl Into<String>,
    ) -> Candidate {
        let keys = toml::Table::from_iter([(place_key.to_owned(), place.into().into())]);
        let (name, tools) = (name.to_owned(), toml::Table::new());
        Candidate { backup_type, name, keys, tools, evidence: None, place_key }
    }

    /// Where it is: a path, or how it is connected to.
    #[must_use]
    pub fn place(&self) -> &str {
        self.keys.get(self.place_key).and_then(toml::Value::as_str).unwrap_or_default()
    }

    /// As `--source` names it, `KIND:PLACE`.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}:{}", self.backup_type.as_str(), self.place())
    }

    /// Whether both are the same file, folder or server.
    pub(in crate::source) fn is_same_place(&self, other: &Candidate) -> bool {
        self.backup_type == other.backup_type && self.place() == other.place()
    }
}

/// A path that was named, from the root: a configuration stands in another folder than who types it. What
/// cannot be made so stays as it is.
pub(in crate::source) fn absolute(path: &str) -> String {
    let whole = std::path::absolute(path).ok();
    whole.and_then(|path| path.to_str().map(str::to_owned)).unwrap_or_else(|| path.to_owned())
}

/// The end of a path as the name of a source, without what names may not contain.
pub(in crate::source) fn name_of(path: &str, otherwise: &str) -> String {
    let stem = Path::new(path).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let name: String =
        stem.to_ascii_lowercase().chars().map(|c| if fits(c) { c } else { '-' }).collect();
    let name: String = name.trim_matches('-').chars().take(64).collect();
    if name.is_empty() { otherwise.to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_the_end_of_a_path() {
        assert_eq!(name_of("/srv/Analytics v2.duckdb", "x"), "analytics-v2");
        assert_eq!(name_of("/srv/été/--", "x"), "x");
    }
}
