//! Where the configuration refers to secrets: variables, which child processes do not inherit, and
//! files, which must be private to their owner.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::{Settings, check};
use crate::table::ConfigError;

impl Settings {
    /// Every reference to a secret, by its key path.
    fn references(&self) -> Vec<(String, &str)> {
        let tables = [("keys".to_owned(), &self.recipients)].into_iter();
        let of_sources = self.sources.iter();
        let of_sources =
            of_sources.map(|(name, source)| (format!("source.{name}"), &source.recipients));
        let recipients = tables.chain(of_sources).flat_map(|(table, texts)| {
            texts.iter().enumerate().map(move |(index, text)| {
                let mut kinds = ["passphrase:", "age:"].into_iter();
                let reference = kinds.find_map(|kind| text.strip_prefix(kind)).unwrap_or(text);
                (format!("{table}.recipients[{index}]"), reference)
            })
        });
        let channels = self.notify.iter().flat_map(|to| {
            let place = format!("notify.{}", to.channel.name);
            let (url, password) = (to.channel.url.as_str(), to.channel.password.as_str());
            [(format!("{place}.url"), url), (format!("{place}.password"), password)]
        });
        let pings = self
            .jobs
            .values()
            .filter_map(|job| Some((format!("job.{}.ping", job.name), job.ping.as_deref()?)));
        let signing = self.signing_key.as_deref();
        let signing = signing.map(|reference| ("keys.signing_key".to_owned(), reference));
        recipients.chain(signing).chain(channels).chain(pings).collect()
    }

    /// Names of the variables of the environment that hold secrets.
    #[must_use]
    pub fn secret_variables(&self) -> Vec<String> {
        let references = self.references().into_iter();
        references.filter_map(|(_, text)| text.strip_prefix("env:").map(str::to_owned)).collect()
    }

    /// Looks at the files that hold secrets, as far as this user may see them, and reads none. Returns
    /// which of them are not there, apart from key files: those may yet be made.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] if others than its owner may use one: then nothing will read it.
    pub fn check_secret_files(&self) -> Result<Vec<String>, ConfigError> {
        let mut lacking = Vec::new();
        for (place, text) in self.references() {
            let Some(path) = check::secret_file(text) else { continue };
            match Path::new(path).metadata() {
                // Before the mode, whose hint would be to change that of a folder.
                Ok(found) if found.is_dir() => {
                    return Err(ConfigError::invalid(
                        place,
                        format!("{path} is a folder, not a file"),
                    ));
                }
                Ok(found) if found.permissions().mode() & 0o077 != 0 => {
                    let mode = found.permissions().mode() & 0o777;
                    let problem = format!("{path} is accessible to others (mode {mode:03o})");
                    return Err(
                        ConfigError::invalid(place, problem).suggest(format!("chmod 600 {path}"))
                    );
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    let of_sources = self.sources.values().flat_map(|source| &source.recipients);
                    if self.recipients.iter().chain(of_sources).all(|recipient| recipient != text) {
                        lacking.push(format!("{place}: file {path} does not exist"));
                    }
                }
                // Whoever checks need not be who runs it.
                Ok(_) | Err(_) => {}
            }
        }
        Ok(lacking)
    }

    /// Refuses secrets that stand in the configuration, for one that every user of the machine can read.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] names the first.
    pub(super) fn check_literals(&self) -> Result<(), ConfigError> {
        let mut references = self.references().into_iter();
        match references.find(|(_, text)| check::is_secret_url(text)) {
            None => Ok(()),
            Some((place, _)) => Err(ConfigError::invalid(
                place,
                "anyone who knows this URL can use it, and every user of this machine can read the configuration",
            )
            .suggest("write it to a file with mode 600 and refer to it, file:PATH; or make the configuration private with chmod o-r")),
        }
    }
}
