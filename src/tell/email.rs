//! E-mail over SMTP: `smtp://host:25`, `smtp://host:587?tls=required`, `smtps://host:465`.

use anyhow::Context as _;
use lettre::message::header::ContentType;
use lettre::message::{Mailbox, Message};
use lettre::transport::smtp::authentication::Credentials;
use lettre::{SmtpTransport, Transport as _};

use super::{Channel, ChannelKind, News, PATIENCE, check_url, shown, url_of};
use crate::keys::secret;

/// E-mail.
pub const KIND: ChannelKind = ChannelKind { word: "email", check, tell };

fn check(channel: &Channel) -> Result<(), String> {
    check_url(&channel.url, &["smtps", "smtp"])?;
    if channel.url.contains('@') {
        return Err("write who logs in as `user` and `password`, not into the URL".to_owned());
    }
    let is_address = |text: &String| text.parse::<Mailbox>().is_ok();
    if !is_address(&channel.from) {
        return Err("`from` is the address of the sender".to_owned());
    }
    if channel.to.is_empty() || !channel.to.iter().all(is_address) {
        return Err("`to` is a list of addresses".to_owned());
    }
    if channel.user.is_empty() != channel.password.is_empty() {
        return Err("`user` and `password` belong together".to_owned());
    }
    let is_open = channel.url.starts_with("smtp://") && !channel.url.contains("tls=required");
    if is_open && !channel.user.is_empty() {
        return Err("a password needs smtps:// or ?tls=required".to_owned());
    }
    Ok(())
}

fn tell(channel: &Channel, news: &News) -> anyhow::Result<()> {
    let url = url_of(&channel.url)?;
    let mut message = Message::builder()
        .from(channel.from.parse()?)
        .subject(news.subject())
        .header(ContentType::TEXT_PLAIN);
    for to in &channel.to {
        message = message.to(to.parse()?);
    }
    let message = message.body(news.text())?;
    let mut transport = SmtpTransport::from_url(&url)?.timeout(Some(PATIENCE));
    if !channel.user.is_empty() {
        let password = secret::read(&channel.password)?;
        let password = std::str::from_utf8(&password).context("the password is no text")?;
        transport = transport.credentials(Credentials::new(channel.user.clone(), password.into()));
    }
    transport.build().send(&message).with_context(|| shown(&url))?;
    Ok(())
}
