//! The annotations of a source's backups that count.

use crate::catalog::Entry;
use crate::domain::health::{Finding, Level, Rule};
use crate::domain::id::BackupId;
use crate::ops::annotations::{Damage, judge};
use crate::ops::authenticity;
use crate::ops::authenticity::ProofChecker;
use crate::store::ReadStore;
use crate::wire::AppContext;

/// How many backups a finding names.
const NAMED_MAX: usize = 3;

/// What counts of what is said of backups.
#[derive(Default)]
pub(super) struct AnnotationSummary {
    pub(super) pinned: usize,
    pub(super) damaged: usize,
    pub(super) newest_damaged: bool,
    /// Of which something is said that no key at hand proves.
    unproven: Vec<BackupId>,
}

/// What counts of what is said of `mine`, the newest last. What cannot be read counts as its name says.
pub(super) fn of(app: &AppContext, store: &dyn ReadStore, mine: &[&Entry]) -> AnnotationSummary {
    let mut words = AnnotationSummary::default();
    if mine.iter().all(|entry| entry.marks.is_empty()) {
        return words;
    }
    let keys = authenticity::keys(app);
    let proof_checker = ProofChecker::new(store, &keys, &app.ctx);
    for entry in mine.iter().filter(|entry| !entry.marks.is_empty()) {
        let (pinned, damage, unproven) =
            match judge(store, &proof_checker, &entry.name, &entry.marks) {
                Ok(judged) => (judged.pinned, judged.damage, judged.unproven),
                Err(_) if entry.is_damaged() => (entry.is_pinned(), Damage::Claimed, true),
                Err(_) => (entry.is_pinned(), Damage::None, true),
            };
        words.pinned += usize::from(pinned);
        words.damaged += usize::from(damage != Damage::None);
        let is_newest = mine.last().is_some_and(|last| last.name == entry.name);
        words.newest_damaged |= is_newest && damage == Damage::Confirmed;
        words.unproven.extend(unproven.then_some(entry.name.id));
    }
    words
}

impl AnnotationSummary {
    /// What there is to say of words that nobody proves.
    pub(super) fn finding(&self, source: &str, store: &str) -> Option<Finding> {
        let count = self.unproven.len();
        let named: Vec<String> =
            self.unproven.iter().take(NAMED_MAX).map(BackupId::to_string).collect();
        let named = named.join(", ");
        let message = format!(
            "{count} backup(s) carry unauthenticated marks (damaged, sound or unpinned): pins stay, and nothing is built on a backup marked as damaged; resolve with `bkp verify --id` or `bkp unpin`: {named}"
        );
        let (level, rule, subject) = (Level::Warning, Rule::UnprovenMarks, source.to_owned());
        let store = Some(store.to_owned());
        (count > 0).then_some(Finding { level, rule, subject, store, message })
    }
}
