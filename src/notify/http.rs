//! Notifications over HTTP: webhooks with JSON, Slack, and pings for healthcheck services.

use crate::notify::{Channel, ChannelKind, Notification, PATIENCE, check_url, resolved, shown};

const SCHEMES: [&str; 2] = ["https", "http"];

/// Gets the news as a JSON object.
pub const WEBHOOK: ChannelKind = ChannelKind {
    word: "webhook",
    check: |channel| check_url(&channel.url, &SCHEMES),
    send: |channel, news| {
        post(&resolved(&channel.url, &SCHEMES)?, &serde_json::to_vec(news)?, JSON)
    },
};

/// Gets the news as text, in the shape that Slack and its likes take.
pub const SLACK: ChannelKind =
    ChannelKind { word: "slack", check: |channel| check_slack(&channel.url), send: slack };

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// Who knows the URL of a Slack webhook can write to the channel, so it is a secret.
fn check_slack(url: &str) -> Result<(), String> {
    if url.starts_with("https://hooks.slack.com/") {
        return Err("the URL is a secret: write it to a file and refer to it, file:PATH".to_owned());
    }
    check_url(url, &SCHEMES)
}

fn slack(channel: &Channel, news: &Notification) -> anyhow::Result<()> {
    let text = format!("*{}*\n{}", news.subject(), news.text());
    let body = serde_json::json!({ "text": text });
    post(&resolved(&channel.url, &SCHEMES)?, &serde_json::to_vec(&body)?, JSON)
}

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ping {
    /// It begins.
    Start,
    /// It ended with this exit code.
    End(u8),
}

/// Pings the URL of a job; `message` is what the service shows.
///
/// # Errors
/// If the service does not take it.
pub fn ping(url: &str, ping: Ping, message: &str) -> anyhow::Result<()> {
    let url = resolved(url, &SCHEMES)?;
    let url = url.trim_end_matches('/');
    let url = match ping {
        Ping::Start => format!("{url}/start"),
        Ping::End(code) => format!("{url}/{code}"),
    };
    post(&url, message.as_bytes(), TEXT)
}

fn post(url: &str, body: &[u8], kind: &str) -> anyhow::Result<()> {
    let config = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).max_redirects(0);
    let agent: ureq::Agent = config.build().into();
    let sent = agent.post(url).header("content-type", kind).send(body);
    match sent {
        Ok(answer) if answer.status().is_success() => Ok(()),
        Ok(answer) => anyhow::bail!("{} answers {}", shown(url), answer.status()),
        // These two would say the whole URL, and with it the secret.
        Err(ureq::Error::BadUri(_) | ureq::Error::Http(_)) => {
            anyhow::bail!("{}: not a valid URL", shown(url))
        }
        Err(error) => anyhow::bail!("{}: {error}", shown(url)),
    }
}
