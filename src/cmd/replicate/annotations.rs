//! Copies of what stands beside backups: pins, notes, and wrapped keys.

use std::collections::HashSet;
use std::io::Read as _;

use super::progress::Progress;
use super::replication::Replication;
use super::report::CopiesReport;
use crate::catalog::Entry;
use crate::domain::limits::MARK_BYTES_MAX;
use crate::domain::names::Mark;
use crate::error::{Fault, Kind};
use crate::ops::records;
use crate::store::Role;

/// Most annotations of one kind and one backup that are copied in one run, the newest: somebody may plant them.
const MARKS_MAX: usize = 64;

impl Replication<'_> {
    /// Copies pins, notes, what takes pins back, and wrapped keys. What was found damaged or intact in one store says nothing of
    /// another.
    pub(super) fn annotations(
        &self,
        entry: &Entry,
        progress: &Progress,
        report: &mut CopiesReport,
    ) {
        let known = progress.there.get(&entry.name);
        let known: HashSet<&Mark> = known.iter().flat_map(|known| &known.entry.marks).collect();
        let newest = |is_kind: fn(&Mark) -> bool| {
            let marks = entry.marks.iter().rev().filter(move |mark| is_kind(mark));
            marks.filter(|mark| !known.contains(mark)).take(MARKS_MAX).copied().collect::<Vec<_>>()
        };
        let pins = newest(|mark| matches!(mark, Mark::Pin(_)));
        let unpins = newest(|mark| matches!(mark, Mark::Unpin(_)));
        let notes = newest(|mark| matches!(mark, Mark::Note(_)));
        let wrapped = newest(|mark| matches!(mark, Mark::Wrapped(_)));
        for mark in pins.into_iter().chain(unpins).chain(notes).chain(wrapped) {
            let key = entry.name.key(&mark.extension());
            let copied = if self.dry_run { Ok(()) } else { self.annotation(&key) };
            match copied {
                Ok(()) => report.annotations += 1,
                Err(error) => report.problems.push(format!("{key}: {error:#}")),
            }
        }
    }

    fn annotation(&self, key: &str) -> anyhow::Result<()> {
        let mut bytes = Vec::new();
        self.origin.open(key, None)?.take(MARK_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MARK_BYTES_MAX {
            return Err(Fault::new(Kind::Integrity, "it is larger than any annotation").into());
        }
        Ok(records::add_bytes(self.destination, (key, Role::Index), &bytes)?)
    }
}
