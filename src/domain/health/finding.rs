//! Findings of rules: level, rule, subject and message.

use schemars::JsonSchema;
use serde::Serialize;

use super::rule::Rule;

/// The severity of a finding.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    serde::Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Worth knowing.
    Info,
    /// Worth a look today.
    Warning,
    /// A promise is broken.
    Critical,
}

impl Level {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Info => "info",
            Level::Warning => "warning",
            Level::Critical => "critical",
        }
    }
}

/// Something that is wrong: what a rule found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Finding {
    /// The severity.
    pub level: Level,
    /// The rule, for instance `late`.
    #[schemars(with = "String")]
    pub rule: Rule,
    /// What it is about: a job, a source, a store.
    pub subject: String,
    /// The store in which that is so, if it need not be so in others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// What is wrong, in one sentence.
    pub message: String,
}

impl Finding {
    pub(super) fn new(level: Level, rule: Rule, subject: &str, message: String) -> Finding {
        Finding { level, rule, subject: subject.to_owned(), store: None, message }
    }

    /// Its subject, and the store if it is about that alone.
    #[must_use]
    pub fn about(&self) -> String {
        about(&self.subject, self.store.as_deref())
    }

    pub(super) fn of_store(self, store: &str) -> Finding {
        Finding { store: Some(store.to_owned()), ..self }
    }
}

/// What something is about, in words: a subject, and perhaps one store.
#[must_use]
pub fn about(subject: &str, store: Option<&str>) -> String {
    match store.filter(|store| *store != subject) {
        Some(store) => format!("{subject} in {store}"),
        None => subject.to_owned(),
    }
}
