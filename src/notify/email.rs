//! E-mail over SMTP: `smtp://host:25`, `smtp://host:587?tls=required`, `smtps://host:465`.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use lettre::message::header::ContentType;
use lettre::message::{Mailbox, Message};
use lettre::transport::smtp::authentication::Credentials;
use lettre::{SmtpTransport, Transport as _};

use crate::keys::secret;
use crate::notify::{
    Channel, ChannelKind, Notification, PATIENCE, check_url, resolved, secret_of, shown,
};

const SCHEMES: [&str; 2] = ["smtps", "smtp"];
/// How long the whole of a message may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// E-mail.
pub const KIND: ChannelKind = ChannelKind { word: "email", check, send };

fn check(channel: &Channel) -> Result<(), String> {
    check_url(&channel.url, &SCHEMES)?;
    if channel.url.contains('@') {
        return Err("put the login into `user` and `password`, not into the URL".to_owned());
    }
    let is_address = |text: &String| text.parse::<Mailbox>().is_ok();
    if !is_address(&channel.from) {
        return Err("`from` must be the sender's address".to_owned());
    }
    if channel.to.is_empty() || !channel.to.iter().all(is_address) {
        return Err("`to` must be a list of addresses".to_owned());
    }
    if !channel.password.is_empty() && !secret::is_reference(&channel.password) {
        return Err(
            "write the password to a file with mode 600 and refer to it: file:PATH".to_owned()
        );
    }
    if channel.user.is_empty() != channel.password.is_empty() {
        return Err("`user` and `password` require each other".to_owned());
    }
    let is_open = channel.url.starts_with("smtp://") && !channel.url.contains("tls=required");
    if is_open && !channel.user.is_empty() {
        return Err("a password requires smtps:// or ?tls=required".to_owned());
    }
    Ok(())
}

fn send(channel: &Channel, news: &Notification) -> anyhow::Result<()> {
    // What a reference leads to was not checked with the configuration.
    let channel = Channel { url: resolved(&channel.url, &SCHEMES)?, ..channel.clone() };
    check(&channel).map_err(|problem| anyhow::anyhow!("{}: {problem}", shown(&channel.url)))?;
    let mut message = Message::builder()
        .from(channel.from.parse()?)
        .subject(news.subject())
        .header(ContentType::TEXT_PLAIN);
    for to in &channel.to {
        message = message.to(to.parse()?);
    }
    let message = message.body(news.text())?;
    // What its error says of the URL is not known.
    let no_url = |_error| anyhow::anyhow!("{}: not the URL of a mail server", shown(&channel.url));
    let mut transport = SmtpTransport::from_url(&channel.url).map_err(no_url)?;
    transport = transport.timeout(Some(PATIENCE));
    if !channel.user.is_empty() {
        let password = secret_of(&channel.password)?;
        let password = std::str::from_utf8(&password).context("the password is not UTF-8")?;
        transport = transport.credentials(Credentials::new(channel.user.clone(), password.into()));
    }
    let transport = transport.build();
    // Names are looked up without any limit, and every step of the conversation has its own.
    let (say, said) = mpsc::channel();
    thread::spawn(move || say.send(transport.send(&message).map(drop)));
    match said.recv_timeout(DEADLINE) {
        Ok(sent) => sent.with_context(|| shown(&channel.url)),
        Err(_silence) => {
            let limit = DEADLINE.as_secs();
            anyhow::bail!("{}: timed out after {limit} s", shown(&channel.url))
        }
    }
}
