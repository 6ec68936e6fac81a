//! Health rules for the backups of a source in a store.

use time::OffsetDateTime;

use super::ages::{DAY, spelled};
use super::finding::{Finding, Level};
use super::rule::Rule;
use super::sizes::is_odd;

/// Facts about the backups of a source in one store.
#[derive(Debug, Clone, Default)]
#[expect(clippy::struct_excessive_bools, reason = "things that are true or not by themselves")]
pub struct SourceFacts {
    /// Its name.
    pub name: String,
    /// The store.
    pub store: String,
    /// When its full backups began and their sizes in bytes, oldest first.
    pub full: Vec<(OffsetDateTime, u64)>,
    /// How many backups it has.
    pub backups: usize,
    /// Whether this host has made backups of it there.
    pub had: bool,
    /// How many of the newest were tried, if no key at hand opens any of them.
    pub unopenable: Option<usize>,
    /// How many of those are dated in the future.
    pub future: usize,
    /// How many of those have no object at all.
    pub empty: usize,
    /// Why the newest that is proven does not restore, if something that it needs is not there.
    pub broken: Option<String>,
    /// How many of those a verification has found damaged.
    pub damaged: usize,
    /// Whether the newest backup is damaged.
    pub newest_damaged: bool,
    /// Whether a job that is enabled makes backups of it, and whether one verifies them.
    pub made: bool,
    /// Whether a job that is enabled verifies them.
    pub verified: bool,
    /// Whether the jobs that make them were seen for the first time such a short while ago that the first
    /// one need not be late.
    pub young: bool,
    /// How many of its newest backups are full ones although each could have built on the one before.
    pub unexpected_fulls: usize,
    /// Places where its log is broken, of those that are recent.
    pub gaps: Vec<GapFacts>,
    /// Segments of its log that others continue and that are not there, in words.
    pub lost: Vec<String>,
}

/// A place where a log is broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GapFacts {
    /// When what is missing should have been shipped.
    pub at: OffsetDateTime,
    /// Why it is missing.
    pub why: String,
    /// Whether what comes after it restores again.
    pub mended: bool,
}

/// From how many full backups in a row on it is said that there are no increments.
const ANEW_MIN: usize = 3;

/// Findings about the backups of a source.
#[must_use]
pub fn of_source(source: &SourceFacts, now: OffsetDateTime) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut say = |level, rule, message: String| {
        let finding = Finding::new(level, rule, &source.name, message);
        // What nobody does is so wherever nothing is.
        let nobody = matches!(rule, Rule::Unscheduled | Rule::Unverified);
        found.push(if nobody { finding } else { finding.of_store(&source.store) });
    };
    if source.backups == 0 {
        let (level, message) = match source {
            SourceFacts { had: true, .. } => (
                Level::Critical,
                "no backup, although this host has made some there: is the file system mounted?",
            ),
            SourceFacts { young: true, .. } => (Level::Info, "no backup"),
            SourceFacts { .. } => (Level::Critical, "no backup"),
        };
        say(level, Rule::Missing, message.to_owned());
    }
    if source.unexpected_fulls >= ANEW_MIN {
        let count = source.unexpected_fulls;
        let message = format!(
            "the last {count} backups are full, although a job makes increments: see the warnings of its runs; most likely this host cannot open its own backups (no kms:Decrypt, or a mistyped passphrase: then nobody else can either)"
        );
        say(Level::Warning, Rule::UnexpectedFull, message);
    }
    if !source.made {
        say(Level::Warning, Rule::Unscheduled, "no enabled job backs it up".to_owned());
    } else if !source.verified {
        say(Level::Info, Rule::Unverified, "no enabled job verifies its backups".to_owned());
    }
    if let Some(tried) = source.unopenable {
        let message = format!(
            "no key on this host opens any of the newest {tried} backup(s): every new backup is full, and whether any restores is unknown; give this host a key that can open them, under [keys]"
        );
        say(Level::Warning, Rule::Unopened, message);
    }
    if source.future > 0 {
        let count = source.future;
        say(Level::Warning, Rule::Future, format!("{count} backup(s) are dated in the future"));
    }
    of_damage(source, &mut say);
    let sizes: Vec<u64> = source.full.iter().map(|(_, bytes)| *bytes).collect();
    if is_odd(&sizes) {
        let message = "the newest full backup differs greatly in size from earlier ones; cleanup removes none of them";
        say(Level::Warning, Rule::Size, message.to_owned());
    }
    let before = source.full.iter().rev().find(|(at, _)| now - *at > DAY * 30);
    if let Some(((_, old), (_, new))) = before.zip(source.full.last())
        && *new / 2 > *old
    {
        say(Level::Warning, Rule::Growth, format!("grew from {old} to {new} bytes in a month"));
    }
    for gap in &source.gaps {
        let (level, message) = gap.describe(now);
        say(level, Rule::Gap, message);
    }
    found
}

/// What is lost or damaged.
fn of_damage(source: &SourceFacts, say: &mut dyn FnMut(Level, Rule, String)) {
    if source.empty > 0 {
        let count = source.empty;
        say(Level::Critical, Rule::Damage, format!("objects of {count} backup(s) are missing"));
    }
    if let Some(why) = &source.broken {
        say(Level::Critical, Rule::Damage, format!("the newest backup does not restore: {why}"));
    }
    if source.damaged > 0 {
        let level = if source.newest_damaged { Level::Critical } else { Level::Warning };
        let count = source.damaged;
        let message = format!(
            "{count} backup(s) are damaged: see `bkp list --long`; cleanup neither counts nor removes them"
        );
        say(level, Rule::Damage, message);
    }
    for lost in &source.lost {
        let message = format!(
            "the log is missing {lost}: moments between it and the next snapshot cannot be restored; see `bkp verify {} --logs`",
            source.name
        );
        say(Level::Critical, Rule::Damage, message);
    }
}

impl GapFacts {
    /// The level and the message of the finding.
    fn describe(&self, now: OffsetDateTime) -> (Level, String) {
        let GapFacts { at, why, mended } = self;
        let (level, then) = if *mended {
            (Level::Warning, "")
        } else {
            (Level::Critical, "; nothing after it can be restored until the next snapshot")
        };
        (level, format!("the log has a gap, {} ago: {why}{then}", spelled(now - *at)))
    }
}
