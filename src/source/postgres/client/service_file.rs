//! libpq's service files: connection strings by name.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::keywords::Pairs;
use crate::error::{Fault, Kind};

/// The keywords and values of `service` in the first of the files that has it.
///
/// # Errors
/// [`Kind::Config`] if none has it, or one cannot be read.
pub(super) fn find(service: &str, files: &[PathBuf]) -> Result<Pairs, Fault> {
    for file in files {
        let text = match fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => {
                let message = format!("service file {}: {error}", file.display());
                let hint = "let bkp read it, or name another one with PGSERVICEFILE";
                return Err(Fault::new(Kind::Config, message).hint(hint));
            }
        };
        if let Some(pairs) = section(&text, service, file)? {
            return Ok(pairs);
        }
    }
    let places: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    let message = format!("no service `{service}` in {}", places.join(", "));
    Err(Fault::new(Kind::Config, message).hint(format!("add a section [{service}] to one of them")))
}

/// The section of that name. Lines are keyword=value without quotes; # begins a comment.
fn section(text: &str, service: &str, file: &Path) -> Result<Option<Pairs>, Fault> {
    let mut found: Option<Pairs> = None;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(rest) = line.strip_prefix('[') {
            if found.is_some() {
                break;
            }
            found = (rest.strip_suffix(']') == Some(service)).then(Pairs::new);
        } else if let Some(pairs) = &mut found {
            let pair = line.split_once('=').filter(|(word, _)| *word != "service");
            let (keyword, value) = pair.ok_or_else(|| {
                let place = format!("service file {}, line {}", file.display(), index + 1);
                Fault::new(Kind::Config, format!("{place}: not keyword=value"))
                    .hint("write one keyword=value in each line of a section, and no `service`")
            })?;
            pairs.push((keyword.trim_ascii().to_owned(), value.to_owned()));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "files of a test need not be durable")]

    use super::*;

    #[test]
    fn a_section_ends_where_the_next_begins() {
        let text = "# services\nx=y\n[a]\nhost=h1\n\n#c\n port=1\n[b]\nhost=h2\n[a]\nhost=h3\n";
        let found = |service| section(text, service, Path::new("f")).unwrap();
        assert_eq!(
            found("a").unwrap(),
            [("host".into(), "h1".into()), ("port".into(), "1".into())]
        );
        assert_eq!(found("b").unwrap().len(), 1);
        assert_eq!(found("c"), None);
        assert!(section("[a]\nhost\n", "a", Path::new("f")).is_err());
    }

    #[test]
    fn a_service_that_no_file_has_is_named_with_the_files() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pg_service.conf");
        fs::write(&file, "[a]\nhost=h\n").unwrap();
        let files = [folder.path().join("none"), file.clone()];
        assert_eq!(find("a", &files).unwrap().len(), 1);
        let message = find("b", &files).unwrap_err().to_string();
        assert!(message.contains(&file.display().to_string()), "{message}");
    }
}
