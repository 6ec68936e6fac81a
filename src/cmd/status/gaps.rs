//! Where the log of a source is broken, as far as that is news: by its newest segments, and those of
//! recent runs that did only a part. The whole log is what `list --windows` reads.

use time::{Duration, OffsetDateTime};

use crate::catalog::{self, Entry};
use crate::domain::health::GapFacts;
use crate::domain::manifest::Manifest;
use crate::domain::record::{Outcome, Record};
use crate::domain::segment::{KIND, Mode, Segment};
use crate::store::ReadStore;

/// How many of the newest segments are read in any case.
const NEWEST: usize = 2;
/// How many segments are read at most.
const READ_MAX: usize = 20;
/// For how long a gap is news.
const NEWS: Duration = Duration::DAY;
/// How long after the end of a run its segment may be dated; clocks and seconds are rounded.
const SLACK: Duration = Duration::minutes(1);

/// The gaps of one source, of whose entries in this store these are, by the records of its jobs. A
/// segment that cannot be read has none: that is for `verify`.
pub(super) fn recent(
    store: &dyn ReadStore,
    entries: &[&Entry],
    records: &[Record],
    now: OffsetDateTime,
) -> Vec<GapFacts> {
    let segments = entries.iter().filter(|entry| entry.name.kind == KIND).rev();
    let is_news = |entry: &&&&Entry| now - entry.name.id.created() <= NEWS;
    let of_partial = |entry: &Entry| {
        let at = entry.name.id.created();
        let partial = records.iter().filter(|record| record.outcome() == Outcome::Partial);
        partial
            .map(|record| (record.id.created(), Duration::seconds(record.seconds.into())))
            .any(|(begun, took)| (begun - SLACK..=begun + took + SLACK).contains(&at))
    };
    let wanted = segments
        .enumerate()
        .filter(|(index, entry)| *index < NEWEST || of_partial(entry))
        .map(|(_, entry)| entry);
    let mut found = Vec::new();
    for entry in wanted.filter(|entry| is_news(&entry)).take(READ_MAX) {
        let Some(segment) = read(store, entry) else { continue };
        let at = entry.name.id.created();
        let Some(why) = segment.gap else { continue };
        let is_base =
            |other: &&Entry| other.name.kind == "snapshot" && other.name.id.created() > at;
        // In query mode the segment itself begins a new window.
        let mended = segment.mode == Mode::Query || entries.iter().any(is_base);
        found.push(GapFacts { at, why, mended });
    }
    found
}

fn read(store: &dyn ReadStore, entry: &Entry) -> Option<Segment> {
    let key = entry.name.manifest_key();
    let bytes = catalog::read_manifest(store, &key).ok()?;
    let manifest = Manifest::parse(&bytes, &key).ok()?;
    serde_json::from_value(manifest.capture).ok()
}
