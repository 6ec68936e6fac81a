//! What a first configuration is to say: from flags, else from who is asked, else from what was found.

use std::path::{Path, PathBuf};

use super::document::FirstConfiguration;
use crate::config::Settings;
use crate::source::discovery::{self, Candidate};
use crate::table::ConfigError;
use crate::wire::Ask;

/// What is offered where an interval is asked for.
const SUITS: &str = "what suits the source";

/// Everything that the configuration is to say.
///
/// # Errors
/// [`ConfigError::Invalid`], naming the flag, where nobody says what is needed.
pub(super) fn plan(
    settings: &Settings,
    ask: &Ask,
    sources: &[String],
    schedule: Option<&str>,
) -> anyhow::Result<FirstConfiguration> {
    let found = discovery::find();
    let texts = if sources.is_empty() { asked(ask, &found)? } else { sources.to_vec() };
    let sources = candidates(&texts, &found)?;
    let store = store(settings, ask)?;
    let schedule = if let Some(when) = schedule {
        Some(when.to_owned())
    } else {
        let question = "How often? An interval such as 6h, or a time such as daily at 03:00";
        ask(question, SUITS)?.filter(|when| when != SUITS)
    };
    let mut recipients: Vec<String> = settings.recipients.iter().map(|text| plain(text)).collect();
    if recipients.is_empty() {
        recipients.push(format!("file:{}", settings.state_dir.join("key").display()));
    }
    let state_dir = settings.state_dir.display().to_string();
    Ok(FirstConfiguration { state_dir, store, recipients, sources, schedule })
}

fn missing(flag: &str, hint: &str) -> ConfigError {
    ConfigError::invalid(flag, "needed to write a configuration").suggest(hint)
}

fn store(settings: &Settings, ask: &Ask) -> anyhow::Result<String> {
    let store = match settings.store.as_slice() {
        [only] => only.clone(),
        [] => {
            let offered = format!("file://{}", settings.state_dir.join("backups").display());
            let said = ask("Where do backups go? file:///FOLDER or s3://BUCKET/PREFIX", &offered)?;
            let hint = "say where backups go: --store file:///var/backups/bkp";
            said.ok_or_else(|| missing("--store", hint))?
        }
        _ => {
            let hint = "name one store; more are added to the configuration";
            return Err(missing("--store", hint).into());
        }
    };
    if store.contains("://") {
        return Ok(store);
    }
    let hint = "write a URL: file:///FOLDER or s3://BUCKET/PREFIX";
    Err(ConfigError::invalid("--store", "not a URL").suggest(hint).into())
}

/// What somebody at a terminal names, or else the only one that was found.
fn asked(ask: &Ask, found: &[Candidate]) -> anyhow::Result<Vec<String>> {
    let texts: Vec<String> = found.iter().map(Candidate::text).collect();
    let shown = |one: &Candidate| {
        format!("{} ({})", one.text(), one.evidence.as_deref().unwrap_or_default())
    };
    let listed = found.iter().map(shown).collect::<Vec<_>>().join("\n  ");
    let (question, offered) = match found {
        [] => ("Nothing was found here. What is to be backed up? KIND:PLACE".to_owned(), ""),
        _ => (
            format!(
                "Found here:\n  {listed}\nWhat is to be backed up? `all` of these, or KIND:PLACE"
            ),
            "all",
        ),
    };
    match ask(&question, offered)? {
        Some(said) if said == "all" && !texts.is_empty() => Ok(texts),
        Some(said) => Ok(vec![said]),
        None if texts.len() == 1 => Ok(texts),
        None if texts.is_empty() => {
            let hint = "say what to back up: --source KIND:PLACE; nothing was found here";
            Err(missing("--source", hint).into())
        }
        None => {
            let hint =
                format!("several were found; name those to back up with --source:\n  {listed}");
            Err(missing("--source", &hint).into())
        }
    }
}

/// The sources, each with a name of its own.
fn candidates(texts: &[String], found: &[Candidate]) -> Result<Vec<Candidate>, ConfigError> {
    let mut sources: Vec<Candidate> = Vec::new();
    for text in texts {
        let mut source = discovery::named(text, found)?;
        let taken = |name: &str| sources.iter().any(|other| other.name == name);
        if taken(&source.name) {
            let mut names = (2..).map(|number| format!("{}-{number}", source.name));
            source.name = names.find(|name| !taken(name)).unwrap_or_default();
        }
        sources.push(source);
    }
    Ok(sources)
}

/// A recipient without the `.` that a path typed in a folder may have.
fn plain(recipient: &str) -> String {
    recipient.strip_prefix("file:").map_or_else(
        || recipient.to_owned(),
        |path| format!("file:{}", Path::new(path).components().collect::<PathBuf>().display()),
    )
}
