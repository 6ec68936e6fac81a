//! Notifications to people and programs: that something is wrong or has recovered, and how a job ended.
//!
//! All of it is best effort: nothing here ever fails a run, and nothing that fails here is silent. A new
//! kind of channel is one file and one line in [`kinds::KINDS`].
//!
//! - [`http`]: a webhook, Slack, and the ping of a dead man's switch; [`email`]: SMTP.
//! - [`hook`]: programs of the operator around a run.

use std::time::Duration;

use serde::Serialize;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::ctx::Cancel;
use crate::domain::health::{Level, about};
use crate::keys::{KeyError, secret};

pub mod email;
pub mod hook;
pub mod http;
pub mod kinds;

/// How long any of them may take.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// One finding that is new, worse, lasting or resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Alert {
    /// The level of the finding, also after its recovery.
    pub level: Level,
    /// Whether it is over.
    pub recovered: bool,
    /// The rule that found it.
    pub rule: String,
    /// What it is about.
    pub subject: String,
    /// Whose data that holds, if its source has a tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The store in which that is so, if it need not be so in others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// What is wrong.
    pub message: String,
}

/// What is told at once, schema `bkp.alert/1`.
#[derive(Debug, Clone, Serialize)]
pub struct Notification {
    /// `bkp.alert/1`.
    pub schema: &'static str,
    /// The host that tells it.
    pub host: String,
    /// When the news was sent.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// The items; at least one.
    pub alerts: Vec<Alert>,
}

impl Notification {
    /// One line for a subject.
    #[must_use]
    pub fn subject(&self) -> String {
        let bad = self.alerts.iter().filter(|alert| !alert.recovered);
        match (bad.clone().map(|alert| alert.level).max(), bad.count()) {
            (None, _) => format!("bkp on {}: recovered", self.host),
            (Some(level), count) => format!("bkp on {}: {} ({count})", self.host, level.as_str()),
        }
    }

    /// A line for each.
    #[must_use]
    pub fn text(&self) -> String {
        let lines = self.alerts.iter().map(|alert| {
            let Alert { level, recovered, rule, subject, tenant, store, message } = alert;
            let tenant = tenant.as_ref().map(|tenant| format!(" (tenant {tenant})"));
            let tenant = tenant.unwrap_or_default();
            let word = if *recovered { "recovered" } else { level.as_str() };
            let about = about(subject, store.as_deref());
            format!("{word}: {about}{tenant}: {message} ({rule})\n")
        });
        lines.collect()
    }
}

/// Where news goes, as configured.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Channel {
    /// Its name.
    pub name: String,
    /// The word for its kind.
    pub kind: String,
    /// A URL, or a reference to a secret that is one.
    pub url: String,
    /// For e-mail: the sender.
    pub from: String,
    /// For e-mail: the recipients.
    pub to: Vec<String>,
    /// For e-mail: who logs in; nobody if empty.
    pub user: String,
    /// For e-mail: a reference to the password.
    pub password: String,
}

/// A kind of channel: one line of [`kinds::KINDS`].
#[derive(Debug)]
pub struct ChannelKind {
    /// The word for it.
    pub word: &'static str,
    /// Says what is wrong with a channel, without going anywhere.
    pub check: fn(&Channel) -> Result<(), String>,
    /// Sends news through the channel.
    pub send: fn(&Channel, &Notification) -> anyhow::Result<()>,
}

/// The secret that `reference` points to; what is wrong with it in words that fit any secret.
///
/// # Errors
/// If it cannot be read; with what to do about it.
fn secret_of(reference: &str) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    // That a run was told to stop is news, too: it has its own time limit.
    secret::read(reference, &Cancel::default()).map_err(|error| match error {
        KeyError::Unusable { origin, problem, hint } => {
            let hint = hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
            anyhow::anyhow!("the secret {origin}: {problem}{hint}")
        }
        other @ (KeyError::Unknown { .. }
        | KeyError::Forbidden { .. }
        | KeyError::Away { .. }
        | KeyError::Spent { .. }
        | KeyError::Wrong { .. }
        | KeyError::Sealed { .. }
        | KeyError::NoneFits { .. }
        | KeyError::Random
        | KeyError::Stopped(_)) => other.into(),
    })
}

