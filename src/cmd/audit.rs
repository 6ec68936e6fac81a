//! What the store keeps of what was done to it and with it: small objects that are only ever added.
//!
//! ```text
//! audit/<YYYY>/<MM>/<DD>/<what>-<backup id>-<hhmmss>.json
//! ```

use serde::Serialize;
use time::{Date, OffsetDateTime};

use super::alone::host;
use super::journal;
use crate::domain::id::BackupId;
use crate::store::{AppendStore, Role};
use crate::wire::House;

/// Where it is.
pub const FOLDER: &str = "audit";

/// What such an object says, schema `bkp.audit/1`.
#[derive(Debug, Serialize)]
struct Line<'a, T> {
    schema: &'static str,
    what: &'a str,
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
    backup: BackupId,
    host: String,
    process: u32,
    #[serde(flatten)]
    more: &'a T,
}

/// The folder of the month of a day.
#[must_use]
pub fn month(day: Date) -> String {
    format!("{FOLDER}/{:04}/{:02}", day.year(), u8::from(day.month()))
}

/// The key of what was done at a time. `what` is one word of lower-case letters.
#[must_use]
pub fn key(what: &str, backup: BackupId, at: OffsetDateTime) -> String {
    let (hour, minute, second) = at.to_hms();
    let time = format!("{hour:02}{minute:02}{second:02}");
    format!("{}/{:02}/{what}-{backup}-{time}.json", month(at.date()), at.day())
}

/// Adds what was done to a backup; `more` is what else there is to say.
///
/// # Errors
/// What the store fails with.
pub fn add(
    house: &House,
    store: &dyn AppendStore,
    (what, backup): (&str, BackupId),
    more: &impl Serialize,
) -> anyhow::Result<()> {
    let at = house.ctx.now();
    let (schema, process) = ("bkp.audit/1", std::process::id());
    let line = Line { schema, what, at, backup, host: host(), process, more };
    journal::add(store, (&key(what, backup, at), Role::Index), &line)
}
