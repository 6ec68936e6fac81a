//! A configuration that is yet to be written.

use std::path::{Path, PathBuf};

use super::{Environment, Flags, Settings, check, from_text, named, places, with_location};
use crate::table::ConfigError;

impl Settings {
    /// What flags and environment alone say, for the command that writes the configuration: [`Settings::file`]
    /// is where it belongs, for root the file of the whole machine, else the user's own.
    ///
    /// # Errors
    /// [`ConfigError`] if flags or environment are not valid.
    pub fn without_file(flags: &Flags, environment: &Environment) -> Result<Settings, ConfigError> {
        let named = named(flags, environment)?;
        let places = named.clone().map_or_else(|| places(environment), |path| vec![path]);
        let mut settings = Settings::default();
        settings.provenance.looked = places.iter().map(|path| path.display().to_string()).collect();
        let ours = if environment.root { places.last() } else { places.first() };
        settings.file = ours.map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone()));
        settings.program.clone_from(&environment.program);
        settings.apply_overrides(flags, environment)?;
        let here = std::path::absolute(".").unwrap_or_else(|_| PathBuf::from("/"));
        let recipients = settings.recipients.iter();
        settings.recipients =
            recipients.map(|recipient| check::resolve_path(recipient, &here)).collect();
        Ok(settings)
    }

    /// Makes sure that `text` is a configuration, as if it stood at `path`.
    ///
    /// # Errors
    /// [`ConfigError`] if it is none.
    pub fn check_text(path: &Path, text: &str) -> Result<(), ConfigError> {
        from_text(path, text).map_err(|error| with_location(error, path, text)).map(drop)
    }
}
