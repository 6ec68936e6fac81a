//! Errors in the configuration.

use std::path::PathBuf;

use crate::error::{Classify, Kind, diagnosed};

/// What is wrong with the configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// There is no file where one was named, or it cannot be read.
    #[error("cannot read the configuration {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// There is no configuration and the command needs one.
    #[error("no configuration found; searched {}", looked.join(", "))]
    Missing {
        /// The places.
        looked: Vec<String>,
    },
    /// The document is not valid.
    #[error("{place}: {problem}")]
    Invalid {
        /// File and line, or the key's path, or the flag.
        place: String,
        /// What is wrong. Never quotes a value that could be a secret.
        problem: String,
        /// A suggestion.
        hint: Option<String>,
    },
}

impl ConfigError {
    /// An invalid value at `place`, without a suggestion.
    pub fn invalid(place: impl Into<String>, problem: impl Into<String>) -> Self {
        ConfigError::Invalid { place: place.into(), problem: problem.into(), hint: None }
    }

    /// Adds a suggestion to an invalid value.
    #[must_use]
    pub fn suggest(self, suggestion: impl Into<String>) -> Self {
        match self {
            ConfigError::Invalid { place, problem, hint: _ } => {
                ConfigError::Invalid { place, problem, hint: Some(suggestion.into()) }
            }
            other @ (ConfigError::Unreadable { .. } | ConfigError::Missing { .. }) => other,
        }
    }
}

diagnosed!(ConfigError);

impl Classify for ConfigError {
    fn kind(&self) -> Kind {
        Kind::Config
    }

    fn hint(&self) -> Option<String> {
        match self {
            ConfigError::Missing { .. } => Some(
                "create one (see examples/bkp.toml), name it with --config, or pass --store and --key".into(),
            ),
            ConfigError::Invalid { hint, .. } => hint.clone(),
            ConfigError::Unreadable { .. } => None,
        }
    }
}
