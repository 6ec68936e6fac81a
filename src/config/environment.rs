//! The environment variables that bkp uses, read once at the start.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use crate::table::ConfigError;

const NAMES: [&str; 10] = [
    "BKP_CONFIG",
    "BKP_STORE",
    "BKP_KEY",
    "BKP_JOB",
    "BKP_TRIGGER",
    "XDG_CONFIG_HOME",
    "XDG_STATE_HOME",
    "STATE_DIRECTORY",
    "HOME",
    "NO_COLOR",
];

/// The variables that count; nothing else of the process's environment is kept.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, OsString>,
    /// Whether the process runs as root.
    pub root: bool,
    /// The file of the program that runs.
    pub program: Option<PathBuf>,
}

impl Environment {
    /// The environment of this process.
    #[must_use]
    pub fn of_process() -> Self {
        let named = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            NAMES.contains(&name.as_str()).then_some((name, value))
        });
        Environment {
            variables: named.collect(),
            root: rustix::process::geteuid().is_root(),
            program: std::env::current_exe().ok(),
        }
    }

    /// An environment with these variables, for tests.
    #[must_use]
    pub fn of<const N: usize>(pairs: [(&str, &str); N]) -> Self {
        let variables = pairs.into_iter().map(|(name, value)| (name.to_owned(), value.into()));
        Environment { variables: variables.collect(), root: false, program: None }
    }

    /// Whether the operator asked for output without colour (see no-color.org).
    #[must_use]
    pub fn no_color(&self) -> bool {
        self.variables.get("NO_COLOR").is_some_and(|value| !value.is_empty())
    }

    /// A folder or file that a variable names. Base folders that are not absolute do not count, as
    /// the XDG specification demands.
    #[must_use]
    pub fn base(&self, name: &str) -> Option<PathBuf> {
        self.variables.get(name).map(PathBuf::from).filter(|path| path.is_absolute())
    }

    /// The text of a variable of bkp's own.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] if it is set and empty or not UTF-8: an operator who set it meant
    /// something, and going on without it would mean something else.
    pub fn text(&self, name: &str) -> Result<Option<String>, ConfigError> {
        let Some(value) = self.variables.get(name) else {
            return Ok(None);
        };
        match value.to_str() {
            Some("") => Err(ConfigError::invalid(format!("${name}"), "set but empty")
                .suggest(format!("unset {name}, or give it a value"))),
            Some(text) => Ok(Some(text.to_owned())),
            None => Err(ConfigError::invalid(format!("${name}"), "is not valid UTF-8")),
        }
    }

    /// The first folder of systemd's `$STATE_DIRECTORY`, which lists several with colons.
    #[must_use]
    pub fn state_directory(&self) -> Option<PathBuf> {
        let value = self.variables.get("STATE_DIRECTORY")?;
        let first = value.to_str()?.split(':').next()?;
        Some(PathBuf::from(first)).filter(|path| path.is_absolute())
    }
}
