//! Configuration: TOML, environment and flags become [`Settings`]. The only reader of the
//! environment.
//!
//! - [`file`]: the TOML document, its keys and their documentation.
//! - [`table`]: from a TOML table to a type, with errors that name the key and suggest the right one.
//! - [`settings`]: finding the file, resolving defaults, checking what types cannot.
//! - [`environment`]: the variables that count, read once.
//! - `exposure`: who else may change the file, or read it.
//! - [`schema`]: the JSON Schema of the document.
//! - [`units`]: durations as people write them.

use std::path::PathBuf;

use crate::error::{Classify, Kind};

pub mod environment;
mod exposure;
pub mod file;
pub mod schema;
pub mod settings;
pub mod table;
pub mod units;

pub use environment::Environment;
pub use settings::Settings;
pub use table::parse_table;

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
    #[error("no configuration found; looked at {}", looked.join(", "))]
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

impl Classify for ConfigError {
    fn kind(&self) -> Kind {
        Kind::Config
    }

    fn hint(&self) -> Option<String> {
        match self {
            ConfigError::Missing { .. } => Some(
                "write one (see examples/bkp.toml), name it with --config, or give --store and --key".into(),
            ),
            ConfigError::Invalid { hint, .. } => hint.clone(),
            ConfigError::Unreadable { .. } => None,
        }
    }
}
