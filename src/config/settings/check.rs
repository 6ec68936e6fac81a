//! Checks of single values that types cannot express. None of them does I/O.

use std::path::Path;
use std::time::Duration;

use crate::domain::names::is_name;
use crate::keys::kinds::RECIPIENTS;
use crate::store::kinds::STORES;
use crate::store::{StoreKind, StoreLocation};
use crate::table::ConfigError;
use crate::table::nearest;
use crate::table::units::duration;

/// Where a secret may be, as the word before the colon.
const REFERENCES: [&str; 4] = ["file", "env", "credential", "cmd"];

/// Whether `name` may name a store or source.
pub(super) fn name(table: &str, name: &str) -> Result<(), ConfigError> {
    if is_name(name) {
        return Ok(());
    }
    let place = crate::table::join(table, name);
    Err(ConfigError::invalid(place, format!("not a valid name for a {table}"))
        .suggest("names consist of 1 to 64 of a-z, 0-9, _ and -, and begin with a letter or digit"))
}

/// Whether `tenant` may name a tenant of the source at `place`.
pub(super) fn tenant(place: &str, tenant: &str) -> Result<(), ConfigError> {
    if is_name(tenant) {
        return Ok(());
    }
    let problem = format!("`{tenant}` is not a valid tenant name");
    Err(ConfigError::invalid(crate::table::join(place, "tenant"), problem)
        .suggest("names consist of 1 to 64 of a-z, 0-9, _ and -, and begin with a letter or digit"))
}

/// The age from which on a key is to be replaced.
pub(super) fn key_age(text: Option<&str>) -> Result<Option<Duration>, ConfigError> {
    const DAY: u64 = 86_400;
    text.map(|text| duration("keys.max_age", text, DAY, 36_525 * DAY)).transpose()
}

/// Whether `url` has a scheme that a store answers to, and no secret; the kind of that store.
pub(super) fn url(place: &str, url: &str) -> Result<&'static StoreKind, ConfigError> {
    let known = || STORES.iter().map(|kind| kind.scheme).collect::<Vec<_>>();
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(ConfigError::invalid(place, "not a URL")
            .suggest("write it like file:///var/backups/bkp"));
    };
    let kind = STORES.iter().find(|kind| kind.scheme == scheme).ok_or_else(|| {
        let error = ConfigError::invalid(place, format!("unknown store scheme `{scheme}`"));
        error.suggest(format!("known schemes: {}", known().join(", ")))
    })?;
    let authority = rest.split('/').next().unwrap_or_default();
    if authority.contains('@') {
        return Err(ConfigError::invalid(place, "a URL must not hold a user or password")
            .suggest("pass credentials in the environment of bkp, not in its configuration"));
    }
    Ok(kind)
}

/// Whether `text` is a URL or could be a store's name.
pub(super) fn store_choice(place: &str, text: &str) -> Result<(), ConfigError> {
    if text.contains("://") {
        let kind = url(place, text)?;
        let at = StoreLocation { name: place.to_owned(), ..StoreLocation::of_url(text) };
        return (kind.check)(&at).map(|_url| ());
    }
    if is_name(text) {
        return Ok(());
    }
    let error = ConfigError::invalid(place, format!("`{text}` is neither a store name nor a URL"));
    let path = Path::new(text);
    let hint = if path.is_absolute() {
        format!("for a folder, write file://{text}")
    } else {
        "for a folder, write file:// and its absolute path".to_owned()
    };
    Err(error.suggest(hint))
}

/// Whether a recipient has a known kind and, for a passphrase, refers to the secret instead of
/// being it. Messages never quote what could be a secret.
pub(super) fn recipient(place: &str, text: &str) -> Result<(), ConfigError> {
    let known: Vec<&str> = RECIPIENTS.iter().map(|kind| kind.prefix).collect();
    let written =
        format!("recipients are written as KIND:WHERE, with KIND one of: {}", known.join(", "));
    let Some((kind, rest)) = text.split_once(':') else {
        let is_path = text.starts_with(['/', '.', '~']);
        let hint = if is_path { format!("for a key file, write file:{text}") } else { written };
        return Err(ConfigError::invalid(place, "not a recipient").suggest(hint));
    };
    if !known.contains(&kind) {
        let hint = nearest(kind, known.iter().copied());
        let hint = hint.map_or(written, |word| format!("did you mean `{word}:`?"));
        return Err(ConfigError::invalid(place, "unknown kind of recipient").suggest(hint));
    }
    if rest.is_empty() {
        let problem = format!("nothing after `{kind}:`");
        return Err(ConfigError::invalid(place, problem).suggest(written));
    }
    let checked =
        RECIPIENTS.iter().find(|known| known.prefix == kind).map(|known| (known.check)(rest));
    if let Some(Err((problem, hint))) = checked {
        return Err(ConfigError::invalid(place, problem).suggest(hint));
    }
    let referred = rest
        .split_once(':')
        .is_some_and(|(word, what)| REFERENCES.contains(&word) && !what.is_empty());
    if kind == "passphrase" && !referred {
        return Err(ConfigError::invalid(place, "a passphrase must not stand in the configuration")
            .suggest("refer to it: passphrase:file:PATH, passphrase:env:NAME, passphrase:credential:NAME or passphrase:cmd:COMMAND"));
    }
    Ok(())
}

