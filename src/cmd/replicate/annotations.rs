//! Copies of what stands beside backups: pins, notes, and wrapped keys.

use std::collections::HashSet;
use std::io::Read as _;

use serde_json::{Map, Value};

use super::progress::Progress;
use super::replication::Replication;
use super::report::CopiesReport;
use crate::catalog::Entry;
use crate::domain::limits::MARK_BYTES_MAX;
use crate::domain::names::{BackupName, Mark};
use crate::error::{Fault, Kind};
use crate::ops::authenticity::ANNOTATION;
use crate::ops::records;
use crate::store::Role;

/// Most annotations of one kind and one backup that are copied in one run, the newest: somebody may plant them.
const MARKS_MAX: usize = 64;

impl Replication<'_> {
    /// Copies pins, notes, what takes pins back, and wrapped keys. What was found damaged or intact in one store says nothing of
    /// another. Beside a copy that was sealed anew there are no wrapped keys: they would be those of the old bytes.
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
        let is_resealed = progress.resealed.contains(&entry.name.id);
        let has_own_keys = is_resealed || self.reseal.is_some();
        let wrapped = if has_own_keys { Vec::new() } else { wrapped };
        for mark in pins.into_iter().chain(unpins).chain(notes).chain(wrapped) {
            let key = entry.name.key(&mark.extension());
            let of = is_resealed.then_some(&entry.name);
            let copied = if self.dry_run { Ok(()) } else { self.annotation(&key, of) };
            match copied {
                Ok(()) => report.annotations += 1,
                Err(error) => report.problems.push(format!("{key}: {error:#}")),
            }
        }
    }

    /// Copies an annotation, of a backup under another data key if one is given: what proves it is made anew then.
    fn annotation(&self, key: &str, resealed: Option<&BackupName>) -> anyhow::Result<()> {
        let mut bytes = Vec::new();
        self.origin.open(key, None)?.take(MARK_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MARK_BYTES_MAX {
            return Err(Fault::new(Kind::Integrity, "it is larger than any annotation").into());
        }
        if let Some(name) = resealed {
            bytes = self.proven_anew(key, bytes, name)?;
        }
        Ok(records::add_bytes(self.destination, (key, Role::Index), &bytes)?)
    }

    /// The bytes of an annotation with a proof by the copy of its backup, if it was proven by that backup; as they are
    /// otherwise, and nobody believes more of it there than here.
    fn proven_anew(&self, key: &str, bytes: Vec<u8>, name: &BackupName) -> anyhow::Result<Vec<u8>> {
        if self.proofs_here.proven(ANNOTATION, key, &bytes).as_ref() != Some(name) {
            return Ok(bytes);
        }
        let mut body: Map<String, Value> = serde_json::from_slice(&bytes)?;
        body.remove("proof");
        Ok(self.proofs_there.object(ANNOTATION, key, &body, [name])?)
    }
}