/// Tries to get at everything secret that a channel needs, and tells nobody anything.
///
/// # Errors
/// What cannot be read.
pub fn check_secrets(channel: &Channel) -> anyhow::Result<()> {
    url_of(&channel.url)?;
    if !channel.password.is_empty() {
        secret_of(&channel.password)?;
    }
    Ok(())
}

/// The URL that `text` is or refers to.
///
/// # Errors
/// If the secret cannot be read or is no text.
pub fn url_of(text: &str) -> anyhow::Result<String> {
    if text.contains("://") {
        return Ok(text.to_owned());
    }
    let bytes = secret_of(text)?;
    Ok(std::str::from_utf8(&bytes)?.to_owned())
}

/// The URL that `text` is or refers to, which must be one of these schemes: what a secret refers to was
/// not checked with the configuration.
///
/// # Errors
/// As [`url_of`], and if it is none; the message has nothing of it.
pub fn resolved(text: &str, schemes: &[&str]) -> anyhow::Result<String> {
    let url = url_of(text)?;
    let url = url.trim();
    if url.contains("://") && check_url(url, schemes).is_ok() {
        return Ok(url.to_owned());
    }
    anyhow::bail!("the reference does not contain a URL ({}://)", schemes.join(":// or "))
}

/// Whether `text` may be a URL of one of these schemes, or refers to a secret.
///
/// # Errors
/// What is wrong with it.
pub fn check_url(text: &str, schemes: &[&str]) -> Result<(), String> {
    let reference = ["file:", "env:", "credential:", "cmd:"];
    let is_url = schemes.iter().any(|scheme| {
        text.strip_prefix(scheme)
            .and_then(|rest| rest.strip_prefix("://"))
            .is_some_and(|r| !r.is_empty())
    });
    let is_reference = !text.contains("://") && reference.iter().any(|kind| text.starts_with(kind));
    if is_url || is_reference {
        return Ok(());
    }
    let schemes = schemes.join(":// or ");
    Err(format!("write a URL ({schemes}://), or a reference to one: file:PATH, env:NAME"))
}

/// A URL without what could be a secret: its path and who logs in.
#[must_use]
pub fn shown(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let host = rest.split(['/', '?']).next().unwrap_or_default();
    let host = host.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_be_a_secret_is_not_shown() {
        assert_eq!(shown("https://hooks.example/T0/B0/secret?x=y"), "https://hooks.example");
        assert_eq!(shown("smtp://me:secret@mail.example:25/x"), "smtp://mail.example:25");
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a file of a test")]
    fn what_a_reference_leads_to_is_checked_and_not_shown() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("url");
        let of = |text: &str| {
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::write(&file, text).expect("written");
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("set");
            let reference = format!("file:{}", file.display());
            resolved(&reference, &["https"]).map_err(|error| format!("{error:#}"))
        };
        assert_eq!(of("https://a.example/x\n"), Ok("https://a.example/x".to_owned()));
        for wrong in ["secret", "http://a.example/secret", "file:/etc/secret", "https://"] {
            let message = of(wrong).expect_err("it is no such URL");
            assert!(!message.contains("secret") && message.contains("https://"), "{message}");
        }
    }

    #[test]
    fn urls_are_checked() {
        let check = |text| check_url(text, &["https", "http"]).is_ok();
        assert!(
            check("https://a/b") && check("http://a") && check("file:/etc/url") && check("env:X")
        );
        assert!(!check("ftp://a") && !check("https://") && !check("a.example") && !check(""));
        assert!(!check("file://a"), "that is no reference");
    }
}