/// The path of the file that `text` refers to as a secret, if it does.
pub(super) fn secret_file(text: &str) -> Option<&str> {
    text.strip_prefix("file:").filter(|path| !path.starts_with("//"))
}

/// Whether whoever knows this URL of the web can do what bkp can: most services have no other secret than
/// what stands behind the host.
pub(super) fn is_secret_url(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let Some(rest) = rest else { return false };
    let (authority, path) = rest.split_once(['/', '?']).unwrap_or((rest, ""));
    authority.contains('@') || !path.is_empty()
}

/// The recipient, or the reference to a secret, with a relative path of a file taken relative to `folder`.
pub(super) fn resolve_path(recipient: &str, folder: &Path) -> String {
    let prefix = ["file:", "passphrase:file:", "age:file:"];
    if recipient.starts_with("file://") {
        return recipient.to_owned();
    }
    let found = prefix.iter().find_map(|prefix| Some((prefix, recipient.strip_prefix(prefix)?)));
    found.map_or_else(
        || recipient.to_owned(),
        |(prefix, path)| format!("{prefix}{}", folder.join(path).display()),
    )
}

/// No name stands twice.
pub(super) fn check_unique(place: &str, names: &[String]) -> Result<(), ConfigError> {
    let twice = names
        .iter()
        .enumerate()
        .find(|(index, name)| names.iter().take(*index).any(|n| n == *name));
    match twice {
        Some((_, name)) => Err(ConfigError::invalid(place, format!("`{name}` is listed twice"))),
        None => Ok(()),
    }
}

pub(super) fn unknown<'a>(
    place: String,
    what: &str,
    word: &str,
    known: impl Iterator<Item = &'a str> + Clone,
) -> ConfigError {
    let hint = match nearest(word, known.clone()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("known: {}", known.collect::<Vec<_>>().join(", ")),
    };
    ConfigError::invalid(place, format!("unknown {what} `{word}`")).suggest(hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Classify;

    #[test]
    fn recipients_are_checked_without_quoting_secrets() {
        for good in ["file:/k", "passphrase:env:PASS", "passphrase:cmd:pass show bkp"] {
            assert!(recipient("p", good).is_ok(), "{good}");
        }
        for bad in ["passphrase:hunter2", "hunter2", "filet:hunter2", "passphrase:pw:hunter2"] {
            let error = recipient("p", bad).expect_err(bad);
            let text = format!("{error} {:?}", error.hint());
            assert!(!text.contains("hunter2"), "{text}");
        }
        assert!(recipient("p", "file:").is_err());
    }

    #[test]
    fn stores_are_urls_or_names() {
        assert!(store_choice("--store", "main").is_ok());
        assert!(store_choice("--store", "file:///b").is_ok());
        assert!(url("p", "file://user:pass@host/b").is_err());
        assert!(url("p", "ftp://host/b").is_err());
        let error = store_choice("--store", "/var/b").expect_err("a path");
        assert_eq!(error.hint().as_deref(), Some("for a folder, write file:///var/b"));
    }

    #[test]
    fn relative_key_files_belong_to_the_folder_of_the_configuration() {
        let folder = Path::new("/etc/bkp");
        assert_eq!(resolve_path("file:key", folder), "file:/etc/bkp/key");
        assert_eq!(resolve_path("passphrase:file:p", folder), "passphrase:file:/etc/bkp/p");
        assert_eq!(resolve_path("age:file:a", folder), "age:file:/etc/bkp/a");
        assert_eq!(resolve_path("file:/key", folder), "file:/key");
        assert_eq!(resolve_path("passphrase:env:P", folder), "passphrase:env:P");
        assert_eq!(resolve_path("https://a.example/x", folder), "https://a.example/x");
    }
}
